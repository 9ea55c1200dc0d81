// @ts-check
/**
 * `npm run mutate -- src/dga [src/nn/gpt.ts …] [options]` measures whether the tests would notice wrong code. Every mutant is a small
 * change of the built code; it is killed if a test fails with it, or hangs. CONTRIBUTING.md explains the result.
 *
 * It works on a copy in .cache/mutate/tree, whose dist/ contains all mutants at once, each behind a switch. Each test file runs
 * once to find out which mutants its tests reach. Then each mutant is tried on the tests that reach it, until one fails.
 */
import { execFileSync, fork } from "node:child_process";
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { findMutants, instrument } from "./mutate/mutants.mjs";
import { drawSample, summarise } from "./mutate/sample.mjs";

/** @typedef {{ id: number, file: string, line: number, source: string, change: string, reason: string | null }} Mutant */
/** `whole`: all tests of the file count. @typedef {{ ms: number, whole: boolean, loaded: number[], tests: { id: string, name: string, ms: number, reached: number[] }[] }} Coverage */
/** @typedef {Mutant & { verdict: "killed" | "survived" | "not covered", by: string | null, leftOut: number, ms: number }} Outcome */
/** @typedef {{ passed: boolean, why: string | null, tests: { id: string, name: string, state: string, ms: number }[] }} Answer */

const HELP = `npm run mutate -- PLACE … [options]      PLACE: a folder or file of src/

  --sample N        try N mutants of each place, drawn at random (default: all)
  --seed S          of the sample (default 1)
  --tests WORDS     only the test files with one of WORDS, separated by commas, in their path
  --limit S         give a mutant up as survived after S seconds of tests (default: all tests that reach it)
  --concurrency N   test processes at a time (default 1)
  --again           only what survived in the last run
  --list            print the mutants, try none
`;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    sample: { type: "string" },
    seed: { type: "string", default: "1" },
    tests: { type: "string", default: "" },
    limit: { type: "string", default: "Infinity" },
    concurrency: { type: "string", default: "1" },
    again: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
const root = resolve(import.meta.dirname, "..");
const places = positionals.map((place) => relative(root, resolve(place)));
if (options.help || places.length === 0) {
  process.stdout.write(HELP);
  process.exit(options.help ? 0 : 2);
}

const cache = join(root, ".cache", "mutate");
const tree = join(cache, "tree");
/** Files that tests write. Killed tests leave them behind. */
const temporary = mkdtempSync(join(tmpdir(), "gradmix-mutate-"));
const lock = join(cache, "lock");
const reportPath = join(cache, "report.json");
const say = (/** @type {string} */ line) => process.stdout.write(`${line}\n`);
const readJson = (/** @type {string} */ path) => JSON.parse(readFileSync(path, "utf8"));

/** Two runs at a time would change each other's tree. */
function takeLock() {
  const holder = existsSync(lock) ? Number(readFileSync(lock, "utf8")) : 0;
  try {
    if (holder > 0 && process.kill(holder, 0)) {
      say(`another run is at work in this checkout (process ${holder})`);
      process.exit(2);
    }
  } catch {
    // That process has ended without removing its lock.
  }
  writeFileSync(lock, String(process.pid));
}

/** The working tree, built, without node_modules. */
function copyTree() {
  rmSync(tree, { recursive: true, force: true });
  const listed = execFileSync("git", ["ls-files", "-zco", "--exclude-standard"], {
    cwd: root,
    encoding: "utf8",
  });
  const files = listed.split("\0").filter((file) => file !== "" && existsSync(join(root, file)));
  for (const file of files) cpSync(join(root, file), join(tree, file));
  symlinkSync(join(root, "node_modules"), join(tree, "node_modules"));
  // The WebAssembly modules, which the TypeScript compiler does not make.
  const fromWasm = (/** @type {string} */ path) => !/\.(js|d\.ts|map)$/.test(path);
  cpSync(join(root, "dist"), join(tree, "dist"), { recursive: true, filter: fromWasm });
  execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.json"], {
    cwd: tree,
    stdio: "inherit",
  });
  return files;
}

