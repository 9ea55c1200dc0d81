/** A run that starts from a model takes the options that describe the model from it; options that contradict the model are refused, naming the flag. */
import { init, shutdown } from "gradmix";
import { byteTokenizer, openTokenizer, trainBpe } from "gradmix/data";
import { createGPT, toHuggingFace } from "gradmix/nn";
import { commandLineLayer, jsonLayer, type Layer, resolveConfig } from "#dist/cli/config.js";
import { optionRows } from "#dist/cli/options.js";
import { checkStart, readStart, type Start, startLayer } from "#dist/cli/start.js";
import type { TrainConfig } from "#dist/cli/train-config.js";
import { GradmixError } from "#dist/errors.js";
import { resolveGPTConfig } from "#dist/nn/gpt.js";
import { keysOf } from "#dist/keys.js";
import { encodeSafetensors, openSafetensors } from "#dist/nn/safetensors.js";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runCommand } from "./served.ts";

const tokenizer = byteTokenizer();
const shape = { preset: "llama", vocabSize: 257, dim: 48, layers: 3, heads: 6, kvHeads: 2, hiddenDim: 96, context: 24 } as const; // prettier-ignore
const run: Start = {
  path: "runs/x",
  source: "runs/x",
  config: resolveGPTConfig(shape),
  tied: false,
  tokenizer,
  tokenizerName: "byte",
  vocabSize: 1024,
  model: () => {
    throw new Error("not needed");
  },
};
const minimal = jsonLayer({ data: { domains: { a: "a" }, target: "t" } }, "minimal.json");
const resolve = (start: Start, ...layers: Layer[]): TrainConfig =>
  resolveConfig([...layers, minimal, startLayer(start)]);
const given = (path: string, value: string): Layer => commandLineLayer(new Map([[path, [value]]]));

function messageOf(fn: () => unknown): string {
  try {
    fn();
  } catch (error) {
    if (error instanceof GradmixError) return error.message;
    throw error;
  }
  return "";
}

const check = (start: Start, { data, model }: TrainConfig): void => checkStart(start, data, model);

test("the model sets the options that describe it, and each option that contradicts it is named", () => {
  const config = resolve(run);
  const { vocabSize, ...own } = shape;
  expect({ ...config.model, vocabSize }).toEqual({ ...own, initFrom: null, vocabSize });
  expect(config.data.tokenizer).toBe("byte");
  check(run, config);
  // The same values may be given, and shorter windows.
  for (const [key, value] of Object.entries(own))
    check(run, resolve(run, given(`model.${key}`, String(value))));
  check(run, resolve(run, given("model.context", "16")));
  const others = {
    preset: "gpt2",
    dim: "96",
    layers: "2",
    heads: "12",
    kvHeads: "3",
    hiddenDim: "64",
    context: "25",
  };
  expect(Object.keys(others)).toEqual(Object.keys(own));
  for (const [key, value] of Object.entries(others)) {
    // gpt2 has no grouped heads.
    const also = key === "preset" ? [given("model.kvHeads", "6")] : [];
    const config = resolve(run, given(`model.${key}`, value), ...also);
    const flag = optionRows().find(({ path }) => path === `model.${key}`)?.flag;
    expect(messageOf(() => check(run, config))).toMatch(
      new RegExp(`^${flag}: ${value} does not fit --init-from runs/x, whose .*; leave ${flag} out$`),
    );
  }
});

