/** The parameters of a model in a .safetensors file. */
import { loadParameters, type NamedParameters, saveParameters } from "../nn/saved-parameters.ts";
import { reading, writeFileAtomic } from "./files.ts";

/**
 * Writes `saveParameters(parameters)` whole or not at all: beside `path`, synced, then renamed over it; folders are made. Throws `numeric` when a parameter is not
 * finite, `io` when the file cannot be written; a file that was there stays.
 */
export async function writeParameters(path: string, parameters: NamedParameters): Promise<void> {
  const bytes = await saveParameters(parameters);
  writeFileAtomic(path, [bytes]);
}

/** `loadParameters` from a file. Throws as it does, and `io` when the file cannot be read. */
export function readParameters(path: string, parameters: NamedParameters): void {
  reading(path, (source) => loadParameters(parameters, source, path));
}
