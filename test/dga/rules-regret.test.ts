/**
 * Bandits and importance weights, exactly: every sequence of draws is followed and weighted by its probability. Nothing is sampled, so an expectation is
 * wrong only if a formula is.
 */
import { basisAlignments, createBases, type Rule, rules, type RuleState, sumOf } from "gradmix/dga";
import { names, simplexPoint } from "gradmix/testing";
import fc from "fast-check";
import { expect, test } from "vitest";
import { expectNear } from "../near.ts";

const ROUNDS = 6;

/** Losses of k domains in each round, between 0 and 1 (or the worst there is: one domain is always bad). */
const game: fc.Arbitrary<{ k: number; losses: number[][] }> = fc.integer({ min: 2, max: 3 }).chain((k) =>
  fc.record({
    k: fc.constant(k),
    losses: fc.oneof(
      fc.constant(
        Array.from({ length: ROUNDS }, () => Array.from({ length: k }, (_, i) => (i === 0 ? 1 : 0))),
      ),
      fc.array(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: k, maxLength: k }), {
        minLength: ROUNDS,
        maxLength: ROUNDS,
      }),
    ),
  }),
);

/** E Σₜ ℓ of what was drawn, over all k^rounds sequences of draws, with the weights that `next` gives after a draw. */
function expected<S>(
  state: S,
  losses: readonly (readonly number[])[],
  weightsOf: (state: S) => ArrayLike<number>,
  next: (state: S, drawn: number, loss: number) => S,
  round = 0,
): number {
  if (round === losses.length) return 0;
  const weights = weightsOf(state);
  return sumOf(
    losses[round].map(
      (loss, drawn) =>
        weights[drawn] * (loss + expected(next(state, drawn, loss), losses, weightsOf, next, round + 1)),
    ),
  );
}

const softmax = (logits: readonly number[]): number[] => {
  const e = logits.map((l) => Math.exp(l - Math.max(...logits)));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
};

test("Exp3: the mirror step on importance-weighted losses has the regret of its theorem", () => {
  fc.assert(
    fc.property(game, fc.double({ min: 0.1, max: 1, noNaN: true }), ({ k, losses }, eta) => {
      const rule: Rule = rules.dga({ name: "dga", normalise: "raw", beta: 1, eta });
      // Here 0 is right for what was not drawn: the estimate of its loss is ℓ/α with probability α, else 0.
      const exp3 = expected<RuleState>(
        rule.init(names(k)),
        losses,
        ({ weights }) => weights,
        (state, drawn, loss) =>
          rule.update(state, {
            alignments: state.weights.map((weight, i) => (i === drawn ? -loss / weight : 0)),
          }),
      );
      const written = expected<number[]>(
        losses[0].map(() => 0),
        losses,
        (sums) => softmax(sums.map((s) => -eta * s)),
        (sums, drawn, loss) =>
          sums.map((s, i) => (i === drawn ? s + loss / softmax(sums.map((x) => -eta * x))[i] : s)),
      );
      expectNear(exp3, written, 1e-10, ROUNDS);
      const best = Math.min(...losses[0].map((_, i) => sumOf(losses.map((round) => round[i]))));
      // Bubeck & Cesa-Bianchi 2012, theorem 3.1.
      expect(exp3 - best).toBeLessThanOrEqual(Math.log(k) / eta + (eta / 2) * k * ROUNDS + 1e-9);
    }),
    { numRuns: 20 },
  );
});

