/** Runs a cell. */
import { GradmixError } from "gradmix";
import { evaluationWindows, type TokenStream, windowsOf } from "gradmix/data";
import {
  type Bases,
  combine,
  createBases,
  createMixer,
  createRule,
  createTrainer,
  type Mixer,
  type RuleOptions,
  type Trainer,
} from "gradmix/dga";
import { createGPT, createSchedule, type GPT } from "gradmix/nn";
import type { Cell, Result } from "./cell.ts";
import { type Domains, domainsOf, splitNamed } from "./domains.ts";
import { accuracyOf, questionsOf } from "./questions.ts";
import { firstTokens, type Text } from "./text.ts";

/** Tokens of held-out text: of the target for a point of the curve and in the end, of each domain, and of a probed target. */
const evaluated = { curve: 4096, end: 16384, domain: 1024, probe: 8192 };
const POINTS = 8;
/** Of more domains than the first number only the last weights are kept, of more than the second none. */
const FEW = [8, 32] as const;
const WARMUP = 20;

/** The backend is the one that `init` chose. */
export async function runCell(cell: Cell, text: Text): Promise<Result> {
  const { steps, seed, lr } = cell;
  const time = cell.model.context;
  const domains = await domainsOf(cell, text);
  const target = cell.text.target === null ? null : splitNamed("targets", text, cell.text.target);
  const train = target === null ? null : firstTokens(target.train, cell.text.targetTokens);
  const model = createGPT({ vocabSize: text.vocabulary, ...cell.model }, { seed });
  const { mixer, bases } = mixerOf(cell, domains, train, text);
  const evaluate = evaluations(cell, text);

  let before: Result["before"] = null;
  if (cell.before !== undefined) {
    const uniform = createMixer({ domains: domains.names, rule: { name: "uniform" } });
    const trainer = trainerOf(
      cell,
      { model, mixer: uniform, domains, train: null, bases: undefined },
      cell.before,
    );
    for (let step = 0; step < cell.before; step++) await trainer.step();
    before = {
      loss: await evaluate.target(trainer, evaluated.end),
      outside: await evaluate.outside(trainer),
    };
    trainer.dispose();
  }

  const trainer = trainerOf(cell, { model, mixer, domains, train, bases }, steps);
  const curve: { step: number; loss: number }[] = [];
  const weights = [{ step: 0, weights: rounded(trainer.weights().domains.final) }];
  const every = Math.ceil(steps / POINTS);
  let microseconds = 0;
  for (let step = 1; step <= steps; step++) {
    const start = process.cpuUsage();
    await trainer.step();
    const { user, system } = process.cpuUsage(start);
    microseconds += user + system;
    if (step % every !== 0 && step !== steps) continue;
    weights.push({ step, weights: rounded(trainer.weights().domains.final) });
    const loss = await evaluate.target(trainer, evaluated.curve);
    if (loss !== null) curve.push({ step, loss: round(loss) });
  }
  const result: Result = {
    domains: domains.names.length,
    loss: await evaluate.target(trainer, evaluated.end),
    curve,
    weights: keptOf(weights, domains.names.length),
    epochs: round(Math.max(...domains.names.map((_, i) => trainer.seen(i).epochs))),
    outside: await evaluate.outside(trainer),
    before,
    accuracy: await accuracies(cell, text, model),
    probes: await probe(cell, text, trainer),
    cpuSeconds: round(microseconds / 1e6),
    tokens: trainer.tokens,
  };
  trainer.dispose();
  model.dispose();
  return result;

  function trainerOf(
    { batch }: Cell,
    parts: {
      model: GPT;
      mixer: Mixer;
      domains: Domains;
      train: TokenStream | null;
      bases: Bases | undefined;
    },
    steps: number,
  ): Trainer {
    const { alignment } = cell.method;
    const windows = parts.train === null ? null : windowsOf("target", parts.train, time);
    return createTrainer({
      model: parts.model,
      mixer: parts.mixer,
      domains: parts.domains.sets,
      target: windows,
      schedule: createSchedule({ name: "cosine", lr, steps, warmup: Math.min(WARMUP, steps >> 1) }),
      batch,
      seed,
      ...(windows === null ? {} : { targets: new Map([["target", windows]]) }),
      ...(alignment === undefined ? {} : { alignment }),
      ...(parts.bases === undefined ? {} : { bases: parts.bases }),
    });
  }
}

