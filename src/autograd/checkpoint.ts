/** Trades time for memory: the backward pass computes parts of a function again. */
import { GradmixError } from "../errors.ts";
import { callback } from "../options.ts";
import { formatShape, sameShape } from "../tensor/shape.ts";
import { scope, Tensor, lastSerial } from "../tensor/tensor.ts";
import { type Blocks, follow } from "./batch.ts";
import { wantResult, wantTensors } from "./checks.ts";
import { fresh } from "./handles.ts";
import { type Application, innermost, withReplacement, type Transform, withTransform } from "./op.ts";
import { Tape } from "./tape.ts";

const list = (result: Tensor | readonly Tensor[]): readonly Tensor[] =>
  result instanceof Tensor ? [result] : result;

/** Replaces the tape during the first run of the function: records dependencies without saving anything. */
class Rehearsal implements Transform {
  /** Tensors that the function uses but that are neither its inputs nor made by it. */
  readonly captured = new Set<Tensor>();
  readonly #tape: Tape;
  readonly #inputs: ReadonlySet<Tensor>;
  readonly #before = lastSerial();
  readonly #dependent = new Map<Tensor, Blocks | null>();

  constructor(tape: Tape, inputs: readonly Tensor[]) {
    this.#tape = tape;
    this.#inputs = new Set(inputs);
  }

  observe(used: readonly Tensor[]): void {
    for (const t of used) if (t.serial <= this.#before && !this.#inputs.has(t)) this.captured.add(t);
  }

  tracks(used: readonly Tensor[]): boolean {
    return this.#tape.tracks(used) || used.some((t) => this.#dependent.has(t));
  }

  record<A>({ op, attrs, inputs, outputs }: Application<A>): void {
    if (inputs.some((t) => this.#tape.isValue(t) && !this.#inputs.has(t)))
      throw new GradmixError(
        "autograd",
        `checkpoint: ${op.name} uses a tensor that depends on parameters but is not an input of the checkpoint; pass it as one`,
      );
    const known = inputs.map((t, slot) => this.#dependent.get(t) ?? this.#tape.known(op, t, slot));
    for (const output of outputs) this.#dependent.set(output, follow(op, attrs, inputs, output, known));
  }

  /** The blocks of an output; undefined if it depends on nothing that the tape follows. */
  blocksOf(output: Tensor): Blocks | null | undefined {
    return this.#dependent.get(output);
  }
}

/**
 * Runs f(...inputs) without saving what f computes: the backward pass runs f again (Chen et al. 2016), so f must compute the same again. Parameters,
 * constants and its own inputs may be used freely inside; every other tensor that depends on parameters must be one of `inputs` (`autograd`
 * otherwise). Outside a backward pass it just runs f. Like an op, it returns handles of its own.
 */
export function checkpoint<R extends Tensor | Tensor[]>(
  f: (...inputs: Tensor[]) => R,
  ...inputs: Tensor[]
): R {
  callback("checkpoint: f", f);
  wantTensors("checkpoint", inputs);
  const compute = (): R =>
    fresh(() => {
      const result = f(...inputs);
      wantResult("checkpoint", result, true);
      return result;
    });
  const tape = innermost();
  if (!(tape instanceof Tape)) return scope(compute);
  const rehearsal = new Rehearsal(tape, inputs);
  const result = scope(() => withReplacement(tape, rehearsal, compute));
  const outputs = list(result).map((t) => ({ t, blocks: rehearsal.blocksOf(t) }));
  const shapes = list(result).map(({ shape }) => shape);
  const dependent = outputs.flatMap(({ t, blocks }) => (blocks === undefined ? [] : [{ t, blocks }]));
  if (dependent.length === 0) return result;
  // The same tensors, not other handles on them: f may also have captured them.
  const leaves = [...new Set(inputs.filter((t) => tape.isValue(t)))];
  tape.recordStep(
    [...leaves],
    [...new Set([...inputs, ...rehearsal.captured])],
    dependent,
    (cotangents, sink) => {
      const replay = new Tape(leaves, tape.parameters);
      try {
        const recomputed = scope(() => withTransform(replay, () => list(compute())));
        if (recomputed.length !== outputs.length)
          throw new GradmixError(
            "autograd",
            `checkpoint: the function gave ${outputs.length} outputs at first and ${recomputed.length} when it ran again`,
          );
        const other = recomputed.findIndex(({ shape }, i) => !sameShape(shape, shapes[i]!));
        if (other >= 0)
          throw new GradmixError(
            "autograd",
            `checkpoint: the function gave ${formatShape(shapes[other]!)} at first and ${formatShape(recomputed[other]!.shape)} when it ran again`,
          );
        const tracked = recomputed.filter((_, i) => outputs[i]!.blocks !== undefined);
        return replay.backward(tracked, cotangents, sink);
      } finally {
        replay.dispose();
      }
    },
  );
  return result;
}
