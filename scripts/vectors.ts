/**
 * Writes test/vectors/*.json, which the Solidity, TypeScript and circuit tests read. Every run gives the same bytes.
 *
 *   node --import tsx scripts/vectors.ts            write the files
 *   node --import tsx scripts/vectors.ts --check    exit 1 if a file differs from what would be written
 *   … --folder <path>                               another folder than test/vectors
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { concat, id, recoverAddress, toBeHex, TypedDataEncoder, Wallet } from "ethers";
import {
  AgentLedger,
  allowList,
  canonicalTerms,
  challenge,
  commit,
  eip712Domain,
  evaluate,
  evaluateRows,
  formatAmount,
  genesis,
  hashAccess,
  hashClose,
  hashDelivery,
  hashLine,
  hashMandate,
  hashPayment,
  hashProfile,
  hashQuote,
  hashReceipt,
  hashRevocation,
  headHex,
  lineToField,
  MAX_AMOUNT,
  MAX_TOTAL,
  offsetOf,
  packAmounts,
  packRow,
  PAGE_LINES,
  pageHash,
  pageSalt,
  payeesHash,
  policyRoot,
  poseidon,
  rationalSum,
  requestRef,
  rowValues,
  signAccess,
  signClose,
  signDelivery,
  signMandate,
  signPayment,
  signProfile,
  signQuote,
  signReceipt,
  signRevocation,
  termsHash,
  toWire,
  transcript,
  TYPES,
  unitScale,
  type Address,
  type Credit,
  type Domain,
  type Hex,
  type Line,
  type Mandate,
  type Payment,
  type Receipt,
  type Row,
  type Terms,
} from "@bursar/protocol";

const CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const NOON = 1_800_000_000n;

const wallet = (name: string) => new Wallet(id(`bursar.test.${name}`));
const account = (name: string) => wallet(name).address as Address;
const word = (name: string) => id(`bursar.test.${name}`) as Hex;

const domain: Domain = { chainId: 31337n, registry: account("registry") };
const otherChain: Domain = { ...domain, chainId: 8453n };
const otherContract: Domain = { ...domain, registry: account("other registry") };

const HIGH_BYTES: Address = "0xFFfFfFffFFfffFFfFFfFFFFFffFFFffffFfFFFfF";
const LOW: Address = "0x0000000000000000000000000000000000000001";
const payees = (count: number) => Array.from({ length: count }, (_, index) => account(`payee ${index}`));
const line = (payee: Address, amount: bigint, ref = word(`ref ${payee} ${amount}`)): Line => ({ payee, amount, ref });
const lines = (count: number, from = 0) =>
  Array.from({ length: count }, (_, index) =>
    line(account(`payee ${(from + index) % 3}`), BigInt(1000 + 7 * (from + index))),
  );

async function typedData() {
  const mandate = (allowed: readonly Address[], changes: Partial<Mandate> = {}): Mandate => {
    const paymentCap = changes.paymentCap ?? 20_000n;
    return {
      owner: account("owner"),
      agent: account("agent"),
      token: account("token"),
      budget: 5_000_000n,
      paymentCap,
      validUntil: NOON + 86_400n,
      processor: account("processor"),
      payees: allowed,
      policyRoot: headHex(policyRoot(allowed, paymentCap)),
      termsHash: word("terms"),
      ...changes,
    };
  };
  const mandates = {
    "anyone may be paid": mandate([]),
    "one payee": mandate(payees(1)),
    "eight payees": mandate(payees(8)),
    "largest budget and cap": mandate([HIGH_BYTES], {
      budget: MAX_TOTAL,
      paymentCap: MAX_AMOUNT,
      validUntil: MAX_TOTAL,
    }),
    "smallest budget and cap": mandate([LOW], { budget: 1n, paymentCap: 1n }),
  };
  const ledger = new AgentLedger({ domain, agent: account("agent"), secret: word("secret") });
  const first = ledger.append(line(account("payee 0"), 2500n)).payment;
  const payments: Record<string, Payment> = {
    "first payment": first,
    "one unit": ledger.append(line(LOW, 1n)).payment,
    "largest amount, high bytes": ledger.append(line(HIGH_BYTES, MAX_AMOUNT)).payment,
    "largest seq and total": { ...first, seq: MAX_TOTAL, spent: MAX_TOTAL },
  };
  const receiptOf = ({ seq, head, line: { payee, amount, ref } }: Payment, logIndex: bigint): Receipt => ({
    agent: account("agent"),
    seq,
    payee,
    amount,
    ref,
    head,
    settleBy: NOON + 3600n,
    logIndex,
  });
  const receipts = {
    "first receipt": receiptOf(first, 0n),
    "largest amount": receiptOf(payments["largest amount, high bytes"]!, 41n),
    "largest log index": { ...receiptOf(first, MAX_TOTAL), settleBy: MAX_TOTAL },
  };
  const revocations = {
    "before any payment": { agent: account("agent"), afterSeq: 0n },
    "after the seventh payment": { agent: account("agent"), afterSeq: 7n },
  };
  const closes = {
    "with no payment settled": { agent: account("agent"), seq: 0n },
    "at the largest number": { agent: account("agent"), seq: MAX_TOTAL },
  };
  const deliveries = {
    "of a first payment": {
      agent: account("agent"),
      seq: 1n,
      ref: word("invoice"),
      bodyHash: word("body"),
      deliveredAt: NOON,
    },
    "at the largest numbers": {
      agent: account("agent"),
      seq: MAX_TOTAL,
      ref: word("invoice"),
      bodyHash: word("body"),
      deliveredAt: MAX_TOTAL,
    },
  };
  const accesses = {
    "for an hour": { account: account("agent"), expiresAt: NOON + 3_600n },
    "with the latest end": { account: account("agent"), expiresAt: MAX_TOTAL },
  };
  const profiles = {
    "one host": {
      payee: account("owner"),
      name: "Weather",
      host: "api.weather.example",
      category: "weather",
      issuedAt: NOON,
    },
    "many hosts, letters of two bytes": {
      payee: account("owner"),
      name: "Märkte",
      host: "*.market.example",
      category: "data.market",
      issuedAt: NOON + 1n,
    },
  };
  const quotes = {
    "a smallest one": {
      payee: account("owner"),
      amount: 1n,
      ref: word("invoice"),
      host: "a.market.example",
      category: "data.market.fx",
      expiresAt: NOON + 60n,
    },
    "a largest one": {
      payee: account("owner"),
      amount: MAX_AMOUNT,
      ref: word("invoice"),
      host: "a.market.example",
      category: "data",
      expiresAt: MAX_TOTAL,
    },
  };

  const agent = wallet("agent");
  const owner = wallet("owner");
  const processor = wallet("processor");
  const typeHashes = Object.fromEntries(
    (Object.keys(TYPES) as (keyof typeof TYPES)[]).map((name) => [name, id(encodeType(name))]),
  );
  return {
    domain,
    domainSeparator: TypedDataEncoder.hashDomain(eip712Domain(domain)),
    typeHashes,
    signers: { owner: owner.address, agent: agent.address, processor: processor.address },
    mandates: await each(mandates, async (message) => ({
      mandate: message,
      payeesHash: payeesHash(message.payees),
      digest: hashMandate(domain, message),
      ownerSignature: await signMandate(owner, domain, message),
      agentSignature: await signMandate(agent, domain, message),
    })),
    payments: await each(payments, async (message) => ({
      payment: message,
      lineHash: hashLine(message.line),
      digest: hashPayment(domain, message),
      digestOnOtherChain: hashPayment(otherChain, message),
      digestOnOtherContract: hashPayment(otherContract, message),
      signature: await signPayment(agent, domain, message),
    })),
    otherChain,
    otherContract,
    receipts: await each(receipts, async (message) => ({
      receipt: message,
      digest: hashReceipt(domain, message),
      signature: await signReceipt(processor, domain, message),
    })),
    revocations: await each(revocations, async (message) => ({
      revocation: message,
      digest: hashRevocation(domain, message),
      signature: await signRevocation(owner, domain, message),
    })),
    closes: await each(closes, async (message) => ({
      close: message,
      digest: hashClose(domain, message),
      signature: await signClose(owner, domain, message),
    })),
    deliveries: await each(deliveries, async (message) => ({
      delivery: message,
      digest: hashDelivery(domain, message),
      signature: await signDelivery(owner, domain, message),
    })),
    accesses: await each(accesses, async (message) => ({
      access: message,
      digest: hashAccess(domain, message),
      signature: await signAccess(agent, domain, message),
    })),
    profiles: await each(profiles, async (message) => ({
      profile: message,
      digest: hashProfile(domain, message),
      signature: await signProfile(owner, domain, message),
    })),
    quotes: await each(quotes, async (message) => ({
      quote: message,
      digest: hashQuote(domain, message),
      signature: await signQuote(owner, domain, message),
    })),
  };
}

function encodeType(name: keyof typeof TYPES): string {
  const one = (type: keyof typeof TYPES) =>
    `${type}(${TYPES[type].map((field) => `${field.type} ${field.name}`).join(",")})`;
  return name === "Payment" ? one("Payment") + one("Line") : one(name);
}

function ledgers() {
  const cases: Record<string, Line[]> = {
    "one payment": [line(account("payee 0"), 2500n)],
    "amounts at both edges": [line(LOW, 1n), line(HIGH_BYTES, MAX_AMOUNT)],
    "a full page": lines(7),
    "a continued page": lines(9),
    "two full pages and one line": lines(15),
  };
  return {
    domain,
    genesis: ["agent", "agent 0", "agent 1"].map((name) => ({
      agent: account(name),
      genesis: headHex(genesis(domain, account(name))),
    })),
    ledgers: Object.entries(cases).map(([name, all], index) => {
      const agent = account(`agent ${index}`);
      const secret = word(`secret ${index}`);
      const ledger = new AgentLedger({ domain, agent, secret });
      const payments = all.map((next) => {
        const before = ledger.state;
        const { payment, salt, page } = ledger.append(next);
        const fields = [...before.lines, next].map(lineToField);
        return {
          payment,
          page,
          prev: before.base,
          lines: Array.from({ length: PAGE_LINES }, (_, slot) => fields[slot] ?? 0n),
          salt,
          base: ledger.state.base,
          offset: offsetOf(payment.seq),
        };
      });
      return { name, agent, secret, genesis: headHex(genesis(domain, agent)), payments };
    }),
  };
}

function policies() {
  const cases: [string, Address[], bigint][] = [
    ["anyone, one unit", [], 1n],
    ["anyone, largest cap", [], MAX_AMOUNT],
    ["one payee", payees(1), 20_000n],
    ["two payees", payees(2), 20_000n],
    ["two payees in the other order", payees(2).toReversed(), 20_000n],
    ["eight payees", payees(8), 20_000n],
    ["a payee with high bytes", [HIGH_BYTES, LOW], 20_000n],
  ];
  return {
    policies: cases.map(([name, allowed, paymentCap]) => ({
      name,
      payees: allowed,
      paymentCap,
      allow: allowList(allowed),
      policyRoot: headHex(policyRoot(allowed, paymentCap)),
      payeesHash: payeesHash(allowed),
    })),
    refused: [
      { name: "nine payees", payees: payees(9), paymentCap: 20_000n, code: "malformed-input" },
      {
        name: "the zero address",
        payees: [toBeHex(0, 20), ...payees(1)],
        paymentCap: 20_000n,
        code: "malformed-input",
      },
      { name: "a cap of zero", payees: payees(1), paymentCap: 0n, code: "amount-zero" },
      { name: "a cap of 2^40", payees: payees(1), paymentCap: MAX_AMOUNT + 1n, code: "amount-too-large" },
    ],
  };
}

function terms() {
  const plain: Terms = { version: 1, purpose: "Weather for the harvest plan", categories: [], hosts: [] };
  const cases: [string, Terms][] = [
    ["anything for a purpose", plain],
    [
      "categories and hosts",
      { ...plain, categories: ["weather", "data.market"], hosts: ["api.example.com", "*.weather.example"] },
    ],
    ["limits", { ...plain, limits: { unitsPerDay: "1000000", paymentsPerMinute: "60" } }],
    ["text that JSON escapes", { ...plain, purpose: 'Ernte "2027" \\ €\u0007\n🌾 \u2028' }],
  ];
  const refused: [string, unknown][] = [
    ["another version", { ...plain, version: 2 }],
    ["an empty purpose", { ...plain, purpose: "" }],
    ["a purpose of 501 characters", { ...plain, purpose: "x".repeat(501) }],
    ["half a surrogate pair", { ...plain, purpose: "\ud83c" }],
    ["an unknown field", { ...plain, note: "" }],
    ["a category in upper case", { ...plain, categories: ["Weather"] }],
    ["a repeated host", { ...plain, hosts: ["a.example", "a.example"] }],
    ["a host in upper case", { ...plain, hosts: ["API.example.com"] }],
    ["a host with a port", { ...plain, hosts: ["api.example.com:443"] }],
    ["a bare star", { ...plain, hosts: ["*"] }],
    ["a star over a top-level domain", { ...plain, hosts: ["*.com"] }],
    ["a star in the middle", { ...plain, hosts: ["api.*.example.com"] }],
    ["a star within a label", { ...plain, hosts: ["api*.example.com"] }],
    ["a limit as a number", { ...plain, limits: { unitsPerDay: 5 } }],
    ["a limit with a leading zero", { ...plain, limits: { unitsPerDay: "05" } }],
    ["a limit of zero", { ...plain, limits: { paymentsPerMinute: "0" } }],
  ];
  const hosts: [string, string, boolean][] = [
    ["api.example.com", "api.example.com", true],
    ["api.example.com", "API.Example.COM", true],
    ["api.example.com", "api.example.com.", true],
    ["api.example.com", "api.example.com:8443", true],
    ["api.example.com", "xapi.example.com", false],
    ["api.example.com", "api.example.com.evil.test", false],
    ["api.example.com", "example.com", false],
    ["api.example.com", "api.example.com@evil.test", false],
    ["api.example.com", "evil.test/api.example.com", false],
    ["api.example.com", "evil.test#api.example.com", false],
    ["api.example.com", "", false],
    ["*.example.com", "api.example.com", true],
    ["*.example.com", "API.EXAMPLE.COM.:443", true],
    ["*.example.com", "example.com", false],
    ["*.example.com", "a.b.example.com", false],
    ["*.example.com", "apiexample.com", false],
    ["*.example.com", ".example.com", false],
    ["*.example.com", "*.example.com", false],
    ["xn--bcher-kva.example", "bücher.example", true],
    ["xn--bcher-kva.example", "BÜCHER.example", true],
    ["*.xn--bcher-kva.example", "www.bücher.example", true],
    ["example.com", "ｅｘａｍｐｌｅ.com", true],
    ["example.com", "exаmple.com", false],
    ["localhost", "localhost:3000", true],
    ["127.0.0.1", "127.0.0.1:3000", true],
    ["127.0.0.1", "0x7f.1", true],
    ["*.0.0.1", "127.0.0.1", false],
    ["[::1]", "[::1]:3000", true],
    ["*", "anything.example", false],
    ["*.com", "example.com", false],
  ];
  return {
    terms: cases.map(([name, value]) => ({
      name,
      terms: value,
      canonical: canonicalTerms(value),
      hash: termsHash(value),
    })),
    refused: refused.map(([name, value]) => ({ name, terms: value, code: "malformed-input" })),
    hosts: hosts.map(([glob, host, matches]) => ({ glob, host, matches })),
  };
}

/** One row as a prover is given it: all lines from the start of its first page on. */
interface RowInput {
  readonly agent: Address;
  readonly seq: bigint;
  readonly base: bigint;
  readonly payees: readonly Address[];
  readonly paymentCap: bigint;
  readonly salts: readonly bigint[];
  readonly lines: readonly Line[];
}

