/** Guarantees of every format, by enumeration: exact sums, no 0, unchanged names and paths, the source of the weights. A format without a reader here fails. */
import { exportFormats, exportMixture, type Exported, type Mixture } from "gradmix/export";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";
import { anyMixture } from "./mixtures.ts";
import { billionths, readers, type ReadStage } from "./readers.ts";

const formats = [...exportFormats.values()];
const least = 1e-9;

/** Formats in which a domain is known by its path alone. */
const byPath = new Set(["megatron", "megatron-bridge", "energon", "nanotron", "neox"]);

/** Shares that are to be read back: of all domains that would not print as 0. */
function wanted(mixture: Mixture, unit: string, weights: readonly number[]): number[] {
  if (unit === "epochs")
    return mixture.domains.map(({ tokens }, i) => (weights[i] * mixture.tokens) / (tokens ?? NaN));
  const shares = mixture.domains.map(({ documentTokens }, i) =>
    unit === "documents" ? weights[i] / (documentTokens ?? NaN) : weights[i],
  );
  const total = shares.reduce((sum, share) => sum + share, 0);
  return shares.map((share) => share / total);
}

/** A space of Python at an end, or of JavaScript. */
const stripped = /^[\s\u001C-\u001F\u0085]|[\s\u001C-\u001F\u0085]$/;

/** A refusal that the format's own reader makes necessary. */
function refusal(name: string, { domains, stages }: Mixture, kept: readonly string[]): RegExp | null {
  if (name === "llama-factory" && kept.some((domain) => domain.includes(",") || stripped.test(domain)))
    return /splits its list/;
  if (name === "nemo-automodel" && kept.length < 2) return /at least two/;
  if (name === "nemo-automodel" && kept.includes("weighted")) return /keeps the name/;
  if (name === "olmix" && kept.some((domain) => /^(run|run_id|name|index|Unnamed.*)$/.test(domain)))
    return /reserves columns/;
  return domains.length === 0 || stages?.length === 0 ? /never/ : null;
}

function check(
  name: string,
  unit: string,
  mixture: Mixture,
  exported: Exported,
  read: readonly ReadStage[],
): void {
  const rows = mixture.stages?.map(({ weights }) => weights) ?? [mixture.domains.map(({ weight }) => weight)];
  expect(read.length).toBe(rows.length);
  read.forEach(({ weights }, s) => {
    const shares = wanted(mixture, unit, rows[s]);
    const kept = mixture.domains.flatMap((domain, i) =>
      shares[i] >= least ? [{ domain, share: shares[i] }] : [],
    );
    if (name === "levanter") {
      checkBlock(
        kept.map(({ domain, share }) => [domain.name, share]),
        new Map(weights),
        exported.notes,
      );
      return;
    }
    const names = kept.map(({ domain }) => (byPath.has(name) ? domain.paths[0] : domain.name));
    const found = new Map(weights);
    expect(found.size).toBe(weights.length);
    expect(new Set(found.keys())).toEqual(new Set(names));
    const printed = names.map((key) => found.get(key) ?? "");
    expect(printed.every((text) => /^\d+(\.\d+)?$/.test(text) && Number(text) > 0)).toBe(true);
    if (unit !== "epochs")
      expect(printed.reduce((sum, text) => sum + billionths(text), 0n)).toBe(1_000_000_000n);
    for (const [i, { share }] of kept.entries())
      // Six digits, and what is left out is shared by the others; passes have six significant ones.
      expect(Math.abs(Number(printed[i]) - share)).toBeLessThan(unit === "epochs" ? share * 1e-5 : 1.1e-6);
    const left = mixture.domains.filter((_, i) => !(shares[i] >= least));
    const leftOut = exported.notes.filter((note) => note.includes("left out, since"));
    for (const { name: domain } of left)
      expect(leftOut.some((note) => note.includes(JSON.stringify(domain)))).toBe(true);
    if (left.length === 0 && rows.length === 1) expect(leftOut).toEqual([]);
  });
}

/** A block of levanter has whole sequences of each domain: none of what is written is rounded or given to another domain. */
function checkBlock(
  kept: readonly (readonly [name: string, share: number])[],
  found: ReadonlyMap<string, string>,
  notes: readonly string[],
): void {
  const left = notes.filter((note) => note.includes("left out")).join("\n");
  let sequences = 0;
  for (const [name, share] of kept) {
    const count = Number(found.get(name) ?? 0) * 2048;
    expect(Number.isInteger(count)).toBe(true);
    expect(Math.abs(count - share * 2048)).toBeLessThan(1.01);
    if (count === 0) expect(left).toContain(JSON.stringify(name));
    sequences += count;
  }
  expect(sequences).toBe(2048);
  expect(found.size).toBe(kept.filter(([name]) => found.has(name)).length);
}

