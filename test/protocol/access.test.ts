import {
  accessHeader,
  BursarError,
  signAccess,
  verifyAccess,
  type Access,
  type Address,
  type Domain,
} from "@bursar/protocol";
import { expect } from "chai";
import { id, Wallet } from "ethers";

const DOMAIN: Domain = { chainId: 31_337n, registry: "0x00000000000000000000000000000000000000C3" };
const NOW = 1_800_000_000n;
const wallet = new Wallet(id("reader"));
const account = wallet.address as Address;

async function header(access: Partial<Access> = {}, domain = DOMAIN): Promise<string> {
  const message = { account, expiresAt: NOW + 3_600n, ...access };
  return accessHeader(message, await signAccess(wallet, domain, message));
}

describe("a signed access", () => {
  it("says who asks, until it ends", async () => {
    expect(verifyAccess(DOMAIN, await header(), NOW)).to.equal(account);
    expect(verifyAccess(DOMAIN, await header({ expiresAt: NOW + 86_400n }), NOW)).to.equal(account);
  });

  const refused: [what: string, make: () => Promise<string> | string][] = [
    ["one that has ended", () => header({ expiresAt: NOW })],
    ["one for longer than a day", () => header({ expiresAt: NOW + 86_401n })],
    ["one in another's name", () => header({ account: new Wallet(id("other")).address as Address })],
    ["one for another chain", () => header({}, { ...DOMAIN, chainId: 1n })],
    ["one for another registry", () => header({}, { ...DOMAIN, registry: account })],
    ["another scheme", async () => (await header()).replace("Bursar", "Basic")],
    ["what is no base64", () => "Bursar ???"],
    ["what is no JSON", () => `Bursar ${btoa("{")}`],
    ["what is too long", () => `Bursar ${"A".repeat(3_000)}`],
    ["nothing", () => ""],
  ];
  for (const [what, make] of refused) {
    it(`refuses ${what}`, async () => {
      const text = await make();
      expect(() => verifyAccess(DOMAIN, text, NOW))
        .to.throw(BursarError)
        .with.property("code", "unauthorised");
    });
  }
});
