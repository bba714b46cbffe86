import { readFileSync } from "node:fs";

/** What a process has used. */
export interface Usage {
  /** Seconds of CPU of the process itself. */
  readonly own: number;
  /** Seconds of CPU of all that it started, and they in turn. */
  readonly started: number;
  /** Resident MiB of the process itself. */
  readonly memory: number;
}

/** Linux counts CPU in hundredths of a second, whatever the kernel's own clock is (proc(5), CLK_TCK). */
const TICKS = 100;

/** What a process has used so far, from Linux's /proc; undefined where there is none, or the process has ended. */
export function usageOf(pid: number): Usage | undefined {
  try {
    const { own, ended } = timesOf(pid);
    const alive = childrenOf(pid).map(usageOf);
    const started = alive.reduce((sum, child) => sum + (child === undefined ? 0 : child.own + child.started), ended);
    const resident = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return { own, started, memory: Number(resident ?? 0) / 1_024 };
  } catch {
    return undefined;
  }
}

/** Seconds of CPU of a process, and of its children that have ended. */
function timesOf(pid: number): { own: number; ended: number } {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name before it may hold anything, brackets included.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [user, system, endedUser, endedSystem] = fields.slice(11, 15).map(Number) as [number, number, number, number];
  return { own: (user + system) / TICKS, ended: (endedUser + endedSystem) / TICKS };
}

function childrenOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  return children === "" ? [] : children.split(" ").map(Number);
}

/** Adds up what processes use that may be killed and replaced: what is gone counts as it was seen last. */
export class Meter {
  readonly #seen = new Map<number, Usage>();
  /** The most that one of them has had resident, MiB. */
  peak = 0;

  watch(pids: readonly number[]): void {
    for (const pid of pids) {
      const usage = usageOf(pid);
      if (usage === undefined) continue;
      this.#seen.set(pid, usage);
      this.peak = Math.max(this.peak, usage.memory);
    }
  }

  /** Seconds of CPU. */
  get own(): number {
    return [...this.#seen.values()].reduce((sum, { own }) => sum + own, 0);
  }

  get started(): number {
    return [...this.#seen.values()].reduce((sum, { started }) => sum + started, 0);
  }
}
