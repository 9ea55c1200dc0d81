/** Advice for the user about a run that ended by an error. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { GradmixError } from "../errors.ts";
import { shellWord } from "../shell-word.ts";
import { listCheckpoints } from "./run-places.ts";

/** The facts that the advice depends on. */
export interface Advice {
  /** The run folder. */
  readonly out: string;
  /** Learning rate of the run. */
  readonly lr: number;
}

/** Adds to an error of the loss, the device, the memory or the disk which checkpoint is the last one, and how to continue from it. */
export function withCheckpoint(
  error: unknown,
  steps: number,
  saved: number | null,
  { out, lr }: Advice,
): unknown {
  if (!(error instanceof GradmixError)) return error;
  const { code, message } = error;
  const ends = `${message}. The run ends after step ${steps}`;
  const withAdvice = (rest: string): GradmixError =>
    new GradmixError(code, `${ends}; ${rest}`, { cause: error });
  if (code === "numeric") {
    // A run that starts from parameters with an invalid loss would fail at once.
    const good = listCheckpoints(out).findLast(({ step }) => step < steps) ?? null;
    const from = good === null ? "" : ` from the checkpoint of step ${good.step}`;
    return withAdvice(
      `to start again${from} with a lower learning rate: ${lowerRate(out, lr, good?.path ?? null)}`,
    );
  }
  if (!["backend", "memory", "io"].includes(code)) return error;
  if (saved === null) return withAdvice("there was no checkpoint yet (--checkpoint-every)");
  return withAdvice(
    `the checkpoint of step ${saved} is kept; to continue from it, run gradmix train --resume ${shellWord(out)}`,
  );
}

/** The command that starts such a run with a tenth of the learning rate. */
function lowerRate(folder: string, rate: number, checkpoint: string | null): string {
  let out = folder;
  for (let n = 2; existsSync(out); n++) out = `${folder.replace(/\/+$/, "")}-${n}`;
  const from = checkpoint === null ? [] : ["--init-from", checkpoint];
  const lr = String(Number((rate / 10).toPrecision(3)));
  const words = ["gradmix", "train", join(folder, "config.json"), ...from, "--lr", lr, "--out", out];
  return words.map(shellWord).join(" ");
}
