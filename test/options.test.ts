import {
  boolean,
  callback,
  checkOptions,
  integerIn,
  numberIn,
  oneOf,
  orNull,
  required,
  string,
  unchecked,
} from "#dist/options.js";
import fc from "fast-check";
import { expect, test } from "vitest";

interface Options {
  readonly beta?: number;
  readonly steps: number;
  readonly preset?: "llama" | "gpt2";
  readonly seed?: number | null;
  readonly quiet?: boolean;
  readonly label?: string;
  readonly log?: () => void;
  readonly rest?: unknown;
}

const check = (options: unknown): void =>
  checkOptions<Options>("make", options as Options, {
    beta: numberIn({ min: 0, max: 1, openMax: true }),
    steps: required(integerIn(1)),
    preset: oneOf("llama", "gpt2"),
    seed: orNull(integerIn(0)),
    quiet: boolean,
    label: string,
    log: callback,
    rest: unchecked,
  });

const refusal = (options: unknown): string => {
  try {
    check(options);
  } catch (error) {
    expect(error).toMatchObject({ name: "GradmixError", code: "config" });
    return (error as Error).message;
  }
  return "accepted";
};

test("valid options are accepted, and undefined stands for the default", () => {
  expect(refusal({ steps: 1 })).toBe("accepted");
  expect(
    refusal({
      steps: 3,
      beta: 0,
      preset: "gpt2",
      seed: null,
      quiet: false,
      label: "",
      log: () => {},
      rest: 5,
    }),
  ).toBe("accepted");
  expect(refusal({ steps: 1, beta: undefined, preset: undefined })).toBe("accepted");
});

test("invalid options are refused with the function, the option and the value", () => {
  expect(refusal(null)).toBe("make: the options are null, not an object");
  expect(refusal([])).toBe("make: the options are a list, not an object");
  expect(refusal({ steps: 1, bta: 0.5 })).toBe('make: there is no option "bta"; did you mean "beta"?');
  expect(refusal({})).toBe("make: steps is missing");
  expect(refusal({ steps: undefined })).toBe("make: steps is missing");
  expect(refusal({ steps: 2.5 })).toBe("make: steps: 2.5 does not fit; it must be an integer of at least 1");
  expect(refusal({ steps: 1, beta: 1 })).toBe(
    "make: beta: 1 does not fit; it must be at least 0 and less than 1",
  );
  expect(refusal({ steps: 1, beta: "0" })).toContain('beta: "0" does not fit');
  expect(refusal({ steps: 1, preset: "llamma" })).toBe(
    'make: preset: "llamma" is not known; did you mean "llama"?',
  );
  expect(refusal({ steps: 1, preset: 7 })).toBe(
    'make: preset: 7 is not known; it must be one of "llama", "gpt2"',
  );
  expect(refusal({ steps: 1, quiet: 1 })).toContain("quiet: 1 does not fit; it must be true or false");
  expect(refusal({ steps: 1, log: "x" })).toContain('log: "x" does not fit; it must be a function');
  expect(refusal({ steps: 1, label: 1 })).toContain("label: 1 does not fit; it must be a string");
});

test("numberIn accepts only finite numbers, and its limits if they are included", () => {
  const fits = (range: Parameters<typeof numberIn>[0], value: unknown): boolean => {
    try {
      numberIn(range)("x", value);
      return true;
    } catch {
      return false;
    }
  };
  for (const bad of [NaN, Infinity, -Infinity, "1", null, {}, 1n])
    expect(fits({}, bad), typeof bad).toBe(false);
  fc.assert(
    fc.property(
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      fc.boolean(),
      fc.boolean(),
      (edge, openMin, openMax) => {
        expect(fits({}, edge)).toBe(true);
        expect(fits({ min: edge, openMin }, edge)).toBe(!openMin);
        expect(fits({ max: edge, openMax }, edge)).toBe(!openMax);
      },
    ),
  );
});
