/** The kinds of options. Each checks its values. */
import { type CombinatorOptions, combinatorsFrom } from "../../dga/combinators/index.ts";
import type { NumberByName } from "../train-config.ts";
import {
  type GivenBases,
  checkBytes,
  checkByName,
  checkChoice,
  checkDomains,
  checkFile,
  checkGlobs,
  checkNumber,
  checkObject,
  checkObjects,
  checkShares,
  checkSwitch,
  checkText,
} from "../values.ts";
import type { Takes } from "./spec.ts";

interface Bounds {
  readonly min: number;
  readonly max: number;
  readonly openMin?: boolean;
  readonly openMax?: boolean;
}

export function integer(min: number, max: number = 2 ** 31): Takes<number> {
  const kind = { type: "integer", min, max } as const;
  return { ...kind, check: (value, label) => checkNumber(kind, value, label) };
}

export function decimal(bounds: Bounds): Takes<number> {
  const kind = { type: "number", ...bounds } as const;
  return { ...kind, check: (value, label) => checkNumber(kind, value, label) };
}

/** A number from 0 to 1. */
export function share(ends: Pick<Bounds, "openMax"> = {}): Takes<number> {
  return decimal({ min: 0, max: 1, ...ends });
}

export function bytes(bounds: Pick<Bounds, "min" | "max">): Takes<number> {
  const kind = { type: "bytes", ...bounds } as const;
  return { ...kind, check: (value, label) => checkBytes(kind, value, label) };
}

export function choice<C extends string>(choices: readonly C[]): Takes<C> {
  return { type: "choice", choices, check: (value, label) => checkChoice(choices, value, label) };
}

export const text: Takes<string> = { type: "text", check: checkText };
export const toggle: Takes<boolean> = { type: "switch", check: checkSwitch };
export const globs: Takes<string[]> = { type: "globs", check: checkGlobs };
/** Names are checked where they are read; `gradmix mix` allows any name. */
export const domains: Takes<ReadonlyMap<string, string[]>> = {
  type: "domains",
  check: (value, label) => checkDomains(value, label, { anyName: true }),
};

/** One number for all domains, or numbers by name. */
export function forAllOrByName(bounds: Bounds): Takes<NumberByName> {
  const kind = { type: "byName", sign: "=", all: true, ...bounds } as const;
  return { ...kind, check: (value, label) => checkByName(kind, value, label) };
}

/** Upper limits by name. */
export function limitsByName(bounds: Bounds): Takes<ReadonlyMap<string, number>> {
  const kind = { type: "byName", sign: "<=", all: false, ...bounds } as const;
  return {
    ...kind,
    check(value, label) {
      const limits = checkByName(kind, value, label);
      return typeof limits === "number" ? new Map([["*", limits]]) : limits;
    },
  };
}

export function shares({ sumsToOne }: { readonly sumsToOne: boolean }): Takes<ReadonlyMap<string, number>> {
  return { type: "shares", sumsToOne, check: (value, label) => checkShares(sumsToOne, value, label) };
}

/** The path of a file of bases, or the bases. */
export const basesFile: Takes<string | GivenBases> = { type: "file", check: checkFile };

export const jsonObject: Takes<Record<string, unknown>> = {
  type: "json",
  shape: "object",
  check: checkObject,
};

export const combinatorList: Takes<CombinatorOptions[]> = {
  type: "json",
  shape: "list",
  check: (value, label) => combinatorsFrom(checkObjects(value, label)),
};
