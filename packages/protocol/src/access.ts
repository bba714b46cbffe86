import { decodeBase64, encodeBase64, toUtf8Bytes, toUtf8String } from "ethers";
import { z } from "zod";
import { BursarError } from "./errors.ts";
import { addressSchema, parseWire, signatureSchema, toWire, uint64Schema } from "./schemas.ts";
import { verifySignature } from "./signature.ts";
import { hashAccess } from "./typed-data.ts";
import type { Access, Address, Domain, Hex } from "./types.ts";

/** The longest that an access may last, in seconds. */
export const MAX_ACCESS = 86_400n;

const SCHEME = "Bursar ";

const accessSchema = z.strictObject({ account: addressSchema, expiresAt: uint64Schema, signature: signatureSchema });

/** Value of the `Authorization` header that shows a signed access, see `signAccess`. */
export function accessHeader(access: Access, signature: Hex): string {
  return SCHEME + encodeBase64(toUtf8Bytes(JSON.stringify(toWire({ ...access, signature }))));
}

/**
 * Who asks, by the `Authorization` header.
 *
 * @param now Unix seconds.
 * @throws unauthorised for another form, a signature by another key, or an access that is over or longer than a day.
 */
export function verifyAccess(domain: Domain, header: string, now: bigint): Address {
  const { account, expiresAt, signature } = decode(header);
  if (expiresAt <= now || expiresAt > now + MAX_ACCESS) {
    throw new BursarError(
      "unauthorised",
      `An access lasts at most a day; this one ends at ${expiresAt}, and it is ${now}.`,
      { value: expiresAt, limit: now + MAX_ACCESS },
      "Sign a new access.",
    );
  }
  try {
    verifySignature(hashAccess(domain, { account, expiresAt }), signature, account);
  } catch (error) {
    if (!(error instanceof BursarError)) throw error;
    throw new BursarError("unauthorised", `The access is not signed by ${account}.`, { value: account });
  }
  return account;
}

function decode(header: string): z.output<typeof accessSchema> {
  try {
    if (!header.startsWith(SCHEME) || header.length > 2_000) throw new Error("another scheme");
    return parseWire(accessSchema, JSON.parse(toUtf8String(decodeBase64(header.slice(SCHEME.length)))));
  } catch {
    throw new BursarError(
      "unauthorised",
      "The Authorization header holds no access.",
      {},
      `Send «${SCHEME.trim()} <base64 of a signed access>» or «Bearer <API key>».`,
    );
  }
}
