/** What one unit of work costs, as it was measured; docs/scale.md says where. */
export interface UnitCosts {
  /** Microseconds of CPU to accept a payment over HTTP: of the service, and of PostgreSQL. */
  readonly accept: number;
  readonly database: number;
  /** Bytes of the books, and payments in a commit. */
  readonly bytes: number;
  readonly group: number;
  /** Gas of a batch: of each mandate, of each payee, of the proof, and of the rest. */
  readonly row: number;
  readonly credit: number;
  readonly rest: number;
}

/** A prover: payments of a full batch, mandates that it holds at most, and seconds on two cores. */
export interface ProverCosts {
  readonly name: string;
  readonly payments: number;
  readonly segments: number;
  readonly seconds: number;
}

/** How payments fall on mandates and payees, in each batch. */
export interface Shape {
  readonly name: string;
  /** Payments of one mandate in one batch. */
  readonly each: number;
  /** Payees in a batch. */
  readonly payees: number;
}

export interface Scale {
  readonly shape: Shape;
  readonly rows: number;
  /** Payments in a batch. */
  readonly payments: number;
  readonly batches: number;
  readonly gas: number;
  readonly gasEach: number;
  /** Cores that prove all day. */
  readonly provingCores: number;
}

const DAY = 86_400;

/** Payments of a mandate that its segments hold: those of one may not be shared with another mandate. */
function batchOf({ each }: Shape, { payments, segments }: ProverCosts): { rows: number; payments: number } {
  const slots = payments / segments;
  const rows = Math.max(1, Math.floor(segments / Math.ceil(each / slots)));
  return { rows, payments: Math.min(payments, rows * each) };
}

/** What so many payments a day take, in batches of one shape. */
export function scaleOf(day: number, shape: Shape, prover: ProverCosts, unit: UnitCosts): Scale {
  const { rows, payments } = batchOf(shape, prover);
  const gas = rows * unit.row + Math.min(shape.payees, payments) * unit.credit + unit.rest;
  const batches = day / payments;
  const provingCores = (batches * prover.seconds * 2) / DAY;
  return { shape, rows, payments, batches, gas, gasEach: gas / payments, provingCores };
}

/** What so many payments a day take in whatever shape. */
export function acceptingOf(day: number, unit: UnitCosts) {
  const rate = day / DAY;
  return {
    rate,
    cores: (rate * unit.accept) / 1e6,
    databaseCores: (rate * unit.database) / 1e6,
    commits: rate / unit.group,
    bytes: day * unit.bytes,
  };
}

/** A chain's blocks: gas of one, and seconds between them. */
export interface Blockspace {
  readonly name: string;
  readonly gas: number;
  readonly seconds: number;
}

/** Share of all of a chain's gas. */
export const shareOf = ({ gas, batches }: Scale, { gas: block, seconds }: Blockspace): number =>
  (gas * batches) / ((block * DAY) / seconds);
