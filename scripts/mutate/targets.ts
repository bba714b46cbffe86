/** What is mutated, what of the build changes with it, and which tests are run against it. */
export interface Target {
  readonly name: string;
  readonly file: string;
  /** Contracts that hold its code, as `file:name`. */
  readonly builds: readonly string[];
  /** Suites below test/contracts, those that find most first. */
  readonly suites: readonly string[];
}

const built = (name: string): string => `contracts/${name}.sol:${name.replace(/.*\//, "")}`;
const target = (name: string, builds: readonly string[], suites: readonly string[]): Target => ({
  name: name.replace(/.*\//, ""),
  file: `contracts/${name}.sol`,
  builds: builds.map(built),
  suites,
});

export const TARGETS: readonly Target[] = [
  target("Escrow", ["Escrow"], ["escrow", "direct"]),
  target("MandateRegistry", ["MandateRegistry"], ["registry", "revocation", "direct", "claims"]),
  target("ProcessorRegistry", ["ProcessorRegistry"], ["processors", "claims"]),
  target("Claims", ["Claims"], ["claims"]),
  target("Challenges", ["Trust", "Challenges"], ["challenges"]),
  target("BatchSettlement", ["Bursar"], ["settlement", "challenges"]),
  target("DirectSettlement", ["DirectSettlement"], ["direct"]),
  target("modules/Disputes", ["modules/Disputes"], ["disputes"]),
  target("modules/BondedArbiter", ["modules/BondedArbiter"], ["disputes"]),
  target("lib/BatchWords", ["MandateRegistry", "Bursar"], ["registry", "settlement"]),
  target("lib/Evaluation", ["Bursar"], ["settlement"]),
  target("lib/Transcript", ["Bursar"], ["settlement"]),
  target("lib/Field", ["Bursar"], ["settlement"]),
  target("lib/PublicSignals", ["Bursar"], ["settlement"]),
  target("lib/Ledger", ["MandateRegistry"], ["registry", "revocation"]),
  target("lib/TypedHashes", ["MandateRegistry"], ["registry", "revocation"]),
  target("lib/StrictECDSA", ["MandateRegistry", "DirectSettlement"], ["registry", "direct"]),
  target("lib/Gate", ["MandateRegistry"], ["registry", "revocation"]),
  target("lib/ReceiptedPayments", ["Claims"], ["claims"]),
  target("lib/PurchaseHashes", ["modules/Disputes"], ["disputes"]),
];