function rowInput(
  name: string,
  settled: number,
  count: number,
  allowed: readonly Address[],
  all = lines(settled + count, name.length),
): RowInput {
  const agent = account(name);
  const secret = word(`secret of ${name}`);
  const ledger = new AgentLedger({ domain, agent, secret });
  for (const paid of all.slice(0, settled)) ledger.append(paid);
  const start = settled - (settled % PAGE_LINES);
  const pages = Math.ceil((settled + count - start) / PAGE_LINES);
  return {
    agent,
    seq: BigInt(settled),
    base: BigInt(ledger.state.base),
    payees: allowed,
    paymentCap: MAX_AMOUNT,
    salts: Array.from({ length: pages }, (_, page) => pageSalt(secret, BigInt(start / PAGE_LINES + page))),
    lines: all.slice(start),
  };
}

/** A row's segments as the circuit lays them out, with the values of the commitment stream. */
function segmentsOf(input: RowInput, pagesPerSegment: number) {
  const offset = input.seq % BigInt(PAGE_LINES);
  const slots = pagesPerSegment * PAGE_LINES;
  const segments = [];
  let prev = input.base;
  let [head, newBase] = [prev, prev];
  let [debit, count] = [0n, 0n];
  for (let from = 0; from < input.lines.length; from += slots) {
    const own = input.lines.slice(from, from + slots);
    for (let start = 0; start < own.length; start += PAGE_LINES) {
      const page = own.slice(start, start + PAGE_LINES);
      head = pageHash(prev, page.map(lineToField), input.salts[(from + start) / PAGE_LINES]!);
      newBase = page.length === PAGE_LINES ? head : prev;
      prev = head;
    }
    const settled = from === 0 ? own.slice(Number(offset)) : own;
    debit += settled.reduce((sum, { amount }) => sum + amount, 0n);
    count += BigInt(settled.length);
    segments.push({
      values: {
        base: input.base,
        head,
        newBase,
        policyRoot: policyRoot(input.payees, input.paymentCap),
        packed: packRow({ debit, count, offset }),
      },
      amounts: Array.from({ length: slots }, (_, slot) => own[slot]?.amount ?? 0n),
    });
  }
  const last = { head, newBase, debit, count, offset };
  return { segments, last };
}

