import {
  AgentLedger,
  BursarError,
  decodePaymentRequired,
  encodePaymentHeader,
  parseWire,
  PAYMENT_HEADER,
  PAYMENT_REQUIRED_HEADER,
  requestRef,
  signedReceiptSchema,
  signPayment,
  toWire,
  type Address,
  type Domain,
  type Hex,
  type Line,
  type Problem,
} from "@bursar/protocol";
import { hexlify, randomBytes, Wallet } from "ethers";

/** A program that spends: it has one session key, one ledger, and the address of its processor. */
export class Agent {
  readonly name: string;
  readonly wallet = new Wallet(hexlify(randomBytes(32)));
  readonly #domain: Domain;
  readonly #processorUrl: string;
  readonly #ledger: AgentLedger;

  constructor(name: string, domain: Domain, processorUrl: string) {
    this.name = name;
    this.#domain = domain;
    this.#processorUrl = processorUrl;
    this.#ledger = new AgentLedger({ domain, agent: this.address, secret: hexlify(randomBytes(32)) as Hex });
  }

  get address(): Address {
    return this.wallet.address as Address;
  }

  /** Gets `url`, paying what it asks. @throws BursarError the processor's refusal. */
  async buy(url: string): Promise<unknown> {
    const asked = await fetch(url);
    const required = asked.headers.get(PAYMENT_REQUIRED_HEADER);
    if (asked.status !== 402 || required === null) return asked.json();
    const { payee, amount } = decodePaymentRequired(required);
    const header = await this.pay({ payee, amount, ref: requestRef({ method: "GET", url }) });
    const served = await fetch(url, { headers: { [PAYMENT_HEADER]: header } });
    if (!served.ok) throw refusal((await served.json()) as Problem);
    return served.json();
  }

  /** Signs the next payment and has it accepted. @returns the header that shows payment and receipt to the payee. */
  async pay(line: Line): Promise<string> {
    const { payment, salt } = this.#ledger.draft(line);
    const signature = await signPayment(this.wallet, this.#domain, payment);
    const signed = { agent: this.address, payment, signature, salt };
    const answer = await fetch(`${this.#processorUrl}/payments`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(toWire(signed)),
    });
    const body: unknown = await answer.json();
    if (!answer.ok) {
      this.#ledger.discard();
      throw refusal(body as Problem);
    }
    const receipt = parseWire(signedReceiptSchema, body);
    this.#ledger.commit();
    return encodePaymentHeader({ domain: this.#domain, payment: signed, receipt });
  }
}

function refusal({ code, detail, details, advice }: Problem): BursarError {
  return new BursarError(code, detail, details, advice);
}
