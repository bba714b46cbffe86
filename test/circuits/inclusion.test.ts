import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { allowList, BursarError, FIELD, genesis, lineToField, pageHash, toField, type Address } from "@bursar/protocol";
import {
  buildCircuit,
  capacity,
  circuitIdOf,
  circuitSize,
  circuitSizes,
  DEVELOPMENT_SEED,
  inclusionSize,
  keyFolder,
  layOut,
  openCircuit,
  Prover,
  showLine,
  verifierSource,
  writeDevelopmentKey,
  type BuiltCircuit,
  type InclusionInput,
  type SettledPart,
} from "@bursar/prover";
import { expect } from "chai";
import fc from "fast-check";
import { curves, groth16 } from "snarkjs";

import { Forger, type Attempt } from "./forge.ts";

const SIZE = inclusionSize(circuitSize("tiny"));
const PAGES = SIZE.segments * SIZE.pages;
const DOMAIN = { chainId: 31_337n, registry: "0x00000000000000000000000000000000000000C3" } as const;
const ADA = "0x00000000000000000000000000000000000000A1";

const payee = (n: number): Address => `0x${(0x51 + n).toString(16).padStart(40, "0")}`;

/** The first `count` lines of Ada's ledger. */
function partOf(count: number): SettledPart {
  return {
    base: genesis(DOMAIN, ADA),
    lines: Array.from({ length: count }, (_, i) => ({ payee: payee(i % 3), amount: BigInt(10 + i) })),
    salts: Array.from({ length: Math.ceil(count / 7) }, (_, page) => BigInt(1_000 + page)),
  };
}

type Mutable = { -readonly [name in keyof InclusionInput]: InclusionInput[name] };

/** A copy that may be spoiled. */
function spoil(part: SettledPart, index: number, change: (input: Mutable) => void = () => undefined): InclusionInput {
  const input: Mutable = structuredClone(showLine(SIZE, part, index).input);
  change(input);
  return input;
}

/** The hash of each page of a part, the first page's first. */
function headsOf({ base, lines, salts }: SettledPart): bigint[] {
  const heads: bigint[] = [];
  for (const [page, salt] of salts.entries()) {
    const onPage = lines.slice(7 * page, 7 * page + 7).map(lineToField);
    heads.push(pageHash(heads.at(-1) ?? base, onPage, salt));
  }
  return heads;
}

async function refusal(attempt: Promise<unknown>): Promise<BursarError> {
  const error: unknown = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).to.be.instanceOf(BursarError);
  return error as BursarError;
}

