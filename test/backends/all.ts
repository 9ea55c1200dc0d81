/** The backends that every kernel is tested on. */
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";

export interface BackendOptions {
  readonly memoryLimit?: number;
}

export interface TestedBackend {
  readonly name: string;
  readonly create: (options?: BackendOptions) => Promise<Backend>;
}

export const backends: readonly TestedBackend[] = [
  // One line each.
  { name: "reference", create: async (options) => createReferenceBackend(options) },
];
