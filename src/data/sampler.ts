/**
 * The sampler: decides by the weights which domain and which of its windows come next. It is deterministic in the seed, and its state is a few
 * counts.
 *
 * Within a domain, windows come in a pseudo-random order without replacement: no window comes twice before the domain's epoch ends, and every epoch
 * has its own order.
 */
import { GradmixError } from "../errors.ts";
import {
  checkOptions,
  checkRange,
  integerIn,
  oneOf,
  required,
  valueThat,
  objectWith,
  isNumberList,
  numberList,
  show,
} from "../options.ts";
import * as schema from "../schema.ts";
import { foldIn, type Key, key, uniformAt } from "../tensor/rng.ts";
import { ALIAS_FROM, aliasTable, type Choice, cumulativeTable } from "./alias.ts";
import { permutationSums, permute } from "./permutation.ts";
import { commonTime } from "./tokens.ts";

/** A domain, as the sampler uses it. */
export interface SampledDomain {
  /** Name of the domain, for error messages. */
  readonly name: string;
  /** Number of examples (for text: windows) per epoch. */
  readonly count: number;
  /** Tokens per window. A batch has windows of one length, so the domains that state it must agree. */
  readonly time?: number;
  /** Number of counted tokens of an example. */
  tokensOf(index: number): number;
}

/** One example that was drawn. */
export interface Draw {
  /** Index of the domain. */
  readonly domain: number;
  /** Index of the example within the domain. */
  readonly window: number;
  /** Number of times that the whole domain had been drawn before. */
  readonly epoch: number;
}

/** The order of a domain's windows in one epoch. */
interface Order {
  readonly epoch: number;
  readonly key: Key;
  readonly sums: Float64Array;
}

/** Most orders that are remembered. */
const MOST_ORDERS = 1024;

/** State of a sampler: plain JSON. */
export interface SamplerState {
  /** Version of this format. */
  readonly version: 1;
  /** The sampler's seed. */
  readonly seed: number;
  /** Number of draws so far. */
  readonly draws: number;
  /** Number of windows drawn from each domain, over all epochs. */
  readonly taken: readonly number[];
  /** Number of tokens drawn from each domain. */
  readonly tokens: readonly number[];
}

/**
 * "multinomial": domains are drawn independently (mix(α), as in the paper). "systematic": one uniform number places n equally spaced points on the
 * cumulative weights, so a domain comes ⌊nα⌋ or ⌈nα⌉ times: unbiased, with less variance.
 */
export type SamplingMode = "multinomial" | "systematic";

/** Options of `createSampler`. */
export interface SamplerOptions {
  /** The domains, in the order of the weights. */
  readonly domains: readonly SampledDomain[];
  /** Seed of the draws and of the order within each domain. */
  readonly seed: number;
  /** How domains are drawn; see `SamplingMode`. Default "multinomial". */
  readonly mode?: SamplingMode;
}

/** Draws examples of domains by weights, without repetition within an epoch of each domain. `createSampler` makes one. */
export interface Sampler {
  /**
   * Draws the next n windows for the given weights (on the simplex of the domains), or for a table from `prepare`. Throws `config`, naming the
   * domain, for invalid weights, and for an invalid count.
   */
  draw(weights: ArrayLike<number> | Choice, n: number): Draw[];
  /**
   * Prepares weights for any number of draws, in O(k). The draws are the same as from the weights themselves, without checking and adding them up
   * again; from 4,096 domains on, a multinomial draw of a domain then takes O(1). Throws `config` like `draw`.
   */
  prepare(weights: ArrayLike<number>): Choice;
  /** Draws the next n windows of one domain. Throws `config` for an invalid domain. */
  drawFrom(domain: number, n: number): Draw[];
  /** Epochs of each domain so far, as a fraction: 1.5 is one and a half times. */
  epochs(): number[];
  /** Tokens drawn from each domain so far. */
  tokens(): readonly number[];
  /** Tokens and epochs of one domain. Throws `config` for an invalid domain. */
  seen(domain: number): {
    /** Tokens of the domain so far. */
    readonly tokens: number;
    /** Epochs of the domain so far, as a fraction. */
    readonly epochs: number;
  };
  /** The state, from which `restore` continues. */
  state(): SamplerState;
  /** Continues from a saved state. Throws `checkpoint` if it does not belong to these domains and this seed. */
  restore(json: unknown): void;
}

