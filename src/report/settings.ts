/** A run's settings, versions and data, as rows of a table. Pure. */
import { createHash } from "node:crypto";
import { formatJson, type Json } from "../json.ts";
import type { TextFacts } from "../runs/facts.ts";
import type { RunHead } from "../runs/record.ts";
import type { Setting } from "./page-data.ts";
import { formatCount } from "./page/format.ts";

/** Longest text of a cell; lists of domains and the like are cut here. */
const LONGEST = 400;

export function settingsOf({ folder, facts, config }: RunHead): Setting[] {
  const rows = (section: string, of: Readonly<Record<string, string | number>>): Setting[] =>
    Object.entries(of).map(([name, value]) => ({ section, name, value: String(value) }));
  const heldOut = [...facts.domains.values()].reduce((sum, { heldOutTokens }) => sum + heldOutTokens, 0);
  const { target } = facts;
  return [
    ...rows("run", {
      folder,
      rule: facts.rule,
      seed: facts.seed,
      "data seed": facts.dataSeed,
      steps: facts.steps,
    }),
    ...rows("versions", { gradmix: facts.gradmix, "Node.js": facts.node }),
    ...rows("machine", {
      backend: facts.backend,
      instructions: facts.simd,
      precision: facts.precision,
      threads: facts.threads,
    }),
    ...rows("model", {
      parameters: `${formatCount(facts.parameters)} (${facts.parameters})`,
      vocabulary: facts.vocabSize,
      "windows per step": facts.batch,
      "tokens per window": facts.context,
    }),
    ...rows("data", {
      domains: facts.domains.size,
      "tokens to train on": formatCount(sizeOf(facts.domains.values())),
      "held out of the domains": `${formatCount(heldOut)} tokens`,
      target:
        target === null
          ? "none"
          : `${formatCount(target.tokens + target.heldOutTokens)} tokens, ${formatCount(target.heldOutTokens)} of them held out`,
      fingerprint: fingerprintOf([
        ...facts.domains,
        ...(target === null ? [] : [["target", target] as const]),
      ]),
    }),
    ...[...config].flatMap(([section, members]) =>
      members instanceof Map
        ? [...(members as ReadonlyMap<string, Json>)].map(([name, value]) => ({
            section: `options: ${section}`,
            name,
            value: shortened(typeof value === "string" ? value : formatJson(value)),
          }))
        : [],
    ),
  ];
}

function sizeOf(texts: Iterable<TextFacts>): number {
  let sum = 0;
  for (const { tokens } of texts) sum += tokens;
  return sum;
}

/** SHA-256 of the names and the texts' own SHA-256: equal for runs on equal data, in any order of the domains. */
function fingerprintOf(texts: readonly (readonly [string, TextFacts])[]): string {
  const hash = createHash("sha256");
  for (const line of texts.map(([name, { sha256 }]) => `${JSON.stringify(name)}: ${sha256}\n`).sort())
    hash.update(line);
  return hash.digest("hex").slice(0, 16);
}

function shortened(text: string): string {
  return text.length <= LONGEST ? text : `${text.slice(0, LONGEST)} … (${text.length} characters)`;
}
