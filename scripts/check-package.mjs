// @ts-check
/**
 * Checks what would be published: packs it, unpacks it as an installed package, compiles a consumer against its
 * types, imports every entry point and runs the command. Also looks at the lock file: no download
 * addresses, no dependency that wants to run a script when it is installed.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");
// Below the repository, so that the package's own dependencies are found by walking up.
const work = join(root, ".cache/package");
const installed = join(work, "node_modules/gradmix");

/** @param {string} message @returns {never} */
function fail(message) {
  process.stderr.write(`check-package: ${message}\n`);
  process.exit(1);
}

/** @param {string} command @param {string[]} args @param {string} cwd */
function run(command, args, cwd) {
  try {
    return execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    const { stdout = "", stderr = "" } = /** @type {{ stdout?: string, stderr?: string }} */ (error);
    return fail(`${command} ${args.join(" ")}\n${stdout}${stderr}`);
  }
}

/** Install scripts that nothing is lost without: webgpu's takes a quarantine mark off its binary on macOS. */
const harmless = new Set(["node_modules/webgpu"]);
const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
for (const [path, entry] of Object.entries(lock.packages)) {
  if (entry.resolved !== undefined && !entry.link)
    fail(`package-lock.json: ${path} names a download address; install with omit-lockfile-registry-resolved`);
  if (entry.hasInstallScript && !harmless.has(path)) fail(`package-lock.json: ${path} has an install script`);
}

rmSync(work, { recursive: true, force: true });
mkdirSync(installed, { recursive: true });
run("npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", work], root);
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
run(
  "tar",
  ["-xzf", join(work, `gradmix-${manifest.version}.tgz`), "--strip-components=1", "-C", installed],
  work,
);

for (const name of ["LICENSE", "README.md", "python/gradmix_client.py", "python/examples/train_gpt.py"])
  if (!existsSync(join(installed, name))) fail(`${name} is missing from the package`);

const entries = Object.keys(manifest.exports)
  .filter((key) => key !== "./package.json")
  .map((key) => `gradmix${key.slice(1)}`);
writeFileSync(join(work, "package.json"), JSON.stringify({ type: "module", private: true }));
writeFileSync(
  join(work, "consumer.ts"),
  entries
    .map(
      (name, i) =>
        `import * as m${i} from "${name}";\nexport const e${i}: number = Object.keys(m${i}).length;\n`,
    )
    .join(""),
);
// What the types call by no name is taken where there is one: with the DOM library, or with Node's types.
writeFileSync(
  join(work, "globals.ts"),
  `import type { InitOptions } from "gradmix";
import type { TrainBpeOptions } from "gradmix/data";
export const options: InitOptions = { urls: { worker: new URL("https://example.com/worker.js") } };
export const bpe: TrainBpeOptions = { vocabSize: 300, signal: new AbortController().signal };
`,
);
// The published types must stand on their own: with the DOM library, with Node's types, with neither, and under the condition of bundlers.
const libraries = [
  { lib: [], types: [], files: ["consumer.ts"] },
  { lib: ["DOM"], types: [], files: ["consumer.ts", "globals.ts"] },
  { lib: [], types: ["node"], files: ["consumer.ts", "globals.ts"] },
];
const resolutions = [
  { module: "NodeNext", customConditions: [] },
  { module: "ESNext", moduleResolution: "bundler", customConditions: ["browser"] },
];
for (const { lib, types, files } of libraries)
  for (const resolution of resolutions) {
    const compilerOptions = {
      ...resolution,
      target: "ES2022",
      lib: ["ES2023", "ESNext.Disposable", ...lib],
      types,
      strict: true,
      skipLibCheck: false,
      noEmit: true,
    };
    writeFileSync(join(work, "tsconfig.json"), JSON.stringify({ compilerOptions, files }));
    run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", "."], work);
  }
for (const name of entries)
  run(process.execPath, ["-e", `await import(${JSON.stringify(name)})`, "--input-type=module"], work);
const version = run(process.execPath, [join(installed, manifest.bin.gradmix), "--version"], work).trim();
if (version !== manifest.version) fail(`gradmix --version says ${version}, package.json ${manifest.version}`);
