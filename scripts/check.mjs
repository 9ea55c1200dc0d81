// @ts-check
/**
 * `npm test` runs every check, then the tests. Checks run side by side, one per core, those that take longest first. Each prints one line when it ends, and
 * its output only if it fails; the first failure stops the rest.
 * `--no-tests` stops before the tests; arguments without it go to vitest.
 */
import { spawn, spawnSync } from "node:child_process";
import { availableParallelism } from "node:os";

/** @typedef {{ name: string, script: string, built?: true }} Check `built`: it reads dist/, so that it begins after the build. */

/** @type {readonly Check[]} */
const checks = [
  { name: "build", script: "build" },
  { name: "format", script: "format:check" },
  { name: "package", script: "check:package", built: true },
  { name: "lint", script: "lint", built: true },
  { name: "types", script: "typecheck", built: true },
  { name: "dead code", script: "deadcode", built: true },
];

const waiting = [...checks];
/** @type {Set<import("node:child_process").ChildProcess>} */
const running = new Set();
let built = false;

/** Runs checks until none is left that can begin. @returns {Promise<void>} */
async function lane() {
  const at = waiting.findIndex((check) => built || check.built === undefined);
  const [check] = at < 0 ? [] : waiting.splice(at, 1);
  if (check === undefined) return;
  await run(check);
  if (check.name !== "build") return lane();
  built = true;
  // The other lanes may have ended, since what is left waits for the build.
  await Promise.all(lanes());
}

const lanes = () => Array.from({ length: Math.max(1, availableParallelism() - running.size) }, () => lane());

/** @param {Check} check @returns {Promise<void>} */
function run({ name, script }) {
  const start = performance.now();
  const child = spawn("npm", ["run", "--silent", script], { stdio: ["ignore", "pipe", "pipe"] });
  running.add(child);
  /** @type {Buffer[]} */
  const output = [];
  child.stdout.on("data", (part) => output.push(part));
  child.stderr.on("data", (part) => output.push(part));
  return new Promise((resolve) => {
    child.on("close", (status) => {
      running.delete(child);
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      if (status !== 0) {
        for (const other of running) other.kill();
        process.stderr.write(
          `${Buffer.concat(output).toString()}\n${name}: failed after ${seconds} s (npm run ${script})\n`,
        );
        process.exit(1);
      }
      process.stdout.write(`${name}: ok (${seconds} s)\n`);
      resolve();
    });
  });
}

await Promise.all(lanes());

const rest = process.argv.slice(2);
if (rest[0] !== "--no-tests") {
  const { status } = spawnSync("vitest", ["run", ...rest], { stdio: "inherit", shell: false });
  process.exit(status ?? 1);
}
