import { headHex, signClose, type Address } from "@bursar/protocol";
import { expect } from "chai";
import type { Wallet } from "ethers";
import fc from "fast-check";

import { WINDOWS } from "../../deploy/index.ts";
import {
  BOND,
  core,
  deployer,
  fund,
  networkHelpers,
  open,
  other,
  owner,
  payee,
  processor,
  settlement,
  stranger,
  type Core,
} from "./fixture.ts";
import { signRow } from "./settle-one.ts";
import { signDebit, signTransfer } from "./sign-direct.ts";

const RUNS = 60;
const DEPTH = 50;

/** What the contracts should hold, kept beside them. */
interface Ghost {
  deposited: bigint;
  withdrawn: bigint;
  free: bigint;
  credits: Map<string, bigint>;
  mandates: {
    agent: Wallet;
    budget: bigint;
    paymentCap: bigint;
    spent: bigint;
    directSpent: bigint;
    seq: bigint;
    /** Nonces of direct payments that paid; those that did not may come again. */
    used: Set<string>;
    closesAt: bigint;
    closed: boolean;
    revokedAt?: bigint;
    /** What the processor acknowledged, or both signed, of a revoked one. */
    acknowledged?: { seq: bigint; directSpent: bigint };
    together: boolean;
  }[];
}

/**
 * Random calls by owner, agents, processor, payees and a stranger on both rails, with the batch settlement contract played
 * by the test: what the proof guards is taken as given here, and everything that must hold whatever a proof says is
 * checked after each step.
 */
