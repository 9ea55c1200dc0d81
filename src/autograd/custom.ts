/**
 * Your own ops and gradients, made of public functions of tensors.
 *
 * The computation of such an op is hidden from transformations, which see only the op and use its rules. So nothing that a transformation follows may
 * enter the computation unseen: a captured tensor that has a gradient or a tangent is refused. Outer transformations see the rules, so the rules can
 * themselves be differentiated, like those of every op.
 */
import { GradmixError } from "../errors.ts";
import {
  callback,
  checkOptions,
  object,
  type OptionCheck,
  type OptionChecks,
  oneOf,
  required,
  show,
  string,
  unchecked,
  valueThat,
} from "../options.ts";
import { checkDType } from "../tensor/dtype.ts";
import { checkShape, formatShape, sameShape } from "../tensor/shape.ts";
import { isTensor, scope, type Tensor, lastSerial } from "../tensor/tensor.ts";
import { type KeepsBatch, keepsElementwise, keepsRows, keepsRowsOfFirst, mixesBatch } from "./batch.ts";
import { wantTensor } from "./checks.ts";
import { alias, copied, fresh } from "./handles.ts";
import {
  type Application,
  apply,
  enclosed,
  filled,
  type None,
  type Op,
  type Spec,
  specOf,
  type Transform,
  transformations,
} from "./op.ts";

type UsualAnswer = "elementwise" | "rows" | "rowsOfFirst" | "mixes";
const usualAnswers: Readonly<Record<UsualAnswer, KeepsBatch<unknown>>> = {
  elementwise: keepsElementwise,
  rows: keepsRows,
  rowsOfFirst: keepsRowsOfFirst,
  mixes: mixesBatch,
};

/**
 * Whether axis 0 of an input stays axis 0 of the output, row for row, so that no row influences another row of the output.
 *
 * - `"elementwise"`: element by element, with broadcasting. An input that is broadcast along axis 0 is not kept.
 * - `"rows"`: each row of every input is processed by itself; an input with a single axis has no rows to keep.
 * - `"rowsOfFirst"`: the same for the first input; the others (for example weights) apply to all rows.
 * - `"mixes"`: rows may mix. This is always safe: passes that distinguish examples refuse the op.
 * - a function that decides for the input `slot`, given shapes, types and attributes.
 */
export type BatchRule<A = None> = UsualAnswer | KeepsBatch<A>;

/** Derivatives that a rule returns: a tensor, or a list of them; null stands for zeros. */
export type Derivatives = Tensor | null | readonly (Tensor | null)[];

type OneOrMany<T> = T | readonly T[];
type Each<N extends readonly unknown[], T> = { -readonly [K in keyof N]: T };
type OutputsOf<S> = S extends readonly unknown[] ? Each<S, Tensor> : Tensor;
type Operands<N extends readonly string[], A> = keyof A extends never
  ? Each<N, Tensor>
  : [...Each<N, Tensor>, attributes?: Partial<A>];

/** What the rules of an op receive. */
export interface RuleContext<A = None> {
  /** The attributes of the call. */
  readonly attributes: A;
  /** Tensors that `forward` saved; by default the inputs. */
  readonly saved: readonly Tensor[];
  /** Shapes and types of the inputs. */
  readonly inputs: readonly Spec[];
  /** Shapes and types of the outputs. */
  readonly outputs: readonly Spec[];
  /** For each input, in `vjp` whether its cotangent is needed, and in `jvp` whether it has a tangent. A result that is not needed may be null. */
  readonly needs: readonly boolean[];
}

/** Definition of an op with all its rules. `N` has the names of its inputs, `A` its attributes, and `S` is the result of `infer`. */
export interface OpDefinition<
  N extends readonly string[],
  S extends Spec | readonly Spec[],
  A extends object = None,
