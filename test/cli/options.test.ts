/** Options mean the same on the command line and in the config file, and invalid ones are refused in one line. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  checkSameConfig,
  commandLineLayer,
  flatten,
  jsonLayer,
  type Layer,
  mergeLayers,
  resolveConfig,
} from "#dist/cli/config.js";
import { type Kind, optionRows } from "#dist/cli/options.js";
import { checkValue, fromArguments, type Raw, readJson } from "#dist/cli/values.js";
import { filesAmong } from "#dist/cli/outputs.js";
import { totalSteps, type TrainConfig } from "#dist/cli/train-config.js";
import { seedsOf } from "#dist/cli/compare-plan.js";
import { ruleNames } from "#dist/dga/rules/index.js";
import { GradmixError } from "#dist/errors.js";
import { formatJson, parseJson } from "#dist/json.js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";

const rows = optionRows();
const minimal = { data: { domains: { a: "a.txt", b: ["b.txt"] }, target: "t.txt" } };

function given(values: Record<string, Raw>): Layer {
  return commandLineLayer(new Map(Object.entries(values)));
}

/** Resolves a config file's JSON under the minimal one. */
function resolve(json: unknown, ...before: Layer[]): TrainConfig {
  return resolveConfig([...before, jsonLayer(json, "c.json"), jsonLayer(minimal, "minimal.json")]);
}

// Numbers, which an object would reorder; members of every object; letters with marks, composed as the command composes them.
const names = fc.oneof(
  fc.stringMatching(/^[a-z][a-z0-9_-]{0,8}$/),
  fc.nat(20).map(String),
  fc.constantFrom("constructor", "toString", "valueOf", "हिन्दी", "ภาษา", "বাংলা", "caf\u00e9", "نمی\u200cخواهم", "中文"),
); // prettier-ignore
const texts = fc.stringMatching(/^[a-z*./]{1,12}$/);

/** A value of the kind, with the arguments that say it. */
function valid(kind: Kind): fc.Arbitrary<{ json: unknown; raw: Raw }> {
  switch (kind.type) {
    case "integer":
    case "bytes":
      return fc
        .integer({ min: kind.min, max: Math.min(kind.max, Number.MAX_SAFE_INTEGER) })
        .map((n) => ({ json: n, raw: [String(n)] }));
    case "number":
      return fc
        .double({
          min: kind.min,
          max: kind.max,
          minExcluded: kind.openMin ?? false,
          maxExcluded: kind.openMax ?? false,
          noNaN: true,
        })
        .map((n) => ({ json: n, raw: [String(n)] }));
    case "choice":
      return fc.constantFrom(...kind.choices).map((c) => ({ json: c, raw: [c] }));
    case "text":
      return texts.map((s) => ({ json: s, raw: [s] }));
    case "switch":
      return fc.boolean().map((b) => ({ json: b, raw: b }));
    case "globs":
      return fc.array(texts, { minLength: 1 }).map((globs) => ({ json: globs, raw: globs }));
    case "domains":
      return fc
        .uniqueArray(fc.tuple(names, fc.array(texts, { minLength: 1, maxLength: 3 })), {
          minLength: 1,
          selector: ([name]) => name,
        })
        .map((entries) => ({
          json: new Map(entries),
          raw: entries.flatMap(([name, globs]) => globs.map((glob) => `${name}=${glob}`)),
        }));
    case "byName":
      return fc
        .uniqueArray(
          fc.tuple(
            fc.oneof(names, fc.constant("*")),
            fc.double({ min: kind.min, max: kind.max, minExcluded: kind.openMin ?? false, noNaN: true }),
          ),
          { minLength: 1, selector: ([name]) => name },
        )
        .map((entries) => ({
          json: new Map(entries),
          raw: entries.map(([name, x]) => `${name}${kind.sign}${x}`),
        }));
    case "shares":
      return fc
        .uniqueArray(fc.tuple(names, fc.integer({ min: 1, max: 64 })), {
          minLength: 1,
          selector: ([name]) => name,
        })
        .map((entries) => {
          const sum = entries.reduce((total, [, n]) => total + n, 0);
          const shares = entries.map(([name, n]) => [name, n / sum] as const);
          return { json: new Map(shares), raw: [shares.map(([n, x]) => `${n}=${x}`).join(",")] };
        });
    case "file":
      return texts.map((text) => ({ json: text, raw: [text] }));
    case "json":
      return fc
        .array(fc.dictionary(names, fc.oneof(fc.nat(), fc.boolean())), { minLength: 1, maxLength: 3 })
        .map((list) => JSON.parse(JSON.stringify(kind.shape === "list" ? list : list[0])) as unknown)
        .map((json) => ({ json, raw: [JSON.stringify(json)] }));
  }
}

