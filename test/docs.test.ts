/** The code in README.md, CONTRIBUTING.md and docs/: every block compiles with the package's own types and runs as printed. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { splitFile } from "#dist/cli/compare-plan.js";
import { jsonLayer } from "#dist/cli/config.js";
import { ruleNames } from "#dist/dga/rules/index.js";
import { parseJson } from "#dist/json.js";

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

test("every block is of a language that is checked, and there are some of each", () => {
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
    // What a user with strict types has.
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

  test.each(programs.map((block) => [block.place, block] as const))("of %s runs", (_, block) => {
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

  test("of tests passes", () => {
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
    // Of gradmix compare, which takes what is beside its own section as gradmix train does.
    const { rest } = splitFile(parseJson(code, { source: place }), place);
    expect(() => jsonLayer(rest, place)).not.toThrow();
  },
);

describe("commands", () => {
  const help = (...command: string[]): string =>
    execFileSync(process.execPath, [join(root, "dist/cli/main.js"), ...command, "--help"], {
      encoding: "utf8",
    });
  /** The options of every command, from the program's own list of them. */
  const commands: ReadonlyMap<string, ReadonlySet<string>> = new Map(
    [...help().matchAll(/^ {2}([a-z]+) /gm)].map(({ 1: name = "" }) => [
      name,
      new Set(help(name).match(/--[a-z][a-z0-9-]*/g)),
    ]),
  );
  const flags = new Set([...commands.values()].flatMap((own) => [...own]));
  const { scripts, name } = JSON.parse(textOf("package.json")) as {
    scripts: Record<string, string>;
    name: string;
  };

  /** What is wrong with a line for the shell, or null. */
  function fault(command: string): string | null {
    const [first = "", second = "", ...rest] = command.trim().split(/\s+/);
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
    const words = first === "npx" ? rest : [second, ...rest];
    if ((first === "npx" ? second : first) !== "gradmix") return `"${first}" is no command of this package`;
    const own = commands.get(words[0] ?? "");
    if (own === undefined) return `there is no command "gradmix ${words[0]}"`;
    const unknown = words.find((word) => word.startsWith("--") && word !== "--help" && !own.has(word));
    return unknown === undefined ? null : `there is no option ${unknown}`;
  }

  test.each(of("").map((block) => [block.place, block.code] as const))("of %s exist", (_, code) => {
    const lines = code
      .replaceAll(/\\\n/g, " ")
      .split("\n")
      .map((line) => line.replace(/#.*/, ""))
      .filter((line) => line.trim() !== "");
    for (const line of lines)
      for (const command of line.split("&&")) expect(fault(command), command).toBe(null);
  });

  test("and options between the lines exist", () => {
    const spans = files.flatMap((file) =>
      [...textOf(file).matchAll(/`([^`\n]+)`/g)].map(([, code = ""]) => ({ file, code })),
    );
    const commands = spans.filter(({ code }) => /^(gradmix|npx gradmix|npm run) /.test(code));
    expect(commands.length).toBeGreaterThan(5);
    for (const { file, code } of commands) expect(fault(code), `${file}: ${code}`).toBe(null);
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
    // `--long` is an option of zstd.
    const known = new Set([
      ...flags,
      "--long",
      ...others.map((name) => (name.startsWith("--") ? name : `--${name}`)),
    ]);
    for (const { file, code } of options)
      for (const flag of code.match(/--[a-z][a-z0-9-]*/g) ?? [])
        expect([...known], `${file}: ${code}`).toContain(flag);
  });

  test("and what does not exist would be seen", () => {
    expect(fault("npm run nothing")).toMatch(/no script/);
    expect(fault("gradmix tran x.json")).toMatch(/no command/);
    expect(fault("npx gradmix train --steps 4 --stpes 3")).toBe("there is no option --stpes");
    expect(fault("python plant.py x")).toBe("there is no program plant.py in python/examples");
    expect(fault("torchrun --nproc-per-node 2 train_gpt.py --stpes 3")).toBe("there is no option --stpes");
    expect(fault("rm -rf")).toMatch(/no command of this package/);
  });
});
