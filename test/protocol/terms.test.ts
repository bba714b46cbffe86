import canonicalize from "canonicalize";
import { expect } from "chai";
import { keccak256, toUtf8Bytes } from "ethers";
import fc from "fast-check";
import {
  canonicalTerms,
  hostMatches,
  normalHost,
  parseWire,
  termsHash,
  termsSchema,
  type Terms,
} from "@bursar/protocol";
import vectors from "../vectors/terms.json" with { type: "json" };
import { refusal } from "./reference.ts";

describe("the terms", () => {
  for (const { name, terms, canonical, hash } of vectors.terms) {
    it(`have one canonical text and hash: ${name}`, () => {
      expect(canonicalTerms(terms as Terms)).to.equal(canonical);
      expect(termsHash(terms as Terms)).to.equal(hash);
      expect(keccak256(toUtf8Bytes(canonical))).to.equal(hash);
      expect(JSON.parse(canonical)).to.deep.equal(terms);
    });
  }

  for (const { name, terms } of vectors.refused) {
    it(`are refused: ${name}`, () => refusal("malformed-input", () => termsHash(terms as unknown as Terms)));
  }

  it("hash the same in any order of their fields", () => {
    const [terms] = vectors.terms.filter(({ name }) => name === "limits");
    const turned = Object.fromEntries(Object.entries(terms!.terms).toReversed());
    expect(JSON.stringify(turned)).not.to.equal(JSON.stringify(terms!.terms));
    expect(termsHash(turned as Terms)).to.equal(terms!.hash);
  });

  it("hash otherwise after any change", () => {
    const terms: Terms = {
      version: 1,
      purpose: "p",
      categories: ["a"],
      hosts: ["a.example"],
      limits: { unitsPerDay: "1" },
    };
    const others: Terms[] = [
      { ...terms, purpose: "P" },
      { ...terms, categories: ["a", "b"] },
      { ...terms, hosts: [] },
      { ...terms, limits: { unitsPerDay: "2" } },
      { ...terms, limits: { paymentsPerMinute: "1" } },
    ];
    expect(new Set([terms, ...others].map(termsHash)).size).to.equal(6);
  });

  it("survive the wire", () => {
    const arbitrary = fc.record(
      {
        version: fc.constant(1 as const),
        purpose: fc
          .string({ unit: "grapheme", minLength: 1, maxLength: 40 })
          .filter((text) => text.isWellFormed() && text !== ""),
        categories: fc.uniqueArray(fc.stringMatching(/^[a-z0-9]{1,8}(-[a-z0-9]{1,8})?$/), { maxLength: 32 }),
        hosts: fc.uniqueArray(fc.stringMatching(/^(\*\.)?[a-z]{1,8}\.[a-z]{2,6}\.test$/), { maxLength: 32 }),
        limits: fc.record({ unitsPerDay: fc.bigInt({ min: 1n, max: 2n ** 64n }).map(String) }),
      },
      { requiredKeys: ["version", "purpose", "categories", "hosts"] },
    );
    fc.assert(
      fc.property(arbitrary, (terms) => {
        expect(parseWire(termsSchema, JSON.parse(canonicalTerms(terms)))).to.deep.equal(terms);
      }),
    );
  });
});

describe("canonical JSON (RFC 8785)", () => {
  it("writes literals, numbers and strings as its example 3.2.2", () => {
    const text = String.raw`{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],
      "string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`;
    expect(canonicalize(JSON.parse(text))).to.equal(
      String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
    );
  });

  it("sorts keys by UTF-16 code units as its example 3.2.3", () => {
    const sorted = canonicalize({
      "\u20ac": "Euro Sign",
      "\r": "Carriage Return",
      "\ufb33": "Hebrew Letter Dalet With Dagesh",
      "1": "One",
      "\ud83d\ude00": "Emoji: Grinning Face",
      "\u0080": "Control",
      "\u00f6": "Latin Small Letter O With Diaeresis",
    });
    expect([...sorted!.matchAll(/:"([A-Z][a-z]+)/g)].map(([, word]) => word)).to.deep.equal([
      "Carriage",
      "One",
      "Control",
      "Latin",
      "Euro",
      "Emoji",
      "Hebrew",
    ]);
  });
});

describe("a host glob", () => {
  for (const { glob, host, matches } of vectors.hosts) {
    it(`${glob} ${matches ? "covers" : "does not cover"} ${JSON.stringify(host)}`, () => {
      expect(hostMatches(glob, host)).to.equal(matches);
    });
  }

  it("covers the host that a URL names, whatever surrounds it", () => {
    const label = fc.stringMatching(/^[a-z]([a-z0-9]{0,6}[a-z0-9])?$/);
    fc.assert(
      fc.property(label, label, fc.nat({ max: 65535 }), fc.boolean(), (one, other, port, dot) => {
        const host = `${one}.${other}.test`;
        const written = `${host.toUpperCase()}${dot ? "." : ""}:${port}`;
        expect(hostMatches(host, written)).to.equal(true);
        expect(hostMatches(`*.${other}.test`, written)).to.equal(true);
        expect(hostMatches(`*.${one}x.test`, written)).to.equal(other === `${one}x`);
        expect(normalHost(written)).to.equal(host);
      }),
    );
  });

  it("has no normal form for what is not a host", () => {
    for (const text of [
      "",
      ".",
      "a b",
      "a/b",
      "user@host",
      "a?b",
      "a#b",
      "a\\b",
      "%61.test",
      "a..",
      "[::1",
      "1.2.3.4.5",
      "a:b",
    ]) {
      expect(normalHost(text), text).to.equal(null);
    }
  });
});
