/**
 * The package in a browser: the README's program, bundled by Vite, trains in headless Chromium on every backend, in a page that is cross-origin isolated
 * (threads), in one that is not, and in a worker; and missing features are refused.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { join, resolve } from "node:path";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { build, type Plugin } from "vite";
import { chromiumMissing, type Page, type Site, visit } from "./browser/chromium.ts";
import { expectNear } from "./near.ts";

const root = resolve(import.meta.dirname, "..");
const work = join(root, ".cache/browser");
const pages = join(import.meta.dirname, "browser");
const site: Site = {
  "/app/": join(work, "out"),
  "/tests/": pages,
  "/dist/": join(root, "dist"),
  "/elsewhere/": join(root, "dist/backends/cpu"),
};

interface Trained {
  readonly name: string;
  readonly threads: number;
  /** Number of cores that the page sees. */
  readonly cores: number;
  readonly losses: readonly number[];
  readonly weights: readonly number[];
}

/** The README's first program with options for `init`, that reports what it found. */
function readme(head: string, options: string, report: string): string {
  const [, code = ""] = /^```js\n([\s\S]*?)^```$/m.exec(readFileSync(join(root, "README.md"), "utf8")) ?? [];
  const replace = (text: string, from: string, to: string): string => {
    expect(text.split(from).length, from).toBe(2);
    return text.replace(from, to);
  };
  let text = replace(code, "step < 40", "step < steps");
  text = replace(
    text,
    'await init({ vectorBits: "auto" });',
    `const { steps = 40, ...options } = ${options};\nconst backend = await init({ vectorBits: "auto", ...options });\nconst losses = [];`,
  );
  text = replace(text, "await trainer.step();", "losses.push((await trainer.step()).loss);");
  text = replace(
    text,
    'console.log("prose, code:", trainer.weights().final);',
    `${report}({ name: backend.name, threads: backend.capabilities.threads, cores: globalThis.navigator?.hardwareConcurrency, losses, weights: [...trainer.weights().final] });`,
  );
  return `${head}\n${text}`;
}

/** Vite would put an empty module in the place of one of Node's. */
const noBuiltins: Plugin = {
  name: "no-builtins",
  enforce: "pre",
  resolveId(source, importer) {
    if (isBuiltin(source)) throw new Error(`${importer ?? "the page"} imports ${source}`);
  },
};

const missing = chromiumMissing();
let node: Trained;

beforeAll(async () => {
  if (missing !== null) return;
  rmSync(work, { recursive: true, force: true });
  mkdirSync(join(work, "node_modules"), { recursive: true });
  symlinkSync(root, join(work, "node_modules/gradmix"));
  for (const name of ["page.ts", "in-worker.ts", "refusals.ts"])
    writeFileSync(join(work, name), readFileSync(join(pages, name)));
  writeFileSync(
    join(work, "readme.js"),
    readme('import { initOptions, report } from "./page.ts";', "await initOptions()", "await report"),
  );
  await build({
    root: work,
    configFile: false,
    plugins: [noBuiltins],
    base: "/app/",
    logLevel: "silent",
    worker: { format: "es" },
    build: {
      outDir: "out",
      target: "esnext",
      modulePreload: false,
      rolldownOptions: {
        input: ["page.ts", "readme.js", "in-worker.ts", "refusals.ts"].map((name) => join(work, name)),
        output: { entryFileNames: "[name].js" },
        preserveEntrySignatures: "exports-only",
      },
    },
  });
  node = JSON.parse(
    execFileSync(
      process.execPath,
      [
        "--input-type=module",
        "-e",
        readme(
          "const report = (found) => process.stdout.write(JSON.stringify(found));",
          '{ backend: "cpu" }',
          "report",
        ),
      ],
      { cwd: root, encoding: "utf8" },
    ),
  ) as Trained;
});

beforeEach(({ skip }) => {
  if (missing !== null) skip(missing);
});

/** A page's report. Fails with the error that the page reports, if it does. */
async function see<T>(page: Page): Promise<T> {
  const found = (await visit(site, page)) as T & { error?: string };
  expect(found.error).toBeUndefined();
  return found;
}

