/** The backends that every kernel is tested on. A new backend is one line here. */
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";

export interface BackendOptions {
  readonly memoryLimit?: number;
}

export const backends: readonly {
  readonly name: string;
  readonly create: (options?: BackendOptions) => Promise<Backend>;
}[] = [{ name: "reference", create: async (options) => createReferenceBackend(options) }];
