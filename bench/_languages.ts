/** Synthetic text for benchmarks: each domain is a different Markov chain over the vocabulary. */
import type { TokenBatch } from "gradmix/nn";

/** A small fast generator (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Windows of `time` tokens of one domain: after each token one of four others comes, which ones being the domain's own. */
export function windowsOf(
  domain: number,
  examples: number,
  { time, vocabSize, seed = 0 }: { time: number; vocabSize: number; seed?: number },
): TokenBatch {
  const inputs = new Int32Array(examples * time);
  const targets = new Int32Array(examples * time);
  const walk = random(1_000_003 * seed + domain + 1);
  let token = domain % vocabSize;
  for (let i = 0; i < examples * time; i++) {
    inputs[i] = token;
    const branch = Math.floor(walk() * 4);
    token = Math.imul(token * 4 + branch + 1 + 7919 * domain, 2654435761) >>> 0;
    token %= vocabSize;
    targets[i] = token;
  }
  return { inputs, targets, tokens: new Int32Array(examples).fill(time), time };
}

/** Batches one after the other. */
export function joined(batches: readonly TokenBatch[]): TokenBatch {
  const join = (parts: readonly ArrayLike<number>[]): Int32Array =>
    Int32Array.from(parts.flatMap((part) => Array.from(part)));
  return {
    inputs: join(batches.map((b) => b.inputs)),
    targets: join(batches.map((b) => b.targets)),
    tokens: join(batches.map((b) => b.tokens)),
    time: batches[0]?.time ?? 0,
  };
}
