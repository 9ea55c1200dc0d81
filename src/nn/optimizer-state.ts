/** An optimizer's state as plain data: what a checkpoint holds of it. */
import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";
import { count, object, read, type Schema, string } from "../schema.ts";
import type { Optimizer } from "./optimizer.ts";
import { arraysOf, checkpointFault, savedParts, checkpointError } from "./saved-arrays.ts";

/** State of an optimizer as plain data. */
export interface SavedOptimizer {
  /** What is not an array. */
  readonly json: {
    /** Name of the optimizer. */
    readonly name: string;
    /** Steps taken. */
    readonly steps: number;
  };
  /** Each arena of the state, in the layout of the parameters. */
  readonly arrays: Readonly<Record<string, Float32Array>>;
}

export const savedOptimizer: Schema<SavedOptimizer["json"]> = object<SavedOptimizer["json"]>({
  name: string,
  steps: count,
});

/** Everything that `restoreOptimizer` needs to go on to the same bits. Take no step meanwhile. Throws `numeric` when the state is not finite. */
export async function saveOptimizer(optimizer: Optimizer): Promise<SavedOptimizer> {
  const json = { name: optimizer.name, steps: optimizer.steps };
  const arrays = await Promise.all(
    Object.entries(optimizer.state).map(
      async ([name, { arena }]) => [name, Float32Array.from(await arena.data())] as const,
    ),
  );
  for (const [name, values] of arrays)
    if (!values.every(Number.isFinite))
      throw new GradmixError(
        "numeric",
        `saveOptimizer: "${name}" of ${json.name} is not finite after step ${json.steps}; lower the learning rate`,
      );
  return { json, arrays: Object.fromEntries(arrays) };
}

/**
 * Puts a saved state into an optimizer of the same kind, over parameters of the same layout. Throws `checkpoint`, naming what does not fit: another optimizer's
 * state, arrays that are missing, superfluous, of another size, of another type or not finite. Then nothing was changed.
 */
export function restoreOptimizer(optimizer: Optimizer, saved: SavedOptimizer): void {
  const { json, arrays: given } = read(savedParts, saved, checkpointFault);
  const { name, steps } = read(savedOptimizer, json, checkpointFault);
  if (name !== optimizer.name)
    throw checkpointError(`the state is of the optimizer ${show(name)}, not of "${optimizer.name}"`);
  const state = Object.entries(optimizer.state);
  const more = Object.keys(given).find((name) => !Object.hasOwn(optimizer.state, name));
  if (more !== undefined) throw checkpointError(`${optimizer.name} has no ${show(more)} in its state`);
  const arrays = arraysOf(given, new Map(state.map(([name, { arena }]) => [name, arena])));
  for (const [name, { arena }] of state) arena.write(arrays.get(name) ?? []);
  optimizer.steps = steps;
}
