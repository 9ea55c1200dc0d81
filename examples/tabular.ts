/**
 * A model of your own on data of your own: a multilayer perceptron on tables, and the mixture of domains that a target is made of, found while it
 * trains. Build with `npm run build:dev`, then `node dist-dev/examples/tabular.js`.
 *
 * Each of four domains is a table of two features and a class; which class a row has depends on the features in another way in each domain, so
 * that what one teaches is wrong for the others. The target holds rows of the first two domains, 7 to 3.
 */
import { crossEntropy, init, linear, scope, shutdown, tensor, type Tensor } from "gradmix";
import { type Dataset, type RowBatch, rowsOf } from "gradmix/data";
import { createMixer, createTrainer } from "gradmix/dga";
import { adamw, createParameters, createSchedule, type Model, type ParameterSpec } from "gradmix/nn";
import { random } from "./_random.ts";

const CLASSES = 4;

/** A hidden layer with ReLU, and a softmax over the classes. */
export function perceptron(width: number, hidden: number, classes: number, seed: number): Model<RowBatch> {
  const weight = (name: string, out: number, inner: number): ParameterSpec => ({
    name,
    shape: [out, inner],
    init: { kind: "normal", deviation: Math.sqrt(2 / inner) },
    decay: true,
  });
  const bias = (name: string, out: number): ParameterSpec => ({
    name,
    shape: [out],
    init: { kind: "constant", value: 0 },
    decay: false,
  });
  const parameters = createParameters(
    [
      weight("hidden.weight", hidden, width),
      bias("hidden.bias", hidden),
      weight("classes.weight", classes, hidden),
      bias("classes.bias", classes),
    ],
    seed,
  );
  const [hiddenWeight, hiddenBias, classWeight, classBias] = parameters.list as [
    Tensor,
    Tensor,
    Tensor,
    Tensor,
  ];
  return {
    parameters,
    /** A batch of rows → each row's loss. Row e's loss depends on row e alone. */
    losses({ inputs, targets, tokens }) {
      return scope(() => {
        const rows = tensor(inputs, [tokens.length, width]);
        const features = linear(rows, hiddenWeight, hiddenBias, { activation: "relu" });
        return crossEntropy(
          linear(features, classWeight, classBias),
          tensor(targets, [tokens.length], "i32"),
        );
      });
    },
  };
}

/** Rows of the domains in the given shares: points of a square, whose class is the quadrant, turned by a quarter for each next domain. */
export function table(
  name: string,
  shares: readonly number[],
  rows: number,
  seed: number,
): Dataset<RowBatch> {
  const next = random(seed);
  const inputs = new Float32Array(2 * rows);
  const targets = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    const u = next();
    let domain = 0;
    for (let sum = shares[0] ?? 0; u >= sum && domain < shares.length - 1; sum += shares[++domain] ?? 0);
    const [x, y] = [2 * next() - 1, 2 * next() - 1];
    inputs.set([x, y], 2 * row);
    const quadrant = x > 0 ? (y > 0 ? 0 : 3) : y > 0 ? 1 : 2;
    targets[row] = (quadrant + domain) % CLASSES;
  }
  return rowsOf(name, { inputs, width: 2, targets });
}

/** The weights that DGA finds for a target of which 70 % is like the first domain and 30 % like the second. */
export async function run(seed = 1, steps = 400): Promise<Float64Array> {
  const names = ["first", "second", "third", "fourth"];
  const domains = names.map((name, i) =>
    table(
      name,
      names.map((_, j) => (i === j ? 1 : 0)),
      2000,
      10 * seed + i,
    ),
  );
  const model = perceptron(2, 32, CLASSES, seed);
  const trainer = createTrainer({
    model,
    mixer: createMixer({
      domains: names,
      // To rest at a mixture: the default swings around it where the noise is as small as here.
      rule: { name: "dga", normalise: "cosine", eta: 0.2, beta: 0.05 },
      updateEvery: 2,
    }),
    domains,
    target: table("target", [0.7, 0.3, 0, 0], 2000, 10 * seed + 9),
    batch: 32,
    alignment: { domainExamples: 16, targetExamples: 64 },
    optimizer: (parameters) => adamw(parameters, { weightDecay: 0 }),
    schedule: createSchedule({ name: "constant", lr: 0.03, steps }),
    seed,
  });
  for (let i = 0; i < steps; i++) await trainer.step();
  const { final } = trainer.weights();
  trainer.dispose();
  model.parameters.dispose();
  return final;
}

if (process.argv[1] === import.meta.filename) {
  await init({ backend: "cpu" });
  const weights = await run();
  console.log(`planted 0.70 0.30 0.00 0.00, found ${Array.from(weights, (w) => w.toFixed(2)).join(" ")}`);
  await shutdown();
}
