/** Commands in messages are ones that a user can copy: a shell reads their paths as they are. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { shellWord } from "#dist/shell-word.js";

test("a shell reads the word as it is", () => {
  expect(shellWord("runs/a-2_b.c,d=1")).toBe("runs/a-2_b.c,d=1");
  const words = [
    "",
    "a b",
    "it's",
    "$HOME",
    "~",
    "a;b",
    "*",
    'a"b',
    "a\\b",
    "größe",
    "a&b",
    "(a)",
    "!a",
    "#a",
  ];
  const { stdout } = spawnSync("sh", ["-c", `printf '%s\\n' ${words.map(shellWord).join(" ")}`], {
    encoding: "utf8",
  });
  expect(stdout).toBe(words.map((word) => `${word}\n`).join(""));
});

test("every command that a message offers quotes its path", () => {
  const root = resolve(import.meta.dirname, "../src");
  const bare =
    /(gradmix (train|compare|watch|report|export|mix|histogram|cluster|prepare)( --[a-z-]+)?|(with|intact:) --[a-z-]+) \$\{(?!shellWord\()/;
  const offered = /\$\{shellWord\(/;
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) =>
    file.endsWith(".ts"),
  );
  const linesWith = (pattern: RegExp): string[] =>
    files.flatMap((file) =>
      readFileSync(resolve(root, file), "utf8")
        .split("\n")
        .flatMap((line, i) => (pattern.test(line) ? [`${file}:${i + 1} ${line.trim()}`] : [])),
    );
  expect(linesWith(offered).length).toBeGreaterThan(10);
  expect(linesWith(bare)).toEqual([]);
});
