/** Basis distributions, their text, and all their alignments from one batch: against dense arithmetic, and against one batch per basis. */
import fc from "fast-check";
import { aliasTable, createSampler } from "gradmix/data";
import {
  type Bases,
  basisAlignments,
  basisChoice,
  createBases,
  createMixer,
  currentWeights,
  domainAlignments,
  mixtureOf,
  parseBases,
  proposal,
  restoreMixer,
  type RuleOptions,
  update,
} from "gradmix/dga";
import { describe, expect, test } from "vitest";
import { areDomains, fingerprint } from "#dist/dga/bases.js";
import { gaussian, random } from "./arbitraries.ts";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const named = (letter: string, n: number): string[] => Array.from({ length: n }, (_, i) => `${letter}${i}`);
const total = (values: ArrayLike<number>): number => Array.from(values).reduce((a, b) => a + b, 0);
const simplexOf = (values: readonly number[]): number[] => values.map((v) => v / total(values));

/** p[j][i]. */
function dense({ names, domains, offsets, columns, values }: Bases): number[][] {
  return names.map((_, j) => {
    const row = domains.map(() => 0);
    for (let e = offsets[j]; e < offsets[j + 1]; e++) row[columns[e]] += values[e];
    return row;
  });
}

/** Counts of N bases over k domains, none empty. */
const counts = fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 7 })).chain(([n, k]) =>
  fc.array(
    fc
      .array(fc.oneof(fc.constant(0), fc.nat(9), fc.double({ min: 1e-9, max: 1e6, noNaN: true })), {
        minLength: k,
        maxLength: k,
      })
      .filter((row) => row.some((v) => v > 0)),
    { minLength: n, maxLength: n },
  ),
);
const basesOf = (rows: readonly (readonly number[])[]): Bases =>
  createBases(new Map(rows.map((row, j) => [`p${j}`, row])), named("d", rows[0].length), { counts: true });
const identity = (k: number): Bases =>
  basesOf(named("", k).map((_, j) => named("", k).map((_, i) => +(i === j))));

const simplex = (n: number): fc.Arbitrary<number[]> =>
  fc
    .array(fc.oneof(fc.constant(0), fc.double({ min: 1e-6, max: 1, noNaN: true })), {
      minLength: n,
      maxLength: n,
    })
    .filter((w) => w.some((v) => v > 0))
    .map(simplexOf);
const withWeights = counts.chain((rows) => fc.tuple(fc.constant(rows), simplex(rows.length)));

