/** The check of the package finds broken links. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { brokenLinks } from "../../scripts/package/links.mjs";

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-links-"));
  mkdirSync(join(folder, "docs"));
  writeFileSync(join(folder, "docs/a.md"), "# One, *two* & `three()`\n\n```\n# four\n```\n");
});
afterAll(() => rmSync(folder, { recursive: true }));

test.each([
  ["[a](docs/a.md) [b](https://example.com/x) ![c](docs)", []],
  ["[a](docs/a.md#one-two--three)", []],
  ["# Own\n[a](#own)", []],
  ["```\n[a](none.md)\n```", []],
  ["[a](docs/b.md)", ["docs/b.md"]],
  ["![a](docs/b.png)", ["docs/b.png"]],
  ["[a](docs/a.md#one)", ["docs/a.md#one"]],
  ["[a](docs/a.md#four)", ["docs/a.md#four"]],
  ["[a](#own)", ["#own"]],
  ["[a](../outside.md)", ["../outside.md"]],
  ["[a](../)", ["../"]],
])("%j", (text, broken) => {
  writeFileSync(join(folder, "README.md"), text);
  expect(brokenLinks(folder, ["README.md", "docs/a.md"])).toEqual(broken.map((link) => `README.md: ${link}`));
});
