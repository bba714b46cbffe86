import { drawOwners, drawPayees, drawProcessors, openMandate } from "./cast.ts";
import { Checks } from "./checks.ts";
import { attend, settle } from "./duties.ts";
import { exit } from "./exit.ts";
import { tryTrick } from "./greed.ts";
import { closeSome, endTogether, moveMoney, revoke } from "./own.ts";
import { pay, payDirectly, proofsOf } from "./pay.ts";
import { block, forgottenRevocation, halt, pauseToken, resumeToken, sweep, wait } from "./surroundings.ts";
import { breakVerifiers } from "./unproved.ts";
import { fleeWithBond, takeFromStrangers } from "./villainy.ts";
import { accuse, compareReceipts } from "./watch.ts";
import { World, type WorldOptions } from "./world.ts";

const STEPS = 40;

/** What can be drawn, and how often. */
const DRAWN: readonly (readonly [weight: number, step: (world: World) => Promise<void>])[] = [
  [20, pay],
  [3, payDirectly],
  [4, tryTrick],
  [3, moveMoney],
  [1.5, revoke],
  [1, endTogether],
  [1, closeSome],
  [2, settleSome],
  [1, openAnother],
  [1, fleeWithBond],
  [1, takeFromStrangers],
  [1, accuse],
  [3, compareReceipts],
  [1.5, sweep],
  [1, pauseToken],
  [1, block],
  [1, forgottenRevocation],
  [1, halt],
  [2.5, wait],
];

export interface Outcome {
  readonly seed: number;
  readonly cast: readonly string[];
  readonly steps: number;
  /** How often everything was checked. */
  readonly checks: number;
  readonly payments: number;
  readonly proofs: number;
  readonly log: readonly string[];
}

/** A simulation that broke a promise, with all that it did. */
export class SimulationFailed extends Error {
  readonly seed: number;
  readonly log: readonly string[];

  constructor(seed: number, log: readonly string[], cause: unknown) {
    super(`seed ${seed}: ${(cause as Error).message}`, { cause });
    this.name = "SimulationFailed";
    this.seed = seed;
    this.log = log;
  }
}

/**
 * Plays one simulation to its end, in which everybody leaves.
 * @throws SimulationFailed with the log, whose cause is a `PromiseBroken` unless the simulator itself failed.
 */
export async function simulate(seed: number, options: WorldOptions): Promise<Outcome> {
  await options.chain.reset();
  if (options.unproved) await breakVerifiers(options.chain);
  const world = new World(seed, options);
  try {
    const checks = await populate(world);
    await options.tamper?.(world);
    for (const steps = options.steps ?? STEPS; world.step < steps;) await play(world);
    await exit(world);
    return outcomeOf(world, checks);
  } catch (error) {
    throw new SimulationFailed(seed, world.log, error);
  } finally {
    await world.close();
  }
}

async function populate(world: World): Promise<Checks> {
  const height = await world.chain.height();
  world.owners = await drawOwners(world);
  world.payees = await drawPayees(world);
  world.processors = await drawProcessors(world);
  const checks = new Checks(world, height);
  world.check = () => checks.run();
  await world.check();
  for (const processor of world.processors) {
    for (let number = 0; number < 2; ++number) await add(world, processor);
  }
  return checks;
}

async function play(world: World): Promise<void> {
  const { random } = world;
  world.step += 1;
  await resumeToken(world);
  await world.chain.mine(world.chain.clock + BigInt(random.between(1, 90)));
  await attend(world);
  await random.weighted(DRAWN)(world);
  await world.check();
}

async function add(world: World, processor: World["processors"][number]): Promise<void> {
  const agent = await openMandate(world, world.agents.length + 1, processor);
  if (agent) world.agents.push(agent);
  await world.check();
}

async function openAnother(world: World): Promise<void> {
  const processor = world.random.pick(world.processors);
  const full = world.agents.length >= 6 || world.pausedUntil !== null || world.ghost.slashes.has(processor.address);
  if (!full) await add(world, processor);
}

async function settleSome(world: World): Promise<void> {
  const honest = world.processors.filter(({ honest }) => honest);
  if (honest.length > 0 && proofsOf(world) < 2) await settle(world, world.random.pick(honest));
}

function outcomeOf(world: World, checks: Checks): Outcome {
  return {
    seed: world.seed,
    cast: world.processors.map(({ kind }) => kind),
    steps: world.step,
    checks: checks.count,
    payments: world.payees.reduce((sum, { holds }) => sum + holds.length, 0),
    proofs: proofsOf(world),
    log: world.log,
  };
}