/** Threads that the backend takes by itself on so many cores, in a page that is isolated. */
const ownThreads = (cores: number): number => Math.min(16, cores);
const cases: readonly (Page & {
  title: string;
  name: string;
  threads: (cores: number) => number;
  tolerance: number;
})[] = [
  {
    title: "cpu, in a page that is cross-origin isolated",
    module: "/app/readme.js",
    options: { threads: 3 },
    isolated: true,
    ...{ name: "cpu", threads: () => 3, tolerance: 1e-6 },
  },
  {
    title: "cpu, in a page that is not",
    module: "/app/readme.js",
    options: { backend: "cpu" },
    isolated: false,
    ...{ name: "cpu", threads: () => 1, tolerance: 1e-6 },
  },
  {
    title: "cpu, in a worker of the page",
    module: "/app/in-worker.js",
    isolated: true,
    ...{ name: "cpu", threads: ownThreads, tolerance: 1e-6 },
  },
  {
    title: "webgpu",
    module: "/app/readme.js",
    // SwiftShader takes most of a second for a step.
    options: { device: true, steps: 5 },
    isolated: false,
    ...{ name: "webgpu", threads: () => 1, tolerance: 1e-3 },
  },
];

describe("the README's model trains as it does in Node.js", () => {
  test.each(cases)("on $title", async ({ name, threads, tolerance, ...page }) => {
    const found = await see<Trained>(page);
    expect(found).toMatchObject({ name, threads: threads(found.cores) });
    const whole = found.losses.length === node.losses.length;
    expect(found.losses.length).toBeGreaterThan(4);
    expectNear(found.losses, node.losses.slice(0, found.losses.length), tolerance);
    if (whole) expectNear(found.weights, node.weights, tolerance);
    // An update of the mixture was in the steps, also where there are fewer.
    expect(found.weights[1]).toBeGreaterThan(found.weights[0]);
  });
});

test("features that the browser lacks are refused", async () => {
  const page = { module: "/app/refusals.js", isolated: false };
  const says = (code: string, text: string): unknown =>
    expect.stringMatching(new RegExp(`^GradmixError ${code}: ${text}`));
  expect(await see<object>(page)).toEqual({
    // The only adapter is SwiftShader.
    chosen: "cpu",
    lines: [],
    listFiles: says("io", "listFiles: a browser has no files to read; "),
    readDocuments: says("io", "readDocuments: a browser has no files to read; "),
    threads: says(
      "config",
      "threads: 2 are not possible: .* cross-origin isolated; .* or leave threads out$",
    ),
    wide: says(
      "backend",
      "cpu: there are no 256-bit vectors: a browser does not offer them to pages; use vectorBits = 128$",
    ),
    software: says(
      "backend",
      "webgpu: the only adapter is a software one \\(.*swiftshader.*\\); .* init\\(\\{ device \\}\\)$",
    ),
    urlsOfWebgpu: says(
      "config",
      'urls: only the backend "cpu" has this option; leave it out with the backend "webgpu"$',
    ),
    unknownUrl: says(
      "config",
      'init: urls: there is no option "kernels"; its options are relaxed, plain, worker$',
    ),
    wrongUrl: says("config", "init: urls: plain: 5 does not fit; it must be a URL$"),
  });
});

test("without a bundler, files are found beside the modules or at given URLs, and an error names a missing file", async () => {
  const imports = {
    gradmix: "/dist/index.js",
    "gradmix/nn": "/dist/nn/index.js",
    "gradmix/dga": "/dist/dga/index.js",
    "/tests/page.js": "/app/page.js",
  };
  const found = await see<{ cores: number }>({ module: "/tests/urls.mjs", isolated: true, imports });
  const threads = ownThreads(found.cores);
  const runs = { right: true, threads, simd: "relaxed", lines: [] };
  const says = (text: string): unknown =>
    expect.stringMatching(new RegExp(`^GradmixError backend: cpu: ${text}`));
  expect(found).toEqual({
    cores: found.cores,
    entries: ["function", "function"],
    beside: runs,
    given: runs,
    plain: { ...runs, simd: "plain" },
    missingKernels: says(
      "the kernels could not be loaded from /nowhere.wasm: the server answers 404; .*kernels-relaxed.wasm .* init",
    ),
    notKernels: says("the kernels could not be loaded from /app/page.js: what is there is not WebAssembly; "),
    missingWorker: says(
      "worker thread 1 could not be loaded from /nowhere.js; .* init\\(\\{ urls: \\{ worker \\} \\}\\)$",
    ),
    foreignWorker: says("worker thread 1 could not be made: .*origin"),
    brokenWorker: says("worker thread 1 failed: .*planned"),
    withoutWorker: {
      ...runs,
      threads: 1,
      lines:
        threads === 1
          ? []
          : [
              expect.stringMatching(
                `could not be loaded from /nowhere.js; .*; 1 of ${threads} threads are used$`,
              ),
            ],
    },
  });
});
