/** README.md, CONTRIBUTING.md and docs/: every block of code compiles with the package's own types and runs as printed, every command is accepted, README's run trains. */
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { splitFile } from "#dist/cli/compare-plan.js";
import { jsonLayer } from "#dist/cli/config.js";
import { ruleNames } from "#dist/dga/rules/index.js";
import { parseJson } from "#dist/json.js";
import { allFlags, refusalOf, wordsOf } from "./cli/command-line.ts";
import { runCommand } from "./cli/served.ts";

const root = resolve(import.meta.dirname, "..");
const folder = join(root, ".cache/docs");
const bin = (name: string): string => join(root, "node_modules", name);

interface Block {
  /** File and line, for messages. */
  readonly place: string;
  readonly language: string;
  readonly code: string;
}

const files = [
  "README.md",
  "CONTRIBUTING.md",
  ...readdirSync(join(root, "docs")).map((name) => `docs/${name}`),
].filter((name) => name.endsWith(".md"));
const textOf = (file: string): string => readFileSync(join(root, file), "utf8");
const blocks: readonly Block[] = files.flatMap((file) =>
  [...textOf(file).matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(
    ({ index, 1: language = "", 2: code = "" }) => ({
      place: `${file}:${textOf(file).slice(0, index).split("\n").length}`,
      language,
      code,
    }),
  ),
);
const of = (...languages: string[]): Block[] => blocks.filter(({ language }) => languages.includes(language));
const fileOf = ({ place, language, code }: Block): string =>
  `${place.replaceAll(/\W/g, "-")}${code.includes('"vitest"') ? ".test" : ""}.${language}`;
/** A block that needs a test runner is one of tests. */
const tests = of("ts").filter((block) => fileOf(block).endsWith(".test.ts"));
const programs = of("js", "ts").filter((block) => !tests.includes(block));

test("docs/rules.md has a row for every rule", () => {
  const rows = [...textOf("docs/rules.md").matchAll(/^\| `(\w+)` /gm)].map(({ 1: name = "" }) => name);
  expect(rows).toEqual(expect.arrayContaining([...ruleNames]));
});

test("docs/ARCHITECTURE.md has a row for every folder of src, and none for a folder that does not exist", () => {
  const rows = [...textOf("docs/ARCHITECTURE.md").matchAll(/^\| `([a-z]+)\/` /gm)].map(
    ({ 1: name = "" }) => name,
  );
  const isFolder = (path: string): boolean =>
    lstatSync(join(root, path), { throwIfNoEntry: false })?.isDirectory() === true;
  const layers = readdirSync(join(root, "src")).filter((name) => isFolder(`src/${name}`));
  expect(rows).toEqual(expect.arrayContaining(layers));
  for (const name of rows.filter((row) => !layers.includes(row))) expect(isFolder(name), name).toBe(true);
});

test("README.md has a row for every page of docs", () => {
  const rows = [...textOf("README.md").matchAll(/^\| \[(docs\/\S+?\.md)\]/gm)].map(
    ({ 1: name = "" }) => name,
  );
  expect(rows.toSorted()).toEqual(files.filter((name) => name.startsWith("docs/")).toSorted());
});

test("docs/benchmark.md has a row for every benchmark", () => {
  const rows = [...textOf("docs/benchmark.md").matchAll(/^\| `([a-z-]+)` /gm)].map(
    ({ 1: name = "" }) => name,
  );
  const names = readdirSync(join(root, "bench")).flatMap(
    (file) => /^(?!main|_)(.+)\.ts$/.exec(file)?.[1] ?? [],
  );
  expect(rows.toSorted()).toEqual(names.toSorted());
});

test("every code block is in a language that is checked, and every such language occurs", () => {
  // Those in Python run in test/python/client_checks.py.
  expect(blocks.filter(({ language }) => !["js", "ts", "json", "python", ""].includes(language))).toEqual([]);
  for (const some of [programs, tests, of("json"), of("python"), of("")])
    expect(some.length).toBeGreaterThan(0);
  // A fence that does not close would swallow what follows.
  for (const file of files) expect(textOf(file).split("\n```").length % 2, file).toBe(1);
});

describe("code", () => {
  beforeAll(() => {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    for (const block of of("js", "ts")) writeFileSync(join(folder, fileOf(block)), block.code);
    writeFileSync(
      join(folder, "vitest.config.js"),
      // The default of 5 s is too short for a block's first import on a busy machine.
      'export default { test: { include: ["*.test.ts"], testTimeout: 60_000, hookTimeout: 60_000 } };',
    );
    // The options of a user with strict types.
    const compilerOptions = {
      target: "ES2022",
      module: "NodeNext",
      strict: true,
      skipLibCheck: true,
      allowJs: true,
      types: ["node"],
      outDir: "out",
    };
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({ compilerOptions, include: ["*-md-*.ts", "*-md-*.js"] }),
    );
  });

  test("compiles", () => {
    const { status, stdout } = spawnSync(process.execPath, [bin("typescript/bin/tsc"), "-p", folder], {
      encoding: "utf8",
    });
    expect(stdout).toBe("");
    expect(status).toBe(0);
  });

  test.each(programs.map((block) => [block.place, block] as const))("in %s runs", (_, block) => {
    const file = join(folder, "out", fileOf(block).replace(/ts$/, "js"));
    const { status, stdout, stderr } = spawnSync(process.execPath, [file], {
      encoding: "utf8",
      timeout: 60_000,
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    if (block !== programs[0]) return;
    // The first example is one that a reader takes in at a glance, and it finds what it says.
    expect(block.code.trim().split("\n").length).toBeLessThanOrEqual(20);
    const [, prose, other] = /prose, code: Float64Array\(2\) \[ ([\d.]+), ([\d.]+) \]/.exec(stdout) ?? [];
    expect(Number(other)).toBeGreaterThan(Number(prose));
  });

  test("that contains tests passes", () => {
    const env = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !name.startsWith("VITEST")),
    );
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [bin("vitest/vitest.mjs"), "run", "--root", folder, "--maxWorkers", "1", "--reporter", "json"],
      { encoding: "utf8", env, timeout: 120_000 },
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const report = JSON.parse(stdout) as {
      numPassedTests: number;

      testResults: unknown[];
    };
    expect(report.testResults.length).toBe(tests.length);
    expect(report.numPassedTests).toBeGreaterThanOrEqual(tests.length);
  });
});

