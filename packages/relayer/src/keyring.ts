import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { BursarError } from "@bursar/protocol";
import { decryptKeystoreJson, encryptKeystoreJson, hexlify, randomBytes, Wallet } from "ethers";

/** Work factor of scrypt: the usual one, and a light one for the empty password of a local chain. */
const SCRYPT = { guarded: 131_072, open: 4_096 };

/**
 * Private keys in encrypted files (Web3 Secret Storage, version 3), one for each name. A key without a password is
 * allowed on local chains only.
 */
export class Keyring {
  readonly #folder: string;
  readonly #password: string;

  /**
   * @param password - protects every key of the folder.
   * @param local - whether the keys are for a local chain.
   * @throws BursarError `malformed-input` for an empty password off a local chain.
   */
  constructor(folder: string, password: string, local: boolean) {
    if (password === "" && !local) {
      throw new BursarError("malformed-input", "Keys for a public chain need a password.", {}, "Set BURSAR_PASSWORD.");
    }
    this.#folder = folder;
    this.#password = password;
  }

  has(name: string): boolean {
    return existsSync(this.#path(name));
  }

  /** @throws BursarError `key-missing`, or `key-corrupt` when file and password do not fit. */
  async load(name: string): Promise<Wallet> {
    if (!this.has(name)) {
      throw new BursarError("key-missing", `There is no key «${name}».`, { value: this.#path(name) });
    }
    try {
      const account = await decryptKeystoreJson(readFileSync(this.#path(name), "utf8"), this.#password);
      return new Wallet(account.privateKey);
    } catch {
      throw new BursarError(
        "key-corrupt",
        `The key «${name}» cannot be opened.`,
        { value: this.#path(name) },
        "Check BURSAR_PASSWORD; if the file is damaged, restore it from a backup.",
      );
    }
  }

  /** Makes and keeps a fresh key, named by its address unless `name` is given. */
  async create(name?: string): Promise<Wallet> {
    const wallet = new Wallet(hexlify(randomBytes(32)));
    const N = this.#password === "" ? SCRYPT.open : SCRYPT.guarded;
    const { address, privateKey } = wallet;
    const json = await encryptKeystoreJson({ address, privateKey }, this.#password, { scrypt: { N } });
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const path = this.#path(name ?? address);
    writeFileSync(`${path}.new`, json, { mode: 0o600, flush: true });
    renameSync(`${path}.new`, path);
    return wallet;
  }

  async loadOrCreate(name: string): Promise<Wallet> {
    return this.has(name) ? this.load(name) : this.create(name);
  }

  #path(name: string): string {
    return join(this.#folder, `${name}.json`);
  }
}
