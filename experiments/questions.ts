/**
 * Questions: which continuation is the true one? Each has half a window of held-out target text and four continuations, from which the model takes the likeliest. The
 * three wrong ones are from elsewhere in the same document, from other documents of the target, or from other domains.
 */
import { keep, scope } from "gradmix";
import type { TokenStream } from "gradmix/data";
import type { Model, TokenBatch } from "gradmix/nn";
import type { Accuracy } from "./cell.ts";
import { randomOf, shuffled } from "./random.ts";

type Kind = keyof Accuracy;
const WRONG = 3;
const SEED = 1;

interface Passage {
  readonly prompt: Tokens;
  readonly continuation: Tokens;
  readonly document: number;
}
type Tokens = TokenStream["tokens"];

export interface Question {
  readonly prompt: Tokens;
  /** The true one first. */
  readonly continuations: readonly Tokens[];
}

/** Divides each document into passages of `time + 1` tokens, without the end-of-text token. */
function passagesOf({ tokens, documents }: TokenStream, time: number): Passage[] {
  const half = time >> 1;
  const out: Passage[] = [];
  for (let document = 0; document + 1 < documents.length; document++)
    for (let at = documents[document]; at + time + 1 < documents[document + 1]; at += time + 1)
      out.push({
        prompt: tokens.subarray(at, at + time + 1 - half),
        continuation: tokens.subarray(at + time + 1 - half, at + time + 1),
        document,
      });
  return out;
}

/** Returns at most `count` questions of each kind, the same ones in every call. All kinds use the same prompts, except those with too few wrong continuations. */
export function questionsOf(
  target: TokenStream,
  others: readonly TokenStream[],
  time: number,
  count: number,
): Record<Kind, Question[]> {
  const random = randomOf(SEED);
  const passages = passagesOf(target, time);
  const foreign = others.flatMap((stream) => shuffled(passagesOf(stream, time), random).slice(0, count));
  const asked = shuffled(passages, random).slice(0, count);
  const ask = (candidates: (passage: Passage) => readonly Passage[]): Question[] =>
    asked.flatMap((passage) => {
      const wrong = shuffled(candidates(passage), random).slice(0, WRONG);
      if (wrong.length < WRONG) return [];
      return [
        {
          prompt: passage.prompt,
          continuations: [passage, ...wrong].map(({ continuation }) => continuation),
        },
      ];
    });
  return {
    document: ask((own) => passages.filter((p) => p !== own && p.document === own.document)),
    target: ask((own) => passages.filter((p) => p.document !== own.document)),
    domain: ask(() => foreign),
  };
}

/** Returns the shares of questions whose true continuation is likelier than the wrong ones. */
export async function accuracyOf(
  model: Model,
  questions: Readonly<Record<Kind, readonly Question[]>>,
): Promise<Accuracy> {
  const share = async (asked: readonly Question[]): Promise<number | null> => {
    if (asked.length === 0) return null;
    let right = 0;
    for (const question of asked) {
      const losses = await lossesOf(model, batchOf(question));
      if (losses[0] < Math.min(...losses.slice(1))) right++;
    }
    return Number((right / asked.length).toFixed(4));
  };
  return {
    document: await share(questions.document),
    target: await share(questions.target),
    domain: await share(questions.domain),
  };
}

/** Returns a batch with one window per continuation, in which only the tokens of the continuation count. */
function batchOf({ prompt, continuations }: Question): TokenBatch {
  const counted = continuations[0].length;
  const time = prompt.length + counted - 1;
  const rows = continuations.map((continuation) => [...prompt, ...continuation]);
  return {
    inputs: Int32Array.from(rows.flatMap((row) => row.slice(0, -1))),
    targets: Int32Array.from(
      rows.flatMap((row) => row.slice(1).map((id, t) => (t < time - counted ? -1 : id))),
    ),
    tokens: rows.map(() => counted),
    time,
  };
}

async function lossesOf(model: Model, batch: TokenBatch): Promise<number[]> {
  const losses = keep(scope(() => model.losses(batch)));
  const read = Array.from(await losses.data());
  losses.dispose();
  return read;
}
