/** Reads and checks the options of a benchmark. An unknown option or an invalid value is an error of one line. */
import { GradmixError } from "gradmix";
import type { BenchOptions } from "./main.ts";

export interface OptionReader {
  /** A whole number, `least` (1) or more. */
  count(name: string, otherwise: number, least?: number): number;
  /** Whole numbers of 1 or more, separated by commas. */
  counts(name: string, otherwise: readonly number[]): number[];
  /** A number above 0. */
  positive(name: string, otherwise: number): number;
  /** Some of `values`, separated by commas; all of them when it was not given. */
  names(name: string, values: readonly string[]): string[];
  choice<V extends string>(name: string, values: readonly V[], otherwise: V): V;
  /** The option --vector-bits of the cpu backend. */
  vectorBits(): 128 | 256 | "auto";
  /** Whether an option without a value was given. */
  flag(name: string): boolean;
  /** A text; null when it was not given. */
  text(name: string): string | null;
}

/** `known`: the benchmark's options; `--json` is everyone's. */
export function readOptions(options: BenchOptions, known: readonly string[]): OptionReader {
  for (const name of Object.keys(options))
    if (name !== "json" && !known.includes(name))
      throw new GradmixError(
        "config",
        `there is no option --${name}; there are --${[...known, "json"].join(", --")}`,
      );
  const text = (name: string): string | null => {
    const value = options[name];
    if (value === true) throw new GradmixError("config", `--${name}: needs a value`);
    return value ?? null;
  };
  const number = (name: string, value: string, fits: (x: number) => boolean, what: string): number => {
    const x = value.trim() === "" ? NaN : Number(value);
    if (!fits(x)) throw new GradmixError("config", `--${name}: "${value}" is not ${what}`);
    return x;
  };
  const whole = (name: string, value: string, least: number): number =>
    number(name, value, (x) => Number.isSafeInteger(x) && x >= least, `a whole number of ${least} or more`);
  const choice = <V extends string>(name: string, values: readonly V[], otherwise: V): V => {
    const value = text(name);
    if (value === null) return otherwise;
    const found = values.find((one) => one === value);
    if (found === undefined)
      throw new GradmixError("config", `--${name}: "${value}" is none of ${values.join(", ")}`);
    return found;
  };
  return {
    text,
    choice,
    vectorBits: () => {
      const bits = choice("vector-bits", ["auto", "128", "256"], "auto");
      return bits === "auto" ? bits : bits === "256" ? 256 : 128;
    },
    flag: (name) => {
      const value = options[name];
      if (value !== undefined && value !== true)
        throw new GradmixError("config", `--${name}: takes no value`);
      return value !== undefined;
    },
    count: (name, otherwise, least = 1) => {
      const value = text(name);
      return value === null ? otherwise : whole(name, value, least);
    },
    counts: (name, otherwise) =>
      text(name)
        ?.split(",")
        .map((part) => whole(name, part, 1)) ?? [...otherwise],
    positive: (name, otherwise) => {
      const value = text(name);
      return value === null
        ? otherwise
        : number(name, value, (x) => x > 0 && Number.isFinite(x), "a number above 0");
    },
    names: (name, values) => {
      const chosen = text(name)?.split(",") ?? [...values];
      const unknown = chosen.find((one) => !values.includes(one));
      if (unknown !== undefined)
        throw new GradmixError("config", `--${name}: "${unknown}" is none of ${values.join(", ")}`);
      return chosen;
    },
  };
}