describe("bases", () => {
  test("may be given as counts of any size; if their sum overflows, the shares are the same as for smaller counts", () => {
    fc.assert(
      fc.property(counts, (rows) => {
        const huge = rows.map((row) => {
          const exponent = 1022 - Math.floor(Math.log2(Math.max(...row)));
          return row.map((count) => count * 2 ** 500 * 2 ** (exponent - 500));
        });
        const [got, want] = [dense(basesOf(huge)), dense(basesOf(rows))];
        expect(got).toEqual(want);
      }),
    );
  });

  test("hold each row divided by its sum, in every form of input", () => {
    fc.assert(
      fc.property(counts, (rows) => {
        const domains = named("d", rows[0].length);
        const bases = basesOf(rows);
        rows.forEach((row, j) =>
          row.forEach((v, i) => expectNear(dense(bases)[j][i], v / total(row), 1e-12)),
        );
        for (const row of dense(bases)) expect(Math.abs(total(row) - 1)).toBeLessThan(1e-14);
        // Only non-zeros are kept.
        expect(bases.values.length).toBe(rows.flat().filter((v) => v > 0).length);
        expect(bases.columns.length).toBe(bases.values.length);
        const forms = [
          Object.fromEntries(rows.map((row, j) => [`p${j}`, Float64Array.from(row)])),
          Object.fromEntries(
            rows.map((row, j) => [`p${j}`, Object.fromEntries(row.map((v, i) => [domains[i], v]).reverse())]),
          ),
          new Map(rows.map((row, j) => [`p${j}`, new Map(row.map((v, i) => [domains[i], v]))])),
        ];
        for (const form of forms) expect(createBases(form, domains, { counts: true })).toEqual(bases);
      }),
    );
  });

  test("are the same after a round trip through JSON and CSV", () => {
    fc.assert(
      fc.property(counts, fc.boolean(), (rows, quoted) => {
        const name = (text: string): string => (quoted ? `${text}, "so" called` : text);
        const domains = named("d", rows[0].length).map(name);
        const given = new Map(rows.map((row, j) => [name(`p${j}`), row]));
        const bases = createBases(given, domains, { counts: true });
        const cell = (text: string): string => (quoted ? `"${text.replaceAll('"', '""')}"` : text);
        const csv = [
          "weight,basis,domain",
          ...[...given].flatMap(([p, row]) => row.map((v, i) => `${v},${cell(p)}, ${cell(domains[i])}`)),
        ];
        const lists = JSON.stringify(Object.fromEntries(given), null, 2);
        const records = JSON.stringify(
          Object.fromEntries(
            [...given].map(([p, row]) => [p, Object.fromEntries(row.map((v, i) => [domains[i], v]))]),
          ),
        );
        const read = (text: string, format: "json" | "csv"): Bases =>
          parseBases(text, domains, { format, counts: true });
        expect(read(lists, "json")).toEqual(bases);
        expect(read(`\uFEFF${records}\n`, "json")).toEqual(bases);
        expect(read(csv.join("\r\n"), "csv")).toEqual(bases);
        expect(read(`${csv.join("\n")}\n\n`, "csv")).toEqual(bases);
      }),
    );
  });

  test.each([
    [{ a: [1] }, 'basis "a": 1 values for 3 domains'],
    [
      { a: [0.5, 0.5, 0.5] },
      'basis "a": its weights sum to 1.5, not to 1; divide them by their sum (in a program, the option counts does)',
    ],
    [{ a: { web: 1.5, code: -0.5 } }, 'basis "a": domain "code" has -0.5; weights are finite and ≥ 0'],
    [{ a: [NaN, 0, 1] }, 'basis "a": domain "web" has NaN; weights are finite and ≥ 0'],
    [{ a: [1, 0, 0], b: { wbe: 1 } }, 'basis "b": there is no domain "wbe"; did you mean "web"?'],
    [{ b: { zzzzzz: 1 } }, 'basis "b": there is no domain "zzzzzz"; the domains are web, code, books'],
    [{ a: [0, 0, 0] }, 'basis "a": it has no weight on any domain; leave it out, or give it weight'],
    [{ a: {} }, 'basis "a": it has no weight on any domain; leave it out, or give it weight'],
    [{ a: 3 }, 'basis "a": 3 does not fit; it must be numbers, one per domain or by name'],
    [{ a: { web: "1" } }, 'basis "a": domain "web" has "1"; weights are finite and ≥ 0'],
    [{}, "bases: at least one is needed"],
  ])("refuses %j", (given, message) => {
    const error = errorOf(() => createBases(given as never, ["web", "code", "books"]));
    expect(error).toMatchObject({ code: "config", message });
  });

  test("of one's own are taken if their rows are distributions over the domains, and else refused by every function", () => {
    const change = fc.record({
      part: fc.constantFrom("offsets" as const, "columns" as const, "values" as const),
      at: fc.nat(),
      value: fc.oneof(fc.integer({ min: -2, max: 9 }), fc.constantFrom(0.25, 1, NaN, Infinity)),
    });
    fc.assert(
      fc.property(counts, fc.option(change, { nil: null }), (rows, changed) => {
        const bases = structuredClone(basesOf(rows));
        if (changed !== null) {
          const list = bases[changed.part];
          list[changed.at % list.length] = changed.value;
        }
        const { names, domains, offsets, columns, values } = bases;
        const fits = names.every((_, j) => {
          const own = Array.from(columns).slice(offsets[j], offsets[j + 1]);
          const shares = Array.from(values).slice(offsets[j], offsets[j + 1]);
          return (
            own.every((column, e) => column > (own[e - 1] ?? -1) && column < domains.length) &&
            shares.every((value) => value > 0) &&
            Math.abs(total(shares) - 1) <= 1e-6
          );
        });
        const whole =
          fits && offsets[0] === 0 && offsets.every((offset, j) => j === 0 || offset > offsets[j - 1]);
        const w = names.map(() => 1 / names.length);
        const q = domains.map(() => 1 / domains.length);
        for (const call of [
          () => mixtureOf(bases, w),
          () => proposal(bases, w),
          () => basisChoice(bases, 0),
          () => basisAlignments(bases, q, { domainOf: [0], tokens: [1], dots: [1] }),
        ]) {
          // A copy, which no earlier call has seen.
          if (whole && offsets[names.length] === columns.length) call();
          else
            expect(errorOf(call)).toMatchObject({
              code: "config",
              message: expect.stringMatching(/createBases makes bases$/),
            });
        }
      }),
    );
  });

  test("have alignments from tokens and products that are numbers, and finite tokens, only", () => {
    const bases = basesOf([[1, 1]]);
    const wrong = [
      ...[NaN, Infinity, -1, "1", null].map((tokens) => ({ tokens: [1, tokens], dots: [1, 1] })),
      ...["1", null, undefined].map((dot) => ({ tokens: [1, 1], dots: [1, dot] })),
    ];
    for (const { tokens, dots } of wrong)
      expect(
        errorOf(() =>
          basisAlignments(bases, [0.5, 0.5], {
            domainOf: [0, 1],
            tokens: tokens as number[],
            dots: dots as number[],
          }),
        ),
      ).toMatchObject({ code: "numeric", message: expect.stringMatching(/^example 1 has /) });
  });

  test("have a fingerprint whose two halves both change with every weight, name and place", () => {
    fc.assert(
      fc.property(counts, fc.nat(), (rows, at) => {
        const bases = basesOf(rows);
        const halves = (of: Bases): string[] =>
          fingerprint(of)
            .match(/^([0-9a-f]{8})([0-9a-f]{8})$/)
            ?.slice(1) ?? [];
        expect(halves(bases)).toHaveLength(2);
        expect(halves(basesOf(rows))).toEqual(halves(bases));
        const entry = at % bases.values.length;
        const others: Bases[] = [
          {
            ...bases,
            values: bases.values.map((value, e) => (e === entry ? value * (1 + 2 ** -40) : value)),
          },
          { ...bases, columns: bases.columns.map((column, e) => (e === entry ? column + 1 : column)) },
          { ...bases, names: bases.names.map((name) => `${name}'`) },
          { ...bases, domains: bases.domains.toReversed().concat("x") },
        ];
        for (const other of others) {
          const [a, b] = halves(other);
          expect(a).not.toBe(halves(bases)[0]);
          expect(b).not.toBe(halves(bases)[1]);
        }
      }),
      // Two halves of 32 bits are equal by chance once in billions.
      { numRuns: 50 },
    );
  });

  test("keep their order; an object that cannot keep the order is refused", () => {
    const given: [string, number[]][] = [["second", [0, 1]], ["10", [1, 0]], ["1", [0.5, 0.5]], ["__proto__", [1, 0]]]; // prettier-ignore
    expect(createBases(new Map(given), ["x", "1"]).names).toEqual(["second", "10", "1", "__proto__"]);
    const text = `{${given.map(([name, row]) => `"${name}": [${row.join()}]`).join()}}`;
    expect(parseBases(text, ["x", "1"], { format: "json" }).names).toEqual([
      "second",
      "10",
      "1",
      "__proto__",
    ]);
    expect(errorOf(() => createBases({ second: [0, 1], "10": [1, 0] }, ["x", "1"])).message).toBe(
      'bases: an object does not keep the order of names that are whole numbers, such as "10"; give a Map',
    );
    expect(createBases({ "10": [1, 0] }, ["x", "1"]).names).toEqual(["10"]);
  });

  test("match names of domains however their accents are encoded", () => {
    const domains = ["caf\u00e9", "b"];
    expect(parseBases('{"p": {"cafe\u0301": 1}}', domains, { format: "json" }).columns).toEqual(
      Int32Array.of(0),
    );
    expect(parseBases("basis,domain,weight\np,cafe\u0301,1", domains, { format: "csv" }).columns).toEqual(
      Int32Array.of(0),
    );
    expect(errorOf(() => createBases({ a: [1, 0] }, ["caf\u00e9", "cafe\u0301"])).message).toMatch(
      /^domains: two are called/,
    );
  });

  test("count as domains if each has one entry", () => {
    const of = (rows: Record<string, number[]>): boolean => areDomains(createBases(rows, ["x", "y"]));
    expect(of({ a: [1, 0], b: [0, 1] })).toBe(true);
    expect(of({ a: [0, 1] })).toBe(true);
    expect(of({ a: [0, 1], b: [0, 1], c: [1, 0] })).toBe(true);
    expect(of({ a: [0, 1], b: [0.5, 0.5] })).toBe(false);
    expect(of({ a: [0.5, 0.5] })).toBe(false);
  });

  test("the fingerprint does not change between versions, because saved runs depend on it", () => {
    // FNV-1a over 32-bit words, in two lanes of which the second takes from the first.
    const bases = createBases({ first: [0.25, 0.75], second: [1, 0] }, ["x", "longer"]);
    const words = [...bases.names, "", ...bases.domains].flatMap((name) => [
      name.length,
      ...Array.from(name, (letter) => letter.charCodeAt(0)),
    ]);
    for (const array of [bases.offsets, bases.columns, bases.values])
      words.push(...new Uint32Array(array.buffer, array.byteOffset, array.byteLength / 4));
    const prime = 16777619n;
    let [a, b] = [0x811c9dc5n, 0x2f0b4a27n];
    for (const word of words.map(BigInt)) {
      a = ((a ^ word) * prime) % 2n ** 32n;
      b = ((b ^ word ^ (a >> 15n)) * prime) % 2n ** 32n;
    }
    expect(fingerprint(bases)).toBe([a, b].map((lane) => lane.toString(16).padStart(8, "0")).join(""));
  });

  test.each<[string, string, () => unknown]>([
    ["config", "domains: at least one is needed", () => createBases({ a: [] }, [])],
    [
      "config",
      "createBases: counts: 1 does not fit; it must be true or false",
      () => createBases({ a: [1] }, ["x"], { counts: 1 } as never),
    ],
    [
      "config",
      'basis "a": null does not fit; it must be numbers, one per domain or by name',
      () => createBases({ a: null } as never, ["x"]),
    ],
    [
      "config",
      'basis "a": domain "y" has -1; weights are finite and ≥ 0',
      () => createBases({ a: [1, -1] }, ["x", "y"]),
    ],
    [
      "config",
      'basis "a": domain "y" has undefined; weights are finite and ≥ 0',
      () => createBases({ a: [1, undefined] } as never, ["x", "y"]),
    ],
    [
      "config",
      'basis "a": there is no domain "zzzz"; there are 21',
      () => createBases({ a: { zzzz: 1 } }, named("d", 21)),
    ],
    [
      "config",
      `basis "a": there is no domain "zzzz"; the domains are ${named("d", 20).join(", ")}`,
      () => createBases({ a: { zzzz: 1 } }, named("d", 20)),
    ],
    [
      "config",
      'bases: an object does not keep the order of names that are whole numbers, such as "2"; give a Map',
      () => createBases({ "10": [1], x: [1], "2": [1] }, ["x"]),
    ],
    [
      "config",
      'basis "a": its weights sum to 1.0000015, not to 1; divide them by their sum (in a program, the option counts does)',
      () => createBases({ a: [1.0000015] }, ["x"]),
    ],
    [
      "config",
      'basis "b": its weights sum to 0.9999985, not to 1; divide them by their sum (in a program, the option counts does)',
      () => createBases({ a: [1], b: [0.9999985] }, ["x"]),
    ],
    [
      "config",
      'domains: two are called "b"',
      () => createBases({ a: [1, 0, 0, 0, 0] }, ["a", "b", "c", "b", "c"]),
    ],
    [
      "config",
      'domains: two are called "cafe\u0301"',
      () => createBases({ a: [1, 0] }, ["cafe\u0301", "caf\u00e9"]),
    ],
  ])("%s: %s", (code, message, call) => {
    expect(errorOf(call)).toMatchObject({ code, message });
  });

  test("shares may be off by a millionth, and are divided by their sum; names that are not whole numbers keep their order", () => {
    for (const off of [9e-7, -9e-7]) {
      const { values } = createBases({ a: [0.25 + off, 0.75] }, ["x", "y"]);
      expectNear(values, [(0.25 + off) / (1 + off), 0.75 / (1 + off)], 1e-15);
    }
    expect(createBases({ "01": [1], "-1": [1], "1.5": [1], "": [1], "9x": [1] }, ["x"]).names).toEqual([
      "01",
      "-1",
      "1.5",
      "",
      "9x",
    ]);
    // Given in any order, they are kept in the domains'.
    expect(createBases({ a: { y: 0.75, z: 0, x: 0.25 } }, ["x", "y", "z"])).toEqual({
      names: ["a"],
      domains: ["x", "y", "z"],
      offsets: Int32Array.of(0, 2),
      columns: Int32Array.of(0, 1),
      values: Float64Array.of(0.25, 0.75),
    });
  });

  test("refuses two domains with the same name", () => {
    expect(errorOf(() => createBases({ a: [1, 0] }, ["d", "d"])).message).toBe('domains: two are called "d"');
  });

  test.each([
    ["json", "", "line 1, column 1: a value expected, not the end"],
    ["json", "[]", "line 1: it is a list, not an object of bases"],
    ["json", '{\n"a": {"web": 1,\n}}', 'line 3, column 1: a name in quotes expected, not "}"'],
    ["json", '{"a": {"web": 1}}\n}', 'line 2, column 1: the end expected, not "}"'],
    ["json", '{"a":\n{"web": 01}}', 'line 2, column 9: a value expected, not "01"'],
    ["json", '{"a": {"web": "1"}}', 'line 1: basis "a": "1" is not a number'],
    ["json", '{"a": {"web"\n: 1', 'line 2, column 4: "," or "}" expected, not the end'],
    ["json", '{"a": 1}', 'line 1: basis "a": 1 does not fit; it must be numbers, one per domain or by name'],
    ["json", '{"a": [1, 0],\n"a": [1, 0]}', 'line 2, column 1: the name "a" appears twice in one object'],
    [
      "json",
      '{"a": {"web": 0.5,\n"web": 0.5}}',
      'line 2, column 1: the name "web" appears twice in one object',
    ],
    ["json", '{"a":\n[1]}', 'line 1: basis "a": 1 values for 2 domains'],
    ["json", '{"a": {\n"web": -1}}', 'line 2: basis "a": domain "web" has -1; weights are finite and ≥ 0'],
    ["json", '{"a": {"web": 1e999}}', "line 1, column 15: 1e999 is too large for a number"],
    ["json", '{"a": {\n\n"cod": 1}}', 'line 3: basis "a": there is no domain "cod"; did you mean "code"?'],
    [
      "csv",
      "basis,domain,x\na,web,1",
      'line 1: the header must be "basis,domain,weight", it is "basis,domain,x"',
    ],
    [
      "csv",
      "basis,domain,weight,x\na,web,1,1",
      'line 1: the header must be "basis,domain,weight", it is "basis,domain,weight,x"',
    ],
    ["csv", "basis,domain,weight\n  \na,web,x", 'line 3: the weight "x" is not a number'],
    ["json", '{"a": [\n-1,\n2]}', 'line 2: basis "a": domain "web" has -1; weights are finite and ≥ 0'],
    ["json", '{"a": [\n1,\n-1]}', 'line 3: basis "a": domain "code" has -1; weights are finite and ≥ 0'],
    [
      "json",
      '{"a": {\n"web": 2,\n"code": -1}}',
      'line 3: basis "a": domain "code" has -1; weights are finite and ≥ 0',
    ],
    ["csv", "", 'line 1: it is empty; the header must be "basis,domain,weight"'],
    ["csv", "a,web,1", 'line 1: the header must be "basis,domain,weight", it is "a,web,1"'],
    ["csv", "basis,domain,weight\na,web", "line 2: 2 fields where there should be 3 (basis, domain, weight)"],
    ["csv", "basis,domain,weight\n\na,web,0x1", 'line 3: the weight "0x1" is not a number'],
    ["csv", "basis,domain,weight\na,web,", 'line 2: the weight "" is not a number'],
    ["csv", 'basis,domain,weight\na,"web,1', "line 2: a quote is not closed or stands inside a field"],
    [
      "csv",
      "basis,domain,weight\na,wbe,1",
      'line 2: basis "a": there is no domain "wbe"; did you mean "web"?',
    ],
    ["csv", "basis,domain,weight\na,web,.5\na,web,.5", 'line 3: basis "a": domain "web" is given twice'],
    [
      "csv",
      "basis,domain,weight\na,web,-1",
      'line 2: basis "a": domain "web" has -1; weights are finite and ≥ 0',
    ],
  ] as const)("%s %j: %s", (format, text, message) => {
    const error = errorOf(() => parseBases(text, ["web", "code"], { format, source: "p.txt" }));
    expect(error).toMatchObject({ code: "data", message: `p.txt, ${message}` });
  });

  test("in CSV, a byte order mark, spaces around fields and blank lines have no effect; an error about missing domains does not blame the file", () => {
    const text = "\uFEFF Basis ,domain, WEIGHT\n \n p , web , 0.25 \n\t\np,code,+.75\r";
    expect(parseBases(text, ["web", "code"], { format: "csv" })).toEqual(
      createBases({ p: [0.25, 0.75] }, ["web", "code"]),
    );
    for (const format of ["json", "csv"] as const)
      expect(
        errorOf(() => parseBases(format === "csv" ? "basis,domain,weight" : "{}", [], { format })),
      ).toMatchObject({ code: "config", message: "domains: at least one is needed" });
  });

  test("an error about a whole basis names the file", () => {
    const read = (text: string): string =>
      errorOf(() => parseBases(text, ["web", "code"], { format: "json", source: "p.json" })).message;
    expect(read('{"a": [0.5, 0.4]}')).toMatch(/^p\.json: basis "a": its weights sum to 0\.9, not to 1/);
    expect(read('{"a": {}}')).toMatch(/^p\.json: basis "a": it has no weight/);
    expect(read("{}")).toBe("p.json: bases: at least one is needed");
  });
});