> {
  /** Name of the op, for messages. */
  readonly name: string;
  /** Names of the inputs, at least one. */
  readonly inputs: N;
  /** Attributes (any values that are not tensors, such as numbers, strings and lists) with their defaults. Default: none. */
  readonly attributes?: A;
  /** Computes shape and type of the output, or a list of them for several outputs. It should refuse invalid inputs and attributes. */
  infer(inputs: Each<N, Spec>, attributes: A): S;
  /** Whether axis 0 of each input is axis 0 of the output, row for row; see `BatchRule`. Passes that distinguish examples rely on it. */
  readonly keepsBatch: BatchRule<A>;
  /**
   * Computes the output, or a list of outputs, with functions of tensors; no transformation sees these. The rules receive the inputs as `saved`,
   * unless it returns `{ outputs, saved }`.
   */
  forward(
    inputs: Each<N, Tensor>,
    attributes: A,
  ):
    | OneOrMany<Tensor>
    | {
        /** The output, or a list of outputs. */
        readonly outputs: OneOrMany<Tensor>;
        /** Tensors for the rules. */
        readonly saved: readonly Tensor[];
      };
  /**
   * Computes the cotangents of the inputs, Jᵀ·ct, from those of the outputs. An output that does not matter has a cotangent of zeros; the result for
   * an i32 input is null. Without it, a gradient through the op throws `autograd`.
   */
  vjp?(cotangents: readonly Tensor[], context: RuleContext<A>): Derivatives;
  /**
   * Computes the tangents of the outputs, J·t, from those of the inputs. An input that does not move has a tangent of zeros; the result for an i32
   * output is null. Without it, forward mode through the op throws `autograd`.
   */
  jvp?(tangents: Each<N, Tensor>, context: RuleContext<A>): Derivatives;
  /**
   * The same function made of ops that transformations see. It is used where the rules would themselves have to be differentiated. An op that saves
   * tensors other than its inputs and outputs needs it for derivatives of derivatives.
   */
  compose?(inputs: Each<N, Tensor>, attributes: A): OneOrMany<Tensor>;
}

/** The rules behind both kinds of ops. */
interface Custom<A> {
  readonly name: string;
  readonly keepsBatch: KeepsBatch<A>;
  /** Names of inputs in messages. */
  readonly inputName: (slot: number) => string;
  forward(inputs: readonly Tensor[], attributes: A): unknown;
  /** The tensors that are saved if `forward` does not choose them. */
  saves(inputs: readonly Tensor[], outputs: readonly Tensor[]): readonly Tensor[];
  vjp?(cotangents: readonly Tensor[], context: RuleContext<A>): unknown;
  jvp?(tangents: readonly Tensor[], context: RuleContext<A>): unknown;
  compose?(inputs: readonly Tensor[], attributes: A): unknown;
}

/** One call; `specs` is null if the specs of the outputs are not known in advance. */
interface Call<A> {
  readonly attributes: A;
  readonly specs: readonly Spec[] | null;
}

/**
 * Surrounds the computation of an op. It refuses captured tensors that an outer transformation follows, and records, if requested, what depends on
 * the inputs.
 */
class Enclosure implements Transform {
  readonly #name: string;
  readonly #inputs: ReadonlySet<Tensor>;
  readonly #outside: readonly Transform[];
  readonly #follows: boolean;
  readonly #before = lastSerial();
  readonly #dependent = new Set<Tensor>();

  constructor(name: string, inputs: readonly Tensor[], outside: readonly Transform[], follows: boolean) {
    this.#name = name;
    this.#inputs = new Set(inputs);
    this.#outside = outside;
    this.#follows = follows;
  }

