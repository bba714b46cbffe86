import { BursarError } from "@bursar/protocol";

/** The public base URL of a service, checked once. @throws BursarError `malformed-input` */
export function parseOrigin(origin: string): string {
  const url = URL.canParse(origin) ? new URL(origin) : null;
  if (url === null || !/^https?:$/.test(url.protocol) || url.search !== "" || url.hash !== "" || url.username !== "") {
    throw new BursarError(
      "malformed-input",
      `"${origin}" is not a public base URL.`,
      { value: origin },
      "Give it as agents call it, such as https://api.example.com.",
    );
  }
  return url.href.replace(/\/$/, "");
}

/**
 * The URL that a payment is bound to: the public base URL, and path and query as the request line has them. Path and
 * query are never resolved, so `//elsewhere/` stays a path.
 *
 * @param origin as {@link parseOrigin} gives it, or what the framework trusts of the request.
 * @param target path and query, or the absolute form that a proxy may send.
 */
export function absoluteUrl(origin: string, target: string): string {
  if (target.startsWith("/")) return origin + target;
  if (!URL.canParse(target)) return `${origin}/`;
  const { pathname, search } = new URL(target);
  return origin + pathname + search;
}
