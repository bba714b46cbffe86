import {
  advance,
  allowList,
  BursarError,
  debitPayment,
  genesis,
  hashLine,
  hashPayment,
  hashRevocation,
  headHex,
  hashDebit,
  hashTransfer,
  parseWire,
  policyRoot,
  signedPaymentSchema,
  signMandate,
  signWithKey,
  termsHash,
  toWire,
  transferPayment,
  type Address,
  type DirectPayment,
  type Hex,
  type Line,
  type Mandate,
  type Payment,
  type SignedPayment,
} from "@bursar/protocol";
import { circuitSize, layOut, Prover } from "@bursar/prover";
import { Chain, Processor, receiptKey, Store, type SettleCall } from "@bursar/relayer";
import { expect } from "chai";
import { HDNodeWallet, id, toBeHex, Wallet } from "ethers";
import fc from "fast-check";

import {
  core,
  DAY,
  deployer,
  ethers,
  fund,
  now,
  other,
  owner,
  payee,
  processor,
  settlement,
  solidity,
  stranger,
  type Core,
} from "./fixture.ts";

const RUNS = process.env["BURSAR_DEEP"] === "1" ? 600 : 60;
const SEED = process.env["BURSAR_SEED"];
const TERMS = { version: 1 as const, purpose: "whatever a test buys", categories: [], hosts: [] };
const CAP = 600n;
const SALT = 7n;
const HALF = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;
const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

/** The first of Hardhat's accounts is the deployer, the third the fixture's processor: its key signs receipts too. */
const PROCESSOR_KEY = HDNodeWallet.fromPhrase(
  "test test test test test test test test test test test junk",
  "",
  "m/44'/60'/0'/0/2",
);

/**
 * Refusals that are the processor's own, which the chain and the circuit do not share: limits of the terms, of rate and of
 * time, a payee that could not collect (on the ledger; the direct rail refuses it on chain too), and what came twice.
 */
const OWN = ["payee-impossible", "mandate-revoked", "mandate-expired", "authorization-expired"];
/** Refusals that the circuit shares: a row of such a payment is refused by no contract, and has no proof. */
const CIRCUIT = ["above-payment-cap", "payee-not-allowed"];

const form = fc.constantFrom(
  ...(["right", "right", "right", "right", "right", "right", "right", "right"] as const),
  ...(["bit", "high-s", "small-v", "other-v", "compact", "long", "key", "chain", "contract", "upper-case"] as const),
);
type Form = typeof form extends fc.Arbitrary<infer T> ? T : never;

const off = fc.constantFrom(0n, 0n, 0n, 0n, 0n, 0n, 0n, 0n, 1n, -1n);
const attempt = fc.record({
  rail: fc.constantFrom("ledger" as const, "ledger" as const, "ledger" as const, "exact" as const, "aep2" as const),
  amount: fc.oneof(
    { weight: 12, arbitrary: fc.bigInt({ min: 1n, max: 220n }) },
    { weight: 1, arbitrary: fc.bigInt({ min: 500n, max: 700n }) },
    { weight: 1, arbitrary: fc.constantFrom(0n, CAP, CAP + 1n, 2n ** 40n - 1n, 2n ** 40n, 2n ** 64n) },
  ),
  payee: fc.constantFrom(0, 0, 0, 0, 1, 1, 2, 3, 4),
  ref: fc.bigInt({ min: 0n, max: 2n ** 256n - 1n }),
  seqOff: off,
  spentOff: off,
  headOff: off,
  saltOff: off,
  form,
  bit: fc.nat({ max: 519 }),
  nonce: fc.bigInt({ min: 0n, max: 12n }),
  until: fc.constantFrom(1_000n, 1_000n, 1_000n, 7n, 6n, 1n, 0n),
  isDeferred: fc.boolean(),
});
type Attempt = typeof attempt extends fc.Arbitrary<infer T> ? T : never;