function batches() {
  const size = { segments: 2, pages: 2 };
  const slots = size.pages * PAGE_LINES;
  const idle = {
    // An open list and a cap of zero, which no mandate may have.
    values: { base: 0n, head: 0n, newBase: 0n, policyRoot: poseidon(Array<bigint>(9).fill(0n)), packed: 0n },
    amounts: Array<bigint>(slots).fill(0n),
  };
  const cases: Record<string, RowInput[]> = {
    "two rows, one continuing a page": [rowInput("agent A", 5, 4, payees(3)), rowInput("agent B", 0, 14, [])],
    "one row over two segments": [rowInput("agent C", 3, 20, payees(8))],
    "one row and an idle segment": [
      rowInput("agent D", 7, 1, [HIGH_BYTES], [...lines(7), line(HIGH_BYTES, MAX_AMOUNT)]),
    ],
  };
  const statement = { chainId: domain.chainId, settlement: account("settlement"), circuitId: word("circuit") };
  return {
    ...statement,
    circuit: size,
    batches: Object.entries(cases).map(([name, unsorted]) => {
      const inputs = unsorted.toSorted((one, other) => (BigInt(one.agent) < BigInt(other.agent) ? -1 : 1));
      const laidOut = inputs.map((input) => segmentsOf(input, size.pages));
      const used = laidOut.flatMap(({ segments }) => segments);
      const segments = [...used, ...Array.from({ length: size.segments - used.length }, () => idle)];
      const stream = [
        ...segments.flatMap(({ values }) => Object.values(values)),
        ...packAmounts(segments.flatMap(({ amounts }) => amounts)),
      ];
      const rows = inputs.map((input, index): Row => ({
        agent: input.agent,
        seq: input.seq,
        base: input.base,
        policyRoot: policyRoot(input.payees, input.paymentCap),
        ...laidOut[index]!.last,
      }));
      const credits = creditsOf(inputs);
      const commitment = commit(stream);
      const hash = transcript({ ...statement, commitment, rows, credits });
      const z = challenge(hash);
      const { num, den, sum } = rationalSum(z, credits);
      return {
        name,
        inputs: inputs.map((input) => ({ ...input, allow: allowList(input.payees) })),
        rows: rows.map((row) => ({ ...row, packed: packRow(row), values: rowValues(row) })),
        credits,
        segments: segments.map(({ values, amounts }) => ({ ...values, amounts })),
        stream,
        commitment,
        transcript: hash,
        z,
        E: evaluateRows(z, rows),
        num,
        den,
        sum,
        T: evaluate(z, rows, credits),
      };
    }),
  };
}

