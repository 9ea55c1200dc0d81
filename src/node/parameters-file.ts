/** Stores the parameters of a model in a .safetensors file. */
import { loadParameters, type NamedParameters, saveParameters } from "../nn/saved-parameters.ts";
import { string } from "../options.ts";
import { reading, writeFileAtomic } from "./files.ts";

/**
 * Writes `saveParameters(parameters)` to a file atomically: to a temporary file beside `path`, which is synced and then renamed. Missing folders are
 * made. Throws `numeric` if a parameter is not finite, and `io` if the file cannot be written; an existing file then stays.
 */
export async function writeParameters(path: string, parameters: NamedParameters): Promise<void> {
  string("writeParameters: path", path);
  const bytes = await saveParameters(parameters);
  writeFileAtomic(path, [bytes]);
}

/** Loads parameters from a file, like `loadParameters`, and throws the same errors, and `io` if the file cannot be read. */
export function readParameters(path: string, parameters: NamedParameters): void {
  string("readParameters: path", path);
  reading(path, (source) => loadParameters(parameters, source, path));
}