describe("the mixture of bases", () => {
  test("is Σ wⱼ pⱼ, on the simplex, and is written into the given array", () => {
    fc.assert(
      fc.property(withWeights, ([rows, w]) => {
        const bases = basesOf(rows);
        const p = dense(bases);
        const out = new Float64Array(bases.domains.length).fill(NaN);
        const alpha = mixtureOf(bases, w, out);
        expect(alpha).toBe(out);
        bases.domains.forEach((_, i) =>
          expectNear(
            alpha[i],
            w.reduce((sum, weight, j) => sum + weight * p[j][i], 0),
            1e-13,
          ),
        );
        expect(Math.abs(total(alpha) - 1)).toBeLessThan(1e-13);
        expect(mixtureOf(bases, w)).toEqual(alpha);
        // The same memory for weights and result.
        if (w.length !== alpha.length) return;
        const own = Float64Array.from(w);
        expect(mixtureOf(bases, own, own)).toEqual(alpha);
      }),
    );
    const integers: unknown = new Int32Array(1);
    expect(() => mixtureOf(createBases({ all: [1] }, ["a"]), [1], integers as Float64Array)).toThrow(/out: .* is not a Float64Array/); // prettier-ignore
  });

  test("with P = I equals w to the bit", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }).chain(simplex), (w) => {
        expect([...mixtureOf(identity(w.length), w)]).toEqual(w);
      }),
    );
  });

  test("refuses invalid weights, and does not change `out`", () => {
    const bases = basesOf([
      [1, 0],
      [1, 1],
    ]);
    const out = Float64Array.of(7, 7);
    for (const [w, message] of [
      [[1], "weights: 1 values for 2 bases"],
      [[1.5, -0.5], 'weights: basis "p1" has -0.5; weights are finite and ≥ 0'],
      [[NaN, 1], 'weights: basis "p0" has NaN; weights are finite and ≥ 0'],
      [[Infinity, -1], 'weights: basis "p0" has Infinity; weights are finite and ≥ 0'],
    ] as const)
      expect(errorOf(() => mixtureOf(bases, w, out))).toMatchObject({ code: "config", message });
    expect([...out]).toEqual([7, 7]);
    expect(errorOf(() => mixtureOf(bases, [1, 0], new Float64Array(3))).message).toBe(
      "out: 3 values for 2 domains",
    );
  });
});

