/**
 * Reverse mode: a tape records the ops that depend on its leaves and parameters, and plays them back.
 *
 * Each entry retains only what its op saved; playing back releases it entry by entry, so memory peaks at the end of the forward pass. A tape is
 * played at most once.
 */
import { run } from "../backends/backend.ts";
import { GradmixError } from "../errors.ts";
import { formatShape, sameShape } from "../tensor/shape.ts";
import { scope, type Tensor } from "../tensor/tensor.ts";
import { type Blocks, follow, shared } from "./batch.ts";
import {
  type Application,
  withoutTransform,
  filled,
  type Op,
  specOf,
  type Transform,
  transforming,
} from "./op.ts";
import { add } from "./ops/arithmetic.ts";
import type { GradientSink } from "./sink.ts";

/** A computed value, or a leaf. It holds its cotangent. */
interface Value {
  /** Whether axis 0 is still the batch; null if this is not needed. */
  readonly blocks: Blocks | null;
  /** Version of the tensor when it was defined. */
  readonly version: number;
  cotangent: Tensor | null;
}

type Pull = (cotangents: readonly (Tensor | null)[], sink: GradientSink) => (Tensor | null)[];

/** A tensor that an entry defines. */
interface Defined {
  readonly t: Tensor;
  readonly blocks: Blocks | null;
}

interface Entry {
  /** Name of the op. */
  readonly name: string;
  readonly inputs: readonly (Value | null)[];
  readonly outputs: readonly Value[];
  readonly retained: readonly Tensor[];
  /** Versions of the retained tensors. */
  readonly versions: readonly number[];
  readonly pull: Pull;
}

const noSink: GradientSink = {
  name: "none",
  linear: () => {},
  bias: () => {},
  gain: () => {},
  embedding: () => {},
  dense: () => {},
};

export class Tape implements Transform {
  readonly #values = new Map<Tensor, Value>();
  readonly #parameters: ReadonlySet<Tensor>;
  readonly #leaves: readonly Tensor[];
  readonly #distinguishes: (parameter: Tensor) => boolean;
  #entries: Entry[] = [];

  /**
   * Cotangents are collected for `leaves`; contributions to `parameters` go to the sink. Examples are told apart for the parameters that the sink
   * `distinguishes`.
   */
  constructor(
    leaves: readonly Tensor[],
    parameters: ReadonlySet<Tensor> = new Set(),
    distinguishes: (parameter: Tensor) => boolean = () => true,
  ) {
    this.#leaves = leaves;
    this.#distinguishes = distinguishes;
    this.#parameters = parameters;
    for (const leaf of leaves)
      this.#values.set(leaf, { blocks: null, version: leaf.version, cotangent: null });
  }

  get parameters(): ReadonlySet<Tensor> {
    return this.#parameters;
  }