describe.each(formats)("$name", (format) => {
  const { name, unit } = format;
  const reader = readers[name];
  test("has a reader in these tests", () => expect(reader).toBeTypeOf("function"));

  test("any names and weights can be read back unchanged, without 0 and with the sum exactly 1", () => {
    fc.assert(
      fc.property(anyMixture(), (mixture) => {
        const shares = wanted(
          mixture,
          unit,
          mixture.domains.map(({ weight }) => weight),
        );
        const kept = mixture.domains.filter((_, i) => shares[i] >= least).map((domain) => domain.name);
        const refused = refusal(name, mixture, kept);
        if (refused !== null) {
          expect(errorOf(() => exportMixture(mixture, { format: name })).message).toMatch(refused);
          return;
        }
        const exported = exportMixture(mixture, { format: name });
        check(name, unit, mixture, exported, reader(exported));
      }),
      { numRuns: 50 },
    );
  });

  test("rows of windows get the shares of tokens, whatever the documents; formats that count neither refuse them", () => {
    fc.assert(
      fc.property(anyMixture({ names: fc.constantFrom("a", "b", "c", "d"), zeros: false }), (mixture) => {
        const call = (): Exported => exportMixture(mixture, { format: name, rows: "windows" });
        if (unit === "tokens" || unit === "epochs") expect(errorOf(call).code).toBe("config");
        else {
          const exported = call();
          const shares = wanted(
            mixture,
            "windows",
            mixture.domains.map(({ weight }) => weight),
          );
          if (shares.every((share) => share >= least))
            check(name, "windows", mixture, exported, reader(exported));
        }
      }),
      { numRuns: 20 },
    );
  });

  test("stages can be read back if the format has them, and are refused otherwise", () => {
    fc.assert(
      fc.property(
        anyMixture({ names: fc.constantFrom("a", "b c", "null", "d"), stages: true }),
        (mixture) => {
          if (!format.stages) {
            const error = errorOf(() => exportMixture(mixture, { format: name }));
            expect([error.code, error.message]).toEqual(["config", expect.stringContaining(name)]);
            return;
          }
          const exported = exportMixture(mixture, { format: name, scaleTo: mixture.tokens * 4 });
          const read = reader(exported);
          check(name, unit, mixture, exported, read);
          const per = { megatron: 128 * 16, nanotron: 128 * 16, levanter: 128 }[name] ?? 1;
          read.forEach(({ start }, s) => {
            if (name === "levanter") expect(start % 2048).toBe(0);
            expect(Math.abs(start * per - s * 4e9)).toBeLessThanOrEqual(
              (per * (name === "levanter" ? 2048 : 1)) / 2,
            );
          });
        },
      ),
      { numRuns: 30 },
    );
  });

  test("names the version, run, step and rule: in a comment, a field, or a second file", () => {
    fc.assert(
      fc.property(anyMixture({ names: fc.constantFrom("a", "b") }), (mixture) => {
        if (name === "nemo-automodel" && mixture.domains.some(({ weight }) => weight < least)) return;
        const { files, sidecar } = exportMixture(mixture, { format: name });
        expect(sidecar !== null).toBe(format.sidecar);
        const { gradmix, run, step, rule } = mixture.source;
        for (const text of sidecar === null ? files.map((file) => file.text) : [sidecar]) {
          if (name === "json" || sidecar !== null)
            expect(JSON.parse(text)).toMatchObject({ gradmix, run, step, rule });
          else {
            const [first] = text.split("\n");
            for (const part of [`# gradmix ${gradmix}: `, `step ${step}, rule ${rule}`])
              expect(first).toContain(part);
          }
        }
        expect(files.every((file) => /^[\w.-]+$/.test(file.name) && file.text.endsWith("\n"))).toBe(true);
      }),
      { numRuns: 20 },
    );
  });

  test("needs a path for each domain, or works without", () => {
    const mixture = fc.sample(anyMixture({ names: fc.constantFrom("a", "b", "c"), zeros: false }), {
      numRuns: 1,
      seed: 5,
    })[0];
    const [first, ...rest] = mixture.domains;
    const lacking = { ...mixture, domains: [{ ...first, paths: [] }, ...rest] };
    const several = { ...mixture, domains: [{ ...first, paths: ["/x", "/y"] }, ...rest] };
    const needs = format.paths === "one" || format.paths === "many";
    if (needs) {
      const { message } = errorOf(() => exportMixture(lacking, { format: name }));
      expect(message).toContain(JSON.stringify(first.name));
      for (const { name: other } of rest) expect(message).not.toContain(JSON.stringify(other));
    } else expect(() => exportMixture(lacking, { format: name })).not.toThrow();
    if (format.paths === "one")
      expect(errorOf(() => exportMixture(several, { format: name })).message).toContain("one path");
    else expect(exportMixture(several, { format: name }).files.length).toBeGreaterThan(0);
    const reported = exportMixture(mixture, { format: name }).notes.some((note) =>
      note.includes("paths are not written"),
    );
    expect(reported).toBe(format.paths === "none");
  });
});
