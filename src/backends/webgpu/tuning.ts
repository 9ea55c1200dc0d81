/**
 * Finds the fastest variant of a kernel on this device by timing.
 *
 * A call of a bucket (a kernel and its rounded shape) that has not been timed uses the default variant. When results are next awaited, its variants
 * are timed on operands of the same sizes, and the choice holds from then on. Variants of a kernel give the same bits, so no result shows when this
 * happens. This is checked: a variant whose result on random operands differs from the default's on this device is excluded (the first and the last
 * elements are compared).
 */
import { GradmixError } from "../../errors.ts";
import { show } from "../../options.ts";
import type { View } from "../../tensor/memory.ts";
import { sizeOf } from "../../tensor/shape.ts";
import type { DType } from "../../tensor/dtype.ts";

/** Store of choices that can outlast the process: earlier choices, and a function that stores new ones. */
export interface TuningStore {
  /** Chosen variants by bucket. */
  readonly known: Readonly<Record<string, string>>;
  /** Stores a choice. `milliseconds` has the time of each variant. */
  learn(bucket: string, variant: string, milliseconds: Readonly<Record<string, number>>): void;
  /** Called if a variant is not used because its result differs from the default's on this device, or because it failed there with the message `failure`. */
  differs?(bucket: string, variant: string, failure?: string): void;
}

/** Returns the message for `differs` as a line for a log. */
export function differenceLine(bucket: string, variant: string, failure?: string): string {
  const why = failure ?? "its result is not that of the default variant, or not the same twice";
  return `webgpu: ${bucket} cannot take ${variant}: on this device ${why}`;
}

/** Returns a choice as a line for a log. */
export function choiceLine(
  bucket: string,
  variant: string,
  milliseconds: Readonly<Record<string, number>>,
): string {
  const others = Object.entries(milliseconds)
    .filter(([name]) => name !== variant)
    .map(([name, time]) => `${name} ${time.toPrecision(3)}`);
  const best = milliseconds[variant];
  const own = best === undefined ? [] : [`${best.toPrecision(3)} ms`];
  return `webgpu: ${bucket} takes ${variant} (${[...own, ...(others.length === 0 ? [] : [others.join(", ")])].join("; ")})`;
}

/** Returns a store whose choices hold as long as the device. */
export const tuningForNow = (log: (line: string) => void = () => {}): TuningStore => ({
  known: {},
  learn: (...choice) => log(choiceLine(...choice)),
  differs: (...variant) => log(differenceLine(...variant)),
});

/** A call of a kernel that can be repeated. */
export interface Call {
  /** The operands that are present. */
  readonly inputs: readonly View[];
  readonly outputs: readonly View[];
  /** Enqueues it with the given variant. */
  run(variant: string): void;
  /** The same call on other operands. */
  on(input: (view: View) => View, output: (view: View) => View): Call;
}

type Variants = readonly [string, ...string[]];

interface Untimed {
  readonly call: Call;
  readonly variants: Variants;
  /** Copies of the call's indices, which the tuner frees. */
  readonly indices: readonly View[];
}

export interface Tuner {
  /** The variant for a call of this bucket; a new bucket is recorded with its call. */
  choose(bucket: string, variants: Variants, call: Call): string;
  /** Times the recorded buckets. */
  settle(): Promise<void>;
  /** Choices in force. */
  readonly chosen: ReadonlyMap<string, string>;
}

export interface TunerDevice {
  alloc(elements: number, dtype: DType): number;
  free(buffer: number): void;
  /** Enqueues a copy. */
  copy(from: View, to: View): void;
  /** Enqueues random numbers. */
  randomise(view: View): void;
  /** Submits what is enqueued; resolves once it has run. */
  done(): Promise<void>;
  /** Elements of a view, as bits. */
  bits(view: View, from: number, count: number): Promise<Int32Array>;
}

/** Number of elements of a result that are compared at each end. */
const COMPARED = 2 ** 16;
/** Shortest round of one variant in milliseconds, and number of rounds. */
const ROUND = 4;
const ROUNDS = 3;
/** Largest size of operands that are duplicated for timing; beyond it the default variant stays. */
const MOST_BYTES = 2 ** 30;

const isMemory = (error: unknown): boolean => error instanceof GradmixError && error.code === "memory";

