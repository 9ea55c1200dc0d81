/**
 * Ops and gradients of one's own, out of public functions of tensors.
 *
 * What such an op computes is hidden from the transformations, which see the op alone and use its rules. Hence nothing that a transformation follows may
 * reach the computation unseen: a captured tensor that has a gradient or a tangent is refused. The rules are visible to the transformations further out, so
 * they can be differentiated themselves, as those of every op.
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
import { isTensor, scope, type Tensor, youngest } from "../tensor/tensor.ts";
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
 * Does axis 0 of an input stay the output's axis 0, row for row, such that no row reaches another row of the output?
 *
 * - `"elementwise"`: element by element, with broadcasting. An input that is broadcast along axis 0 is not kept.
 * - `"rows"`: each row of every input is worked on by itself; an input of one axis has no rows to keep.
 * - `"rowsOfFirst"`: the same of the first input; the others (weights, say) are for all rows.
 * - `"mixes"`: rows may meet. It is always safe: passes that tell examples apart refuse the op.
 * - a function that answers for the input `slot`, given shapes, types and attributes.
 */
export type BatchRule<A = None> = UsualAnswer | KeepsBatch<A>;

/** A tensor, or a list of them; null stands for zeros. */
export type Derivatives = Tensor | null | readonly (Tensor | null)[];

type OneOrMany<T> = T | readonly T[];
type Each<N extends readonly unknown[], T> = { -readonly [K in keyof N]: T };
type OutputsOf<S> = S extends readonly unknown[] ? Each<S, Tensor> : Tensor;
type Operands<N extends readonly string[], A> = keyof A extends never
  ? Each<N, Tensor>
  : [...Each<N, Tensor>, attributes?: Partial<A>];

/** What the rules of an op are given. */
export interface RuleContext<A = None> {
  /** The attributes of the call. */
  readonly attributes: A;
  /** What `forward` saved: the inputs, unless it said otherwise. */
  readonly saved: readonly Tensor[];
  /** Shapes and types of the inputs. */
  readonly inputs: readonly Spec[];
  /** Shapes and types of the outputs. */
  readonly outputs: readonly Spec[];
  /** For each input: in `vjp`, is its cotangent wanted; in `jvp`, does it have a tangent? What is not needed may be null. */
  readonly needs: readonly boolean[];
}

/** An op: its rules side by side. `N` names its inputs, `A` are its attributes, `S` is what `infer` gives. */
export interface OpDefinition<
  N extends readonly string[],
  S extends Spec | readonly Spec[],
  A extends object = None,
> {
  /** What messages call it. */
  readonly name: string;
  /** Names of the inputs, at least one. */
  readonly inputs: N;
  /** Attributes (numbers, strings, lists: whatever is no tensor) with their defaults. Default: none. */
  readonly attributes?: A;
  /** Shape and type of the output, or a list for several outputs. It is where inputs and attributes that do not fit are refused. */
  infer(inputs: Each<N, Spec>, attributes: A): S;
  /** For each input, is its axis 0 the output's axis 0, row for row? Passes that tell examples apart depend on it; see `BatchRule`. */
  readonly keepsBatch: BatchRule<A>;
  /**
   * Computes the output, or a list of outputs, out of functions of tensors; no transformation looks inside. The rules get the inputs as `saved`, unless it
   * gives `{ outputs, saved }`.
   */
  forward(
    inputs: Each<N, Tensor>,
    attributes: A,
  ):
    | OneOrMany<Tensor>
    | {
        /** The output, or a list of outputs. */
        readonly outputs: OneOrMany<Tensor>;
        /** Tensors that the rules get. */
        readonly saved: readonly Tensor[];
      };
  /**
   * Cotangents of the outputs → cotangents of the inputs: Jᵀ·ct. An output that does not matter has a cotangent of zeros; an i32 input gets null. Without it
   * a gradient through the op throws `autograd`.
   */
  vjp?(cotangents: readonly Tensor[], context: RuleContext<A>): Derivatives;
  /**
   * Tangents of the inputs → tangents of the outputs: J·t. An input that does not move has a tangent of zeros; an i32 output gets null. Without it forward
   * mode through the op throws `autograd`.
   */
  jvp?(tangents: Each<N, Tensor>, context: RuleContext<A>): Derivatives;
  /**
   * The same function, of which transformations see every op. It stands in where the rules would themselves have to be differentiated. An op that saves
   * what is neither input nor output needs it for derivatives of derivatives.
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
  /** What is saved if `forward` does not say. */
  saves(inputs: readonly Tensor[], outputs: readonly Tensor[]): readonly Tensor[];
  vjp?(cotangents: readonly Tensor[], context: RuleContext<A>): unknown;
  jvp?(tangents: readonly Tensor[], context: RuleContext<A>): unknown;
  compose?(inputs: readonly Tensor[], attributes: A): unknown;
}