function creditsOf(inputs: readonly RowInput[]): Credit[] {
  const totals = new Map<Address, bigint>();
  for (const input of inputs) {
    for (const { payee, amount } of input.lines.slice(Number(input.seq % BigInt(PAGE_LINES)))) {
      totals.set(payee, (totals.get(payee) ?? 0n) + amount);
    }
  }
  return [...totals]
    .map(([payee, amount]) => ({ payee, amount }))
    .toSorted((one, other) => (BigInt(one.payee) < BigInt(other.payee) ? -1 : 1));
}

function signatures() {
  const digest = word("digest");
  const signer = wallet("agent");
  const { r, s, yParity } = signer.signingKey.sign(digest);
  const v = 27 + yParity;
  const bytes = (sValue: bigint | string, vValue: number | null, rValue: bigint | string = r) =>
    concat([toBeHex(rValue, 32), toBeHex(sValue, 32), ...(vValue === null ? [] : [toBeHex(vValue, 1)])]);
  const highS = CURVE_ORDER - BigInt(s);
  const refused: [string, string, string][] = [
    ["high s, v flipped so that it recovers the signer", bytes(highS, 55 - v), "signature-high-s"],
    ["s one above half the order", bytes(CURVE_ORDER / 2n + 1n, v), "signature-high-s"],
    ["v 0", bytes(s, 0), "signature-v"],
    ["v 1", bytes(s, 1), "signature-v"],
    ["v 26", bytes(s, 26), "signature-v"],
    ["v 29", bytes(s, 29), "signature-v"],
    ["v of EIP-155", bytes(s, 37), "signature-v"],
    ["64 bytes, EIP-2098", concat([r, toBeHex(BigInt(s) + (BigInt(yParity) << 255n), 32)]), "signature-length"],
    ["64 bytes, v missing", bytes(s, null), "signature-length"],
    ["66 bytes", concat([bytes(s, v), "0x00"]), "signature-length"],
    ["no bytes", "0x", "signature-length"],
    ["r zero", bytes(s, v, 0n), "signature-invalid"],
    ["s zero", bytes(0n, v), "signature-invalid"],
    ["r of the curve order", bytes(s, v, CURVE_ORDER), "signature-invalid"],
    ["another signer", wallet("owner").signingKey.sign(digest).serialized, "signature-signer"],
    ["v flipped", bytes(s, 55 - v), "signature-signer"],
  ];
  const accepted = ["digest", "digest 1", "digest 2", "digest 3"].map((name) => {
    const own = signer.signingKey.sign(word(name));
    return { name: `v ${own.v}`, digest: word(name), signature: own.serialized, signer: signer.address };
  });
  const halfOrder = bytes(CURVE_ORDER / 2n, v);
  return {
    digest,
    signer: signer.address,
    accepted: [
      ...accepted,
      { name: "s of exactly half the order", digest, signature: halfOrder, signer: recoverAddress(digest, halfOrder) },
    ],
    refused: refused.map(([name, signature, code]) => ({ name, signature, code })),
  };
}

