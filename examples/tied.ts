/**
 * Tied embeddings: one matrix turns tokens into vectors and vectors into logits. Build with `npm run build:dev`, then `node dist-dev/examples/tied.js`.
 *
 * A pass that measures single examples meets such a parameter twice. Inner products with a given direction add up use by use; norms do not. So, of the
 * ways in which DGA can normalise alignments,
 *
 * - `tracked`, the default, needs inner products and their standard errors, and works as it is; of the estimators only "perDomain" gives no errors;
 * - `raw`, which needs no norms either, works with every estimator and with `from: "step"`;
 * - `cosine`, `clipped`, `doge` and `adam` work with `estimator: "perDomain"`, which has whole gradients (and with "sketch", whose sketches add up
 *   before they are squared). Other estimators refuse them with an error that names the parameter.
 */
import {
  add,
  causalAttention,
  embedding,
  exampleLosses,
  init,
  linear,
  rmsNorm,
  scope,
  shutdown,
  tensor,
  type Tensor,
} from "gradmix";
import { tokenWriter, type Windows, windowsOf } from "gradmix/data";
import { type AlignmentOptions, createMixer, createTrainer, type RuleOptions } from "gradmix/dga";
import { createParameters, createSchedule, type Model, type ParameterSpec } from "gradmix/nn";
import { random } from "./_random.ts";

const [VOCAB, TIME, DIM] = [24, 16, 16];

/** Embeddings, one layer of attention, and logits by the same embeddings. */
export function tied(seed: number): Model {
  const matrix = (name: string, out: number, inner: number): ParameterSpec => ({
    name,
    shape: [out, inner],
    init: { kind: "normal", deviation: 1 / Math.sqrt(inner) },
    decay: true,
  });
  const parameters = createParameters(
    [
      matrix("embedding", VOCAB, DIM),
      matrix("qkv", 3 * DIM, DIM),
      matrix("out", DIM, DIM),
      { name: "norm", shape: [DIM], init: { kind: "constant", value: 1 }, decay: false },
    ],
    seed,
  );
  const [table, qkv, out, gain] = parameters.list as [Tensor, Tensor, Tensor, Tensor];
  return {
    parameters,
    losses({ inputs, targets, tokens, time }) {
      return scope(() => {
        const shape = [tokens.length, time];
        const x = embedding(table, tensor(inputs, shape, "i32"));
        const mixed = add(x, linear(causalAttention(linear(x, qkv), { heads: 2 }), out));
        return exampleLosses(linear(rmsNorm(mixed, gain), table), tensor(targets, shape, "i32"));
      });
    },
  };
}

/** Text of a language: from each token one of three others, which ones being the language's own. */
function language(name: string, own: number, tokens: number, seed: number): Windows {
  const grammar = random(own);
  const others = Array.from({ length: 3 * VOCAB }, () => Math.floor(grammar() * (VOCAB - 1)));
  const next = random(seed);
  const text = [0];
  while (text.length < tokens) text.push(others[3 * (text.at(-1) ?? 0) + Math.floor(3 * next())] ?? 0);
  const writer = tokenWriter(VOCAB, VOCAB - 1);
  writer.document(text);
  return windowsOf(name, writer.finish(), TIME);
}

/** The weights that DGA finds for a target in the first of three languages. */
export async function run(
  alignment: AlignmentOptions = {},
  rule: RuleOptions = { name: "dga" },
  steps = 60,
): Promise<Float64Array> {
  const names = ["first", "second", "third"];
  const model = tied(1);
  const trainer = createTrainer({
    model,
    mixer: createMixer({ domains: names, rule, updateEvery: 3 }),
    domains: names.map((name, i) => language(name, i + 1, 4000, 10 + i)),
    target: language("target", 1, 2000, 20),
    batch: 8,
    alignment,
    schedule: createSchedule({ name: "constant", lr: 0.01, steps }),
    seed: 1,
  });
  try {
    for (let i = 0; i < steps; i++) await trainer.step();
    return trainer.weights().final;
  } finally {
    trainer.dispose();
    model.parameters.dispose();
  }
}

if (process.argv[1] === import.meta.filename) {
  await init({ backend: "cpu" });
  const weights = await run();
  console.log(`the target is the first of three: ${Array.from(weights, (w) => w.toFixed(2)).join(" ")}`);
  await shutdown();
}