describe("Stateful invariants of escrow, registry and the direct rail", function () {
  this.timeout(300_000);

  const amount = fc.bigInt({ min: 1n, max: 3_000n });
  const index = fc.nat({ max: 7 });
  const step = fc.oneof(
    fc.record({ kind: fc.constant("deposit" as const), amount }),
    fc.record({ kind: fc.constant("withdraw" as const), amount }),
    fc.record({ kind: fc.constant("open" as const), amount }),
    fc.record({ kind: fc.constant("settle" as const), index, amount, split: fc.bigInt({ min: 0n, max: 3_000n }) }),
    fc.record({ kind: fc.constant("replay" as const), index, amount }),
    fc.record({
      kind: fc.constant("direct" as const),
      index,
      amount: fc.bigInt({ min: 0n, max: 1_200n }),
      form: fc.constantFrom("transfer" as const, "debit" as const),
      nonce: fc.bigInt({ min: 0n, max: 3n }),
      first: fc.boolean(),
    }),
    fc.record({ kind: fc.constant("revoke" as const), index }),
    fc.record({
      kind: fc.constant("acknowledge" as const),
      index,
      ahead: fc.bigInt({ min: 0n, max: 2n }),
      amount: fc.bigInt({ min: 0n, max: 1_200n }),
    }),
    fc.record({ kind: fc.constant("together" as const), index, ahead: fc.bigInt({ min: 0n, max: 1n }) }),
    fc.record({ kind: fc.constant("close" as const), index }),
    fc.record({ kind: fc.constant("wait" as const), hours: fc.integer({ min: 1, max: 60 }) }),
    fc.record({ kind: fc.constant("sweep" as const), first: fc.boolean() }),
    fc.record({ kind: fc.constant("donate" as const), amount }),
    fc.record({ kind: fc.constant("intrude" as const), index }),
  );
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

  it("P1 debits_never_exceed_budget, P3, P4, P5 revoke_is_final, P9 pay_once, P17; I1 solvency, I2, I3, I4, I7, I8, I11, I12 after every step", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: DEPTH / 2, maxLength: DEPTH }), async (steps) => {
        const context = await core();
        const ghost: Ghost = { deposited: 0n, withdrawn: 0n, free: 0n, credits: new Map(), mandates: [] };
        for (const one of steps) {
          await perform(context, ghost, one);
          await check(context, ghost);
        }
        await exit(context, ghost);
      }),
      { numRuns: RUNS, endOnFailure: true },
    );
  });

  const succeeds = (sent: Promise<unknown>): Promise<boolean> =>
    sent.then(
      () => true,
      () => false,
    );

  async function perform(context: Core, ghost: Ghost, one: Step): Promise<void> {
    const { escrow, registry, dollar, token } = context;
    const mandate = "index" in one ? ghost.mandates[one.index % Math.max(ghost.mandates.length, 1)] : undefined;
    switch (one.kind) {
      case "deposit":
        await fund(context, one.amount);
        ghost.deposited += one.amount;
        ghost.free += one.amount;
        return;
      case "withdraw":
        expect(await succeeds(escrow.connect(owner).withdraw(token, one.amount, owner.address))).to.equal(
          one.amount <= ghost.free,
        );
        if (one.amount <= ghost.free) {
          ghost.free -= one.amount;
          ghost.withdrawn += one.amount;
        }
        return;
      case "open": {
        const paymentCap = one.amount < 1_000n ? one.amount : 1_000n;
        const { agent, mandate: opened } = await open(context, { budget: one.amount, paymentCap });
        ghost.deposited += one.amount;
        ghost.mandates.push({
          agent: agent as Wallet,
          budget: one.amount,
          paymentCap,
          spent: 0n,
          directSpent: 0n,
          seq: 0n,
          used: new Set(),
          closesAt: opened.validUntil + TAIL,
          closed: false,
          together: false,
        });
        return;
      }
      case "settle": {
        if (!mandate) return;
        const row = await signRow(context, mandate.agent, payee.address, one.amount);
        const first = one.split < one.amount ? one.split : one.amount;
        const credits = [
          { payee: payee.address, amount: first },
          { payee: other.address, amount: one.amount - first },
        ];
        const time = BigInt(await networkHelpers.time.latest()) + 1n;
        const answered = mandate.acknowledged
          ? mandate.seq + 1n <= mandate.acknowledged.seq
          : isAnswerable(mandate, time);
        const allowed = !mandate.closed && time < mandate.closesAt && one.amount <= remaining(mandate) && answered;
        expect(await succeeds(registry.connect(settlement).settle(processor.address, [row], credits))).to.equal(
          allowed,
        );
        if (!allowed) return;
        mandate.spent += one.amount;
        mandate.seq += 1n;
        for (const credit of credits)
          ghost.credits.set(credit.payee, (ghost.credits.get(credit.payee) ?? 0n) + credit.amount);
        return;
      }
      case "replay": {
        if (!mandate || mandate.seq === 0n) return;
        const row = await signRow(context, mandate.agent, payee.address, 1n);
        const stale = { ...row, debit: 0n, head: row.head - 1n };
        expect(await succeeds(registry.connect(settlement).settle(processor.address, [stale], []))).to.equal(false);
        return;
      }
      case "direct": {
        if (!mandate) return;
        const account = one.first ? payee.address : other.address;
        const order = { payee: account, value: one.amount, nonce: one.nonce };
        const by = context.direct.connect(processor);
        const send = async (): Promise<unknown> =>
          one.form === "debit"
            ? by.debit([await signDebit(context, mandate.agent, order)])
            : by.transferWithAuthorizations([await signTransfer(context, mandate.agent, order)]);
        const time = BigInt(await networkHelpers.time.latest()) + 1n;
        const name = `${one.form} ${one.nonce}`;
        const fits = one.amount > 0n && one.amount <= mandate.paymentCap && one.amount <= remaining(mandate);
        const answered = mandate.acknowledged
          ? mandate.directSpent + one.amount <= mandate.acknowledged.directSpent
          : isAnswerable(mandate, time);
        const allowed = !mandate.closed && time < mandate.closesAt && fits && !mandate.used.has(name) && answered;
        expect(await succeeds(send()), "direct").to.equal(allowed);
        if (!allowed) return;
        mandate.directSpent += one.amount;
        mandate.used.add(name);
        ghost.credits.set(account, (ghost.credits.get(account) ?? 0n) + one.amount);
        return;
      }
      case "revoke": {
        if (!mandate) return;
        const open = (await registry.stateOf(mandate.agent.address)) === 1n;
        expect(await succeeds(registry.connect(owner).revoke(mandate.agent.address, 0n))).to.equal(open);
        if (open) {
          mandate.revokedAt = BigInt(await networkHelpers.time.latest());
          mandate.closesAt = mandate.revokedAt + TAIL;
        }
        return;
      }
      case "acknowledge": {
        if (!mandate) return;
        const { address } = mandate.agent;
        const { base } = await registry.positionOf(address);
        const acknowledged = { seq: mandate.seq + one.ahead, directSpent: one.amount };
        const time = BigInt(await networkHelpers.time.latest()) + 1n;
        const allowed =
          mandate.revokedAt !== undefined && !mandate.closed && !mandate.acknowledged && isAnswerable(mandate, time);
        // Each payment of this suite adds 1 to the head.
        const head = headHex(base + one.ahead);
        const sent = registry.connect(processor).acknowledge(address, acknowledged.seq, head, one.amount);
        expect(await succeeds(sent), "acknowledge").to.equal(allowed);
        if (allowed) mandate.acknowledged = acknowledged;
        return;
      }
      case "together": {
        if (!mandate) return;
        const close = { agent: mandate.agent.address as Address, seq: mandate.seq + one.ahead };
        const signatures = [
          await signClose(owner, context.domain, close),
          await signClose(processor, context.domain, close),
        ] as const;
        const allowed = !mandate.closed && !mandate.together && one.ahead === 0n;
        const sent = registry.connect(stranger).closeTogether(close.agent, close.seq, ...signatures);
        expect(await succeeds(sent), "together").to.equal(allowed);
        if (!allowed) return;
        const time = BigInt(await networkHelpers.time.latest());
        if (mandate.revokedAt === undefined) {
          const { validUntil, revokedAt } = await registry.mandateOf(close.agent);
          mandate.revokedAt = time < validUntil ? time : validUntil;
          mandate.closesAt = mandate.revokedAt + TAIL;
          expect(revokedAt).to.equal(mandate.revokedAt);
        }
        if (time + NOTICE < mandate.closesAt) mandate.closesAt = time + NOTICE;
        mandate.acknowledged = { seq: mandate.seq, directSpent: mandate.directSpent };
        mandate.together = true;
        return;
      }
      case "close": {
        if (!mandate) return;
        const time = BigInt(await networkHelpers.time.latest()) + 1n;
        const allowed = !mandate.closed && time >= mandate.closesAt;
        expect(await succeeds(registry.connect(stranger).close(mandate.agent.address))).to.equal(allowed);
        if (allowed) {
          mandate.closed = true;
          ghost.free += remaining(mandate);
        }
        return;
      }
      case "wait":
        await networkHelpers.time.increase(one.hours * 3_600);
        return;
      case "sweep": {
        const account = one.first ? payee.address : other.address;
        const credit = ghost.credits.get(account) ?? 0n;
        expect(await succeeds(escrow.connect(stranger).sweepCredit(token, account))).to.equal(credit > 0n);
        ghost.credits.set(account, 0n);
        ghost.withdrawn += credit;
        return;
      }
      case "donate":
        await dollar.mint(await escrow.getAddress(), one.amount);
        return;
      case "intrude":
        for (const signer of [stranger, processor, deployer, payee]) {
          expect(await succeeds(escrow.connect(signer).settle(1n, 0n, []))).to.equal(false);
          const agent = mandate?.agent.address ?? signer.address;
          const pay = registry.connect(signer).payDirect(processor.address, agent, token, signer.address, 1n, []);
          expect(await succeeds(pay)).to.equal(false);
          expect(await succeeds(escrow.connect(signer).release(1n, signer.address, 1n))).to.equal(false);
          expect(await succeeds(escrow.connect(signer).withdraw(token, 1n, signer.address))).to.equal(false);
          if (mandate)
            expect(await succeeds(registry.connect(signer).revoke(mandate.agent.address, 0n))).to.equal(false);
        }
    }
  }

  async function check({ escrow, registry, processors, dollar, token }: Core, ghost: Ghost): Promise<void> {
    const locked = ghost.mandates
      .filter(({ closed }) => !closed)
      .reduce((sum, mandate) => sum + remaining(mandate), 0n);
    const credits = [...ghost.credits.values()].reduce((sum, one) => sum + one, 0n);
    expect(await escrow.freeOf(token, owner.address), "free").to.equal(ghost.free);
    expect(await escrow.lockedOf(token), "I3 locked").to.equal(locked);
    for (const [account, credit] of ghost.credits)
      expect(await escrow.creditOf(token, account), "credit").to.equal(credit);
    const held = ghost.free + locked + credits;
    const bonded = await escrow.balanceOf(token, await processors.bondAccountOf(processor.address));
    expect(bonded, "bond").to.equal(BOND);
    expect(ghost.deposited - ghost.withdrawn, "I2 conservation").to.equal(held);
    expect((await dollar.balanceOf(await escrow.getAddress())) >= held + bonded, "I1 solvency").to.equal(true);
    const open = ghost.mandates.filter(({ closed }) => !closed);
    expect(await processors.coveredOf(processor.address, token), "covered").to.equal(
      open.reduce((sum, { budget }) => sum + budget, 0n),
    );
    for (const mandate of ghost.mandates) {
      const { agent, budget, spent, directSpent, seq, closed } = mandate;
      const record = await registry.mandateOf(agent.address);
      expect(record.spent + record.directSpent <= record.budget, "P1").to.equal(true);
      expect(record.directSpent, "I3 direct").to.equal(directSpent);
      expect([record.spent, record.seq, record.budget], "I4").to.deep.equal([spent, seq, budget]);
      expect(record.state === 4n, "I7, I8").to.equal(closed);
      expect(record.closesAt).to.equal(mandate.closesAt);
      expect(await registry.remainingOf(agent.address)).to.equal(closed ? 0n : remaining(mandate));
    }
  }

  /** P4: whatever happened, in the end everybody gets out what is theirs, and only donations stay. */
  async function exit({ escrow, registry, dollar, token }: Core, ghost: Ghost): Promise<void> {
    await networkHelpers.time.increase(90 * 86_400);
    for (const { agent, closed } of ghost.mandates) if (!closed) await registry.connect(stranger).close(agent.address);
    const free = await escrow.freeOf(token, owner.address);
    if (free > 0n) await escrow.connect(owner).withdraw(token, free, owner.address);
    for (const [account, credit] of ghost.credits)
      if (credit > 0n) await escrow.connect(stranger).sweepCredit(token, account);
    expect(await escrow.lockedOf(token)).to.equal(0n);
    const spent = ghost.mandates.reduce((sum, mandate) => sum + mandate.spent + mandate.directSpent, 0n);
    expect(free).to.equal(
      ghost.free +
        ghost.mandates.filter(({ closed }) => !closed).reduce((sum, mandate) => sum + remaining(mandate), 0n),
    );
    expect((await dollar.balanceOf(payee.address)) + (await dollar.balanceOf(other.address))).to.equal(spent);
  }
});

const remaining = ({ budget, spent, directSpent }: Ghost["mandates"][number]): bigint => budget - spent - directSpent;

/** Not revoked, or in the time in which the processor may still answer. */
const isAnswerable = ({ revokedAt }: Ghost["mandates"][number], time: bigint): boolean =>
  revokedAt === undefined || time <= revokedAt + WINDOWS.acknowledge;

const NOTICE = 3_600n;
const TAIL = WINDOWS.settleBy + WINDOWS.grace + WINDOWS.claim;
