// @ts-check
/**
 * Checks the package that would be published: packs it, installs the tarball into a folder outside of the repository, without scripts, optional dependencies and optional
 * peers, and uses it there from a module, from CommonJS, from TypeScript, from a bundled page and on the command line. It also checks the links of its pages, and that the
 * lock files contain no download addresses and no dependency with an install script.
 *
 * npm takes the dependencies from its cache if they are there, otherwise from the registry.
 */
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { build } from "vite";
import { brokenLinks } from "./package/links.mjs";

const root = resolve(import.meta.dirname, "..");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const work = mkdtempSync(join(tmpdir(), "gradmix-package-"));
const installed = join(work, "node_modules/gradmix");
process.on("exit", () => rmSync(work, { recursive: true, force: true }));

/** @param {string} message @returns {never} */
function fail(message) {
  process.stderr.write(`check-package: ${message}\n`);
  process.exit(1);
}

/** @param {string} command @param {string[]} args @param {string} cwd */
function run(command, args, cwd = work) {
  try {
    return execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    const { stdout = "", stderr = "" } = /** @type {{ stdout?: string, stderr?: string }} */ (error);
    return fail(`${command} ${args.join(" ")}\n${stdout}${stderr}`);
  }
}

/** @param {string} name @param {unknown} value */
const writeJson = (name, value) => writeFileSync(join(work, name), JSON.stringify(value));

/** Install scripts that are not needed: webgpu's removes a quarantine mark from its binary on macOS. */
const harmless = new Set(["node_modules/webgpu"]);

function checkLockFiles() {
  for (const file of ["package-lock.json", "docs/api/package-lock.json"]) {
    const lock = JSON.parse(readFileSync(join(root, file), "utf8"));
    for (const [path, entry] of Object.entries(lock.packages)) {
      if (entry.resolved !== undefined && !entry.link)
        fail(`${file}: ${path} names a download address; install with omit-lockfile-registry-resolved`);
      if (entry.hasInstallScript && !harmless.has(path)) fail(`${file}: ${path} has an install script`);
    }
  }
}

/** Gives the bytes of the tarball. */
function install() {
  run("npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", work], root);
  const tarball = `gradmix-${manifest.version}.tgz`;
  writeJson("package.json", { type: "module", private: true });
  run("npm", [
    ...["install", "--silent", "--prefer-offline", "--ignore-scripts", "--omit=optional", "--no-audit"],
    ...["--no-package-lock", `./${tarball}`],
  ]);
  return statSync(join(work, tarball)).size;
}

/** Every relative link of the package's pages leads to a file in it. @param {number} bytes of the tarball */
function checkPages(bytes) {
  for (const name of [
    "LICENSE",
    "README.md",
    "python/gradmix_client.py",
    "examples/configs",
    "docs/rules.md",
  ])
    if (!existsSync(join(installed, name))) fail(`${name} is missing from the package`);
  const pages = readdirSync(installed, { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".md"),
  );
  const broken = brokenLinks(installed, pages);
  if (broken.length > 0) fail(`links that lead nowhere in the package:\n${broken.join("\n")}`);
  const said = /([\d.]+) MB to download/.exec(readFileSync(join(root, "README.md"), "utf8"))?.[1];
  const megabytes = bytes / 1e6;
  if (!(Math.abs(Number(said) - megabytes) < 0.15))
    fail(`README.md says ${said} MB to download; the package has ${megabytes.toFixed(1)}`);
}

/** @param {object} options @param {string[]} files @param {object} more */
function compile(options, files, more = {}) {
  const compilerOptions = {
    target: "ES2022",
    lib: ["ES2023", "ESNext.Disposable"],
    types: [],
    strict: true,
    skipLibCheck: false,
    ...options,
  };
  writeJson("tsconfig.json", { compilerOptions, files, ...more });
  run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", "."]);
}

const entries = Object.keys(manifest.exports)
  .filter((key) => key !== "./package.json")
  .map((key) => `gradmix${key.slice(1)}`);

