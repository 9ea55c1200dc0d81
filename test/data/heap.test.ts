/** The heap of merges in long pieces is a priority queue. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { numberHeap } from "#dist/data/bpe.js";

test("returns the least element, whatever the order and the capacity", () => {
  // null takes one out.
  const steps = fc.array(fc.option(fc.nat(20), { freq: 3 }), { maxLength: 80 });
  fc.assert(
    fc.property(fc.nat(8), steps, (capacity, program) => {
      const heap = numberHeap(capacity);
      const held: number[] = [];
      const takeOut = (): void => {
        held.sort((a, b) => a - b);
        expect(heap.pop()).toBe(held.shift() ?? -1);
      };
      for (const step of program) {
        if (step === null) takeOut();
        else {
          heap.push(step);
          held.push(step);
        }
      }
      while (held.length > 0) takeOut();
      takeOut();
    }),
    { numRuns: 300 },
  );
});
