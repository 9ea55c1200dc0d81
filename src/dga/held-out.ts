/**
 * Held-out losses for rules that need them (`heldOutLosses`), such as rules with a guard around them. The examples are the same every time. So a
 * difference between two measurements comes from the model only, and its error is that of the differences per example.
 */
import type { CancelSignal } from "../cancel.ts";
import type { Examples, Model } from "../nn/model.ts";
import { checkpointError } from "../nn/saved-arrays.ts";
import { show } from "../options.ts";
import { exampleLosses } from "./evaluation.ts";
import type { Signal } from "./rule.ts";
import { domainAlignments } from "./statistics.ts";
import type { Training } from "./training.ts";

/** Held-out losses per domain; null for a domain whose held-out text is not measured. */
export interface HeldOutLosses {
  /** Mean loss per token, in nats. */
  readonly losses: readonly (number | null)[];
  /** Mean loss per token of the reference model on the same examples or, without a reference model, of the model before the first step. */
  readonly references: readonly (number | null)[];
  /** Standard error of losses[i] − references[i] over the examples, paired; also null for a single example. */
  readonly standardErrors: readonly (number | null)[];
}

/** The summed reference losses of every domain's examples; null for a domain that is not measured. */
export type ReferenceLosses = readonly (readonly number[] | null)[];

/** Measures the losses to compare with, before the first step. */
export async function noteReference<B extends Examples>(training: Training<B>): Promise<void> {
  const { options, plan, state } = training;
  if (!plan.heldOut || state.reference !== null) return;
  state.reference = (await lossesOfSets(training, options.reference ?? options.model)).map(
    (found) => found?.losses ?? null,
  );
}

/**
 * Measures the held-out losses at an update, if this update is one that measures them: at every `every`-th multiple of `updateEvery` steps, counted
 * from the first step of the run.
 */
export async function heldOutAtUpdate<B extends Examples>(
  training: Training<B>,
): Promise<HeldOutLosses | null> {
  const { options, plan, heldOut, state } = training;
  const updates = state.mixer.steps / options.mixer.updateEvery;
  return plan.heldOut && updates % heldOut.every === 0 ? heldOutNow(training) : null;
}

/** Measures the held-out losses at the current parameters; null if the rule does not need them. */
export async function heldOutNow<B extends Examples>(
  training: Training<B>,
  signal?: CancelSignal,
): Promise<HeldOutLosses | null> {
  const { options, plan, state } = training;
  if (!plan.heldOut) return null;
  await noteReference(training);
  const found = await lossesOfSets(training, options.model, signal);
  const compared = found.map((own, i) => {
    const reference = state.reference?.[i] ?? null;
    if (own === null || reference === null) return null;
    const { tokens } = own;
    const mean = (losses: readonly number[]): number => domainAlignments(losses, tokens).alignment;
    const rises = own.losses.map((loss, e) => loss - reference[e]!);
    const { standardError } = domainAlignments(rises, tokens);
    return { loss: mean(own.losses), before: mean(reference), standardError };
  });
  return {
    losses: compared.map((own) => own?.loss ?? null),
    references: compared.map((own) => own?.before ?? null),
    standardErrors: compared.map((own) => own?.standardError ?? null),
  };
}

export function signalOfHeldOut({
  losses,
  references,
  standardErrors,
}: HeldOutLosses): Pick<Signal, "heldOutLosses" | "heldOutReferences" | "heldOutErrors"> {
  return { heldOutLosses: losses, heldOutReferences: references, heldOutErrors: standardErrors };
}

async function lossesOfSets<B extends Examples>(
  { options, heldOut }: Training<B>,
  model: Model<B>,
  signal?: CancelSignal,
): Promise<({ readonly losses: number[]; readonly tokens: number[] } | null)[]> {
  const out = [];
  for (const set of options.heldOut?.sets ?? [])
    out.push(set === null ? null : await exampleLosses(model, set, heldOut.tokens, options.batch, signal));
  return out;
}

/** Reads saved reference losses back. Throws `checkpoint` if they do not match the held-out examples of this trainer. */
export function readReferenceLosses<B extends Examples>(
  { options, plan, heldOut }: Training<B>,
  json: unknown,
  steps: number,
): ReferenceLosses | null {
  if (!plan.heldOut) return null;
  if (json === undefined && steps === 0) return null;
  const sets = options.heldOut?.sets ?? [];
  if (!Array.isArray(json) || json.length !== sets.length)
    throw checkpointError("it has no losses of the held-out examples that the rule compares with");
  return sets.map((set, i) => {
    const own: unknown = json[i];
    const mismatch = (): Error =>
      checkpointError(
        `its losses of held-out examples of domain "${options.mixer.domains[i]}" (${show(own)}) are not those of the examples given`,
      );
    if (set === null) {
      if (own !== null) throw mismatch();
      return null;
    }
    let [end, counted] = [0, 0];
    while (end < set.count && counted < heldOut.tokens) counted += set.tokensOf(end++);
    if (!Array.isArray(own) || own.length !== end || !own.every((loss) => Number.isFinite(loss)))
      throw mismatch();
    return own.map(Number);
  });
}