/** Makes a sampler. Throws `config` for invalid options and for a domain without windows. */
export function createSampler(options: SamplerOptions): Sampler {
  checkOptions<SamplerOptions>("createSampler", options, {
    domains: required(valueThat("a list of domains", Array.isArray)),
    seed: required(integerIn(0)),
    mode: oneOf("multinomial", "systematic"),
  });
  const { seed, mode = "multinomial" } = options;
  const domains = [...options.domains];
  for (const [i, domain] of domains.entries()) checkDomain(`createSampler: domains: ${i}`, domain);
  commonTime(domains);
  for (const { name, count } of domains)
    if (!Number.isSafeInteger(count) || count < 1)
      throw new GradmixError(
        "config",
        `"${name}": the number of examples is ${show(count)}; it must be a whole number of at least 1`,
      );
  const root = key(seed);
  const choices = foldIn(root, 0);
  const taken = new Array<number>(domains.length).fill(0);
  const tokens = new Array<number>(domains.length).fill(0);
  let draws = 0;
  const orders = new Map<number, Order>();

  const checkIndex = (domain: number): void =>
    checkRange("domain", domain, { min: 0, max: domains.length - 1, integer: true });

  const next = (domain: number): Draw => {
    const windows = domains[domain]!;
    const { count } = windows;
    const epoch = Math.floor(taken[domain]! / count);
    let order = orders.get(domain);
    if (order === undefined || order.epoch !== epoch) {
      const own = foldIn(foldIn(root, domain + 1), epoch);
      order = { epoch, key: own, sums: permutationSums(own, count) };
      if (orders.size >= MOST_ORDERS) orders.clear();
      orders.set(domain, order);
    }
    const window = permute(order.key, count, taken[domain]! % count, order.sums);
    taken[domain]!++;
    tokens[domain]! += windows.tokensOf(window);
    return { domain, window, epoch };
  };

  const prepare = (weights: ArrayLike<number>): Choice => {
    numberList("weights", weights);
    checkSize(weights.length, domains.length);
    const table = mode === "multinomial" && domains.length >= ALIAS_FROM ? aliasTable : cumulativeTable;
    return table(weights, (i) => `"${domains[i]!.name}"`);
  };

  return {
    prepare,
    draw(weights, n) {
      checkCount(n);
      const choice = isChoice(weights) ? weights : prepare(weights);
      checkSize(choice.size, domains.length);
      const out: Draw[] = [];
      const offset = mode === "systematic" ? uniformAt(choices, draws) : 0;
      for (let j = 0; j < n; j++) {
        const u = mode === "systematic" ? (j + offset) / n : uniformAt(choices, draws + j);
        out.push(next(choice.at(u)));
      }
      draws += n;
      return out;
    },
    drawFrom(domain, n) {
      checkCount(n);
      checkIndex(domain);
      return Array.from({ length: n }, () => next(domain));
    },
    epochs: () => taken.map((count, i) => count / domains[i]!.count),
    tokens: () => [...tokens],
    seen(domain) {
      checkIndex(domain);
      return { tokens: tokens[domain]!, epochs: taken[domain]! / domains[domain]!.count };
    },
    state: () => ({ version: 1, seed, draws, taken: [...taken], tokens: [...tokens] }),
    restore(json) {
      const state = checkState(json, domains, seed);
      draws = state.draws;
      state.taken.forEach((count, i) => {
        taken[i] = count;
        tokens[i] = state.tokens[i]!;
      });
    },
  };
}

const checkDomain = objectWith("a domain, such as windowsOf makes", "name", "count", "tokensOf");

function isChoice(weights: ArrayLike<number> | Choice): weights is Choice {
  if (isNumberList(weights)) return false;
  const given: unknown = weights;
  if (typeof given === "object" && given !== null && "size" in given && "at" in given) return true;
  throw new GradmixError(
    "config",
    `weights: ${show(given)} does not fit; it must be a list of numbers, or what prepare returned`,
  );
}

function checkCount(n: number): void {
  checkRange("n", n, { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true });
}

function checkSize(size: number, k: number): void {
  if (size !== k) throw new GradmixError("config", `weights: ${size} values for ${k} domains`);
}

function checkState(json: unknown, domains: readonly SampledDomain[], seed: number): SamplerState {
  return schema.read(
    samplerState(domains.length, seed),
    json,
    schema.faultOf({ source: "sampler state", code: "checkpoint" }),
  );
}

/** Schema of the state of a sampler of k domains with a seed. */
export function samplerState(k: number, seed: number): schema.Schema<SamplerState> {
  return schema.object<SamplerState>({
    version: schema.oneOf(1),
    seed: schema.oneOf(seed),
    draws: schema.count,
    taken: schema.list(schema.count, k),
    tokens: schema.list(schema.count, k),
  });
}
