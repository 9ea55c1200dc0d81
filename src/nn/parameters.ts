/**
 * Parameters in one flat arena, with arenas of the same layout for their gradients and the optimizer's moments.
 *
 * A parameter is a named view of `value`. Parameters that weight decay applies to (matrices, embeddings) come first, the others (gains,
 * biases) after them, so that the optimizer takes two ranges and one kernel call each.
 */
import { run } from "../backends/backend.ts";
import { randomNormal } from "../autograd/create.ts";
import { GradmixError } from "../errors.ts";
import {
  boolean,
  checkOptions,
  checkRange,
  list as isList,
  numberIn,
  object,
  oneOf,
  required,
  string,
  unchecked,
  valueThat,
} from "../options.ts";
import { foldIn, type Key, key } from "../tensor/rng.ts";
import { checkShape, formatShape, sameShape, type Shape, sizeOf } from "../tensor/shape.ts";
import { empty, keep, scope, type Tensor } from "../tensor/tensor.ts";

/** Initial values of a parameter: normal with mean 0 and the given standard deviation, or one constant. */
export type Init =
  | {
      /** Draws the values from a normal distribution with mean 0. */
      readonly kind: "normal";
      /** Its standard deviation. */
      readonly deviation: number;
    }
  | {
      /** Sets every value to one number. */
      readonly kind: "constant";
      /** The number. */
      readonly value: number;
    };

/** What a parameter is made of. */
export interface ParameterSpec {
  /** Name of the parameter, for messages and files. */
  readonly name: string;
  /** Shape of the parameter. */
  readonly shape: Shape;
  /** Initial values. */
  readonly init: Init;
  /** Does weight decay apply? */
  readonly decay: boolean;
  /**
   * Where it stands in a model of blocks: the index of its block, counted from 0 in the order of the forward pass, or "after" the last one (a final norm, a head).
   * Left out before the first. `lastBlocks` asks.
   */
  readonly block?: number | "after";
}

/** Parameters of a model: views of one arena. */
export interface Parameters {
  /** In the order of their specs. */
  readonly list: readonly Tensor[];
  /** What they were made of. */
  readonly specs: readonly ParameterSpec[];
  /** The parameters by name. */
  readonly byName: ReadonlyMap<string, Tensor>;
  /** The arena. */
  readonly value: Tensor;
  /** Elements of the arena's first part, to which weight decay applies. */
  readonly decayed: number;
  /** Scalars that are learned, padding not counted. */
  readonly count: number;
  /** Frees the arena. */
  dispose(): void;
}

/** Views start on multiples of 16 bytes, which kernels move at once. Most sizes are such multiples, so that one parameter follows the other. */
const ALIGN = 4;
const aligned = (size: number): number => Math.ceil(size / ALIGN) * ALIGN;

/** Runs `fn`; when it throws, for instance because memory ran out, what was made before goes back. */
export function orDispose<T>(fn: () => T, ...made: readonly { dispose(): void }[]): T {
  try {
    return fn();
  } catch (error) {
    for (const it of made) it.dispose();
    throw error;
  }
}

/** The key of a seed. Throws `config` when it is not an integer from 0 to 2⁵³ − 1. */
export function seedKey(seed: number): Key {
  checkRange("seed", seed, { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true });
  return key(seed);
}

/**
 * Makes and initialises parameters. Values depend on the seed and the parameter's name only, not on the order. Throws `config` for two of one
 * name, and for a seed that is not an integer of at least 0.
 */
export function createParameters(specs: readonly ParameterSpec[], seed: number): Parameters {
  const root = seedKey(seed);
  for (const spec of specs) checkSpec(spec);
  const offsets = new Map<string, number>();
  let end = 0;
  let decayed = 0;
  for (const decay of [true, false]) {
    for (const spec of specs) {
      if (spec.decay !== decay) continue;
      if (offsets.has(spec.name))
        throw new GradmixError("config", `two parameters are called "${spec.name}"`);
      offsets.set(spec.name, end);
      end += aligned(sizeOf(spec.shape));
    }
    if (decay) decayed = end;
  }
  const value = keep(empty([end]));
  orDispose(() => run("fill", { value: 0 }, {}, { out: value }), value);
  const byName = new Map<string, Tensor>();
  const list = specs.map((spec) => {
    const parameter = keep(value.view(spec.shape, offsets.get(spec.name)));
    parameter.name = spec.name;
    byName.set(spec.name, parameter);
    return parameter;
  });
  const dispose = (): void => {
    for (const parameter of list) parameter.dispose();
    value.dispose();
  };
  orDispose(() => specs.forEach(({ name, init }, i) => initialise(list[i]!, init, nameKey(root, name))), {
    dispose,
  });
  return {
    list,
    specs: [...specs],
    byName,
    value,
    decayed,
    count: list.reduce((n, p) => n + p.size, 0),
    dispose,
  };
}