test.each(of("json").map((block) => [block.place, block.code] as const))(
  "%s is a configuration",
  (place, code) => {
    // A file of gradmix compare: the sections beside its own are those of gradmix train.
    const { rest } = splitFile(parseJson(code, { source: place }), place);
    expect(() => jsonLayer(rest, place)).not.toThrow();
  },
);

/** Lines for the shell: those of blocks without a language, and lines of four spaces that begin with a command of ours. */
const shellLines: readonly (readonly [place: string, line: string])[] = files.flatMap((file) => {
  const fenced = of("")
    .filter(({ place }) => place.startsWith(`${file}:`))
    .flatMap(({ place, code }) => splitLines(code).map((line) => [place, line] as const));
  const prose = textOf(file).replaceAll(/^```\w*\n[\s\S]*?^```$/gm, "");
  const indented = [...prose.matchAll(/^ {4}(?:\$ )?((?:npx gradmix|gradmix|npm) .*)$/gm)];
  return [...fenced, ...indented.map(({ 1: line = "" }) => [file, line] as const)];
});

function splitLines(code: string): string[] {
  return code
    .replaceAll(/\\\n/g, " ")
    .split("\n")
    .flatMap((line) => line.split("&&"))
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}

describe("commands", () => {
  const { scripts, name } = JSON.parse(textOf("package.json")) as {
    scripts: Record<string, string>;
    name: string;
  };

  /** Returns the fault of a line for the shell, or null. `partial` is as in `refusalOf`. */
  function fault(command: string, { partial = false }: { partial?: boolean } = {}): string | null {
    const words = wordsOf(command);
    const [first = "", second = "", ...rest] = words;
    if (first === "npm") {
      if (second === "ci" || second === "test") return null;
      if (second === "install") return rest[0] === name ? null : `${rest[0]} is not this package`;
      const script = rest.find((word) => !word.startsWith("--")) ?? "";
      return second === "run" && Object.hasOwn(scripts, script) ? null : `there is no script "${script}"`;
    }
    if (first === "python" || first === "torchrun") {
      const [file = ""] = command.match(/\w+\.py/) ?? [];
      const script = join(root, "python/examples", file);
      if (file === "" || !existsSync(script)) return `there is no program ${file} in python/examples`;
      const own = readFileSync(script, "utf8") + (first === "torchrun" ? "--nproc-per-node" : "");
      const stranger = rest.find((word) => word.startsWith("--") && !own.includes(word));
      return stranger === undefined ? null : `there is no option ${stranger}`;
    }
    const after = words.slice(first === "npx" ? 2 : 1);
    if ((first === "npx" ? second : first) !== "gradmix") return `"${first}" is no command of this package`;
    return refusalOf(after, { partial });
  }

  test.each(shellLines)("in %s are accepted: %s", (_, line) => {
    expect(fault(line)).toBe(null);
  });

  test("are found in fenced and in indented blocks", () => {
    const ours = shellLines.filter(([, line]) => /^(npx )?gradmix /.test(line));
    for (const file of ["README.md", "docs/mixing.md", "docs/data.md", "docs/trainers.md"])
      expect(ours.filter(([place]) => place.startsWith(file)).length, file).toBeGreaterThan(2);
    expect(shellLines).toContainEqual(["docs/data.md", "gradmix train --domains prepared"]);
  });

  test("and options within sentences exist", () => {
    const spans = files.flatMap((file) =>
      [...textOf(file).matchAll(/`([^`\n]+)`/g)].map(([, code = ""]) => ({ file, code })),
    );
    const commands = spans.filter(({ code }) => /^(gradmix|npx gradmix|npm run) /.test(code));
    expect(commands.length).toBeGreaterThan(5);
    for (const { file, code } of commands)
      expect(fault(code.replaceAll("…", ""), { partial: true }), `${file}: ${code}`).toBe(null);
    const options = spans.filter(({ code }) => /^--[a-z]/.test(code));
    expect(options.length).toBeGreaterThan(5);
    // Those of the package's scripts, benchmarks and experiments count too.
    const others = ["scripts", "bench", "experiments"].flatMap((name) =>
      readdirSync(join(root, name), { recursive: true, encoding: "utf8" })
        .filter((file) => /\.(mjs|ts)$/.test(file))
        .flatMap(
          (file) =>
            textOf(join(name, file)).match(/--[a-z][a-z0-9-]*|(?<=^|\W)[a-z]+(?=: \{ type: )/gm) ?? [],
        ),
    );
    // Options of zstd and of V8.
    const known = new Set([
      ...allFlags(),
      ...["--long", "--experimental-wasm-revectorize"],
      ...others.map((name) => (name.startsWith("--") ? name : `--${name}`)),
    ]);
    for (const { file, code } of options)
      for (const flag of code.match(/--[a-z][a-z0-9-]*/g) ?? [])
        expect([...known], `${file}: ${code}`).toContain(flag);
  });

  test("that are wrong would be refused", () => {
    expect(fault("npm run nothing")).toMatch(/no script/);
    expect(fault("python plant.py x")).toBe("there is no program plant.py in python/examples");
    expect(fault("torchrun --nproc-per-node 2 train_gpt.py --stpes 3")).toBe("there is no option --stpes");
    expect(fault("rm -rf")).toMatch(/no command of this package/);
    expect(fault("gradmix tran x.json")).toMatch(/unknown command/);
    expect(fault("npx gradmix train --domains a --stpes 3")).toMatch(/unknown option '--stpes'/);
    expect(fault("gradmix train --domains a --steps three")).toMatch(/^--steps: /);
    expect(fault("gradmix train --target a.md")).toMatch(/no domain was given/);
    expect(fault("gradmix train --domains a --rule dgs")).toMatch(/^--rule: /);
    expect(fault("gradmix train a.json b.json")).toMatch(/too many arguments/);
    expect(fault("gradmix cluster text.jsonl --clusters 64")).toMatch(/--out <DIR>' not specified/);
    expect(fault("gradmix prepare --domains corpus")).toMatch(/add --out DIR/);
    expect(fault("gradmix watch")).toMatch(/missing required argument 'RUN'/);
    expect(fault("gradmix export runs/first --to levantar")).toMatch(/no format levantar/);
    expect(fault("gradmix compare a.json --rules uniform,dgs")).toMatch(/^--rules: /);
    expect(() => fault("gradmix train --domain code=src/*.ts")).toThrow(/expand code=/);
    expect(() => fault("gradmix train --domain code='src/*.ts")).toThrow(/not closed/);
    // A sentence may leave out what it does not speak of, but not misspell the rest.
    expect(fault("gradmix train --resume", { partial: true })).toBe(null);
    expect(fault("gradmix train --resum", { partial: true })).toMatch(/unknown option/);
  });

  test("README.md's run trains, and its mixture can be exported", () => {
    const lines = shellLines.filter(([place]) => place.startsWith("README.md")).map(([, line]) => line);
    const train = wordsOf(lines.find((line) => line.includes("gradmix train ")) ?? "");
    const export_ = wordsOf(lines.find((line) => line.includes("gradmix export ")) ?? "");
    const site = join(root, ".cache/docs-run");
    rmSync(site, { recursive: true, force: true });
    // A few small files of the package in place of all.
    for (const file of ["dist/keys.js", "dist/keys.d.ts", "docs/limits.md", "examples/_random.ts"]) {
      const copy = join(site, "node_modules/gradmix", file);
      mkdirSync(dirname(copy), { recursive: true });
      copyFileSync(join(root, file), copy);
    }
    const at = train.indexOf("--steps");
    expect(at).toBeGreaterThan(0);
    const small = train.toSpliced(at + 1, 1, "2");
    for (const [flag, value] of Object.entries({
      layers: 1,
      dim: 8,
      heads: 1,
      batch: 4,
      context: 16,
      threads: 1,
    }))
      small.push(`--${flag}`, `${value}`);
    small.push("--tokenizer", "byte", "--backend", "cpu", "--quiet");
    const gradmix = (words: readonly string[]): string => {
      expect(words.slice(0, 2)).toEqual(["npx", "gradmix"]);
      const { status, stdout, stderr } = runCommand(words.slice(2), { cwd: site });
      expect(status, stderr).toBe(0);
      return stdout;
    };
    gradmix(small);
    expect(gradmix(export_)).toMatch(/javascript,[\s\S]*types,[\s\S]*guides,/);
  });
});
