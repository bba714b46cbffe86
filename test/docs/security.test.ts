import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { expect } from "chai";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const PAGE = join(ROOT, "docs/security.md");
const text = readFileSync(PAGE, "utf8");

/** Targets of the links in a piece of Markdown, without anchors, that are files of the tree. */
const linksOf = (markdown: string): string[] =>
  [...markdown.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target]) => target!.split("#")[0]!)
    .filter((target) => target !== "" && !/^[a-z]+:/.test(target));

/** Table rows that begin with this letter and a number. */
const rowsOf = (letter: string): { number: string; cells: string[]; files: string[] }[] =>
  [...text.matchAll(new RegExp(`^\\| (${letter}\\d+) \\|(.*)\\|$`, "gm"))].map(([, number, rest]) => ({
    number: number!,
    cells: rest!.split("|").map((cell) => cell.trim()),
    files: linksOf(rest!).map((target) => join(dirname(PAGE), target)),
  }));

const contains = (file: string, pattern: RegExp): boolean => pattern.test(readFileSync(file, "utf8"));

describe("docs/security.md claims nothing that is not a test", () => {
  const promises = rowsOf("P");

  it("has all 20 promises, as promised or as not promised yet", () => {
    const unpromised = [.../\*\*Not promised yet\*\*: (.*)/.exec(text)![1]!.matchAll(/P\d+/g)].map(
      ([number]) => number,
    );
    const all = [...promises.map(({ number }) => number), ...unpromised];
    expect(all.sort()).to.deep.equal(Array.from({ length: 20 }, (_, index) => `P${index + 1}`).sort());
  });

  for (const { number, cells, files } of promises) {
    it(`${number} ${cells[0]!} is a test of its name, and every link of it is about it`, () => {
      expect(files).not.to.have.length(0);
      for (const file of files) expect(contains(file, new RegExp(`\\b${number}\\b`)), file).to.equal(true);
      const named = files.filter((file) => contains(file, new RegExp(`${number} ${cells[0]!}\\b`)));
      expect(named, number).not.to.have.length(0);
    });
  }

  for (const { number, files } of [...rowsOf("I"), ...rowsOf("K")]) {
    it(`${number} is tested where it says`, () => {
      expect(files).not.to.have.length(0);
      for (const file of files) expect(contains(file, new RegExp(`\\b${number}\\b`)), file).to.equal(true);
    });
  }

  it("has a test for every threat", () => {
    const threats = text.slice(text.indexOf("## Threats"));
    const rows = [...threats.matchAll(/^\| (?!threat |---)(.*) \|$/gm)].map(([, row]) => row!);
    expect(rows.length).to.be.greaterThan(10);
    expect(rows.filter((row) => linksOf(row).length === 0)).to.deep.equal([]);
  });

  it("has every invariant and every case, but for jobs", () => {
    const numbers = (letter: string): string[] => rowsOf(letter).map(({ number }) => number);
    expect(numbers("I")).to.have.length(15).and.not.to.include("I14");
    expect(numbers("K")).to.have.length(15);
  });
});

describe("the documentation", () => {
  const pages = [
    ...["README.md", "CHANGELOG.md"],
    ...readdirSync(join(ROOT, "docs"), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".md"))
      .map((name) => join("docs", name)),
  ];
  for (const page of pages) {
    it(`${page} links to what exists`, () => {
      const file = join(ROOT, page);
      const missing = linksOf(readFileSync(file, "utf8")).filter((target) => !existsSync(join(dirname(file), target)));
      expect(missing).to.deep.equal([]);
    });
  }
});
