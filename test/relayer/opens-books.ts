import { Store } from "@bursar/relayer";

/** A process that opens the books at the URL given, and tells the version that it left them in. */
const [url = ""] = process.argv.slice(2);
const store = await Store.open(url);
const rows = await store.database.all("SELECT name, version FROM book ORDER BY name");
console.log(JSON.stringify([rows, await store.counts()]));
await store.close();
