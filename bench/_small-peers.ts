/** The work of `bench -- small` in other libraries for Node.js, on one thread each: TensorFlow.js (plain JavaScript and WebAssembly) and jax-js (WebAssembly). */
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

/** A piece of work that is timed once per round. */
export interface Case {
  readonly name: string;
  /** Calls in a turn, as a share of those of one op. */
  readonly share: number;
  /** Before a turn, outside of the time. */
  readonly begin?: () => Promise<unknown>;
  readonly call: () => void | Promise<unknown>;
}

/** Additions of the chain. */
export const CHAIN = 20;

/** A multilayer perceptron of two layers and a batch for it. */
export interface Net {
  readonly batch: number;
  readonly widths: readonly number[];
  readonly inputs: Float32Array;
  readonly targets: Int32Array;
  readonly weightOf: (size: number) => Float32Array;
}

export function netOf(batch: number, widths: readonly number[]): Net {
  const [width = 0, , out = 1] = widths;
  return {
    ...{ batch, widths },
    inputs: Float32Array.from({ length: batch * width }, (_, i) => Math.cos(3 * i)),
    targets: Int32Array.from({ length: batch }, (_, i) => i % out),
    weightOf: (size) => Float32Array.from({ length: size }, (_, i) => 0.3 * Math.sin(i)),
  };
}

/** The cases of the libraries in the folder; none without a folder. */
export async function peerCases(folder: string | null, elements: number, net: Net): Promise<Case[]> {
  if (folder === null) return [];
  const require = createRequire(join(resolve(folder), "index.js"));
  const has = (name: string): boolean => {
    try {
      return require.resolve(name) !== "";
    } catch {
      process.stderr.write(`bench small: ${name} is not installed in ${folder}; it is left out\n`);
      return false;
    }
  };
  const cases: Case[] = [];
  if (has("@tensorflow/tfjs")) {
    const tf = require("@tensorflow/tfjs") as Tfjs;
    cases.push(...(await tfjsCases(tf, "cpu", elements, net)));
    if (has("@tensorflow/tfjs-backend-wasm")) {
      const wasm = require("@tensorflow/tfjs-backend-wasm") as { setWasmPaths(folder: string): void };
      wasm.setWasmPaths(`${dirname(require.resolve("@tensorflow/tfjs-backend-wasm"))}/`);
      cases.push(...(await tfjsCases(tf, "wasm", elements, net)));
    }
  }
  if (has("@jax-js/jax")) {
    // A feature of browsers that the package expects and Node.js 20 lacks.
    const lacking: Record<string, unknown> = globalThis;
    lacking["navigator"] ??= {};
    lacking["Float16Array"] ??= class extends Uint16Array {};
    const file = join(dirname(require.resolve("@jax-js/jax")), "index.js");
    cases.push(...(await jaxCases((await import(pathToFileURL(file).href)) as JaxJs, elements, net)));
  }
  return cases;
}

/** The functions of TensorFlow.js that are used here. */
interface TfTensor {
  relu(): TfTensor;
  add(other: TfTensor): TfTensor;
  matMul(other: TfTensor): TfTensor;
}
interface Tfjs {
  setBackend(name: string): Promise<boolean>;
  tensor(data: Float32Array | Int32Array, shape?: readonly number[], dtype?: string): TfTensor;
  variable(value: TfTensor): TfTensor;
  oneHot(indices: TfTensor, depth: number): TfTensor;
  add(a: TfTensor, b: TfTensor): TfTensor;
  tidy(f: () => void): void;
  readonly losses: { softmaxCrossEntropy(labels: TfTensor, logits: TfTensor): TfTensor };
  readonly train: { sgd(rate: number): { minimize(f: () => TfTensor): unknown } };
}

async function tfjsCases(tf: Tfjs, backend: "cpu" | "wasm", elements: number, net: Net): Promise<Case[]> {
  const begin = (): Promise<boolean> => tf.setBackend(backend);
  if (!(await begin())) throw new Error(`tfjs: no backend ${backend}`);
  const { batch, widths, inputs, targets, weightOf } = net;
  const [width = 0, hidden = 0, out = 0] = widths;
  const [a, b] = [
    tf.tensor(new Float32Array(elements).fill(1)),
    tf.tensor(new Float32Array(elements).fill(1)),
  ];
  const weight = (rows: number, columns: number): TfTensor =>
    tf.variable(tf.tensor(weightOf(rows * columns), [rows, columns]));
  const bias = (size: number): TfTensor => tf.variable(tf.tensor(new Float32Array(size)));
  const [w0, b0, w1, b1] = [weight(width, hidden), bias(hidden), weight(hidden, out), bias(out)];
  const x = tf.tensor(inputs, [batch, width]);
  const y = tf.oneHot(tf.tensor(targets, [batch], "int32"), out);
  const optimizer = tf.train.sgd(0.01);
  const loss = (): TfTensor =>
    tf.losses.softmaxCrossEntropy(y, x.matMul(w0).add(b0).relu().matMul(w1).add(b1));
  const of = (name: string, share: number, work: () => void): Case => ({
    ...{ name: `tfjs ${backend}: ${name}`, share, begin },
    call: () => tf.tidy(work),
  });
  return [
    of("add(a, b)", 1, () => void tf.add(a, b)),
    of(`${CHAIN} adds`, 1 / CHAIN, () => {
      let sum = a;
      for (let i = 0; i < CHAIN; i++) sum = tf.add(sum, b);
    }),
    of("step of an MLP", 1 / CHAIN, () => void optimizer.minimize(loss)),
  ];
}

