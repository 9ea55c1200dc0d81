/** Mixtures for the tests: any weights, and names and paths that could break a file. */
import type { Mixture, MixtureDomain } from "gradmix/export";
import fc from "fast-check";

/** Texts with a special meaning in shells, YAML, CSV, JSON or Python. */
export const tricky: readonly string[] = [
  ..."null true False ~ no y 1e5 .5 0x1f 1_000 2026-11-26 =1 a,b a:b - -x # #x % @ & * ! | > ' \" \\ \\n { } [ ] ? `".split(
    " ",
  ),
  ..."it's $HOME $(x) `x` a;b a|b a&b <x> \u00FC \u65E5\u672C \u{1F98A} e\u0301 weights data train __class__ weighted run".split(
    " ",
  ),
  ...[
    "a b",
    "a: b",
    "- x",
    " pad",
    "pad ",
    "tab\tx",
    "line\nend",
    "cr\rx",
    "a #b",
    '"q"',
    "'q'",
    "\u0085",
    "\u2028",
    "\uFEFFx",
    "\u00A0",
    "\u007F",
    "0.5 p",
  ],
];

const anyName: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom(...tricky),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 }),
);

export interface MixtureShape {
  readonly names?: fc.Arbitrary<string>;
  readonly stages?: boolean;
  readonly zeros?: boolean;
}

/** Weights over eight orders of magnitude, with some of 0. */
const weights = (k: number, zeros: boolean): fc.Arbitrary<number[]> =>
  fc
    .array(
      fc.oneof(
        { weight: 4, arbitrary: fc.double({ min: 0, max: 18, noNaN: true }) },
        { weight: zeros ? 1 : 0, arbitrary: fc.constant(Infinity) },
      ),
      {
        minLength: k,
        maxLength: k,
      },
    )
    .filter((logs) => logs.some(Number.isFinite))
    .map((logs) => {
      const raw = logs.map((log) => Math.exp(-log));
      const total = raw.reduce((sum, x) => sum + x, 0);
      return raw.map((x) => x / total);
    });

export function anyMixture({
  names = anyName,
  stages = false,
  zeros = true,
}: MixtureShape = {}): fc.Arbitrary<Mixture> {
  return fc.uniqueArray(names, { minLength: 2, maxLength: 7 }).chain((domains) =>
    fc
      .record({
        rows: fc.array(weights(domains.length, zeros), {
          minLength: stages ? 2 : 1,
          maxLength: stages ? 4 : 1,
        }),
        // No path ends in a space, which Megatron strips.
        paths: fc.uniqueArray(
          anyName.map((name) => `/d/${name}.`),
          { minLength: domains.length, maxLength: domains.length },
        ),
        lengths: fc.array(fc.double({ min: 1, max: 1e5, noNaN: true }), {
          minLength: domains.length,
          maxLength: domains.length,
        }),
        run: anyName,
        step: fc.integer({ min: 1, max: 1e6 }),
      })
      .map(({ rows, paths, lengths, run, step }): Mixture => ({
        domains: domains.map((name, i): MixtureDomain => ({
          name,
          weight: rows[0][i],
          tokens: 1e6 + i,
          documentTokens: lengths[i],
          paths: [paths[i]],
        })),
        stages: stages ? rows.map((row, s) => ({ start: s * 1e9, weights: row })) : null,
        tokens: rows.length * 1e9,
        context: 128,
        batch: 16,
        repetitions: null,
        metrics: new Map([["target_bpb", 1.25]]),
        source: { gradmix: "0.1.0", run, step, rule: "dga", weights: stages ? "stages" : "averaged" },
      })),
  );
}
