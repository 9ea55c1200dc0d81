// @ts-check
/** Vitest's setup file of a mutation run, which records the mutants that each test reaches. */
import { writeFileSync } from "node:fs";
import fc from "fast-check";
import { afterAll, afterEach, beforeEach } from "vitest";

// The first counterexample kills the mutant, so it need not be shrunk.
fc.configureGlobal({ endOnFailure: true });

const folder = process.env["GRADMIX_MUTANT_COVERAGE"];
if (folder !== undefined) {
  process.env["GRADMIX_MUTANT_HOST"] = String(process.pid);
  /** Mutants by the id of the test that reached them; "" stands for code outside of tests: loading, and hooks of the whole file. @type {Map<string, number[]>} */
  const reached = new Map();
  /** @param {string} test */
  const take = (test) => {
    const ids = /** @type {any} */ (globalThis).gradmixMutants?.() ?? [];
    reached.set(test, [...(reached.get(test) ?? []), ...ids]);
  };
  beforeEach(({ task }) => {
    take("");
    process.env["GRADMIX_MUTANT_TEST"] = task.id;
  });
  afterEach(({ task }) => {
    take(task.id);
    delete process.env["GRADMIX_MUTANT_TEST"];
  });
  afterAll(() => {
    take("");
    for (const [i, [test, ids]] of [...reached].entries())
      writeFileSync(`${folder}/test-${i}.json`, JSON.stringify({ test, ids }));
  });
}
