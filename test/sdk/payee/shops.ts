/** One small service in each framework that an adapter exists for. */
import { serve as serveHono } from "@hono/node-server";
import type { Paywall, Price, RouteOptions } from "@bursar/sdk/payee";
import { keepBody, paid as paidExpress, paidOf as paidOfExpress } from "@bursar/sdk/payee/express";
import { paid as paidFastify, paidOf as paidOfFastify } from "@bursar/sdk/payee/fastify";
import { paid as paidHono, paidOf as paidOfHono } from "@bursar/sdk/payee/hono";
import express from "express";
import fastify from "fastify";
import { Hono } from "hono";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** What the handler of a paid route does: it answers, throws, or answers with a status. */
export type Work = (body: unknown) => string | Promise<string> | { status: number; text: string };

export interface Shop {
  readonly url: string;
  /** Runs of the handler. */
  served: number;
  /** Numbers of the payments that the handler saw. */
  readonly seen: (bigint | null)[];
  close(): Promise<void>;
}

export interface ShopOptions {
  /** By the path, where it is a function. */
  readonly price: string | bigint | ((path: string) => string | bigint | null | Promise<string | bigint | null>);
  readonly work?: Work;
  readonly route?: RouteOptions;
  /** express parses JSON without keeping the bytes. */
  readonly forgetful?: boolean;
  /** Trust X-Forwarded-* (express and fastify). */
  readonly trustProxy?: boolean;
}

export type OpenShop = (paywall: Paywall, options: ShopOptions) => Promise<Shop>;

export const SHOPS: readonly (readonly [string, OpenShop])[] = [
  ["express", openExpress],
  ["hono", openHono],
  ["fastify", openFastify],
];

const CONTENT = "22 degrees";

async function openExpress(paywall: Paywall, options: ShopOptions): Promise<Shop> {
  const app = express();
  if (options.trustProxy === true) app.set("trust proxy", true);
  app.use(express.json(options.forgetful === true ? {} : { verify: keepBody }));
  const server = createServer(app);
  const shop = await opened(server);
  const price = priceFor<express.Request>(options.price, (request) => request.path);
  app.all("/weather{/:city}", paidExpress(paywall, price, options.route), async (request, response) => {
    shop.served += 1;
    shop.seen.push(paidOfExpress(request)?.payment.payment.seq ?? null);
    const answer = await (options.work ?? (() => CONTENT))(request.body);
    if (typeof answer === "string") response.send(answer);
    else response.status(answer.status).send(answer.text);
  });
  app.use((_error: unknown, _request: express.Request, response: express.Response, next: express.NextFunction) => {
    if (response.headersSent) next(_error);
    else response.status(500).send("broken");
  });
  return shop;
}

async function openHono(paywall: Paywall, options: ShopOptions): Promise<Shop> {
  const app = new Hono();
  const price = priceFor<Parameters<typeof paidOfHono>[0]>(options.price, (c) => c.req.path);
  const late: { shop?: Shop } = {};
  app.onError((_error, c) => c.text("broken", 500));
  app.all("/weather/:city?", paidHono(paywall, price, options.route), async (c) => {
    late.shop!.served += 1;
    late.shop!.seen.push(paidOfHono(c)?.payment.payment.seq ?? null);
    const json = c.req.header("content-type")?.startsWith("application/json") ?? false;
    const answer = await (options.work ?? (() => CONTENT))(json ? await c.req.json() : undefined);
    if (typeof answer === "string") return c.text(answer);
    return c.text(answer.text, answer.status as 500);
  });
  return new Promise((resolve) => {
    const server = serveHono({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }, () => {
      late.shop = shopOf(server as Server);
      resolve(late.shop);
    });
  });
}

async function openFastify(paywall: Paywall, options: ShopOptions): Promise<Shop> {
  const app = fastify({ trustProxy: options.trustProxy === true, exposeHeadRoutes: true });
  const price = priceFor<Parameters<typeof paidOfFastify>[0]>(options.price, (request) => request.url.split("?")[0]!);
  const late: { shop?: Shop } = {};
  app.setErrorHandler((_error, _request, reply) => reply.status(500).send("broken"));
  for (const path of ["/weather", "/weather/:city"]) {
    app.route({
      method: ["GET", "POST", "PUT", "OPTIONS"],
      url: path,
      ...paidFastify(paywall, price, options.route),
      handler: async (request, reply) => {
        late.shop!.served += 1;
        late.shop!.seen.push(paidOfFastify(request)?.payment.payment.seq ?? null);
        const answer = await (options.work ?? (() => CONTENT))(request.body);
        if (typeof answer === "string") return answer;
        return reply.status(answer.status).send(answer.text);
      },
    });
  }
  await app.listen({ host: "127.0.0.1", port: 0 });
  late.shop = { ...shopOf(app.server), close: () => app.close() };
  return late.shop;
}

function priceFor<R>(price: ShopOptions["price"], pathOf: (request: R) => string): Price<R> {
  return typeof price === "function" ? (request) => price(pathOf(request)) : price;
}

async function opened(server: Server): Promise<Shop> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return shopOf(server);
}

function shopOf(server: Server): Shop {
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    served: 0,
    seen: [],
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