  observe(used: readonly Tensor[]): void {
    for (const t of used) {
      if (t.serial > this.#before || this.#inputs.has(t)) continue;
      for (const transform of this.#outside) transform.observe?.([t]);
      if (this.#outside.some((transform) => transform.tracks([t])))
        throw new GradmixError(
          "autograd",
          `${this.#name}: it uses tensor ${t.name ?? ""}${formatShape(t.shape)}, which needs a gradient or a tangent but is not one of its inputs; pass it as one`,
        );
    }
  }

  tracks(inputs: readonly Tensor[]): boolean {
    return this.#follows && inputs.some((t) => this.#inputs.has(t) || this.#dependent.has(t));
  }

  record<A>({ outputs }: Application<A>): void {
    for (const t of outputs) this.#dependent.add(t);
  }

  depends(t: Tensor): boolean {
    return this.#dependent.has(t);
  }
}

const fault = (name: string, what: string): GradmixError => new GradmixError("autograd", `${name}: ${what}`);
const describe = (spec: Spec): string => `${spec.dtype}${formatShape(spec.shape)}`;

/** The tensors that a rule returned, as a list. Throws `autograd`, naming op and rule, for anything else. */
function tensorsOf(name: string, rule: string, given: unknown): Tensor[] {
  const list: readonly unknown[] = Array.isArray(given) ? given : [given];
  return list.map((t, i) => {
    if (isTensor(t)) return t;
    throw fault(name, `${rule} gives ${show(t)}${list.length > 1 ? ` as output ${i}` : ""}, not a tensor`);
  });
}

/** Throws `autograd` unless the outputs have the specs that `infer` returned. */
function wantSpecs(name: string, rule: string, outputs: readonly Tensor[], specs: readonly Spec[]): void {
  if (outputs.length !== specs.length)
    throw fault(name, `${rule} gives ${outputs.length} outputs, but infer gives ${specs.length}`);
  for (const [i, t] of outputs.entries())
    if (t.dtype !== specs[i]!.dtype || !sameShape(t.shape, specs[i]!.shape))
      throw fault(
        name,
        `${rule} gives ${describe(t)}${specs.length > 1 ? ` as output ${i}` : ""}, infer says ${describe(specs[i]!)}`,
      );
}

/** The derivatives that a rule computed from `given`. Throws `autograd` unless there is one for each spec, or null. */
function derivativesOf(
  name: string,
  rule: string,
  specs: readonly Spec[],
  what: (i: number) => string,
  given: readonly Tensor[],
  run: () => unknown,
): (Tensor | null)[] {
  const before = lastSerial();
  const result = run();
  const list: readonly unknown[] = Array.isArray(result) ? result : [result];
  if (list.length !== specs.length)
    throw fault(name, `${rule} gives ${list.length} derivatives; ${specs.length} are needed`);
  return list.map((t, i) => {
    if (t === null) return null;
    if (!isTensor(t))
      throw fault(name, `${rule} gives ${show(t)} for ${what(i)}; a tensor is needed, or null for zeros`);
    if (specs[i]!.dtype !== "f32")
      throw fault(name, `${rule} gives a derivative for ${what(i)}, which is ${specs[i]!.dtype}; give null`);
    if (t.dtype !== "f32" || !sameShape(t.shape, specs[i]!.shape))
      throw fault(name, `${rule} gives ${describe(t)} for ${what(i)}, which is ${describe(specs[i]!)}`);
    // The given tensors may be returned. Other existing memory (of an input or a constant) belongs to somebody else, who may write to it.
    return given.includes(t) || (t.serial > before && t.alone) ? t : copied(t);
  });
}

/** The given derivatives, with zeros instead of null. */
function withZeros(derivatives: readonly (Tensor | null)[], specs: readonly Spec[]): Tensor[] {
  const like = derivatives.find((t) => t !== null);
  if (like === undefined || like === null) throw new GradmixError("autograd", "no derivative is wanted");
  return derivatives.map((t, i) => t ?? filled(0, { shape: specs[i]!.shape, dtype: "f32" }, like));
}

/** Computes outputs with their own handles, and what the rules need. */
function compute<A>(
  custom: Custom<A>,
  inputs: readonly Tensor[],
  { attributes, specs }: Call<A>,
): { outputs: Tensor[]; saved: Tensor[] } {
  const { name } = custom;
  const outside = transformations();
  const watching = outside.filter((transform) => transform.tracks(inputs)).length;
  const nested = watching > 1;
  const enclosure = outside.length === 0 ? null : new Enclosure(name, inputs, outside, nested);
  return enclosed(enclosure, () =>
    scope(() => {
      const before = lastSerial();
      let saved: readonly unknown[] | null = null;
      const outputs = fresh((): readonly Tensor[] => {
        const given = custom.forward(inputs, attributes);
        if (!isSaving(given)) return tensorsOf(name, "forward", given);
        saved = Array.isArray(given.saved) ? given.saved : [given.saved];
        return tensorsOf(name, "forward", given.outputs);
      });
      if (specs !== null) wantSpecs(name, "forward", outputs, specs);
      const kept = tensorsOf(name, "forward (saved)", saved ?? custom.saves(inputs, outputs));
      if (nested && kept.some((t) => enclosure?.depends(t) === true && !outputs.includes(t)))
        throw fault(
          name,
          "it saves what is neither input nor output, so its rules cannot be differentiated; save inputs or outputs, or give it `compose`",
        );
      // An existing constant belongs to somebody else.
      const own = kept.map((t) => (inputs.includes(t) || t.serial > before ? t : alias(t)));
      return { outputs: [...outputs], saved: own };
    }),
  );
}

function isSaving(given: unknown): given is { readonly outputs: unknown; readonly saved: unknown } {
  return typeof given === "object" && given !== null && "outputs" in given && "saved" in given;
}

/** The internal op. */
function opOf<A>(custom: Custom<A>): Op<Call<A>> {
  const { name } = custom;
  const { vjp, jvp, compose } = custom;
  const outputName = (i: number): string => `output ${i}`;
  return {
    name,
    infer: (_, { specs }) => [...(specs ?? [])],
    keepsBatch(slot, inputs, output, { attributes }) {
      const kept: unknown = custom.keepsBatch(slot, inputs, output, attributes);
      if (typeof kept !== "boolean") throw fault(name, `keepsBatch gives ${show(kept)}, not true or false`);
      return kept;
    },
    forward: (inputs, call) => compute(custom, inputs, call),
    ...(vjp === undefined
      ? {}
      : {
          vjp(cotangents, { attrs: { attributes }, saved, inputs, outputs, needs }) {
            const given = withZeros(cotangents, outputs);
            const context = { attributes, saved, inputs, outputs, needs };
            const input = (slot: number): string => `the input ${custom.inputName(slot)}`;
            return derivativesOf(name, "vjp", inputs, input, given, () => vjp(given, context));
          },
        }),
    ...(jvp === undefined
      ? {}
      : {
          jvp(tangents, { attrs: { attributes }, saved, inputs, outputs }) {
            const given = withZeros(tangents, inputs);
            const context = {
              attributes,
              saved,
              inputs: inputs.map(specOf),
              outputs: outputs.map(specOf),
              needs: tangents.map((t) => t !== null),
            };
            return derivativesOf(name, "jvp", outputs, outputName, given, () => jvp(given, context));
          },
        }),
    ...(compose === undefined
      ? {}
      : {
          compose: (inputs, { attributes, specs }) =>
            scope(() => {
              const results = fresh((): readonly Tensor[] =>
                tensorsOf(name, "compose", compose(inputs, attributes)),
              );
              if (specs !== null) wantSpecs(name, "compose", results, specs);
              return [...results];
            }),
        }),
  };
}

/** The specs that `infer` returned, as a list. */
function specsOf(name: string, given: Spec | readonly Spec[]): Spec[] {
  const list: readonly unknown[] = Array.isArray(given) ? given : [given];
  return list.map((spec) => {
    if (typeof spec !== "object" || spec === null || !("shape" in spec) || !("dtype" in spec))
      throw fault(name, `infer gives ${show(spec)}, not { shape, dtype }`);
    const { shape, dtype } = spec as Spec;
    checkShape(shape, `${name}: infer`);
    checkDType(dtype, `${name}: infer`);
    return { shape, dtype };
  });
}

/** One check per attribute: of the type of its default, if that determines one. */
function attributeChecks(defaults: object): Record<string, OptionCheck> {
  const check = (value: unknown): OptionCheck => {
    const type = typeof value;
    if (Array.isArray(value)) return valueThat("a list", Array.isArray);
    return type === "number" || type === "string" || type === "boolean"
      ? valueThat(`a ${type}`, (given) => typeof given === type)
      : unchecked;
  };
  return Object.fromEntries(Object.entries(defaults).map(([name, value]) => [name, check(value)]));
}

const isNames = (value: unknown): boolean =>
  Array.isArray(value) &&
  value.length > 0 &&
  value.every((name) => typeof name === "string") &&
  new Set(value).size === value.length;

function checkBatchRule(name: string, value: unknown): void {
  if (typeof value !== "function") oneOf(...Object.keys(usualAnswers))(name, value);
}

const definitionChecks: OptionChecks<{
  readonly [K in keyof OpDefinition<readonly string[], Spec>]?: unknown;
}> = {
  name: required(string),
  inputs: required(valueThat("a list of different names", isNames)),
  attributes: object,
  infer: required(callback),
  keepsBatch: required(checkBatchRule),
  forward: required(callback),
  vjp: callback,
  jvp: callback,
  compose: callback,
};

/**
 * Defines an op, as a function of its inputs and, if it has some, its attributes. It works like a built-in op: under `grad`, `gradients`, `jvp`,
 * `forwardDerivative` and `checkpoint`, nested to any order.
 *
 * ```js
 * const cube = defineOp({
 *   name: "cube",
 *   inputs: ["x"],
 *   infer: ([x]) => x,
 *   keepsBatch: "elementwise",
 *   forward: ([x]) => mul(x, square(x)),
 *   vjp: ([ct], { saved: [x] }) => mul(ct, affine(square(x), 3, 0)),
 *   jvp: ([t], { saved: [x] }) => mul(t, affine(square(x), 3, 0)),
 * });
 * ```
 *
 * A parameter that it uses directly has no per-example rule: `sumSink` accepts its gradient, but sinks that distinguish examples refuse it. Throws
 * `config` for a definition with a missing or unknown part. A call throws `shape` or `config` for invalid operands and attributes. It throws
 * `autograd`, naming the op, if a rule returns a wrong number of tensors or a wrong shape or type, or if `forward` uses a tensor that is not one of
 * its inputs and whose gradient or tangent is needed. `checkGradients` of gradmix/testing tests whether the rules are correct.
 */
export function defineOp<
  const N extends readonly string[],
  const S extends Spec | readonly Spec[],
  A extends object = None,
>(definition: OpDefinition<N, S, A>): (...operands: Operands<N, A>) => OutputsOf<S> {
  checkOptions(
    typeof definition?.name === "string" ? `defineOp ${show(definition.name)}` : "defineOp",
    definition,
    definitionChecks,
  );
  const { name, inputs: names, keepsBatch } = definition;
  const count = names.length;
  const defaults = definition.attributes ?? null;
  const checks = attributeChecks(defaults ?? {});
  const attributesOf = (given: unknown): A => {
    if (given === undefined) return (defaults ?? {}) as A;
    checkOptions(name, given as Record<string, unknown>, checks);
    const set = Object.entries(given as object).filter(([, value]) => value !== undefined);
    return { ...defaults, ...Object.fromEntries(set) } as A;
  };
  const op = opOf<A>({
    name,
    inputName: (slot) => names[slot]!,
    keepsBatch: typeof keepsBatch === "function" ? keepsBatch : usualAnswers[keepsBatch],
    forward: (inputs, attributes) => definition.forward(inputs as Each<N, Tensor>, attributes),
    saves: (inputs) => inputs,
    ...(definition.vjp && { vjp: (cotangents, context) => definition.vjp?.(cotangents, context) }),
    ...(definition.jvp && {
      jvp: (tangents, context) => definition.jvp?.(tangents as Each<N, Tensor>, context),
    }),
    ...(definition.compose && {
      compose: (inputs, attributes) => definition.compose?.(inputs as Each<N, Tensor>, attributes),
    }),
  });
  return (...operands) => {
    const given: readonly unknown[] = operands;
    if (given.length < count || given.length > (defaults === null ? count : count + 1))
      throw new GradmixError(
        "shape",
        `${name}: ${given.length} operands were given; it takes ${names.join(", ")}${defaults === null ? "" : " and attributes"}`,
      );
    const inputs = given.slice(0, count).map((t, slot) => {
      wantTensor(name, names[slot]!, t);
      return t;
    });
    const attributes = attributesOf(given[count]);
    const inferred = definition.infer(inputs.map(specOf) as Each<N, Spec>, attributes);
    const outputs = apply(op, inputs, { attributes, specs: specsOf(name, inferred) });
    return (Array.isArray(inferred) ? outputs : outputs[0]) as OutputsOf<S>;
  };
}

/** What the rules of `customGradient` receive. */
export interface GradientContext {
  /** The inputs of the call. */
  readonly inputs: readonly Tensor[];
  /** What the function returned, as a list. */
  readonly outputs: readonly Tensor[];
}

/** Options of `customGradient`. */
export interface CustomGradientOptions {
  /** Name in messages. Default: the function's name. */
  readonly name?: string;
  /** Whether axis 0 stays the batch; see `BatchRule`. It must hold for the rules too. Default "mixes": passes that distinguish examples refuse the function. */
  readonly keepsBatch?: BatchRule;
}

/**
 * Gives `f` another derivative (jax.custom_vjp, tf.customGradient). `vjp` computes the cotangents of f's inputs from those of its outputs, `jvp` the
 * tangents of its outputs; null, or a null in a list, stands for zeros. Inputs and outputs are kept for the rules; if that takes too much memory,
 * `defineOp` lets you choose what is saved. Without `jvp`, forward mode throws `autograd`. Derivatives of derivatives are those of the rules.
 *
 * `f` may capture constants. A captured tensor whose gradient or tangent is needed (a parameter, or a tensor that depends on one) is refused with
 * `autograd`, because the rules do not return one for it: make it an input. Rules that return a wrong number of tensors or a wrong shape or type are
 * refused too.
 */
export function customGradient<I extends readonly Tensor[], R extends Tensor | Tensor[]>(
  f: (...inputs: I) => R,
  vjp: (cotangents: readonly Tensor[], context: GradientContext) => Derivatives,
  jvp?: (tangents: readonly Tensor[], context: GradientContext) => Derivatives,
  options: CustomGradientOptions = {},
): (...inputs: I) => R {
  callback("customGradient: f", f);
  callback("customGradient: vjp", vjp);
  if (jvp !== undefined) callback("customGradient: jvp", jvp);
  checkOptions("customGradient", options, { name: string, keepsBatch: checkBatchRule });
  const own = options.name ?? f.name;
  const name = own === "" ? "customGradient" : own;
  const { keepsBatch = "mixes" } = options;
  const contextOf = ({ saved, inputs }: RuleContext): GradientContext => ({
    inputs: saved.slice(0, inputs.length),
    outputs: saved.slice(inputs.length),
  });
  return (...inputs) => {
    let single = false;
    const op = opOf<None>({
      name,
      inputName: String,
      keepsBatch: typeof keepsBatch === "function" ? keepsBatch : usualAnswers[keepsBatch],
      forward() {
        const result = f(...inputs);
        single = isTensor(result);
        return result;
      },
      saves: (given, outputs) => [...given, ...outputs],
      vjp: (cotangents, context) => vjp(cotangents, contextOf(context)),
      ...(jvp && { jvp: (tangents, context) => jvp(tangents, contextOf(context)) }),
    });
    const outputs = apply(op, inputs, { attributes: {}, specs: null });
    return (single ? outputs[0] : outputs) as R;
  };
}