export function createTuner(store: TuningStore, device: TunerDevice): Tuner {
  const chosen = new Map(Object.entries(store.known));
  const untimed = new Map<string, Untimed>();
  /** Buckets that could not be timed and keep their default variant. */
  const kept = new Set<string>();
  let settling: Promise<void> | null = null;

  const settle = async (): Promise<void> => {
    for (const [bucket, recorded] of untimed) {
      untimed.delete(bucket);
      const differ = (variant: string, failure?: string): void => store.differs?.(bucket, variant, failure);
      const times = await timeVariants(device, recorded, differ).catch((error: unknown) => {
        // If there is no memory for duplicates, the default variant stays.
        if (isMemory(error)) return {};
        throw error;
      });
      const [fastest] = Object.entries(times).sort(([, x], [, y]) => x - y);
      if (fastest === undefined) {
        kept.add(bucket);
        continue;
      }
      chosen.set(bucket, fastest[0]);
      store.learn(bucket, fastest[0], times);
    }
  };

  return {
    chosen,
    choose(bucket, variants, call) {
      const known = chosen.get(bucket);
      if (known !== undefined && variants.includes(known)) return known;
      if (variants.length > 1 && !untimed.has(bucket) && !kept.has(bucket) && bytesOf(call) <= MOST_BYTES) {
        const recorded = withOwnIndices(device, call);
        // Without room for copies, the call itself must not fail.
        if (recorded === null) kept.add(bucket);
        else untimed.set(bucket, { ...recorded, variants });
      }
      return variants[0];
    },
    async settle() {
      settling ??= settle().finally(() => {
        settling = null;
      });
      await settling;
    },
  };
}

function bytesOf({ inputs, outputs }: Call): number {
  let bytes = 0;
  for (const { shape } of [...inputs, ...outputs]) bytes += 4 * sizeOf(shape);
  return bytes;
}

/** Allocates memory with the size and type of a view. */
function another(device: TunerDevice, view: View): View {
  return { ...view, buffer: device.alloc(sizeOf(view.shape), view.dtype), offset: 0 };
}

/**
 * Returns the call with copies of its indices, since the time depends on the indices, which may be freed later, but not on the values of other operands. Returns
 * null if there is no memory for the copies.
 */
function withOwnIndices(device: TunerDevice, call: Call): Omit<Untimed, "variants"> | null {
  const indices: View[] = [];
  const copied = (view: View): View => {
    if (view.dtype !== "i32") return view;
    const copy = another(device, view);
    indices.push(copy);
    device.copy(view, copy);
    return copy;
  };
  try {
    return { call: call.on(copied, (view) => view), indices };
  } catch (error) {
    for (const { buffer } of indices) device.free(buffer);
    if (!isMemory(error)) throw error;
    return null;
  }
}

/** Returns the milliseconds per call of each variant whose result equals the default's, and calls `differ` for the others. Frees the call's indices. */
async function timeVariants(
  device: TunerDevice,
  { call, variants, indices }: Untimed,
  differ: (variant: string, failure?: string) => void,
): Promise<Record<string, number>> {
  const views = [...indices];
  const copyOf = (view: View): View => {
    if (indices.includes(view)) return view;
    const own = another(device, view);
    views.push(own);
    if (own.dtype === "f32") device.randomise(own);
    return own;
  };
  try {
    const own = call.on(copyOf, copyOf);
    const times: Record<string, number> = {};
    // The variants take turns, so that other load on the machine affects all of them.
    const counts = await callsARound(device, own, variants, differ);
    for (let i = 0; i < ROUNDS; i++)
      for (const [variant, count] of counts)
        times[variant] = Math.min(
          times[variant] ?? Infinity,
          (await round(device, own, variant, count)) / count,
        );
    return times;
  } finally {
    for (const { buffer } of views) device.free(buffer);
  }
}

/**
 * Returns the variants whose result equals the default's, with the number of calls per round. This also makes the pipelines. If two results of the default
 * differ, the others are not compared with it.
 */
async function callsARound(
  device: TunerDevice,
  call: Call,
  variants: Variants,
  differ: (variant: string, failure?: string) => void,
): Promise<ReadonlyMap<string, number>> {
  const expected = await results(device, call, variants[0]);
  const counts = new Map<string, number>();
  for (const variant of variants) {
    let found: readonly Int32Array[];
    try {
      found = await results(device, call, variant);
    } catch (error) {
      // The default variant works here, so one that does not compile is only left out.
      if (variant === variants[0] || isMemory(error)) throw error;
      differ(variant, `it fails (${error instanceof Error ? error.message : show(error)})`);
      continue;
    }
    if (!sameBits(found, expected)) {
      differ(variant);
      if (variant === variants[0]) return new Map();
      continue;
    }
    const once = await round(device, call, variant, 1);
    counts.set(variant, Math.min(100, Math.ceil(ROUND / Math.max(0.01, once))));
  }
  return counts;
}

/** Returns the bits of the first and last elements of all outputs. Outputs to which a kernel adds have the same contents before each call. */
async function results(device: TunerDevice, call: Call, variant: string): Promise<Int32Array[]> {
  const found: Int32Array[] = [];
  for (const view of call.outputs) if (view.dtype === "f32") device.randomise(view);
  call.run(variant);
  for (const view of call.outputs) {
    const size = sizeOf(view.shape);
    const most = Math.min(COMPARED, size);
    for (const from of new Set([0, size - most])) found.push(await device.bits(view, from, most));
  }
  return found;
}

const sameBits = (found: readonly Int32Array[], expected: readonly Int32Array[]): boolean =>
  expected.every((bits, i) => bits.every((word, at) => word === found[i]?.[at]));

/** Returns the milliseconds that `count` calls take. */
async function round(device: TunerDevice, call: Call, variant: string, count: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < count; i++) call.run(variant);
  await device.done();
  return performance.now() - start;
}
