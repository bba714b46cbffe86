import { AbstractSigner } from "ethers";

import { addressOf, Office } from "./office.ts";

/** A key whose machine loses power the moment it is asked for a receipt: after the commit, before the answer. */
class FatalKey extends AbstractSigner {
  getAddress(): Promise<string> {
    return Promise.resolve(addressOf("processor"));
  }
  connect(): this {
    return this;
  }
  signTransaction(): Promise<string> {
    throw new Error("signs receipts only");
  }
  signMessage(): Promise<string> {
    throw new Error("signs receipts only");
  }
  signTypedData(): Promise<string> {
    process.kill(process.pid, "SIGKILL");
    return new Promise(() => undefined);
  }
}

const [path = ""] = process.argv.slice(2);
const office = new Office(path, { signer: new FatalKey() });
const agent = office.agent("cut off");
await agent.pay(addressOf("shop"), 5n);
