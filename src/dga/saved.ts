/** Writes a trainer's checkpoint, and reads one back. The whole checkpoint is checked before the trainer changes. */
import { GradmixError } from "../errors.ts";
import type { Examples } from "../nn/model.ts";
import { setSteps } from "../nn/optimizer-state.ts";
import { arraysOf, checkpointFault, savedParts, checkpointError } from "../nn/saved-arrays.ts";
import {
  anything,
  count,
  list,
  number,
  object,
  optional,
  orNull,
  read,
  type Schema,
  string,
  withDefault,
} from "../schema.ts";
import { float32Of, type Tensor } from "../tensor/tensor.ts";
import { fingerprint } from "./bases.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { checkGathered, savedGathered } from "./gathered.ts";
import { readReferenceLosses } from "./held-out.ts";
import {
  firstScales,
  lossScale,
  type LossScaleOptions,
  type Scales,
  scaleSchema,
  withinBounds,
} from "./loss-scale.ts";
import { restoreMixer } from "./mixer.ts";
import { directionOf, type TrainerState, type Training } from "./training.ts";

/** The saved arenas of the device, by their names in a checkpoint. */
function arenasOf<B extends Examples>(training: Training<B>): Map<string, Tensor> {
  const { options, device, gathers } = training;
  return new Map([
    ["value", options.model.parameters.value],
    ...Object.entries(device.optimizer.state).map(([name, { arena }]): [string, Tensor] => [name, arena]),
    ...(gathers ? [["direction", directionOf(training).arena] as const] : []),
  ]);
}

/** Saves everything that `restore` needs. Throws `numeric` if a parameter, or a number of the optimizer, is not finite: `restore` would refuse it. */
export async function save<B extends Examples>(training: Training<B>): Promise<Checkpoint> {
  const { options, drawing, device, state } = training;
  const arrays: Record<string, Float32Array> = {};
  for (const [name, arena] of arenasOf(training)) {
    const values = await float32Of(arena);
    // The last update may have overflowed although loss and gradient had not; such a state must not replace a valid one.
    if (!values.every(Number.isFinite))
      throw new GradmixError(
        "numeric",
        `${name === "value" ? "the parameters" : `the numbers of "${name}"`} are no longer finite after step ${state.mixer.steps}; lower the learning rate`,
      );
    arrays[name] = values;
  }
  const { mixer, tokens, loss, gathered, scales, directionScale, reference } = state;
  return {
    json: {
      mixer,
      ...drawing.state(),
      optimizer: device.optimizer.name,
      optimizerSteps: device.optimizer.steps,
      tokens,
      loss,
      gathered: savedGathered(gathered),
      ...(scales === null ? {} : { lossScale: { ...scales } }),
      ...(directionScale === 1 ? {} : { directionScale }),
      ...(reference === null ? {} : { heldOut: reference }),
      ...(options.bases === undefined ? {} : { bases: fingerprint(options.bases) }),
      ...alignedNames(training),
    },
    arrays,
  };
}

/** The names of the parameters that the training steps align; nothing if these are all of them, as in older checkpoints, or if they align none. */
function alignedNames<B extends Examples>({ aligned, options }: Training<B>): { aligned?: string[] } {
  const { byName } = options.model.parameters;
  if (aligned.size === 0 || aligned.size === byName.size) return {};
  return { aligned: [...byName].flatMap(([name, parameter]) => (aligned.has(parameter) ? [name] : [])) };
}

/**
 * Continues from a checkpoint. Throws `checkpoint`, naming what does not fit; then nothing has changed. `writing` is called once the whole checkpoint
 * has been checked: if the device fails after that, the trainer has no valid state.
 */
