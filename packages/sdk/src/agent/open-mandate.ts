import {
  BursarError,
  composeMandate,
  describeMandate,
  hashMandate,
  parseAddress,
  type Address,
  type Clause,
  type ErrorCode,
  type Intent,
  type Mandate,
} from "@bursar/protocol";
import { BrowserProvider, type Eip1193Provider, type Signer } from "ethers";

import { Agent, type AgentSettings } from "./agent.ts";
import { assertExpected, assertMandate, type Expected } from "./expectation.ts";
import { addressOf, freshKey, newAccess, signMandate, type AgentKey } from "./key.ts";
import { ProcessorClient, type ProcessorInfo } from "./processor-client.ts";
import { PATIENCE, surroundings } from "./surroundings.ts";

export interface OpenMandateOptions extends AgentSettings {
  /** URL of the processor. */
  readonly processor: string;
  readonly intent: Intent;
  /** Whose money it is: an address, and the owner then signs at `signUrl`; or the owner's signer or wallet. */
  readonly owner: string | Signer | Eip1193Provider;
  /** The session key; a fresh one unless given. Keep it: it is the agent. */
  readonly key?: AgentKey;
  /** Symbol or address; may be left out where the processor has one token. */
  readonly token?: string;
  /** What is known of the processor from elsewhere; what is not given is taken on its word. */
  readonly expected?: Expected;
  readonly signal?: AbortSignal;
}

export interface WaitOptions {
  readonly signal?: AbortSignal;
  /** Milliseconds between questions; 2,000 unless given. */
  readonly interval?: number;
}

/** A mandate that waits for its owner. */
export interface OpeningMandate {
  /** Ready to pay once {@link wait} has resolved. */
  readonly agent: Agent;
  readonly key: AgentKey;
  /** Where the owner reads and signs. */
  readonly signUrl: string;
  /** What the mandate allows, in words, and who enforces each limit. */
  readonly clauses: readonly Clause[];
  /**
   * Resolves when the mandate is open.
   *
   * @throws BursarError `mandate-revoked`, `mandate-expired`, `mandate-closed`; `not-found` when the owner did not sign
   * in time; `processor-unavailable`; the signal's reason.
   */
  wait(options?: WaitOptions): Promise<Agent>;
}

/** What cannot become open any more. */
const ENDED: Record<string, ErrorCode> = {
  revoked: "mandate-revoked",
  expired: "mandate-expired",
  closed: "mandate-closed",
};
/** The owner's signature is recorded, and the processor goes on by itself. */
const RECORDED: readonly ErrorCode[] = ["opening-pending", "chain-unavailable", "processor-unavailable"];

/**
 * Asks the owner for a mandate: composes it, signs it as the agent, and leaves it with the processor for the owner to
 * sign. With the owner's signer at hand it is signed at once.
 *
 * @throws BursarError `wrong-chain`, `wrong-contract`, `wrong-processor`, `wrong-token` when the processor is not the
 * expected one; `policy-mismatch`, `terms-mismatch`, `mandate-conflict` when it shows another mandate than was sent; its
 * refusals, such as `funds-missing`; `processor-unavailable`; the signal's reason.
 */
export async function openMandate(options: OpenMandateOptions): Promise<OpeningMandate> {
  const { intent, key = freshKey(), signal } = options;
  const around = surroundings(options.surroundings);
  const client = new ProcessorClient(options.processor, { ...PATIENCE, ...options.patience }, around);
  const info = await client.info(signal);
  const domain = assertExpected(info, options.expected ?? {});
  const { symbol, token } = tokenOf(info, options.token);
  const owner = await ownerOf(options.owner);
  const address = addressOf(key);
  const { mandate, terms } = composeMandate(intent, {
    owner: owner.address,
    agent: address,
    token,
    processor: info.processor,
    now: around.now(),
  });
  assertMandate(mandate, terms, address);
  const agent = new Agent({ ...options, key, domain, mandate, terms });
  const assertShown = (shown: Mandate | undefined): void => {
    if (shown === undefined) return;
    assertMandate(shown, terms, address, info.processor);
    if (hashMandate(domain, shown) !== hashMandate(domain, mandate)) throw conflict(address);
  };

  const agentSignature = await signMandate(key, domain, mandate);
  const posted = await client.postIntent({ intent, mandate, agentSignature }, signal);
  assertShown(posted.mandate);
  if (owner.signer !== null) {
    const signature = await signMandate(owner.signer, domain, mandate);
    await client.signIntent(address, signature, signal).catch((error: unknown) => {
      if (!(error instanceof BursarError) || !RECORDED.includes(error.code)) throw error;
    });
  }

  return {
    agent,
    key,
    signUrl: signUrlOf(client.url, address, posted.signUrl),
    clauses: describeMandate(mandate, terms, symbol),
    wait: async ({ signal: ended, interval = 2_000 } = {}) => {
      for (;;) {
        const { header } = await newAccess(key, domain, around.now());
        const { state, mandate: shown } = await client.intent(address, header, ended);
        assertShown(shown);
        if (state === "open") return agent;
        const code = ENDED[state];
        if (code !== undefined)
          throw new BursarError(code, `The mandate is ${state}.`, { value: state, limit: "open" });
        await around.sleep(interval, ended);
      }
    },
  };
}

async function ownerOf(
  owner: OpenMandateOptions["owner"],
): Promise<{ address: Address; signer: Pick<AgentKey, "signTypedData"> | null }> {
  if (typeof owner === "string") return { address: parseAddress(owner), signer: null };
  const signer = "request" in owner ? await new BrowserProvider(owner).getSigner() : owner;
  return { address: parseAddress(await signer.getAddress()), signer };
}

function tokenOf({ tokens }: ProcessorInfo, wanted: string | undefined): { symbol: string; token: Address } {
  const known = Object.entries(tokens);
  const found = known.filter(
    ([symbol, { address }]) =>
      wanted === undefined || symbol === wanted || address.toLowerCase() === wanted.toLowerCase(),
  );
  const [first] = found;
  if (first !== undefined && found.length === 1) return { symbol: first[0], token: first[1].address };
  throw new BursarError(
    "wrong-token",
    wanted === undefined ? "The processor has several tokens, or none." : `The processor does not settle «${wanted}».`,
    { value: wanted ?? "", limit: known.map(([symbol]) => symbol).join(" ") },
    "Name one of the processor's tokens.",
  );
}

/** The link may be relative to the processor; one that is no web page is not shown to anybody. */
function signUrlOf(base: string, agent: Address, told = `/intents/${agent}/sign`): string {
  const url = told.startsWith("/") ? base + told : told;
  if (/^https?:\/\//.test(url) && URL.canParse(url)) return url;
  throw new BursarError("malformed-input", `«${told}» is not a link.`, { value: told });
}

function conflict(agent: Address): BursarError {
  return new BursarError(
    "mandate-conflict",
    `The processor shows the owner another mandate of ${agent} than was sent.`,
    { value: agent },
    "Do not let the owner sign it.",
  );
}