/** One call; `specs` is null where nobody has said what the outputs are. */
interface Call<A> {
  readonly attributes: A;
  readonly specs: readonly Spec[] | null;
}

/**
 * Stands around what an op computes. It refuses captured tensors that a transformation outside follows, and notes, where it is asked to, what depends on
 * the inputs.
 */
class Enclosure implements Transform {
  readonly #name: string;
  readonly #inputs: ReadonlySet<Tensor>;
  readonly #outside: readonly Transform[];
  readonly #follows: boolean;
  readonly #before = youngest();
  readonly #dependent = new Set<Tensor>();

  constructor(name: string, inputs: readonly Tensor[], outside: readonly Transform[], follows: boolean) {
    this.#name = name;
    this.#inputs = new Set(inputs);
    this.#outside = outside;
    this.#follows = follows;
  }

  sees(used: readonly Tensor[]): void {
    for (const t of used) {
      if (t.serial > this.#before || this.#inputs.has(t)) continue;
      for (const transform of this.#outside) transform.sees?.([t]);
      if (this.#outside.some((transform) => transform.tracks([t])))
        throw new GradmixError(
          "autograd",
          `${this.#name}: it uses tensor ${t.name ?? ""}${formatShape(t.shape)}, which a gradient or a tangent is wanted of, and which is not one of its inputs; pass it as one`,
        );
    }
  }

  tracks(inputs: readonly Tensor[]): boolean {
    return this.#follows && inputs.some((t) => this.#inputs.has(t) || this.#dependent.has(t));
  }

  note<A>({ outputs }: Application<A>): void {
    for (const t of outputs) this.#dependent.add(t);
  }

  depends(t: Tensor): boolean {
    return this.#dependent.has(t);
  }
}

const fault = (name: string, what: string): GradmixError => new GradmixError("autograd", `${name}: ${what}`);
const describe = (spec: Spec): string => `${spec.dtype}${formatShape(spec.shape)}`;

/** The tensors that a rule gave, as a list. Throws `autograd`, naming op and rule, for anything else. */
function tensorsOf(name: string, rule: string, given: unknown): Tensor[] {
  const list: readonly unknown[] = Array.isArray(given) ? given : [given];
  return list.map((t, i) => {
    if (isTensor(t)) return t;
    throw fault(name, `${rule} gives ${show(t)}${list.length > 1 ? ` as output ${i}` : ""}, not a tensor`);
  });
}

/** Throws `autograd` unless the outputs are those that `infer` has promised. */
function wantSpecs(name: string, rule: string, outputs: readonly Tensor[], specs: readonly Spec[]): void {
  if (outputs.length !== specs.length)
    throw fault(name, `${rule} gives ${outputs.length} outputs, infer ${specs.length}`);
  for (const [i, t] of outputs.entries())
    if (t.dtype !== specs[i]!.dtype || !sameShape(t.shape, specs[i]!.shape))
      throw fault(
        name,
        `${rule} gives ${describe(t)}${specs.length > 1 ? ` as output ${i}` : ""}, infer says ${describe(specs[i]!)}`,
      );
}

/** A rule's derivatives of what it was `given`. Throws `autograd` unless there is one of each spec, or null. */
function derivativesOf(
  name: string,
  rule: string,
  specs: readonly Spec[],
  what: (i: number) => string,
  given: readonly Tensor[],
  run: () => unknown,
): (Tensor | null)[] {
  const before = youngest();
  const result = run();
  const list: readonly unknown[] = Array.isArray(result) ? result : [result];
  if (list.length !== specs.length)
    throw fault(name, `${rule} gives ${list.length} derivatives, for ${specs.length} of them`);
  return list.map((t, i) => {
    if (t === null) return null;
    if (!isTensor(t))
      throw fault(name, `${rule} gives ${show(t)} for ${what(i)}; a tensor is needed, or null for zeros`);
    if (specs[i]!.dtype !== "f32")
      throw fault(name, `${rule} gives a derivative for ${what(i)}, which is ${specs[i]!.dtype}; give null`);
    if (t.dtype !== "f32" || !sameShape(t.shape, specs[i]!.shape))
      throw fault(name, `${rule} gives ${describe(t)} for ${what(i)}, which is ${describe(specs[i]!)}`);
    // What it was given may be handed on. Other memory that was there before (an input, a constant) is somebody else's, who may write to it.
    return given.includes(t) || (t.serial > before && t.alone) ? t : copied(t);
  });
}

/** The given derivatives, with zeros in the place of null. */
function withZeros(derivatives: readonly (Tensor | null)[], specs: readonly Spec[]): Tensor[] {
  const like = derivatives.find((t) => t !== null);
  if (like === undefined || like === null) throw new GradmixError("autograd", "no derivative is wanted");
  return derivatives.map((t, i) => t ?? filled(0, { shape: specs[i]!.shape, dtype: "f32" }, like));
}

/** Outputs with handles of their own, and what the rules need. */
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
      const before = youngest();
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
      // A constant that was there before is somebody else's.
      const own = kept.map((t) => (inputs.includes(t) || t.serial > before ? t : alias(t)));
      return { outputs: [...outputs], saved: own };
    }),
  );
}

