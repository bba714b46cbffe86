import { expect } from "chai";
import { getAddress, toBeHex } from "ethers";
import fc from "fast-check";
import {
  advance,
  AgentLedger,
  genesis,
  headHex,
  lineToField,
  MAX_AMOUNT,
  MAX_TOTAL,
  offsetOf,
  PAGE_LINES,
  pageHash,
  pageOf,
  pageSalt,
  parseLedgerState,
  parseWire,
  paymentSchema,
  startOf,
  toWire,
  domainSchema,
  type Address,
  type Hex,
  type LedgerState,
  type Line,
} from "@bursar/protocol";
import vectors from "../vectors/ledger.json" with { type: "json" };
import { addressOf, circomPoseidon, keccakOf, R, refusal, word } from "./reference.ts";

const domain = parseWire(domainSchema, vectors.domain);
const agent = addressOf("agent");
const secret = word("secret");
const fresh = () => new AgentLedger({ domain, agent, secret });
const line = (amount: bigint, payee = addressOf("payee")): Line => ({ payee, amount, ref: word(`ref ${amount}`) });
const onDisk = (state: LedgerState) => parseLedgerState(JSON.parse(JSON.stringify(toWire(state))));

const anyLine: fc.Arbitrary<Line> = fc.record({
  payee: fc.bigInt({ min: 1n, max: 2n ** 160n - 1n }).map((value) => getAddress(toBeHex(value, 20)) as Address),
  amount: fc.bigInt({ min: 1n, max: MAX_AMOUNT }),
  ref: fc.bigInt({ min: 0n, max: 2n ** 256n - 1n }).map((value): Hex => headHex(value)),
});

describe("the ledger's encoding", () => {
  for (const { agent: address, genesis: expected } of vectors.genesis) {
    it(`the genesis of ${address} is as specified`, () => {
      const types = ["bytes32", "uint256", "address", "address"];
      const hash = BigInt(keccakOf(types, [word("bursar.genesis"), domain.chainId, domain.registry, address])) % R;
      expect(headHex(hash)).to.equal(expected);
      expect(headHex(genesis(domain, address as Address))).to.equal(expected);
    });
  }

  it("the genesis is another for another chain, contract and agent", () => {
    const all = [
      genesis(domain, agent),
      genesis({ ...domain, chainId: 1n }, agent),
      genesis({ ...domain, registry: addressOf("other") }, agent),
      genesis(domain, addressOf("other")),
    ];
    expect(new Set(all).size).to.equal(4);
  });

  it("a line keeps payee and amount apart", () => {
    fc.assert(
      fc.property(anyLine, (one) => {
        const field = lineToField(one);
        expect(field % 2n ** 160n).to.equal(BigInt(one.payee));
        expect(field >> 160n).to.equal(one.amount);
        expect(field < R).to.equal(true);
      }),
    );
    refusal("amount-zero", () => lineToField(line(0n)));
    refusal("amount-too-large", () => lineToField(line(MAX_AMOUNT + 1n)));
  });

  it("a page's salt is 248 bits of keccak256(secret, page)", () => {
    for (const page of [0n, 1n, MAX_TOTAL]) {
      expect(pageSalt(secret, page)).to.equal(BigInt(keccakOf(["bytes32", "uint64"], [secret, page])) / 256n);
    }
    expect(pageSalt(secret, 0n)).not.to.equal(pageSalt(secret, 1n));
    expect(pageSalt(secret, 0n)).not.to.equal(pageSalt(word("other secret"), 0n));
  });

  it("pages hold lines 7p+1 … 7p+7", () => {
    expect([1n, 7n, 8n, 14n, 15n].map(pageOf)).to.deep.equal([0n, 0n, 1n, 1n, 2n]);
    expect([0n, 1n, 6n, 7n, 8n].map(offsetOf)).to.deep.equal([0n, 1n, 6n, 0n, 1n]);
    expect(() => pageOf(0n)).to.throw(RangeError);
  });

  it("a page takes at most seven lines and counts the missing ones as zero", () => {
    expect(pageHash(1n, [2n], 3n)).to.equal(circomPoseidon([1n, 2n, 0n, 0n, 0n, 0n, 0n, 0n, 3n]));
    expect(() => pageHash(1n, Array<bigint>(8).fill(1n), 3n)).to.throw(RangeError);
  });
});