  tracks(inputs: readonly Tensor[]): boolean {
    for (let slot = 0; slot < inputs.length; slot++) {
      const t = inputs[slot]!;
      if (this.#values.has(t) || this.#parameters.has(t)) return true;
    }
    return false;
  }

  /** Whether the tensor depends on a leaf or on the output of a recorded op (parameters themselves do not count). */
  isValue(t: Tensor): boolean {
    return this.#values.has(t);
  }

  /** What is known of axis 0 of an op's input. */
  known<A>(op: Op<A>, t: Tensor, slot: number): Blocks | "all" | null {
    const value = this.#values.get(t);
    if (value !== undefined) return value.blocks;
    return this.#parameters.has(t) ? this.#ofParameter(t, op.name, op.emits?.includes(slot) === true) : null;
  }

  /** What is known of axis 0 of a parameter that an op uses; null if its gradients are not told apart by example. */
  #ofParameter(parameter: Tensor, op: string, emitted: boolean): Blocks | "all" | null {
    if (!this.#distinguishes(parameter)) return null;
    return emitted ? "all" : shared(parameter, op);
  }

  /** What is known of axis 0 of a value. */
  blocksOf(t: Tensor): Blocks | null {
    return this.#values.get(t)?.blocks ?? null;
  }

  /** Throws `autograd` for a result that was overwritten after it was computed. */
  wantIntact(results: readonly Tensor[]): void {
    for (const t of results) this.#valueOf(t, null);
  }

  record<A>({ op, attrs, inputs, outputs, saved }: Application<A>): void {
    const { name, vjp, emits } = op;
    if (vjp === undefined)
      throw new GradmixError("autograd", `${name} has no vjp rule; build the function out of other ops`);
    // Lists of the right length: engines give one that grows room for many elements.
    const count = inputs.length;
    const values = new Array<Value | null>(count);
    const known = new Array<Blocks | "all" | null>(count);
    const needs = new Array<boolean>(count);
    /** The parameters that the rule gives to the sink, and those whose gradients are given to it afterwards; null if there are none. */
    const parameters = new Array<Tensor | null>(count);
    let dense: (Tensor | null)[] | null = null;
    for (let slot = 0; slot < count; slot++) {
      const t = inputs[slot]!;
      const value = this.#valueOf(t, name);
      const own = this.#parameters.has(t) ? t : null;
      const emitted = own !== null && emits?.includes(slot) === true;
      values[slot] = value;
      known[slot] =
        value !== null ? value.blocks : own === null ? null : this.#ofParameter(own, name, emitted);
      needs[slot] = value !== null || (own !== null && !emitted);
      parameters[slot] = emitted ? own : null;
      if (own !== null && !emitted) (dense ??= new Array<Tensor | null>(count).fill(null))[slot] = own;
    }
    // Before anything is retained, because this may throw.
    const defined = outputs.map((t) => ({ t, blocks: follow(op, attrs, inputs, t, known) }));
    const retained = saved.map((t) => t.retain());
    const [ins, outs] = [inputs.map(specOf), outputs.map(specOf)];
    this.#push(name, values, defined, retained, (cotangents, sink) => {
      const context = { attrs, saved: retained, inputs: ins, outputs: outs, needs, parameters, sink };
      const gradients = vjp.call(op, cotangents, context);
      dense?.forEach((parameter, slot) => {
        const gradient = gradients[slot] ?? null;
        if (parameter !== null && gradient !== null) sink.dense(parameter, name, gradient);
      });
      return gradients;
    });
  }

  /** Records a composite step with its own pullback (checkpointing), which needs the tensors `used` again. */
  recordStep(
    inputs: readonly Tensor[],
    used: readonly Tensor[],
    outputs: readonly Defined[],
    pull: Pull,
  ): void {
    const values = inputs.map((t) => this.#valueOf(t, "checkpoint"));
    this.#push(
      "checkpoint",
      values,
      outputs,
      used.map((t) => t.retain()),
      pull,
    );
  }

  /** What is known of a tensor that an op uses or, with null, that the function returned. */
  #valueOf(t: Tensor, user: string | null): Value | null {
    const value = this.#values.get(t) ?? null;
    if (value !== null && value.version !== t.version)
      throw overwritten(t, `before ${user === null ? "the function returned" : `${user} used`} it`);
    return value;
  }

  #push(
    name: string,
    inputs: readonly (Value | null)[],
    outputs: readonly Defined[],
    retained: readonly Tensor[],
    pull: Pull,
  ): void {
    const defined = outputs.map(({ t, blocks }) => {
      const value: Value = { blocks, version: t.version, cotangent: null };
      this.#values.set(t, value);
      return value;
    });
    const versions = retained.map((t) => t.version);
    this.#entries.push({ name, inputs, outputs: defined, retained, versions, pull });
  }

  /**
   * Plays the tape back from `outputs` with the given cotangents (same shapes). Returns the leaves' cotangents, zeros for a leaf that does not
   * influence the outputs; they belong to the current scope. Weight contributions go to `sink`.
   */
  backward(
    outputs: readonly Tensor[],
    cotangents: readonly (Tensor | null)[],
    sink: GradientSink = noSink,
  ): Tensor[] {
    const leafValues = this.#leaves.map((leaf) => this.#values.get(leaf) ?? null);
    try {
      outputs.forEach((output, i) => {
        const value = this.#values.get(output);
        const cotangent = cotangents[i];
        if (cotangent === undefined)
          throw new GradmixError(
            "autograd",
            `vjp: ${cotangents.length} cotangents were given for ${outputs.length} outputs`,
          );
        if (cotangent === null || value === undefined) return;
        if (!sameShape(cotangent.shape, output.shape))
          throw new GradmixError(
            "shape",
            `vjp: cotangent ${formatShape(cotangent.shape)} for an output of shape ${formatShape(output.shape)}`,
          );
        addTo(value, cotangent);
      });
      this.#values.clear();
      for (let entry = this.#entries.pop(); entry !== undefined; entry = this.#entries.pop())
        this.#play(entry, sink);
      return this.#leaves.map(
        (leaf, i) => leafValues[i]?.cotangent?.adopt() ?? filled(0, specOf(leaf), leaf),
      );
    } finally {
      this.dispose();
      for (const value of leafValues) if (value !== null) drop(value);
    }
  }

  #play(entry: Entry, sink: GradientSink): void {
    const { name, inputs, outputs, retained, versions } = entry;
    try {
      if (outputs.every(untouched)) return;
      const incoming = outputs.map(cotangentOf);
      for (let i = 0; i < retained.length; i++)
        if (retained[i]!.version !== versions[i])
          throw overwritten(retained[i]!, `and ${name} needs it for the gradient`);
      const gradients = scope(() => withoutTransform(this, () => entry.pull(incoming, sink)));
      for (let slot = 0; slot < gradients.length; slot++) {
        const value = inputs[slot];
        if (value === undefined)
          throw new GradmixError("autograd", `${name}: its vjp gives ${gradients.length} cotangents`);
        const gradient = gradients[slot]!;
        if (gradient !== null && value !== null) addTo(value, gradient);
      }
      // A rule may return its incoming cotangent, or a saved tensor; those keep their owner.
      for (const gradient of gradients)
        if (gradient !== null && !incoming.includes(gradient) && !retained.includes(gradient))
          gradient.dispose();
    } finally {
      letGo(entry);
    }
  }

  /** Releases everything without playing back. */
  dispose(): void {
    for (const entry of this.#entries) {
      letGo(entry);
      for (const value of entry.inputs) if (value !== null) drop(value);
    }
    this.#entries = [];
    this.#values.clear();
  }
}