/** Puts the mutants of the places into the copy's dist/. @returns {Mutant[]} */
function mutateTree(/** @type {readonly string[]} */ files) {
  /** One mutant by its line and change; or all of a file or folder whose change matches. @type {{ file: string, line?: string, change?: string, matches?: string, reason: string }[]} */
  const equivalent = readJson(join(root, "scripts/mutate/equivalent.json"));
  const used = new Set();
  /** @type {Mutant[]} */
  const all = [];
  for (const file of files) {
    const chosen = places.some((place) => file === place || file.startsWith(`${place}/`));
    if (!chosen || !file.startsWith("src/") || !file.endsWith(".ts")) continue;
    const built = join(tree, "dist", `${file.slice(4, -3)}.js`);
    const code = readFileSync(built, "utf8");
    const mutants = findMutants(code, readFileSync(`${built}.map`, "utf8"));
    const runtime = relative(dirname(built), join(tree, "dist/mutant.js"));
    writeFileSync(
      built,
      instrument(code, mutants, all.length, runtime.startsWith(".") ? runtime : `./${runtime}`),
    );
    for (const { line, source, change } of mutants) {
      const judged = equivalent.find((entry) =>
        entry.matches === undefined
          ? entry.file === file && entry.line === source && entry.change === change
          : file.startsWith(entry.file) && new RegExp(entry.matches).test(change),
      );
      if (judged !== undefined) used.add(judged);
      all.push({ id: all.length, file, line, source, change, reason: judged?.reason ?? null });
    }
  }
  for (const entry of equivalent)
    if (places.some((place) => entry.file.startsWith(place)) && !used.has(entry))
      say(`equivalent.json: no such mutant any more: ${entry.file}: ${entry.matches ?? entry.change}`);
  cpSync(join(root, "scripts/mutate/runtime.mjs"), join(tree, "dist/mutant.js"));
  return all;
}

/** A vitest that is kept warm, in a process group of its own so that all of it can be ended. */
function createDriver(/** @type {number} */ bail) {
  /** @type {import("node:child_process").ChildProcess | null} */
  let child = null;
  /** @type {string[]} */
  let files = [];

  const start = async () => {
    const env = { ...process.env, GRADMIX_WEBGPU: "off", TMPDIR: temporary, VITE_CJS_IGNORE_WARNING: "1" };
    const started = fork(join(tree, "scripts/mutate/driver.mjs"), [tree, String(bail)], {
      cwd: tree,
      env,
      detached: true,
      // Some mutants crash with pages of text.
      stdio: ["ignore", "ignore", bail > 0 ? "ignore" : "inherit", "ipc"],
    });
    child = started;
    files = await new Promise((done, fail) => {
      started.once("message", (/** @type {{ ready: string[] }} */ { ready }) => done(ready));
      started.once("exit", (code) => fail(new Error(`vitest ended with ${code}`)));
    });
    return started;
  };
  const stop = () => {
    if (child?.pid !== undefined)
      try {
        process.kill(-child.pid, "SIGKILL");
      } catch {
        // It has already ended.
      }
    child = null;
  };
  process.on("exit", stop);

  return {
    stop,
    async files() {
      if (child === null) await start();
      return files;
    },
    /**
     * @param {string} file @param {string[] | null} ids @param {Record<string, string>} env @param {number} limit in ms
     * @returns {Promise<Answer>}
     */
    async run(file, ids, env, limit) {
      const tests = child ?? (await start());
      const answer = await new Promise((done) => {
        const timer = setTimeout(() => done("time out"), limit);
        tests.once("message", (message) => {
          clearTimeout(timer);
          done(message);
        });
        tests.once("exit", () => {
          clearTimeout(timer);
          done("the test process ended");
        });
        tests.send({ file, ids, env });
      });
      tests.removeAllListeners("message").removeAllListeners("exit");
      if (typeof answer !== "string") return answer;
      stop();
      return { passed: false, why: answer, tests: [] };
    },
  };
}

const digest = (/** @type {readonly string[]} */ paths) => {
  const hash = createHash("sha256");
  for (const path of paths) hash.update(`${path}\0`).update(readFileSync(join(tree, path)));
  return hash.digest("hex");
};

