/** What a browser would load: the library's modules and what they import before anything is called. */
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { expect, test } from "vitest";

const dist = resolve(import.meta.dirname, "../dist");

/** Static imports and exports of a module, as they are written. */
const importsOf = (file: string): string[] =>
  [...readFileSync(file, "utf8").matchAll(/^(?:import|export)\s(?:[^;"']*\sfrom\s*)?["']([^"']+)["']/gm)].map(
    ([, specifier = ""]) => specifier,
  );

function reachable(entries: readonly string[]): { files: Set<string>; packages: Set<string> } {
  const files = new Set<string>();
  const packages = new Set<string>();
  const visit = (file: string): void => {
    if (files.has(file)) return;
    files.add(file);
    for (const specifier of importsOf(file))
      if (specifier.startsWith(".")) visit(resolve(dirname(file), specifier));
      else packages.add(specifier);
  };
  for (const entry of entries) visit(resolve(dist, entry));
  return { files, packages };
}

test("the core and the WebGPU backend load no Node module and no package", () => {
  const { files, packages } = reachable([
    "index.js",
    "nn/index.js",
    "dga/index.js",
    "backends/webgpu/index.js",
    "backends/webgpu/adapter-info.js",
    "backends/self-check.js",
  ]);
  expect([...packages]).toEqual([]);
  expect(files.size).toBeGreaterThan(80);
});

test("a Node module would be seen", () => {
  expect([...reachable(["backends/webgpu/host-node.js"]).packages]).toContain("node:fs");
});