test("odm: the expected R̂ in a round, and the expected reward over all rounds", () => {
  fc.assert(
    fc.property(game, fc.constantFrom(0, 0.5, 0.9), ({ k, losses: rewards }, decay) => {
      const rule = rules.odm({ name: "odm", decay });
      const drawing = (state: RuleState, drawn: number, loss: number): RuleState =>
        rule.update(state, {
          losses: state.weights.map((_, i) => (i === drawn ? loss : NaN)),
          tokens: state.weights.map((_, i) => (i === drawn ? 64 : 0)),
        });
      // ℓ/π for what was drawn with probability π, so R̂ moves on average by (1 − ρ)·(ℓ − π·R̂).
      let state = rule.init(names(k));
      for (const round of rewards) {
        const before = state.memory["rewards"];
        const after = round.map((loss, drawn) => drawing(state, drawn, loss).memory["rewards"]);
        before.forEach((r, i) =>
          expectNear(
            sumOf(after.map((own, drawn) => state.weights[drawn] * own[i])) - r,
            (1 - decay) * (round[i] - state.weights[i] * r),
            1e-12,
            1 + Math.abs(r),
          ),
        );
        state = drawing(state, 0, round[0]);
      }
      // The paper's formulas, with the domains that were not drawn yet at 1/k each.
      interface Written {
        readonly sums: number[];
        readonly known: boolean[];
        readonly weights: number[];
        readonly t: number;
      }
      const epsilon = (t: number): number =>
        t === 0 ? 1 / k : Math.min(1 / k, Math.sqrt(Math.log(k) / (k * t)));
      const step = ({ sums, known, weights, t }: Written, drawn: number, loss: number): Written => {
        const now = sums.map((s, i) => (i === drawn ? decay * s + ((1 - decay) * loss) / weights[i] : s));
        const seen = known.map((is, i) => is || i === drawn);
        const m = seen.filter(Boolean).length;
        const part = softmax(now.map((s, i) => (seen[i] ? epsilon(t) * s : -Infinity)));
        const explore = Math.min(1 / m, (epsilon(t + 1) * k) / m);
        return {
          sums: now,
          known: seen,
          weights: part.map((p, i) => (seen[i] ? (m / k) * ((1 - m * explore) * p + explore) : 1 / k)),
          t: t + 1,
        };
      };
      const found = expected<RuleState>(rule.init(names(k)), rewards, ({ weights }) => weights, drawing);
      const start = {
        sums: rewards[0].map(() => 0),
        known: rewards[0].map(() => false),
        weights: rewards[0].map(() => 1 / k),
        t: 0,
      };
      expectNear(
        found,
        expected<Written>(start, rewards, ({ weights }) => weights, step),
        1e-10,
        ROUNDS,
      );
      // Where one domain is always the most rewarding, it draws more than uniform weights would.
      const steady = rewards.map(() => rewards[0]);
      const uniform = ROUNDS * (sumOf(rewards[0]) / k);
      expect(
        expected<RuleState>(rule.init(names(k)), steady, ({ weights }) => weights, drawing),
      ).toBeGreaterThanOrEqual(uniform - 1e-9);
    }),
    { numRuns: 20 },
  );
});

test("multipliers α/q on examples drawn with q give the same as drawing with α", () => {
  const populations = fc.integer({ min: 2, max: 6 }).chain((k) =>
    fc.record({
      alpha: simplexPoint(k),
      /** Examples of each domain in a batch that holds them in the proportions of q exactly. */
      counts: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: k, maxLength: k }),
      dots: fc.array(fc.double({ min: -3, max: 3, noNaN: true }), { minLength: k, maxLength: k }),
      tokens: fc.array(fc.integer({ min: 1, max: 64 }), { minLength: k, maxLength: k }),
    }),
  );
  fc.assert(
    fc.property(populations, ({ alpha, counts, dots, tokens }) => {
      const k = alpha.length;
      const total = sumOf(counts);
      const domainOf = counts.flatMap((count, i) => new Array<number>(count).fill(i));
      const bases = createBases(
        { mixture: Object.fromEntries(names(k).map((name, i) => [name, alpha[i]])) },
        names(k),
      );
      const found = basisAlignments(
        bases,
        counts.map((count) => count / total),
        { domainOf, tokens: domainOf.map((i) => tokens[i]), dots: domainOf.map((i) => dots[i] * tokens[i]) },
      );
      // E over i ~ α of the dots and of the tokens; the loss is a mean per token.
      const sum = sumOf(alpha.map((w, i) => w * dots[i] * tokens[i]));
      const count = sumOf(alpha.map((w, i) => w * tokens[i]));
      expectNear(found.alignments[0], sum / count, 1e-12, 3);
    }),
  );
});
