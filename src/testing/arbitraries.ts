/** fast-check arbitraries for the inputs and outputs of rules: points of the simplex, alignments, histograms, signals and sequences of signals. */
import fc from "fast-check";
import type { Signal } from "../dga/rule.ts";
import { normalise, type Weights } from "../dga/simplex.ts";
import { boolean, checkOptions, integerIn } from "../options.ts";

/** A signal in which everything is measured. */
export type FullSignal = Required<
  Omit<
    Signal,
    "tokens" | "standardErrors" | "targetExamples" | "heldOutLosses" | "heldOutReferences" | "heldOutErrors"
  >
> & {
  /** Standard error of each alignment. */
  readonly standardErrors: readonly number[];
  /** Held-out loss of each domain, per token. */
  readonly heldOutLosses: readonly number[];
};

const finite = (min: number, max: number): fc.Arbitrary<number> => fc.double({ min, max, noNaN: true });
const vector = <T>(one: fc.Arbitrary<T>, k: number): fc.Arbitrary<T[]> =>
  fc.array(one, { minLength: k, maxLength: k });

/** Throws `config` unless there is a whole number of domains, at least one. */
function checkDomains(where: string, k: number): void {
  integerIn(1)(`${where}: k`, k);
}

/** Names of k domains: "domain0", "domain1", … */
export const names = (k: number): string[] => {
  integerIn(0)("names: k", k);
  return Array.from({ length: k }, (_, i) => `domain${i}`);
};

/** Points of the k-simplex: ordinary ones, vertices, faces, and weights down to 1e-300; with `positive` no weight is 0. */
export function simplexPoint(k: number, options: { positive?: boolean } = {}): fc.Arbitrary<Weights> {
  checkDomains("simplexPoint", k);
  checkOptions("simplexPoint", options, { positive: boolean });
  const exponent = finite(-300, 0).map((e) => 10 ** e);
  const ordinary = finite(1e-3, 1);
  const weight =
    options.positive === true
      ? fc.oneof({ weight: 3, arbitrary: ordinary }, exponent)
      : fc.oneof({ weight: 3, arbitrary: ordinary }, exponent, fc.constant(0));
  return fc
    .tuple(fc.nat(k - 1), vector(weight, k))
    .map(([sure, values]) =>
      normalise(values.map((value, i) => (i === sure ? Math.max(value, 0.1) : value))),
    );
}

/** Points with all weight on one domain. */
export function vertex(k: number): fc.Arbitrary<Weights> {
  checkDomains("vertex", k);
  return fc.nat(k - 1).map((at) => Float64Array.from({ length: k }, (_, i) => (i === at ? 1 : 0)));
}

/** Positive weights of which all but one are between 1e-300 and 1e-12. */
export function nearlyDegenerate(k: number): fc.Arbitrary<Weights> {
  checkDomains("nearlyDegenerate", k);
  return fc
    .tuple(fc.nat(k - 1), vector(finite(-300, -12), k))
    .map(([at, exponents]) => normalise(exponents.map((e, i) => (i === at ? 1 : 10 ** e))));
}

/** Alignments: mostly of order 1, some tiny, some up to 1e30, some equal. */
export function alignments(k: number): fc.Arbitrary<number[]> {
  checkDomains("alignments", k);
  const magnitude = fc.tuple(finite(-30, 30), fc.boolean()).map(([e, minus]) => (minus ? -1 : 1) * 10 ** e);
  return vector(
    fc.oneof({ weight: 4, arbitrary: finite(-3, 3) }, magnitude, fc.constantFrom(0, 1, -1e30, 1e30)),
    k,
  );
}

/** NaN and both infinities. */
export const nonFinite: fc.Arbitrary<number> = fc.constantFrom(NaN, Infinity, -Infinity);

/** Counts of a target's examples in k domains, at least one of them positive. */
export function histogram(k: number): fc.Arbitrary<number[]> {
  checkDomains("histogram", k);
  return fc
    .tuple(fc.nat(k - 1), vector(fc.oneof(fc.nat(100), fc.constant(0)), k))
    .map(([sure, counts]) => counts.map((count, i) => (i === sure ? count + 1 : count)));
}

/** Names of the targets of `signal`. */
export const targetNames: readonly string[] = ["first", "second"];

/** The arbitrary of each part of a signal for k domains, from which `signal` is made. Not part of the package's interface. */
export function signalParts(
  k: number,
  mild: boolean,
): { readonly [Name in keyof FullSignal]: fc.Arbitrary<FullSignal[Name]> } {
  const norm = mild ? finite(0.5, 10) : fc.oneof(finite(0, 10), fc.constantFrom(0, 1, 1e-300, 1e15));
  const aligned = mild ? vector(finite(-3, 3), k) : alignments(k);
  const losses = vector(mild ? finite(0.1, 10) : fc.oneof(finite(0, 10), fc.constantFrom(0, 1e-300, 700)), k);
  return {
    alignments: aligned,
    standardErrors: vector(mild ? finite(0, 1) : fc.oneof(finite(0, 3), fc.constantFrom(0, 1e-30, 1e30)), k),
    preconditionedAlignments: aligned,
    preconditionedTargetNorm: norm,
    norms: vector(norm, k),
    targetNorm: norm,
    losses,
    targetLoss: finite(0, 10),
    referenceLosses: losses,
    heldOutLosses: losses,
    tokensSeen: vector(fc.nat(1e9), k),
    gram: vector(vector(finite(-3, 3), 3), k).map(gramOf),
    targets: fc.tuple(
      ...targetNames.map((name) =>
        fc.record({ name: fc.constant(name), alignments: aligned, norm, loss: finite(1e-3, 10) }),
      ),
    ),
  };
}

/** Signals with everything that a rule can need, for k domains; with `mild`, alignments are of order 1 and the norms fit them. */
export function signal(k: number, options: { mild?: boolean } = {}): fc.Arbitrary<FullSignal> {
  checkDomains("signal", k);
  checkOptions("signal", options, { mild: boolean });
  return fc.record<FullSignal>(signalParts(k, options.mild === true));
}

/** Inner products of all pairs of rows, row-major. */
export function gramOf(rows: readonly (readonly number[])[]): number[] {
  return rows.flatMap((a) => rows.map((b) => a.reduce((sum, value, i) => sum + value * b[i]!, 0)));
}

/** Sequences of 1 to `maxLength` signals, one per update. */
export function updateSequence(
  k: number,
  options: { mild?: boolean; maxLength?: number } = {},
): fc.Arbitrary<FullSignal[]> {
  checkDomains("updateSequence", k);
  checkOptions("updateSequence", options, { mild: boolean, maxLength: integerIn(1) });
  const { maxLength = 6, ...rest } = options;
  return fc.array(signal(k, rest), { minLength: 1, maxLength });
}