describe("Inclusion(P)", function () {
  this.timeout(300_000);
  let forger: Forger;

  before(async () => {
    forger = await Forger.createInclusion(PAGES);
  });
  after(() => {
    forger.close();
  });

  /** Sixteen lines: two full pages and two lines more, on a page of four that the circuit has. */
  const PART = partOf(16);
  const HEADS = headsOf(PART);
  const field = (index: number): bigint => lineToField(PART.lines[index]!);

  const attempt = (
    index: number,
    change?: (input: Mutable) => void,
    forged?: Record<string, bigint>,
    part = PART,
  ): Promise<Attempt> => forger.attempt(spoil(part, index, change), forged);

  /** That so many of the source's constraints, and no others, stand against it. */
  async function expectViolated(
    count: number,
    index: number,
    change?: (input: Mutable) => void,
    forged?: Record<string, bigint>,
  ): Promise<void> {
    const { accepted, rules } = await attempt(index, change, forged);
    expect(accepted, "the forged witness").to.equal(false);
    expect(rules(), "constraints violated").to.equal(count);
  }

  async function expectRejected(
    index: number,
    change?: (input: Mutable) => void,
    forged?: Record<string, bigint>,
  ): Promise<void> {
    expect((await attempt(index, change, forged)).accepted, "the forged witness").to.equal(false);
  }

  describe("size", () => {
    it("has 434 constraints a page: 1,736 for 28 lines, 10,850 for 175", async () => {
      expect(forger.constraints).to.equal(1_736);
      for (const [name, constraints] of [
        ["tiny", 1_736],
        ["default", 10_850],
      ] as const) {
        const size = inclusionSize(circuitSize(name));
        const built = await buildCircuit(size);
        expect(built.constraints).to.equal(constraints);
        expect(built.constraints / (size.segments * size.pages)).to.equal(434);
        expect(built.constraints + 5).to.be.at.most(2 ** size.power);
      }
    });
    it("has as many line slots as the batch that it is for, in every size", () => {
      for (const size of circuitSizes()) expect(capacity(inclusionSize(size))).to.equal(capacity(size));
    });
  });

  describe("accepts", () => {
    const honest: [name: string, part: SettledPart, index: number][] = [
      ["the first line", PART, 0],
      ["the last line of a full page", PART, 6],
      ["the first line of the next page", PART, 7],
      ["the last line, on a page that is not full", PART, 15],
      ["the only line of a ledger", partOf(1), 0],
      ["a line of a page that is just full", partOf(7), 6],
      ["the first line of a ledger that fills every page", partOf(28), 0],
      ["the last line of a ledger that fills every page", partOf(28), 27],
      [
        "the largest payee and amount",
        { ...partOf(1), lines: [{ payee: `0x${"ff".repeat(20)}`, amount: 2n ** 40n - 1n }] },
        0,
      ],
      ["two pages with the same lines and salt", { ...partOf(14), lines: same(14), salts: [5n, 5n] }, 9],
    ];
    for (const [name, part, index] of honest) {
      it(name, async () => {
        const { accepted, violated } = await attempt(index, undefined, undefined, part);
        expect(accepted, `${violated} constraints violated`).to.equal(true);
      });
    }
    it("the public signals in their order: base, head, line, index", async () => {
      const built = await buildCircuit(SIZE);
      const { input } = showLine(SIZE, PART, 9);
      const { publicSignals } = await groth16.fullProve(input, built.wasm, built.zkey);
      expect(publicSignals.map(BigInt)).to.deep.equal([PART.base, HEADS[2], field(9), 9n]);
      expect(built.verificationKey.nPublic).to.equal(4);
    });
    it("the head that the batch of these lines claims, wherever an earlier batch ended", () => {
      fc.assert(
        fc.property(fc.nat({ max: 6 }), fc.integer({ min: 1, max: 21 }), (settled, count) => {
          const part = partOf(settled + count);
          const row = { ...part, agent: ADA, seq: BigInt(settled), allow: allowList([]), paymentCap: 1_000n } as const;
          const [claim] = layOut(circuitSize("tiny"), [row]).rows;
          for (const index of [settled, settled + count - 1]) {
            const { base, head, line } = showLine(SIZE, part, index).input;
            expect([base, head, line]).to.deep.equal([claim!.base, claim!.head, lineToField(part.lines[index]!)]);
          }
        }),
        { numRuns: 40 },
      );
    });
  });

  function same(count: number): SettledPart["lines"] {
    return Array.from({ length: count }, () => ({ payee: payee(0), amount: 1n }));
  }

  it("determines every signal by the inputs", async () => {
    for (const index of [0, 15]) expect((await attempt(index)).undetermined()).to.deep.equal([]);
  });

  describe("clause 1: the pages hash from base to head", () => {
    it("rejects another head", () => expectViolated(1, 3, (input) => (input.head += 1n)));
    it("rejects another base", () => expectViolated(1, 3, (input) => (input.base += 1n)));
    it("rejects another salt, a line added, changed, moved or left out, on any page", async () => {
      for (const change of [
        ({ salt }: Mutable) => (salt[1] = salt[1]! + 1n),
        ({ lines }: Mutable) => (lines[16] = 1n),
        ({ lines }: Mutable) => (lines[8] = lines[8]! + 1n),
        ({ lines }: Mutable) => ([lines[8], lines[9]] = [lines[9]!, lines[8]!]),
        ({ lines }: Mutable) => (lines[15] = 0n),
      ]) {
        await expectViolated(1, 3, change);
      }
    });
    it("says nothing of what stands behind the last page", async () => {
      const { accepted } = await attempt(3, ({ lines, salt }) => void ((lines[21] = 77n), (salt[3] = 78n)));
      expect(accepted).to.equal(true);
    });
    it("rejects no last page, for a head of 0", () =>
      expectViolated(1, 3, (input) => void ((input.last[2] = 0n), (input.head = 0n))));
    it("rejects two last pages, for the sum of their hashes", () =>
      expectViolated(1, 3, (input) => void ((input.last[1] = 1n), (input.head = toField(HEADS[1]! + HEADS[2]!)))));
    it("rejects flags that are not boolean, though they sum up to 1: a head of the prover's choice", () =>
      expectViolated(2, 3, (input) => {
        [input.last[0], input.last[2]] = [2n, FIELD - 1n];
        input.head = toField(2n * HEADS[0]! - HEADS[2]!);
      }));
    it("rejects a forged hash of a page, carried on to the next one and to the head", async () => {
      const honest = await attempt(3);
      const moved = honest.signal("page[1].out") + 1n;
      await expectRejected(3, undefined, { "page[1].out": moved, "page[2].prev": moved });
      const head = honest.signal("reached[2]") + 1n;
      await expectViolated(1, 3, (input) => (input.head = head), { "reached[2]": head });
    });
  });

  describe("clause 2: one slot, number index, up to the last page", () => {
    it("rejects another index", () => expectViolated(1, 3, (input) => (input.index = 4n)));
    it("rejects a negative index", () => expectViolated(1, 0, (input) => (input.index = FIELD - 1n)));
    it("rejects no slot", () => expectViolated(2, 0, ({ chosen }) => (chosen[0] = 0n)));
    it("rejects two slots, for the sum of their lines and numbers", () =>
      expectViolated(1, 1, (input) => {
        input.chosen[2] = 1n;
        [input.index, input.line] = [3n, toField(field(1) + field(2))];
      }));
    it("rejects two slots on two pages", () =>
      expectViolated(1, 1, (input) => {
        input.chosen[8] = 1n;
        [input.index, input.line] = [9n, toField(field(1) + field(8))];
      }));
    it("rejects choices that are not boolean, though they sum up to 1: any number, with a line that nobody wrote", () =>
      expectViolated(2, 0, (input) => {
        [input.chosen[0], input.chosen[1]] = [FIELD - 4n, 5n];
        [input.index, input.line] = [5n, toField(5n * field(1) - 4n * field(0))];
      }));
    it("rejects a slot behind the last page, where the prover may write what it likes", () =>
      expectViolated(1, 0, (input) => {
        [input.chosen[0], input.chosen[21], input.lines[21]] = [0n, 1n, 77n];
        [input.index, input.line] = [21n, 77n];
      }));
    it("rejects a line of a later page under an earlier head, and takes one up to it", async () => {
      const shortened = (input: Mutable): void => {
        [input.last[0], input.last[2]] = [1n, 0n];
        input.head = HEADS[0]!;
      };
      await expectViolated(1, 7, shortened);
      expect((await attempt(6, shortened)).accepted).to.equal(true);
    });
  });

  describe("clause 3: the line in that slot, which is one", () => {
    it("rejects another line: one unit more, another payee", async () => {
      for (const line of [field(3) + (1n << 160n), field(3) + 1n, field(4)]) {
        await expectViolated(1, 3, (input) => (input.line = line));
      }
    });
    it("rejects an unused slot as a line of nothing", () =>
      expectViolated(1, 0, (input) => {
        [input.chosen[0], input.chosen[16]] = [0n, 1n];
        [input.index, input.line] = [16n, 0n];
      }));
    it("rejects it with any inverse of 0", async () => {
      for (const inverse of [1n, FIELD - 1n]) {
        await expectRejected(
          0,
          (input) => {
            [input.chosen[0], input.chosen[16]] = [0n, 1n];
            [input.index, input.line] = [16n, 0n];
          },
          { inverse },
        );
      }
    });
    it("rejects a value found where nothing is chosen, carried through to the line", () =>
      expectViolated(1, 3, (input) => (input.line = field(3) + 77n), { "found[5]": 77n }));
  });

  describe("attacks that only the contract can see", () => {
    it("a line that an earlier batch settled is on the page too: the contract takes numbers above its row's start only", async () => {
      const row = { ...partOf(9), agent: ADA, seq: 3n, allow: allowList([]), paymentCap: 1_000n } as const;
      const [claim] = layOut(circuitSize("tiny"), [row]).rows;
      const { accepted } = await attempt(1, undefined, undefined, row);
      expect(accepted).to.equal(true);
      expect([claim!.seq, claim!.count]).to.deep.equal([3n, 6n]);
    });
    it("a part that begins at a later base shows the line under another index: base and start come from one row", async () => {
      const later = { base: HEADS[0]!, lines: PART.lines.slice(7), salts: PART.salts.slice(1) };
      const { accepted, signal } = await attempt(2, undefined, undefined, later);
      expect(accepted).to.equal(true);
      expect([signal("base"), signal("head"), signal("line"), signal("index")]).to.deep.equal([
        HEADS[0],
        HEADS[2],
        field(9),
        2n,
      ]);
    });
  });

  describe("what it is asked", () => {
    const refused = (work: () => unknown): Promise<BursarError> => refusal(Promise.resolve().then(work));

    it("fits the circuit", async () => {
      const error = await refused(() => showLine(SIZE, partOf(29), 0));
      expect([error.code, error.details]).to.deep.equal(["batch-does-not-fit", { value: "29", limit: "28" }]);
    });
    it("has a salt for each page", async () => {
      for (const salts of [[], [1n], [1n, 2n, 3n, 4n]]) {
        const error = await refused(() => showLine(SIZE, { ...PART, salts }, 0));
        expect([error.code, error.details["limit"]]).to.deep.equal(["malformed-input", "3"]);
      }
    });
    it("is one of the lines", async () => {
      for (const index of [-1, 16, 0.5]) {
        const error = await refused(() => showLine(SIZE, PART, index));
        expect([error.code, error.details["limit"]]).to.deep.equal(["malformed-input", "16"]);
      }
    });
  });

  describe("keys and proofs", () => {
    const folder = mkdtempSync(join(tmpdir(), "bursar-inclusion-"));
    const prover = new Prover();
    let built: BuiltCircuit;

    before(async () => {
      built = await buildCircuit(SIZE);
    });
    after(async () => {
      prover.close();
      rmSync(folder, { recursive: true });
      await (await curves.getCurveFromName("bn128")).terminate();
    });

    it("the development key is the same, byte for byte, whenever it is made, and not the batch's", async () => {
      const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");
      await writeDevelopmentKey(built.r1cs, join(folder, "again.zkey"), DEVELOPMENT_SEED);
      expect(sha256(join(folder, "again.zkey"))).to.equal(sha256(built.zkey));
      const batch = await buildCircuit(circuitSize("tiny"));
      expect(circuitIdOf(built.verificationKey)).not.to.equal(circuitIdOf(batch.verificationKey));
    });
    it("has gamma and delta that differ from each other and from the generator", () => {
      const { vk_gamma_2: gamma, vk_delta_2: delta, vk_beta_2: beta } = built.verificationKey;
      const generator = "10857046999023057135944570762232829481370756359578518086990519993285655852781";
      expect(gamma).not.to.deep.equal(delta);
      for (const point of [gamma, delta, beta]) expect(point[0]![0]).not.to.equal(generator);
    });
    it("is refused when missing, with the command that makes it, or the ceremony's page", async () => {
      const missing = await refusal(openCircuit({ ...SIZE, pages: 3 }));
      expect([missing.code, missing.advice]).to.deep.equal([
        "key-missing",
        "Run `npm run circuits -- tiny-inclusion`.",
      ]);
      const elsewhere = await refusal(openCircuit(SIZE, keyFolder(SIZE, folder)));
      expect([elsewhere.code, elsewhere.details["value"]]).to.deep.equal(["key-missing", join(folder, SIZE.name)]);
    });
    it("a proof is refused with any other signal, or in another order, and by another key", async () => {
      const { input } = showLine(SIZE, PART, 9);
      const { proof, publicSignals } = await groth16.fullProve(input, built.wasm, built.zkey);
      const verify = (signals: string[], key = built.verificationKey): Promise<boolean> =>
        groth16.verify(key, signals, proof);
      expect(await verify(publicSignals)).to.equal(true);
      for (const index of [0, 1, 2, 3]) {
        const altered = publicSignals.map((signal, i) =>
          i === index ? String((BigInt(signal) + 1n) % FIELD) : signal,
        );
        expect(await verify(altered)).to.equal(false);
      }
      expect(await verify([...publicSignals].reverse())).to.equal(false);
      const { verificationKey: other } = await buildCircuit(inclusionSize(circuitSize("default")));
      expect(await verify(publicSignals, other)).to.equal(false);
    });
    it("are made in the prover's own process, among batches, one after another", async () => {
      const batch = layOut(circuitSize("tiny"), [
        { ...partOf(3), agent: ADA, seq: 0n, allow: allowList([]), paymentCap: 100n },
      ]);
      const [one, two, three] = await Promise.all([
        prover.proveInclusion(SIZE, showLine(SIZE, PART, 0)),
        prover.prove(circuitSize("tiny"), batch, 5n),
        prover.proveInclusion(SIZE, showLine(SIZE, PART, 15)),
      ]);
      const id = circuitIdOf(built.verificationKey);
      expect([one.circuitId, three.circuitId, two.signals.z]).to.deep.equal([id, id, 5n]);
      for (const { proof } of [one, three]) expect(proof).to.have.length(8);
      expect(prover.pid).to.be.a("number");
    });
    it("of the default size, with every slot used", async () => {
      const size = inclusionSize(circuitSize("default"));
      await buildCircuit(size);
      const full = partOf(capacity(size));
      expect((await prover.proveInclusion(size, showLine(size, full, 174))).proof).to.have.length(8);
    });
    it("are refused for a statement that does not hold, and the next one is made", async () => {
      const honest = showLine(SIZE, PART, 9);
      for (const change of [{ line: 1n }, { index: 8n }, { head: HEADS[1]! }, { base: 1n }]) {
        const error = await refusal(prover.proveInclusion(SIZE, { input: { ...honest.input, ...change } }));
        expect(error.code).to.equal("proof-invalid");
      }
      expect((await prover.proveInclusion(SIZE, honest)).proof).to.have.length(8);
    });
    it("the verifier's source takes four signals, and a development key refuses other chains twice", async () => {
      const text = await verifierSource({ ...built, name: "SomeInclusionVerifier", development: true });
      expect(text).to.include("uint256[4] calldata").and.to.include("is IInclusionVerifier");
      expect(text.match(/revert DevelopmentKey\(block\.chainid\)/g)).to.have.length(2);
    });
  });
});
