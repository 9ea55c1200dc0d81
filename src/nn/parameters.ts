/**
 * Parameters in one flat arena, with arenas of the same layout for their gradients and the optimizer's moments.
 *
 * A parameter is a named view of `value`. Parameters with weight decay (matrices, embeddings) come first, the others (gains, biases) after them, so
 * that the optimizer updates two ranges with one kernel call each.
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
  objectWith,
  oneOf,
  type OptionCheck,
  required,
  string,
  unchecked,
  valueThat,
} from "../options.ts";
import { foldIn, type Key, key } from "../tensor/rng.ts";
import { checkShape, formatShape, sameShape, type Shape, sizeOf } from "../tensor/shape.ts";
import { MOST } from "../tensor/dtype.ts";
import { wantTensor } from "../autograd/checks.ts";
import { empty, isTensor, keep, scope, sharesMemory, type Tensor } from "../tensor/tensor.ts";

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
      /** The constant. */
      readonly value: number;
    };

/** Specification of a parameter. */
export interface ParameterSpec {
  /** Name of the parameter, for messages and files. */
  readonly name: string;
  /** Shape of the parameter. */
  readonly shape: Shape;
  /** Initial values of the parameter. */
  readonly init: Init;
  /** Whether weight decay applies to the parameter. */
  readonly decay: boolean;
  /**
   * Position of the parameter in a model of blocks: the index of its block, counted from 0 in the order of the forward pass, or "after" for those
   * behind the last block (a final norm, a head). Left out for parameters before the first block. `lastBlocks` uses it.
   */
  readonly block?: number | "after";
}

/** Parameters of a model: views of one arena. */
export interface Parameters {
  /** The parameters, in the order of their specs. */
  readonly list: readonly Tensor[];
  /** The specs from which they were made. */
  readonly specs: readonly ParameterSpec[];
  /** The parameters by name. */
  readonly byName: ReadonlyMap<string, Tensor>;
  /** The arena with all values. */
  readonly value: Tensor;
  /** Number of elements of the first part of the arena, to which weight decay applies. */
  readonly decayed: number;
  /** Number of learned scalars, without padding. */
  readonly count: number;
  /** Frees the arena. */
  dispose(): void;
}

/** Views start on multiples of 16 bytes, which kernels move at once. Most sizes are such multiples, so that one parameter follows the other. */
const ALIGN = 4;
const aligned = (size: number): number => Math.ceil(size / ALIGN) * ALIGN;

/** Runs `fn`; if it throws, for instance because memory ran out, disposes what was made before. */
export function orDispose<T>(fn: () => T, ...resources: readonly { dispose(): void }[]): T {
  try {
    return fn();
  } catch (error) {
    for (const it of resources) it.dispose();
    throw error;
  }
}

/** The key of a seed. Throws `config` unless it is an integer from 0 to 2⁵³ − 1. */
export function seedKey(seed: number): Key {
  checkRange("seed", seed, { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true });
  return key(seed);
}

/**
 * Makes and initialises parameters. Their values depend only on the seed and the parameter's name, not on the order. `seed` is an integer from 0 to
 * 2⁵³ − 1. Throws `config` for two parameters with the same name and for invalid seeds.
 */
export function createParameters(specs: readonly ParameterSpec[], seed: number): Parameters {
  isList("createParameters: specs", specs);
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
    const parameter = keep(value.part(spec.shape, offsets.get(spec.name)));
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
    // The caller may change its own objects afterwards.
    specs: specs.map((spec) => ({ ...spec, shape: [...spec.shape] })),
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
  // The kind decides which options exist, so it is checked first.
  oneOf("normal", "constant")(`${where}: kind`, spec.init.kind);
  if (spec.init.kind === "normal")
    checkOptions(where, spec.init, { kind: unchecked, deviation: required(numberIn({ min: 0, max: MOST })) });
  else
    checkOptions(where, spec.init, { kind: unchecked, value: required(numberIn({ min: -MOST, max: MOST })) });
}

function initialise(parameter: Tensor, init: Init, k: Key): void {
  if (init.kind === "constant") run("fill", { value: init.value }, {}, { out: parameter });
  else
    scope(() => {
      const noise = randomNormal(k, parameter.shape);
      run("affine", { scale: init.deviation, shift: 0 }, { x: noise }, { y: parameter });
    });
}

/** The key of a parameter: FNV-1a of its name, folded into the seed's key. */
function nameKey(root: Key, name: string): Key {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return foldIn(root, hash);
}

/** A zeroed arena in the layout of `parameters`, and the view of it for each parameter. */
export interface Arena {
  /** The arena, with one axis. */
  readonly arena: Tensor;
  /** The view of the arena that belongs to a parameter. */
  of(parameter: Tensor): Tensor;
  /** Frees the arena. */
  dispose(): void;
}

/** Accepts parameters that have these members. */
function parametersWith(...names: readonly (keyof Parameters)[]): OptionCheck {
  const hasMembers = objectWith("parameters, such as createParameters makes", ...names);
  return (name, value) => {
    // Callers often pass the model instead of its parameters.
    if (typeof value === "object" && value !== null && "parameters" in value)
      throw new GradmixError("config", `${name}: it is a model; pass its parameters, model.parameters`);
    hasMembers(name, value);
    if (!isTensor(Reflect.get(Object(value), "value")))
      throw new GradmixError(
        "config",
        `${name}: its member value is no tensor; createParameters makes parameters`,
      );
  };
}
/** Accepts the parameters of a model. */
export const checkParameters: OptionCheck = parametersWith("list", "byName", "value", "specs");
/** Accepts what parameters are saved from and loaded into. */
export const checkNamed: OptionCheck = parametersWith("byName", "value");
const checkLayout = parametersWith("list", "value");

/** Accepts an arena. */
export const checkArena: OptionCheck = objectWith("an arena, such as arenaLike makes", "arena", "of");

/** Makes an arena of zeros in the layout of `parameters`. The caller disposes it. */
export function arenaLike(parameters: Pick<Parameters, "list" | "value">): Arena {
  checkLayout("arenaLike: parameters", parameters);
  const { list, value } = parameters;
  const arena = keep(empty(value.shape, "f32", value.memory));
  orDispose(() => run("fill", { value: 0 }, {}, { out: arena }), arena);
  const views = new Map(list.map((p) => [p, keep(arena.part(p.shape, p.offset - value.offset))]));
  return {
    arena,
    of(parameter) {
      wantTensor("arena.of", "the parameter", parameter);
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
 * Copies `values` into `target` on the device: the last operation in a step of your own optimizer. It is not an op; derivatives do not pass through
 * it. Throws `shape` if the two differ in shape or type, and `autograd` if they share memory.
 */
export function assign(target: Tensor, values: Tensor): void {
  wantTensor("assign", "the target", target);
  wantTensor("assign", "what is assigned", values);
  if (!sameShape(target.shape, values.shape) || target.dtype !== values.dtype)
    throw new GradmixError(
      "shape",
      `assign: ${values.dtype} ${formatShape(values.shape)} does not fit into ${target.dtype} ${formatShape(target.shape)}`,
    );
  const { size } = target;
  if (sharesMemory(target, values))
    throw new GradmixError("autograd", "assign: the values are in the target's own memory");
  const along = { shape: [size], inStrides: [1], inOffset: 0, outStrides: [1], outOffset: 0 };
  run("stridedCopy", along, { x: values }, { y: target });
}
