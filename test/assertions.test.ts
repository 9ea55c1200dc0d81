/** Non-null assertions in the library are allowed only after an index. */
import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, test } from "vitest";

/** `name!` and `call()!`, as prettier writes them; `!==` has a space before it. */
const assertion = /[\w)]!(?=$|[\].,;)[ ])/;

test("a non-null assertion (`!`) stands only behind an index", () => {
  const root = resolve(import.meta.dirname, "../src");
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) =>
    file.endsWith(".ts"),
  );
  expect(files.length).toBeGreaterThan(100);
  const found = files.flatMap((file) =>
    readFileSync(resolve(root, file), "utf8")
      .split("\n")
      .flatMap((line, i) =>
        !/^\s*(\*|\/[/*])/.test(line) && assertion.test(line) ? [`${file}:${i + 1} ${line.trim()}`] : [],
      ),
  );
  expect(found).toEqual([]);
});
