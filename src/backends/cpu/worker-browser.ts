/** A worker of the CPU backend in a browser; its setup is the first message that it receives. */
import { serve, type WorkerSetup } from "./serve.ts";

globalThis.addEventListener(
  "message",
  (event: MessageEvent<WorkerSetup>) => {
    // A dedicated worker's `postMessage` needs no origin, but the types are those of a window, whose function does.
    const reply = globalThis.postMessage as (message: string) => void;
    serve(event.data, () => reply("ready"));
  },
  { once: true },
);
