import {
  allowList,
  FIELD,
  genesis,
  inverse,
  lineToField,
  pageHash,
  toField,
  type Address,
  type Line,
} from "@bursar/protocol";
import { circuitSize, layOut, showLine, type BatchRow, type CircuitInput, type InclusionInput } from "@bursar/prover";

import type { Instance } from "./mutants.ts";

/** A forged witness, in the statement of the circuit that alone stands against it. */
export interface Attack {
  readonly file: string;
  /** As it stands in the file. */
  readonly statement: string;
  /** What would be had. */
  readonly claim: string;
  readonly instance: Instance;
  readonly input: Readonly<Record<string, Inputs>>;
  /** Signals that the prover sets against what is computed; the rest follows. A function is told the value forged here. */
  readonly forged: Readonly<Record<string, Forgery>>;
}

type Inputs = bigint | readonly Inputs[];
type Forgery = bigint | ((computed: bigint) => bigint);

const Z = 0x1234567890abcdef1234567890abcdef1234567890abcdef1234567890abcdefn % FIELD;
const DOMAIN = { chainId: 31_337n, registry: "0x00000000000000000000000000000000000000C3" } as const;
const address = (n: number): Address => `0x${n.toString(16).padStart(40, "0")}`;
const [ADA, BEN] = [address(0xa1), address(0xb1)];
const [PAYEE, OTHER, THIRD] = [address(0x51), address(0x52), address(0x53)];

/** A mandate's row: `settled` lines of earlier batches on the current page, then `amounts` to PAYEE and OTHER in turn. */
function rowOf(
  agent: Address,
  amounts: readonly bigint[],
  { settled = 0, payees = [] as readonly Address[], cap = 1_000n } = {},
): BatchRow {
  const lines = [...Array<bigint>(settled).fill(3n), ...amounts].map((amount, i) => ({
    payee: i % 2 === 0 ? PAYEE : OTHER,
    amount,
  }));
  return {
    agent,
    base: genesis(DOMAIN, agent),
    seq: BigInt(settled),
    allow: allowList(payees),
    paymentCap: cap,
    salts: Array.from({ length: Math.ceil(lines.length / 7) }, (_, page) => BigInt(1_000 + page)),
    lines,
  };
}

const three = (): BatchRow[] => [rowOf(ADA, [5n, 6n, 7n])];
const listed = (): BatchRow[] => [rowOf(ADA, [5n, 6n, 7n], { payees: [PAYEE, OTHER] })];
const two = (): BatchRow[] => [...listed(), rowOf(BEN, [8n, 9n], { settled: 3 })];
const double = (): BatchRow[] => [rowOf(ADA, [5n, 6n]), rowOf(ADA, [5n, 6n])];
/** One row over two segments, and one that fills both. */
const continued = (): BatchRow[] => [rowOf(ADA, Array<bigint>(20).fill(4n))];
const filling = (): BatchRow[] => [rowOf(ADA, Array<bigint>(28).fill(4n))];

const one: Forgery = (computed) => computed + 1n;

/** The factor by which `payee · restricted = allow_0` holds for a payee off the list. */
const OPENING = toField(BigInt(PAYEE) * inverse(BigInt(THIRD)));
const UP_TO_40_BITS = 2n ** 40n - 1n;

type Spoil = (input: CircuitInput) => void;

/** An attack on a batch: what it is laid out of, how its inputs are spoiled, and what is forged. */
function onBatch(
  instance: "paged" | "long",
  file: string,
  statement: string,
  claim: string,
  rows: readonly BatchRow[],
  { spoil = () => undefined, forged = {} }: { spoil?: Spoil; forged?: Attack["forged"] },
): Attack {
  const [segments, pages] = instance === "paged" ? [2, 2] : [3, 1];
  const input = structuredClone(layOut({ name: instance, power: 13, segments, pages }, rows).input);
  spoil(input);
  return { file, statement, claim, instance, input: { ...input, z: Z }, forged };
}

type Case = [statement: string, claim: string, rows: readonly BatchRow[], how: Parameters<typeof onBatch>[5]];
const inFile = (file: string, cases: readonly Case[], instance: "paged" | "long" = "paged"): Attack[] =>
  cases.map((each) => onBatch(instance, file, ...each));

