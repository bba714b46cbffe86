import { TypedDataEncoder, Wallet, type TypedDataField } from "ethers";
import { expect } from "chai";
import { chromium, type Browser, type Page } from "playwright-core";

import type { Address } from "@bursar/protocol";
import { visible } from "../../packages/relayer/src/plain-text.ts";
import { TestRail } from "../integration/rail.ts";
import { provide } from "../provide.ts";
import { Desk, type Asked } from "./intent-desk.ts";

interface TypedData {
  domain: object;
  types: Record<string, TypedDataField[]>;
  primaryType: string;
  message: Record<string, unknown>;
}

/** What the wallet in the browser does, and what it was asked. */
interface WalletState {
  accounts: string[];
  chainId: string;
  /** Chains that it can switch to. */
  knows: string[];
  /** Which of the signatures it declines, by primary type. */
  declines: string[];
  readonly asked: { method: string; params?: unknown }[];
}

const HOSTILE = [
  `</script><script>window.pwned = 1</script><img src=x onerror="window.pwned = 2">`,
  `"'><b id="bold">Bold</b>&amp; \u202Etxt.exe \u2066hidden\u2069 zero\u200Bwidth \u0007bell`,
  `Z\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308\u0309`,
].join(" ");

describe("the page on which an owner signs", function () {
  this.timeout(600_000);
  let rail: TestRail;
  let desk: Desk;
  let browser: Browser;
  let owner: Wallet;
  const pages: Page[] = [];

  before(async () => {
    const executablePath = provide("chromium");
    rail = await TestRail.start();
    owner = new Wallet(Wallet.createRandom().privateKey, rail.provider);
    await (await rail.dollar.mint(rail.ownerAddress, 1_000_000n)).wait();
    await (await rail.dollar.approve(rail.chain.rail.escrow, 1_000_000n)).wait();
    await (await rail.chain.escrow.connect(rail.owner).deposit(rail.token, 1_000_000n, owner.address)).wait();
    desk = await Desk.open(rail);
    browser = await chromium.launch({
      executablePath,
      args: [
        ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
        ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
      ],
    });
  });
  after(async () => {
    await browser.close();
    await desk.server.close();
    await rail.stop();
  });
  afterEach(async () => {
    await Promise.all(pages.splice(0).map((page) => page.close()));
  });

  const asked = (changes: Record<string, unknown> = {}): Promise<Asked> =>
    desk.asked(changes, owner.address as Address);

  /** Opens the page in a browser with a wallet that signs with the owner's real key; notes what the page loads. */
  async function open(
    { agent }: Pick<Asked, "agent">,
    changes: Partial<WalletState> = {},
  ): Promise<{ page: Page; wallet: WalletState; loaded: string[]; complaints: string[] }> {
    const wallet: WalletState = {
      ...{ accounts: [owner.address], chainId: "0x7a69", knows: ["0x7a69"], declines: [], asked: [] },
      ...changes,
    };
    const page = await browser.newPage({ viewport: { width: 390, height: 844 } });
    pages.push(page);
    const loaded: string[] = [];
    const complaints: string[] = [];
    page.on("request", (request) => loaded.push(request.url()));
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    await page.exposeFunction("walletAnswers", async (method: string, params?: unknown[]) => {
      wallet.asked.push({ method, params });
      return answer(wallet, method, params ?? []);
    });
    await page.addInitScript(INJECTED);
    await page.goto(`${desk.url}/intents/${agent}/sign`);
    return { page, wallet, loaded, complaints };
  }

  async function answer(wallet: WalletState, method: string, params: unknown[]): Promise<unknown> {
    switch (method) {
      case "eth_requestAccounts":
        return { result: wallet.accounts };
      case "eth_chainId":
        return { result: wallet.chainId };
      case "wallet_switchEthereumChain": {
        const { chainId } = params[0] as { chainId: string };
        if (!wallet.knows.includes(chainId)) return { error: { code: 4902, message: "Unrecognized chain" } };
        wallet.chainId = chainId;
        return { result: null };
      }
      case "eth_signTypedData_v4": {
        const { domain, types, primaryType, message } = JSON.parse(params[1] as string) as TypedData;
        if (wallet.declines.includes(primaryType)) return { error: { code: 4001, message: "User rejected" } };
        const { EIP712Domain, ...own } = types;
        expect(EIP712Domain).to.deep.equal(domainFields(domain));
        expect(TypedDataEncoder.from(own).primaryType).to.equal(primaryType);
        expect(params[0]).to.equal(owner.address);
        return { result: await owner.signTypedData(domain, own, message) };
      }
      default:
        return { error: { code: 4200, message: `The method ${method} is not supported` } };
    }
  }

  async function press(page: Page): Promise<string> {
    await page.getByRole("button", { name: "Sign with my wallet" }).click();
    return outcome(page);
  }

  async function outcome(page: Page): Promise<string> {
    await page.locator("#result.good, #result.bad").waitFor();
    return (await page.getByRole("status").textContent())!;
  }

  const methods = ({ asked }: WalletState): string[] => asked.map(({ method }) => method);

  it("says in plain words what is allowed, who enforces it and what is free, and opens the mandate at one press", async () => {
    const intent = await asked({
      hosts: ["api.weather.example"],
      categories: ["weather"],
      limits: { unitsPerCall: "50", unitsPerDay: "1000", paymentsPerMinute: "6" },
      recurring: { seconds: "604800", units: "2500" },
    });
    const { page, wallet, loaded, complaints } = await open(intent);
    const text = await page.innerText("main");
    for (const words of [
      "up to 0.005 tUSD",
      "weather data for a route",
      "Nobody checks these words",
      "at most 0.0001 tUSD in one payment",
      "It may pay anyone",
      "api.weather.example",
      "at most 6 payments in any 60 seconds",
      "recurring: at most 0.0025 tUSD in each 7 days",
      "1 tUSD",
      owner.address,
      intent.agent,
      "5000 units",
    ]) {
      expect(text).to.contain(words);
    }
    const enforcer = async (words: string): Promise<string> =>
      await page.locator("section", { hasText: words }).getByRole("heading").first().innerText();
    expect(await enforcer("in one payment")).to.equal("Limits that nobody can get past");
    expect(await enforcer("api.weather.example")).to.equal("Limits that the processor watches");
    await shoot(page, "asked");

    expect(await press(page)).to.equal("Signed. The mandate is open, and the agent can pay now.");
    await shoot(page, "signed");
    expect(methods(wallet)).to.deep.equal(["eth_requestAccounts", "eth_chainId", "eth_signTypedData_v4"]);
    expect((await rail.chain.mandate(intent.agent)).state).to.equal("open");
    expect(new Set(loaded.map((url) => new URL(url).origin))).to.deep.equal(new Set([desk.url]));
    expect(complaints).to.deep.equal([]);
  });

  it("is served under a policy that lets nothing else run, load or frame it", async () => {
    const { agent } = await asked();
    const { headers } = await fetch(`${desk.url}/intents/${agent}/sign`);
    const policy = headers.get("content-security-policy")!;
    expect(policy).to.match(
      /^default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'; connect-src 'self'/,
    );
    expect(policy).to.contain("frame-ancestors 'none'").and.not.to.contain("unsafe");
    expect(headers.get("content-type")).to.equal("text/html; charset=utf-8");
    expect(headers.get("referrer-policy")).to.equal("no-referrer");
    expect(headers.get("cache-control")).to.equal("no-store");
    const framing = await browser.newPage();
    pages.push(framing);
    const refused = framing.waitForEvent("console", (message) => message.text().includes("frame-ancestors"));
    await framing.setContent(`<iframe src="${desk.url}/intents/${agent}/sign"></iframe>`);
    await refused;
  });

  it("shows a hostile purpose as the text that it is", async () => {
    const intent = await asked({ purpose: HOSTILE });
    const { page, complaints } = await open(intent);
    expect(await page.evaluate("window.pwned")).to.equal(undefined);
    expect(await page.locator("#bold, main img").count()).to.equal(0);
    const shown = (await page.locator("blockquote").textContent())!;
    expect(shown).to.equal(visible(HOSTILE));
    expect(shown).to.contain("</script><script>").and.to.contain("[U+202E]txt.exe [U+2066]hidden[U+2069]");
    expect(shown).to.contain("zero[U+200B]width [U+0007]bell");
    expect(shown).not.to.match(/[\u202A-\u202E\u2066-\u2069\u200B]/);
    await shoot(page, "hostile");
    expect(await press(page)).to.contain("The mandate is open");
    expect((await rail.processor.status(intent.agent)).terms.purpose).to.equal(HOSTILE);
    expect(complaints).to.deep.equal([]);
  });

  it("refuses another account than the owner's before anything is signed", async () => {
    const stranger = Wallet.createRandom().address;
    const intent = await asked();
    const { page, wallet } = await open(intent, { accounts: [stranger] });
    expect(await press(page)).to.equal(
      `Your wallet offers ${stranger}. Only ${owner.address} can sign this: choose that account in your wallet, then try again.`,
    );
    expect(methods(wallet)).to.deep.equal(["eth_requestAccounts"]);
    wallet.accounts = [stranger, owner.address.toLowerCase()];
    await page.getByRole("button").click();
    await page.locator("#result.good").waitFor();
  });

  it("asks a wallet on another chain to switch, and stops if it does not", async () => {
    const intent = await asked();
    const { page, wallet } = await open(intent, { chainId: "0x1", knows: [] });
    expect(await press(page)).to.equal("Your wallet is on another chain. Switch it to chain 31337, then try again.");
    expect(wallet.asked.find(({ method }) => method.startsWith("wallet_"))?.params).to.deep.equal([
      { chainId: "0x7a69" },
    ]);
    wallet.knows = ["0x7a69"];
    await page.getByRole("button").click();
    await page.locator("#result.good").waitFor();
    expect(wallet.chainId).to.equal("0x7a69");
  });

  it("says that nothing was signed when the owner declines, and lets it try again", async () => {
    const intent = await asked();
    const { page, wallet } = await open(intent, { declines: ["Mandate"] });
    expect(await press(page)).to.equal("You declined in your wallet. Nothing was signed.");
    expect((await desk.book.get(intent.agent))?.ownerSignature).to.equal(null);
    wallet.declines = [];
    await page.getByRole("button").click();
    await page.locator("#result.good").waitFor();
  });

  it("says so in a browser without a wallet", async () => {
    const { agent } = await asked();
    const page = await browser.newPage();
    pages.push(page);
    await page.goto(`${desk.url}/intents/${agent}/sign`);
    expect(await press(page)).to.contain("No wallet was found in this browser");
  });

  it("finds wallets that announce themselves, and lets the owner choose among several", async () => {
    const intent = await asked();
    const { page } = await open(intent);
    await page.evaluate(`for (const name of ["Dead wallet", "<b>Live</b> wallet"]) {
      const provider = name.startsWith("Dead") ? { request: () => Promise.reject(new Error("dead")) } : window.ethereum;
      const detail = { info: { uuid: name, name }, provider };
      window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
    }`);
    await page.getByLabel("Wallet").selectOption({ label: "<b>Live</b> wallet" });
    expect(await press(page)).to.contain("The mandate is open");
  });

  it("says what is missing, and asks for no signature until it is deposited", async () => {
    const free = await rail.chain.escrow.freeOf(rail.token, owner.address);
    const intent = await asked({ budget: String(free + 1_500_000n) });
    const { page, wallet } = await open(intent);
    expect(await page.innerText("main")).to.contain("Deposit 1.5 tUSD into the escrow before you sign.");
    await shoot(page, "missing");
    expect(await press(page)).to.equal(
      "Nothing was signed: your free balance lacks 1.5 tUSD. Deposit it, then try again.",
    );
    expect(methods(wallet)).not.to.include("eth_signTypedData_v4");
    await (await rail.dollar.mint(rail.ownerAddress, 3_000_000n)).wait();
    await (await rail.dollar.approve(rail.chain.rail.escrow, 3_000_000n)).wait();
    await (await rail.chain.escrow.connect(rail.owner).deposit(rail.token, 3_000_000n, owner.address)).wait();
    await page.getByRole("button").click();
    await page.locator("#result.good").waitFor();
  });

  it("waits for a mandate whose opening takes longer", async () => {
    let release: (() => void) | undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    const slow = await Desk.open(rail, {
      patience: 100,
      deliver: (job, request) => held.then(() => rail.outbox.deliver(job, request)),
    });
    const usual = desk;
    desk = slow;
    const intent = await asked();
    const { page } = await open(intent);
    desk = usual;
    await page.getByRole("button").click();
    await page.getByText("There is nothing more to do: it opens by itself").waitFor();
    release!();
    await page.locator("#result.good").waitFor();
    await slow.server.close();
  });

  describe("of a mandate that replaces another", () => {
    async function replacing(): Promise<{ old: Address; intent: Asked }> {
      const first = await asked();
      const { page } = await open(first);
      await press(page);
      return { old: first.agent, intent: await asked({ replaces: first.agent }) };
    }

    it("says so, and ends the old one on chain with a second signature if the owner wants", async () => {
      const { old, intent } = await replacing();
      const { page, wallet } = await open(intent);
      expect(await page.innerText("main")).to.match(new RegExp(`the processor stops the agent\\s+${old} at once`));
      expect(await page.evaluate("document.documentElement.scrollWidth")).to.equal(390);
      await shoot(page, "replaces");
      await page.getByLabel("Also end the old mandate on chain").check();
      expect(await press(page)).to.contain("The mandate is open");
      expect(methods(wallet).filter((method) => method === "eth_signTypedData_v4")).to.have.length(2);
      expect((await rail.chain.mandate(old)).state).to.equal("revoked");
    });

    it("leaves the old one on chain without it, or when the owner declines it", async () => {
      for (const check of [false, true]) {
        const { old, intent } = await replacing();
        const { page } = await open(intent, { declines: ["Revocation"] });
        if (check) await page.getByLabel("Also end the old mandate on chain").check();
        expect(await press(page)).to.contain("The mandate is open");
        expect((await rail.chain.mandate(old)).state).to.equal("open");
        expect((await rail.processor.status(old)).state).to.equal("revoked");
      }
    });
  });

  it("offers nothing to sign for an unknown, a drafted and a signed intent", async () => {
    const unknown = await fetch(`${desk.url}/intents/${owner.address}/sign`);
    expect(unknown.status).to.equal(404);
    expect(await unknown.text())
      .to.contain("There is nothing to sign")
      .and.not.to.contain("<button");
    const drafted = await desk.ask({}, owner.address as Address);
    await desk.draft(drafted, { agentSignature: undefined });
    const page = await (await fetch(`${desk.url}/intents/${drafted.agent}/sign`)).text();
    expect(page).to.contain("The agent has not signed this yet").and.not.to.contain("<button");
  });

  it("can be read and used without a mouse, by a screen reader and on a narrow screen", async () => {
    const intent = await asked({
      hosts: Array.from({ length: 12 }, (_, i) => `a-long-name-${i}.${"x".repeat(50)}.example`),
    });
    const { page } = await open(intent);
    expect(await page.evaluate("document.documentElement.lang")).to.equal("en");
    await page.setViewportSize({ width: 320, height: 640 });
    expect(await page.evaluate("document.documentElement.scrollWidth")).to.equal(320);
    expect(await page.getByRole("heading", { level: 1 }).count()).to.equal(1);
    await page.keyboard.press("Tab");
    expect(await page.evaluate("document.activeElement.id")).to.equal("sign");
    await page.keyboard.press("Enter");
    expect(await outcome(page)).to.contain("The mandate is open");
    expect(await page.getByRole("status").getAttribute("aria-live")).to.equal("polite");
  });

  it("has at least 4.5 to 1 of contrast everywhere", async () => {
    const { page } = await open(await asked());
    expect(await page.evaluate(LEAST_CONTRAST)).to.be.at.least(4.5);
  });

  /** Pictures for a person's eye, if `BURSAR_SCREENSHOTS` names a folder. */
  async function shoot(page: Page, name: string): Promise<void> {
    const folder = process.env["BURSAR_SCREENSHOTS"];
    if (folder) await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
  }
});

