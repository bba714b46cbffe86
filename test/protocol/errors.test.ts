import { expect } from "chai";
import { BursarError, ERRORS, problem, type ErrorCode } from "@bursar/protocol";

describe("errors", () => {
  for (const code of Object.keys(ERRORS) as ErrorCode[]) {
    it(`${code} has a status and a title as Problem Details`, () => {
      const { status, title } = ERRORS[code];
      expect(code).to.match(/^[a-z]+(-[a-z]+)*$/);
      expect(status).to.be.within(400, 599);
      expect(problem(new BursarError(code, "what happened", { value: 5n, limit: 4 }))).to.deep.equal({
        type: `urn:bursar:problem:${code}`,
        title,
        status,
        detail: "what happened",
        code,
        details: { value: "5", limit: "4" },
      });
    });
  }

  it("have titles of their own", () => {
    const titles = Object.values(ERRORS).map(({ title }) => title);
    expect(new Set(titles).size).to.equal(titles.length);
  });

  it("carry advice when there is some", () => {
    expect(problem(new BursarError("above-budget", "m", {}, "Ask the owner."))).to.include({
      advice: "Ask the owner.",
    });
    expect(problem(new BursarError("above-budget", "m"))).not.to.have.property("advice");
  });

  it("tell nothing of what was not foreseen (K15)", () => {
    for (const error of [new Error("secret at /root/keys"), "secret", null, { message: "secret" }]) {
      const answer = problem(error);
      expect(answer).to.include({ status: 500, code: "internal-error" });
      expect(JSON.stringify(answer)).not.to.match(/secret|root/);
    }
  });

  it("are errors with a name, a message and a stack", () => {
    const error = new BursarError("above-budget", "m");
    expect(error).to.be.instanceOf(Error).and.to.include({ name: "BursarError", message: "m", code: "above-budget" });
    expect(error.stack).to.include("errors.test.ts");
  });
});
