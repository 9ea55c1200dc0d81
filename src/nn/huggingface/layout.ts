/** The names and the layout in which `transformers` stores the parameters of a model. */
import { type Architecture, architectureOf, type Layer, layersOf, pathOf } from "../architecture.ts";
import type { ResolvedGPTConfig } from "../gpt.ts";
import { type Format, formatOf } from "./config.ts";

/** How a parameter is stored: as named parts, each with some of its rows; transposed for GPT-2's Conv1D. */
export interface Slot {
  readonly parameter: string;
  readonly parts: readonly { readonly name: string; readonly rows: number }[];
  readonly transposed: boolean;
}

const HEAD = "lm_head";

/** The stored names of a layer, without ".weight" and ".bias". */
function storedNames(
  { name, block }: Pick<Layer, "name" | "block">,
  { base, blocks, names }: Format,
): readonly string[] {
  if (name === "head") return [HEAD];
  const place = typeof block === "number" ? `${base}${blocks}.${block}.` : base;
  return (names[name] ?? []).map((own) => place + own);
}

/** The architecture of a model and the format that it is stored in. */
export interface Storage {
  readonly architecture: Architecture;
  readonly format: Format;
}

/** The architecture of a configuration, with its format. */
export const storageOf = (config: ResolvedGPTConfig): Storage => ({
  architecture: architectureOf(config),
  format: formatOf(config.preset),
});

/** How each parameter of a model is stored. */
export function slots({ architecture, format }: Storage): Slot[] {
  const { transposed } = format;
  return layersOf(architecture).flatMap((layer) => {
    const names = storedNames(layer, format);
    // If a layer has one stored name, its parts are stored as one tensor.
    const rows = names.length === 1 ? [layer.rows.reduce((a, b) => a + b, 0)] : layer.rows;
    const slot = (kind: "weight" | "bias"): Slot => ({
      parameter: `${pathOf(layer)}.${kind}`,
      parts: names.map((name, i) => ({ name: `${name}.${kind}`, rows: rows[i]! })),
      transposed: transposed && kind === "weight" && layer.kind === "linear" && layer.name !== "head",
    });
    return layer.bias ? [slot("weight"), slot("bias")] : [slot("weight")];
  });
}

/** The transpose of a matrix of rows × cols. */
export function transpose(data: Float32Array, rows: number, cols: number): Float32Array {
  const out = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = data[r * cols + c]!;
  return out;
}

/** A name without the prefix of the base model, which checkpoints of the base model alone do not have. */
export const baseName = (name: string): string => name.replace(/^(?:model|transformer)\./, "");

/** The tensor to read for a name if the head is tied: the embedding for the head, and the same name for all others. */
export function embeddingFor(name: string, format: Format): string {
  if (name !== `${HEAD}.weight`) return name;
  const [embedding] = storedNames({ name: "embedding", block: null }, format);
  return `${embedding}.weight`;
}