function wire() {
  const mixed = account("payee 0");
  const digits = mixed.slice(2);
  const wrongCase = digits.replace(/[a-f]/i, (letter) =>
    letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase(),
  );
  const request = { method: "GET", url: "https://api.example.com/forecast?day=1" };
  const requests: [string, Parameters<typeof requestRef>[0]][] = [
    ["a plain request", request],
    [
      "the same in other words",
      { method: "get", url: "HTTPS://API.example.com:443/x/../forecast?day=1#today", body: "", quote: "" },
    ],
    ["another method", { ...request, method: "POST" }],
    ["another query", { ...request, url: "https://api.example.com/forecast?day=2" }],
    ["a body", { ...request, method: "POST", body: '{"städte":["Köln"]}' }],
    ["a quote", { ...request, quote: "q-1" }],
  ];
  return {
    numbers: {
      accepted: [
        "0",
        "1",
        "777",
        "9007199254740991",
        "9007199254740992",
        "9223372036854775807",
        "9223372036854775808",
        String(MAX_TOTAL),
      ],
      refused: [
        ...[
          "0x309",
          "0x0309",
          "0777",
          " 777",
          "777 ",
          "7.77e2",
          "777.0",
          "777n",
          "7_77",
          "+777",
          "-1",
          "-0",
          "",
          " ",
          "00",
        ],
        ...["７７７", "٧٧٧", "777\n", "1e3", "NaN", "Infinity", "18446744073709551616", "1".repeat(79)],
        ...[777, 0, null, true, ["777"], {}],
      ],
    },
    addresses: {
      eip55: mixed,
      accepted: [mixed, `0x${digits.toLowerCase()}`, `0x${digits.toUpperCase()}`, `0X${digits.toUpperCase()}`],
      refused: [
        ...[
          `0x${wrongCase}`,
          `0X${digits.toLowerCase()}`,
          digits,
          `0x${digits}00`,
          `0x${digits.slice(2)}`,
          ` 0x${digits}`,
        ],
        ...[`0x${"0".repeat(40)}`, `0x${digits.slice(0, 39)}g`, "", "vitalik.eth", 0, null],
      ],
    },
    amounts: {
      accepted: [1n, 2500n, 1_000_000n, 1_234_567n, MAX_AMOUNT, MAX_TOTAL].map((units) => ({
        units,
        text: formatAmount(units),
      })),
      refused: [
        "",
        ".",
        ".5",
        "1.",
        "01",
        "-1",
        "+1",
        "1e3",
        "0x1",
        "1,5",
        " 1",
        "1 ",
        "0.0000001",
        "１",
        "18446744073709.551616",
      ],
    },
    unitScales: [0, 2, 5, 6, 7, 8, 18, 24].map((decimals) => ({ decimals, scale: unitScale(decimals) })),
    requests: requests.map(([name, target]) => ({ name, request: target, ref: requestRef(target) })),
  };
}

async function each<T, R extends object>(cases: Record<string, T>, describe: (message: T) => Promise<R>) {
  return Promise.all(Object.entries(cases).map(async ([name, message]) => ({ name, ...(await describe(message)) })));
}

const files: Record<string, unknown> = {
  "typed-data": await typedData(),
  ledger: ledgers(),
  policy: policies(),
  terms: terms(),
  batch: batches(),
  signatures: signatures(),
  wire: wire(),
};
const { values } = parseArgs({
  options: {
    check: { type: "boolean", default: false },
    folder: { type: "string", default: fileURLToPath(new URL("../test/vectors", import.meta.url)) },
  },
});
await mkdir(values.folder, { recursive: true });
for (const [name, content] of Object.entries(files)) {
  const file = join(values.folder, `${name}.json`);
  const text = `${JSON.stringify(toWire(content), null, 2)}\n`;
  if (!values.check) await writeFile(file, text);
  else if ((await readFile(file, "utf8").catch(() => null)) !== text) {
    console.error(`${file} is not what scripts/vectors.ts writes`);
    process.exitCode = 1;
  }
}
