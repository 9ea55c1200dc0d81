/**
 * Sizes around every block, tile and share into which a backend divides its work, from the constants of the backends. `kernels.test.ts` checks that the
 * cases use every constant.
 */
import * as cpu from "#dist/backends/cpu/blocks.js";
import * as webgpu from "#dist/backends/webgpu/blocks.js";

const blocks = { cpu, webgpu };
type Family = keyof typeof blocks;

const used = new Set<string>();

/** Returns the constant with this name. */
export function block<F extends Family>(family: F, name: keyof (typeof blocks)[F] & string): number {
  used.add(`${family}: ${name}`);
  return Number(blocks[family][name]);
}

/** Sizes around a block: one less, the block itself, one more, and more than two blocks. */
export const around = (size: number): number[] =>
  [size - 1, size, size + 1, 2 * size + 1].filter((n) => n > 0);

/** Sizes around the constant with this name, or around `times` it. */
export const past = <F extends Family>(
  family: F,
  name: keyof (typeof blocks)[F] & string,
  times = 1,
): number[] => around(times * block(family, name));

/** Returns the constants that no call of `block` or `past` has named so far. */
export const unused = (): string[] =>
  Object.entries(blocks)
    .flatMap(([family, constants]) => Object.keys(constants).map((name) => `${family}: ${name}`))
    .filter((name) => !used.has(name));
