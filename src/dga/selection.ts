/**
 * Which parameters are aligned with the target: all of them, the last blocks, or those that a caller names. A backward pass ends below the lowest of them
 * (`backwardShare`). `passes.ts` makes the passes over them.
 */
import { GradmixError } from "../errors.ts";
import type { Model } from "../nn/model.ts";
import type { ParameterSpec } from "../nn/parameters.ts";
import { objectWith } from "../options.ts";
import { sizeOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** The part of a model that is needed where its examples do not matter. */
export type Named = Pick<Model<never>, "parameters">;

/** Selects parameters by name. */
export type Selection = (name: string) => boolean;

/**
 * A selection for `parameters`: the last `count` blocks of a model and the parameters after them (for a GPT, the final norm and the head). With 0 it
 * selects only the parameters after the blocks. Blocks are those of the parameters' specs (`ParameterSpec.block`). R&B aligns only the last layers;
 * the backward pass then ends there. Throws `config` if the model has fewer blocks.
 */
export function lastBlocks(model: Named, count: number): Selection {
  objectWith("a model, such as createGPT makes", "parameters")("lastBlocks: model", model);
  objectWith("parameters, such as createParameters makes", "specs")(
    "lastBlocks: model: parameters",
    model.parameters,
  );
  const { specs } = model.parameters;
  const blocks = blockCount(specs);
  if (!Number.isInteger(count) || count < 0 || count > blocks)
    throw new GradmixError("config", `lastBlocks: ${count} is not a number of blocks from 0 to ${blocks}`);
  return inLastBlocks(specs, count);
}

/** What `lastBlocks` returns for these specs. */
function inLastBlocks(specs: readonly ParameterSpec[], count: number): Selection {
  const first = blockCount(specs) - count;
  const last = new Set(specs.flatMap((spec) => (isFrom(spec, first) ? [spec.name] : [])));
  return (name) => last.has(name);
}

/** Number of blocks that the specs name. */
export function blockCount(specs: readonly ParameterSpec[]): number {
  return specs.reduce((most, { block }) => (typeof block === "number" ? Math.max(most, block + 1) : most), 0);
}

/**
 * Selects, by name, the last blocks that make up a share of all blocks, rounded up, and the parameters after them. Returns null for all parameters: with
 * a share of 1, in a model without blocks, and if there would be no matrix among the selected parameters (a share of 0, and a head that is tied to the
 * embedding).
 */
export function inBlockShare(specs: readonly ParameterSpec[], share: number): Selection | null {
  const blocks = blockCount(specs);
  if (share === 1 || blocks === 0) return null;
  const selected = inLastBlocks(specs, Math.ceil(share * blocks - ROUNDING));
  return specs.some(({ name, shape }) => shape.length > 1 && selected(name)) ? selected : null;
}

/** Less than any sensible share of a block: so much may products of a share and a number of blocks be above the exact one. */
const ROUNDING = 1e-9;

/** Whether a parameter belongs to the given block or comes after it. */
function isFrom({ block }: ParameterSpec, first: number): boolean {
  return block === "after" || (block !== undefined && block >= first);
}

/**
 * The part of a backward pass through all blocks that remains when it ends below the lowest selected parameter, counted by the sizes of the parameters it
 * goes through.
 */
export function backwardShare(specs: readonly ParameterSpec[], selected: Selection = () => true): number {
  const chosen = specs.filter(({ name }) => selected(name));
  if (chosen.length === 0 || chosen.some(({ block }) => block === undefined)) return 1;
  const first = chosen.reduce(
    (least, { block }) => (typeof block === "number" ? Math.min(least, block) : least),
    Infinity,
  );
  const size = (from: number): number =>
    specs.reduce((sum, spec) => (isFrom(spec, from) ? sum + sizeOf(spec.shape) : sum), 0);
  return size(first) / size(0);
}

/** The tensors that `parameters` selects; all without it. Throws `config` if it selects none. */
export function selectedParameters(
  model: Named,
  { parameters }: { readonly parameters?: Selection | undefined } = {},
): readonly Tensor[] {
  if (parameters === undefined) return model.parameters.list;
  const chosen = [...model.parameters.byName].flatMap(([name, p]) => (parameters(name) ? [p] : []));
  if (chosen.length === 0)
    throw new GradmixError("config", "parameters: the selection contains none of the model's parameters");
  return chosen;
}
