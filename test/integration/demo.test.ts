import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { parseAmount } from "@bursar/protocol";
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

  it("pays each service its price for every payment that it was promised, and not a unit more", () => {
    const [payments] = found(/Batch 1: (\d+) payments/);
    const paid = ["Weather", "Maps", "Search"].map((service) => {
      const units = (pattern: string): bigint => parseAmount(found(new RegExp(`${service} ${pattern}`))[0]!);
      const [received, price] = [units("+received ([\\d.]+) tUSD"), units(".* ([\\d.]+) a call")];
      expect(received % price).to.equal(0n);
      return received / price;
    });
    expect(paid.reduce((sum, count) => sum + count)).to.equal(BigInt(payments!));
  });

  it("prints a readable ledger and the gas beside single transfers", () => {
    expect(output).to.match(/#\s+time\s+agent\s+seq\s+payee\s+amount\s+status\s+batch\s+why/);
    const [ours] = found(/Bursar, one proof +1 +\d+ +(\d+)/);
    const [theirs] = found(/single ERC-20 transfers +\d+ +\d+ +(\d+)/);
    expect(Number(ours)).to.be.lessThan(Number(theirs));
  });
});