/** What each test file reaches: from the cache, or by running it. @returns {Promise<Map<string, Coverage>>} */
async function cover(
  /** @type {readonly string[]} */ files,
  /** @type {ReturnType<typeof createDriver>} */ driver,
) {
  const isTest = (/** @type {string} */ file) => file.endsWith(".test.ts");
  const built = readdirSync(join(tree, "dist"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".js"))
    .map((path) => `dist/${path}`);
  const common = digest(
    [
      ...built,
      ...files.filter((file) => /^(test|examples)\/|^scripts\/(?!mutate)/.test(file) && !isTest(file)),
    ].sort(),
  );
  /** @type {Map<string, Coverage>} */
  const covered = new Map();
  const store = join(cache, "coverage");
  mkdirSync(store, { recursive: true });
  const words = options.tests.split(",");
  for (const file of (await driver.files()).filter((file) => words.some((word) => file.includes(word)))) {
    const key = createHash("sha256")
      .update(common)
      .update(digest([file]))
      .digest("hex")
      .slice(0, 32);
    const path = join(store, `${key}.json`);
    if (!existsSync(path)) {
      const folder = join(cache, "reached");
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder, { recursive: true });
      const start = performance.now();
      const { passed, why, tests } = await driver.run(
        file,
        null,
        { GRADMIX_MUTANT_COVERAGE: folder },
        600_000,
      );
      const ms = performance.now() - start;
      const [good, failed] = ["passed", "failed"].map((state) =>
        tests.filter((test) => test.state === state),
      );
      if (!passed)
        say(
          `${file}: without a mutant it fails, and is left out: ${failed.map((t) => t.name).join("; ") || why}`,
        );
      // If a file fails as a whole, the state of its tests is unknown.
      if (!passed && failed.length === 0) continue;
      /** @type {{ test: string, ids: number[] }[]} */
      const found = readdirSync(folder).map((name) => readJson(join(folder, name)));
      const reachedBy = (/** @type {string} */ id) => [
        ...new Set(found.filter(({ test }) => test === id).flatMap(({ ids }) => ids)),
      ];
      /** @type {Coverage} */
      const coverage = {
        ms,
        whole: failed.length === 0,
        loaded: reachedBy(""),
        tests: good.map(({ id, name, ms }) => ({ id, name, ms, reached: reachedBy(id) })),
      };
      writeFileSync(path, JSON.stringify(coverage));
      say(`  ${file}: ${coverage.tests.length} tests, ${(ms / 1000).toFixed(1)} s`);
    }
    covered.set(file, readJson(path));
  }
  return covered;
}

/**
 * The tests that can kill a mutant, by file, with the time that they take without it.
 * @param {number} id @param {Map<string, Coverage>} coverage
 */
const testsFor = (id, coverage) =>
  [...coverage].flatMap(([file, { ms, whole, loaded, tests }]) => {
    const all = loaded.includes(id);
    const ids = tests.filter(({ reached }) => all || reached.includes(id));
    if (ids.length === 0) return [];
    // Time outside of tests: starting the process, loading.
    const rest = ms - tests.reduce((sum, test) => sum + test.ms, 0);
    const time = Math.max(0, rest) + ids.reduce((sum, test) => sum + test.ms, 0);
    return [{ file, ids: whole && ids.length === tests.length ? null : ids.map((test) => test.id), time }];
  });

