/**
 * `npm run --silent bench -- NAME [--json] [--option value …]` runs one benchmark. A benchmark is a file beside this one
 * that exports `run(options)`, which returns plain data. With --json, only these data go to standard output.
 */
import { readdirSync } from "node:fs";
import { GradmixError } from "gradmix";

/** Returns the options after the name: `--threads 2` is `{ threads: "2" }`, `--quick` is `{ quick: true }`. */
export type BenchOptions = Readonly<Record<string, string | true>>;

export interface Benchmark {
  run(options: BenchOptions): Promise<unknown>;
}

const [name = "", ...rest] = process.argv.slice(2);
const known = readdirSync(import.meta.dirname)
  .map((file) => /^(.*)\.m?js$/.exec(file)?.[1] ?? "main")
  .filter((found) => found !== "main" && !found.startsWith("_"))
  .sort();
if (!known.includes(name)) {
  process.stderr.write(`bench: there is no benchmark "${name}"; there are ${known.join(", ") || "none"}\n`);
  process.exit(2);
}

const options: Record<string, string | true> = {};
rest.forEach((item, i) => {
  const key = /^--(.+)$/.exec(item)?.[1];
  const value = rest[i + 1];
  if (key !== undefined) options[key] = value === undefined || value.startsWith("--") ? true : value;
});

const file = readdirSync(import.meta.dirname).find(
  (found) => found === `${name}.js` || found === `${name}.mjs`,
);
const benchmark = (await import(`./${file ?? ""}`)) as Benchmark;
const result = await benchmark.run(options).catch((error: unknown) => {
  if (!(error instanceof GradmixError)) throw error;
  process.stderr.write(`bench ${name}: ${error.message}\n`);
  process.exit(1);
});
if (options["json"] === true) process.stdout.write(`${JSON.stringify(result)}\n`);
else printPlain(result);

function printPlain(value: unknown): void {
  if (Array.isArray(value) || typeof value !== "object" || value === null) console.table(value);
  else
    for (const [key, entry] of Object.entries(value))
      if (Array.isArray(entry)) console.table(entry);
      else
        console.log(`${key.padEnd(24)} ${typeof entry === "object" ? JSON.stringify(entry) : String(entry)}`);
}
