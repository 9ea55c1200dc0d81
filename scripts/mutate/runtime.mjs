/**
 * Goes into the instrumented package as `mutant.js`: which mutant is active in this process, or, when it is asked, which ones are
 * reached. Loads no Node module, as the core does not.
 */
const env = globalThis.process?.env ?? {};
const active = Number(env.GRADMIX_MUTANT ?? -1);
const folder = env.GRADMIX_MUTANT_COVERAGE;
const reached = new Set();

const note = (id) => {
  reached.add(id);
  return false;
};

export const __mutant = folder === undefined ? (id) => id === active : note;

if (folder !== undefined) {
  /** What was reached since the last call: for the test that runs in this process. */
  globalThis.gradmixMutants = () => {
    const ids = [...reached];
    reached.clear();
    return ids;
  };
  // A process that a test has started.
  if (env.GRADMIX_MUTANT_HOST !== String(process.pid))
    process.on("exit", () => {
      const { writeFileSync } = process.getBuiltinModule("node:fs");
      const name = `${process.pid}-${Math.random()}.json`;
      writeFileSync(
        `${folder}/${name}`,
        JSON.stringify({ test: env.GRADMIX_MUTANT_TEST ?? "", ids: [...reached] }),
      );
    });
}
