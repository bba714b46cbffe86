/* global document, fetch, setTimeout, window, CustomEvent, Event */
"use strict";

(() => {
  const page = JSON.parse(document.getElementById("intent").textContent);
  const button = document.getElementById("sign");
  const choice = document.getElementById("wallet");
  const result = document.getElementById("result");
  const alsoRevoke = document.getElementById("revoke");
  const POLLS = 60;

  /** Wallets that announce themselves (EIP-6963); `window.ethereum` where none does. */
  const announced = new Map();
  window.addEventListener("eip6963:announceProvider", ({ detail }) => {
    if (!detail?.provider || announced.has(detail.info?.uuid)) return;
    announced.set(detail.info?.uuid, detail.provider);
    const option = document.createElement("option");
    option.value = detail.info?.uuid;
    option.textContent = String(detail.info?.name).slice(0, 60);
    choice.append(option);
    choice.parentElement.hidden = announced.size < 2;
  });
  window.dispatchEvent(new Event("eip6963:requestProvider"));

  const wallet = () => announced.get(choice.value) ?? window.ethereum;

  function tell(text, mood) {
    result.className = mood ?? "";
    result.textContent = text;
  }

  class Refusal extends Error {}

  async function readyWallet() {
    const provider = wallet();
    if (!provider) throw new Refusal("No wallet was found in this browser. Open this page where your wallet is.");
    tell("Connecting to your wallet…");
    const accounts = await provider.request({ method: "eth_requestAccounts" });
    if (!accounts.some((account) => account.toLowerCase() === page.owner.toLowerCase())) {
      throw new Refusal(
        `Your wallet offers ${accounts[0] ?? "no account"}. Only ${page.owner} can sign this: choose that account in your wallet, then try again.`,
      );
    }
    const chainId = async () => Number(await provider.request({ method: "eth_chainId" }));
    if ((await chainId()) !== page.chainId) {
      tell(`Your wallet is on another chain. Asking it to switch to chain ${page.chainId}…`);
      await provider
        .request({ method: "wallet_switchEthereumChain", params: [{ chainId: `0x${page.chainId.toString(16)}` }] })
        .catch((error) => {
          if (error?.code === 4001) throw error;
        });
      if ((await chainId()) !== page.chainId) {
        throw new Refusal(`Your wallet is on another chain. Switch it to chain ${page.chainId}, then try again.`);
      }
    }
    return provider;
  }

  async function read(path, options) {
    const response = await fetch(path, options).catch(() => {
      throw new Refusal("The processor does not answer. Nothing is lost: try again.");
    });
    const body = await response.json().catch(() => ({}));
    return { ok: response.ok, body };
  }

  const intent = () => read(`../${page.agent}`);

  async function expectSignable() {
    const { ok, body } = await intent();
    if (!ok) throw new Refusal(explain(body));
    if (body.state !== "awaiting-signature") throw new Refusal(`Nothing was signed: the intent is ${body.state} now.`);
    if (body.missing.funds !== "0") {
      throw new Refusal(
        `Nothing was signed: your free balance lacks ${amount(body.missing.funds)}. Deposit it, then try again.`,
      );
    }
  }

  function amount(units) {
    const digits = units.padStart(7, "0");
    const decimals = digits.slice(-6).replace(/0+$/, "");
    return `${digits.slice(0, -6)}${decimals && "."}${decimals} ${page.symbol}`.trim();
  }

  const explain = ({ detail, advice }) =>
    [detail ?? "The processor gave no reason.", advice].filter((text) => text).join(" ");

  const ask = (provider, typedData) =>
    provider.request({ method: "eth_signTypedData_v4", params: [page.owner, JSON.stringify(typedData)] });

  async function askRevocation(provider) {
    if (!alsoRevoke?.checked) return {};
    tell("Your wallet now shows the second message, which ends the old mandate…");
    try {
      return { revocationSignature: await ask(provider, page.revocation), afterSeq: page.revocation.message.afterSeq };
    } catch (error) {
      if (error?.code === 4001) return {};
      throw error;
    }
  }

  async function sign() {
    const provider = await readyWallet();
    await expectSignable();
    tell("Your wallet now shows the mandate. Compare the agent and the amounts with this page…");
    const ownerSignature = await ask(provider, page.mandate);
    const revocation = await askRevocation(provider);
    tell("Signed. The processor opens the mandate on chain…");
    const { ok, body } = await read("signature", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ownerSignature, ...revocation }),
    });
    if (ok) return done(body);
    if (body.code !== "chain-unavailable" && body.code !== "opening-pending") throw new Refusal(explain(body));
    tell(explain(body));
    return waitForOpening(POLLS);
  }

  async function waitForOpening(left) {
    if (left === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const { ok, body } = await intent().catch(() => ({ ok: false, body: {} }));
    if (!ok || body.state === "opening") return waitForOpening(left - 1);
    if (body.state === "awaiting-signature")
      throw new Refusal("The mandate could not be opened. Load this page again.");
    return done(body);
  }

  function done({ state, failure }) {
    const note = failure ? ` ${failure}` : "";
    if (state === "open") tell(`Signed. The mandate is open, and the agent can pay now.${note}`, "good");
    else tell(`The mandate is ${state}.${note}`);
    button.hidden = true;
    result.dispatchEvent(new CustomEvent("bursar:done", { bubbles: true, detail: { state } }));
  }

  button?.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await sign();
    } catch (error) {
      if (error?.code === 4001) tell("You declined in your wallet. Nothing was signed.", "bad");
      else tell(error instanceof Refusal ? error.message : `The wallet answered: ${error?.message ?? error}`, "bad");
    } finally {
      button.disabled = false;
    }
  });
})();
