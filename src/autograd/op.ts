/**
 * What one op is, and how it is applied.
 *
 * An op is one object with all of its rules side by side: `infer` (shapes), `forward`, `vjp`, `jvp`. Transformations
 * (a tape, a forward-mode pass) do not wrap tensors: each keeps a side table of what it knows about them. `apply` runs
 * an op once, asks every active transformation, from the innermost outwards, to note it, and each rule is itself made
 * of ops, seen only by the transformations further out. That is what lets them nest.
 */
import { run } from "../backends/backend.ts";
import { GradmixError } from "../errors.ts";
import type { DType } from "../tensor/dtype.ts";
import { type Shape, sizeOf } from "../tensor/shape.ts";
import { empty, type Tensor } from "../tensor/tensor.ts";
import type { GradientSink } from "./sink.ts";

export interface Spec {
  readonly shape: Shape;
  readonly dtype: DType;
}

export interface VjpContext<A> {
  readonly attrs: A;
  /** What `forward` saved, in its order. */
  readonly saved: readonly Tensor[];
  readonly inputs: readonly Spec[];
  readonly outputs: readonly Spec[];
  /** For each input: is its cotangent wanted as a tensor? */
  readonly needs: readonly boolean[];
  /** For each input: the parameter whose contribution goes to the sink instead. Only slots in `op.emits` are set. */
  readonly parameters: readonly (Tensor | null)[];
  readonly sink: GradientSink;
}

export interface Op<A> {
  readonly name: string;
  /** Output shapes and types. Throws `shape`, naming the shapes that do not fit. */
  infer(inputs: readonly Spec[], attrs: A): Spec[];
  /** Computes the outputs (of the inferred specs) and says which tensors the rules below need. */
  forward(inputs: readonly Tensor[], attrs: A, specs: readonly Spec[]): { outputs: Tensor[]; saved?: Tensor[] };
  /** Cotangents of the outputs (null = zero) → cotangents of the inputs (null where not needed or zero). */
  vjp?(cotangents: readonly (Tensor | null)[], context: VjpContext<A>): (Tensor | null)[];
  /** Tangents of the inputs (null = zero) → tangents of the outputs. */
  jvp?(
    tangents: readonly (Tensor | null)[],
    context: { attrs: A; inputs: readonly Tensor[]; outputs: readonly Tensor[]; saved: readonly Tensor[] },
  ): (Tensor | null)[];
  /** Input slots that may hold a parameter and for which `vjp` calls a method of the sink. */
  readonly emits?: readonly number[];
  /** An integer or otherwise constant function: gradients stop here. */
  readonly constant?: boolean;
}

/** An op applied once, as a transformation sees it. */
export interface Application<A> {
  readonly op: Op<A>;
  readonly attrs: A;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly saved: readonly Tensor[];
}

export interface Transform {
  /** Does it know any of these inputs? */
  tracks(inputs: readonly Tensor[]): boolean;
  note<A>(application: Application<A>): void;
}

/** Active transformations, outermost first. */
let active: readonly Transform[] = [];

/** Runs `fn` with `transform` as the innermost transformation. */
export function withTransform<T>(transform: Transform, fn: () => T): T {
  return withActive([...active, transform], fn);
}

/** Runs `fn` as if `transform`, and whatever is inside of it, were not there. */
export function below<T>(transform: Transform, fn: () => T): T {
  const index = active.indexOf(transform);
  return index < 0 ? fn() : withActive(active.slice(0, index), fn);
}

/** Runs `fn` unseen by `transform` alone. */
export function without<T>(transform: Transform, fn: () => T): T {
  return withActive(
    active.filter((other) => other !== transform),
    fn,
  );
}

/** The innermost active transformation that satisfies `is`. */
export function innermost<T extends Transform>(is: (transform: Transform) => transform is T): T | null {
  for (let i = active.length - 1; i >= 0; i--) {
    const transform = active[i];
    if (is(transform)) return transform;
  }
  return null;
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

/** Applies an op: checks shapes, computes, and lets the active transformations note it. */
export function apply<A>(op: Op<A>, inputs: readonly Tensor[], attrs: A): Tensor[] {
  const specs = op.infer(inputs, attrs);
  const { outputs, saved = [] } = op.forward(inputs, attrs, specs);
  if (active.length > 0 && op.constant !== true) {
    const application = { op, attrs, inputs, outputs, saved };
    for (let i = active.length - 1; i >= 0; i--) {
      const transform = active[i];
      if (transform.tracks(inputs)) withActive(active.slice(0, i), () => transform.note(application));
    }
  }
  for (const t of saved) if (!inputs.includes(t) && !outputs.includes(t)) t.dispose();
  return outputs;
}

/** `apply` for ops with one output. */
export function apply1<A>(op: Op<A>, inputs: readonly Tensor[], attrs: A): Tensor {
  return apply(op, inputs, attrs)[0];
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
  if (spec.dtype !== dtype) throw new GradmixError("shape", `${op}: ${what} is ${spec.dtype}, ${dtype} is needed`);
}

/** Elements that a constant fill of `like`'s shape takes; on `like`'s backend. */
export function filled(value: number, spec: Spec, like: Tensor): Tensor {
  const out = allocate(spec, like);
  if (sizeOf(spec.shape) > 0) run("fill", { value }, [], [out]);
  return out;
}
