/** State: a trainer's checkpoint, written, and read back and checked as a whole before anything of a trainer changes. */
import { GradmixError } from "../errors.ts";
import type { Examples } from "../nn/model.ts";
import { show } from "../options.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { fingerprint } from "./bases.ts";
import type { Checkpoint } from "./config.ts";
import { checkGathered, savedGathered } from "./gathered.ts";
import { firstScales, isScale, type LossScaleOptions, restoreLossScale, type Scales } from "./loss-scale.ts";
import { restoreMixer } from "./mixer.ts";
import type { TrainerState, Training } from "./training.ts";

/** What is saved of the device, by its name in a checkpoint. */
function arenasOf<B extends Examples>({ options, device, gathers }: Training<B>): Map<string, Tensor> {
  const { optimizer, direction } = device;
  return new Map([
    ["value", options.model.parameters.value],
    ...Object.entries(optimizer.state).map(([name, { arena }]): [string, Tensor] => [name, arena]),
    ...(gathers && direction !== null ? [["direction", direction.arena] as const] : []),
  ]);
}

/** Everything that `restore` needs. Throws `numeric` when a parameter is not finite. */
export async function save<B extends Examples>(training: Training<B>): Promise<Checkpoint> {
  const { options, drawing, device, state } = training;
  const arrays: Record<string, Float32Array> = {};
  for (const [name, arena] of arenasOf(training)) {
    const values = Float32Array.from(await arena.data());
    // The last update may have overflowed where loss and gradient had not; such a state must not replace a good one.
    if (name === "value" && !values.every(Number.isFinite))
      throw new GradmixError(
        "numeric",
        `the parameters are no longer finite after step ${state.mixer.steps}; lower the learning rate`,
      );
    arrays[name] = values;
  }
  const { mixer, tokens, loss, gathered, scales, directionScale } = state;
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
      ...(options.bases === undefined ? {} : { bases: fingerprint(options.bases) }),
    },
    arrays,
  };
}

/**
 * Goes on from a checkpoint. Throws `checkpoint`, naming what does not fit; then nothing was changed. `writing` is called once nothing can be wrong with the
 * checkpoint any more: a device that fails from then on leaves no state to go on from.
 */
export function restore<B extends Examples>(
  training: Training<B>,
  checkpoint: Checkpoint,
  writing: () => void,
): void {
  const { drawing, device, state } = training;
  const arenas = arenasOf(training);
  const saved = readSaved(training, checkpoint);
  const arrays = arraysOf(record(checkpoint, "arrays"), arenas);
  const { sampler, alignmentSampler, targetSampler } = record(checkpoint, "json");
  drawing.restore({ sampler, alignmentSampler, targetSampler });
  writing();
  for (const [name, arena] of arenas) arena.write(arrays.get(name) ?? []);
  device.optimizer.steps = saved.optimizerSteps;
  Object.assign(state, saved.state);
  training.mixture = null;
}

/** All but the arrays and the samplers, which check their states themselves. */
function readSaved<B extends Examples>(
  { options, device, scaling }: Training<B>,
  checkpoint: Checkpoint,
): { readonly optimizerSteps: number; readonly state: TrainerState } {
  const { mixer, bases, domains } = options;
  const json = record(checkpoint, "json");
  const own = restoreMixer(mixer, json["mixer"]);
  if (json["bases"] !== (bases === undefined ? undefined : fingerprint(bases)))
    throw wrong("it was made with other bases, or with none");
  // Checkpoints from before there were others are of adamw.
  const { optimizer = "adamw" } = json;
  if (optimizer !== device.optimizer.name)
    throw wrong(`it was made with the optimizer ${show(optimizer)}, not "${device.optimizer.name}"`);
  const optimizerSteps = count(json, "optimizerSteps");
  // Fewer by the steps that overflowed.
  if (optimizerSteps > own.steps)
    throw wrong(`optimizerSteps is ${optimizerSteps}, more than the ${own.steps} steps of the mixer`);
  const { loss = null, directionScale = 1 } = json;
  if (loss !== null && !(typeof loss === "number" && Number.isFinite(loss)))
    throw wrong(`loss is ${show(loss)}`);
  // The direction may be scaled when scaling is off by now.
  if (!isScale(directionScale)) throw wrong(`directionScale is ${show(directionScale)}`);
  const state: TrainerState = {
    mixer: own,
    tokens: count(json, "tokens"),
    loss,
    gathered: checkGathered(json["gathered"], domains.length),
    scales: scalesOf(json["lossScale"], scaling),
    directionScale,
  };
  return { optimizerSteps, state };
}

function wrong(what: string): GradmixError {
  return new GradmixError("checkpoint", `checkpoint: ${what}`);
}

function record(checkpoint: Checkpoint, name: "json" | "arrays"): Record<string, unknown> {
  const given: unknown = checkpoint;
  const part: unknown = typeof given === "object" && given !== null ? Reflect.get(given, name) : undefined;
  if (typeof part !== "object" || part === null) throw wrong(`${name} is ${show(part)}, not an object`);
  return part as Record<string, unknown>;
}

function count(json: Readonly<Record<string, unknown>>, name: string): number {
  const value = json[name];
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0)
    throw wrong(`${name} is ${show(value)}`);
  return value;
}

function scalesOf(json: unknown, scaling: Required<LossScaleOptions> | null): Scales | null {
  if (scaling === null || json === undefined) return firstScales(scaling);
  const { step, alignment } = Object(json) as Record<string, unknown>;
  return { step: restoreLossScale(step, scaling), alignment: restoreLossScale(alignment, scaling) };
}

/** The arrays that are wanted, all of them finite f32 and of their sizes. */
function arraysOf(
  given: Readonly<Record<string, unknown>>,
  arenas: ReadonlyMap<string, Tensor>,
): Map<string, Float32Array> {
  const out = new Map<string, Float32Array>();
  for (const [name, { size }] of arenas) {
    const values = given[name];
    if (values === undefined) throw wrong(`it has no ${name}, which takes ${size} values`);
    if (!(values instanceof Float32Array)) throw wrong(`${name} is ${kindOf(values)}, not a Float32Array`);
    if (values.length !== size) throw wrong(`${name} has ${values.length} values, the model has ${size}`);
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) throw wrong(`${name} has ${values[bad]} at ${bad}`);
    out.set(name, values);
  }
  return out;
}

function kindOf(value: unknown): string {
  return ArrayBuffer.isView(value) ? Object.prototype.toString.call(value).slice(8, -1) : show(value);
}