/** Tries mutants, `concurrency` at a time. */
async function tryMutants(
  /** @type {readonly Mutant[]} */ mutants,
  /** @type {Map<string, Coverage>} */ coverage,
) {
  /** @type {Outcome[]} */
  const outcomes = [];
  /** Of each test file: how often it was tried and has killed; what kills often and is quick comes first. @type {Map<string, { tried: number, killed: number }>} */
  const record = new Map();
  const queue = [...mutants];
  const stem = (/** @type {string} */ path) => (path.split("/").at(-1) ?? "").split(".")[0] ?? "";

  /** Whatever else makes tests fail would count as kills. */
  const control = async (/** @type {ReturnType<typeof createDriver>} */ driver) => {
    const [cheapest] = [...coverage].sort(([, a], [, b]) => a.ms - b.ms);
    if (cheapest === undefined) return;
    const { passed, why } = await driver.run(cheapest[0], null, { GRADMIX_MUTANT: "-1" }, 60_000);
    if (!passed) throw new Error(`${cheapest[0]} fails without a mutant (${why}): what was counted is void`);
  };

  const worker = async () => {
    const driver = createDriver(1);
    for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
      const { id, file: mutated } = mutant;
      const area = dirname(mutated).split("/")[1] ?? "";
      const worth = (/** @type {{ file: string, time: number }} */ { file, time }) => {
        const { tried, killed } = record.get(file) ?? { tried: 0, killed: 0 };
        const near = stem(file) === stem(mutated) ? 4 : file.startsWith(`test/${area}/`) ? 2 : 1;
        return (near * (killed + 1)) / (tried + 2) / (time + 300);
      };
      const plan = testsFor(id, coverage).sort((a, b) => worth(b) - worth(a));
      const start = performance.now();
      let by = null;
      let tries = 0;
      for (const { file, ids, time } of plan) {
        if (performance.now() - start > 1000 * Number(options.limit)) break;
        const { passed, why } = await driver.run(
          file,
          ids,
          { GRADMIX_MUTANT: String(id) },
          15_000 + 6 * time,
        );
        tries++;
        const { tried, killed } = record.get(file) ?? { tried: 0, killed: 0 };
        record.set(file, { tried: tried + 1, killed: killed + Number(!passed) });
        if (!passed) {
          by = `${file}: ${why}`;
          break;
        }
      }
      const verdict = plan.length === 0 ? "not covered" : by === null ? "survived" : "killed";
      const leftOut = by === null ? plan.length - tries : 0;
      const outcome = { ...mutant, verdict, by, leftOut, ms: Math.round(performance.now() - start) };
      outcomes.push(/** @type {Outcome} */ (outcome));
      if (verdict !== "killed")
        say(
          `  ${verdict}: ${mutated}:${mutant.line}: ${mutant.change}${leftOut > 0 ? ` (${leftOut} test files left out)` : ""}`,
        );
      if (outcomes.length % 25 === 0) await control(driver);
      if (outcomes.length % 25 === 0) say(`  ${outcomes.length} of ${mutants.length}`);
      writeFileSync(reportPath, JSON.stringify({ places, seed: Number(options.seed), outcomes }, null, 1));
    }
    driver.stop();
  };
  await Promise.all(Array.from({ length: Number(options.concurrency) }, worker));
  return outcomes;
}

const placeOf = (/** @type {{ file: string }} */ { file }) =>
  places.find((place) => file === place || file.startsWith(`${place}/`)) ?? file;

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));
mkdirSync(cache, { recursive: true });
takeLock();
process.on("exit", () => {
  for (const path of [temporary, lock]) rmSync(path, { recursive: true, force: true });
});
const survivors = options.again
  ? readJson(reportPath).outcomes.filter((/** @type {Outcome} */ o) => o.verdict !== "killed")
  : [];
const files = copyTree();
const mutants = mutateTree(files);
const open = mutants.filter(({ reason }) => reason === null);
const chosen = options.again
  ? open.filter((m) =>
      survivors.some(
        (/** @type {Outcome} */ s) => s.file === m.file && s.source === m.source && s.change === m.change,
      ),
    )
  : places.flatMap((place) => {
      const here = open.filter((mutant) => placeOf(mutant) === place);
      return options.sample === undefined
        ? here
        : drawSample(here, Number(options.sample), Number(options.seed));
    });
if (options.list)
  for (const { file, line, change, reason } of mutants)
    say(`${file}:${line}: ${change}${reason === null ? "" : `   equivalent: ${reason}`}`);
else {
  say(
    `${mutants.length} mutants, ${mutants.length - open.length} of them judged equivalent; ${chosen.length} are tried`,
  );
  const driver = createDriver(0);
  const coverage = await cover(files, driver);
  driver.stop();
  const outcomes = await tryMutants(chosen, coverage);
  say("");
  for (const line of summarise(places, outcomes, mutants, placeOf)) say(line);
  say(`\n${relative(root, reportPath)} names every mutant that was tried, and the test that killed it`);
}
process.exit(0);
