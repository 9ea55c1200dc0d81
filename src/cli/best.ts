/**
 * Keeps the model with the lowest held-out target loss in `best/` of the run folder. Every checkpoint also contains the best parameters so
 * far, so a run that continues from it restores the `best/` of that step, whatever has been written there since.
 */
import type { Checkpoint } from "../dga/checkpoint.ts";
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import { createGPT, type GPT } from "../nn/gpt.ts";
import { toHuggingFace } from "../nn/huggingface/write.ts";
import type { RunWeights } from "../runs/lines.ts";
import { count, number, object, parse, type Schema, string } from "../schema.ts";
import type { Data } from "./read-data.ts";
import type { RunHooks } from "./run-events.ts";
import { bestFolder } from "./run-places.ts";
import { float32Of } from "../tensor/tensor.ts";

/** What the files of a model need to know about its tokens. */
type TokenFacts = Pick<Data, "tokenizer" | "vocabulary">;

/** The step with the lowest loss. */
export interface Best {
  readonly step: number;
  /** Mean loss per token on the held-out target. */
  readonly targetLoss: number;
  /** Number of tokens of the held-out target on which the loss was measured. */
  readonly tokens: number;
}

/** All data of the best model. */
interface Kept {
  readonly best: Best;
  /** Text of its weights.json. */
  readonly weights: string;
  readonly parameters: Float32Array;
}

export interface BestKeeper {
  readonly best: Best | null;
  /** Keeps the model of this step if its loss is the lowest so far. Throws `io`. */
  consider(found: Best, weights: RunWeights): Promise<void>;
  /** What a checkpoint stores of the best model. */
  saved(): { readonly json: Readonly<Record<string, string>>; readonly arrays: Checkpoint["arrays"] };
}

/** Continues from the best model in `resumed`, and restores `best/` to match it. Throws `io`, and `checkpoint` if the stored model does not match. */
export async function createBestKeeper(
  { store }: Pick<RunHooks, "store">,
  model: GPT,
  tokens: TokenFacts,
  resumed: Checkpoint | null,
): Promise<BestKeeper> {
  const write = async (of: GPT, { best, weights }: Kept): Promise<void> =>
    store.saveFolder(
      bestFolder,
      new Map<string, string | Uint8Array>([
        ...(await modelFiles(of, tokens)),
        ["weights.json", weights],
        ["best.json", `${formatJson(best, 2)}\n`],
      ]),
    );
  let kept = resumed === null ? null : bestInCheckpoint(resumed, model.parameters.value.size);
  if (kept === null) store.removeFolder(bestFolder);
  else {
    const then = createGPT(model.config);
    try {
      then.parameters.value.write(kept.parameters);
      await write(then, kept);
    } finally {
      then.dispose();
    }
  }
  return {
    get best() {
      return kept?.best ?? null;
    },
    async consider(found, weights) {
      if (kept !== null && !(found.targetLoss < kept.best.targetLoss)) return;
      const parameters = await float32Of(model.parameters.value);
      const next = { best: found, weights: `${formatJson(weights, 2)}\n`, parameters };
      await write(model, next);
      kept = next;
    },
    saved: () =>
      kept === null
        ? { json: {}, arrays: {} }
        : {
            json: { [bestFolder]: formatJson({ ...kept.best, weights: kept.weights }) },
            arrays: { [bestFolder]: kept.parameters },
          },
  };
}

/** The files of a model as a Hugging Face folder, by name. */
export async function modelFiles(
  model: GPT,
  { tokenizer, vocabulary: { endOfText } }: TokenFacts,
): Promise<ReadonlyMap<string, string | Uint8Array>> {
  return toHuggingFace(model, {
    ...(tokenizer === null ? {} : { tokenizer: tokenizer.toJSON() }),
    ...(endOfText === null ? {} : { endOfText }),
  });
}

/** The best model in a checkpoint; null if the run had not kept any by then. */
function bestInCheckpoint({ json, arrays }: Checkpoint, size: number): Kept | null {
  const text = json[bestFolder];
  const parameters = arrays[bestFolder];
  if (typeof text !== "string") return null;
  const { weights, ...best } = parse(savedBest, text, {
    source: "--resume: the best step",
    code: "checkpoint",
  });
  if (!(parameters instanceof Float32Array) || parameters.length !== size)
    throw new GradmixError(
      "checkpoint",
      "--resume: the best model in the checkpoint does not fit the model of the run",
    );
  return { best, weights, parameters };
}

export const savedBest: Schema<Best & Pick<Kept, "weights">> = object<Best & Pick<Kept, "weights">>({
  step: count,
  targetLoss: number,
  tokens: count,
  weights: string,
});
