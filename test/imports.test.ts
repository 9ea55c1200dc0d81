/** What a browser loads: the modules of the package's browser entries, and all modules that they import, statically or later. */
import { parse } from "acorn";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { describe, expect, test } from "vitest";

const root = resolve(import.meta.dirname, "..");

interface Imports {
  /** As they are written, of `import` and `export … from`. */
  readonly specifiers: readonly string[];
  /** Those of `import()` and `new URL("…", import.meta.url)`. */
  readonly later: readonly string[];
  /** Names that only Node.js has. */
  readonly globals: readonly string[];
}

const NODE_GLOBALS = new Set(["process", "Buffer", "global", "require", "__dirname", "__filename"]);

function importsOf(source: string): Imports {
  const specifiers: string[] = [];
  const later: string[] = [];
  const globals: string[] = [];
  // Neither a bundler nor this test can follow a specifier that is composed at run time.
  const note = (to: string[], value: unknown): void => void to.push(typeof value === "string" ? value : "?");
  const visit = (node: Record<string, unknown>, parent: Record<string, unknown>, key: string): void => {
    const of = (name: string): Record<string, unknown> => node[name] as Record<string, unknown>;
    const isModule = ["ImportDeclaration", "ExportAllDeclaration", "ExportNamedDeclaration"].includes(
      node["type"] as string,
    );
    if (isModule && node["source"]) note(specifiers, of("source")["value"]);
    if (node["type"] === "ImportExpression") note(later, of("source")["value"]);
    if (node["type"] === "NewExpression" && of("callee")["name"] === "URL") {
      const [path, base] = node["arguments"] as Record<string, unknown>[];
      // import.meta.url
      if (
        base?.["type"] === "MemberExpression" &&
        (base["object"] as { type: string }).type === "MetaProperty"
      )
        note(later, path["value"]);
    }
    const isName = key === "property" || key === "key" ? parent["computed"] === true : true;
    if (node["type"] === "Identifier" && isName && NODE_GLOBALS.has(node["name"] as string))
      globals.push(node["name"] as string);
    for (const [inner, value] of Object.entries(node))
      for (const child of [value].flat())
        if (typeof child === "object" && child !== null && "type" in child) visit(child, node, inner);
  };
  const program = parse(source, { ecmaVersion: "latest", sourceType: "module" });
  visit(program as unknown as Record<string, unknown>, {}, "");
  return { specifiers, later, globals };
}

interface Graph {
  readonly files: ReadonlySet<string>;
  /** Importers by what they import that is not of this package. */
  readonly packages: ReadonlyMap<string, readonly string[]>;
  /** Files that name what only Node.js has. */
  readonly globals: readonly string[];
}

/** Follows all imports, or only those that are loaded at once. */
function reachable(entries: readonly string[], which: "all" | "at once" = "all"): Graph {
  const files = new Set<string>();
  const packages = new Map<string, string[]>();
  const globals: string[] = [];
  const visit = (file: string): void => {
    if (files.has(file)) return;
    files.add(file);
    expect(existsSync(file), file).toBe(true);
    if (!file.endsWith(".js")) return;
    const found = importsOf(readFileSync(file, "utf8"));
    globals.push(...found.globals.map((name) => `${file}: ${name}`));
    for (const specifier of [...found.specifiers, ...(which === "all" ? found.later : [])])
      if (specifier.startsWith(".")) visit(resolve(dirname(file), specifier));
      else packages.set(specifier, [...(packages.get(specifier) ?? []), file]);
  };
  for (const entry of entries) visit(join(root, entry));
  return { files, packages, globals };
}

type Target = string | { readonly [condition: string]: Target };
const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  exports: Record<string, Target>;
};

/** The file of an entry under conditions, the first of which that is named counts. */
function fileOf(target: Target, conditions: ReadonlySet<string>): string {
  if (typeof target === "string") return target;
  const [, next] = Object.entries(target).find(([name]) => conditions.has(name)) ?? [];
  if (next === undefined) throw new Error("no condition fits");
  return fileOf(next, conditions);
}

/** Entries that are no module, or that are of files on a disk. */
const notForBrowsers = ["./package.json", "./node"];

const entriesFor = (...conditions: string[]): string[] =>
  Object.entries(exports)
    .filter(([name]) => !notForBrowsers.includes(name))
    .map(([, target]) => fileOf(target, new Set([...conditions, "default"])));

describe("in a browser", () => {
  const graph = reachable(entriesFor("browser", "import"));

  test("no module of Node.js is imported, and no package except those that are known not to need it", () => {
    // The first for the patterns of a tokenizer.json, the second, an optional peer, by gradmix/testing. Neither has a dependency on Node.js.
    expect([...graph.packages.keys()].sort()).toEqual(["fast-check", "oniguruma-to-es"]);
  });

  test("no global of Node.js is used", () => {
    expect(graph.globals).toEqual([]);
  });

  test("bundlers find the kernels, the worker and the backends", () => {
    const names = [...graph.files].map((file) => file.slice(join(root, "dist/").length));
    expect(names).toEqual(
      expect.arrayContaining([
        ...["kernels-relaxed.wasm", "kernels-plain.wasm", "worker-browser.js"].map(
          (name) => `backends/cpu/${name}`,
        ),
        "backends/webgpu/index.js",
        "backends/self-check.js",
      ]),
    );
    expect(names.filter((name) => /node/.test(name))).toEqual([]);
  });
});

test("the entries for Node.js have the same exports as those for browsers, and the test would notice Node's modules", async () => {
  const node = reachable(entriesFor("node", "import"));
  for (const builtin of ["node:fs", "node:worker_threads", "picomatch"])
    expect([...node.packages.keys()]).toContain(builtin);
  expect(node.globals.some((name) => name.endsWith("host-node.js: process"))).toBe(true);
  for (const name of ["", "/data"]) {
    const [browser, own] = await Promise.all(
      ["browser", "node"].map(async (condition) => {
        const file = fileOf(exports[`.${name}`], new Set([condition, "default"]));
        return Object.keys((await import(join(root, file))) as object).sort();
      }),
    );
    expect(browser).toEqual(own);
  }
});

test("the command loads the code of a command, the engine and tokenizers only when it needs them", () => {
  const names = (which: "all" | "at once"): string[] =>
    [...reachable(["dist/cli/main.js"], which).files].map((file) => file.slice(join(root, "dist/").length));
  const later =
    /^autograd\/|^backends\/(?!cpu\/options)|^tensor\/tensor\.js|^dga\/(trainer|estimators)\.js|^data\/(tokens|pre-tokenizer)\.js|^cli\/(train|run|doctor|.*-command)\.js$/;
  expect(names("at once").filter((name) => later.test(name))).toEqual([]);
  expect(names("all")).toEqual(
    expect.arrayContaining([
      ...["backends/webgpu/index.js", "backends/reference/index.js", "backends/cpu/index.js"],
      ...[
        "autograd/op.js",
        "tensor/tensor.js",
        "dga/estimators.js",
        "data/tokens.js",
        "data/pre-tokenizer.js",
      ],
      ...["dga/trainer.js", "cli/train.js", "cli/doctor.js", "cli/mix-command.js"],
    ]),
  );
});
