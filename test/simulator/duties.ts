import { WINDOWS } from "../../deploy/index.ts";
import { isAlive, type ProcessorActor } from "./cast.ts";
import { endOf, TAIL } from "./ghost.ts";
import type { Fault, Office } from "./office.ts";
import { look, looksAt } from "./watch.ts";
import type { World } from "./world.ts";

/** Seconds that pass between two looks at everybody, with and without a revocation to answer. */
const SHORT = 1_500n;
const LONG = 14_400n;

/**
 * Lets time pass, and has everybody do in it what they do without being asked: processors refresh, answer and settle,
 * payees watch.
 */
export async function advance(world: World, seconds: bigint): Promise<void> {
  const until = world.chain.clock + seconds;
  while (world.chain.clock < until) {
    await world.chain.mine(await nextMoment(world, until));
    await attend(world);
    await world.check();
  }
}

async function nextMoment(world: World, until: bigint): Promise<bigint> {
  const { clock } = world.chain;
  const moments = [until, clock + (isAwaited(world) ? SHORT : LONG)];
  for (const processor of world.processors) moments.push((await settlesAt(world, processor)) ?? until);
  for (const payee of world.payees) moments.push((await looksAt(world, payee)) ?? until);
  return moments.filter((moment) => moment > clock).reduce((least, moment) => (moment < least ? moment : least), until);
}

/** A revocation without its acknowledgement: there is an hour for it. */
function isAwaited({ ghost, chain }: World): boolean {
  return [...ghost.mandates.values()].some(
    ({ revokedAt, acknowledged }) =>
      revokedAt !== null && !acknowledged && chain.clock <= revokedAt + WINDOWS.acknowledge,
  );
}

/** Everybody's duties at this moment. */
export async function attend(world: World): Promise<void> {
  for (const processor of world.processors) {
    if (!isAlive(world, processor)) continue;
    await refresh(world, processor);
    const at = await settlesAt(world, processor);
    if (at !== null && world.chain.clock >= at) await settle(world, processor);
  }
  for (const payee of world.payees) {
    const at = await looksAt(world, payee);
    if (at !== null && world.chain.clock >= at) await look(world, payee);
  }
}

/** When a processor settles next by itself. */
async function settlesAt(world: World, processor: ProcessorActor): Promise<bigint | null> {
  const { settlesAfter, office, second } = processor;
  if (settlesAfter === null || !isAlive(world, processor)) return null;
  if (processor.lastMinute) return lastMoment(world, processor);
  const { oldest, batches } = await (second ?? office).store.backlog();
  if (oldest === null && batches.submitted === 0) return null;
  return (oldest ?? world.chain.clock) + settlesAfter;
}

/** A minute before the windows of the first mandate close that it can still settle. */
async function lastMoment(world: World, { address, second }: ProcessorActor): Promise<bigint | null> {
  const waiting = (await second?.store.unbatched()) ?? [];
  const moments = waiting
    .map(({ agent }) => world.ghost.mandates.get(agent))
    .filter((mandate) => mandate?.mandate.processor === address)
    .map((mandate) => endOf(mandate!) + TAIL - 60n);
  return moments.length === 0 ? null : moments.reduce((least, moment) => (moment < least ? moment : least));
}

/** What the service does every second. */
export async function refresh(world: World, processor: ProcessorActor): Promise<void> {
  if (processor.kind === "silent") return;
  await within(world, async () => {
    await processor.office.refresh();
    await processor.second?.processor.refresh();
    if (!processor.second) await processor.office.answer();
  });
}

/** Settles whatever waits, with what can go wrong on the way. */
export async function settle(world: World, processor: ProcessorActor): Promise<void> {
  const { random } = world;
  const { office, second, kind, name } = processor;
  const books = second ?? office;
  const before = books.deaths;
  books.fault = await drawFault(world, kind, books);
  if (books.fault !== null)
    world.say(`${name} settles, and ${books.fault === "fees jump" ? "fees jump" : `it ${books.fault}`}`);
  if (random.chance(0.5)) await world.chain.mine(world.chain.clock + 1n);
  await within(world, () => books.settle());
  books.fault = null;
  const settled = await books.store.backlog();
  world.say(`${name} has settled, ${settled.payments} payments wait${books.deaths > before ? "; it died once" : ""}`);
}

async function drawFault({ random }: World, kind: ProcessorActor["kind"], books: Office): Promise<Fault | null> {
  if ((await books.store.backlog()).payments === 0) return null;
  if (kind !== "crashing") return random.chance(0.2) ? "fees jump" : null;
  return random.pick<Fault>([
    "dies while proving",
    "dies before it broadcasts",
    "dies after it broadcast",
    "fees jump",
  ]);
}

/** What happens within can be forgotten by the chain, and nothing before it. */
async function within(world: World, chore: () => Promise<unknown>): Promise<void> {
  world.chain.beginEpoch();
  try {
    await chore();
  } finally {
    world.chain.endEpoch();
  }
}
