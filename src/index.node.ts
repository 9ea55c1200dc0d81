/**
 * gradmix in Node.js: the same, but `init` looks for threads, files and GPUs where Node has them.
 *
 * @module gradmix
 */
export * from "./index.ts";
export { init } from "./host-node.ts";
