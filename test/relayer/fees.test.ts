import { firstFees, isOfTheNode, isUnreachable, parseEth, parseGwei, raisedFees } from "@bursar/relayer";
import { expect } from "chai";
import fc from "fast-check";

import { refusalOf } from "./office.ts";

describe("fees", () => {
  const market = { baseFee: 100n, priority: 10n };

  it("leave room for a base fee that doubles, and never go above the cap", () => {
    expect(firstFees(market, undefined)).to.deep.equal({ maxFeePerGas: 210n, maxPriorityFeePerGas: 10n });
    expect(firstFees(market, 150n)).to.deep.equal({ maxFeePerGas: 150n, maxPriorityFeePerGas: 10n });
    expect(firstFees(market, 110n)).to.deep.equal({ maxFeePerGas: 110n, maxPriorityFeePerGas: 10n });
    expect(firstFees(market, 109n)).to.equal(null);
  });

  it("are raised by an eighth, to the market, or not at all", () => {
    const before = { maxFeePerGas: 800n, maxPriorityFeePerGas: 80n };
    expect(raisedFees(before, market, undefined)).to.deep.equal({ maxFeePerGas: 901n, maxPriorityFeePerGas: 91n });
    expect(raisedFees(before, { baseFee: 1_000n, priority: 500n }, undefined)).to.deep.equal({
      maxFeePerGas: 2_500n,
      maxPriorityFeePerGas: 500n,
    });
    expect(raisedFees(before, { baseFee: 1_000n, priority: 500n }, 901n)?.maxFeePerGas).to.equal(901n);
    expect(raisedFees(before, market, 900n)).to.equal(null);
  });

  it("are always such that nodes take them: both an eighth higher, the priority within the whole, the whole within the cap", () => {
    const wei = fc.bigInt(1n, 10n ** 15n);
    fc.assert(
      fc.property(
        wei,
        wei,
        wei,
        fc.option(wei, { nil: undefined }),
        wei,
        wei,
        (baseFee, priority, before, cap, b, p) => {
          const first = firstFees({ baseFee, priority }, cap);
          if (first === null) return cap !== undefined && cap < baseFee + priority;
          const raised = raisedFees(first, { baseFee: b, priority: p }, cap);
          const bounded = [first, raised ?? first].every(
            ({ maxFeePerGas, maxPriorityFeePerGas }) =>
              maxPriorityFeePerGas <= maxFeePerGas && (cap === undefined || maxFeePerGas <= cap) && before > 0n,
          );
          const higher =
            raised === null ||
            (raised.maxFeePerGas * 8n > first.maxFeePerGas * 9n &&
              raised.maxPriorityFeePerGas * 8n > first.maxPriorityFeePerGas * 9n);
          return bounded && higher;
        },
      ),
    );
  });

  it("are read as amounts above 0 with as many decimals as there are", async () => {
    expect([parseGwei("0.000000001"), parseGwei("50"), parseEth("0.25")]).to.deep.equal([
      1n,
      50n * 10n ** 9n,
      25n * 10n ** 16n,
    ]);
    for (const wrong of ["", "0", "0.0", "-1", "1e9", "0.0000000001", "1,5", "0x1", " 1", "1234567890"]) {
      expect((await refusalOf(() => parseGwei(wrong))).code, wrong).to.equal("malformed-input");
    }
    expect((await refusalOf(() => parseEth("0.0000000000000000001"))).details).to.deep.equal({
      value: "0.0000000000000000001",
      limit: "18",
    });
  });
});

describe("an error of a node", () => {
  for (const [what, error] of Object.entries({
    "a limit (EIP-1474)": { code: -32_005, message: "limit exceeded" },
    "the HTTP status again": { code: 429, message: "Your app has exceeded its compute units per second capacity" },
    "a limit in words": { code: -32_016, message: "over rate limit" },
    "a resource that is not there": { code: -32_002, message: "resource unavailable" },
    "a block that it does not have": { code: -32_000, message: "header not found" },
    "a state that it no longer has": { code: -32_000, message: "missing trie node 0xab (path )" },
    "a time-out": { code: -32_000, message: "execution aborted (timeout = 5s)" },
  })) {
    it(`says nothing about what was asked: ${what}`, () => {
      expect(isOfTheNode(error)).to.equal(true);
      expect(isUnreachable({ code: "UNKNOWN_ERROR", error })).to.equal(true);
      expect(isUnreachable({ code: "CALL_EXCEPTION", info: { error } })).to.equal(true);
    });
  }

  for (const [what, error] of Object.entries({
    "a contract's text": { code: 3, message: "execution reverted: rate limit exceeded", data: "0x08c379a0" },
    "a contract's text without data": { code: -32_000, message: "execution reverted: timeout" },
    "revert data alone": { code: -32_603, message: "timeout", data: "0x08c379a0" },
    "a nonce": { code: -32_000, message: "nonce too low" },
    "a method that it does not know": { code: -32_601, message: "the method eth_x does not exist" },
    nothing: {},
  })) {
    it(`is an answer: ${what}`, () => {
      expect(isOfTheNode(error)).to.equal(false);
      expect(isUnreachable({ code: "UNKNOWN_ERROR", error })).to.equal(false);
      expect(isUnreachable({ code: "CALL_EXCEPTION", info: { error } })).to.equal(false);
    });
  }

  for (const message of [
    "query returned more than 10000 results",
    "query exceeds the range of 10 blocks",
    "Log response size exceeded",
    "query timeout exceeded",
  ]) {
    it(`is an answer about a range of logs: ${message}`, () => {
      const error = { code: -32_005, message };
      const unknown = { code: "UNKNOWN_ERROR", error };
      expect(isOfTheNode(error, "eth_getLogs")).to.equal(false);
      expect(isUnreachable({ ...unknown, payload: { method: "eth_getLogs" } })).to.equal(false);
      expect(isUnreachable({ ...unknown, payload: { method: "eth_call" } })).to.equal(true);
    });
  }

  it("is a limit for a range of logs too", () => {
    expect(isOfTheNode({ code: -32_005, message: "daily request count exceeded" }, "eth_getLogs")).to.equal(true);
  });
});