function keptOf<T>(weights: readonly T[], domains: number): readonly T[] | null {
  return domains <= FEW[0] ? weights : domains <= FEW[1] ? weights.slice(-1) : null;
}

const round = (value: number): number => Number(value.toFixed(4));
const rounded = (weights: ArrayLike<number>): number[] => Array.from(weights, round);

/** The mixer of the cell's method, and its bases. Throws `config` for a rule that the package does not have. */
function mixerOf(
  cell: Cell,
  domains: Domains,
  target: TokenStream | null,
  text: Text,
): { mixer: Mixer; bases: Bases | undefined } {
  const { method, steps, batch, model } = cell;
  const bases = method.bases === undefined ? undefined : basesOf(method.bases, domains, text);
  const given = { ...method.rule, ...placed(method.rule, domains, target) };
  // The package checks the options by name, as it does those of a configuration file.
  const rule = combine(createRule(given as RuleOptions), method.combinators ?? [], {
    sizes: domains.sizes,
    tokens: steps * batch * model.context,
  });
  const { updateEvery } = method;
  const names = bases?.names ?? domains.names;
  const mixer = createMixer({ domains: names, rule, ...(updateEvery === undefined ? {} : { updateEvery }) });
  return { mixer, bases };
}

/** Numbers in place of "histogram" and "sizes". */
function placed(
  rule: Cell["method"]["rule"],
  domains: Domains,
  target: TokenStream | null,
): Record<string, readonly number[]> {
  const numbers: Record<string, readonly number[]> = {};
  for (const [name, value] of Object.entries(rule)) {
    if (value === "sizes") numbers[name] = domains.sizes;
    if (value !== "histogram") continue;
    if (target === null) throw new GradmixError("config", `${rule.name}: a histogram needs a target`);
    numbers[name] = domains.histogram(target);
  }
  return numbers;
}

function basesOf(targets: readonly string[], domains: Domains, text: Text): Bases {
  const histograms = targets.map(
    (name) => [name, domains.histogram(splitNamed("targets", text, name).train)] as const,
  );
  const rows = new Map<string, readonly number[]>([...histograms, ["all text", domains.sizes]]);
  return createBases(rows, domains.names, { counts: true });
}

/** Evaluations of a cell's trainers. */
function evaluations(
  cell: Cell,
  text: Text,
): {
  target(trainer: Trainer, tokens: number): Promise<number | null>;
  outside(trainer: Trainer): Promise<number>;
} {
  const time = cell.model.context;
  const { target, domains } = cell.text;
  return {
    target: async (trainer, tokens) =>
      target === null
        ? null
        : lossOn(trainer, splitNamed("targets", text, target).heldOut, { name: target, time, tokens }),
    async outside(trainer) {
      let sum = 0;
      for (const name of domains)
        sum += await lossOn(trainer, splitNamed("domains", text, name).heldOut, {
          name,
          time,
          tokens: evaluated.domain,
        });
      return round(sum / domains.length);
    },
  };
}

async function lossOn(
  trainer: Trainer,
  stream: TokenStream,
  { name, time, tokens }: { name: string; time: number; tokens: number },
): Promise<number> {
  const windows = evaluationWindows(name, stream, time);
  if (windows === null) throw new GradmixError("data", `"${name}": its held-out text is a single token`);
  return round(await trainer.evaluate(windows, tokens));
}

async function accuracies(cell: Cell, text: Text, model: GPT): Promise<Result["accuracy"]> {
  const { questions, text: own } = cell;
  if (questions === undefined || own.target === null) return null;
  const { heldOut } = splitNamed("targets", text, own.target);
  const others = own.domains.map((name) => splitNamed("domains", text, name).heldOut);
  return accuracyOf(model, questionsOf(heldOut, others, cell.model.context, questions));
}

async function probe(cell: Cell, text: Text, trainer: Trainer): Promise<Result["probes"]> {
  if (cell.probes === undefined) return null;
  const losses: Record<string, number> = {};
  for (const name of cell.probes)
    losses[name] = await lossOn(trainer, splitNamed("targets", text, name).train, {
      name,
      time: cell.model.context,
      tokens: evaluated.probe,
    });
  return losses;
}
