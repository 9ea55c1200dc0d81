/** A worker of the CPU backend in a browser: what it needs is the first message that it gets. */
import { serve, type WorkerSetup } from "./serve.ts";

globalThis.addEventListener(
  "message",
  (event: MessageEvent<WorkerSetup>) => {
    // A dedicated worker's; the types are those of a window, whose `postMessage` wants an origin.
    const reply = globalThis.postMessage as (message: string) => void;
    serve(event.data, () => reply("ready"));
  },
  { once: true },
);
