/** The files of the runs of a comparison, found before the first run. */
import { formatJson } from "../json.ts";
import type { PlannedRun } from "./compare-plan.ts";
import type { Inputs } from "./inputs.ts";
import type { TrainConfig } from "./train-config.ts";
import { configError } from "./values.ts";

/** Finds the files of a run, and the domains in them. */
export type ListInputs = (config: TrainConfig) => Promise<Inputs>;

/** Returns a function that finds the files of a run. It looks for them once for equal data, and reports nothing, because the runs do so when they read the text. */
export function listedOnce(): ListInputs {
  const known = new Map<string, Inputs>();
  return async ({ data }) => {
    const key = formatJson(data);
    let found = known.get(key);
    if (found === undefined) {
      const { listInputs } = await import("./inputs.ts");
      const silent = { onEvent: () => {}, signal: new AbortController().signal };
      found = await listInputs({ ...data, out: null }, silent);
      known.set(key, found);
    }
    return found;
  };
}

/** The names of a run's domains. Files are only looked for if their names say which domains there are. */
export async function domainNames(config: TrainConfig, list: ListInputs): Promise<readonly string[]> {
  const { domains, domainsFrom } = config.data;
  return domainsFrom.length === 0 ? [...domains.keys()] : [...(await list(config)).domains.keys()];
}

/**
 * Throws `config` if the rules would train on the text of different domains. A rule that learns for several targets leaves their files out of the
 * domains; a rule with one target leaves out only the files of that one.
 */
export async function checkSameDomains(runs: readonly PlannedRun[], list: ListInputs): Promise<void> {
  const firsts = new Map<string | null, PlannedRun>();
  for (const run of runs) {
    const first = firsts.get(run.target) ?? run;
    firsts.set(run.target, first);
    if (formatJson(first.config.data) === formatJson(run.config.data)) continue;
    const [mine, other] = [await list(run.config), await list(first.config)].map(filesOf);
    for (const [less, more, rule] of [
      [mine, other, run.rule],
      [other, mine, first.rule],
    ] as const)
      for (const file of more ?? [])
        if (less?.has(file) === false)
          throw configError(
            `rule ${rule} learns for all targets, and ${file} is text of one of them and of a domain; the rules would train on different text. Leave this file out of the domains, or compare ${rule} on its own`,
          );
  }
}

function filesOf({ domains, mixed }: Inputs): ReadonlySet<string> {
  return new Set([...[...domains.values()].flat(), ...(mixed?.files ?? [])]);
}
