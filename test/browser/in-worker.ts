/** The README's training in a worker of the page, whose own workers run kernels. */
import { report } from "./page.ts";

// The test writes the file.
const worker = new Worker(new URL("./readme.js", import.meta.url), { type: "module" });
worker.addEventListener("error", ({ message }) => void report({ error: message }));
