/** Forward mode: keeps a tangent for each tensor that depends on the inputs. Nothing is saved: a tangent lives as long as its tensor. */
import { GradmixError } from "../errors.ts";
import { formatShape } from "../tensor/shape.ts";
import { scope, type Tensor } from "../tensor/tensor.ts";
import { type Blocks, follow } from "./batch.ts";
import { wantDerivative, wantTensor } from "./checks.ts";
import type { Application, Transform } from "./op.ts";
import { overwritten } from "./tape.ts";

/** A tangent, with the versions of it and its tensor when they were computed. */
interface Pushed {
  readonly tangent: Tensor;
  readonly version: number;
  readonly primalVersion: number;
}

const pushed = (primal: Tensor, tangent: Tensor): Pushed => ({
  tangent: tangent.retain(),
  version: tangent.version,
  primalVersion: primal.version,
});

export class ForwardPass implements Transform {
  readonly #tangents = new Map<Tensor, Pushed>();
  /** The blocks of values that have one row per example. */
  readonly #blocks = new Map<Tensor, Blocks>();

  /** `tangents` has a tangent of the same shape for each of its tensors. */
  constructor(caller: string, tangents: ReadonlyMap<Tensor, Tensor>) {
    for (const [primal, tangent] of tangents) {
      wantTensor(caller, "a tensor that has a tangent", primal);
      wantDerivative(
        caller,
        `the tangent of ${primal.name ?? `a tensor ${formatShape(primal.shape)}`}`,
        tangent,
        primal,
      );
    }
    // Only now, so that nothing is retained if one of them is refused.
    for (const [primal, tangent] of tangents) {
      this.#tangents.set(primal, pushed(primal, tangent));
    }
  }

  tangentOf(primal: Tensor): Tensor | null {
    const found = this.#tangents.get(primal);
    if (found === undefined) return null;
    const { tangent, version, primalVersion } = found;
    if (primal.version !== primalVersion)
      throw overwritten(primal, "and its tangent belongs to the old values");
    if (tangent.version !== version) throw overwritten(tangent, "but later ops still need it as a tangent");
    return tangent;
  }

  /** What is known of axis 0 of a value; null if it depends only on parameters. */
  blocksOf(primal: Tensor): Blocks | null {
    return this.#blocks.get(primal) ?? null;
  }

  tracks(inputs: readonly Tensor[]): boolean {
    return inputs.some((t) => this.#tangents.has(t));
  }

  record<A>({ op, attrs, inputs, outputs, saved }: Application<A>): void {
    const rule = op.jvp?.bind(op);
    if (rule === undefined)
      throw new GradmixError("autograd", `${op.name} has no jvp rule; build the function out of other ops`);
    const incoming = inputs.map((t) => this.tangentOf(t));
    const known = inputs.map((t, slot) => {
      const takesRows = op.emits?.includes(slot) === true && this.#tangents.has(t);
      return this.#blocks.get(t) ?? (takesRows ? "all" : null);
    });
    const tangents = scope(() => rule(incoming, { attrs, inputs, outputs, saved }));
    tangents.forEach((tangent, i) => {
      if (tangent === null) return;
      const output = outputs[i]!;
      this.#tangents.set(output, pushed(output, tangent));
      const blocks = follow(op, attrs, inputs, output, known);
      if (blocks !== null) this.#blocks.set(output, blocks);
      output.onRelease(() => this.#forget(output));
    });
    // A rule may return an input's tangent; that one keeps its owner.
    for (const tangent of tangents) if (tangent !== null && !incoming.includes(tangent)) tangent.dispose();
  }

  #forget(primal: Tensor): void {
    this.#tangents.get(primal)?.tangent.release();
    this.#tangents.delete(primal);
    this.#blocks.delete(primal);
  }

  dispose(): void {
    for (const { tangent } of this.#tangents.values()) tangent.release();
    this.#tangents.clear();
    this.#blocks.clear();
  }
}
