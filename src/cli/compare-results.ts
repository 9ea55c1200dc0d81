/** What a comparison writes at its end: a table, compare.json, and pages. */
import { join } from "node:path";
import {
  compareRules,
  conclusions,
  leavesOutZero,
  type Outcome,
  type RuleResult,
} from "../report/comparison.ts";
import { shellWord } from "../shell-word.ts";
import { formatTable } from "./compare-table.ts";
import { comparisonFiles } from "./run-names.ts";
import { writePage } from "./side-files.ts";
import type { Comparison } from "./compare-arguments.ts";
import type { Failure, Done } from "./compare-runs.ts";

/** Results on one target. */
interface TargetResult {
  /** Name of the target; null if there is only one. */
  readonly target: string | null;
  /** Tokens and bytes of the target's held-out text. */
  readonly heldOutTokens: number;
  readonly heldOutBytes: number;
  /** Largest number of these tokens on which the losses were measured. */
  readonly evaluatedTokens: number | null;
  readonly rules: readonly RuleResult[];
  readonly conclusions: readonly string[];
}

export function resultsOf(outcomes: readonly Done[], { choice, runs }: Comparison): TargetResult[] {
  const rules = choice.rules.map(({ name }) => name);
  return [...new Set(runs.map(({ target }) => target))].flatMap((target) => {
    const own = outcomes.filter((outcome) => outcome.target === target);
    const facts = own[0]?.facts;
    if (facts === undefined || facts.target === null) return [];
    const { heldOutTokens, heldOutBytes } = facts.target;
    const results = compareRules(own, rules, choice.baseline);
    return [
      {
        target,
        heldOutTokens,
        heldOutBytes,
        evaluatedTokens: facts.evaluatedTokens,
        rules: results,
        conclusions: conclusions(results, choice.baseline),
      },
    ];
  });
}

/** The contents of compare.json. */
export function jsonOf(
  results: readonly TargetResult[],
  { choice, steps }: Comparison,
  failures: readonly Failure[],
): unknown {
  return {
    version: 1,
    baseline: choice.baseline,
    seeds: choice.seeds,
    steps,
    targets: results.map(({ rules, ...rest }) => ({
      ...rest,
      rules: rules.map(({ runs, ...rule }) => ({
        ...rule,
        runs: runs.map(({ seed, folder, loss, bitsPerByte, cost, seconds }) => ({
          seed,
          folder,
          loss,
          bitsPerByte,
          cost,
          seconds,
        })),
      })),
    })),
    failures,
  };
}

export function formatResults(
  results: readonly TargetResult[],
  { choice, steps, folder }: Comparison,
): string {
  const n = (count: number): string => count.toLocaleString("en");
  const tables = results.map(({ target, heldOutTokens, evaluatedTokens, rules, conclusions }) => [
    `held-out loss on ${target === null ? "the target" : `the target ${target}`} after ${n(steps)} steps, in nats per token, on ${n(Math.min(heldOutTokens, evaluatedTokens ?? heldOutTokens))} of ${n(heldOutTokens)} tokens held out`,
    "",
    formatTable(rules, choice.baseline).trimEnd(),
    "",
    ...conclusions,
    "",
  ]);
  if (results.length === 0) return "";
  const open = results.some(({ rules }) =>
    rules.some(({ difference }) => difference !== null && !leavesOutZero(difference)),
  );
  return [
    ...tables.flat(),
    "±: the standard error over seeds; cost: counted computation, and time: wall time, of the steps",
    ...(open && choice.seeds.length <= 8
      ? [
          `More seeds narrow the intervals: gradmix compare ${shellWord(folder)} --seeds ${doubled(choice.seeds).join(",")}`,
        ]
      : []),
    "",
  ].join("\n");
}

/** The given seeds and as many new ones: those after the largest, or the smallest unused ones if numbers run out. */
function doubled(seeds: readonly number[]): number[] {
  const last = Math.max(...seeds);
  const room = last <= Number.MAX_SAFE_INTEGER - seeds.length;
  const used = new Set(seeds);
  const more: number[] = [];
  for (let seed = room ? last + 1 : 0; more.length < seeds.length; seed++)
    if (!used.has(seed)) more.push(seed);
  return [...seeds, ...more];
}

/** The file of each target's page. On file systems that ignore case, two targets may have one name; then all but the first are numbered. */
export function pageNames(targets: readonly (string | null)[]): Map<string | null, string> {
  const taken = new Set<string>();
  const freeName = (target: string): string => {
    let name = `report-${target}.html`;
    for (let n = 2; taken.has(name.toLowerCase()); n++) name = `report-${target}-${n}.html`;
    taken.add(name.toLowerCase());
    return name;
  };
  return new Map(
    [...new Set(targets)].map((target) => [
      target,
      target === null ? comparisonFiles.page : freeName(target),
    ]),
  );
}

/** Writes one page with all runs of each target; losses on different targets cannot be compared. */
export async function writePages(
  { folder, runs }: Comparison,
  outcomes: readonly Outcome[],
  tell: (line: string) => void,
): Promise<string[]> {
  const pages: string[] = [];
  for (const [target, file] of pageNames(runs.map(({ target }) => target))) {
    const rules = new Map(
      outcomes.filter((one) => one.target === target).map(({ folder, rule }) => [folder, rule]),
    );
    if (rules.size === 0) continue;
    const page = await writePage([...rules.keys()], tell, join(folder, file), {
      labelOf: (run) => rules.get(run) ?? "",
    });
    if (page !== null) pages.push(page);
  }
  return pages;
}
