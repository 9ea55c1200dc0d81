/**
 * The entry for Node.js. It exports the same names as the entry for browsers; its `init` uses the threads, files and GPUs of Node.js.
 *
 * @module gradmix
 */
export * from "./index.ts";
export { init } from "./host-node.ts";