describe("the proposal", () => {
  test("is a distribution for which every ratio is at most 1/((1 − λ)wⱼ + λ/N)", () => {
    fc.assert(
      fc.property(withWeights, fc.double({ min: 1e-3, max: 1, noNaN: true }), ([rows, w], defensive) => {
        const bases = basesOf(rows);
        const q = proposal(bases, w, { defensive });
        expect(Math.abs(total(q) - 1)).toBeLessThan(1e-12);
        dense(bases).forEach((row, j) => {
          const bound = 1 / ((1 - defensive) * w[j] + defensive / rows.length);
          expect(bound).toBeLessThanOrEqual((rows.length / defensive) * (1 + 1e-12));
          row.forEach((p, i) => {
            if (p > 0) expect(p / q[i]).toBeLessThanOrEqual(bound * (1 + 1e-12));
          });
        });
      }),
    );
  });

  test("is half the mean of the bases by default, and is written into the given array", () => {
    const out = new Float64Array(2);
    expect(proposal(identity(2), [1, 0], { out })).toBe(out);
    expect([...out]).toEqual([0.75, 0.25]);
    expect([...proposal(identity(2), [1, 0], { defensive: 0.2 })]).toEqual([0.9, 0.1]);
  });

  test("refuses an invalid share", () => {
    const bases = identity(2);
    for (const defensive of [0, -1, 1.1, NaN])
      expect(errorOf(() => proposal(bases, [0.5, 0.5], { defensive })).message).toMatch(
        /^proposal: defensive: /,
      );
  });
});

