import type { Address } from "@bursar/protocol";
import { expect } from "chai";
import type { BaseContract, Result } from "ethers";

import { ethers } from "../fixture.ts";
import type { Ghost, GhostMandate } from "./ghost.ts";
import { remaining } from "./ghost.ts";
import type { Play } from "./play.ts";
import { FEE, type World } from "./world.ts";

/** One view, and what is done with its answer. */
interface Probe {
  readonly contract: BaseContract;
  readonly view: string;
  readonly args: readonly unknown[];
  readonly judge: (answer: Result) => void;
}

interface Seen {
  state: bigint;
  seq: bigint;
  base: bigint;
  spent: bigint;
  directSpent: bigint;
}

const [NONE, OPEN, REVOKED, EXPIRED, CLOSED, FALLBACK] = [0n, 1n, 2n, 3n, 4n, 5n];
const STATES = { open: OPEN, revoked: REVOKED, closed: CLOSED, fallback: FALLBACK };
/** I7: what may follow what. An expired mandate is an open one whose time is over. */
const FOLLOWS: Record<string, readonly bigint[]> = {
  [String(NONE)]: [OPEN],
  [String(OPEN)]: [OPEN, REVOKED, CLOSED, FALLBACK],
  [String(REVOKED)]: [REVOKED, CLOSED, FALLBACK],
  [String(FALLBACK)]: [FALLBACK, CLOSED],
  [String(CLOSED)]: [CLOSED],
};
const CLAIMS = { filed: 1n, cured: 2n, paid: 3n, bonded: 4n };
const CHALLENGES = { open: 1n, answered: 2n, upheld: 3n };
const DISPUTES = { filed: 1n, answered: 2n, escalated: 3n, paid: 4n, refunded: 5n };
/** I10: the only steps by which a bond may fall. */
const TAKES_BOND = ["file", "pay victim", "finish slash", "take bond"];

/** What was seen after the step before, for what must never fall or change back. */
export class Checker {
  readonly #seen = new Map<Address, Seen>();
  readonly #bonds = new Map<Address, bigint>();

  /** Reads everything in one call and holds it against the ghost: I1 to I13, I15, I16 as docs/security.md names them. */
  async check({ world, ghost }: Play, step: string): Promise<void> {
    let [free, credits] = [0n, 0n];
    const probes = [
      ...accountProbes(world, ghost, (isCredit, amount) => (isCredit ? (credits += amount) : (free += amount))),
      ...ghost.mandates.flatMap((mandate) => this.#mandateProbes(world, mandate)),
      ...ghost.processors.map((processor) => this.#bondProbe(world, ghost, processor.bondAccount, step)),
      ...processorProbes(world, ghost),
      ...claimProbes(world, ghost),
      ...holdProbes(world, ghost),
      ...arbiterProbes(world, ghost),
    ];
    let [locked, held] = [0n, 0n];
    probes.push(
      probe(world.escrow, "lockedOf", [world.token], ([amount]) => (locked = amount as bigint)),
      probe(world.dollar, "balanceOf", [world.addresses.escrow], ([amount]) => (held = amount as bigint)),
    );
    await readAll(world, probes);

    const { deposited, withdrawn, donated } = ghost.accounts;
    const owed = free + credits + locked;
    expect(held, "I1 solvency: what the escrow owes, and donations").to.equal(owed + donated);
    expect(deposited - withdrawn, "I2 conservation").to.equal(owed);
    expect(locked, "I3 locked").to.equal(ghost.accounts.locked);
    const unpaid = ghost.mandates.filter(({ state }) => state !== "closed").map(remaining);
    expect(locked, "I3 locked is what mandates have left").to.equal(sum(unpaid));
    await checkEther(world, ghost);
  }

  #mandateProbes(world: World, mandate: GhostMandate): Probe[] {
    const { address, budget, state } = mandate;
    return [
      probe(world.registry, "mandateOf", [address], ([record]) => {
        const one = (record as Result).toObject();
        const stored = one["state"] === EXPIRED ? OPEN : (one["state"] as bigint);
        const seen = this.#seen.get(address) ?? {
          state: NONE,
          seq: 0n,
          base: mandate.base,
          spent: 0n,
          directSpent: 0n,
        };
        const now: Seen = {
          state: stored,
          seq: one["seq"] as bigint,
          base: one["base"] as bigint,
          spent: one["spent"] as bigint,
          directSpent: one["directSpent"] as bigint,
        };
        expect(stored, "I7 state").to.equal(STATES[state]);
        expect(FOLLOWS[String(seen.state)], "I7 lifecycle").to.include(stored);
        if (seen.state === CLOSED) expect(now, "I8 nothing debits what is closed").to.deep.equal(seen);
        const isRising = now.seq >= seen.seq && now.spent >= seen.spent && now.directSpent >= seen.directSpent;
        expect(isRising, "I4 nothing falls").to.equal(true);
        if (this.#seen.has(address)) expect(now.base !== seen.base, "I4 head").to.equal(now.seq > seen.seq);
        expect(now.spent + now.directSpent <= budget, "P1 debits_never_exceed_budget").to.equal(true);
        expect(
          [now.seq, now.base, now.spent, now.directSpent, one["reserved"], one["closesAt"], one["budget"]],
          "I3, I4 mandate",
        ).to.deep.equal([
          mandate.seq,
          mandate.base,
          mandate.spent,
          mandate.directSpent,
          mandate.reserved,
          mandate.closesAt,
          budget,
        ]);
        this.#seen.set(address, now);
      }),
      probe(world.registry, "remainingOf", [address], ([left]) => {
        expect(left, "I3 budget = remaining + spent + refunded, I8").to.equal(
          state === "closed" ? 0n : remaining(mandate),
        );
      }),
    ];
  }

  #bondProbe(world: World, ghost: Ghost, account: Address, step: string): Probe {
    return probe(world.escrow, "balanceOf", [world.token, account], ([bond]) => {
      const before = this.#bonds.get(account) ?? 0n;
      if ((bond as bigint) < before) expect(TAKES_BOND, "I10 bond falls by slash or unbonding alone").to.include(step);
      this.#bonds.set(account, bond as bigint);
      expect(bond, "I10 bond").to.equal(ghost.accounts.balanceOf(account));
    });
  }
}

