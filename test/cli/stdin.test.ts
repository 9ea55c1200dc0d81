/** Standard input as a domain or a target behaves like a file, although text is read twice if a tokenizer is trained on it. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";

const command = resolve(import.meta.dirname, "../../dist/cli/main.js");
let folder = "";
const lines = (words: string): string =>
  Array.from({ length: 30 }, (_, i) => `${JSON.stringify({ text: `${words} ${(i * 7919) % 97}. `.repeat(4) })}\n`).join(""); // prettier-ignore
const code = lines("for (let i = 0; i < n; i++) sum += items[i]");
const prose = "the dog sleeps while the quick fox jumps over it\n".repeat(60);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-stdin-test-"));
  mkdirSync(join(folder, "tmp"));
  writeFileSync(join(folder, "code.jsonl"), code);
  writeFileSync(join(folder, "prose.txt"), prose);
});
afterAll(() => rmSync(folder, { recursive: true }));

const histogram = (input: string, ...args: string[]) => histogramIn("tmp", input, ...args);
const histogramIn = (temporary: string, input: string, ...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [command, "histogram", ...args, "--vocab-size", "300", "--context", "16", "--quiet"],
    { cwd: folder, encoding: "utf8", input, env: { ...process.env, TMPDIR: join(folder, temporary) } },
  );
  return { code: status, out: stdout, err: stderr };
};

test("standard input gives the same as a file, for lines or text, and leaves no files", () => {
  const [a, b] = ["code=code.jsonl", "prose=prose.txt"];
  writeFileSync(join(folder, "target.jsonl"), lines("while (j < n) total += items[j++]"));
  const given = (first: string, second: string) => [
    "--domain",
    first,
    "--domain",
    second,
    "--target",
    "target.jsonl",
  ];
  const expected = histogram("", ...given(a, b));
  expect({ code: expected.code, err: expected.err }).toEqual({ code: 0, err: "" });
  expect(histogram(code, ...given("code=-", b))).toEqual(expected);
  expect(histogram(`\uFEFF${code}`, ...given("code=-", b))).toEqual(expected);
  expect(histogram(prose, ...given(a, "prose=-"))).toEqual(expected);
  expect(readdirSync(join(folder, "tmp"))).toEqual([]);
});

test("standard input can be named only once", () => {
  const twice = histogram(code, "--domain", "a=-", "--target", "-");
  expect(twice).toEqual({
    code: 2,
    out: "",
    err: 'gradmix: "-": standard input can be read only once, but is named 2 times\n',
  });
});

test("a folder for temporary files that does not exist is named", () => {
  expect(histogramIn("nosuch", code, "--domain", "a=-", "--target", "prose.txt")).toEqual({
    code: 2,
    out: "",
    err: `gradmix: "-": standard input cannot be kept in ${join(folder, "nosuch")}, the folder for temporary files (no such file or folder); name another folder with the variable TMPDIR\n`,
  });
});