function isSaving(given: unknown): given is { readonly outputs: unknown; readonly saved: unknown } {
  return typeof given === "object" && given !== null && "outputs" in given && "saved" in given;
}

/** The engine's op. */
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
              const made = fresh((): readonly Tensor[] =>
                tensorsOf(name, "compose", compose(inputs, attributes)),
              );
              if (specs !== null) wantSpecs(name, "compose", made, specs);
              return [...made];
            }),
        }),
  };
}

/** What `infer` gave, as a list. */
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

/** A check for each attribute: of the type of its default, where that says one. */
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
 * An op of one's own, as a function of its inputs and, where it has some, its attributes. It works wherever a built-in op does: under `grad`, `gradients`,
 * `jvp`, `forwardDerivative` and `checkpoint`, inside of each other to any order.
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
 * A parameter that it uses itself has no per-example rule: `sumSink` takes its gradient, sinks that tell examples apart refuse it. Throws `config` for a
 * definition with a part that is missing or unknown. A call throws `shape` or `config` for operands and attributes that do not fit, and `autograd`, naming
 * the op, where a rule gives another number of tensors, another shape or another type than it must, or where `forward` uses a tensor that is not one of its
 * inputs and whose gradient or tangent is wanted. Whether the rules are right, `checkGradients` of gradmix/testing finds out.
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

/** What the rules of `customGradient` are given. */
export interface GradientContext {
  /** The inputs of the call. */
  readonly inputs: readonly Tensor[];
  /** What the function returned, as a list. */
  readonly outputs: readonly Tensor[];
}

/** Options of `customGradient`. */
export interface CustomGradientOptions {
  /** What messages call it. Default: the function's name. */
  readonly name?: string;
  /** Default "mixes": passes that tell examples apart refuse it. What it says must hold of the rules too. */
  readonly keepsBatch?: BatchRule;
}

/**
 * `f` with another derivative (jax.custom_vjp, tf.customGrad). `vjp` gives the cotangents of f's inputs for those of its outputs, `jvp` the tangents of its
 * outputs; null, or a null in a list, stands for zeros. Inputs and outputs are kept for the rules; where that is too much, `defineOp` says what is saved.
 * Without `jvp`, forward mode throws `autograd`. Derivatives of derivatives are those of the rules.
 *
 * `f` may capture constants. A captured tensor whose gradient or tangent is wanted (a parameter, or what depends on one) is refused with `autograd`, since
 * the rules give it none: make it an input. So are rules that give another number of tensors, another shape or another type than they must.
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
