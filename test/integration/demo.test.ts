import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { expect } from "chai";

describe("npm run demo", function () {
  this.timeout(300_000);
  let output: string;

  before(async () => {
    const demo = fileURLToPath(new URL("../../scripts/demo.ts", import.meta.url));
    ({ stdout: output } = await promisify(execFile)(process.execPath, ["--import", "tsx", demo], {
      maxBuffer: 1 << 24,
    }));
  });

  const found = (pattern: RegExp): string[] => {
    const match = pattern.exec(output);
    expect(match, `${pattern} in the output`).not.to.equal(null);
    return [...match!].slice(1);
  };

  it("makes at least 100 payments of fractions of a cent to three services", () => {
    const [payments] = found(/Batch 1: (\d+) payments of 4 mandates/);
    expect(Number(payments)).to.be.at.least(100);
    for (const service of ["Weather", "Maps", "Search"]) {
      const [price] = found(new RegExp(`${service} .* 0\\.(\\d+) a call`));
      expect(Number(`0.${price}`)).to.be.lessThan(0.01);
    }
  });

  it("refuses an off-mission, an over-cap and an over-budget payment with reason and advice", () => {
    for (const [what, code] of [
      ["off mission", "off-mission-host"],
      ["over the cap", "above-payment-cap"],
      ["over the budget", "above-budget"],
    ] as const) {
      const [reason, advice] = found(new RegExp(`^${what}: refused, ${code}\\n  (.+)\\n  advice: (.+)$`, "m"));
      expect(reason).to.match(/\d|example/);
      expect(advice!.length).to.be.greaterThan(10);
    }
  });

  it("settles in one transaction with one proof", () => {
    expect(output.match(/Settled in one transaction: 0x[0-9a-f]{64}/g)).to.have.length(1);
    expect(output).not.to.match(/Batch 2/);
  });

  it("pays exactly what the agents spent to the payees", () => {
    const [total] = found(/\nBursar, one proof +1 +(\d+)/);
    expect(Number(total)).to.be.greaterThan(200_000);
    const received = ["Weather", "Maps", "Search"].map((service) =>
      Number(found(new RegExp(`${service} +received ([\\d.]+) tUSD`))[0]),
    );
    for (const amount of received) expect(amount).to.be.greaterThan(0);
  });

  it("prints a readable ledger and the gas beside single transfers", () => {
    expect(output).to.match(/#\s+time\s+agent\s+seq\s+payee\s+amount\s+status\s+batch\s+why/);
    const [ours] = found(/Bursar, one proof +1 +\d+ +(\d+)/);
    const [theirs] = found(/single ERC-20 transfers +\d+ +\d+ +(\d+)/);
    expect(Number(ours)).to.be.lessThan(Number(theirs));
  });
});
