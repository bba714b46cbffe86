import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";

import { toWire } from "@bursar/protocol";
import {
  createLogger,
  createRegistry,
  Metrics,
  metricsServer,
  SERVICE_DEFAULTS,
  startService,
  Store,
  type Service,
} from "@bursar/relayer";
import { expect } from "chai";
import { parse } from "yaml";

import { TestRail } from "../integration/rail.ts";

const read = (path: string): string => readFileSync(new URL(`../../ops/${path}`, import.meta.url), "utf8");

interface Target {
  readonly refId: string;
  readonly expr: string;
}
interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description: string;
  readonly datasource: { readonly type: string; readonly uid: string };
  readonly gridPos: Readonly<Record<"x" | "y" | "w" | "h", number>>;
  readonly targets: readonly Target[];
}
interface Dashboard {
  readonly uid: string;
  readonly title: string;
  readonly schemaVersion: number;
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly query: string | { query: string } }[];
  };
  readonly panels: readonly Panel[];
}
interface Rules {
  readonly groups: readonly {
    readonly name: string;
    readonly rules: readonly {
      readonly alert: string;
      readonly expr: string;
      readonly for?: string;
      readonly labels: Readonly<Record<string, string>>;
      readonly annotations: Readonly<Record<string, string>>;
    }[];
  }[];
}

/** What is told under each name: the type, and the labels of its samples. */
type Page = ReadonlyMap<string, { readonly type: string; readonly labels: ReadonlySet<string> }>;

/** Words of PromQL that name no metric. */
const WORDS = /^(sum|min|max|by|rate|increase|delta|absent|histogram_quantile|label_values)$/;

