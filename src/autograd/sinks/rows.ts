/** Row offsets for the kernels that work on segments of rows, uploaded once for each distinct list. */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { boolean, callback, integerIn, type OptionChecks, required } from "../../options.ts";
import { rowsIn } from "../../tensor/shape.ts";
import { empty, keep, sharesMemory, type Tensor } from "../../tensor/tensor.ts";
import { wantDerivative } from "../checks.ts";

interface OffsetSet {
  /** The offsets and the scale with which they were asked for first. */
  readonly offsets: readonly number[];
  readonly scale: number;
  readonly values: readonly number[];
  readonly uploaded: Tensor;
}

/** Offsets on the device, kept until `dispose`. */
export class Offsets {
  /** Lists are compared one by one, since there are few, and most differ in their first numbers. */
  readonly #sets: OffsetSet[] = [];

  /** `offsets`, which must not change, times `scale` as i32, on the backend of `like`. */
  get(offsets: readonly number[], scale: number, like: Tensor): Tensor {
    for (const set of this.#sets) if (set.offsets === offsets && set.scale === scale) return set.uploaded;
    for (const { values, uploaded } of this.#sets) if (scaled(offsets, scale, values)) return uploaded;
    const values = offsets.map((offset) => offset * scale);
    const uploaded = keep(empty([values.length], "i32", like.memory));
    uploaded.write(values);
    this.#sets.push({ offsets, scale, values, uploaded });
    return uploaded;
  }

  dispose(): void {
    for (const { uploaded } of this.#sets) uploaded.dispose();
    this.#sets.length = 0;
  }
}

/** Whether the values are the offsets times the scale. */
function scaled(offsets: readonly number[], scale: number, values: readonly number[]): boolean {
  if (offsets.length !== values.length) return false;
  for (let i = 0; i < values.length; i++) if (values[i] !== offsets[i]! * scale) return false;
  return true;
}

/** Largest number of examples for which a sink makes segments of one example each: a list of more would take all memory. */
const MOST_SEGMENTS = 2 ** 24;

/** Offsets of segments of one example each: 0, 1, … up to `examples`. Throws `config`, naming `where`, for what is no number of examples. */
export function oneEach(where: string, examples: number): number[] {
  integerIn(0, MOST_SEGMENTS)(where, examples);
  return Array.from({ length: examples + 1 }, (_, i) => i);
}

/** Number of rows of a factor [batch, …, width]. */
export function rowsOf(factor: Tensor): number {
  return rowsIn(factor.shape);
}

/**
 * Rows per example in a factor [batch, …, width] or [batch·rows, …, width]: the tokens, for a language model. Throws `shape` for rows that cannot be
 * divided equally among the examples.
 */
export function rowsPerExample(sink: string, parameter: Tensor, factor: Tensor, examples: number): number {
  const rows = rowsOf(factor);
  const per = examples === 0 ? 0 : rows / examples;
  if (!Number.isInteger(per))
    throw new GradmixError(
      "shape",
      `${sink}: parameter ${parameter.name ?? "(unnamed)"} is used on ${rows} rows, which are not the rows of ${examples} examples`,
    );
  return per;
}

/** Where a sink writes the sum of a parameter's gradients. */
export interface SumTarget {
  /**
   * The tensor that receives the sum of a parameter's gradients, in the parameter's shape. Its memory must not be that of a parameter, of a direction or
   * of another sum; a pass that would write there is refused (`autograd`).
   */
  readonly gradientOf: (parameter: Tensor) => Tensor;
  /** Adds to the existing contents instead of overwriting them with the first contribution of a pass. Default false. */
  readonly accumulate?: boolean;
}

export const sumTargetChecks: OptionChecks<SumTarget> = {
  gradientOf: required(callback),
  accumulate: boolean,
};

/** `of`, which throws `shape` where it does not return a tensor in the shape of the parameter. `what` describes the function in messages. */
export function perParameter(
  sink: string,
  what: string,
  of: (parameter: Tensor) => Tensor,
): (parameter: Tensor) => Tensor {
  return (parameter) => {
    const own = of(parameter);
    wantDerivative(sink, `what ${what} returns for ${parameter.name ?? "a parameter"}`, own, parameter);
    return own;
  };
}

/** `target`, whose `gradientOf` is checked with `perParameter`. */
export const checkedTarget = (sink: string, target: SumTarget): SumTarget => ({
  ...target,
  gradientOf: perParameter(sink, "gradientOf", target.gradientOf),
});

/**
 * Throws `autograd` if the memory to which the sum of a parameter's gradients is written is also that of a parameter or of a direction, which the pass
 * still reads, or that of another parameter's sum (unless the sums are added to what is there). Kernels do not check this, so the numbers would be wrong.
 */
export function wantApart(
  sink: string,
  parameters: Iterable<Tensor>,
  { gradientOf, accumulate = false }: SumTarget,
  directionOf: ((parameter: Tensor) => Tensor) | null,
): void {
  const written = Array.from(parameters, (parameter) => ({ parameter, own: gradientOf(parameter) }))
    .filter(({ own }) => own.size > 0)
    .sort(({ own: a }, { own: b }) => a.buffer - b.buffer || a.offset - b.offset);
  const buffers = new Set(written.map(({ own }) => own.buffer));
  const refused = (parameter: Tensor, other: string): GradmixError =>
    new GradmixError(
      "autograd",
      `${sink}: gradientOf: for ${nameOf(parameter)} it returns the memory of ${other}; give every sum memory of its own, such as arenaLike makes`,
    );
  if (!accumulate)
    for (let i = 1; i < written.length; i++) {
      const [before, after] = [written[i - 1]!, written[i]!];
      if (sharesMemory(before.own, after.own))
        throw refused(after.parameter, `the sum for ${nameOf(before.parameter)}`);
    }
  /** Refuses a tensor that is read while the sums are written. Most lie in other buffers, which is all that is compared then. */
  const readAs = (read: Tensor, what: string): void => {
    if (!buffers.has(read.buffer)) return;
    const found = written.find(({ own }) => sharesMemory(own, read));
    if (found !== undefined) throw refused(found.parameter, what);
  };
  for (const parameter of parameters) {
    readAs(parameter, nameOf(parameter));
    if (directionOf !== null) readAs(directionOf(parameter), `the direction for ${nameOf(parameter)}`);
  }
}

const nameOf = (parameter: Tensor): string => `parameter ${parameter.name ?? "(unnamed)"}`;

/** Whether a sink holds the numbers of a whole pass. */
export class WholePass {
  readonly #sink: string;
  #ended = false;
  #disposed = false;

  constructor(sink: string) {
    this.#sink = sink;
  }

  /** A pass begins: what the sink holds is not that of a whole pass. Throws `disposed` if the sink was disposed. */
  begin(): void {
    this.#wantAlive();
    this.#ended = false;
  }

  end(): void {
    this.#ended = true;
  }

  /** The sink is disposed: it has no result, and takes no pass. */
  dispose(): void {
    this.#disposed = true;
  }

  #wantAlive(): void {
    if (this.#disposed)
      throw new GradmixError("disposed", `${this.#sink}: the sink was disposed; make a new one`);
  }

  /** Throws `autograd` unless a pass has ended and no other has begun since, and `disposed` after the sink was disposed. */
  want(): void {
    this.#wantAlive();
    if (!this.#ended)
      throw new GradmixError(
        "autograd",
        `${this.#sink}: result: there is no result, since no pass into the sink has ended, or the last one failed`,
      );
  }
}

/** The sums of one pass: records which have been written, and fills the others with zeros. */
export class Sums {
  readonly #target: SumTarget;
  readonly #written = new Set<Tensor>();

  constructor(target: SumTarget) {
    this.#target = target;
  }

  begin(): void {
    this.#written.clear();
  }

  /** The tensor to which a contribution is written, and whether to add. */
  next(parameter: Tensor): { gradient: Tensor; accumulate: boolean } {
    const accumulate = this.#target.accumulate === true || this.#written.has(parameter);
    this.#written.add(parameter);
    return { gradient: this.#target.gradientOf(parameter), accumulate };
  }

  /** Writes zeros for parameters on which the loss does not depend. */
  end(parameters: Iterable<Tensor>): void {
    if (this.#target.accumulate === true) return;
    for (const parameter of parameters)
      if (!this.#written.has(parameter))
        run("fill", { value: 0 }, {}, { out: this.#target.gradientOf(parameter) });
  }
}

/** Throws `config` unless the offsets are two or more whole numbers of at least 0, none smaller than the one before it and none above `most`. */
export function checkOffsets(
  sink: string,
  option: string,
  offsets: readonly number[],
  most: number = Infinity,
): void {
  const fine = (offset: number, i: number): boolean =>
    Number.isInteger(offset) && offset >= (i === 0 ? 0 : offsets[i - 1]!) && offset <= most;
  if (offsets.length < 2 || !offsets.every(fine))
    throw new GradmixError(
      "config",
      `${sink}: ${option} is [${offsets.join(", ")}]; it must be two or more whole numbers of at least 0, none smaller than the one before${most === Infinity ? "" : ` and none above ${most}`}`,
    );
}

/** Throws `shape` unless the batch has the number of examples for which the sink was made. */
export function checkExamples(sink: string, examples: number, expected: number): void {
  if (examples !== expected)
    throw new GradmixError(
      "shape",
      `${sink}: the batch has ${examples} examples, the sink was made for ${expected}`,
    );
}

/** The error for an op whose contribution is summed over the batch before the sink can distinguish its examples. */
export function noRule(sink: string, parameter: Tensor, op: string): GradmixError {
  return new GradmixError(
    "autograd",
    `${sink}: parameter ${parameter.name ?? "(unnamed)"} is used by ${op}, which has no per-example rule; use linear, embedding, layerNorm or rmsNorm for it`,
  );
}