test("a basis that does not exist cannot be drawn from", () => {
  for (const j of [-1, 2, 0.5, NaN])
    expect(errorOf(() => basisChoice(identity(2), j)).message).toMatch(/^basisChoice: j: /);
  expect(basisChoice(identity(2), 1).at(0.3)).toBe(1);
});

/** Examples of a synthetic problem: domains have alignments of their own, examples noise and lengths. */
function problem(seed: number, k: number) {
  const next = random(seed);
  const own = Array.from({ length: k }, () => gaussian(next));
  return {
    next,
    own,
    draw(domain: number) {
      const tokens = 1 + Math.floor(next() * 30);
      return { domain, tokens, dot: tokens * own[domain] + Math.sqrt(tokens) * gaussian(next) };
    },
  };
}
type Example = ReturnType<ReturnType<typeof problem>["draw"]>;
const columnsOf = (batch: readonly Example[]) => ({
  domainOf: batch.map((e) => e.domain),
  tokens: batch.map((e) => e.tokens),
  dots: batch.map((e) => e.dot),
});

/** Examples of k domains; one without tokens has no loss and no gradient either. */
const labelled = (k: number) =>
  fc.array(
    fc
      .record({
        domain: fc.nat(k - 1),
        tokens: fc.nat(9),
        dot: fc.double({ min: -9, max: 9, noNaN: true }),
        loss: fc.double({ min: 0, max: 9, noNaN: true }),
        square: fc.double({ min: 0, max: 9, noNaN: true }),
      })
      .map((e) => (e.tokens === 0 ? { ...e, dot: 0, loss: 0, square: 0 } : e)),
    { maxLength: 25 },
  );

