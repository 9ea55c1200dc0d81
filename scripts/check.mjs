// @ts-check
/**
 * `npm test` runs every check, the cheapest first and the tests last. It prints one line per check, and the output of a check only if it fails.
 * `--no-tests` stops before them; arguments after it go to vitest.
 */
import { spawnSync } from "node:child_process";

const steps = [
  ["build", "npm run --silent build"],
  ["format", "npm run --silent format:check"],
  ["lint", "npm run --silent lint"],
  ["types", "npm run --silent typecheck"],
  ["dead code", "npm run --silent deadcode"],
  ["package", "npm run --silent check:package"],
];

for (const [name, command] of steps) {
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(command, { shell: true, encoding: "utf8" });
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  if (status !== 0) {
    process.stderr.write(`${stdout}${stderr}\n${name}: failed after ${seconds} s (${command})\n`);
    process.exit(1);
  }
  process.stdout.write(`${name}: ok (${seconds} s)\n`);
}

const rest = process.argv.slice(2);
if (rest[0] !== "--no-tests") {
  const { status } = spawnSync("vitest", ["run", ...rest], { stdio: "inherit", shell: false });
  process.exit(status ?? 1);
}
