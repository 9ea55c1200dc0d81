/** All experiments, in the order of the document. */
import type { Experiment } from "../experiment.ts";
import { fewTokens } from "./few-tokens.ts";

export const experiments: readonly Experiment[] = [fewTokens];
