/**
 * What an op is, and how it is applied.
 *
 * An op is one object with all of its rules: `infer` (shapes), `forward`, `vjp`, `jvp`. Transformations (a tape, a forward-mode pass) do not wrap
 * tensors: each keeps a table of what it knows about them. `apply` runs an op once and lets every active transformation, from the outermost inwards,
 * record it. Each rule is itself made of ops, which only the outer transformations see. This makes transformations nest.
 */
import { run } from "../backends/backend.ts";
import { GradmixError } from "../errors.ts";
import type { DType } from "../tensor/dtype.ts";
import { type Shape, sizeOf } from "../tensor/shape.ts";
import { askWhetherFollowed, empty, type Tensor } from "../tensor/tensor.ts";
import { wantTensors } from "./checks.ts";
import type { KeepsBatch } from "./batch.ts";
import type { GradientSink } from "./sink.ts";

/** The attributes of an op that has none. */
export type None = Record<never, never>;
export const none: None = {};

/** Shape and element type of a tensor. */
export interface Spec {
  /** Extents of the axes. */
  readonly shape: Shape;
  /** Element type. */
  readonly dtype: DType;
}

type Slots = readonly unknown[];
/** One `T` per slot. */
export type PerSlot<L extends Slots, T> = { readonly [N in keyof L]: T };
/**
 * A slot per name; the names are separated by spaces. "x weight bias?" has two or three, and "q k v ..." at least three. Names that are not known may
 * be any number.
 */
export type SlotsOf<Names extends string> = string extends Names
  ? Slots
  : Names extends ""
    ? readonly []
    : Names extends `${infer First} ${infer Rest}`
      ? readonly [...SlotOf<First>, ...SlotsOf<Rest>]
      : SlotOf<Names>;
type SlotOf<Name extends string> = Name extends "..."
  ? readonly unknown[]
  : Name extends `${string}?`
    ? readonly [unknown?]
    : readonly [unknown];

export interface VjpContext<A, I extends Slots = Slots, O extends Slots = Slots, S extends Slots = Slots> {
  readonly attrs: A;
  /** The tensors that `forward` saved, in its order. */
  readonly saved: PerSlot<S, Tensor>;
  readonly inputs: PerSlot<I, Spec>;
  readonly outputs: PerSlot<O, Spec>;
  /** For each input, whether its cotangent is needed as a tensor. */
  readonly needs: PerSlot<I, boolean>;
  /** For each input, the parameter whose contribution goes to the sink instead. Only slots in `op.emits` are set. */
  readonly parameters: PerSlot<I, Tensor | null>;
  readonly sink: GradientSink;
}

/** An op with attributes `A`; its inputs, its outputs and what it saves have these names. */
export type Op<
  A,
  Inputs extends string = string,
  Outputs extends string = string,
  Saved extends string = string,
> = OpOf<A, SlotsOf<Inputs>, SlotsOf<Outputs>, SlotsOf<Saved>>;

export interface OpOf<A, I extends Slots = Slots, O extends Slots = Slots, S extends Slots = Slots> {
  readonly name: string;
  /** Computes shapes and types of the outputs. Throws `shape`, naming the shapes that do not fit. */
  infer(inputs: PerSlot<I, Spec>, attrs: A): Spec[];
  /**
   * Whether axis 0 of the input `slot` is axis 0 of the output, row for row, so that no row of it influences another row of the output. Passes that
   * distinguish examples rely on it; batch.ts has the common cases. "No" is always safe. It is not used for `constant` ops.
   */
  readonly keepsBatch: KeepsBatch<A>;
  /** Computes the outputs (with the inferred specs) and selects the tensors that the rules below need. */
  forward(
    inputs: PerSlot<I, Tensor>,
    attrs: A,
    specs: PerSlot<O, Spec>,
  ): { outputs: Tensor[]; saved?: Tensor[] };
  /** Computes the cotangents of the inputs (null if not needed or zero) from those of the outputs (null means zero). */
  vjp?(cotangents: PerSlot<O, Tensor | null>, context: VjpContext<A, I, O, S>): (Tensor | null)[];
  /** Computes the tangents of the outputs from those of the inputs (null means zero). */
  jvp?(
    tangents: PerSlot<I, Tensor | null>,
    context: { attrs: A; inputs: PerSlot<I, Tensor>; outputs: PerSlot<O, Tensor>; saved: PerSlot<S, Tensor> },
  ): (Tensor | null)[];
  /**
   * The same function made of simpler ops. It runs instead of the op where the rules above would themselves have to be differentiated: under two
   * transformations at once, or under one for which there is no rule.
   */
  compose?(inputs: PerSlot<I, Tensor>, attrs: A): Tensor[];
  /** Input slots that may hold a parameter and for which `vjp` calls a method of the sink. */
  readonly emits?: readonly number[];
  /** Whether the function is integer-valued or otherwise constant, so that gradients stop here. */
  readonly constant?: boolean;
}

/**
 * Rules of an op that is linear in input `slot` while its other inputs, which `forward` must save, are constants: `move`
 * moves tangents, `back` moves cotangents.
 */
export function linearIn<A>(
  name: string,
  slot: number,
  move: (constants: readonly Tensor[], t: Tensor, attrs: A) => Tensor,
  back: (constants: readonly Tensor[], ct: Tensor, attrs: A) => Tensor,
): Required<Pick<Op<A, string, "y">, "vjp" | "jvp">> {
  const check = (touched: readonly boolean[]): void => {
    if (touched.some((yes, i) => yes && i !== slot))
      throw new GradmixError(
        "autograd",
        `${name} has no second derivative; build the function out of plain ops`,
      );
  };
  return {
    vjp([ct], { needs, saved, attrs }) {
      check(needs);
      return needs.map((_, i) => (i === slot && ct !== null ? back(saved, ct, attrs) : null));
    },
    jvp(tangents, { inputs, attrs }) {
      check(tangents.map((t) => t !== null));
      const tangent = tangents[slot] ?? null;
      const constants = inputs.filter((_, i) => i !== slot);
      return [tangent === null ? null : move(constants, tangent, attrs)];
    },
  };
}

