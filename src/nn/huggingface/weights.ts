/** Opens the files of a folder that contain weights: one file, or shards with or without an index. Only their headers are read at once. */
import { GradmixError } from "../../errors.ts";
import { faultOf, map, object, parse, type Schema, string } from "../../schema.ts";
import type { Shape } from "../../tensor/shape.ts";
import { type ByteSource, checkSource, openSafetensors, type StoredTensor } from "../safetensors.ts";
import { baseName } from "./layout.ts";

/** A tensor in a file, which is read on request. */
export interface Weight {
  readonly file: string;
  readonly name: string;
  readonly shape: Shape;
  read(): StoredTensor;
}

export interface Weights {
  readonly list: readonly Weight[];
  /** Finds a tensor by its name, with or without the prefix of the base model. Throws `data` if it is missing. */
  find(name: string): Weight;
}

const WHOLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** Opens the weights of a folder and reads only the headers of the files. Throws `data` for a tensor that two files contain. */
export function openWeights(files: ReadonlyMap<string, Uint8Array | ByteSource>): Weights {
  const parts = weightFiles(files);
  const byName = new Map<string, Weight>();
  for (const [file, bytes] of parts) {
    const { shapes, read } = openSafetensors(bytes, file);
    for (const [name, shape] of shapes) {
      const other = byName.get(baseName(name));
      if (other !== undefined)
        throw new GradmixError(
          "data",
          `${file}: the tensor "${name}" is in ${other.file} too, as "${other.name}"`,
        );
      byName.set(baseName(name), { file, name, shape, read: () => read(name) });
    }
  }
  const where = parts.length === 1 ? parts[0]![0] : `${parts.length} files of weights`;
  return {
    list: [...byName.values()],
    find(name) {
      const weight = byName.get(baseName(name));
      if (weight === undefined) throw new GradmixError("data", `${where}: the tensor "${name}" is missing`);
      return weight;
    },
  };
}

/**
 * The files that contain the weights: one file, the shards of an index, or all .safetensors files, whichever is found first. Throws `data` for a shard that
 * is missing.
 */
function weightFiles(
  files: ReadonlyMap<string, Uint8Array | ByteSource>,
): readonly (readonly [string, Uint8Array | ByteSource])[] {
  const whole = files.get(WHOLE);
  if (whole !== undefined) return [[WHOLE, whole]];
  const index = files.get(INDEX);
  if (index !== undefined) return indexedShards(files, index);
  const found = [...files].filter(([file]) => file.endsWith(".safetensors"));
  const gone = found.map(([file]) => missingShard(file, files)).find((file) => file !== null);
  if (gone !== undefined) throw new GradmixError("data", `${gone}: this shard of the weights is missing`);
  if (found.length > 0) return found;
  const pickled = [...files.keys()].find((file) => /^pytorch_model.*\.bin(?:\.index\.json)?$/.test(file));
  throw new GradmixError(
    "data",
    pickled === undefined
      ? `${WHOLE}: the file is missing`
      : `${pickled}: only .safetensors can be read; with Python, transformers.AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) writes them`,
  );
}

/** For a name like "model-00001-of-00003.safetensors", the first of its shards that is missing, or null. */
function missingShard(file: string, files: ReadonlyMap<string, unknown>): string | null {
  const match = /^(.*-)(\d+)-of-(\d+)\.safetensors$/.exec(file);
  if (match === null) return null;
  const [, before, number = "", of] = match;
  // The loop stops at the first gap, so a count that is far too large costs no time.
  for (let i = 1; i <= Number(of); i++) {
    const shard = `${before}${String(i).padStart(number.length, "0")}-of-${of}.safetensors`;
    if (!files.has(shard)) return shard;
  }
  return null;
}

/** The shards that an index names. Throws `data` for a shard that is missing or lacks a tensor of the index. */
function indexedShards(
  files: ReadonlyMap<string, Uint8Array | ByteSource>,
  index: Uint8Array | ByteSource,
): readonly (readonly [string, Uint8Array | ByteSource])[] {
  const source = { source: INDEX, code: "data" } as const;
  const indexError = (what: string): GradmixError => faultOf(source)("", what);
  const { weight_map: shards } = parse(shardIndex, bytesOf(index, INDEX), source);
  const tensors = new Map<string, string[]>();
  for (const [tensor, shard] of shards) {
    const list = tensors.get(shard);
    if (list === undefined) tensors.set(shard, [tensor]);
    else list.push(tensor);
  }
  return [...tensors].map(([shard, names]) => {
    const bytes = files.get(shard);
    if (bytes === undefined)
      throw indexError(
        `the shard ${shard} is missing; it holds ${names.length} tensors, "${names[0]}" among them`,
      );
    const { shapes } = openSafetensors(bytes, shard);
    const gone = names.find((name) => !shapes.has(name));
    if (gone !== undefined) throw indexError(`the shard ${shard} does not hold the tensor "${gone}"`);
    return [shard, bytes];
  });
}

/** Schema of an index of shards: the name of the file that contains each tensor. */
export const shardIndex: Schema<{ weight_map: ReadonlyMap<string, string> }> = object<{
  weight_map: ReadonlyMap<string, string>;
}>({ weight_map: map(string) });

/** All bytes of a file. */
export function bytesOf(file: Uint8Array | ByteSource, name: string): Uint8Array {
  if (file instanceof Uint8Array) return file;
  checkSource(name, file);
  const bytes = new Uint8Array(file.size);
  file.read(0, bytes);
  return bytes;
}
