import { createServer } from "@bursar/relayer";

import { Books } from "../relayer/books.ts";

/** One replica of a processor without a chain: `[url of its books]`. */
const { processor } = await Books.at(process.argv[2]!);
const url = await createServer(processor).listen({ host: "127.0.0.1", port: 0 });
console.log(`listening on ${url}`);