/** Everyone is paid to a payee off the list. */
const toThird: Spoil = ({ payee }) => void payee[0]!.fill(BigInt(THIRD));
const toOther: Spoil = ({ payee }) => void payee[0]!.fill(BigInt(OTHER));
const firstToThird: Spoil = ({ payee }) => (payee[0]![0] = BigInt(THIRD));
const aboveCap: Spoil = ({ amount }) => (amount[0]![0] = 1_001n);

const BATCH = inFile("batch.circom", [
  ["policy[s].cap <== cap[s];", "the root of another cap", listed(), { forged: { "policy[0].cap": one } }],
  [
    "policy[s].allow[k] <== allow[s][k];",
    "the root of another list",
    listed(),
    { forged: { "policy[0].allow[7]": one } },
  ],
  ["start[s] <== base[s];", "a ledger from another start", two(), { forged: { "start[0]": one } }],
  ["carried[s] <== 0;", "a debit from nowhere", two(), { forged: { "carried[0]": 5n } }],
  [
    "start[s] <== base[s] + continues[s - 1] * (segment[s - 1].head - base[s]);",
    "a row that goes on elsewhere",
    continued(),
    { forged: { "start[1]": one } },
  ],
  [
    "carried[s] <== continues[s - 1] * commitment.in[5 * (s - 1) + 4];",
    "a row whose first segment is not debited",
    continued(),
    { forged: { "carried[1]": 0n } },
  ],
  ["segment[s].z <== z;", "terms at a z of one's own", two(), { forged: { "segment[0].z": one } }],
  ["segment[s].start <== start[s];", "pages from another start", two(), { forged: { "segment[1].start": one } }],
  [
    "segment[s].cap <== cap[s];",
    "a payment above the cap",
    listed(),
    { spoil: aboveCap, forged: { "segment[0].cap": 1_001n } },
  ],
  [
    "segment[s].restricted <== policy[s].restricted;",
    "payments off the list",
    listed(),
    { spoil: toThird, forged: { "segment[0].restricted": OPENING } },
  ],
  [
    "segment[s].allow[k] <== allow[s][k];",
    "a payment off the list",
    listed(),
    { spoil: firstToThird, forged: { "segment[0].allow[7]": BigInt(THIRD) } },
  ],
  ["segment[s].skip[j] <== skip[s][j];", "a line that is not paid", listed(), { forged: { "segment[0].skip[0]": 1n } }],
  ["segment[s].salt[g] <== salt[s][g];", "a page of another salt", two(), { forged: { "segment[0].salt[0]": one } }],
  [
    "segment[s].last[i] <== last[s][i];",
    "a row without its last line",
    listed(),
    { forged: { "segment[0].last[1]": 1n, "segment[0].last[2]": 0n } },
  ],
  [
    "segment[s].payee[i] <== payee[s][i];",
    "a line to another payee",
    three(),
    { forged: { "segment[0].payee[0]": BigInt(THIRD) } },
  ],
  ["segment[s].amount[i] <== amount[s][i];", "a line of more", three(), { forged: { "segment[0].amount[0]": one } }],
  [
    "amounts.amount[s * L + i] <== amount[s][i];",
    "a commitment to another amount",
    three(),
    { forged: { "amounts.amount[0]": one } },
  ],
  [
    "continues[s] * (1 - continues[s]) === 0;",
    "a row that counts as −1 and goes on doubled",
    continued(),
    { spoil: ({ continues }) => (continues[0] = 2n) },
  ],
  [
    "continues[s] * (1 - segment[s].full) === 0;",
    "a row that goes on before its pages are full",
    double(),
    { spoil: ({ continues }) => (continues[0] = 1n) },
  ],
  [
    "continues[s - 1] * (1 - segment[s].active) === 0;",
    "a row that goes on in an idle segment, and so never ends",
    [rowOf(ADA, Array<bigint>(14).fill(4n))],
    {
      spoil: ({ continues, base, cap, allow }) => {
        continues[0] = 1n;
        [base[1], cap[1], allow[1]] = [base[0]!, cap[0]!, [...allow[0]!]];
      },
    },
  ],
  [
    "continues[s - 1] * segment[s].offset === 0;",
    "lines skipped in the middle of a row",
    continued(),
    { spoil: ({ skip }) => (skip[1]![0] = 1n) },
  ],
  [
    "continues[s - 1] * (base[s] - base[s - 1]) === 0;",
    "a row that ends as another ledger's",
    continued(),
    { spoil: ({ base }) => (base[1] = base[1]! + 1n) },
  ],
  [
    "continues[s - 1] * (policy[s].root - policy[s - 1].root) === 0;",
    "a first segment under another cap",
    continued(),
    { spoil: ({ cap }) => (cap[0] = UP_TO_40_BITS) },
  ],
  ["commitment.in[5 * s] <== base[s];", "a row of another base", two(), { forged: { "commitment.in[0]": one } }],
  [
    "commitment.in[5 * s + 1] <== segment[s].head;",
    "a row of another head",
    two(),
    { forged: { "commitment.in[1]": one } },
  ],
  [
    "commitment.in[5 * s + 2] <== segment[s].newBase;",
    "a row of another next base",
    two(),
    { forged: { "commitment.in[2]": one } },
  ],
  [
    "commitment.in[5 * s + 3] <== policy[s].root;",
    "a row under another policy",
    two(),
    { forged: { "commitment.in[3]": one } },
  ],
  [
    "commitment.in[5 * s + 4] <== carried[s] + segment[s].debit + segment[s].count * (1 << 96) + segment[s].offset * (1 << 128);",
    "a row of another debit",
    two(),
    { forged: { "commitment.in[4]": one } },
  ],
  [
    "finished[s] <== segment[s].active * (1 - continues[s]);",
    "payments of a row that is not there",
    two(),
    { forged: { "finished[0]": 0n } },
  ],
  ["horner[s][v] <== value * z + commitment.in[5 * s + v];", "other rows", two(), { forged: { "horner[0][4]": one } }],
  [
    "gained[s] <== finished[s] * (horner[s][4] - evaluation);",
    "payments of a row that is not there",
    two(),
    { forged: { "gained[1]": 0n } },
  ],
  ["continues[S - 1] === 0;", "a row that never ends", filling(), { spoil: ({ continues }) => (continues[1] = 1n) }],
  [
    "commitment.in[5 * S + m] <== amounts.out[m];",
    "a commitment to other amounts",
    two(),
    { forged: { "commitment.in[10]": one } },
  ],
  ["C <== commitment.out;", "another commitment", two(), { forged: { C: one } }],
  ["T <== evaluation + sum;", "another evaluation", two(), { forged: { T: one } }],
]);