/** The functions of jax-js that are used here. It consumes an array when it is used; `ref` keeps it for another use. */
interface JaxArray {
  readonly ref: JaxArray;
  add(other: JaxArray): JaxArray;
  sub(other: JaxArray): JaxArray;
  mul(other: JaxArray | number): JaxArray;
  dispose(): void;
  blockUntilReady(): Promise<JaxArray>;
}
type Weights = readonly JaxArray[];
interface JaxJs {
  init(...devices: string[]): Promise<string[]>;
  defaultDevice(name: string): void;
  jit<F>(f: F): F;
  valueAndGrad(
    f: (p: Weights, x: JaxArray, y: JaxArray) => JaxArray,
  ): (p: Weights, x: JaxArray, y: JaxArray) => readonly [JaxArray, Weights];
  blockUntilReady<T>(value: T): Promise<T>;
  readonly numpy: {
    readonly float32: unknown;
    readonly int32: unknown;
    array(data: Float32Array | Int32Array, options: { shape: readonly number[]; dtype: unknown }): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
    sum(a: JaxArray): JaxArray;
  };
  readonly nn: {
    relu(x: JaxArray): JaxArray;
    logSoftmax(x: JaxArray, axis: number): JaxArray;
    oneHot(x: JaxArray, depth: number): JaxArray;
  };
}

async function jaxCases(jax: JaxJs, elements: number, net: Net): Promise<Case[]> {
  const { numpy: np, nn } = jax;
  if (!(await jax.init("cpu", "wasm")).includes("wasm")) throw new Error("jax-js: no backend wasm");
  jax.defaultDevice("wasm");
  const { batch, widths, inputs, targets, weightOf } = net;
  const [width = 0, hidden = 0, out = 0] = widths;
  const f32 = (data: Float32Array, ...shape: number[]): JaxArray =>
    np.array(data, { shape, dtype: np.float32 });
  const ones = (): JaxArray => f32(new Float32Array(elements).fill(1), elements);
  const [a, b] = [ones(), ones()];
  const x = f32(inputs, batch, width);
  const y = nn.oneHot(np.array(targets, { shape: [batch], dtype: np.int32 }), out);
  const lossOf = ([w0, b0, w1, b1]: Weights, x: JaxArray, y: JaxArray): JaxArray => {
    if (w0 === undefined || b0 === undefined || w1 === undefined || b1 === undefined)
      throw new Error("layers");
    const logits = np.matmul(nn.relu(np.matmul(x, w0).add(b0)), w1).add(b1);
    return np.sum(nn.logSoftmax(logits, -1).mul(y)).mul(-1 / batch);
  };
  const valueAndGrad = jax.valueAndGrad(lossOf);
  const step = (p: Weights, x: JaxArray, y: JaxArray): readonly [JaxArray, Weights] => {
    const [loss, gradient] = valueAndGrad(
      p.map((w) => w.ref),
      x,
      y,
    );
    return [loss, p.map((w, i) => w.sub((gradient[i] ?? w).mul(0.01)))];
  };
  const first = (): Weights => [
    f32(weightOf(width * hidden), width, hidden),
    f32(new Float32Array(hidden), hidden),
    f32(weightOf(hidden * out), hidden, out),
    f32(new Float32Array(out), out),
  ];
  const stepping = (take: typeof step): (() => Promise<void>) => {
    let p = first();
    return async () => {
      const [loss, next] = take(p, x.ref, y.ref);
      p = await jax.blockUntilReady(next);
      loss.dispose();
    };
  };
  const done = async (t: JaxArray): Promise<void> => (await t.blockUntilReady()).dispose();
  const of = (name: string, share: number, call: () => Promise<void>): Case => ({
    ...{ name: `jax-js wasm: ${name}`, share, call },
  });
  return [
    of("add(a, b)", 1 / CHAIN, () => done(a.ref.add(b.ref))),
    of(`${CHAIN} adds`, 1 / CHAIN / CHAIN, () => {
      let sum = a.ref;
      for (let i = 0; i < CHAIN; i++) sum = sum.add(b.ref);
      return done(sum);
    }),
    of("step of an MLP, eager", 1 / CHAIN / CHAIN, stepping(step)),
    of("step of an MLP, jit", 1 / CHAIN / CHAIN, stepping(jax.jit(step))),
  ];
}
