import { AbiCoder, id, keccak256 } from "ethers";
import { z } from "zod";
import { BursarError } from "./errors.ts";
import { FIELD, poseidon } from "./field.ts";
import { fieldSchema, lineSchema, parseWire, toWire, uint64Schema } from "./schemas.ts";
import type { Address, Domain, Hex, Line, Payment } from "./types.ts";
import { assertAmount, MAX_TOTAL } from "./units.ts";

/** Lines on one page. */
export const PAGE_LINES = 7;

const LINES = BigInt(PAGE_LINES);
const GENESIS_TAG = id("bursar.genesis");
const AMOUNT_SHIFT = 160n;

/** The head before the first payment: keccak256(tag, chainId, registry, agent) mod r. */
export function genesis(domain: Domain, agent: Address): bigint {
  const encoded = AbiCoder.defaultAbiCoder().encode(
    ["bytes32", "uint256", "address", "address"],
    [GENESIS_TAG, domain.chainId, domain.registry, agent],
  );
  return BigInt(keccak256(encoded)) % FIELD;
}

/** A line as a field element: payee + amount·2^160. @throws amount-zero, amount-too-large */
export function lineToField(line: Pick<Line, "payee" | "amount">): bigint {
  assertAmount(line.amount);
  return BigInt(line.payee) + (line.amount << AMOUNT_SHIFT);
}

/** Salt of a page (0, 1, …): keccak256(secret, page) without its lowest byte, so below 2^248. */
export function pageSalt(secret: Hex, page: bigint): bigint {
  return BigInt(keccak256(AbiCoder.defaultAbiCoder().encode(["bytes32", "uint64"], [secret, page]))) >> 8n;
}

/** Computes {@link pageHash}; passed in where the portable one is too slow. */
export type PageHash = (prev: bigint, lines: readonly bigint[], salt: bigint) => bigint;

/**
 * Hash of a page.
 *
 * @param prev hash of the last full page, or the genesis.
 * @param lines the page's lines as field elements, at most seven; the missing ones are unused and count as zero.
 */
export function pageHash(prev: bigint, lines: readonly bigint[], salt: bigint): bigint {
  if (lines.length > PAGE_LINES) throw new RangeError(`a page holds ${PAGE_LINES} lines, not ${lines.length}`);
  const unused = Array<bigint>(PAGE_LINES - lines.length).fill(0n);
  return poseidon([prev, ...lines, ...unused, salt]);
}

/** The page that payment `seq` (from 1) stands on, counted from 0. */
export function pageOf(seq: bigint): bigint {
  if (seq < 1n) throw new RangeError(`payments count from 1, not ${seq}`);
  return (seq - 1n) / LINES;
}

/** Lines already used on the page that the payment after `seq` goes to: `seq mod 7`, 0 when a new page begins. */
export function offsetOf(seq: bigint): bigint {
  return seq % LINES;
}

/** A field element as bytes32. */
export function headHex(head: bigint): Hex {
  return `0x${head.toString(16).padStart(64, "0")}`;
}

/** Where a ledger stands: enough to append the next payment, for the agent and for the processor alike. */
export interface Position {
  /** Payments so far. */
  readonly seq: bigint;
  /** Their total, in units. */
  readonly spent: bigint;
  /** Hash of the last full page, or the genesis: what the contract calls `base` when it stands here. */
  readonly base: Hex;
  /** The lines of the page that is not full yet, fewer than seven. */
  readonly lines: readonly Line[];
}

/** The position before the first payment. */
export function startOf(domain: Domain, agent: Address): Position {
  return { seq: 0n, spent: 0n, base: headHex(genesis(domain, agent)), lines: [] };
}

/**
 * The payment that appends `line`, and the position after it. Pure: agent and processor run the same function, one
 * to write a payment, the other to check it.
 *
 * @throws amount-zero, amount-too-large, total-too-large
 */
export function advance(
  position: Position,
  line: Line,
  salt: bigint,
  hashPage: PageHash = pageHash,
): { payment: Payment; position: Position } {
  const lines = [...position.lines, line];
  const head = headHex(hashPage(BigInt(position.base), lines.map(lineToField), salt));
  const spent = position.spent + line.amount;
  if (spent > MAX_TOTAL) {
    throw new BursarError("total-too-large", `A total of ${spent} units is above ${MAX_TOTAL}`, {
      value: spent,
      limit: MAX_TOTAL,
    });
  }
  const seq = position.seq + 1n;
  const full = lines.length === PAGE_LINES;
  return {
    payment: { seq, spent, head, line },
    position: full ? { seq, spent, base: head, lines: [] } : { seq, spent, base: position.base, lines },
  };
}

/** What an agent must keep to resume: its position, and the line it handed out last if that has no answer yet. */
export interface LedgerState extends Position {
  readonly pending: Line | null;
}