const COMMITMENT = inFile(
  "lib/commitment.circom",
  [
    ["head.inputs[i] <== in[i];", "a hash of something else", two(), { forged: { "commitment.head.inputs[3]": one } }],
    [
      "next[m].inputs[0] <== digest;",
      "a commitment that forgets what came first",
      two(),
      { forged: { "commitment.next[0].inputs[0]": 0n } },
    ],
    [
      "next[m].inputs[1 + i] <== in[at + i];",
      "a commitment to other amounts",
      two(),
      { forged: { "commitment.next[0].inputs[1]": one } },
    ],
    ["out <== digest;", "another commitment", two(), { forged: { "commitment.out": one } }],
    ["out[m] <== packed;", "a commitment to other amounts", two(), { forged: { "amounts.out[0]": one } }],
  ],
  "long",
);

const PAGE = inFile("lib/page.circom", [
  ["hash.inputs[0] <== prev;", "a page after another", two(), { forged: { "segment[0].page[0].hash.inputs[0]": one } }],
  [
    "hash.inputs[1 + j] <== line[j];",
    "a head of another line",
    two(),
    { forged: { "segment[0].page[0].hash.inputs[1]": one } },
  ],
  [
    "hash.inputs[8] <== salt;",
    "a head of another salt",
    two(),
    { forged: { "segment[0].page[0].hash.inputs[8]": one } },
  ],
  ["out <== hash.out;", "any head", two(), { forged: { "segment[0].page[0].out": one } }],
]);

