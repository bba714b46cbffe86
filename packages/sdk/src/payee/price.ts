import { assertAmount, parseAmount } from "@bursar/protocol";

/** An amount as people write it (`"0.00025"`), or units. */
export type Amount = string | bigint;

/** What a request costs: an amount, or what a function of the request says; null and 0 are free. */
export type Price<R> = Amount | ((request: R) => Amount | null | Promise<Amount | null>);

/** Units. @throws BursarError `malformed-input` */
export function unitsOf(amount: Amount): bigint {
  return typeof amount === "string" ? parseAmount(amount) : amount;
}

/**
 * A price ready to be asked for each request. A fixed one is checked at once.
 *
 * @throws BursarError `malformed-input`, `amount-zero`, `amount-too-large`
 */
export function pricing<R>(price: Price<R>): (request: R) => Promise<bigint> {
  if (typeof price !== "function") {
    const fixed = checked(unitsOf(price));
    return () => Promise.resolve(fixed);
  }
  return async (request) => {
    const amount = await price(request);
    return amount === null ? 0n : checked(unitsOf(amount));
  };
}

function checked(units: bigint): bigint {
  if (units !== 0n) assertAmount(units);
  return units;
}
