import type { Address, Hex } from "@bursar/protocol";
import type { Wallet } from "ethers";

import type { Bench, Outcome } from "./bench.ts";
import { DISPUTE } from "./dispute.ts";
import { IDENTITY } from "./identity.ts";
import { REPUTATION } from "./reputation.ts";
import { judgeSettlement } from "./settlement.ts";
import { WALLET } from "./wallet.ts";

export { Bench, type NodeProvider, type Outcome } from "./bench.ts";

/** What a suite may be told about a contract besides its address. */
export interface Details {
  /** The registry that it works with. */
  readonly registry?: Address | undefined;
  readonly admitted?: readonly Address[];
  readonly refused?: readonly Address[];
  /** A wallet's key. */
  readonly key?: Wallet | undefined;
  /** A wallet's own EIP-712 domain. */
  readonly name?: string | undefined;
  readonly version?: string | undefined;
  /** A message and a signature that a wallet takes. */
  readonly sample?: { readonly digest: Hex; readonly signature: Hex } | undefined;
}

type Judge = (bench: Bench, address: Address, details: Details) => Promise<Outcome[]>;

/** The suite of each role. */
export const ROLES = {
  wallet: (bench, address, details) => bench.judge(WALLET, { bench, address, ...details }),
  settlement: (bench, address) => judgeSettlement({ bench, address }),
  identity: (bench, address, { admitted = [], refused = [], registry }) =>
    bench.judge(IDENTITY, { bench, address, admitted, refused, registry }),
  dispute: (bench, address) => bench.judge(DISPUTE, { bench, address }),
  reputation: (bench, address, { registry }) => bench.judge(REPUTATION, { bench, address, registry }),
} as const satisfies Record<string, Judge>;

export type Role = keyof typeof ROLES;