/** {@link LedgerState} on the wire or on disk, written with `toWire`. */
export const ledgerStateSchema = z
  .strictObject({
    seq: uint64Schema,
    spent: uint64Schema,
    base: fieldSchema,
    lines: z.array(lineSchema).max(PAGE_LINES - 1),
    pending: lineSchema.nullable(),
  })
  .refine((state) => BigInt(state.lines.length) === offsetOf(state.seq), {
    path: ["lines"],
    error: "not the lines of the open page",
  });

/** A payment ready to be signed, with what the processor needs to check its head. */
export interface Draft {
  readonly payment: Payment;
  readonly salt: bigint;
  readonly page: bigint;
}

/**
 * The agent's side of its ledger.
 *
 * `draft` hands out the next payment and holds its sequence number until the processor has answered: `commit` when it
 * gave a receipt, `discard` when it refused. Keep `state` before a draft leaves the machine: a ledger resumed from it
 * hands out the same payment again and never a second line for one sequence number. Budget and cap are the caller's.
 */
export class AgentLedger {
  readonly #secret: Hex;
  readonly #hashPage: PageHash;
  #position: Position;
  #pending: Step | null = null;

  /** @throws malformed-input when `state` contradicts itself or is of another ledger. */
  constructor(options: { domain: Domain; agent: Address; secret: Hex; state?: LedgerState; hashPage?: PageHash }) {
    const start = startOf(options.domain, options.agent);
    const { pending, ...position } = options.state ?? { ...start, pending: null };
    if (BigInt(position.lines.length) !== offsetOf(position.seq)) {
      throw new BursarError("malformed-input", "The state's lines are not those of its open page", {
        value: position.lines.length,
        limit: offsetOf(position.seq),
      });
    }
    if (position.seq < LINES && position.base !== start.base) {
      throw new BursarError("malformed-input", "The state is of another ledger", {
        value: position.base,
        limit: start.base,
      });
    }
    this.#secret = options.secret;
    this.#hashPage = options.hashPage ?? pageHash;
    this.#position = position;
    if (pending !== null) this.#pending = this.#step(pending);
  }

  /** To be kept durably; `parseLedgerState` reads back what `toWire` made of it. */
  get state(): LedgerState {
    return { ...this.#position, pending: this.#pending?.draft.payment.line ?? null };
  }

  /** The payment that was handed out and has no answer yet, to be sent again after a crash. */
  get pending(): Draft | null {
    return this.#pending?.draft ?? null;
  }

  /**
   * The next payment, with `line`. The same line again gives the same draft.
   *
   * @throws sequence-taken while another line is pending; amount-zero, amount-too-large, total-too-large.
   */
  draft(line: Line): Draft {
    this.#pending ??= this.#step(line);
    const { draft } = this.#pending;
    if (sameLine(draft.payment.line, line)) return draft;
    throw new BursarError(
      "sequence-taken",
      `Payment ${draft.payment.seq} is handed out with another line`,
      { value: JSON.stringify(toWire(line)), limit: JSON.stringify(toWire(draft.payment.line)) },
      "Send the pending payment again; commit it when it has a receipt, discard it when it was refused.",
    );
  }

  /** Appends the pending line: it has a receipt. @throws sequence-gap when nothing is pending. */
  commit(): void {
    if (this.#pending === null) {
      throw new BursarError("sequence-gap", "No payment is pending", {
        value: this.#position.seq + 1n,
        limit: this.#position.seq,
      });
    }
    this.#position = this.#pending.position;
    this.#pending = null;
  }

  /** Frees the pending sequence number: the processor refused the payment and recorded nothing. */
  discard(): void {
    this.#pending = null;
  }

  /** `draft` and `commit` in one step, for a ledger that is rebuilt from payments with receipts. */
  append(line: Line): Draft {
    const draft = this.draft(line);
    this.commit();
    return draft;
  }

  #step(line: Line): Step {
    const page = pageOf(this.#position.seq + 1n);
    const salt = pageSalt(this.#secret, page);
    const { payment, position } = advance(this.#position, line, salt, this.#hashPage);
    return { draft: { payment, salt, page }, position };
  }
}

/** A payment that was handed out, and where the ledger stands once it is committed. */
interface Step {
  readonly draft: Draft;
  readonly position: Position;
}

function sameLine(one: Line, other: Line): boolean {
  return (
    BigInt(one.payee) === BigInt(other.payee) && one.amount === other.amount && BigInt(one.ref) === BigInt(other.ref)
  );
}

/** A ledger's state as it was kept. @throws malformed-input */
export function parseLedgerState(value: unknown): LedgerState {
  return parseWire(ledgerStateSchema, value);
}
