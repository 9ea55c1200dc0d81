/** Saves and restores the state of an optimizer as plain data, for checkpoints. */
import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";
import { count, object, read, type Schema, string } from "../schema.ts";
import { checkOptimizer, type Optimizer } from "./optimizer.ts";
import { arraysOf, checkpointFault, savedParts, checkpointError } from "./saved-arrays.ts";
import { float32Of } from "../tensor/tensor.ts";

/** The state of an optimizer as plain data; `saveOptimizer` returns it. */
export interface SavedOptimizer {
  /** The parts of the state that are not arrays. */
  readonly json: {
    /** Name of the optimizer. */
    readonly name: string;
    /** Number of steps taken. */
    readonly steps: number;
  };
  /** The arenas of the state by name, such as the moments of Adam; each has the layout of the parameters' arena. */
  readonly arrays: Readonly<Record<string, Float32Array>>;
}

/** Schema of the JSON part. */
export const savedOptimizer: Schema<SavedOptimizer["json"]> = object<SavedOptimizer["json"]>({
  name: string,
  steps: count,
});

/**
 * Copies the state of an optimizer. `restoreOptimizer` restores it exactly, so that training continues bit for bit. Do not take a step before the promise
 * resolves. Throws `numeric` if the state is not finite.
 */
export async function saveOptimizer(optimizer: Optimizer): Promise<SavedOptimizer> {
  checkOptimizer("saveOptimizer: optimizer", optimizer);
  const json = { name: optimizer.name, steps: optimizer.steps };
  const arrays = await Promise.all(
    Object.entries(optimizer.state).map(async ([name, { arena }]) => [name, await float32Of(arena)] as const),
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
 * Restores a saved state into an optimizer of the same kind, over parameters of the same layout. Throws `checkpoint` for the state of another optimizer, and for
 * arrays that are missing, unknown, of a different size or type, or not finite, and `config` for an optimizer whose `steps` cannot be set; the optimizer is then
 * unchanged.
 */
export function restoreOptimizer(optimizer: Optimizer, saved: SavedOptimizer): void {
  checkOptimizer("restoreOptimizer: optimizer", optimizer);
  const { json, arrays: given } = read(savedParts, saved, checkpointFault);
  const { name, steps } = read(savedOptimizer, json, checkpointFault);
  if (name !== optimizer.name)
    throw checkpointError(`the state is of the optimizer ${show(name)}, not of "${optimizer.name}"`);
  const state = Object.entries(optimizer.state);
  const more = Object.keys(given).find((name) => !Object.hasOwn(optimizer.state, name));
  if (more !== undefined) throw checkpointError(`${optimizer.name} has no ${show(more)} in its state`);
  const arrays = arraysOf(given, new Map(state.map(([name, { arena }]) => [name, arena])));
  // Throws if an arena was disposed.
  for (const [, { arena }] of state) void arena.buffer;
  setSteps("restoreOptimizer", optimizer, steps);
  for (const [name, { arena }] of state) arena.write(arrays.get(name) ?? []);
}

/** Sets the number of steps taken. Throws `config` for an optimizer of the user's whose `steps` cannot be set. */
export function setSteps(where: string, optimizer: Optimizer, steps: number): void {
  let cause: unknown;
  try {
    optimizer.steps = steps;
  } catch (error) {
    cause = error;
  }
  if (optimizer.steps !== steps)
    throw new GradmixError(
      "config",
      `${where}: the steps of the optimizer ${show(optimizer.name)} cannot be set to ${steps}; give it a property steps that can be written`,
      { cause },
    );
}
