/** All experiments, in the order of the document. */
import type { Experiment } from "../experiment.ts";
import { continuations } from "./continuations.ts";
import { cost } from "./cost.ts";
import { defaults } from "./defaults.ts";
import { fewTokens } from "./few-tokens.ts";
import { forgetting } from "./forgetting.ts";
import { granularity } from "./granularity.ts";
import { longer } from "./longer.ts";
import { mixtures } from "./mixtures.ts";
import { parts } from "./parts.ts";
import { selection } from "./selection.ts";
import { sensitivity } from "./sensitivity.ts";
import { wrongHistogram } from "./wrong-histogram.ts";

export const experiments: readonly Experiment[] = [
  ...[defaults, selection, wrongHistogram, parts, longer, fewTokens, granularity, sensitivity, cost],
  ...[forgetting, continuations, mixtures],
];
