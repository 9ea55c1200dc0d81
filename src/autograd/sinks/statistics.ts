/** The numbers that an align sink collects: on the device during a pass, read at once after it. */
import { run } from "../../backends/backend.ts";
import type { TensorData } from "../../tensor/dtype.ts";
import { extentsOf } from "../../tensor/shape.ts";
import { empty, keep, type Tensor } from "../../tensor/tensor.ts";

/** Where the numbers of one use of a parameter go. */
export interface Row {
  readonly dots: Tensor;
  readonly squares: Tensor;
  readonly groups: Tensor | null;
  readonly direction: Tensor;
}

export interface Numbers {
  readonly dots: Float64Array;
  readonly squares: Float64Array;
  readonly groups: Float64Array;
  readonly directions: readonly { readonly parameter: Tensor; readonly direction: number }[];
}

/** Rows of numbers on the device, [dots: S, squares: S, groups: G, direction: 1] each, in blocks that are reused. */
export class Statistics {
  readonly #segments: number;
  readonly #groups: number;
  readonly #blocks: Tensor[] = [];
  #parameters: Tensor[] = [];

  constructor(segments: number, groups: number) {
    this.#segments = segments;
    this.#groups = groups;
  }

  get #width(): number {
    return 2 * this.#segments + this.#groups + 1;
  }

  begin(): void {
    this.#parameters = [];
    for (const block of this.#blocks) run("fill", { value: 0 }, {}, { out: block });
  }

  /** Views in the current scope. A pass that uses each of its parameters once fits into one block of `expected` rows. */
  next(parameter: Tensor, expected: number): Row {
    let index = this.#parameters.push(parameter) - 1;
    let block: Tensor | null = null;
    for (const candidate of this.#blocks) {
      const [rows] = extentsOf(candidate.shape, 2);
      if (index < rows) {
        block = candidate;
        break;
      }
      index -= rows;
    }
    if (block === null) {
      block = keep(empty([Math.max(1, expected), this.#width], "f32", parameter.memory));
      run("fill", { value: 0 }, {}, { out: block });
      this.#blocks.push(block);
    }
    const [s, g] = [this.#segments, this.#groups];
    const start = index * this.#width;
    return {
      dots: block.part([s], start),
      squares: block.part([s], start + s),
      groups: g === 0 ? null : block.part([g], start + 2 * s),
      direction: block.part([1], start + 2 * s + g),
    };
  }

  async read(): Promise<Numbers> {
    // Another pass may begin while this waits.
    const parameters = this.#parameters;
    const blocks = await Promise.all(this.#blocks.map((block) => block.data()));
    const width = this.#width;
    const dots = new Float64Array(this.#segments);
    const squares = new Float64Array(this.#segments);
    const groups = new Float64Array(this.#groups);
    const directions: { parameter: Tensor; direction: number }[] = [];
    let [block, start] = [0, 0];
    for (const parameter of parameters) {
      if (start === blocks[block]!.length) [block, start] = [block + 1, 0];
      const data = blocks[block]!;
      addInto(dots, data, start);
      addInto(squares, data, start + dots.length);
      addInto(groups, data, start + 2 * dots.length);
      directions.push({ parameter, direction: data[start + width - 1]! });
      start += width;
    }
    return { dots, squares, groups, directions };
  }

  dispose(): void {
    for (const block of this.#blocks) block.dispose();
    this.#blocks.length = 0;
    this.#parameters = [];
  }
}

function addInto(sums: Float64Array, values: TensorData, start: number): void {
  for (let i = 0; i < sums.length; i++) sums[i]! += values[start + i]!;
}