describe("alignments of all bases from one batch", () => {
  const cases = withWeights.chain(([rows, w]) =>
    fc.tuple(fc.constant(rows), fc.constant(w), labelled(rows[0].length)),
  );
  /** The examples that the proposal can draw. */
  const setup = (rows: number[][], w: number[], all: { domain: number; tokens: number }[]) => {
    const bases = basesOf(rows);
    const q = proposal(bases, w);
    return { bases, q, p: dense(bases), keep: all.map(({ domain }) => q[domain] > 0) };
  };

  test("equal the ratios computed densely, with losses, norms and effective sizes", () => {
    fc.assert(
      fc.property(cases, ([rows, w, all]) => {
        const { bases, q, p, keep } = setup(rows, w, all);
        const batch = all.filter((_, e) => keep[e]);
        const found = basisAlignments(bases, q, {
          ...columnsOf(batch),
          losses: batch.map((e) => e.loss),
          squaredNorms: batch.map((e) => e.square),
        });
        p.forEach((row, j) => {
          const used = batch.filter((e) => e.tokens > 0 && row[e.domain] > 0);
          const omega = used.map((e) => row[e.domain] / q[e.domain]);
          const mean = (value: (e: (typeof used)[number]) => number): number =>
            total(used.map((e, s) => omega[s] * value(e)));
          expect(found.tokens[j]).toBe(total(used.map((e) => e.tokens)));
          if (used.length === 0) {
            expect([found.alignments[j], found.standardErrors[j], found.effectiveSizes[j]]).toEqual([
              0,
              null,
              0,
            ]);
            expect([found.losses?.[j], found.norms?.[j]]).toEqual([0, 0]);
            return;
          }
          const size = mean((e) => Math.abs(e.dot)) / mean((e) => e.tokens);
          expectNear(found.alignments[j], mean((e) => e.dot) / mean((e) => e.tokens), 1e-9, size);
          expectNear(found.losses?.[j], mean((e) => e.loss) / mean((e) => e.tokens), 1e-9);
          // The alignments of single examples are per token; the given numbers are those of their sums.
          const square = mean((e) => e.square / e.tokens ** 2) / total(omega);
          expectNear((found.norms?.[j] ?? NaN) ** 2, square, 1e-9);
          const effective = total(omega) ** 2 / total(omega.map((o) => o * o));
          expectNear(found.effectiveSizes[j], effective, 1e-9);
          expect(found.effectiveSizes[j]).toBeLessThanOrEqual(used.length * (1 + 1e-12));
        });
        for (const array of [found.alignments, found.effectiveSizes, found.losses, found.norms])
          expect(array?.every(Number.isFinite)).toBe(true);
        for (const error of found.standardErrors)
          expect(error === null || (Number.isFinite(error) && error >= 0)).toBe(true);
      }),
    );
  });

  test("with P = I equal those of the domains, to the bit", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }).chain((k) => fc.tuple(simplex(k), labelled(k))),
        ([w, batch]) => {
          const found = basisAlignments(
            identity(w.length),
            proposal(identity(w.length), w),
            columnsOf(batch),
          );
          w.forEach((_, i) => {
            const own = batch.filter((e) => e.domain === i);
            const expected = domainAlignments(
              own.map((e) => e.dot),
              own.map((e) => e.tokens),
            );
            expect(found.alignments[i]).toBe(expected.alignment);
            if (expected.standardError === null) expect(found.standardErrors[i]).toBeNull();
            else expectNear(found.standardErrors[i], expected.standardError, 1e-12);
          });
        },
      ),
    );
  });

  test("the standard error is that of the delta method, with the influence of every example differentiated numerically", () => {
    fc.assert(
      fc.property(cases, ([rows, w, all]) => {
        const { bases, q, p, keep } = setup(rows, w, all);
        const batch = all.filter((e, i) => keep[i] && e.tokens > 0);
        const found = basisAlignments(bases, q, columnsOf(batch));
        p.forEach((row, j) => {
          const error = found.standardErrors[j];
          if (error === null) return;
          const ratio = (at: number, h: number): number => {
            const omega = batch.map((e, i) => (row[e.domain] / q[e.domain]) * (i === at ? 1 + h : 1));
            return (
              total(batch.map((e, i) => omega[i] * e.dot)) / total(batch.map((e, i) => omega[i] * e.tokens))
            );
          };
          const h = 1e-5;
          const influences = batch.map((_, i) => (ratio(i, h) - ratio(i, -h)) / (2 * h));
          const m = found.effectiveSizes[j];
          const expected = Math.sqrt((m / (m - 1)) * total(influences.map((x) => x * x)));
          expect(Math.abs(error - expected)).toBeLessThanOrEqual(1e-5 * (1 + expected));
        });
      }),
    );
  });

  test("there is no standard error if one example has almost all of the weight", () => {
    const bases = createBases({ p: { a: 1 - 1e-12, b: 1e-12 } }, ["a", "b"]);
    const of = (domainOf: number[]): number | null =>
      basisAlignments(bases, [0.5, 0.5], { domainOf, tokens: [1, 2], dots: [3, 5] }).standardErrors[0];
    expect(of([0, 1])).toBeNull();
    expect(of([0, 0])).toBeGreaterThan(0);
  });

  const six = basesOf([
    [4, 3, 2, 1, 0, 0, 0, 0],
    [0, 0, 1, 1, 1, 1, 0, 0],
    [0, 0, 0, 0, 0, 1, 3, 6],
    [1, 1, 1, 1, 1, 1, 1, 1],
    [0, 0, 0, 0, 0, 0, 0, 1],
    [8, 1, 0, 0, 0, 0, 0, 1],
  ]);
  const weights = [0.5, 0.2, 0.1, 0.1, 0.05, 0.05];

  test("agree with those from one batch per basis, within both standard errors", () => {
    const p = dense(six);
    const q = proposal(six, weights);
    const table = aliasTable(q);
    let worst = 0;
    for (let seed = 1; seed <= 5; seed++) {
      const { next, own, draw } = problem(seed, 8);
      const shared = basisAlignments(
        six,
        q,
        columnsOf(Array.from({ length: 6000 }, () => draw(table.at(next())))),
      );
      six.names.forEach((_, j) => {
        const choice = basisChoice(six, j);
        const direct = Array.from({ length: 3000 }, () => draw(choice.at(next())));
        const { alignment, standardError } = domainAlignments(
          direct.map((e) => e.dot),
          direct.map((e) => e.tokens),
        );
        const spread = Math.hypot(standardError ?? NaN, shared.standardErrors[j] ?? NaN);
        worst = Math.max(worst, Math.abs(shared.alignments[j] - alignment) / spread);
        // And with what it should be: lengths do not depend on the domain.
        const truth = total(p[j].map((share, i) => share * own[i]));
        worst = Math.max(worst, Math.abs(shared.alignments[j] - truth) / (shared.standardErrors[j] ?? NaN));
        expect(shared.effectiveSizes[j]).toBeGreaterThan(6000 * (weights[j] / 2 + 1 / 12) * 0.9);
      });
    }
    // The largest of 60 standard normals passes 4 once in 250 times.
    expect(worst).toBeLessThan(4);
    expect(worst).toBeGreaterThan(0.5);
  });

  test("their standard errors equal the spread of the estimates over many batches", () => {
    const q = proposal(six, weights);
    const table = aliasTable(q);
    const { next, draw } = problem(3, 8);
    const batches = 3000;
    const estimates = six.names.map((): number[] => []);
    const squares = six.names.map(() => 0);
    for (let b = 0; b < batches; b++) {
      const found = basisAlignments(
        six,
        q,
        columnsOf(Array.from({ length: 200 }, () => draw(table.at(next())))),
      );
      six.names.forEach((_, j) => {
        estimates[j].push(found.alignments[j]);
        squares[j] += (found.standardErrors[j] ?? 0) ** 2 / batches;
      });
    }
    estimates.forEach((values, j) => {
      const mean = total(values) / batches;
      const variance = total(values.map((v) => (v - mean) ** 2)) / (batches - 1);
      expect(squares[j] / variance).toBeGreaterThan(0.88);
      expect(squares[j] / variance).toBeLessThan(1.15);
    });
  });

  test("refuse arguments that do not fit", () => {
    const bases = identity(2);
    const one = { domainOf: [0], tokens: [1], dots: [1] };
    for (const [q, examples, message] of [
      [[1], one, "q: 1 values for 2 domains"],
      [[0.5, 0.5], { ...one, tokens: [1, 2] }, "1 dots for 2 tokens"],
      [[0.5, 0.5], { ...one, losses: [] }, "1 dots for 0 losses"],
      [[0.5, 0.5], { ...one, domainOf: [0, 1] }, "1 dots for 2 domainOf"],
      [[0.5, 0.5], { ...one, squaredNorms: [1, 2] }, "1 dots for 2 squaredNorms"],
      [[0.5, 0.5], { ...one, domainOf: [-1] }, "example 0 is of domain -1, but there are 2"],
      [[0.5, 0.5], { ...one, domainOf: [0.5] }, "example 0 is of domain 0.5, but there are 2"],
      [[0.5, 0.5], { ...one, domainOf: [NaN] }, "example 0 is of domain NaN, but there are 2"],
      [[0.5, 0.5], { ...one, domainOf: [2] }, "example 0 is of domain 2, but there are 2"],
      [
        [0, 1],
        one,
        'example 0 is of domain "d0", to which the proposal gives the weight 0; draw the examples with the weights q',
      ],
    ] as const)
      expect(errorOf(() => basisAlignments(bases, q, examples)).message).toBe(message);
  });
});

