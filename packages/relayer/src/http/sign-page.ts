import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

import { eip712Domain, formatAmount, toWire, TYPES, type Clause, type Domain } from "@bursar/protocol";

import type { IntentView } from "../intents.ts";
import { visible } from "../plain-text.ts";

/** A page and the headers that it has to be served with. */
export interface Page {
  readonly html: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** What `eth_signTypedData_v4` takes, with all types. */
export interface TypedData {
  readonly domain: object;
  readonly types: Readonly<Record<string, readonly { name: string; type: string }[]>>;
  readonly primaryType: string;
  readonly message: object;
}

const asset = (name: string): string => readFileSync(new URL(name, import.meta.url), "utf8").trim();
const STYLE = asset("sign-page.css");
const SCRIPT = asset("sign-page.browser.js");
const sha256 = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

const HEADERS = {
  "content-type": "text/html; charset=utf-8",
  "content-security-policy": [
    "default-src 'none'",
    `script-src ${sha256(SCRIPT)}`,
    `style-src ${sha256(STYLE)}`,
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "x-frame-options": "DENY",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-store",
};

/** The page on which an owner reads what an agent asks for, and signs it. It loads nothing from anywhere. */
export function signPage(view: IntentView, domain: Domain): Page {
  const { agent, mandate, terms, clauses, symbol, replaces } = view;
  const money = (units: bigint): string => `${formatAmount(units)} ${symbol}`.trim();
  const by = (enforcer: Clause["enforcedBy"]): Clause[] => clauses.filter(({ enforcedBy }) => enforcedBy === enforcer);
  const signable = view.state === "awaiting-signature";
  return page(html`
    <h1>An agent asks to spend up to ${money(mandate.budget)} of yours</h1>
    <p>The agent says what for, in its own words:</p>
    <blockquote><bdi>${terms.purpose}</bdi></blockquote>
    <p class="attention">Nobody checks these words. What counts are the limits below.</p>

    <section>
      <h2>Limits that nobody can get past</h2>
      <p>Contract and proof enforce these, against the agent and against the processor.</p>
      ${list(by("contract and proof"))}
      ${mandate.payees.length === 0 ? html`<p>It may pay anyone: no list of payees is part of this mandate.</p>` : ""}
    </section>

    <section>
      <h2>Limits that the processor watches</h2>
      <p>
        The processor refuses payments beyond these. No contract and no proof checks them: here you rely on the
        processor.
      </p>
      ${list(by("processor"))}
    </section>

    <section>
      <h2>Your money</h2>
      ${
        view.free === null
          ? ""
          : pairs([
              ["free balance", money(view.free)],
              ["this mandate locks", money(mandate.budget)],
              ["missing", view.missing.funds === 0n ? "nothing" : money(view.missing.funds)],
            ])
      }
      ${
        view.missing.funds === 0n
          ? ""
          : html`<p class="attention">Deposit ${money(view.missing.funds)} into the escrow before you sign.</p>`
      }
      <p>
        Signing lets the processor lock the budget. You can stop the agent at any time. What it has not spent comes back
        to your free balance after the mandate has ended or was revoked, and the time for claims is over.
      </p>
    </section>

    ${replaces === null ? "" : replacement(view, money)}

    <section>
      <h2>Who is who</h2>
      ${pairs([
        ["owner: you", html`<code>${mandate.owner}</code>`],
        ["agent", html`<code>${agent}</code>`],
        ["processor", html`<code>${mandate.processor}</code>`],
        ["token", html`${symbol} <code>${mandate.token}</code>`],
        ["registry", html`<code>${domain.registry}</code>`],
        ["chain", domain.chainId.toString()],
      ])}
      <p>
        Your wallet shows these addresses, and amounts in units: ${money(mandate.budget)} is
        ${mandate.budget.toString()} units.
      </p>
    </section>

    ${view.failure === null ? "" : html`<p class="attention">The last attempt did not succeed: ${view.failure}</p>`}
    ${signable ? signing() : html`<p class="attention">${UNSIGNABLE[view.state] ?? `The mandate is ${view.state}.`}</p>`}
    ${signable ? data(view, domain) : ""}
  `);
}

/** The page of an intent that is no longer for signing: what it says is for those who may read it. */
export function statePage({ agent, state }: Pick<IntentView, "agent" | "state">): Page {
  return page(html`
    <h1>There is nothing left to sign</h1>
    <p class="attention">The mandate of the agent <code>${agent}</code> is ${state}.</p>
  `);
}

/** The page in place of one that cannot be shown. */
export function errorPage(message: string, advice = ""): Page {
  return page(html`
    <h1>There is nothing to sign</h1>
    <p class="attention">${message} ${advice}</p>
  `);
}

/** The typed data of a mandate or a revocation, for a wallet. */
export function typedData(domain: Domain, primaryType: "Mandate" | "Revocation", message: object): TypedData {
  const { name, version, verifyingContract } = eip712Domain(domain);
  return {
    domain: { name, version, chainId: Number(domain.chainId), verifyingContract },
    types: {
      EIP712Domain: [
        { name: "name", type: "string" },
        { name: "version", type: "string" },
        { name: "chainId", type: "uint256" },
        { name: "verifyingContract", type: "address" },
      ],
      [primaryType]: TYPES[primaryType],
    },
    primaryType,
    message: toWire(message),
  };
}

const UNSIGNABLE: Partial<Record<IntentView["state"], string>> = {
  drafted: "The agent has not signed this yet. Load the page again when it has.",
  expired: "The time of this mandate is over. Ask the agent for a new one.",
};

function replacement({ replaces }: IntentView, money: (units: bigint) => string): Markup {
  const { agent, state, remaining, revocationSigned } = replaces!;
  return html`
    <section>
      <h2>It takes the place of another mandate</h2>
      <p>
        When this one opens, the processor stops the agent <code>${agent}</code> at once. Of its mandate, which is
        ${state}, ${money(remaining)} is not spent.
      </p>
      ${
        state === "open" && !revocationSigned
          ? html`<label>
              <input type="checkbox" id="revoke" /> Also end the old mandate on chain, so that its rest comes back to me
              earlier. My wallet then asks for a second signature.
            </label>`
          : ""
      }
    </section>
  `;
}

function signing(): Markup {
  return html`
    <label hidden
      >Wallet
      <select id="wallet"></select
    ></label>
    <button id="sign" type="button">Sign with my wallet</button>
    <p id="result" role="status" aria-live="polite"></p>
    <noscript><p class="attention">Signing here takes JavaScript. On a command line: bursar intent sign.</p></noscript>
  `;
}

function data({ agent, mandate, symbol, replaces }: IntentView, domain: Domain): Markup {
  const json = JSON.stringify({
    agent,
    symbol,
    owner: mandate.owner,
    chainId: Number(domain.chainId),
    mandate: typedData(domain, "Mandate", mandate),
    revocation: replaces && typedData(domain, "Revocation", replaces.revocation),
  });
  const safe = json.replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return new Markup(`<script type="application/json" id="intent">${safe}</script>\n<script>${SCRIPT}</script>`);
}

function list(clauses: readonly Clause[]): Markup {
  return pairs(clauses.map(({ subject, words }) => [subject, words]));
}

function pairs(entries: readonly (readonly [string, Content])[]): Markup {
  return html`<dl>
    ${entries.map(
      ([name, content]) =>
        html`<dt>${name}</dt>
          <dd>${content}</dd>`,
    )}
  </dl>`;
}

function page(content: Markup): Page {
  const body = html`<main>${content}</main>`;
  return {
    headers: HEADERS,
    html: `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign a mandate – Bursar</title>
<style>${STYLE}</style>
</head>
<body>
${body.text}
</body>
</html>
`,
  };
}

/** HTML that needs no escaping any more. */
class Markup {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

type Content = string | Markup | readonly Markup[];

/** HTML in which every value that is not markup stands as text, and nothing in it is invisible. */
function html(strings: TemplateStringsArray, ...values: Content[]): Markup {
  return new Markup(
    strings.map((text, index) => text + (index < values.length ? render(values[index]!) : "")).join(""),
  );
}

function render(content: Content): string {
  if (content instanceof Markup) return content.text;
  if (typeof content !== "string") return content.map(render).join("\n");
  return visible(content).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
