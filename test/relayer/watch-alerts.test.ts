import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Alerts, createLogger, signAlert, WatchBook } from "@bursar/relayer";
import { expect } from "chai";

import { Webhook } from "../integration/watch-post.ts";

describe("the watcher's alerts", () => {
  let folder: string;
  let path: string;
  let webhook: Webhook;
  let book: WatchBook;
  let alerts: Alerts;
  let clock = 1_800_000_000n;
  let log = "";

  function open(url = webhook.url): void {
    book = new WatchBook(path, () => clock);
    const logger = createLogger("info", { write: (line: string) => void (log += line) });
    alerts = new Alerts({ book, webhook: { url, secret: webhook.secret }, logger, now: () => clock });
  }
  const raise = (id: string): void =>
    alerts.raise({ id, kind: "test", level: "warning", message: `It is about ${id}.`, details: { units: 7n } });
  const ids = (): string[] => webhook.posted.map(({ headers }) => String(headers["bursar-alert"]));

  beforeEach(async () => {
    webhook = await Webhook.listen();
    folder = mkdtempSync(join(tmpdir(), "bursar-alerts-"));
    path = join(folder, "watcher.db");
    log = "";
    open();
  });
  afterEach(() => {
    webhook.close();
    book.close();
    rmSync(folder, { recursive: true });
  });

  it("posts each once, in order, with its id in header and body, amounts as decimal strings", async () => {
    for (const id of ["a", "b", "a"]) raise(id);
    expect(await alerts.deliver()).to.equal(2);
    expect(await alerts.deliver()).to.equal(0);
    expect(ids()).to.deep.equal(["a", "b"]);
    expect(JSON.parse(webhook.posted[0]!.body)).to.deep.equal({
      id: "a",
      kind: "test",
      level: "warning",
      message: "It is about a.",
      details: { units: "7" },
      at: "1800000000",
    });
    expect(log.match(/"id":"a"/g)).to.have.length(1);
    expect(log).to.include('"level":40');
  });

  it("signs the raw body with the time, so that nobody can change or date it", async () => {
    raise("signed");
    await alerts.deliver();
    const [posted] = webhook.posted;
    expect(webhook.isSigned(posted!)).to.equal(true);
    expect(webhook.isSigned({ ...posted!, body: posted!.body.replace("7", "8") })).to.equal(false);
    const older = {
      ...posted!.headers,
      "bursar-signature": String(posted!.headers["bursar-signature"]).replace("18", "17"),
    };
    expect(webhook.isSigned({ ...posted!, headers: older })).to.equal(false);
    expect(signAlert("another secret", clock, posted!.body)).to.not.equal(posted!.headers["bursar-signature"]);
    expect(log).to.not.include(webhook.secret);
  });

  it("repeats what is not taken, later each time, signed anew under the same id, and lets others pass", async () => {
    webhook.answers.push(500, 204, 302);
    for (const id of ["first", "second"]) raise(id);
    expect(await alerts.deliver()).to.equal(1);
    clock += 4n;
    expect(await alerts.deliver()).to.equal(0);
    clock += 1n;
    expect(await alerts.deliver()).to.equal(0);
    clock += 9n;
    expect(await alerts.deliver()).to.equal(0);
    clock += 1n;
    expect(await alerts.deliver()).to.equal(1);
    expect(ids()).to.deep.equal(["first", "second", "first", "first"]);
    expect(webhook.posted.every((posted) => webhook.isSigned(posted))).to.equal(true);
    const times = webhook.posted.map(({ headers }) => /t=(\d+)/.exec(String(headers["bursar-signature"]))![1]);
    expect(new Set(times)).to.have.length(3);
    clock += 100_000n;
    expect(await alerts.deliver()).to.equal(0);
  });

  it("never gives up: after many refusals an hour passes between attempts, and no more", async () => {
    raise("wanted");
    webhook.answers.push(...Array<number>(20).fill(503));
    for (let attempt = 0; attempt < 20; ++attempt) {
      expect(await alerts.deliver()).to.equal(0);
      clock += 3_600n;
    }
    expect(await alerts.deliver()).to.equal(1);
    expect(ids()).to.have.length(21);
  });

  it("loses none when its process ends before the webhook takes them", async () => {
    raise("before");
    book.close();
    open();
    raise("before");
    expect(book.undelivered()).to.equal(1);
    expect(await alerts.deliver()).to.equal(1);
    expect(book.undelivered()).to.equal(0);
    expect(ids()).to.deep.equal(["before"]);
  });

  it("only logs them without a webhook, and floods none that comes later", async () => {
    const logger = createLogger("info", { write: (line: string) => void (log += line) });
    const quiet = new Alerts({ book, webhook: null, logger, now: () => clock });
    quiet.raise({ id: "logged", kind: "test", level: "critical", message: "It is logged.", details: {} });
    expect(await quiet.deliver()).to.equal(0);
    expect(await alerts.deliver()).to.equal(0);
    expect(log).to.include('"level":50').and.include("It is logged.");
    expect(book.undelivered()).to.equal(0);
  });

  it("keeps them while nothing listens at the webhook", async () => {
    book.close();
    open("http://127.0.0.1:1/alerts");
    raise("unheard");
    expect(await alerts.deliver()).to.equal(0);
    expect(book.undelivered()).to.equal(1);
    expect(log).to.include("did not take");
  });

  it("lets one process at a time act by a book", () => {
    const second = new WatchBook(path, () => clock);
    book.lock();
    expect(() => second.lock()).to.throw(/Another watcher/);
    second.close();
  });
});