/** The published types stand on their own: with the DOM library, with Node's types, with neither, and under the condition of bundlers. */
function checkTypes() {
  writeFileSync(
    join(work, "types.ts"),
    entries
      .map(
        (name, i) =>
          `import * as m${i} from "${name}";\nexport const e${i}: number = Object.keys(m${i}).length;\n`,
      )
      .join(""),
  );
  // Values whose types the package does not name are accepted if the user has these types: those of the DOM library, or of Node.
  writeFileSync(
    join(work, "globals.ts"),
    `import type { InitOptions } from "gradmix";
import type { TrainBpeOptions } from "gradmix/data";
export const options: InitOptions = { urls: { worker: new URL("https://example.com/worker.js") } };
export const bpe: TrainBpeOptions = { vocabSize: 300, signal: new AbortController().signal };
`,
  );
  const libraries = [
    { lib: [], types: [], files: ["types.ts"] },
    { lib: ["DOM"], types: [], files: ["types.ts", "globals.ts"] },
    { lib: [], types: ["node"], files: ["types.ts", "globals.ts"] },
  ];
  const resolutions = [
    { module: "NodeNext" },
    { module: "ESNext", moduleResolution: "bundler", customConditions: ["browser"] },
  ];
  for (const { lib, types, files } of libraries)
    for (const resolution of resolutions)
      compile({ ...resolution, lib: ["ES2023", "ESNext.Disposable", ...lib], types, noEmit: true }, files);
}

/** Runs scripts/package/consumer.ts as a module and as CommonJS. */
function checkPrograms() {
  for (const [source, made] of [
    ["consumer.mts", "consumer.mjs"],
    ["consumer.cts", "consumer.cjs"],
  ]) {
    copyFileSync(join(root, "scripts/package/consumer.ts"), join(work, source));
    compile({ module: "NodeNext", types: ["node"], outDir: "out" }, [source]);
    const text = readFileSync(join(work, "out", made), "utf8");
    if (text.includes("require(") !== made.endsWith(".cjs")) fail(`${made} is of the wrong kind`);
    const said = run(process.execPath, [join("out", made)]);
    if (said !== "every entry point works\n") fail(`${made} says ${said}`);
    for (const name of entries) if (!text.includes(`"${name}"`)) fail(`${source} does not use ${name}`);
  }
}

/** A page with all entries for browsers, bundled: it has the kernels and the worker, and nothing of Node's. */
async function checkPage() {
  const own = entries.filter((name) => !["gradmix/node", "gradmix/testing"].includes(name));
  writeFileSync(
    join(work, "page.js"),
    own.map((name, i) => `import * as m${i} from "${name}";\nconsole.log(m${i});\n`).join(""),
  );
  writeFileSync(join(work, "index.html"), '<script type="module" src="./page.js"></script>');
  /** @type {import("vite").Plugin} */
  const noBuiltins = {
    name: "no-builtins",
    enforce: "pre",
    resolveId(source, importer) {
      if (source.startsWith("node:")) throw new Error(`${importer} imports ${source}`);
    },
  };
  await build({
    root: work,
    configFile: false,
    logLevel: "silent",
    plugins: [noBuiltins],
    worker: { format: "es" },
    build: { outDir: "page", target: "esnext", minify: false },
  });
  const files = readdirSync(join(work, "page/assets"));
  for (const part of [/^kernels-plain.*\.wasm$/, /^kernels-relaxed.*\.wasm$/, /^worker-browser.*\.js$/])
    if (!files.some((name) => part.test(name))) fail(`the bundled page has no ${part}: ${files.join(" ")}`);
}

function checkCommand() {
  const version = run("npx", ["--no", "--", "gradmix", "--version"]).trim();
  if (version !== manifest.version)
    fail(`gradmix --version says ${version}, package.json ${manifest.version}`);
  const help = run("npx", ["--no", "--", "gradmix", "--help"]);
  if (!help.startsWith("Usage: gradmix ")) fail(`gradmix --help says ${help}`);
}

checkLockFiles();
const bytes = install();
checkPages(bytes);
checkCommand();
const alone = entries.filter((name) => name !== "gradmix/testing");
run(process.execPath, [
  ...["--input-type=module", "-e", alone.map((name) => `await import(${JSON.stringify(name)});`).join("")],
]);
// Packages that a user adds: Node's types, and fast-check for gradmix/testing.
for (const name of ["fast-check", "@types/node"]) {
  mkdirSync(dirname(join(work, "node_modules", name)), { recursive: true });
  symlinkSync(join(root, "node_modules", name), join(work, "node_modules", name));
}
checkTypes();
checkPrograms();
await checkPage();
process.stdout.write(
  `package: ${(bytes / 1e6).toFixed(1)} MB to download; ${entries.length} entry points work from ESM, CommonJS, TypeScript and a bundled page\n`,
);
