/** `gradmix mix --replay`: the weights that a rule gives for the measurements of a run, or for a file of messages. */
import { createReadStream, existsSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { errorCode, GradmixError } from "../errors.ts";
import { reason } from "../node/system-errors.ts";
import { jsonLayer } from "./config.ts";
import { MAX_NAMES } from "./metrics.ts";
import type { MixArguments } from "./mix-arguments.ts";
import { namesIn } from "./mix-domains.ts";
import { initOf, type ReplayedRun, sharesOf } from "./mix-init.ts";
import type { Output } from "./output.ts";
import { hasFactsOfRun } from "./run-names.ts";
import { configError } from "./values.ts";

/** Prints the weights, and returns the exit code. Throws `config`, `data`, `checkpoint` and `io`. */
export async function replayFile(path: string, args: MixArguments, err: Output): Promise<number> {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  const metrics = isFolder ? join(path, "metrics.jsonl") : path;
  const run = await runOf(metrics);
  if (isFolder && run === null)
    throw configError(
      `--replay: ${path} is a folder, but not of a run (it has no run.json); give the folder of a run, or a file of messages`,
    );
  if (run === null && basename(metrics) === "metrics.jsonl")
    err.write(
      `${metrics} is not in the folder of a run, so the rule and the facts of its run are not known; the weights follow from the given options\n`,
    );
  const init = Object.fromEntries(
    Object.entries(initOf(args, run, err) ?? {}).filter(([, value]) => value !== null),
  );
  const many = namesIn(run?.layer ?? null, "data.domains")?.length ?? 0;
  if (many > MAX_NAMES)
    err.write(
      `${metrics} has the alignments of the ${MAX_NAMES} heaviest of ${many} domains; the others count as not measured, so the weights differ from those of the run\n`,
    );
  if (run?.bases === true && args.flags.sizes === null)
    err.write(
      `${metrics} does not have the tokens of the bases, which limit their repetitions; without --sizes BASIS=N,… the weights may differ from those of the run\n`,
    );
  const [{ linesOf, MOST_BYTES, writeLine }, { replay }] = await Promise.all([
    import("../mix/lines.ts"),
    import("../mix/replay.ts"),
  ]);
  const input = createReadStream(metrics);
  try {
    const { preconditioned = false, bases = false } = run ?? {};
    const options = { source: metrics, init, preconditioned, bases, isRun: run !== null };
    // A run that still trains, or was killed, may have written only a part of its last line.
    const lines = linesOf(input, MOST_BYTES, run === null ? "take" : "drop");
    for await (const reply of replay(lines, options)) if (!(await writeLine(process.stdout, reply))) break;
  } catch (error) {
    if (error instanceof GradmixError || errorCode(error) === "") throw error;
    throw new GradmixError("io", `--replay: ${metrics} cannot be read (${reason(error)})`, { cause: error });
  } finally {
    input.destroy();
  }
  return 0;
}

/** The run of a metrics file; null if the file is not in the folder of a run. Throws like `readRunHead` and `readOwnWeights`. */
async function runOf(metrics: string): Promise<ReplayedRun | null> {
  const folder = dirname(metrics);
  if (basename(metrics) !== "metrics.jsonl" || !hasFactsOfRun(folder)) return null;
  const { readOwnWeights, readRunHead } = await import("../runs/record.ts");
  const { sampledTokens } = await import("../runs/facts.ts");
  const head = readRunHead(folder);
  const { config, facts } = head;
  // Refuses the lines of a run that has ended if they are not complete.
  readOwnWeights(head);
  const layer = jsonLayer(config, join(folder, "config.json"));
  const counted = join(folder, "histogram.json");
  const uniform = layer.values.get("mixing.prior") === "uniform";
  const { bases, domains, selected, steps, batch, context } = facts;
  // Of the domains that were found in folders, files or fields (data.domainsFrom), the configuration does not have the names.
  const names = bases ?? [...domains.keys()];
  return {
    layer: {
      ...layer,
      values: new Map([...layer.values, ["data.domains", new Map(names.map((name) => [name, []]))]]),
    },
    facts: {
      // The run does not record the sizes of bases.
      ...(bases === null
        ? {
            sizes: Object.fromEntries(
              sampledTokens(
                Array.from(domains, ([name, { tokens }]) => [name, tokens]),
                selected,
              ),
            ),
          }
        : {}),
      tokens: steps * batch * context,
      ...(uniform || !existsSync(counted)
        ? {}
        : { histogram: Object.fromEntries(sharesOf(counted, "--replay")) }),
    },
    preconditioned: layer.values.get("mixing.normalise") === "adam",
    bases: bases !== null,
  };
}
