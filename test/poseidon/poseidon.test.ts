import { randomBytes } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import { createContext, runInContext } from "node:vm";
import { expect } from "chai";
import { build } from "esbuild";
import fc from "fast-check";
import { poseidon9 } from "poseidon-lite";
import {
  buildPoseidon,
  fastConstants,
  fastHash,
  FIELD,
  limbsOf,
  loadPoseidon,
  packConstants,
  plainConstants,
  plainHash,
  wasmFile,
  type Poseidon,
} from "@bursar/poseidon";
import { element, elements, openKernel, type Kernel } from "./kernel.ts";

const plain = plainConstants();
const fast = fastConstants(plain);

/** Known answers of circomlib's Poseidon, as circomlibjs gives them. */
const ANSWERS: readonly (readonly [inputs: readonly bigint[], hash: bigint])[] = [
  [Array<bigint>(9).fill(0n), 800120061924841277379997862745106495629262503147852650856598454570844641064n],
  [
    [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n, 9n],
    13589767895268936107593642967621470491511464502761040466226072462545218539640n,
  ],
  [Array<bigint>(9).fill(FIELD - 1n), 4260567874532772508280390925184585566297818981245997901374203081695372217577n],
];

function toBytes(values: readonly bigint[]): Uint8Array {
  return Buffer.from(values.map((value) => value.toString(16).padStart(64, "0")).join(""), "hex");
}

function fromBytes(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
}

describe("poseidon of nine inputs", () => {
  let poseidon: Poseidon;
  const hashBytes = (values: readonly bigint[]): bigint => {
    const out = new Uint8Array(32);
    poseidon.hash9Bytes(toBytes(values), out);
    return fromBytes(out);
  };
  const expectSame = (values: readonly bigint[]): void => {
    const expected = poseidon9([...values]);
    expect(poseidon.hash9(values), values.join()).to.equal(expected);
    expect(hashBytes(values), values.join()).to.equal(expected);
  };

  before(async function () {
    this.timeout(60_000);
    poseidon = await loadPoseidon();
  });

  it("gives the known answers", () => {
    for (const [inputs, hash] of ANSWERS) {
      expect(poseidon.hash9(inputs)).to.equal(hash);
      expect(hashBytes(inputs)).to.equal(hash);
    }
  });

  it("is circomlib's for each edge value at each place and at all places", () => {
    for (const value of [0n, 1n, 2n, (FIELD - 1n) / 2n, FIELD - 2n, FIELD - 1n]) {
      expectSame(Array<bigint>(9).fill(value));
      for (let place = 0; place < 9; place++) {
        expectSame(Array.from({ length: 9 }, (_, i) => (i === place ? value : FIELD - 1n)));
      }
    }
  });

  it("is circomlib's for powers of two and their neighbours", () => {
    for (let exponent = 0n; exponent < 254n; exponent++) {
      const power = 1n << exponent;
      expectSame(
        [power, power - 1n, power + 1n, FIELD - power, 0n, 1n, power ^ 1n, power >> 1n, FIELD - 1n].map((value) =>
          value < 0n ? value + FIELD : value % FIELD,
        ),
      );
    }
  }).timeout(20_000);

  it("is circomlib's for 2,000 random inputs", () => {
    for (let run = 0; run < 2_000; run++) {
      expectSame(Array.from({ length: 9 }, () => fromBytes(randomBytes(32)) % FIELD));
    }
  }).timeout(60_000);

  it("is circomlib's for long runs of equal bits", () => {
    fc.assert(
      fc.property(elements(9), (values) => {
        expectSame(values);
      }),
      { numRuns: 500 },
    );
  }).timeout(60_000);

  it("is circomlib's for inputs whose first sum with a constant is near 0 and r", () => {
    for (const near of [-2n, -1n, 0n, 1n, 2n]) {
      expectSame(fast.input.map((constant) => (2n * FIELD - constant + near) % FIELD));
    }
  });

  it("does not remember the hash before", () => {
    const [[inputs, hash], [others]] = [ANSWERS[0]!, ANSWERS[1]!];
    poseidon.hash9(others);
    expect(poseidon.hash9(inputs)).to.equal(hash);
  });

  it("reads and writes views into larger buffers", () => {
    const [inputs, hash] = ANSWERS[1]!;
    const buffer = new Uint8Array(1_000).fill(0xff);
    buffer.set(toBytes(inputs), 13);
    poseidon.hash9Bytes(buffer.subarray(13, 301), buffer.subarray(400, 440));
    expect(fromBytes(buffer.subarray(400, 432))).to.equal(hash);
    expect([...buffer.subarray(432, 440)]).to.deep.equal(Array(8).fill(0xff));
  });

  it("refuses an input that is not below r, at each place", () => {
    for (const value of [FIELD, FIELD + 1n, FIELD + (1n << 64n), 1n << 254n, (1n << 256n) - 1n]) {
      for (let place = 0; place < 9; place++) {
        const values = Array.from({ length: 9 }, (_, i) => (i === place ? value : 0n));
        expect(() => poseidon.hash9(values)).to.throw(RangeError, `input ${place} `);
        expect(() => hashBytes(values)).to.throw(RangeError, `input ${place} `);
      }
    }
    const others = Array<bigint>(8).fill(0n);
    for (const value of [-1n, -FIELD, 1n << 256n, (1n << 256n) + 1n, 1n << 300n]) {
      expect(() => poseidon.hash9([value, ...others])).to.throw(RangeError, "input 0 ");
    }
  });

  it("compares every word with r", () => {
    for (const bit of [1n, 1n << 64n, 1n << 128n, 1n << 192n]) {
      expect(() => hashBytes(Array<bigint>(9).fill(FIELD - 1n + bit))).to.throw(RangeError);
      expectSame(Array<bigint>(9).fill(FIELD - bit));
    }
  });

  it("writes nothing when it refuses", () => {
    const out = new Uint8Array(32).fill(7);
    expect(() => poseidon.hash9Bytes(toBytes(Array<bigint>(9).fill(FIELD)), out)).to.throw(RangeError);
    expect([...out]).to.deep.equal(Array(32).fill(7));
  });

  it("refuses other numbers of inputs and bytes", () => {
    for (const count of [0, 8, 10]) {
      const values = Array<bigint>(count).fill(0n);
      expect(() => poseidon.hash9(values)).to.throw(RangeError, `not ${count}`);
    }
    for (const length of [0, 287, 289]) {
      expect(() => poseidon.hash9Bytes(new Uint8Array(length), new Uint8Array(32))).to.throw(RangeError);
    }
    expect(() => poseidon.hash9Bytes(new Uint8Array(288), new Uint8Array(31))).to.throw(RangeError);
  });
});

