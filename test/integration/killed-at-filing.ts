import { Chain, createLogger, createWatch, WATCH_DEFAULTS, WatchBook, type Rail } from "@bursar/relayer";
import { JsonRpcProvider, Wallet, type TransactionRequest, type TransactionResponse } from "ethers";

/** What the parent tells: where everything is, and when to die. */
export interface Deathbed {
  readonly url: string;
  readonly rail: Rail & { readonly chainId: string };
  readonly path: string;
  readonly key: string;
  readonly now: string;
  /** Once the claim is recorded, once its transaction is signed and recorded, or once the node has it. */
  readonly moment: "recorded" | "signed" | "sent";
}

function die(): never {
  process.kill(process.pid, "SIGKILL");
  throw new Error("it outlived its death");
}

const { url, rail, path, key, now, moment } = JSON.parse(process.argv[2] ?? "{}") as Deathbed;

class MortalProvider extends JsonRpcProvider {
  override async broadcastTransaction(raw: string): Promise<TransactionResponse> {
    if (moment === "signed") die();
    await this.send("eth_sendRawTransaction", [raw]);
    die();
  }
}

class MortalWallet extends Wallet {
  override signTransaction(transaction: TransactionRequest): Promise<string> {
    return moment === "recorded" ? die() : super.signTransaction(transaction);
  }
}

const clock = (): bigint => BigInt(now);
const provider = new MortalProvider(url, 31_337, { staticNetwork: true, cacheTimeout: -1 });
const book = new WatchBook(path, clock);
const { watcher } = createWatch({
  config: WATCH_DEFAULTS,
  chain: new Chain({ ...rail, chainId: BigInt(rail.chainId) }, provider),
  provider,
  book,
  signer: new MortalWallet(key, provider),
  logger: createLogger("silent", process.stderr),
  now: clock,
  sleep: (milliseconds) => new Promise((done) => setTimeout(done, milliseconds)),
});
await watcher.run();
await watcher.idle();