describe("text by strangers", () => {
  it("shows what is invisible or moves other text, and leaves every script as it is", () => {
    expect(visible("a\u202Eb\u0000\u001B[31m\uFEFF\u{E0041}\u3164\u00AD\u2800")).to.equal(
      "a[U+202E]b[U+0000][U+001B][31m[U+FEFF][U+E0041][U+3164][U+00AD][U+2800]",
    );
    for (const fine of ["Grüße, 東京 שלום مرحبا", "❤️ done", "a < b & c > d"]) expect(visible(fine)).to.equal(fine);
  });
});

function domainFields(domain: object): TypedDataField[] {
  const types: Record<string, string> = {
    name: "string",
    version: "string",
    chainId: "uint256",
    verifyingContract: "address",
  };
  return Object.keys(domain).map((name) => ({ name, type: types[name]! }));
}

/** An EIP-1193 provider that asks the test. */
const INJECTED = `window.ethereum = {
  async request({ method, params }) {
    const { result, error } = await window.walletAnswers(method, params);
    if (error) throw Object.assign(new Error(error.message), error);
    return result;
  },
};`;

/** The least contrast (WCAG 2) of any text on the page. */
const LEAST_CONTRAST = `(() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color[3] !== 0) return color;
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll("main *")].filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  return Math.min(...texts.map((e) => {
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }));
})()`;