function checkSpec(spec: ParameterSpec): void {
  checkOptions("createParameters", spec, {
    name: required(string),
    shape: required(isList),
    init: required(object),
    decay: required(boolean),
    block: valueThat(
      'the index of a block, or "after"',
      (value) => value === "after" || (Number.isSafeInteger(value) && Number(value) >= 0),
    ),
  });
  checkShape(spec.shape, `parameter "${spec.name}"`);
  const where = `createParameters: init of "${spec.name}"`;
  // The kind decides which options there are, so it is checked first.
  oneOf("normal", "constant")(`${where}: kind`, spec.init.kind);
  if (spec.init.kind === "normal")
    checkOptions(where, spec.init, { kind: unchecked, deviation: required(numberIn({ min: 0 })) });
  else checkOptions(where, spec.init, { kind: unchecked, value: required(numberIn()) });
}

function initialise(parameter: Tensor, init: Init, k: Key): void {
  if (init.kind === "constant") run("fill", { value: init.value }, {}, { out: parameter });
  else
    scope(() => {
      const noise = randomNormal(k, parameter.shape);
      run("affine", { scale: init.deviation, shift: 0 }, { x: noise }, { y: parameter });
    });
}

/** A key for a parameter: FNV-1a of its name, folded into the seed's. */
function nameKey(root: Key, name: string): Key {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return foldIn(root, hash);
}

/** A zeroed arena in the layout of `parameters`, and the view of it that belongs to each parameter. */
export interface Arena {
  /** The arena, of one axis. */
  readonly arena: Tensor;
  /** The view of the arena that belongs to the parameter. */
  of(parameter: Tensor): Tensor;
  /** Frees the arena. */
  dispose(): void;
}

/** A new arena of zeros in the layout of `parameters`. The caller disposes it. */
export function arenaLike(parameters: Pick<Parameters, "list" | "value">): Arena {
  const { list, value } = parameters;
  const arena = keep(empty(value.shape, "f32", value.memory));
  orDispose(() => run("fill", { value: 0 }, {}, { out: arena }), arena);
  const views = new Map(list.map((p) => [p, keep(arena.view(p.shape, p.offset - value.offset))]));
  return {
    arena,
    of(parameter) {
      const view = views.get(parameter);
      if (view === undefined)
        throw new GradmixError(
          "autograd",
          `${parameter.name ?? "a tensor"} is not a parameter of this arena`,
        );
      return view;
    },
    dispose() {
      for (const view of views.values()) view.dispose();
      arena.dispose();
    },
  };
}

/**
 * target ← values, on the device: how a step of an optimizer of one's own ends. It is no op; derivatives do not follow it. Throws `shape` when the two differ in
 * shape or type, and `autograd` when they share memory.
 */
export function assign(target: Tensor, values: Tensor): void {
  if (!sameShape(target.shape, values.shape) || target.dtype !== values.dtype)
    throw new GradmixError(
      "shape",
      `assign: ${values.dtype} ${formatShape(values.shape)} does not go into ${target.dtype} ${formatShape(target.shape)}`,
    );
  const { size } = target;
  const apart =
    target.memory !== values.memory ||
    target.buffer !== values.buffer ||
    target.offset >= values.offset + size ||
    values.offset >= target.offset + size;
  if (!apart) throw new GradmixError("autograd", "assign: the values stand in the target's own memory");
  const along = { shape: [size], inStrides: [1], inOffset: 0, outStrides: [1], outOffset: 0 };
  run("stridedCopy", along, { x: values }, { y: target });
}
