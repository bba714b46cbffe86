import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { BursarError, PAGE_LINES } from "@bursar/protocol";

/**
 * One instance of `Batch(segments, pages)`, see circuits/batch.circom, or of `Inclusion(segments · pages)`, which shows a
 * line of what a batch of that size settled, see circuits/inclusion.circom.
 */
export interface CircuitSize {
  readonly name: string;
  /** `Batch` unless given. */
  readonly template?: "Batch" | "Inclusion";
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

/** Constraints of `Inclusion` for each page, at most: the hash, seven choices, one last page. */
const INCLUSION_PAGE = 440;

/** The circuit that shows lines of what a batch of this size settled. */
export function inclusionSize({ name, segments, pages }: CircuitSize): CircuitSize {
  const power = Math.ceil(Math.log2(segments * pages * INCLUSION_PAGE));
  return { name: `${name}-inclusion`, template: "Inclusion", segments, pages, power };
}

/** @throws BursarError `malformed-input` for a name that is of no circuit. */
export function circuitSize(name: string): CircuitSize {
  const sizes = circuitSizes().flatMap((size) => [size, inclusionSize(size)]);
  const size = sizes.find((candidate) => candidate.name === name);
  if (!size) {
    const limit = sizes.map((candidate) => candidate.name).join(" ");
    throw new BursarError("malformed-input", `There is no circuit «${name}».`, { value: name, limit });
  }
  return size;
}

/** Line slots of one segment. */
export const segmentSlots = ({ pages }: CircuitSize): number => pages * PAGE_LINES;

/** The most payments that one batch settles, or that a line is shown among. */
export const capacity = (size: CircuitSize): number => size.segments * segmentSlots(size);
