/**
 * Reverse mode: a tape notes the ops that depend on its leaves and parameters, and plays them back.
 *
 * Each entry retains only what its op saved; playing back lets go of it entry by entry, so memory peaks at the end of the
 * forward pass. A tape is played at most once.
 */
import { GradmixError } from "../errors.ts";
import { formatShape, sameShape } from "../tensor/shape.ts";
import { keep, scope, type Tensor } from "../tensor/tensor.ts";
import { type Application, below, filled, type Spec, specOf, type Transform, type VjpContext } from "./op.ts";
import { add } from "./ops/arithmetic.ts";
import type { GradientSink } from "./sink.ts";

/** Something that was computed: the output `index` of an entry, or a leaf. */
interface Value {
  readonly spec: Spec;
  cotangent: Tensor | null;
}

interface Entry {
  readonly name: string;
  readonly inputs: readonly (Value | null)[];
  readonly outputs: readonly Value[];
  readonly retained: readonly Tensor[];
  pull(cotangents: readonly (Tensor | null)[], sink: GradientSink): (Tensor | null)[];
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
  #entries: Entry[] = [];

  /** Cotangents are collected for `leaves`; contributions to `parameters` go to the sink. */
  constructor(leaves: readonly Tensor[], parameters: ReadonlySet<Tensor> = new Set()) {
    this.#leaves = leaves;
    this.#parameters = parameters;
    for (const leaf of leaves) this.#values.set(leaf, { spec: specOf(leaf), cotangent: null });
  }

  get parameters(): ReadonlySet<Tensor> {
    return this.#parameters;
  }

  tracks(inputs: readonly Tensor[]): boolean {
    return inputs.some((t) => this.#values.has(t) || this.#parameters.has(t));
  }

  note<A>({ op, attrs, inputs, outputs, saved }: Application<A>): void {
    if (op.vjp === undefined) throw new GradmixError("autograd", `${op.name} has no vjp rule`);
    const rule = op.vjp.bind(op);
    const emits = op.emits ?? [];
    const values = inputs.map((t) => this.#values.get(t) ?? null);
    const parameters = inputs.map((t) => (this.#parameters.has(t) ? t : null));
    const emitted = parameters.map((t, slot) => (emits.includes(slot) ? t : null));
    const dense = parameters.map((t, slot) => (emits.includes(slot) ? null : t));
    const base: Omit<VjpContext<A>, "sink"> = {
      attrs,
      saved: saved.map((t) => t.retain()),
      inputs: inputs.map(specOf),
      outputs: outputs.map(specOf),
      needs: values.map((value, slot) => value !== null || dense[slot] !== null),
      parameters: emitted,
    };
    this.#push({
      name: op.name,
      inputs: values,
      outputs: this.#define(outputs),
      retained: base.saved,
      pull(cotangents, sink) {
        const gradients = rule(cotangents, { ...base, sink });
        dense.forEach((parameter, slot) => {
          const gradient = gradients[slot] ?? null;
          if (parameter !== null && gradient !== null) sink.dense(parameter, op.name, gradient);
        });
        return gradients;
      },
    });
  }

  /** Notes a composite step with a pull of its own (checkpointing). */
  noteStep(
    name: string,
    inputs: readonly Tensor[],
    outputs: readonly Tensor[],
    pull: (cotangents: readonly (Tensor | null)[], sink: GradientSink) => (Tensor | null)[],
  ): void {
    this.#push({
      name,
      inputs: inputs.map((t) => this.#values.get(t) ?? null),
      outputs: this.#define(outputs),
      retained: inputs.map((t) => t.retain()),
      pull,
    });
  }

  #define(outputs: readonly Tensor[]): Value[] {
    return outputs.map((t) => {
      const value: Value = { spec: specOf(t), cotangent: null };
      this.#values.set(t, value);
      return value;
    });
  }

  #push(entry: Entry): void {
    this.#entries.push(entry);
  }

  /**
   * Plays the tape back from `outputs` with the given cotangents (same shapes). Returns the leaves' cotangents, zeros where
   * a leaf does not reach the outputs. Weight contributions go to `sink`.
   */
  backward(
    outputs: readonly Tensor[],
    cotangents: readonly (Tensor | null)[],
    sink: GradientSink = noSink,
  ): Tensor[] {
    const entries = this.#entries;
    this.#entries = [];
    const leafValues = this.#leaves.map((leaf) => this.#values.get(leaf));
    try {
      outputs.forEach((output, i) => {
        const value = this.#values.get(output);
        const cotangent = cotangents[i];
        if (cotangent === null || value === undefined) return;
        if (!sameShape(cotangent.shape, output.shape))
          throw new GradmixError(
            "shape",
            `vjp: cotangent ${formatShape(cotangent.shape)} for an output of shape ${formatShape(output.shape)}`,
          );
        accumulate(value, cotangent);
      });
      this.#values.clear();
      for (let entry = entries.pop(); entry !== undefined; entry = entries.pop()) this.#play(entry, sink);
    } finally {
      for (const entry of entries) for (const t of entry.retained) t.dispose();
    }
    return this.#leaves.map((leaf, i) => {
      const cotangent = leafValues[i]?.cotangent ?? null;
      return cotangent ?? filled(0, specOf(leaf), leaf);
    });
  }

  #play(entry: Entry, sink: GradientSink): void {
    const incoming = entry.outputs.map((value) => value.cotangent);
    try {
      if (incoming.every((t) => t === null)) return;
      const gradients = scope(() => below(this, () => entry.pull(incoming, sink)));
      gradients.forEach((gradient, slot) => {
        const value = entry.inputs[slot];
        if (gradient !== null && value !== null) accumulate(value, gradient);
      });
      // A rule may hand one tensor to several inputs, or its incoming cotangent on; let go of each new one once.
      for (const gradient of new Set(gradients))
        if (gradient !== null && !incoming.includes(gradient)) gradient.dispose();
    } finally {
      for (const t of entry.retained) t.dispose();
      for (const value of entry.outputs) {
        value.cotangent?.dispose();
        value.cotangent = null;
      }
    }
  }

  /** Lets go of everything without playing back. */
  dispose(): void {
    for (const entry of this.#entries) for (const t of entry.retained) t.dispose();
    this.#entries = [];
    this.#values.clear();
  }
}

/** Adds into a value's cotangent, which shares `gradient` until there is something to add. */
function accumulate(value: Value, gradient: Tensor): void {
  const sum = value.cotangent;
  value.cotangent = sum === null ? gradient.retain() : keep(add(sum, gradient));
  sum?.dispose();
}
