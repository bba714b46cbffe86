import type { Logger } from "snarkjs";

const silent = (): void => undefined;

/** snarkjs logs to the console unless it is given something else. */
export const quiet: Logger = { info: silent, debug: silent, warn: silent, error: silent };