const sum = (amounts: readonly bigint[]): bigint => amounts.reduce((total, amount) => total + amount, 0n);

const probe = (
  contract: BaseContract,
  view: string,
  args: readonly unknown[],
  judge: (answer: Result) => void,
): Probe => ({ contract, view, args, judge });

async function readAll({ reader }: World, probes: readonly Probe[]): Promise<void> {
  const views = await Promise.all(
    probes.map(async ({ contract, view, args }) => ({
      target: await contract.getAddress(),
      data: contract.interface.encodeFunctionData(view, args),
    })),
  );
  const answers = await reader.read(views);
  probes.forEach(({ contract, view, judge }, i) => judge(contract.interface.decodeFunctionResult(view, answers[i]!)));
}

/** I12: every account has exactly what was meant for it, whoever called. */
function accountProbes(
  { escrow, token }: World,
  { accounts }: Ghost,
  add: (isCredit: boolean, amount: bigint) => void,
): Probe[] {
  return [...accounts.accounts()].flatMap((account) => [
    probe(escrow, "freeOf", [token, account], ([amount]) => {
      add(false, amount as bigint);
      expect(amount, `I12 free of ${account}`).to.equal(accounts.freeOf(account));
    }),
    probe(escrow, "creditOf", [token, account], ([amount]) => {
      add(true, amount as bigint);
      expect(amount, `I12 credit of ${account}`).to.equal(accounts.creditOf(account));
    }),
  ]);
}