const POLICY = inFile("lib/policy.circom", [
  [
    "hash.inputs[k] <== allow[k];",
    "the root of another list",
    listed(),
    { forged: { "policy[0].hash.inputs[7]": one } },
  ],
  ["hash.inputs[8] <== cap;", "the root of another cap", listed(), { forged: { "policy[0].hash.inputs[8]": one } }],
  ["root <== hash.out;", "any root", listed(), { forged: { "policy[0].root": one } }],
  [
    "open.in <== allow[0];",
    "a list that counts as open",
    listed(),
    { spoil: toOther, forged: { "policy[0].open.in": 0n } },
  ],
  [
    "restricted <== 1 - open.out;",
    "payments off the list",
    listed(),
    { spoil: toThird, forged: { "policy[0].restricted": OPENING } },
  ],
  [
    "capRange.in <== cap;",
    "a cap of 2^40",
    listed(),
    {
      spoil: ({ cap, amount }) => void ((cap[0] = 2n ** 40n), amount[0]!.fill(1n)),
      forged: { "policy[0].capRange.in": 1n },
    },
  ],
  [
    "product[0] <== payee * restricted - allow[0];",
    "a payment off the list",
    listed(),
    { spoil: firstToThird, forged: { "segment[0].allowed[0].product[0]": 0n } },
  ],
  [
    "product[k] <== product[k - 1] * (payee - allow[k]);",
    "a payment off the list",
    listed(),
    { spoil: firstToThird, forged: { "segment[0].allowed[0].product[6]": 0n } },
  ],
  ["product[6] * (payee - allow[7]) === 0;", "a payment off the list", listed(), { spoil: firstToThird }],
]);

const RANGE = inFile("lib/range.circom", [
  [
    "bits.in <== in;",
    "a payment above the cap",
    listed(),
    { spoil: aboveCap, forged: { "segment[0].atMostCap[0].bits.in": 0n } },
  ],
]);