describe("a mixer over bases", () => {
  const rules: RuleOptions[] = [
    { name: "dga", normalise: "raw", eta: 0.3 },
    { name: "dga", normalise: "raw", eta: 0.3, beta: 1, floor: 0.01 },
    { name: "dga", normalise: "cosine" },
  ];
  test.each(rules)("with P = I has the same weights as Algorithm 1, bit for bit: %j", (rule) => {
    const k = 7;
    const domains = named("d", k);
    const bases = createBases(new Map(domains.map((d) => [d, { [d]: 1 }])), domains);
    const plain = createMixer({ domains, rule });
    const over = createMixer({ domains: bases.names, rule });
    let [a, b] = [plain.initial, over.initial];
    const { next, draw } = problem(9, k);
    for (let step = 0; step < 60; step++) {
      const alpha = mixtureOf(bases, currentWeights(b));
      expect([...alpha]).toEqual([...currentWeights(a)]);
      const q = proposal(bases, currentWeights(b));
      const choice = aliasTable(q);
      // Few enough that some domains are not drawn.
      const batch = Array.from({ length: 12 }, () => draw(choice.at(next())));
      const squares = batch.map((e) => 1 + e.dot ** 2);
      const byBasis = basisAlignments(bases, q, { ...columnsOf(batch), squaredNorms: squares });
      const byDomain = domains.map((_, i) => {
        const own = batch.filter((e) => e.domain === i);
        return domainAlignments(
          own.map((e) => e.dot),
          own.map((e) => e.tokens),
        );
      });
      a = update(plain, a, {
        alignments: byDomain.map((d) => d.alignment),
        norms: byBasis.norms ?? [],
        tokens: domains.map((_, i) => total(batch.filter((e) => e.domain === i).map((e) => e.tokens))),
        targetNorm: 2,
      });
      b = update(over, b, { ...byBasis, targetNorm: 2 });
      // A run that stops here and continues from the file.
      if (step % 20 === 7) b = restoreMixer(over, JSON.parse(JSON.stringify(b)));
    }
    expect(b).toEqual(a);
    expect([...currentWeights(b)]).not.toEqual([...currentWeights(over.initial)]);
  });

  test("finds the basis that equals the target, from shared batches that the sampler draws from 5,000 domains", () => {
    const k = 5000;
    const next = random(1);
    const rows = Array.from({ length: 6 }, () =>
      Array.from({ length: k }, () => (next() < 0.02 ? next() : 0)),
    );
    const bases = basesOf(rows);
    // The alignment of domain i is its weight in basis 2.
    const wanted = dense(bases)[2];
    const sampler = createSampler({
      domains: bases.domains.map((name) => ({ name, count: 2, tokensOf: () => 1 })),
      seed: 4,
    });
    const mixer = createMixer({
      domains: bases.names,
      rule: { name: "dga", normalise: "raw", eta: 30, beta: 1 },
    });
    let state = mixer.initial;
    for (let step = 0; step < 40; step++) {
      const q = proposal(bases, currentWeights(state));
      const draws = sampler.draw(sampler.prepare(q), 64);
      state = update(mixer, state, {
        ...basisAlignments(bases, q, {
          domainOf: draws.map((d) => d.domain),
          tokens: draws.map(() => 1),
          dots: draws.map((d) => wanted[d.domain]),
        }),
        targetNorm: 1,
      });
    }
    expect(currentWeights(state)[2]).toBeGreaterThan(0.95);
  });

  test("a signal that is not finite is refused with the name of the basis, and the state does not change", () => {
    const mixer = createMixer({ domains: ["mmlu", "code"], rule: { name: "dga", normalise: "raw" } });
    const bases = createBases({ mmlu: [1, 0], code: [0.5, 0.5] }, ["a", "b"]);
    const before = JSON.stringify(mixer.initial);
    const found = basisAlignments(bases, [0.5, 0.5], { domainOf: [1], tokens: [1], dots: [NaN] });
    expect(errorOf(() => update(mixer, mixer.initial, { ...found })).message).toMatch(
      /alignments of domain "code" is NaN/,
    );
    expect(JSON.stringify(mixer.initial)).toBe(before);
  });
});
