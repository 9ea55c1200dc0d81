/** Writes a trainer's checkpoint, and reads one back. The whole checkpoint is checked before the trainer changes. */
import { GradmixError } from "../errors.ts";
import type { Examples } from "../nn/model.ts";
import { arraysOf, countOf, recordOf, wrongCheckpoint } from "../nn/saved-arrays.ts";
import { show } from "../options.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { fingerprint } from "./bases.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { checkGathered, savedGathered } from "./gathered.ts";
import { readReferenceLosses } from "./held-out.ts";
import { firstScales, isScale, type LossScaleOptions, restoreLossScale, type Scales } from "./loss-scale.ts";
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

/** Saves everything that `restore` needs. Throws `numeric` if a parameter is not finite. */
export async function save<B extends Examples>(training: Training<B>): Promise<Checkpoint> {
  const { options, drawing, device, state } = training;
  const arrays: Record<string, Float32Array> = {};
  for (const [name, arena] of arenasOf(training)) {
    const values = Float32Array.from(await arena.data());
    // The last update may have overflowed although loss and gradient had not; such a state must not replace a valid one.
    if (name === "value" && !values.every(Number.isFinite))
      throw new GradmixError(
        "numeric",
        `the parameters are no longer finite after step ${state.mixer.steps}; lower the learning rate`,
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
    },
    arrays,
  };
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
  const arrays = arraysOf(recordOf(checkpoint, "arrays"), arenas);
  const { sampler, alignmentSampler, targetSampler } = recordOf(checkpoint, "json");
  drawing.restore({ sampler, alignmentSampler, targetSampler });
  writing();
  for (const [name, values] of arrays) arenas.get(name)?.write(values);
  device.optimizer.steps = saved.optimizerSteps;
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
  const json = recordOf(checkpoint, "json");
  const own = restoreMixer(mixer, json["mixer"]);
  if (json["bases"] !== (bases === undefined ? undefined : fingerprint(bases)))
    throw wrongCheckpoint("it was made with other bases, or with none");
  // Checkpoints from before there were others are of adamw.
  const { optimizer = "adamw" } = json;
  if (optimizer !== device.optimizer.name)
    throw wrongCheckpoint(
      `it was made with the optimizer ${show(optimizer)}, not "${device.optimizer.name}"`,
    );
  const optimizerSteps = countOf(json, "optimizerSteps");
  // Fewer by the steps that overflowed.
  if (optimizerSteps > own.steps)
    throw wrongCheckpoint(
      `optimizerSteps is ${optimizerSteps}, more than the ${own.steps} steps of the mixer`,
    );
  const { loss = null, directionScale = 1 } = json;
  if (loss !== null && !(typeof loss === "number" && Number.isFinite(loss)))
    throw wrongCheckpoint(`loss is ${show(loss)}`);
  // The direction may be scaled when scaling is off by now.
  if (!isScale(directionScale)) throw wrongCheckpoint(`directionScale is ${show(directionScale)}`);
  const state: TrainerState = {
    mixer: own,
    tokens: countOf(json, "tokens"),
    loss,
    gathered: checkGathered(json["gathered"], domains.length),
    scales: scalesOf(json["lossScale"], scaling),
    directionScale,
    reference: readReferenceLosses(training, json["heldOut"], own.steps),
  };
  return { optimizerSteps, state };
}

function scalesOf(json: unknown, scaling: Required<LossScaleOptions> | null): Scales | null {
  if (scaling === null || json === undefined) return firstScales(scaling);
  const { step, alignment } = Object(json) as Record<string, unknown>;
  return { step: restoreLossScale(step, scaling), alignment: restoreLossScale(alignment, scaling) };
}