describe("the rearranged permutation", () => {
  it("is the plain one, which is circomlib's", () => {
    fc.assert(
      fc.property(elements(9), (values) => {
        const expected = poseidon9([...values]);
        return plainHash(plain, values) === expected && fastHash(fast, values) === expected;
      }),
      { numRuns: 50 },
    );
  }).timeout(20_000);

  it("is the plain one for every capacity and constant, not for circomlib's alone", () => {
    fc.assert(
      fc.property(elements(10), elements(9), (constants, values) => {
        const other = {
          ...plain,
          rounds: plain.rounds.map((row, i) => row.map((value, j) => (value + constants[(i + j) % 10]!) % FIELD)),
        };
        return plainHash(other, values) === fastHash(fastConstants(other), values);
      }),
      { numRuns: 10 },
    );
  }).timeout(20_000);

  it("refuses a matrix whose partial rounds do not show the state", () => {
    const matrix = plain.matrix.map((row, i) => (i === 0 ? [1n, ...Array<bigint>(9).fill(0n)] : row));
    expect(() => fastConstants({ ...plain, matrix })).to.throw("no recurrence");
  });
});

describe("the arithmetic of poseidon in WebAssembly", () => {
  let kernel: Kernel;

  before(async function () {
    this.timeout(60_000);
    kernel = await openKernel(await buildPoseidon());
  });

  it("takes the fifth power of every number that can stand before an S-box", () => {
    fc.assert(
      fc.property(element, fc.boolean(), (value, lifted) => {
        kernel.expectBox(lifted ? value + FIELD : value);
      }),
      { numRuns: 3_000 },
    );
    for (const value of kernel.extremes) kernel.expectBox(value);
  });

  it("sums 1 to 19 products of every kind", () => {
    const pairs = fc.array(fc.tuple(element, element), { minLength: 1, maxLength: 19 });
    fc.assert(
      fc.property(pairs, element, (terms, offset) => {
        kernel.expectDot(terms, offset);
      }),
      { numRuns: 3_000 },
    );
  });

  it("sums 19 products of the largest limbs", () => {
    for (const a of kernel.extremes) {
      for (const b of kernel.extremes) {
        for (const terms of [1, 2, 18, 19]) {
          kernel.expectDot(
            Array.from({ length: terms }, () => [a, b] as const),
            kernel.extremes[0]!,
          );
        }
      }
    }
  });

  it("never fills an accumulator with the constants as they are", () => {
    const { coefficients } = packConstants(fast);
    const most = limbsOf(kernel.extremes[0]!);
    const widths = [9, 10, ...Array.from({ length: 10 }, (_, k) => 10 + k), 19, 19, 10];
    const rows = [10, 10, ...Array<number>(10).fill(1), 1, 10, 1];
    let at = 0;
    let largest = 0n;
    widths.forEach((width, map) => {
      for (let row = 0; row < rows[map]!; row++) {
        const terms = coefficients.slice(at, (at += width)).map(limbsOf);
        for (let column = 0; column <= 16; column++) {
          let sum = 1n << 30n;
          for (const term of terms) {
            for (let i = Math.max(0, column - 8); i <= Math.min(8, column); i++) sum += term[i]! * most[column - i]!;
          }
          if (sum > largest) largest = sum;
        }
      }
    });
    expect(at).to.equal(coefficients.length);
    expect(largest < 249n << 56n).to.equal(true);
  });
});

describe("poseidon in a browser", () => {
  it("needs its compiled bytes and nothing of Node", async function () {
    this.timeout(60_000);
    const { outputFiles } = await build({
      stdin: {
        contents: `export { instantiatePoseidon } from "@bursar/poseidon/instance";`,
        resolveDir: import.meta.dirname,
      },
      bundle: true,
      platform: "browser",
      format: "iife",
      globalName: "bundle",
      write: false,
      logLevel: "silent",
    });
    const context = createContext({ wasm: await readFile(await buildPoseidon()) });
    const [inputs, hash] = ANSWERS[1]!;
    const found = runInContext(
      `${outputFiles[0]!.text}; bundle.instantiatePoseidon(wasm).then((poseidon) => poseidon.hash9([${inputs.map((value) => `${value}n`).join()}]))`,
      context,
    ) as Promise<bigint>;
    expect(await found).to.equal(hash);
  });
});

describe("the build of poseidon", () => {
  it("makes the same bytes again, and makes them once for two who ask", async function () {
    this.timeout(60_000);
    const before = await readFile(await buildPoseidon());
    await rm(wasmFile());
    const files = await Promise.all([buildPoseidon(), buildPoseidon()]);
    expect(files).to.deep.equal([wasmFile(), wasmFile()]);
    expect((await readFile(wasmFile())).equals(before)).to.equal(true);
    expect(await buildPoseidon()).to.equal(wasmFile());
  });
});
