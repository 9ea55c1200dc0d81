/** --vector-bits: it is refused where it has no meaning, shown when a run starts, and changes no number, also in the middle of a run. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { missingVectors } from "#dist/backends/cpu/index.js";
import { timeless } from "./timeless.ts";

const command = resolve(import.meta.dirname, "../../dist/cli/main.js");
const missing = missingVectors();

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-vectors-"));
  for (const [i, name] of ["a", "b", "target"].entries())
    writeFileSync(
      join(folder, `${name}.jsonl`),
      Array.from(
        { length: 40 },
        (_, j) => `{"text":"the ${["dog", "cat", "dog's"][i]} sees ${(j * 7919) % 97} houses and sleeps"}\n`,
      ).join(""),
    );
});
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

/** Runs `gradmix train`; with the optimising compiler alone if the width matters, since it takes a while until it has compiled what such a small run needs. */
function train(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [...(missing === null ? ["--no-liftoff"] : []), command, "train", ...args],
    { cwd: folder, encoding: "utf8", env: { ...process.env, GRADMIX_BACKEND: "" } },
  );
  return { code: status, out: stdout, err: stderr };
}

const text = ["--domain", "a=a.jsonl", "--domain", "b=b.jsonl", "--target", "target.jsonl"];
const small = [
  ...[...text, "--backend", "cpu", "--threads", "2", "--tokenizer", "byte"],
  ..."--dim 48 --layers 2 --heads 2 --context 32 --batch 8 --update-every 2 --align-target-examples 4".split(
    " ",
  ),
  ..."--eval-tokens 64 --eval-every 4 --checkpoint-every 4 --schedule constant --steps 8".split(" "),
];

describe("is refused in one line", () => {
  test.each<[name: string, args: string[], message: string]>([
    ["another width", ["--vector-bits", "512"], '--vector-bits: "512" is not one of auto, 128, 256'],
    [
      "with plain SIMD",
      ["--vector-bits", "256", "--simd", "plain"],
      "--vector-bits: 256-bit vectors need relaxed SIMD, not --simd plain; leave out one of the two",
    ],
    ...["webgpu", "reference"].map((backend): [string, string[], string] => [
      `on ${backend}`,
      ["--vector-bits", "256", "--backend", backend],
      `--vector-bits: an option of the cpu backend, not of ${backend}; leave it out`,
    ]),
    [
      "with a config file that says plain",
      ["plain.json", "--vector-bits", "256"],
      "--vector-bits: 256-bit vectors need relaxed SIMD, not --simd plain; leave out one of the two",
    ],
    [
      "in a config file",
      ["wide.json", "--simd", "plain"],
      "wide.json: run.vectorBits: 256-bit vectors need relaxed SIMD, not --simd plain; leave out one of the two",
    ],
  ])("%s", (_, args, message) => {
    writeFileSync(join(folder, "plain.json"), JSON.stringify({ run: { simd: "plain" } }));
    writeFileSync(join(folder, "wide.json"), JSON.stringify({ run: { vectorBits: 256 } }));
    const { code, out, err } = train(...args, ...text, "--out", "refused");
    expect({ code, out, err }).toEqual({ code: 2, out: "", err: `gradmix: ${message}\n` });
  });

  test.skipIf(missing === null)("where there are no 256-bit vectors, also if a run is resumed", () => {
    expect(train(...small, "--out", "narrow").code).toBe(0);
    for (const args of [
      [...small, "--out", "none"],
      ["--resume", "narrow", "--steps", "12"],
    ]) {
      const { code, err } = train(...args, "--vector-bits", "256");
      expect(code).toBe(2);
      expect(err.trimEnd().split("\n").at(-1)).toBe(
        `gradmix: cpu: there are no 256-bit vectors: ${missing ?? ""}; use --vector-bits 128`,
      );
    }
  });
});

test("the first lines of a run say the width, and a run of another width continues with the same bits, without a word", () => {
  const [narrow, wide] = [128, missing === null ? 256 : 128].map((bits) => ["--vector-bits", `${bits}`]);
  const ran = (...args: string[]): string => {
    const { code, err } = train(...args);
    expect({ code, err: code === 0 ? "" : err }).toEqual({ code: 0, err: "" });
    return err;
  };
  const half = join("checkpoints", "step-00000008.safetensors");
  expect(ran(...small, ...narrow, "--out", "whole")).toContain(
    "cpu backend, 2 threads, relaxed, 128-bit vectors; ",
  );
  const found = ["metrics.jsonl", "weights.json", "model/model.safetensors"];
  const results = (run: string): unknown[] =>
    found.map((name) => {
      const file = readFileSync(join(folder, run, name));
      if (name !== "metrics.jsonl") return file.toString("base64");
      const lines = file.toString("utf8").trimEnd().split("\n");
      return lines.map((line) => timeless(JSON.parse(line) as object));
    });
  for (const [out, first, second] of [
    ["widened", narrow, wide],
    ["narrowed", wide, narrow],
  ] as const) {
    ran(...small, ...first, "--out", out);
    expect(results(out)).toEqual(results("whole"));
    // What is left is a run that was cut off after the checkpoint before.
    rmSync(join(folder, out, half));
    const said = ran("--resume", out, ...second);
    expect(said).toContain(`cpu backend, 2 threads, relaxed, ${second[1]}-bit vectors; `);
    expect(said).not.toMatch(/changed from here on|otherwise/);
    expect(existsSync(join(folder, out, half))).toBe(true);
    expect(results(out)).toEqual(results("whole"));
  }
});