export function restore<B extends Examples>(
  training: Training<B>,
  checkpoint: Checkpoint,
  writing: () => void,
): void {
  const { drawing, device, state } = training;
  const arenas = arenasOf(training);
  const saved = readSaved(training, checkpoint);
  const { json, arrays: given } = read(savedParts, checkpoint, checkpointFault);
  const arrays = arraysOf(given, arenas);
  const { sampler, alignmentSampler, targetSampler } = json;
  const { steps } = device.optimizer;
  setSteps("restore", device.optimizer, saved.optimizerSteps);
  try {
    drawing.restore({ sampler, alignmentSampler, targetSampler });
  } catch (error) {
    device.optimizer.steps = steps;
    throw error;
  }
  writing();
  for (const [name, values] of arrays) arenas.get(name)?.write(values);
  Object.assign(state, saved.state);
  training.mixture = null;
}

/** Reads everything but the arrays and the samplers, which check their states themselves. */
function readSaved<B extends Examples>(
  training: Training<B>,
  checkpoint: Checkpoint,
): { readonly optimizerSteps: number; readonly state: TrainerState } {
  const { options, device, scaling } = training;
  const { mixer, bases, domains } = options;
  const { json } = read(savedParts, checkpoint, checkpointFault);
  const own = restoreMixer(mixer, json["mixer"]);
  if (json["bases"] !== (bases === undefined ? undefined : fingerprint(bases)))
    throw checkpointError(
      "it was made with other bases, or with none; give the trainer the bases of the one that made it",
    );
  const saved = read(savedState, json, checkpointFault);
  checkAligned(training, saved.aligned ?? null);
  const { optimizer, optimizerSteps, tokens, loss, directionScale } = saved;
  if (optimizer !== device.optimizer.name)
    throw checkpointError(`it was made with the optimizer "${optimizer}", not "${device.optimizer.name}"`);
  // It may be less than the steps of the mixer because of overflows.
  if (optimizerSteps > own.steps)
    throw checkpointError(
      `optimizerSteps is ${optimizerSteps}, more than the ${own.steps} steps of the mixer`,
    );
  const state: TrainerState = {
    mixer: own,
    tokens,
    loss,
    gathered: checkGathered(saved.gathered, domains.length),
    scales: scalesOf(saved.lossScale, scaling),
    directionScale,
    reference: readReferenceLosses(training, saved.heldOut, own.steps),
  };
  return { optimizerSteps, state };
}

/** The running means of a rule, and what the steps gathered, are of the parameters that were aligned. Throws `checkpoint` unless those are aligned now. */
function checkAligned<B extends Examples>(training: Training<B>, saved: readonly string[] | null): void {
  const { aligned: own = null } = alignedNames(training);
  if (!training.gathers || (saved ?? []).join("\n") === (own ?? []).join("\n")) return;
  const described = (names: readonly string[] | null): string =>
    names === null ? "all parameters" : `${names.length} of the parameters`;
  throw checkpointError(
    `it was made while aligning ${described(saved)}, and this trainer aligns ${described(own)}; give the alignment.blockShare, or the alignment.parameters, of that trainer${saved === null ? " (blockShare 1)" : ""}`,
  );
}

interface SavedState {
  readonly optimizer: string;
  readonly optimizerSteps: number;
  readonly tokens: number;
  readonly loss: number | null;
  readonly gathered: unknown;
  readonly lossScale: Scales | null;
  /** The direction may still be scaled after loss scaling was switched off. */
  readonly directionScale: number;
  readonly heldOut?: unknown;
  /** The aligned parameters, if these are not all. */
  readonly aligned?: readonly string[];
}

/** Schema of the saved state of a trainer, without the parts that are checked by the modules to which they belong. */
export const savedState: Schema<SavedState> = object<SavedState>({
  // Old checkpoints do not name the optimizer; it was adamw.
  optimizer: withDefault(string, "adamw"),
  optimizerSteps: count,
  tokens: count,
  loss: orNull(number),
  gathered: anything,
  lossScale: withDefault(object<Scales>({ step: lossScale, alignment: lossScale }), null),
  directionScale: withDefault(scaleSchema, 1),
  heldOut: optional(anything),
  aligned: optional(list(string)),
});

function scalesOf(saved: Scales | null, scaling: Required<LossScaleOptions> | null): Scales | null {
  if (scaling === null || saved === null) return firstScales(scaling);
  return { step: withinBounds(saved.step, scaling), alignment: withinBounds(saved.alignment, scaling) };
}