test("sizes are multiples of powers of ten or of two, depending on the unit, in a file and on the command line", () => {
  const sizes: [string, number][] = [
    ["100000000", 1e8], ["100000000B", 1e8], ["40000kB", 4e7], ["40000KB", 4e7], ["16MB", 16e6], ["3gb", 3e9], ["1TB", 1e12],
    ["5120KiB", 5120 * 1024], ["16MiB", 16 * 1024 ** 2], ["16mib", 16 * 1024 ** 2], ["1.5GiB", 1.5 * 1024 ** 3], ["0.5 TiB", 0.5 * 1024 ** 4],
  ]; // prettier-ignore
  const { kind } = rows.find(({ flag }) => flag === "--memory-limit")!;
  for (const [text, bytes] of sizes) {
    expect(checkValue(kind, text, "run.memoryLimit"), text).toBe(bytes);
    expect(checkValue(kind, fromArguments(kind, [text], "--memory-limit"), "--memory-limit"), text).toBe(
      bytes,
    );
  }
});

describe("the table", () => {
  test("flags are unique, long and in kebab case", () => {
    const flags = rows.map((row) => row.flag);
    expect(new Set(flags).size).toBe(flags.length);
    for (const flag of flags) expect(flag).toMatch(/^--[a-z][a-z0-9-]+$/);
  });

  test("defaults are valid values of their options", () => {
    for (const row of rows) {
      if (row.default === null || ["data.domains", "data.target", "run.out"].includes(row.path)) continue;
      expect(checkValue(row.kind, row.default, row.flag)).toEqual(row.default);
    }
  });

  test.each(rows.map((row) => [row.flag, row] as const))(
    "%s has the same meaning as its config key",
    (_, row) => {
      fc.assert(
        fc.property(valid(row.kind), ({ json, raw }) => {
          const fromFile = checkValue(row.kind, json, row.path);
          const fromFlag = checkValue(row.kind, fromArguments(row.kind, raw, row.flag), row.flag);
          // As text, in which the order of names counts, as it does for the weights.
          expect(formatJson(fromFlag)).toBe(formatJson(fromFile));
          expect(checkValue(row.kind, parseJson(formatJson(json), { source: "c" }), row.path)).toEqual(
            fromFile,
          );
          if (json instanceof Map && row.kind.type === "domains")
            expect([...(fromFile as Map<string, unknown>).keys()]).toEqual([...json.keys()]);
        }),
        { numRuns: 50 },
      );
    },
  );

  test("numbers are accepted exactly within their range", () => {
    for (const { kind, flag } of rows) {
      if (kind.type !== "number" && kind.type !== "integer") continue;
      fc.assert(
        fc.property(
          fc.oneof(
            fc.double(),
            fc.integer(),
            fc.constantFrom(kind.min, kind.max, kind.max + 1, 2 * kind.max, 2 ** 60),
          ),
          (n) => {
            const inside =
              n >= kind.min &&
              n <= kind.max &&
              !(kind.openMin === true && n === kind.min) &&
              !(kind.openMax === true && n === kind.max) &&
              (kind.type === "number" || Number.isInteger(n));
            if (inside) expect(checkValue(kind, n, flag)).toBe(n);
            else {
              const { code, message } = errorOf(() => checkValue(kind, n, flag));
              expect(code).toBe("config");
              // A number above the limit is refused because of the limit, which is named.
              if (n > kind.max) expect(message).toMatch(new RegExp(` (at most|below) ${kind.max}$`));
            }
          },
        ),
        { numRuns: 50 },
      );
    }
  });
});

test("a number that is too long for a double is shown as it was typed, with the limit", () => {
  for (const [path, typed, message] of [
    [
      "data.seed",
      "9007199254740993",
      '--data-seed: "9007199254740993" is not a whole number of at least 0 and at most 9007199254740991',
    ],
    [
      "training.steps",
      "3000000000",
      "--steps: 3000000000 is not a whole number of at least 1 and at most 2147483648",
    ],
    ["training.steps", "0", "--steps: 0 is not a whole number of at least 1"],
    ["training.steps", "many", '--steps: "many" is not a whole number of at least 1'],
  ] as const)
    // prettier-ignore
    expect(errorOf(() => given({ [path]: [typed] })).message).toBe(message);
  const limit = Number.MAX_SAFE_INTEGER;
  expect(given({ "data.seed": [String(limit)] }).values.get("data.seed")).toBe(limit);
  expect(errorOf(() => seedsOf("1,9007199254740993", 1, "--seeds")).message).toBe(
    `--seeds: "1,9007199254740993" is not a list of seeds: whole numbers of at least 0 and at most ${limit}`,
  );
});

