/** A small transformer that uses every op with parameters: learned or rotary positions, both norms, biases, an activation. */
import {
  add,
  causalAttention,
  checkpoint,
  embedding,
  exampleLosses,
  foldIn,
  key,
  layerNorm,
  linear,
  mul,
  randomNormal,
  rmsNorm,
  rope,
  swiglu,
  tensor,
  type Tensor,
} from "gradmix";

const [EXAMPLES, TIME, DIM, HEADS, VOCAB] = [3, 4, 4, 2, 5];

const shapes: readonly (readonly [string, readonly number[]])[] = [
  ["tokens", [VOCAB, DIM]],
  ["positions", [TIME, DIM]],
  ["norm1.gain", [DIM]],
  ["norm1.bias", [DIM]],
  ["qkv.weight", [2 * DIM, DIM]],
  ["qkv.bias", [2 * DIM]],
  ["attention.out", [DIM, DIM]],
  ["norm2.gain", [DIM]],
  ["up.weight", [6, DIM]],
  ["up.bias", [6]],
  ["gate.weight", [2 * 3, 6]],
  ["down.weight", [DIM, 3]],
  ["head.weight", [VOCAB, DIM]],
];

export interface TinyModel {
  readonly parameters: readonly Tensor[];
  readonly examples: number;
  /** Losses [3] of ragged examples (4, 3 and 2 counted tokens), with ids that repeat within an example. */
  losses(parameters: readonly Tensor[], checkpointed?: boolean): Tensor;
  /** The loss [1] of one example alone. */
  lossOf(parameters: readonly Tensor[], example: number): Tensor;
}

const IDS = [0, 1, 0, 3, 4, 4, 4, 2, 1, 2, 3, 0];
const TARGETS = [1, 0, 3, 4, 4, 4, 2, -1, -1, 3, 0, -1];

export function tinyModel(): TinyModel {
  const parameters = shapes.map(([name, shape], n) => {
    const p = randomNormal(foldIn(key(5), n), shape);
    p.name = name;
    return p;
  });

  const block = (x: Tensor, p: readonly Tensor[]): Tensor => {
    const [, , gain1, bias1, qkv, qkvBias, out, gain2, up, upBias, gate, down] = p;
    const h = linear(layerNorm(x, gain1, bias1), qkv, qkvBias);
    const rotated = rope(h, { heads: HEADS + 1, headDim: DIM / HEADS });
    const attended = add(x, linear(causalAttention(rotated, { heads: HEADS, kvHeads: 1 }), out));
    const wide = linear(rmsNorm(attended, gain2), up, upBias, { activation: "gelu" });
    return add(attended, linear(swiglu(linear(wide, gate)), down));
  };

  const forward = (p: readonly Tensor[], first: number, count: number, checkpointed: boolean): Tensor => {
    const part = (data: number[]): Tensor =>
      tensor(data.slice(first * TIME, (first + count) * TIME), [count, TIME], "i32");
    const places = tensor(
      Array.from({ length: count * TIME }, (_, n) => n % TIME),
      [count, TIME],
      "i32",
    );
    const x = add(embedding(p[0], part(IDS)), embedding(p[1], places));
    // With `grad` the parameters are inputs of the block; with a sink they are captured.
    const y = checkpointed ? checkpoint((x, ...p) => block(x, p), x, ...p) : block(x, p);
    return exampleLosses(linear(mul(y, 0.5), p[12]), part(TARGETS));
  };

  return {
    parameters,
    examples: EXAMPLES,
    losses: (p, checkpointed = false) => forward(p, 0, EXAMPLES, checkpointed),
    lossOf: (p, example) => forward(p, example, 1, false),
  };
}
