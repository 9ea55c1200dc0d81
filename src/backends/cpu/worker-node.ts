/** A worker thread of the CPU backend in Node.js. */
import { parentPort, workerData } from "node:worker_threads";
import { serve, type WorkerSetup } from "./serve.ts";

serve(workerData as WorkerSetup, () => parentPort?.postMessage("ready"));
