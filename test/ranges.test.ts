/**
 * Every number among the options of the rules, the combinators, the mixer and the library's other constructors: values in its range are accepted,
 * including the ends that belong to it; all others are refused by name.
 */
import { sketchSink, zeros } from "gradmix";
import {
  type CombinatorOptions,
  combinators,
  combine,
  createMixer,
  createRule,
  type RuleOptions,
} from "gradmix/dga";
import { adamw, createSchedule } from "gradmix/nn";
import { expect, test } from "vitest";
import { createParameters } from "#dist/nn/parameters.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { errorOf } from "./errors.ts";

const domains = ["a", "b", "c", "d"];

const anyRule = createRule({ name: "dga" });
const rule =
  (name: string, option: string, more: object = {}) =>
  (value: unknown): unknown =>
    createRule({ name, ...more, [option]: value } as unknown as RuleOptions).init(domains);
const combinator =
  (name: string, option: string, more: object = {}) =>
  (value: unknown): unknown =>
    combine(createRule({ name: "dga" }), [
      { name, ...more, [option]: value } as unknown as CombinatorOptions,
    ]).init(domains);
const mixer = (option: string) => (value: unknown) =>
  createMixer({ domains, rule: { name: "uniform" }, [option]: value });
const schedule = (option: string) => (value: unknown) =>
  createSchedule({ name: "wsd", lr: 1, steps: 10, [option]: value });
const optimizer = (option: string) => (value: unknown) => {
  setCurrentMemory(createReferenceBackend());
  const specs = [{ name: "w", shape: [2], init: { kind: "constant", value: 1 }, decay: true }] as const;
  return adamw(createParameters(specs, 1), { [option]: value });
};

const sketch = (option: string) => (value: unknown) => {
  setCurrentMemory(createReferenceBackend());
  return sketchSink({ segments: [0, 1], parameters: [zeros([2, 2])], [option]: value });
};

const much = [1e12, 1e12, 1e12, 1e12];
const targets = { targets: ["t"] };
const budgets = { budgets: much };
const repetition = { sizes: much, tokens: 1 };

test.each<[string, string, (value: unknown) => unknown]>([
  ["dga: eta", "[0, ∞)", rule("dga", "eta")],
  ["dga: beta", "(0, 1]", rule("dga", "beta")],
  ["dga: floor", "[0, 0.25)", rule("dga", "floor")],
  ["doge: eta", "[0, ∞)", rule("doge", "eta")],
  ["doge: smoothing", "[0, 1)", rule("doge", "smoothing")],
  ["grape: eta", "[0, ∞)", rule("grape", "eta", targets)],
  ["grape: mu", "[0, ∞)", rule("grape", "mu", targets)],
  ["grape: smoothing", "[0, 1)", rule("grape", "smoothing", targets)],
  ["grape: beta", "(0, 1]", rule("grape", "beta", targets)],
  ["rnb: lambda", "[0, ∞)", rule("rnb", "lambda")],
  ["doremi: eta", "[0, ∞)", rule("doremi", "eta")],
  ["doremi: smoothing", "[0, 1)", rule("doremi", "smoothing")],
  ["odm: decay", "[0, 1)", rule("odm", "decay")],
  ["ado: creditRate", "(0, 1]", rule("ado", "creditRate")],
  ["ado: policyRate", "(0, 1]", rule("ado", "policyRate")],
  ["ado: creditExponent", "[0, ∞)", rule("ado", "creditExponent")],
  ["ado: floor", "[0, 0.25)", rule("ado", "floor")],
  ["ado: minPoints", "integer [3, 32]", rule("ado", "minPoints")],
  ["temperature: exponent", "[0, ∞)", rule("temperature", "exponent", { sizes: [1, 2, 3, 4] })],
  ["ema: beta", "(0, 1]", combinator("ema", "beta")],
  ["floor: least", "[0, 0.25]", combinator("floor", "least")],
  ["ceiling: most", "[0.25, 1]", combinator("ceiling", "most")],
  ["tokenBudget: tokens", "(0, ∞)", combinator("tokenBudget", "tokens", budgets)],
  ["repetitionCap: repetitions", "(0, ∞)", combinator("repetitionCap", "repetitions", repetition)],
  ["repetitionCap: tokens", "(0, ∞)", combinator("repetitionCap", "tokens", { repetitions: 1, sizes: much })],
  ["warmup: updates", "integer [0, ∞)", combinator("warmup", "updates")],
  ["etaSchedule: updates", "integer [1, ∞)", combinator("etaSchedule", "updates", { decay: "linear" })],
  ["etaSchedule: final", "[0, 1]", combinator("etaSchedule", "final", { decay: "linear", updates: 3 })],
  ["guard: most", "(0, 1)", combinator("guard", "most", { limits: { "*": 1 } })],
  ["guard: rate", "(0, ∞)", combinator("guard", "rate", { limits: { "*": 1 } })],
  ["ema's beta", "(0, 1]", (value) => combinators.ema(anyRule, value as number)],
  ["the floor", "[0, 1]", (value) => combinators.floor(anyRule, value as number)],
  ["the ceiling", "(0, 1]", (value) => combinators.ceiling(anyRule, value as number)],
  ["the warmup", "integer [0, ∞)", (value) => combinators.warmup(anyRule, value as number)],
  ["sketchSink: rank", "integer [1, ∞)", sketch("rank")],
  ["updateEvery", "integer [1, ∞)", mixer("updateEvery")],
  ["updateAfter", "integer [0, ∞)", mixer("updateAfter")],
  ["eps", "(0, ∞)", optimizer("eps")],
  ["weightDecay", "[0, ∞)", optimizer("weightDecay")],
  ["clip", "[0, ∞)", optimizer("clip")],
  ["lr", "[0, ∞)", schedule("lr")],
  ["warmup", "integer [0, ∞)", schedule("warmup")],
  ["steps", "integer [0, ∞)", schedule("steps")],
])("%s is in %s", (name, range, make) => {
  const [, integer, open, from, to, close] =
    /^(integer )?([[(])(\S+), (\S+)([\])])$/.exec(range) ?? expect.unreachable();
  const [low, high] = [Number(from), to === "∞" ? Infinity : Number(to)];
  const whole = integer !== undefined;
  const step = whole ? 1 : 1e-9;
  const inside = [low + step, high === Infinity ? low + 1000 : whole ? high - 1 : (low + high) / 2];
  if (open === "[") inside.push(low);
  if (close === "]") inside.push(high);
  if (high !== Infinity) inside.push(high - step);
  const outside: unknown[] = [low - step, NaN, Infinity, -Infinity, String(low + step), null, true];
  if (open === "(") outside.push(low);
  if (close === ")") outside.push(high);
  if (high !== Infinity) outside.push(high + step);
  if (whole) outside.push(low + 0.5);
  for (const value of inside) expect(() => make(value), `${String(value)} is in the range`).not.toThrow();
  for (const value of outside) {
    const error = errorOf(() => make(value));
    expect(error.code, `${String(value)}: ${error.message}`).toBe("config");
    expect(error.message).toContain(name.split(" ").at(-1));
  }
});
