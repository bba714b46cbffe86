import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { BursarError, PAGE_LINES } from "@bursar/protocol";

/** One instance of `Batch(segments, pages)`, see circuits/batch.circom. */
export interface CircuitSize {
  readonly name: string;
  readonly segments: number;
  /** Pages in a segment, each of seven lines. */
  readonly pages: number;
  /** Its constraints fit a domain of 2^power. */
  readonly power: number;
}

/** Root of the repository: circuits, build output and generated verifiers stand below it. */
export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

type Sizes = Record<string, Omit<CircuitSize, "name">>;

/** All sizes of circuits/circuits.json. */
export function circuitSizes(): CircuitSize[] {
  const sizes = JSON.parse(readFileSync(`${ROOT}/circuits/circuits.json`, "utf8")) as Sizes;
  return Object.entries(sizes).map(([name, size]) => ({ name, ...size }));
}

/** @throws BursarError `malformed-input` for a name that circuits.json does not list. */
export function circuitSize(name: string): CircuitSize {
  const sizes = circuitSizes();
  const size = sizes.find((candidate) => candidate.name === name);
  if (!size) {
    const limit = sizes.map((candidate) => candidate.name).join(" ");
    throw new BursarError("malformed-input", `There is no circuit «${name}».`, { value: name, limit });
  }
  return size;
}

/** Line slots of one segment. */
export const segmentSlots = ({ pages }: CircuitSize): number => pages * PAGE_LINES;

/** The most payments that one batch settles. */
export const capacity = (size: CircuitSize): number => size.segments * segmentSlots(size);