const life = fc.record({
  isListed: fc.boolean(),
  budget: fc.bigInt({ min: 600n, max: 3_000n }),
  attempts: fc.array(attempt, { minLength: 40, maxLength: 40, size: "max" }),
  revocation: form,
});

interface Office {
  readonly context: Core;
  readonly chain: Chain;
  readonly store: Store;
  readonly processor: Processor;
  readonly agent: Wallet;
  readonly address: Address;
  readonly mandate: Mandate;
  readonly direct: { chainId: bigint; direct: Address };
  /** The last payment that is accepted and not settled. */
  waiting: { payment: Payment; signature: Hex; newBase: Hex } | null;
  clock: bigint;
}

describe("The processor and the contracts", function () {
  this.timeout(600_000);

  const tally = { accepted: 0, refused: new Map<string, number>() };
  const unproved: { lines: Line[]; payees: readonly Address[] }[] = [];
  let count = 0;

  it("P12 accepted_implies_settleable: what one accepts the others accept, and what one refuses they refuse", async () => {
    await fc.assert(
      fc.asyncProperty(life, async (drawn) => {
        const office = await open(drawn.isListed, drawn.budget);
        try {
          for (const one of drawn.attempts) {
            office.clock = await now();
            await (one.rail === "ledger" ? payByLedger(office, one) : payDirectly(office, one));
          }
          await flush(office);
          await revoke(office, drawn.revocation);
        } finally {
          await office.store.close();
        }
      }),
      { numRuns: RUNS, endOnFailure: true, ...(SEED === undefined ? {} : { seed: Number(SEED) }) },
    );
    expect(tally.accepted).to.be.greaterThan(RUNS * 5);
    const codes = ["above-budget", "spent-mismatch", "head-mismatch", "nonce-used", "signature-high-s", ...CIRCUIT];
    for (const code of codes) expect(tally.refused.get(code), code).to.be.greaterThan(0);
  });

  it("P2 no_payment_above_cap_or_off_allowlist: what only the circuit refuses cannot be proved", async () => {
    const prover = new Prover();
    const fine = { payee: payee.address, amount: CAP, ref: id("fine") as Hex };
    try {
      expect(await isProvable(prover, { lines: [fine], payees: [payee.address] }), "an honest line").to.equal(true);
      for (const one of unproved.slice(0, 6)) expect(await isProvable(prover, one)).to.equal(false);
    } finally {
      prover.close();
    }
    expect(unproved.length).to.be.greaterThan(1);
  });

  /** Whether the true circuit has a witness, whatever then becomes of the proof. */
  async function isProvable(prover: Prover, { lines, payees }: (typeof unproved)[number]): Promise<boolean> {
    const agent = new Wallet(id("circuit")).address as Address;
    const row = {
      agent,
      base: genesis({ chainId: 31_337n, registry: agent }, agent),
      seq: 0n,
      allow: allowList([]),
      paymentCap: 2n ** 40n - 1n,
      salts: [SALT],
      lines,
    };
    // Laid out for an open mandate, since laying out refuses what is off a list, and then narrowed to the signed one.
    const statement = structuredClone(layOut(circuitSize("tiny"), [row]));
    const allow = allowList(payees);
    const { input } = statement;
    input.cap[0] = CAP;
    input.allow[0] = [...allow];
    input.payee[0] = input.payee[0]!.map((one) => (one === 0n ? allow[0] : one));
    return prover.prove(circuitSize("tiny"), statement, 5n).then(
      () => true,
      // The narrowed policy has another commitment: what has a witness fails here, after it was proved.
      (error: unknown) => /of another statement/.test((error as Error).message),
    );
  }

  async function open(isListed: boolean, budget: bigint): Promise<Office> {
    const context = await core();
    const agent = new Wallet(id(`bursar differential ${count++}`));
    const address = agent.address as Address;
    const payees = isListed ? [payee.address, other.address] : [];
    const clock = await now();
    const mandate: Mandate = {
      owner: owner.address,
      agent: address,
      token: context.token,
      budget,
      paymentCap: CAP,
      validUntil: clock + DAY,
      processor: processor.address,
      payees,
      policyRoot: headHex(policyRoot(payees, CAP)),
      termsHash: termsHash(TERMS),
    };
    await fund(context, budget);
    await context.registry.open(
      solidity(mandate),
      await signMandate(owner, context.domain, mandate),
      await signMandate(agent, context.domain, mandate),
    );
    const chain = await chainOf(context);
    const office = { waiting: null, clock } as unknown as Office;
    const store = await Store.open(":memory:", { now: () => office.clock });
    const real = new Processor({
      domain: context.domain,
      store,
      chain,
      key: receiptKey(PROCESSOR_KEY),
      settleWithin: 3_600n,
      impossible: chain.contracts,
      maxSkew: null,
      now: () => office.clock,
    });
    await real.register(mandate, TERMS);
    const direct = { chainId: context.domain.chainId, direct: chain.rail.direct };
    return Object.assign(office, { context, chain, store, processor: real, agent, address, mandate, direct });
  }

  async function chainOf({ escrow, registry, direct, processors, claims, domain, token }: Core): Promise<Chain> {
    const address = async (contract: { getAddress(): Promise<string> }) => (await contract.getAddress()) as Address;
    const rail = {
      chainId: domain.chainId,
      escrow: await address(escrow),
      registry: await address(registry),
      settlement: settlement.address,
      direct: await address(direct),
      processors: await address(processors),
      claims: await address(claims),
      challenges: deployer.address,
      circuits: [],
      inclusions: [],
      tokens: { tUSD: token },
    };
    return new Chain(rail as unknown as Chain["rail"], ethers.provider);
  }

  const payeeOf = ({ context, chain }: Office, at: number): Address =>
    [payee.address, other.address, stranger.address, context.token, chain.rail.escrow][at]!;

  /** @returns the refusal's code, or null. */
  async function codeOf(act: () => unknown): Promise<string | null> {
    try {
      await act();
      return null;
    } catch (error) {
      if (error instanceof BursarError) return error.code;
      throw error;
    }
  }

  function note(code: string | null): void {
    if (code === null) tally.accepted += 1;
    else tally.refused.set(code, (tally.refused.get(code) ?? 0) + 1);
  }

  async function payByLedger(office: Office, one: Attempt): Promise<void> {
    const { processor: real, address, mandate } = office;
    const tail = await real.tail(address);
    const line = { payee: payeeOf(office, one.payee), amount: one.amount, ref: toBeHex(one.ref, 32) as Hex };
    if (line.amount < 1n || line.amount >= 2n ** 40n) {
      expect(await codeOf(() => receive(office, draft(line), "0x")), "an amount of no line").to.equal(
        "malformed-input",
      );
      return;
    }
    const salt = (tail.salt ?? SALT) + one.saltOff;
    const pageSalt = tail.salt ?? salt;
    const { payment: truth, position } = advance(tail.position, line, pageSalt);
    const payment = {
      ...truth,
      seq: truth.seq + one.seqOff,
      spent: truth.spent + one.spentOff,
      head: headHex(BigInt(truth.head) + one.headOff),
    };
    const signature = signAs(office, one, (domain) => hashPayment(domain, payment), office.context.domain);
    const isNext = payment.seq > tail.position.seq;
    const code = await codeOf(() => receive(office, payment, signature, salt));
    note(code);
    const refusal = await refusedRow(office, truth, signature);
    if (code === null) {
      expect(isNext, "accepted once").to.equal(true);
      expect(refusal, "accepted off chain").to.equal(null);
      office.waiting = { payment, signature, newBase: position.base };
      if (!one.isDeferred) await flush(office);
      return;
    }
    // No signature covers the salt: the payment is sound, and comes with what cannot extend the page.
    const isSaltAlone = salt !== pageSalt && payment.head === truth.head;
    if (isSaltAlone && code === "head-mismatch") return;
    if (code === "malformed-input" || OWN.includes(code)) return;
    if (CIRCUIT.includes(code)) {
      unproved.push({ lines: [line], payees: mandate.payees });
      return;
    }
    expect(refusal, `refused off chain: ${code}`).not.to.equal(null);
  }

  const draft = (line: Line): Payment => ({ seq: 1n, spent: 1n, head: headHex(1n), line });

  /** As the service receives it: over the wire, then to the processor. */
  async function receive(office: Office, payment: Payment, signature: Hex, salt = SALT): Promise<unknown> {
    const wire = toWire({ agent: office.address, payment, signature, salt });
    const parsed = parseWire(signedPaymentSchema, wire) as SignedPayment;
    return office.processor.accept(parsed);
  }

  /** The row that the circuit would prove of the ledger with `truth`, signed as it is: why the registry refuses it. */
  async function refusedRow(office: Office, truth: Payment, signature: Hex): Promise<string | null> {
    if (!/^0x[0-9a-f]{130}$/i.test(signature)) return "it has not the form of a row's";
    const { chain } = office;
    const { row, credits } = await rowOf(office, truth, signature.toLowerCase() as Hex, truth.head);
    return chain.checkRows([row], credits, processor.address);
  }

  async function rowOf({ context, address }: Office, payment: Payment, signature: Hex, newBase: Hex) {
    const { seq, spent } = await context.registry.positionOf(address);
    const debit = payment.spent - spent;
    const row = {
      agent: address,
      count: payment.seq - seq,
      debit,
      head: BigInt(payment.head),
      newBase: BigInt(newBase),
      lineHash: hashLine(payment.line),
      signature,
    } as unknown as SettleCall["rows"][number];
    return { row, credits: [{ payee: payment.line.payee, amount: debit }] };
  }

  /** Settles what was accepted. */
  async function flush(office: Office): Promise<void> {
    const { waiting, context } = office;
    if (!waiting) return;
    const { row, credits } = await rowOf(office, waiting.payment, waiting.signature, waiting.newBase);
    const { signature, ...rest } = row;
    const signed = {
      ...rest,
      r: signature.slice(0, 66),
      s: `0x${signature.slice(66, 130)}`,
      v: Number(`0x${signature.slice(130)}`),
    };
    await context.registry.connect(settlement).settle(processor.address, [signed], credits);
    office.waiting = null;
  }

  async function payDirectly(office: Office, one: Attempt): Promise<void> {
    const { chain, mandate, processor: real } = office;
    await flush(office);
    let payment: DirectPayment;
    try {
      payment = directOf(office, one);
    } catch (error) {
      expect((error as BursarError).code).to.be.oneOf(["amount-zero", "amount-too-large"]);
      return;
    }
    const code = await codeOf(() => real.acceptDirect(payment));
    const again =
      code === null && (await real.direct(payment.kind, payment.agent, payment.nonce))?.digest === payment.digest;
    note(code);
    const call = chain.encodeDirect(payment.kind, [{ ...payment, payees: mandate.payees, unitScale: 1n }]);
    const simulate = (): Promise<void> => chain.simulate(chain.rail.direct, call, processor.address);
    if (code === null) {
      if (again && (await isUsed(office, payment))) return;
      await simulate();
      await processor.sendTransaction({ to: chain.rail.direct, data: call });
      return;
    }
    if (OWN.includes(code) && code !== "payee-impossible") return;
    expect(await codeOf(simulate), `refused off chain: ${code}`).to.equal("transaction-failed");
  }

  /** The same payment again: accepted with the same answer, and settled before. */
  async function isUsed({ context, address }: Office, { kind, nonce }: DirectPayment): Promise<boolean> {
    return kind === "exact"
      ? context.direct.authorizationState(address, nonce)
      : context.direct.debitState(address, BigInt(nonce));
  }

  function directOf(office: Office, one: Attempt): DirectPayment {
    const { address, context, direct } = office;
    const { token } = context;
    const to = payeeOf(office, one.payee);
    const end = office.clock + one.until;
    if (one.rail === "exact") {
      const nonce = toBeHex(one.nonce, 32) as Hex;
      const authorization = { from: address, to, value: one.amount, validAfter: 0n, validBefore: end, nonce };
      const signature = signAs(office, one, (at) => hashTransfer(at, token, authorization), direct);
      return transferPayment(direct, { token, unitScale: 1n }, { authorization, signature });
    }
    const ref = toBeHex(one.ref, 32) as Hex;
    const spent = { owner: address, token, payee: to, amount: one.amount, nonce: one.nonce, deadline: end, ref };
    const payerSig = signAs(office, one, (at) => hashDebit(at, spent), direct);
    return debitPayment(direct, 1n, { mandate: spent, payerSig });
  }

  /** The agent's signature in one form, right or wrong; `domain` is the right one. */
  function signAs<D extends { chainId: bigint }>(
    office: Pick<Office, "agent">,
    { form: wanted, bit }: { form: Form; bit: number },
    hash: (domain: D) => Hex,
    domain: D,
  ): Hex {
    const stray = new Wallet(id("bursar differential stray")).address as Address;
    const place = "registry" in domain ? { registry: stray } : { direct: stray };
    const meant = {
      ...domain,
      ...(wanted === "chain" ? { chainId: domain.chainId + 1n } : {}),
      ...(wanted === "contract" ? place : {}),
    };
    const key = wanted === "key" ? (id("bursar differential other") as Hex) : (office.agent.privateKey as Hex);
    return formed(signWithKey(hash(meant), key), wanted, bit);
  }

  function formed(signature: Hex, wanted: Form, bit: number): Hex {
    const [r, s, v] = [
      signature.slice(2, 66),
      BigInt(`0x${signature.slice(66, 130)}`),
      parseInt(signature.slice(130), 16),
    ];
    const word = (value: bigint): string => value.toString(16).padStart(64, "0");
    const byte = (value: number): string => value.toString(16).padStart(2, "0");
    expect(s <= HALF, "signed with low s").to.equal(true);
    switch (wanted) {
      case "bit":
        return `0x${(BigInt(signature) ^ (1n << BigInt(bit))).toString(16).padStart(130, "0")}`;
      case "high-s":
        return `0x${r}${word(ORDER - s)}${byte(55 - v)}`;
      case "small-v":
        return `0x${r}${word(s)}${byte(v - 27)}`;
      case "other-v":
        return `0x${r}${word(s)}${byte(29 + (bit % 200))}`;
      case "compact":
        return `0x${r}${word(s | (BigInt(v - 27) << 255n))}`;
      case "long":
        return `${signature}00`;
      case "upper-case":
        return `0x${signature.slice(2).toUpperCase()}`;
      default:
        return signature;
    }
  }

  /** The owner's word, to the processor and to the chain. */
  async function revoke(office: Office, wanted: Form): Promise<void> {
    const { context, address } = office;
    const revocation = { agent: address, afterSeq: 0n };
    const ownerKey = HDNodeWallet.fromPhrase(
      "test test test test test test test test test test test junk",
      "",
      "m/44'/60'/0'/0/1",
    );
    const signer = { agent: new Wallet(ownerKey.privateKey) };
    const signature = signAs(signer, { form: wanted, bit: 3 }, (at) => hashRevocation(at, revocation), context.domain);
    const code = await codeOf(() => office.processor.revoke(revocation, signature));
    const accepted = await context.registry
      .connect(stranger)
      .revokeWithSignature.staticCall(address, 0n, signature)
      .then(
        () => true,
        () => false,
      );
    expect(accepted, `a revocation with ${wanted}`).to.equal(code === null);
  }
});