for (const { name, agent: address, secret: own, genesis: start, payments } of vectors.ledgers) {
  describe(`the ledger of the vectors: ${name}`, () => {
    it("is what the agent writes", () => {
      const ledger = new AgentLedger({ domain, agent: address as Address, secret: own as Hex });
      expect(ledger.state.base).to.equal(start);
      for (const expected of payments) {
        const draft = ledger.append(parseWire(paymentSchema, expected.payment).line);
        expect(toWire(draft)).to.deep.equal({ payment: expected.payment, salt: expected.salt, page: expected.page });
        expect(ledger.state.base).to.equal(expected.base);
      }
    });

    it("is what circomlib's Poseidon gives, page by page", () => {
      let [prev, spent] = [start, 0n];
      payments.forEach(({ payment, lines, salt, base, offset, ...rest }, index) => {
        spent += BigInt(payment.line.amount);
        expect(payment).to.include({ seq: String(index + 1), spent: String(spent) });
        expect(rest.prev).to.equal(prev);
        expect(lines.filter((value) => value !== "0")).to.have.length((index % PAGE_LINES) + 1);
        const head = headHex(circomPoseidon([prev, ...lines, salt].map(BigInt)));
        expect(payment.head).to.equal(head);
        if (offset === "0") prev = head;
        expect(base).to.equal(prev);
      });
    });
  });
}

