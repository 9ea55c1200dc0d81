/**
 * Converts metrics.jsonl to a table in long form, so that any number of domains fits: one row for the run at each step, and one for each domain
 * (basis) in the step's line. Pure. Numbers are printed as in metrics.jsonl; a field is empty if the line has no value.
 */
import { csvField } from "../csv.ts";
import type { Evaluation, MetricsLine, StepMetrics } from "../runs/lines.ts";

/** The subject of a row: the whole run, the target, a domain, or a basis. */
type Of = "run" | "target" | "domain" | "basis";

const numbers = [
  "weight",
  "loss",
  "held_out_loss",
  "trained_tokens",
  "epochs",
  "alignment",
  "alignment_standard_error",
  "gradient_norm",
  "learning_rate",
  "seconds",
] as const;

type Row = Partial<Record<(typeof numbers)[number], number | null>>;

export const csvHeader: string = `${["step", "tokens", "of", "name", ...numbers].join(",")}\n`;

/** Rows of a line, each ended by a line feed. `withBases` says that its weights and alignments are those of bases. */
export function csvRows(line: MetricsLine, withBases: boolean): string {
  if (!("event" in line)) return stepRows(line, withBases);
  if (line.event === "resumed") return "";
  return [
    row(0, 0, "run", "", { seconds: line.seconds }),
    ...evaluationRows(0, 0, line.evaluation, new Map()),
  ].join("");
}

function stepRows(line: StepMetrics, withBases: boolean): string {
  const { step, tokens, evaluation } = line;
  const domains = new Map<string, Row>();
  const bases = new Map<string, Row>();
  const add = (to: Map<string, Row>, name: string, part: Row): void =>
    void to.set(name, { ...to.get(name), ...part });
  const mixed = withBases ? bases : domains;
  for (const [name, weight] of line.weights) add(mixed, name, { weight });
  for (const [name, { weight, loss, tokens, epochs }] of line.domains)
    add(domains, name, {
      ...(weight === undefined ? {} : { weight }),
      loss,
      trained_tokens: tokens,
      epochs,
    });
  for (const [name, { value, standardError, norm }] of line.alignments ?? [])
    add(mixed, name, { alignment: value, alignment_standard_error: standardError, gradient_norm: norm });
  const runRow: Row = {
    loss: line.loss,
    trained_tokens: tokens,
    gradient_norm: line.gradNorm,
    learning_rate: line.lr,
    seconds: line.seconds,
  };
  return [
    row(step, tokens, "run", "", runRow),
    ...[...bases].map(([name, own]) => row(step, tokens, "basis", name, own)),
    ...evaluationRows(step, tokens, evaluation ?? { target: null, domains: new Map() }, domains),
  ].join("");
}

/** Rows of the target and of the domains, with the other known values of these. */
function evaluationRows(
  step: number,
  tokens: number,
  { target, domains: losses }: Evaluation,
  domains: ReadonlyMap<string, Row>,
): string[] {
  const all = new Map(domains);
  for (const [name, loss] of losses) all.set(name, { ...all.get(name), held_out_loss: loss });
  return [
    ...(target === null ? [] : [row(step, tokens, "target", "", { held_out_loss: target })]),
    ...[...all].map(([name, own]) => row(step, tokens, "domain", name, own)),
  ];
}

function row(step: number, tokens: number, of: Of, name: string, values: Row): string {
  const cells = numbers.map((column) => values[column] ?? "");
  return `${[step, tokens, of, csvField(name), ...cells].join(",")}\n`;
}