const SEGMENT = inFile("lib/segment.circom", [
  [
    "last[i] * (1 - last[i]) === 0;",
    "an unused line that counts as −1",
    three(),
    { spoil: ({ last }) => void ([last[0]![2], last[0]![4]] = [2n, FIELD - 1n]) },
  ],
  [
    "used[0] * (1 - used[0]) === 0;",
    "a settled line again: used twice, skipped once",
    [rowOf(ADA, [5n], { settled: 2 })],
    { spoil: ({ last }) => (last[0]![0] = 1n) },
  ],
  ["active <== used[0];", "payments of a row that is not there", two(), { forged: { "segment[0].active": 0n } }],
  [
    "full <== used[L - 1];",
    "a row that goes on before its pages are full",
    double(),
    { spoil: ({ continues }) => (continues[0] = 1n), forged: { "segment[0].full": 1n } },
  ],
  [
    "skip[j] * (1 - skip[j]) === 0;",
    "a settled line again, in the place of a new one",
    [rowOf(ADA, [6n], { settled: 1 })],
    { spoil: ({ skip }) => void ([skip[0]![0], skip[0]![1]] = [FIELD - 1n, 1n]) },
  ],
  [
    "skip[j] * (1 - used[j]) === 0;",
    "lines skipped that are not there",
    [rowOf(ADA, [4n])],
    { spoil: ({ skip }) => (skip[0]![3] = 1n) },
  ],
  ["offset <== skips;", "a row of another offset", two(), { forged: { "segment[0].offset": one } }],
  ["page[g].prev <== prev;", "a page after another", two(), { forged: { "segment[0].page[0].prev": one } }],
  ["page[g].salt <== salt[g];", "a page of another salt", two(), { forged: { "segment[0].page[0].salt": one } }],
  [
    "atLeastOne[i].in <== amount[i] - used[i];",
    "a payment of 0",
    three(),
    { spoil: ({ amount }) => (amount[0]![0] = 0n), forged: { "segment[0].atLeastOne[0].in": 0n } },
  ],
  [
    "atMostCap[i].in <== cap - amount[i];",
    "a payment above the cap",
    three(),
    { spoil: aboveCap, forged: { "segment[0].atMostCap[0].in": 0n } },
  ],
  [
    "allowed[i].payee <== payee[i];",
    "a payment off the list",
    listed(),
    { spoil: firstToThird, forged: { "segment[0].allowed[0].payee": BigInt(PAYEE) } },
  ],
  [
    "allowed[i].restricted <== restricted;",
    "a payment off the list",
    listed(),
    { spoil: firstToThird, forged: { "segment[0].allowed[0].restricted": OPENING } },
  ],
  [
    "allowed[i].allow[k] <== allow[k];",
    "a payment off the list",
    listed(),
    { spoil: firstToThird, forged: { "segment[0].allowed[0].allow[7]": BigInt(THIRD) } },
  ],
  [
    "line[i] <== used[i] * (payee[i] + amount[i] * (1 << 160));",
    "a head without a line that is paid",
    three(),
    { forged: { "segment[0].line[1]": 0n } },
  ],
  [
    "page[g].line[j] <== line[i];",
    "a head without a line that is paid",
    three(),
    { forged: { "segment[0].page[0].line[1]": 0n } },
  ],
  ["paid[i] <== settled * amount[i];", "more than the line says", three(), { forged: { "segment[0].paid[0]": one } }],
  [
    "term[i] * (z + payee[i]) === paid[i];",
    "a credit that no line pays",
    three(),
    { forged: { "segment[0].term[0]": 77n } },
  ],
  [
    "term[i] * (1 - settled) === 0;",
    "a credit by an unused line to −z",
    three(),
    { spoil: ({ payee }) => (payee[0]![9] = FIELD - Z), forged: { "segment[0].term[9]": 77n } },
  ],
  ["toHead[g] <== used[7 * g] * (page[g].out - prev);", "any head", two(), { forged: { "segment[0].toHead[0]": one } }],
  [
    "toBase[g] <== used[7 * g + 6] * (page[g].out - prev);",
    "any next base",
    two(),
    { forged: { "segment[0].toBase[0]": one } },
  ],
  ["count <== lines;", "a row of more lines", two(), { forged: { "segment[0].count": one } }],
  ["debit <== total;", "a row of another debit", two(), { forged: { "segment[0].debit": one } }],
  ["sum <== terms;", "credits that no line pays", two(), { forged: { "segment[0].sum": one } }],
  ["head <== end;", "any head", two(), { forged: { "segment[0].head": one } }],
  ["newBase <== base;", "any next base", two(), { forged: { "segment[0].newBase": one } }],
]);

const lines: Pick<Line, "payee" | "amount">[] = Array.from({ length: 9 }, (_, i) => ({
  payee: i % 2 === 0 ? PAYEE : OTHER,
  amount: BigInt(i + 1),
}));
const FIELDS = lines.map(lineToField);
const PART = { base: 9n, lines, salts: [1n, 2n] };
const FIRST_PAGE = pageHash(PART.base, FIELDS.slice(0, 7), 1n);
const FAKE = lineToField({ payee: THIRD, amount: 1_000n });

type Claim = (input: { -readonly [name in keyof InclusionInput]: InclusionInput[name] }) => void;

/** A claim about line 1 of nine on two pages, unless `shown` says which of how many. */
function onInclusion(
  statement: string,
  claim: string,
  spoil: Claim,
  forged: Attack["forged"] = {},
  shown: { index?: number; of?: number } = {},
): Attack {
  const { index = 1, of = 9 } = shown;
  const size = { ...circuitSize("tiny-inclusion"), segments: 1, pages: 2 };
  const part = { ...PART, lines: lines.slice(0, of), salts: PART.salts.slice(0, Math.ceil(of / 7)) };
  const input = { ...structuredClone(showLine(size, part, index).input) };
  spoil(input);
  return { file: "inclusion.circom", statement, claim, instance: "inclusion", input: { ...input }, forged };
}

/** Another line stands in the slot that is shown. */
const withFake: Claim = (input) => {
  input.line = FAKE;
  input.lines[1] = FAKE;
};