describe("an agent's ledger", () => {
  it("hands out the same payment again while it is pending", () => {
    const ledger = fresh();
    expect(ledger.draft(line(5n))).to.deep.equal(ledger.draft(line(5n)));
    expect(ledger.pending).to.deep.equal(ledger.draft(line(5n)));
    expect(ledger.state.seq).to.equal(0n);
  });

  it("never hands out two lines for one sequence number", () => {
    const ledger = fresh();
    ledger.draft(line(5n));
    const error = refusal("sequence-taken", () => ledger.draft(line(6n)));
    expect(error.details).to.deep.equal({
      value: JSON.stringify(toWire(line(6n))),
      limit: JSON.stringify(toWire(line(5n))),
    });
    expect(error.advice).to.be.a("string");
    for (const change of [{ payee: addressOf("other") }, { amount: 6n }, { ref: word("other") }]) {
      refusal("sequence-taken", () => ledger.draft({ ...line(5n), ...change }));
    }
    expect(ledger.pending?.payment.line).to.deep.equal(line(5n));
  });

  it("keeps to that over a restart", () => {
    const ledger = fresh();
    const handedOut = ledger.draft(line(5n));
    const resumed = new AgentLedger({ domain, agent, secret, state: onDisk(ledger.state) });
    refusal("sequence-taken", () => resumed.draft(line(6n)));
    expect(resumed.pending).to.deep.equal(handedOut);
  });

  it("takes another line once the payment was refused", () => {
    const ledger = fresh();
    ledger.draft(line(5n));
    ledger.discard();
    expect(ledger.pending).to.equal(null);
    expect(ledger.draft(line(6n)).payment).to.include({ seq: 1n, spent: 6n });
  });

  it("commits only what was handed out", () => {
    const ledger = fresh();
    refusal("sequence-gap", () => ledger.commit());
    ledger.append(line(5n));
    refusal("sequence-gap", () => ledger.commit());
    expect(ledger.state).to.include({ seq: 1n, spent: 5n });
  });

  it("is unchanged by a line that it refuses", () => {
    const ledger = fresh();
    refusal("amount-zero", () => ledger.draft(line(0n)));
    refusal("amount-too-large", () => ledger.draft(line(MAX_AMOUNT + 1n)));
    expect(ledger.state).to.deep.equal({ ...startOf(domain, agent), pending: null });
  });

  it("refuses a total above 2^64 − 1 and takes exactly that", () => {
    const state = { ...fresh().state, spent: MAX_TOTAL - 1n };
    const ledger = new AgentLedger({ domain, agent, secret, state });
    expect(refusal("total-too-large", () => ledger.draft(line(2n))).details["limit"]).to.equal(String(MAX_TOTAL));
    expect(ledger.draft(line(1n)).payment.spent).to.equal(MAX_TOTAL);
  });

  it("begins a page with its own salt after seven payments", () => {
    const ledger = fresh();
    const drafts = Array.from({ length: 8 }, (_, index) => ledger.append(line(BigInt(index + 1))));
    expect(drafts.map(({ page }) => page)).to.deep.equal([0n, 0n, 0n, 0n, 0n, 0n, 0n, 1n]);
    expect(new Set(drafts.map(({ salt }) => salt)).size).to.equal(2);
    expect(ledger.state.base).to.equal(drafts[6]!.payment.head);
    expect(ledger.state.lines).to.deep.equal([line(8n)]);
  });

  it("resumed anywhere, writes what it would have written uninterrupted", () => {
    const lines = fc.array(anyLine, { minLength: 1, maxLength: 16 });
    fc.assert(
      fc.property(
        lines,
        fc.array(fc.constantFrom("run", "restart", "restart while pending"), { minLength: 16, maxLength: 16 }),
        (all, events) => {
          const uninterrupted = fresh();
          let ledger = fresh();
          const restart = () => (ledger = new AgentLedger({ domain, agent, secret, state: onDisk(ledger.state) }));
          all.forEach((next, index) => {
            if (events[index] === "restart") restart();
            const draft = ledger.draft(next);
            if (events[index] === "restart while pending") restart();
            expect(ledger.draft(next)).to.deep.equal(draft);
            ledger.commit();
            expect(draft).to.deep.equal(uninterrupted.append(next));
          });
          expect(ledger.state).to.deep.equal(uninterrupted.state);
        },
      ),
      { numRuns: 30 },
    );
  });

  it("is checked by the processor with the same function, which knows no secret", () => {
    const ledger = fresh();
    let position = startOf(domain, agent);
    for (let amount = 1n; amount <= 9n; amount++) {
      const { payment, salt } = ledger.append(line(amount));
      const step = advance(position, payment.line, salt);
      expect(step.payment).to.deep.equal(payment);
      expect(advance(position, payment.line, salt + 1n).payment.head).not.to.equal(payment.head);
      position = step.position;
    }
    expect({ ...position, pending: null }).to.deep.equal(ledger.state);
  });
});

describe("a ledger's kept state", () => {
  const state = () => {
    const ledger = fresh();
    ledger.append(line(1n));
    return ledger.state;
  };

  it("survives the disk", () => expect(onDisk(state())).to.deep.equal(state()));

  it("is refused when its lines are not those of the open page", () => {
    for (const wrong of [
      { ...state(), seq: 2n },
      { ...state(), lines: [] },
      { ...state(), seq: 0n },
    ]) {
      refusal("malformed-input", () => parseLedgerState(toWire(wrong)));
      refusal("malformed-input", () => new AgentLedger({ domain, agent, secret, state: wrong }));
    }
  });

  it("is refused for another agent, chain or contract", () => {
    refusal("malformed-input", () => new AgentLedger({ domain, agent: addressOf("other"), secret, state: state() }));
    refusal(
      "malformed-input",
      () => new AgentLedger({ domain: { ...domain, chainId: 1n }, agent, secret, state: state() }),
    );
  });
});
