import {
  accessHeader,
  BursarError,
  formatAmount,
  parseWire,
  signAccess,
  signClose,
  toWire,
  uint64Schema,
  type Address,
  type Problem,
} from "@bursar/protocol";
import { Prover } from "@bursar/prover";
import type { Command } from "commander";

import { Closings, type Closing } from "../closings.ts";
import { closingSchema } from "../http/closings.ts";
import { receiptKey } from "../processor.ts";
import { explained } from "./bonds.ts";
import { address, amount } from "./options.ts";
import { progress, report, time, type Output } from "./report.ts";
import type { Scene } from "./scene.ts";
import { below, now, type Session } from "./session.ts";

interface CloseOptions {
  processorUrl?: string;
}

/** Adds `bursar mandate close` and `bursar withdraw`: how an owner gets back what was not spent. */
export function addExitCommands(program: Command, mandate: Command, { output, within }: Scene): void {
  mandate
    .command("close")
    .argument("<agent>", "whose mandate", address)
    .description("get the rest back: at once when its windows are over, else an hour after its processor agrees")
    .option("--processor-url <url>", "ask it over HTTP instead of on this machine")
    .action(within((session, agent: Address, options: CloseOptions) => close(session, output, agent, options)));
  program
    .command("withdraw")
    .argument("<amount>", "such as 12.50", amount)
    .description("take the owner's free tokens out of the escrow")
    .option("--to <address>", "to whom; the owner unless given", address)
    .option("--token <symbol or address>", "which token")
    .action(
      within((session, units: bigint, options: { to?: Address; token?: string }) =>
        withdraw(session, output, units, options),
      ),
    );
}

async function close(session: Session, output: Output, agent: Address, options: CloseOptions): Promise<void> {
  const { chain } = session;
  const mandate = await chain.mandate(agent);
  if (mandate.state === "none") {
    throw new BursarError("mandate-unknown", `No mandate of ${agent} on this chain.`, { value: agent });
  }
  const over = mandate.closesAt <= BigInt((await session.provider.getBlock("latest"))?.timestamp ?? 0);
  if (mandate.state === "closed" || over) {
    if (mandate.state !== "closed") {
      const owner = await session.sender("owner");
      await explained(session, chain.registry.connect(owner).close(agent));
    }
    const free = await chain.escrow.freeOf(mandate.token, mandate.owner);
    const units = free / mandate.unitScale;
    report(
      output,
      { agent, state: "closed", free },
      `The mandate is closed; its owner has ${formatAmount(units)} free.`,
    );
    return;
  }
  const closing = await (options.processorUrl === undefined
    ? here(session, output, agent)
    : elsewhere(session, agent, options.processorUrl));
  report(output, closing, told(closing));
}

function told({ agent, state, closesAt, failure }: Closing): string {
  if (state === "failed") return `The contract refuses: ${failure ?? ""}. The mandate ends by itself, or revoke it.`;
  const stopped = `The agent ${agent} is stopped.`;
  return closesAt === null
    ? `${stopped} What it paid settles first; run this again to see when the rest can be closed.`
    : `${stopped} Run this again from ${time(closesAt)}: the rest goes back then.`;
}

/** Owner and processor are both on this machine: settle, sign, send. */
async function here(session: Session, output: Output, agent: Address): Promise<Closing> {
  const { chain, domain } = session;
  const store = await session.store();
  const processor = await session.processor();
  const signer = await session.keys.loadOrCreate("processor");
  const closings = new Closings({
    store,
    processor,
    chain,
    outbox: await session.outbox(),
    key: receiptKey(signer),
    sender: signer.address as Address,
    failed: () => undefined,
    now,
  });
  const close = { agent, seq: (await processor.status(agent)).accepted.seq };
  const owner = await session.account("owner");
  await closings.request(close, await signClose(owner, domain, close));
  const prover = new Prover();
  try {
    progress(output, "settling what the agent paid");
    await (await session.settler(prover)).run();
  } finally {
    prover.close();
  }
  await closings.run();
  return (await closings.get(agent))!;
}

async function elsewhere(session: Session, agent: Address, url: string): Promise<Closing> {
  const { domain } = session;
  const owner = await session.account("owner");
  const access = { account: owner.address as Address, expiresAt: now() + 60n };
  const authorization = accessHeader(access, await signAccess(owner, domain, access));
  const status = (await call(below(url, `/mandates/${agent}`), { headers: { authorization } })) as {
    accepted: { seq: string };
  };
  const close = { agent, seq: parseWire(uint64Schema, status.accepted.seq) };
  const body = JSON.stringify(toWire({ close, signature: await signClose(owner, domain, close) }));
  const headers = { "content-type": "application/json" };
  const answer = await call(below(url, "/closes"), { method: "POST", headers, body });
  return parseWire(closingSchema, answer);
}

async function call(url: URL, request: RequestInit): Promise<unknown> {
  const response = await fetch(url, request).catch((error: unknown) => {
    throw new BursarError(
      "processor-unavailable",
      `The processor at ${url.origin} gave no answer: ${(error as Error).message}`,
      { value: url.origin },
      "Run the same command again.",
    );
  });
  const answer: unknown = await response.json();
  if (response.ok) return answer;
  const { code, detail, details, advice } = answer as Problem;
  throw new BursarError(code, detail, details, advice);
}

async function withdraw(
  session: Session,
  output: Output,
  units: bigint,
  options: { to?: Address; token?: string },
): Promise<void> {
  const { chain } = session;
  const token = session.token(options.token);
  const scale = await chain.escrow.unitScale(token);
  const owner = await session.sender("owner");
  const account = (await owner.getAddress()) as Address;
  const free = await chain.escrow.freeOf(token, account);
  if (free < units * scale) {
    throw new BursarError(
      "insufficient-funds",
      `The owner has ${formatAmount(free / scale)} free, not ${formatAmount(units)}.`,
      { value: units, limit: free / scale },
      "What mandates lock comes back with `bursar mandate close`.",
    );
  }
  const to = options.to ?? account;
  const hash = await explained(session, chain.escrow.connect(owner).withdraw(token, units * scale, to));
  const left = free - units * scale;
  report(
    output,
    { to, token, amount: units, free: left, transaction: hash },
    `${formatAmount(units)} went to ${to}; ${formatAmount(left / scale)} stay free.`,
  );
}