function processorProbes({ processors, token }: World, ghost: Ghost): Probe[] {
  return ghost.processors.flatMap(({ account, covered, slash, coversUntil, unbondingAt, key }) => [
    probe(processors, "coveredOf", [account.address, token], ([amount]) => {
      const open = ghost.mandates.filter((one) => one.processor.account === account && one.state !== "closed");
      expect(amount, "I9 covered is what open mandates lock").to.equal(sum(open.map(({ budget }) => budget)));
      expect(amount, "I9 covered").to.equal(covered);
    }),
    probe(processors, "slashOf", [account.address, token], ([answer]) => {
      const { windowEndsAt, pot, owed, finished } = (answer as Result).toObject();
      expect([windowEndsAt, pot, owed, finished], "slash").to.deep.equal(
        slash ? [slash.endsAt, slash.pot, slash.owed, slash.finished] : [0n, 0n, 0n, false],
      );
    }),
    probe(processors, "processorOf", [account.address], ([answer]) => {
      const one = (answer as Result).toObject();
      expect([one["receiptKey"], one["unbondingAt"], one["coversUntil"], one["slashed"]], "processor").to.deep.equal([
        key.address,
        unbondingAt ?? 0n,
        coversUntil,
        slash !== null,
      ]);
    }),
  ]);
}

function claimProbes({ claims, challenges }: World, ghost: Ghost): Probe[] {
  const filed = [...ghost.claims.values()].map(({ receipt, status }) =>
    probe(claims, "claimOf", [receipt.id], ([answer]) => {
      expect((answer as Result).toObject()["status"], "claim").to.equal(CLAIMS[status]);
    }),
  );
  const paid = [...ghost.paidOf].map(([name, id]) => {
    const [agent, seq] = name.split(" ");
    const mandate = ghost.mandates.find(({ address }) => address === agent)!;
    return probe(claims, "paidOf", [agent, seq], ([answer]) => {
      expect(answer, "P9 each number is paid by one claim").to.equal(id);
      expect(mandate.seq < BigInt(seq!), "I6 never claimed and settled").to.equal(true);
    });
  });
  const challenged = [...ghost.challenges].map(([id, { status }]) =>
    probe(challenges, "challengeOf", [id], ([answer]) => {
      expect((answer as Result).toObject()["status"], "challenge").to.equal(CHALLENGES[status]);
    }),
  );
  return [...filed, ...paid, ...challenged];
}

/** I13: a hold has what its books say, and what a dispute froze goes to exactly one side. */
function holdProbes({ disputes }: World, ghost: Ghost): Probe[] {
  const holds = ghost.holds.map((hold) =>
    probe(disputes, "holdStateOf", [hold.address], ([answer]) => {
      const { known, frozen, tranches, cursor } = (answer as Result).toObject();
      expect([known, frozen, tranches, cursor], "hold").to.deep.equal([
        hold.known,
        hold.frozen,
        BigInt(hold.tranches.length),
        BigInt(hold.cursor),
      ]);
      const waiting = sum(hold.tranches.map(({ amount }) => amount));
      const disputed = ghost.disputes.filter((one) => one.hold === hold && one.out === null);
      expect(known, "I13 a hold's parts").to.equal(waiting + hold.frozen);
      expect(frozen, "I13 frozen for open disputes").to.equal(sum(disputed.map(({ amount }) => amount)));
      expect(ghost.accounts.balanceOf(hold.address) >= hold.known, "I13 a hold's balance").to.equal(true);
    }),
  );
  const filed = ghost.disputes.map(({ id, status, deadline }) =>
    probe(disputes, "disputeOf", [id], ([answer]) => {
      const one = (answer as Result).toObject();
      expect([one["status"], one["deadline"]], "I13 dispute").to.deep.equal([DISPUTES[status], deadline]);
    }),
  );
  return [...holds, ...filed];
}

function arbiterProbes({ arbiter }: World, ghost: Ghost): Probe[] {
  return ghost.arbiters.map(({ account, bond, open, leavesAt }) =>
    probe(arbiter, "arbiterOf", [account.address], ([answer]) => {
      const one = (answer as Result).toObject();
      expect([one["bond"], one["open"], one["leavesAt"]], "arbiter").to.deep.equal([bond, open, leavesAt]);
    }),
  );
}

/** I1 of the arbiters' ether: bonds, the fees of cases that wait, and what is owed. */
async function checkEther({ addresses }: World, ghost: Ghost): Promise<void> {
  const held = await ethers.provider.getBalance(addresses.arbiter);
  const bonds = sum(ghost.arbiters.map(({ bond }) => bond));
  const fees = FEE * BigInt(ghost.cases.filter(({ status }) => status === "waiting").length);
  expect(held, "I1 ether").to.equal(bonds + fees + sum([...ghost.owedTo.values()]));
}
