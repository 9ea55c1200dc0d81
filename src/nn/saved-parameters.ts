/** Stores the parameters of any model in the safetensors format, under their own names. */
import { GradmixError } from "../errors.ts";
import { formatShape, sameShape } from "../tensor/shape.ts";
import { checkNamed, type Parameters } from "./parameters.ts";
import { type ByteSource, encodeSafetensors, openSafetensors, type StoredTensor } from "./safetensors.ts";
import { float32Of } from "../tensor/tensor.ts";

/** The part of `Parameters` that saving and loading need. */
export type NamedParameters = Pick<Parameters, "byName" | "value">;

/**
 * Saves all parameters by name as one file of f32 tensors, which any reader of safetensors can load (in PyTorch, `safetensors.torch.load_file`). Do
 * not take a step before it resolves. Throws `numeric`, naming the parameter, if a value is not finite.
 */
export async function saveParameters(parameters: NamedParameters): Promise<Uint8Array> {
  checkNamed("saveParameters: parameters", parameters);
  const { byName, value } = parameters;
  // A single read of the arena, so that all values are from the same moment.
  const all = await float32Of(value);
  const stored = new Map<string, StoredTensor>();
  for (const [name, { shape, size, offset }] of byName) {
    const data = all.subarray(offset - value.offset, offset - value.offset + size);
    const bad = notFinite(data);
    if (bad !== null)
      throw new GradmixError("numeric", `saveParameters: "${name}" has ${bad}; lower the learning rate`);
    stored.set(name, { shape, data });
  }
  return encodeSafetensors(stored);
}

/**
 * Loads the tensors of a safetensors file (F32, F16 or BF16) into the parameters with the same names. `file` is its name in messages. Throws `data`,
 * naming file and tensor, for a tensor that is missing, has no parameter, has another shape or type, or contains a value that is not finite, and for
 * a broken file. Then nothing has changed.
 */
export function loadParameters(
  parameters: NamedParameters,
  source: Uint8Array | ByteSource,
  file = "the file",
): void {
  checkNamed("loadParameters: parameters", parameters);
  const { byName, value } = parameters;
  const invalid = (what: string): GradmixError => new GradmixError("data", `${file}: ${what}`);
  const { shapes, read } = openSafetensors(source, file);
  const more = [...shapes.keys()].find((name) => !byName.has(name));
  if (more !== undefined) throw invalid(`the model has no parameter for the tensor "${more}"`);
  for (const [name, parameter] of byName) {
    const shape = shapes.get(name);
    if (shape === undefined) throw invalid(`the tensor "${name}" is missing`);
    if (!sameShape(shape, parameter.shape))
      throw invalid(
        `"${name}" has the shape ${formatShape(shape)}; the model's is ${formatShape(parameter.shape)}`,
      );
  }
  // The padding between parameters is zero.
  const all = new Float32Array(value.size);
  for (const [name, { offset }] of byName) {
    const { data } = read(name);
    const bad = notFinite(data);
    if (bad !== null) throw invalid(`"${name}" has ${bad}`);
    all.set(data, offset - value.offset);
  }
  value.write(all);
}

/** "NaN at 3", or null. */
export function notFinite(data: Float32Array): string | null {
  const at = data.findIndex((x) => !Number.isFinite(x));
  return at < 0 ? null : `${data[at]} at ${at}`;
}
