/** The command accepts the configurations in examples/configs, and uses every option in them. */
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseBases } from "gradmix/dga";
import { expect, test } from "vitest";
import { fileLayer, resolveConfig } from "#dist/cli/config.js";
import { mixerFor } from "#dist/cli/mixing.js";
import { unusedOptions } from "#dist/cli/unused-options.js";

const root = resolve(import.meta.dirname, "../..");
const folder = join(root, "examples/configs");
const configs = readdirSync(folder).filter((name) => name.endsWith(".json"));

test("there are several examples", () => {
  expect(configs.length).toBeGreaterThan(3);
});

test.each(configs)("%s", (name) => {
  const config = resolveConfig([fileLayer(join(folder, name))]);
  const own = [...config.data.domains.keys()];
  const path = config.mixing.bases;
  const bases =
    typeof path === "string"
      ? parseBases(readFileSync(join(root, path), "utf8"), own, { format: "csv" })
      : null;
  const domains = bases?.names ?? own;
  const sizes = Object.fromEntries(domains.map((domain, i) => [domain, 1e7 * (i + 1)]));
  const mixer = mixerFor(config.mixing, [...config.data.targets.keys()], domains, { sizes, tokens: 2e7 });
  expect(mixer.initial.rule.weights.length).toBe(domains.length);
  expect(unusedOptions(config)).toEqual([]);
});