test.each(["llama", "gpt2"] as const)(
  "%s: a run that is told nothing saves the architecture from which it starts, and names what it cannot keep",
  async (preset) => {
    const folder = mkdtempSync(join(tmpdir(), "gradmix-start-"));
    try {
      writeFileSync(join(folder, "a.txt"), "some text of a domain, and more of it. ".repeat(60));
      // Nothing is a default.
      const { kvHeads, ...numbers } = shape;
      const config = { ...numbers, preset, normEps: 3e-5, ...(preset === "llama" ? { kvHeads, ropeTheta: 5000 } : {}) }; // prettier-ignore
      await init({ backend: "reference" });
      const model = createGPT(config);
      const files = await toHuggingFace(model, {
        tokenizer: tokenizer.toJSON(),
        endOfText: tokenizer.endOfText,
      });
      model.dispose();
      await shutdown();
      const { read, shapes } = openSafetensors(files.get("model.safetensors") ?? expect.unreachable());
      const tensors = new Map(Array.from(shapes.keys(), (name) => [name, read(name)]));
      const json = JSON.parse(Buffer.from(files.get("config.json") ?? []).toString()) as Record<
        string,
        unknown
      >;
      tensors.delete("lm_head.weight");
      const { tie_word_embeddings: _untied, ...silent } = json;
      for (const [name, own, weights] of [
        ["untied", json, files.get("model.safetensors")],
        ["tied", { ...json, tie_word_embeddings: true }, encodeSafetensors(tensors)],
        // If nothing is said, GPT-2's head is tied, and Llama's is not.
        ["silent", silent, preset === "gpt2" ? encodeSafetensors(tensors) : files.get("model.safetensors")],
      ] as const) {
        mkdirSync(join(folder, name));
        writeFileSync(join(folder, name, "config.json"), JSON.stringify(own));
        writeFileSync(join(folder, name, "model.safetensors"), weights ?? expect.unreachable());
        writeFileSync(
          join(folder, name, "tokenizer.json"),
          files.get("tokenizer.json") ?? expect.unreachable(),
        );
        const start = readStart(join(folder, name));
        const wanted = resolveGPTConfig(config);
        // Each field of the architecture.
        for (const key of keysOf(wanted)) expect([key, start.config[key]]).toEqual([key, wanted[key]]);
        const args = `train --domain a=a.txt --rule uniform --steps 1 --batch 1 --backend reference --init-from ${name} --out ${name}-run`; // prettier-ignore
        const { status, stderr } = runCommand(args.split(" "), { cwd: folder });
        expect({ status, stderr: status === 0 ? "" : stderr }).toEqual({ status: 0, stderr: "" });
        const saved = JSON.parse(
          readFileSync(join(folder, `${name}-run/model/config.json`), "utf8"),
        ) as object;
        const theirs: Record<string, unknown> = { tie_word_embeddings: preset === "gpt2", ...own };
        const changed = Object.entries(saved).filter(
          ([key, value]) => JSON.stringify(theirs[key]) !== JSON.stringify(value),
        );
        const isTied = theirs["tie_word_embeddings"] === true;
        expect(changed.map(([key]) => key)).toEqual(isTied ? ["tie_word_embeddings"] : []);
        expect(stderr.includes(`the head of ${name} is tied to the embedding (tie_word_embeddings)`)).toBe(
          isTied,
        );
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
  60_000,
);

test("the tokenizer is that of the model: the same tokenizer under another name is accepted, another one is refused", async () => {
  const folder = mkdtempSync(join(tmpdir(), "gradmix-start-"));
  try {
    const file = (name: string, json: unknown): string => {
      writeFileSync(join(folder, name), JSON.stringify(json));
      return join(folder, name);
    };
    const other = await trainBpe(["some text that has pairs, some text"], { vocabSize: 260 });
    const same = file("same.json", tokenizer.toJSON());
    check(run, resolve(run, given("data.tokenizer", same)));
    for (const wrong of ["bpe", file("other.json", other.toJSON())])
      expect(messageOf(() => check(run, resolve(run, given("data.tokenizer", wrong))))).toBe(
        `--tokenizer: ${wrong} does not fit --init-from runs/x, whose model was trained with another tokenizer; leave --tokenizer out`,
      );
    // A folder names its file, and the option may name the tokenizer in it.
    const inFolder: Start = { ...run, tokenizerName: same, vocabSize: null };
    check(inFolder, resolve(inFolder, given("data.tokenizer", "byte")));
    const vocabulary = openTokenizer("gpt2");
    const published: Start = {
      ...inFolder,
      tokenizer: openTokenizer(vocabulary.toJSON()),
      tokenizerName: "tokenizer.json",
    };
    check(published, resolve(published, given("data.tokenizer", "gpt2")));
    for (const [start, wrong] of [
      [inFolder, "gpt2"],
      [published, "byte"],
    ] as const)
      expect(messageOf(() => check(start, resolve(start, given("data.tokenizer", wrong))))).toMatch(
        `--tokenizer: ${wrong} does not fit --init-from runs/x, whose model was trained with another tokenizer`,
      );
    const learned: Start = { ...run, tokenizer: other, tokenizerName: "bpe", vocabSize: 260 };
    check(learned, resolve(learned));
    expect(messageOf(() => check(learned, resolve(learned, given("data.vocabSize", "300"))))).toMatch(
      /^--vocab-size: 300 /,
    );
    // A folder without a tokenizer needs one.
    const bare: Start = { ...run, tokenizer: null, tokenizerName: null, vocabSize: null };
    expect(messageOf(() => check(bare, resolve(bare)))).toMatch(
      /runs\/x has no tokenizer\.json; .* --tokenizer FILE$/,
    );
    check(bare, resolve(bare, given("data.tokenizer", same)));
    expect(messageOf(() => readStart(join(folder, "none")))).toMatch(
      /^--init-from: .*none cannot be read \(no such file/,
    );
    expect(messageOf(() => readStart(folder))).toMatch(/^--init-from: .* holds no model; /);
    expect(messageOf(() => readStart(same))).toMatch(/not a checkpoint/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
