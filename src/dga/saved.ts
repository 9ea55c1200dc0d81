/** A trainer's checkpoint, read back and checked as a whole before anything of a trainer changes. */
import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";
import { type Bases, fingerprint } from "./bases.ts";
import type { Checkpoint } from "./config.ts";
import { checkGathered, type Gathered } from "./gathered.ts";
import { firstScales, isScale, type LossScaleOptions, restoreLossScale, type Scales } from "./loss-scale.ts";
import { type Mixer, type MixerState, restoreMixer } from "./mixer.ts";

/** What the checkpoint has to fit. */
export interface Expected {
  readonly mixer: Mixer;
  readonly bases: Bases | undefined;
  /** How many. */
  readonly domains: number;
  readonly scaling: Required<LossScaleOptions> | null;
  /** Numbers in each array. */
  readonly sizes: ReadonlyMap<string, number>;
}

export interface Saved {
  /** With the samplers' states, which they check themselves. */
  readonly json: Readonly<Record<string, unknown>>;
  readonly mixer: MixerState;
  readonly optimizerSteps: number;
  readonly tokens: number;
  readonly loss: number | null;
  readonly gathered: Gathered;
  readonly scales: Scales | null;
  readonly directionScale: number;
  readonly arrays: ReadonlyMap<string, Float32Array>;
}

/** Throws `checkpoint`, naming what does not fit. */
export function readSaved(
  checkpoint: Checkpoint,
  { mixer, bases, domains, scaling, sizes }: Expected,
): Saved {
  const json = record(checkpoint, "json");
  const own = restoreMixer(mixer, json["mixer"]);
  if (json["bases"] !== (bases === undefined ? undefined : fingerprint(bases)))
    throw wrong("it was made with other bases, or with none");
  const optimizerSteps = count(json, "optimizerSteps");
  // Fewer by the steps that overflowed.
  if (optimizerSteps > own.steps)
    throw wrong(`optimizerSteps is ${optimizerSteps}, more than the ${own.steps} steps of the mixer`);
  const { loss = null, directionScale = 1 } = json;
  if (loss !== null && !(typeof loss === "number" && Number.isFinite(loss)))
    throw wrong(`loss is ${show(loss)}`);
  // The direction may be scaled when scaling is off by now.
  if (!isScale(directionScale)) throw wrong(`directionScale is ${show(directionScale)}`);
  return {
    json,
    mixer: own,
    optimizerSteps,
    tokens: count(json, "tokens"),
    loss,
    gathered: checkGathered(json["gathered"], domains),
    scales: scalesOf(json["lossScale"], scaling),
    directionScale,
    arrays: arraysOf(record(checkpoint, "arrays"), sizes),
  };
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
  sizes: ReadonlyMap<string, number>,
): Map<string, Float32Array> {
  const out = new Map<string, Float32Array>();
  for (const [name, size] of sizes) {
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
