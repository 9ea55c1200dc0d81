/** Groups runs whose configurations differ only in the seed, and finds what distinguishes the configurations. Pure. */
import { formatJson, type Json } from "../json.ts";

/** Options by section. */
export type Options = ReadonlyMap<string, Json>;

export interface Group<T> {
  readonly label: string;
  readonly members: readonly T[];
}

/** The options without those that do not change the configuration of a run: its seed, and where and how it writes. */
function comparedOptions(config: Options): ReadonlyMap<string, string> {
  const flat = new Map<string, string>();
  for (const [section, members] of config)
    if (section !== "run" && members instanceof Map)
      for (const [key, value] of members as Options)
        // An option of a later version is missing where an option that was not given is null.
        if (value !== null && (section !== "training" || key !== "seed"))
          flat.set(`${section}.${key}`, formatJson(value));
  return flat;
}

/** Groups in the order of their first runs; the label of a group may be given with a run. */
export function groupRuns<T>(
  runs: readonly T[],
  configOf: (run: T) => Options,
  labelOf: (run: T) => string | null = () => null,
): Group<T>[] {
  const byOptions = new Map<string, { options: ReadonlyMap<string, string>; members: T[] }>();
  for (const run of runs) {
    const options = comparedOptions(configOf(run));
    const key = [...options]
      .map((option) => option.join(" "))
      .sort()
      .join("\n");
    const group = byOptions.get(key);
    if (group === undefined) byOptions.set(key, { options, members: [run] });
    else group.members.push(run);
  }
  const groups = [...byOptions.values()];
  const labels = labelsOf(groups.map(({ options }) => options));
  return groups.map(({ members }, i) => ({ label: labelOf(members[0]!) ?? labels[i]!, members }));
}

/** Longest label; longer ones are replaced by numbers. */
const LONGEST_LABEL = 48;

/** The name of the rule, if this distinguishes all groups; else with the options that differ, or numbered if those are too long. */
function labelsOf(groups: readonly ReadonlyMap<string, string>[]): string[] {
  const plain = (text = "null"): string => (text === "null" ? "–" : text.replace(/^"(.*)"$/, "$1"));
  const rules = groups.map((options) => plain(options.get("mixing.rule")));
  if (new Set(rules).size === rules.length) return rules;
  const keys = [...new Set(groups.flatMap((options) => [...options.keys()]))];
  const differ = keys.filter(
    (key) => key !== "mixing.rule" && new Set(groups.map((options) => options.get(key))).size > 1,
  );
  const member = (key: string): string => key.replace(/^\w+\./, "");
  // `data.seed` alone would be read as the seed of the run, which is not compared.
  const members = ["seed", ...keys.map(member)];
  const nameOf = (key: string): string =>
    members.indexOf(member(key)) === members.lastIndexOf(member(key)) ? member(key) : key.replace(".", " ");
  return groups.map((options, i) => {
    const parts = differ.map((key) => `${nameOf(key)} ${plain(options.get(key))}`);
    const label = [rules[i], ...parts].join(", ");
    return label.length <= LONGEST_LABEL ? label : `${rules[i]} (${i + 1})`;
  });
}
