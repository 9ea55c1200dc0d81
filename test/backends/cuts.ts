/**
 * Sizes around every block, tile and share into which a backend divides its work, from the constants of the backends. `kernels.test.ts` checks that the
 * cases use every constant.
 */
import * as cpu from "#dist/backends/cpu/blocks.js";
import * as webgpu from "#dist/backends/webgpu/blocks.js";

const blocks = { cpu, webgpu };
type Family = keyof typeof blocks;

const used = new Set<string>();

/** The constant itself. */
export function block<F extends Family>(family: F, name: keyof (typeof blocks)[F] & string): number {
  used.add(`${family}: ${name}`);
  return Number(blocks[family][name]);
}

/** One less than a block, the block, one more, and past two of them. */
export const around = (size: number): number[] =>
  [size - 1, size, size + 1, 2 * size + 1].filter((n) => n > 0);

/** The same of the constant of that name, or of `times` of it. */
export const past = <F extends Family>(
  family: F,
  name: keyof (typeof blocks)[F] & string,
  times = 1,
): number[] => around(times * block(family, name));

/** Constants that no call of `block` or `past` has named so far. */
export const unused = (): string[] =>
  Object.entries(blocks)
    .flatMap(([family, constants]) => Object.keys(constants).map((name) => `${family}: ${name}`))
    .filter((name) => !used.has(name));