/** Names of metrics in a query, each with the labels that it is selected by. */
function metricsOf(query: string): { name: string; selected: string[] }[] {
  const grouped = query.replace(/\bby \([\w, ]*\)/g, "").replace(/, (job|chain)\)$/, ")");
  return [...grouped.matchAll(/\b([a-z][a-z0-9_]*)(\{[^}]*\})?/g)]
    .filter(([, name]) => !WORDS.test(name!))
    .filter(({ index }) => !insideBraces(grouped, index) && !/[[$\d.]/.test(grouped[index - 1] ?? " "))
    .map(([, name, braces = ""]) => ({
      name: name!,
      selected: [...braces.matchAll(/(\w+)(?:=~|!~|!=|=)"/g)].map(([, label]) => label!),
    }));
}

const insideBraces = (text: string, at: number): boolean =>
  text.lastIndexOf("{", at) > text.lastIndexOf("}", at) || (text.slice(0, at).match(/"/g) ?? []).length % 2 === 1;

/** Labels that a query groups by. */
const grouping = (query: string): string[] =>
  [...query.matchAll(/\bby \(([\w, ]*)\)/g)].flatMap(([, names]) => names!.split(", "));

/** What Prometheus adds to each sample, and what is told where a process has several chains. */
const ELSEWHERE = ["instance", "job", "chain", "le"];

function pageOf(text: string): Page {
  const page = new Map<string, { type: string; labels: Set<string> }>();
  for (const [, name, type] of text.matchAll(/^# TYPE (\w+) (\w+)$/gm))
    page.set(name!, { type: type!, labels: new Set() });
  for (const [, sample, labels = ""] of text.matchAll(/^(\w+)(?:\{(.*)\})? \S+$/gm)) {
    const told = page.get(familyOf(sample!, page));
    for (const [, label] of labels.matchAll(/(\w+)="/g)) told?.labels.add(label!);
  }
  return page;
}

/** A histogram is told under three names. */
function familyOf(name: string, page: Page): string {
  const family = name.replace(/_(bucket|sum|count)$/, "");
  return page.get(family)?.type === "histogram" ? family : name;
}

describe("what watches a service", function () {
  this.timeout(300_000);
  let rail: TestRail;
  let service: Service;
  let page: Page;
  let text: string;

  before(async () => {
    rail = await TestRail.start();
    service = await startService({
      config: { ...SERVICE_DEFAULTS, port: 0, metricsPort: 0, settleEvery: 1, maxSkew: null },
      chain: rail.chain,
      provider: rail.provider,
      store: rail.store,
      signer: rail.processorKey,
      prover: rail.prover,
      logger: createLogger("silent", process.stdout),
      now: () => rail.now(),
      sleep: (milliseconds, signal) => setTimeout(milliseconds, undefined, { signal }).catch(() => undefined),
    });
    const agent = await rail.open();
    const post = async (amount: bigint): Promise<void> => {
      const body = JSON.stringify(toWire(await agent.sign(rail.payee(), amount)));
      await fetch(`${service.url}/payments`, { method: "POST", headers: { "content-type": "application/json" }, body });
    };
    await post(5n);
    agent.ledger.commit();
    await post(5_000n);
    const told = async (): Promise<string> => (await fetch(`${service.metricsUrl!}/metrics`)).text();
    do text = await told();
    while (!/^bursar_settled_payments_total 1$/m.test(text));
    page = pageOf(text);
  });
  after(async () => {
    await service.stop();
    await rail.stop();
  });

  function expectTold(query: string): void {
    const named = metricsOf(query);
    expect(named, query).not.to.deep.equal([]);
    for (const { name, selected } of named) {
      const told = page.get(familyOf(name, page));
      expect(told, `${name} in ${query}`).not.to.equal(undefined);
      const labels = [...selected, ...grouping(query)].filter((label) => !ELSEWHERE.includes(label));
      // What never happened has no sample, and shows no label.
      if (told!.labels.size > 0) expect([...told!.labels], `${name} in ${query}`).to.include.members(labels);
    }
  }

  it("reads a query as Prometheus does", () => {
    expect(metricsOf('sum by (code) (rate(a_total{x=~"b_c",y!="d"}[5m])) / max(e) > 3')).to.deep.equal([
      { name: "a_total", selected: ["x", "y"] },
      { name: "e", selected: [] },
    ]);
    expect(grouping("sum by (le, kind) (rate(a[1h]))")).to.deep.equal(["le", "kind"]);
    expect(() => expectTold("sum(bursar_no_such_metric)")).to.throw(/bursar_no_such_metric/);
    expect(() => expectTold("sum by (agent) (bursar_payments_accepted_total)")).to.throw(/agent/);
  });

  describe("the dashboard", () => {
    const dashboard = JSON.parse(read("grafana/bursar.json")) as Dashboard;
    const { panels } = dashboard;

    it("is one that Grafana can import: a title, a schema, panels of known kinds that lie side by side", () => {
      expect(dashboard).to.include({ uid: "bursar", title: "Bursar processor", schemaVersion: 39 });
      expect(new Set(panels.map(({ id }) => id)).size).to.equal(panels.length);
      const taken = new Set<string>();
      for (const { type, gridPos, datasource } of panels) {
        expect(type).to.be.oneOf(["timeseries", "stat", "table"]);
        expect(datasource).to.deep.equal({ type: "prometheus", uid: "${datasource}" });
        expect(gridPos.x + gridPos.w).to.be.at.most(24);
        for (let x = gridPos.x; x < gridPos.x + gridPos.w; ++x) {
          for (let y = gridPos.y; y < gridPos.y + gridPos.h; ++y) {
            expect(taken.has(`${x} ${y}`), `two panels at ${x} ${y}`).to.equal(false);
            taken.add(`${x} ${y}`);
          }
        }
      }
    });

    it("says in each panel what it shows, by queries of metrics that a running service tells", () => {
      for (const { title, description, targets } of panels) {
        expect(description, title).to.match(/^[A-Z].{15,}\.$/s);
        expect(new Set(targets.map(({ refId }) => refId)).size, title).to.equal(targets.length);
        expect(targets, title).not.to.deep.equal([]);
        for (const { expr } of targets) expectTold(expr);
      }
    });

    it("fills in its variables from metrics, and uses no other", () => {
      const names = dashboard.templating.list.map(({ name }) => name);
      for (const { query } of dashboard.templating.list) if (typeof query === "object") expectTold(query.query);
      const used = [...JSON.stringify(panels).matchAll(/\$\{?(\w+)/g)].map(([, name]) => name!);
      expect([...names, "__rate_interval"]).to.include.members(used);
    });
  });

  describe("the alerts", () => {
    const { groups } = parse(read("prometheus/alerts.yml")) as Rules;
    const rules = groups.flatMap((group) => group.rules);

    it("ask for metrics that a running service tells", () => {
      for (const { expr } of rules) expectTold(expr);
    });

    it("have a name each, a severity, and say what happened and what it means", () => {
      expect(new Set(rules.map(({ alert }) => alert)).size).to.equal(rules.length);
      for (const { alert, labels, annotations, ...rule } of rules) {
        expect(alert).to.match(/^Bursar[A-Z]\w+$/);
        expect(labels["severity"], alert).to.be.oneOf(["page", "ticket"]);
        expect(annotations, alert).to.have.all.keys("summary", "description");
        if (rule.for !== undefined) expect(rule.for).to.match(/^\d+[mh]$/);
      }
    });
  });

  describe("the page", () => {
    it("tells what a settled batch took: gas, fees, the time of its proof", () => {
      const value = (sample: string): number => Number(new RegExp(`^${sample} (\\S+)$`, "m").exec(text)?.[1]);
      expect(value("bursar_settlement_gas_total")).to.be.greaterThan(200_000);
      expect(value('bursar_fees_eth_total\\{job="batch"\\}')).to.be.greaterThan(0);
      expect(value('bursar_proof_seconds_count\\{circuit="tiny"\\}')).to.equal(1);
      expect(value("bursar_lease_held")).to.equal(1);
      expect(value("bursar_database_reachable")).to.equal(1);
      expect(value('bursar_database_seconds_count\\{kind="transaction"\\}')).to.be.greaterThan(0);
    });

    it("labels nothing with an account, an amount or anything else that grows without end", () => {
      expect(text).not.to.match(/0x[0-9a-fA-F]{8}/);
      const series = [...text.matchAll(/^bursar_\w+(\{.*\})? /gm)].length;
      expect(series).to.be.lessThan(400);
    });

    it("says how long what waits has waited, and how long it still may", async () => {
      const agent = await rail.open();
      const { store } = rail;
      const before = await store.backlog([0, 60]);
      await agent.pay(rail.payee(), 5n);
      const { payments, due, older } = await store.backlog([0, 60]);
      expect(payments).to.equal(before.payments + 1);
      expect(older).to.deep.equal([payments, 0]);
      expect(Number(due! - rail.now())).to.be.within(3_500, 3_600);
    });

    it("says of books that do not answer that they do not, and nothing of what they held; other chains' go on", async () => {
      const [gone, well] = [await Store.open(":memory:"), await Store.open(":memory:")];
      const registry = createRegistry();
      const parts = { now: () => rail.now(), isSender: () => false, registry };
      const chains = [
        new Metrics({ ...parts, store: gone, chain: "gone" }),
        new Metrics({ ...parts, store: well, chain: "well" }),
      ];
      const server = metricsServer(registry, () => chains);
      const told = async (): Promise<string> => (await server.inject("/metrics")).body;
      expect(await told()).to.contain('bursar_database_reachable{chain="gone"} 1');
      await gone.close();
      let now = await told();
      while (!now.includes('bursar_database_reachable{chain="gone"} 0')) now = await told();
      expect(now).to.contain('bursar_unsettled_payments{chain="gone"} Nan');
      expect(now).to.contain('bursar_unsettled_payments{chain="well"} 0');
      expect(now).to.match(/^bursar_database_errors_total\{chain="gone",code="\w+"\} [1-9]/m);
      await server.close();
      await well.close();
    });
  });
});
