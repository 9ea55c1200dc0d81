/** Splits a configuration into the plain parts of a run, so that each module receives only its part. */
import type { Advice } from "./advice.ts";
import type { EnginePlan } from "./engine.ts";
import type { EvaluationOptions } from "./evaluations.ts";
import { type MixingPlan, planMixing } from "./mixing.ts";
import type { DataPlan } from "./read-documents.ts";
import type { ModelPlan } from "./start.ts";
import { dataSeed, type TrainConfig } from "./train-config.ts";
import { planTraining, type TrainingPlan } from "./training.ts";

/** When a run evaluates and saves. */
export interface CyclePlan {
  readonly steps: number;
  readonly evaluation: EvaluationOptions;
  /** Steps between two checkpoints; 0: the run saves one only at the end. */
  readonly checkpointEvery: number;
  readonly keepBest: boolean;
  /** Facts for the advice in an error. */
  readonly advice: Advice;
}

export interface RunPlan {
  readonly data: DataPlan;
  readonly model: ModelPlan;
  readonly training: TrainingPlan;
  readonly mixing: MixingPlan;
  readonly engine: EnginePlan;
  readonly cycle: CyclePlan;
}

/** The options for reading the text. */
export function dataPlanOf(config: TrainConfig): DataPlan {
  const { data, model, run } = config;
  return { ...data, context: model.context, seed: dataSeed(config), out: run.out };
}

/** Plans a run. Throws `config` and `data` for errors that the options and the names of the domains alone show, before gigabytes are read. */
export function planRun(
  config: TrainConfig,
  domains: readonly string[] = [...config.data.domains.keys()],
): RunPlan {
  const { seed, lr } = config.training;
  const { out, evalShare: share, evalEvery: every, evalTokens: tokens, checkpointEvery } = config.run;
  const training = planTraining(config);
  return {
    data: dataPlanOf(config),
    model: { ...config.model, seed },
    training,
    mixing: planMixing(config, training.tokens, domains),
    engine: config.run,
    cycle: {
      steps: training.steps,
      evaluation: { share, every, tokens },
      checkpointEvery,
      keepBest: config.run.keepBest,
      advice: { out, lr },
    },
  };
}
