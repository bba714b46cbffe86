import { spawn, type ChildProcess } from "node:child_process";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";

import { JsonRpcProvider } from "ethers";

/** A local Hardhat node of its own, on a free port, that ends with {@link LocalNode.stop}. */
export class LocalNode {
  readonly url: string;
  readonly #chainId: number;
  readonly #process: ChildProcess;

  private constructor(url: string, chainId: number, process: ChildProcess) {
    this.url = url;
    this.#chainId = chainId;
    this.#process = process;
  }

  /** @throws Error with the node's own output when it ends before it answers. */
  static async start(chainId = 31_337): Promise<LocalNode> {
    const port = await freePort();
    const hardhat = fileURLToPath(new URL("../../node_modules/hardhat/dist/src/cli.js", import.meta.url));
    const options = ["--port", String(port), "--chain-id", String(chainId)];
    const node = spawn(process.execPath, [hardhat, "node", ...options], {
      cwd: fileURLToPath(new URL("../..", import.meta.url)),
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [node.stdout, node.stderr])
      stream.on("data", (chunk: Buffer) => (output = (output + String(chunk)).slice(-4_000)));
    const local = new LocalNode(`http://127.0.0.1:${port}`, chainId, node);
    const deadline = Date.now() + 60_000;
    while (!(await local.#answers())) {
      if (node.exitCode !== null || Date.now() > deadline) {
        local.stop();
        throw new Error(`the local node did not start:\n${output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    return local;
  }

  provider(): JsonRpcProvider {
    return new JsonRpcProvider(this.url, this.#chainId, {
      staticNetwork: true,
      cacheTimeout: -1,
      pollingInterval: 100,
    });
  }

  stop(): void {
    this.#process.kill("SIGTERM");
  }

  async #answers(): Promise<boolean> {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "eth_chainId", params: [] });
    return fetch(this.url, { method: "POST", headers: { "content-type": "application/json" }, body }).then(
      (response) => response.ok,
      () => false,
    );
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() =>
        typeof address === "object" && address ? resolve(address.port) : reject(new Error("no port")),
      );
    });
  });
}