const INCLUSION = [
  onInclusion("page[g].prev <== base;", "a line after another base", (input) => (input.base = 8n), {
    "page[0].prev": PART.base,
  }),
  onInclusion("page[g].prev <== page[g - 1].out;", "any line of an earlier page", withFake, {
    "page[1].prev": FIRST_PAGE,
  }),
  onInclusion("page[g].salt <== salt[g];", "another salt", (input) => (input.salt[0] = 7n), { "page[0].salt": 1n }),
  onInclusion("page[g].line[j] <== lines[i];", "any line", withFake, { "page[0].line[1]": FIELDS[1]! }),
  onInclusion("chosen[i] * (1 - chosen[i]) === 0;", "a sum of lines", (input) => {
    [input.chosen[0], input.chosen[1]] = [FIELD - 1n, 2n];
    input.index = 2n;
    input.line = toField(2n * FIELDS[1]! - FIELDS[0]!);
  }),
  onInclusion("found[i] <== chosen[i] * lines[i];", "any line", (input) => (input.line = FAKE), { "found[1]": FAKE }),
  onInclusion("last[g] * (1 - last[g]) === 0;", "a head that is a sum of hashes", (input) => {
    [input.last[0], input.last[1]] = [2n, FIELD - 1n];
    input.head = toField(2n * FIRST_PAGE - pageHash(FIRST_PAGE, [...FIELDS.slice(7), 0n, 0n, 0n, 0n, 0n], 2n));
  }),
  onInclusion("reached[g] <== last[g] * page[g].out;", "any head", (input) => (input.head = 8n), { "reached[1]": 8n }),
  onInclusion(
    "onPage * pages === 0;",
    "any line after the head",
    (input) => {
      [input.chosen[1], input.chosen[8]] = [0n, 1n];
      [input.index, input.line, input.lines[8]] = [8n, FAKE, FAKE];
    },
    {},
    { of: 7 },
  ),
  onInclusion("pages === 1;", "a head of no page", (input) => {
    input.last.fill(0n);
    input.head = 0n;
  }),
  onInclusion("reach === head;", "any head", (input) => (input.head = 8n)),
  onInclusion("slots === 1;", "two lines as one", (input) => {
    input.chosen[0] = 1n;
    input.line = FIELDS[0]! + FIELDS[1]!;
  }),
  onInclusion("place === index;", "a line at another place", (input) => (input.index = 2n)),
  onInclusion("value === line;", "any line", (input) => (input.line = FAKE)),
  onInclusion(
    "inverse * line === 1;",
    "a line where there is none",
    (input) => {
      [input.chosen[1], input.chosen[3]] = [0n, 1n];
      [input.index, input.line] = [3n, 0n];
    },
    { inverse: 0n },
    { of: 3 },
  ),
];

/** At least one for each statement that makes a constraint. */
export const ATTACKS: readonly Attack[] = [
  ...BATCH,
  ...COMMITMENT,
  ...PAGE,
  ...POLICY,
  ...RANGE,
  ...SEGMENT,
  ...INCLUSION,
];

/** Statements that the others imply, so that nothing is had without them, and why. */
export const IMPLIED: readonly { file: string; statement: string; reason: string }[] = [
  {
    file: "lib/segment.circom",
    statement: "skipped[0] * (1 - skipped[0]) === 0;",
    reason:
      "term·(z + payee) = paid = settled·amount and term·(1 − settled) = 0 give settled·amount·(1 − settled) = 0. " +
      "A used line has amount >= 1, so settled = used − skipped is a bit there, and skipped with it; where no line is " +
      "used nothing is skipped.",
  },
];

/** The inputs of an attack by the names of their signals: `payee[0][3]`. */
export function signalsOf(input: Attack["input"]): Map<string, bigint> {
  const flatten = (name: string, value: Inputs): [string, bigint][] =>
    typeof value === "bigint" ? [[name, value]] : value.flatMap((each, i) => flatten(`${name}[${i}]`, each));
  return new Map(Object.entries(input).flatMap(([name, value]) => flatten(name, value)));
}