/** The error for a tensor whose elements have changed since they were recorded. */
export function overwritten(t: Tensor, reason: string): GradmixError {
  return new GradmixError(
    "autograd",
    `tensor ${t.name ?? ""}${formatShape(t.shape)}, or what shares its memory, was overwritten (by write, or by an optimizer's step) after it was recorded, ${reason}; overwrite it before recording or after playing back`,
  );
}

const untouched = ({ cotangent }: Value): boolean => cotangent === null;
const cotangentOf = ({ cotangent }: Value): Tensor | null => cotangent;

function letGo(entry: Entry): void {
  for (const t of entry.retained) t.release();
  for (const value of entry.outputs) drop(value);
}

function drop(value: Value): void {
  value.cotangent?.release();
  value.cotangent = null;
}

/** Adds to a value's cotangent, which shares `gradient` until there is something to add. */
function addTo(value: Value, gradient: Tensor): void {
  const sum = value.cotangent;
  if (sum === null) {
    value.cotangent = gradient.retain();
  } else if (sum.unshared && sum !== gradient && !transforming()) {
    run("accumulate", { scale: 1 }, { x: gradient }, { y: sum });
  } else {
    const fresh = add(sum, gradient);
    value.cotangent = fresh.retain();
    fresh.dispose();
    sum.release();
  }
}