describe("precedence", () => {
  test("the command line overrides the file, and the file overrides the default", () => {
    const file = { training: { lr: 0.5, batch: 3 } };
    const config = resolve(file, given({ "training.lr": ["0.25"] }));
    expect(config.training).toMatchObject({ lr: 0.25, batch: 3, beta1: 0.9 });
  });

  test("steps on the command line replace tokens in the file, and vice versa", () => {
    const steps = resolve({ training: { tokens: 5000 } }, given({ "training.steps": ["7"] }));
    expect([steps.training.steps, steps.training.tokens, totalSteps(steps)]).toEqual([7, null, 7]);
    const tokens = resolve({ training: { steps: 7 } }, given({ "training.tokens": ["5000"] }));
    expect([tokens.training.steps, tokens.training.tokens]).toEqual([null, 5000]);
    expect(totalSteps(tokens)).toBe(Math.ceil(5000 / (16 * 128)));
    expect(resolve({}).training.steps).toBe(1000);
  });

  test("evaluation goes by a share or by an interval, whichever the first source gives", () => {
    const evaluationOptions = (...[json, ...before]: Parameters<typeof resolve>): unknown[] => {
      const { evalShare, evalEvery, evalTokens } = resolve(json, ...before).run;
      return [evalShare, evalEvery, evalTokens];
    };
    expect(evaluationOptions({})).toEqual([0.03, null, null]);
    expect(evaluationOptions({ run: { evalTokens: 5 } })).toEqual([0.03, null, 5]);
    expect(evaluationOptions({ run: { evalEvery: 0 } })).toEqual([null, 0, null]);
    expect(evaluationOptions({ run: { evalEvery: 50, evalTokens: 8192 } })).toEqual([null, 50, 8192]);
    expect(evaluationOptions({ run: { evalEvery: 50 } }, given({ "run.evalShare": ["0.1"] }))).toEqual([
      0.1,
      null,
      null,
    ]);
    expect(evaluationOptions({ run: { evalShare: 0.1 } }, given({ "run.evalEvery": ["7"] }))).toEqual([
      null,
      7,
      null,
    ]);
  });

  test("the first source that names any domain decides for all", () => {
    const domains = fc.option(fc.constantFrom({ a: ["a"] }, { a: ["x"], c: ["y"] }, {}), { nil: undefined });
    const domainsFrom = fc.option(fc.constantFrom(["d"], ["e", "f"], []), { nil: undefined });
    const domainField = fc.option(fc.constantFrom("source", "kind"), { nil: undefined });
    const layers = fc.array(fc.record({ domains, domainsFrom, domainField }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(layers, (data) => {
        const all = data.map((one, i) =>
          jsonLayer(
            { data: Object.fromEntries(Object.entries(one).filter(([, value]) => value !== undefined)) },
            `${i}.json`,
          ),
        );
        const others = jsonLayer({ mixing: { rule: "uniform" } }, "others.json");
        const at = data.findIndex(
          (one) => Object.keys(one.domains ?? {}).length > 0 || (one.domainsFrom ?? []).length > 0,
        );
        if (at < 0) {
          expect(errorOf(() => resolveConfig([...all, others])).message).toMatch(/^no domain was given/);
          return;
        }
        const { domains = {}, domainsFrom = [] } = data[at] ?? {};
        const looked = domainsFrom.length > 0;
        // A field is looked up in folders and files, wherever it was given; one that was given with them, or before, needs them.
        const field = (looked ? data : data.slice(0, at + 1)).find((one) => one.domainField !== undefined);
        for (const layers of [all, [mergeLayers(all)]])
          if (field !== undefined && !looked)
            expect(errorOf(() => resolveConfig([...layers, others])).message).toMatch(
              /: data\.domainField: needs --domains/,
            );
          else
            expect(resolveConfig([...layers, others]).data).toMatchObject({
              domains: new Map(Object.entries(domains)),
              domainsFrom,
              domainField: field?.domainField ?? null,
            });
      }),
      { numRuns: 500 },
    );
  });

  test("a section of another command has no effect on a run", () => {
    const json = { training: { lr: 0.1 }, compare: { rules: ["dga"], anything: 1 } };
    expect(jsonLayer(json, "c.json").values).toEqual(new Map([["training.lr", 0.1]]));
  });
  test("a resolved configuration resolves to itself", () => {
    const config = resolve({ run: { out: "runs/x" }, mixing: { weights: { a: 0.25, b: 0.75 } } });
    const again = resolveConfig([jsonLayer(parseJson(formatJson(config), { source: "c" }), "config.json")]);
    expect(again).toEqual(config);
  });
});

describe("refusals, in one line that names the place, the value and what is allowed", () => {
  const cases: [what: string, json: unknown, message: string][] = [
    ["an unknown section", { trainign: {} }, 'c.json: unknown key "trainign"; did you mean training?'],
    ["a key outside its section", { lr: 1 }, 'c.json: unknown key "lr"; did you mean training.lr?'],
    ["an unknown key", { training: { btach: 1 } }, 'c.json: unknown key "training.btach"; did you mean training.batch?'],
    ["a key in another section", { model: { eta: 1 } }, 'c.json: unknown key "model.eta"; did you mean mixing.eta?'],
    ["nothing like it", { model: { xyzzy: 1 } }, 'c.json: unknown key "model.xyzzy"'],
    ["no object", [1], "c.json: is [1], not a JSON object with sections data, model, …"],
    ["a section that is no object", { model: 3 }, "c.json: model: 3 is not an object"],
    ["a number as text", { training: { lr: "0.1" } }, 'c.json: training.lr: "0.1" is not a number above 0 and at most 10'],
    ["another rule than the run's", { mixing: { ruleOptions: { name: "rnb" } } }, 'c.json: mixing.ruleOptions: it names the rule "rnb", but the rule is dga; set the rule with --rule'],
    ["a word where a basis has numbers", { mixing: { bases: { x: { a: "much" } } } }, 'c.json: mixing.bases: basis "x": {"a":"much"} is not numbers, one per domain or by name'],
    ["half a step", { training: { steps: 1.5 } }, "c.json: training.steps: 1.5 is not a whole number of at least 1"],
    ["η below 0", { mixing: { eta: -0.1 } }, "c.json: mixing.eta: -0.1 is not a number of at least 0 and at most 1000"],
    ["β over 1", { mixing: { beta: 1.5 } }, "c.json: mixing.beta: 1.5 is not a number above 0 and at most 1"],
    ["null without an automatic value", { training: { lr: null } }, "c.json: training.lr: null is not a number above 0 and at most 10"],
    ["an unknown choice", { mixing: { rule: "dgaa" } }, `c.json: mixing.rule: "dgaa" is not one of ${ruleNames.join(", ")}; did you mean dga?`],
    ["a switch that is a text", { run: { quiet: "yes" } }, 'c.json: run.quiet: "yes" is not true or false'],
    ["a size of nothing", { run: { memoryLimit: "much" } }, 'c.json: run.memoryLimit: "much" is not a size such as 1000000, 512MiB or 2GiB'],
    ["a size that is too small", { run: { memoryLimit: "1.5" } }, 'c.json: run.memoryLimit: "1.5" is not a size from 4194304 to 1099511627776 bytes'],
    ["weights without a name", { mixing: { weights: "" } }, "c.json: mixing.weights: is empty"],
    ["an empty glob", { data: { target: [""] } }, 'c.json: data.target: "" is not a glob, such as "texts/**/*.md"'],
    ["a domain without a name", { data: { domains: { "": "x" } } }, 'c.json: data.domains: "" is not a name for a domain: it is empty'],
    ["a name of a mark alone", { data: { domains: { "\u0301": "x" } } }, 'c.json: data.domains: "\u0301" is not a name for a domain, which has this form: it begins with a letter or digit, has letters with their marks, digits, "_", "-", "." and spaces, and does not end with a space'],
    ["a name that begins with a dash", { data: { domains: { "-web": "x" } } }, 'c.json: data.domains: "-web" is not a name for a domain, which has this form: it begins with a letter or digit, has letters with their marks, digits, "_", "-", "." and spaces, and does not end with a space'],
    ["a name that ends with a space", { data: { domains: { "web ": "x" } } }, 'c.json: data.domains: "web " is not a name for a domain, which has this form: it begins with a letter or digit, has letters with their marks, digits, "_", "-", "." and spaces, and does not end with a space'],
    ["a prototype for a name", JSON.parse('{"data":{"domains":{"__proto__":"x"}}}'), 'c.json: data.domains: "__proto__" is not a name for a domain, which has this form: it begins with a letter or digit, has letters with their marks, digits, "_", "-", "." and spaces, and does not end with a space'],
    ["one name, typed in two ways", { data: { domains: { "caf\u00e9": "x", "cafe\u0301": "y" } } }, 'c.json: data.domains: names the domain "caf\u00e9" twice'],
    ["steps and tokens", { training: { steps: 1, tokens: 1 } }, "c.json: training.steps and c.json: training.tokens: give one of them, not both"],
    ["two ways to evaluate", { run: { evalShare: 0.1, evalEvery: 10 } }, "c.json: run.evalShare and c.json: run.evalEvery: give one of them, not both"],
    ["heads that do not divide", { model: { dim: 100, heads: 3 } }, "c.json: model.heads: 3 does not divide dim 100"],
    ["an odd head width", { model: { dim: 12, heads: 4 } }, "c.json: model.heads: rotary positions need an even head width, not 3 (dim 12 / heads 4)"],
    ["key/value heads that do not divide", { model: { kvHeads: 3 } }, "c.json: model.kvHeads: 3 does not divide heads 4"],
    ["grouped heads in gpt2", { model: { kvHeads: 2, preset: "gpt2" } }, "c.json: model.kvHeads: gpt2 has no grouped heads; leave it out or use 4"],
    ["a floor over 1/k", { mixing: { floor: 0.6 } }, "c.json: mixing.floor: 0.6 is not below 1 / 2, the share of each of 2 domains"],
    ["a floor without a name that is one", { mixing: { floor: { a: 0.1, bb: 0.1 } } }, 'c.json: mixing.floor: "bb" is not a domain of this run; did you mean b?'],
    ["a ceiling of a domain that is none", { mixing: { ceiling: { c: 0.1 } } }, 'c.json: mixing.ceiling: "c" is not a domain of this run; its domains are a, b'],
    ["floors that leave nothing", { mixing: { floor: { a: 0.7, b: 0.3 } } }, "c.json: mixing.floor: the floors of 2 domains sum to 1; together they must be below 1"],
    ["a floor for all and one by name, together too much", { mixing: { floor: { "*": 0.2, b: 0.8 } } }, "c.json: mixing.floor: the floors of 2 domains sum to 1; together they must be below 1"],
    ["ceilings that cannot be reached", { mixing: { ceiling: 0.4 } }, "c.json: mixing.ceiling: the ceilings of 2 domains sum to 0.8; together they must be at least 1"],
    ["a floor above a ceiling", { mixing: { floor: { a: 0.5 }, ceiling: { a: 0.4 } } }, 'c.json: mixing.floor: the floor of "a", 0.5, is above its ceiling, 0.4'],
    ["a ceiling of nothing", { mixing: { ceiling: { a: 0 } } }, 'c.json: mixing.ceiling "a": 0 is not a number above 0 and at most 1'],
    ["bounds of nobody", { mixing: { floor: {} } }, "c.json: mixing.floor: names no domain"],
    ["a guard that is no object", { mixing: { guard: 1.02 } }, "c.json: mixing.guard: 1.02 is not an object with a key for each domain"],
    ["a guard that asks for a fall", { mixing: { guard: { a: 0.9 } } }, 'c.json: mixing.guard "a": 0.9 is not a number of at least 1 and at most 1000000000'],
    ["a guard of a domain that is none", { mixing: { guard: { "*": 1.02, bb: 1 } } }, 'c.json: mixing.guard: "bb" is not a domain of this run; did you mean b?'],
    ["a guard of bases", { mixing: { guard: { "*": 1.02 }, bases: { b: { a: 1 } } } }, "c.json: mixing.guard: a guard moves the weights of single domains, but with --bases the rule moves the weights of bases; leave out one of the two"],
    ["a reference for nobody", { mixing: { reference: "runs/a" } }, "c.json: mixing.reference: --rule dga does not use a reference model (--guard does)"],
    ["a share of evaluations that nobody asks for", { mixing: { guardShare: 0.2 } }, "c.json: mixing.guardShare: limits the evaluations for --guard, which is not given; add --guard NAME<=X"],
    ["the usual share of evaluations that nobody asks for", { mixing: { guardShare: 0.1 } }, "c.json: mixing.guardShare: limits the evaluations for --guard, which is not given; add --guard NAME<=X"],
    ["a prior that the paper does not have", { mixing: { preset: "paper", prior: "histogram" } }, "c.json: mixing.prior: --mixing-preset paper has no prior; leave out one of them"],
    ["a histogram over bases that nobody gives", { mixing: { bases: { b: { a: 1 } }, prior: "histogram" } }, "c.json: mixing.prior: with --bases no histogram is counted; give one over the bases with --histogram NAME=X,NAME=X, or leave --prior out"],
    ...(["shared", "direct"].map((bases) => ["a way to measure bases without bases", { alignment: { bases } }, "c.json: alignment.bases: says how bases are measured, and there are none; add --bases FILE, or leave it out"] as [string, unknown, string])),
    ["an unknown option of the rule", { mixing: { ruleOptions: { foo: 1 } } }, 'c.json: mixing.ruleOptions: dga: there is no option "foo"; its options are name, eta, beta, normalise, pull, prior, correction, uniformShare, memory, repetitions, sizes, tokens, floor, start'],
    ["a similar option of the rule", { mixing: { ruleOptions: { repetition: 1 } } }, 'c.json: mixing.ruleOptions: dga: there is no option "repetition"; did you mean "repetitions"?'],
    ["a wrong option of the rule", { mixing: { rule: "doge", ruleOptions: { eta: -1 } } }, "c.json: mixing.ruleOptions: doge: eta: -1 does not fit; it must be at least 0 and finite"],
    ["a cap that is given twice", { mixing: { repetitionCap: 4, ruleOptions: { repetitions: 2 } } }, "c.json: mixing.repetitionCap: --rule-options also sets repetitions; leave out one of the two"],
    ["static without weights", { mixing: { rule: "static" } }, "--rule static needs weights: add --weights NAME=X,NAME=X"],
    ["importance without a histogram of bases", { mixing: { rule: "importanceSampling", bases: { b: { a: 1 } } } }, "--rule importanceSampling needs a histogram of the target over the bases: add --histogram NAME=X,NAME=X"],
    ["weights that sum to 0.9", { mixing: { weights: { a: 0.5, b: 0.4 } } }, "c.json: mixing.weights: the weights sum to 0.9, not to 1"],
    ["a negative weight", { mixing: { weights: { a: -0.5, b: 1.5 } } }, 'c.json: mixing.weights: "a" is -0.5, not a number of at least 0'],
    ["a weight for nobody", { mixing: { weights: { a: 0.5, bb: 0.5 } } }, 'c.json: mixing.weights: "bb" is not a domain of this run; did you mean b?'],
    ["a domain without a weight", { mixing: { weights: { a: 1 } } }, 'c.json: mixing.weights: gives no weight to the domain "b"'],
    ["weights that nobody uses", { mixing: { rule: "uniform", weights: { a: 0.5, b: 0.5 } } }, "c.json: mixing.weights: --rule uniform does not use weights; leave them out"],
    ["an empty histogram", { mixing: { rule: "importanceSampling", histogram: { a: 0 } } }, "c.json: mixing.histogram: all shares are 0"],
    ["f16 without a GPU asked for", { run: { precision: "f16" } }, "c.json: run.precision: f16 needs --backend webgpu, not auto"],
    ["forward with norms", { mixing: { normalise: "cosine" }, alignment: { estimator: "forward" } }, "c.json: alignment.estimator: forward does not compute the gradient norms that --normalise cosine needs; choose tracked or raw"],
    ["a tokenizer that is none", { data: { tokenizer: "bytes" } }, 'c.json: data.tokenizer: "bytes" is not "bpe", "byte", "none", the path of a tokenizer.json or the name of a vocabulary (gpt2, r50k_base, p50k_base, cl100k_base, o200k_base); did you mean byte?'],
    ["a vocabulary too small for bpe", { data: { vocabSize: 256 } }, "c.json: data.vocabSize: 256 is not a whole number of at least 257: the vocabulary of bpe contains all bytes and the end of text"],
    ["no tokenizer to compare with", { data: { tokenizer: "none" }, mixing: { rule: "doremi", reference: "r" } }, "c.json: mixing.reference: the two runs must have the same tokenizer; name the one of the files with --tokenizer FILE"],
  ]; // prettier-ignore
  test.each(cases)("%s", (_, json, message) => {
    const error = errorOf(() => resolve(json));
    expect(error.message).toBe(message);
    expect(error.code).toBe("config");
  });

  test("no domain", () => {
    for (const data of [{}, { domains: {} }, { domains: {}, domainsFrom: [] }])
      expect(errorOf(() => resolveConfig([jsonLayer({ data }, "c.json")])).message).toBe(
        'no domain was given: add --domain NAME=GLOB or --domains DIR, or "data": {"domains": {…}} in a config file',
      );
  });

  test("NaN and infinite weights from the command line", () => {
    for (const weights of ["a=NaN,b=1", "a=Infinity,b=0", "a=,b=1", "a=x,b=1"])
      expect(errorOf(() => given({ "mixing.weights": [weights] })).message).toMatch(/^--weights: /);
  });

  test("bounds by name from the command line", () => {
    const values = (path: string, ...raw: string[]): unknown => given({ [path]: raw }).values.get(path);
    expect(values("mixing.floor", "0.1")).toBe(0.1);
    expect(values("mixing.floor", "*=0.1")).toBe(0.1);
    expect(values("mixing.floor", "0.1", "a=0.2")).toEqual(new Map([["*", 0.1], ["a", 0.2]])); // prettier-ignore
    expect(values("mixing.guard", "*<=1.02")).toEqual(new Map([["*", 1.02]]));
    expect(values("mixing.guard", "*<=1.02", "the code <= 1")).toEqual(new Map([["*", 1.02], ["the code", 1]])); // prettier-ignore
    for (const [path, raw, message] of [
      ["mixing.floor", ["a=x"], '--floor "a": "x" is not a number of at least 0 and at most 1'],
      ["mixing.floor", ["a=0.1", "a=0.2"], '--floor: names "a" twice; give one'],
      ...[
        ["0.1", "0.2"],
        ["*=0.1", "0.1"],
      ].map(
        (raw) =>
          [
            "mixing.floor",
            raw,
            "--floor: has two numbers for the domains that are not named; give one",
          ] as const,
      ),
      [
        "mixing.floor",
        ["=0.1"],
        '--floor: "=0.1" is not of the form X or NAME=X, for example 0.01 or code=0.1',
      ],
      ["mixing.floor", ["a="], '--floor: "a=" is not of the form X or NAME=X, for example 0.01 or code=0.1'],
      ["mixing.guard", ["1.02"], '--guard: "1.02" is not of the form NAME<=X, for example code<=1.02'],
      ["mixing.guard", ["a=1.02"], '--guard: "a=1.02" is not of the form NAME<=X, for example code<=1.02'],
      ["mixing.guard", ["a<=1.02", "a<=1.03"], '--guard: names "a" twice; give one'],
      [
        "mixing.guard",
        ["a<=1,02"],
        '--guard "a": "1,02" is not a number of at least 1 and at most 1000000000',
      ],
    ] as const)
      // prettier-ignore
      expect(errorOf(() => values(path, ...raw)).message).toBe(message);
  });

  test("the best step without a target", () => {
    const json = { data: { domains: { a: "x" } }, mixing: { rule: "uniform" }, run: { keepBest: true } };
    expect(errorOf(() => resolveConfig([jsonLayer(json, "c.json")])).message).toBe(
      "c.json: run.keepBest: the best step is the one with the lowest loss on a target, and there is no target; add --target GLOB",
    );
  });

  test("importance sampling without a target", () => {
    const json = { data: { domains: { a: "x" } } };
    const sampling = { ...json, mixing: { rule: "importanceSampling" } };
    expect(errorOf(() => resolveConfig([jsonLayer(sampling, "c.json")])).message).toBe(
      "--rule importanceSampling needs a target: add --target GLOB, or a histogram of it with --histogram NAME=X,NAME=X",
    );
    for (const mixing of [{ histogram: { a: 2 } }, { ruleOptions: { histogram: [1] } }])
      resolveConfig([jsonLayer({ ...json, mixing: { rule: "importanceSampling", ...mixing } }, "c.json")]);
    const uniform = resolveConfig([jsonLayer({ ...json, mixing: { rule: "uniform" } }, "c.json")]);
    expect(uniform.data.target).toEqual([]);
  });

  test("any JSON gives a configuration or a one-line error", () => {
    const keys = fc.constantFrom(...rows.map((row) => row.key), "x", "__proto__", "constructor");
    const sections = fc.constantFrom("data", "model", "training", "mixing", "run", "toString");
    const anything = fc.dictionary(sections, fc.oneof(fc.dictionary(keys, fc.jsonValue()), fc.jsonValue()));
    fc.assert(
      fc.property(fc.oneof(anything, fc.jsonValue()), (json) => {
        try {
          resolve(json);
        } catch (error) {
          expect(error).toBeInstanceOf(GradmixError);
          expect((error as Error).message).not.toContain("\n");
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("of every option in a config file", () => {
  const text = (path: string, ...members: string[]): string => {
    const [section = ""] = path.split(".");
    return `{\n  "${section}": {\n    ${members.join(",\n    ")}\n  }\n}`;
  };
  const read = (json: string): unknown => jsonLayer(parseJson(json, { source: "c.json" }), "c.json");

  test.each(rows.map((row) => [row.path, row] as const))("%s", (path, { key, kind }) => {
    const member = `"${key}": {}`;
    // A key that occurs twice, even with equal values.
    expect(errorOf(() => read(text(path, member, member))).message).toBe(
      `c.json, line 4, column 5: the name "${key}" appears twice in one object`,
    );
    // Misspelt: two letters swapped, one missing, other capitals.
    const swapped = key.slice(0, -2) + key.slice(-2).split("").toReversed().join("");
    for (const wrong of [swapped, key.slice(0, -1), key.toUpperCase()]) {
      if (rows.some((row) => row.path === `${path.split(".")[0]}.${wrong}`) || wrong.length < 2) continue;
      const { code, message } = errorOf(() => read(text(path, `"${wrong}": 1`)));
      expect(code).toBe("config");
      expect(message).toMatch(
        new RegExp(
          `^c\\.json: unknown key "${path.split(".")[0]}\\.${wrong}"; did you mean [a-z]+\\.[A-Za-z0-9]+\\?$`,
        ),
      );
    }
    // For a value of another type, the message has the file and the path of the key.
    const wrongs = ["[null]", "-1e99", '""', "[[]]", '{"\\u0000": 1}', "true", "null"];
    const refused = wrongs.filter((value) => {
      try {
        read(text(path, `"${key}": ${value}`));
        return false;
      } catch (error) {
        expect(error).toBeInstanceOf(GradmixError);
        expect((error as Error).message).toMatch(new RegExp(`^c\\.json: ${path}[: ]`));
        return true;
      }
    });
    // A switch takes true; null says "decide for me" where there is something to decide.
    const most = wrongs.length - (kind.type === "switch" ? 1 : 0) - 1;
    expect(refused.length).toBeGreaterThanOrEqual(most);
  });
});

test("a key can be given under its former name; giving both names is refused", () => {
  const renamed = rows.filter(({ formerly }) => formerly !== undefined);
  // A rule that measures nothing, which all these options are compatible with.
  const uniform = given({ "mixing.rule": ["uniform"] });
  expect(renamed.length).toBeGreaterThan(5);
  for (const { kind, path, section, key, formerly } of renamed) {
    const [formerSection = "", formerKey = ""] = formerly?.path.split(".") ?? [];
    fc.assert(
      fc.property(valid(kind), ({ json }) => {
        // The bases that --align-bases is about.
        const bases = path === "alignment.bases" ? [given({ "mixing.bases": ["b.json"] })] : [];
        const now = resolve({ [section]: { [key]: json } }, uniform, ...bases);
        expect(resolve({ [formerSection]: { [formerKey]: json } }, uniform, ...bases)).toEqual(now);
        const both =
          section === formerSection
            ? { [section]: { [key]: json, [formerKey]: json } }
            : { [section]: { [key]: json }, [formerSection]: { [formerKey]: json } };
        expect(errorOf(() => resolve(both, uniform)).message).toBe(
          `c.json: ${path} is given twice, once under its former name ${formerly?.path ?? ""}`,
        );
      }),
      { numRuns: 5 },
    );
  }
});

describe("files", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "gradmix-options-"));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test("weights can be read from the weights.json of another run", () => {
    const path = join(folder, "weights.json");
    writeFileSync(path, JSON.stringify({ final: { a: 1, b: 0 }, averaged: { a: 0.25, b: 0.75 } }));
    const config = resolve({ mixing: { weights: path } });
    expect([...(config.mixing.weights ?? [])]).toEqual([["a", 0.25], ["b", 0.75]]); // prettier-ignore
  });

  test("a path that contains = is a file, and a list of names and numbers is a list", () => {
    const kinds = rows.filter(({ kind }) => kind.type === "shares");
    expect(kinds.length).toBeGreaterThan(1);
    const part = fc.stringMatching(/^[a-z]{1,3}=[a-z0-9.]{1,3}$/).filter((name) => !name.endsWith("."));
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 3 }), fc.boolean(), (parts, exists) => {
        const path = join(folder, ...parts, "w.json");
        if (exists) {
          mkdirSync(join(folder, ...parts), { recursive: true });
          writeFileSync(path, '{"a": 0.25, "b": 0.75}');
        } else rmSync(path, { force: true });
        for (const { kind, flag } of kinds) {
          const read = (): unknown => checkValue(kind, fromArguments(kind, [path], flag), flag);
          if (exists)
            expect(read()).toEqual(new Map([["a", 0.25], ["b", 0.75]])); // prettier-ignore
          else expect(errorOf(read).message).toContain(`${flag} ${path}: cannot be read`);
        }
      }),
      { numRuns: 30 },
    );
    // An existing file wins, also without a separator. The domains of gradmix mix may have one in their names.
    const { kind } = rows.find(({ flag }) => flag === "--histogram")!;
    const read = (text: string): unknown => fromArguments(kind, [text], "--histogram");
    expect(read("web/news=1,web/code=3")).toEqual(new Map([["web/news", 1], ["web/code", 3]])); // prettier-ignore
    writeFileSync(join(folder, "a=1"), '{"b": 1}');
    const from = process.cwd();
    try {
      process.chdir(folder);
      expect(read("a=1")).toBe("a=1");
      expect(read("b=1")).toEqual(new Map([["b", 1]]));
    } finally {
      process.chdir(from);
    }
    // Longer than a path can be.
    const many = Array.from({ length: 3000 }, (_, i) => `domain${i}=1`).join(",");
    expect((read(many) as Map<string, number>).size).toBe(3000);
    expect(filesAmong([[many]])).toEqual([]);
  });

  test("an error about invalid JSON names the file and has one line", () => {
    const path = join(folder, "broken.json");
    for (const text of ['{\n "model": {\n "dim": }\n}', "", "{", "\u0000", "[1,\n2"]) {
      writeFileSync(path, text);
      const error = errorOf(() => readJson(path, path));
      expect(error.message).toMatch(/is not JSON \(/);
      expect(error.message).not.toContain("\n");
    }
  });
});

test("a resumed run may change free keys and recorded keys; the first other key that differs is named", () => {
  const saved = resolve({ run: { out: "r" } });
  for (const row of rows) {
    const changed = new Map(flatten(saved)).set(row.path, "another");
    const check = (): void => checkSameConfig(saved, changed, "r");
    if (row.free === true || row.recorded === true) check();
    else
      expect(errorOf(check)).toMatchObject({
        code: "checkpoint",
        message: expect.stringContaining(` ${row.path} = `),
      });
  }
});