/** A single application of an op, as a transformation sees it. */
export interface Application<A> {
  readonly op: Op<A>;
  readonly attrs: A;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly saved: readonly Tensor[];
}

export interface Transform {
  /** Called with the inputs of every op that is applied. */
  observe?(inputs: readonly Tensor[]): void;
  /** Whether the transformation follows any of these inputs. */
  tracks(inputs: readonly Tensor[]): boolean;
  record<A>(application: Application<A>): void;
}

/** No active transformation. */
const alone: readonly Transform[] = [];
/** Active transformations, outermost first. */
let active: readonly Transform[] = alone;

/** Runs `fn` with `transform` as the innermost transformation. */
export function withTransform<T>(transform: Transform, fn: () => T): T {
  return withActive([...active, transform], fn);
}

/** Runs `fn` as if `transform`, and everything inside it, were not active. */
export function withoutTransform<T>(transform: Transform, fn: () => T): T {
  const index = active.indexOf(transform);
  return index < 0 ? fn() : withActive(index === 0 ? alone : active.slice(0, index), fn);
}

/** Runs `fn` with `other` in place of `transform`. */
export function withReplacement<T>(transform: Transform, other: Transform, fn: () => T): T {
  return withActive(
    active.map((each) => (each === transform ? other : each)),
    fn,
  );
}

/** The innermost active transformation. */
export function innermost(): Transform | null {
  return active.at(-1) ?? null;
}

function withActive<T>(stack: readonly Transform[], fn: () => T): T {
  const previous = active;
  active = stack;
  try {
    return fn();
  } finally {
    active = previous;
  }
}

/** Runs `fn` with one transformation, or none, in place of all active ones. */
export function enclosed<T>(transform: Transform | null, fn: () => T): T {
  return withActive(transform === null ? [] : [transform], fn);
}

/** The active transformations, outermost first. */
export function transformations(): readonly Transform[] {
  return active;
}

/** Whether any transformation is active. */
export function transforming(): boolean {
  return active.length > 0;
}

/** Whether an active transformation follows any of these. An op whose inputs none follows need not compute what only its rules use. */
export function followed(inputs: readonly Tensor[]): boolean {
  for (let i = 0; i < active.length; i++) if (active[i]!.tracks(inputs)) return true;
  return false;
}

// A view is no op, so no transformation would record it.
askWhetherFollowed((t) => {
  for (const transform of active) transform.observe?.([t]);
  return followed([t]);
});

/** The number of transformations that follow any of these. */
function watching(stack: readonly Transform[], inputs: readonly Tensor[]): number {
  let count = 0;
  for (let i = 0; i < stack.length; i++) if (stack[i]!.tracks(inputs)) count++;
  return count;
}

/** Outermost first: the rule of an inner transformation may use the outputs, so the outer ones must know them by then. */
function recordIn<A>(stack: readonly Transform[], application: Application<A>): void {
  try {
    for (let i = 0; i < stack.length; i++) {
      const transform = stack[i]!;
      if (!transform.tracks(application.inputs)) continue;
      active = i === 0 ? alone : stack.slice(0, i);
      transform.record(application);
    }
  } finally {
    active = stack;
  }
}

const nothing: readonly Tensor[] = [];

/** Applies an op: checks shapes, computes, and lets the active transformations record it. */
export function apply<A>(op: Op<A>, inputs: readonly Tensor[], attrs: A): Tensor[] {
  wantTensors(op.name, inputs);
  const specs = op.infer(inputs, attrs);
  const stack = active;
  for (let i = 0; i < stack.length; i++) stack[i]!.observe?.(inputs);
  // With one transformation, `compose` is only for ops without a rule.
  if (
    op.compose !== undefined &&
    (stack.length > 1 || (stack.length === 1 && op.vjp === undefined)) &&
    watching(stack, inputs) > (op.vjp === undefined ? 0 : 1)
  )
    return op.compose(inputs, attrs);
  const { outputs, saved = nothing } = op.forward(inputs, attrs, specs);
  if (stack.length > 0 && op.constant !== true) recordIn(stack, { op, attrs, inputs, outputs, saved });
  // Whoever needs these has retained them by now.
  for (let i = 0; i < saved.length; i++) {
    const t = saved[i]!;
    if (!inputs.includes(t) && !outputs.includes(t)) t.dispose();
  }
  return outputs;
}

/** `apply` for ops with one output. */
export function apply1<A>(op: Op<A>, inputs: readonly Tensor[], attrs: A): Tensor {
  return apply(op, inputs, attrs)[0]!;
}

/** Memory for an output, on the backend of `like`. */
export function allocate(spec: Spec, like: Tensor): Tensor {
  return empty(spec.shape, spec.dtype, like.memory);
}

export function specOf(t: Spec): Spec {
  return { shape: t.shape, dtype: t.dtype };
}

/** Throws `shape` unless the input has the type. */
export function wantType(op: string, what: string, spec: Spec, dtype: DType): void {
  if (spec.dtype !== dtype)
    throw new GradmixError("shape", `${op}: ${what} is ${spec.dtype}, ${dtype} is needed`);
}

/** A tensor with the same value everywhere, on the backend of `like`. */
export function filled(value: number, spec: Spec, like: Tensor): Tensor {
  const out = allocate(spec, like);
  if (sizeOf(spec.shape) > 0) run("fill", { value }, {}, { out });
  return out;
}
