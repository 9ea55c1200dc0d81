/** Selects the windows of a run's domains that resemble its target most (`selectWindows`), if the run does not use all text. */
import type { Dataset } from "../data/dataset.ts";
import { reselectInTurns, type Selection, selectInTurns } from "../data/select-windows.ts";
import { type Bases, mixtureOf } from "../dga/bases.ts";
import type { Checkpoint } from "../dga/checkpoint.ts";
import { currentWeights, type Mixer } from "../dga/mixer.ts";
import type { TokenBatch } from "../nn/model.ts";
import type { MixingPlan } from "./mixing.ts";
import type { Data } from "./read-data.ts";
import type { RunHooks } from "./run-events.ts";
import { savedNumbers } from "./saved-numbers.ts";

/** The text that a run samples. */
export interface SampledText {
  readonly domains: readonly Dataset<TokenBatch>[];
  /** Number of training tokens of each domain. */
  readonly sizes: Readonly<Record<string, number>>;
  /** Share of each domain's windows that was selected; null if the run uses all text. */
  readonly selected: ReadonlyMap<string, number> | null;
  /** Why the run uses all text although a share was requested; null if it selects, or if nothing else was requested. */
  readonly whole: string | null;
}

/** What the selection depends on, beside the text. */
export interface SelectionPlan {
  readonly mixing: MixingPlan;
  /** Number of training tokens of the whole run. */
  readonly tokens: number;
  readonly histogram: ReadonlyMap<string, number> | null;
}

/**
 * The text that a run samples. `resumed` is the state of the run that continues, or null for a new run. A resumed run keeps the shares that it selected
 * first. How much of each domain a new run is expected to read follows from its first weights.
 */
export async function sampledText(
  { mixing, tokens, histogram }: SelectionPlan,
  { domains, sizes, target }: Pick<Data, "domains" | "sizes" | "target">,
  resumed: Checkpoint["json"] | null,
  { signal }: Pick<RunHooks, "signal">,
): Promise<SampledText> {
  const windows = domains.map(({ train }) => train);
  const all: SampledText = { domains: windows, sizes, selected: null, whole: null };
  const { names, leastShare } = mixing;
  const saved = savedNumbers(resumed ?? undefined, "selected", names);
  if (target === null || (saved === null && leastShare >= 1)) return all;
  if (resumed !== null && saved === null)
    return { ...all, whole: "the run began with all text, and continues with it" };
  const selection: Selection =
    saved !== null
      ? await reselectInTurns(target.train, windows, Float64Array.from(saved.values()), signal)
      : await selectInTurns(
          target.train,
          windows,
          { weights: startWeights(mixing.mixerOf({ sizes, histogram }), mixing.bases), tokens, leastShare },
          signal,
        );
  if (selection.shares.every((share) => share === 1)) return { ...all, whole: selection.whole };
  return {
    domains: selection.domains,
    sizes: Object.fromEntries(names.map((name, i) => [name, selection.sizes[i]!])),
    selected: new Map(names.map((name, i) => [name, selection.shares[i]!])),
    whole: null,
  };
}

/** The weights of the domains with which a run starts. */
export function startWeights({ initial }: Mixer, bases: Bases | null): Float64Array {
  const start = currentWeights(initial);
  return bases === null ? start : mixtureOf(bases, start);
}

/**
 * Formats the shares, those of the domains with the largest weights `start` first: `selected the windows that resemble the target most: 36 % of state-of-the-union,
 * … and 25 % of 21 more; --select 1 trains on all text`.
 */
export function selectionLine(selected: ReadonlyMap<string, number>, start: ArrayLike<number>): string {
  const percent = (share: number): string => (100 * share).toFixed(0);
  const order = [...selected]
    .map(([name, share], i) => ({ name, share: percent(share), weight: start[i]! }))
    .sort((one, other) => other.weight - one.weight);
  const shown = order.slice(0, 4).map(({ name, share }) => `${share} % of ${name}`);
  const rest = order.slice(4).map(({ share }) => Number(share));
  const range = [...new Set([Math.min(...rest), Math.max(...rest)])].join(" to ");
  const others = rest.length === 0 ? "" : ` and ${range} % of ${rest.length} more`;
  const even = order.length > 1 && order.every(({ share }) => share === order[0]!.share);
  const parts = even ? `${order[0]!.share} % of each domain` : `${shown.join(", ")}${others}`;
  return `selected the windows that resemble the target most: ${parts}; --select 1 trains on all text`;
}
