import { BursarError } from "@bursar/protocol";
import { explain } from "@bursar/sdk/agent";
import { expect } from "chai";

describe("an error told to a language model", () => {
  it("names the code, the limit and what is left as money, and what to do", () => {
    const details = { value: 90_000n, limit: 12_500n, remaining: 12_500n };
    const error = new BursarError("above-daily-limit", "0.09 does not fit.", details, "Wait, or buy less.");
    expect(explain(error).split("\n")).to.deep.equal([
      "error: above-daily-limit",
      "what: 0.09 does not fit.",
      "limit: 0.0125",
      "left: 0.0125",
      "later: the same may work later",
      "advice: Wait, or buy less.",
    ]);
  });

  it("leaves other limits as they are", () => {
    const error = new BursarError("mandate-expired", "It ended.", { value: 6n, limit: 5n }, "Ask the owner.");
    expect(explain(error).split("\n")).to.deep.equal([
      "error: mandate-expired",
      "what: It ended.",
      "limit: 5",
      "advice: Ask the owner.",
    ]);
    const rate = new BursarError("above-rate", "Used up.", { value: 1n, limit: 0n, remaining: 0n });
    expect(explain(rate)).to.include("limit: 0\nleft: 0\n");
  });

  it("says that it knows nothing of other errors", () => {
    for (const error of [new TypeError("fetch failed"), "fetch failed", null]) {
      expect(explain(error)).to.match(/^error: .+\nadvice: This is not about the mandate/);
    }
  });
});
