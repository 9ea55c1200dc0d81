/**
 * The file `mutant.js` of the instrumented package. It knows which mutant is active in this process and, if asked, records which ones are
 * reached. Like the core, it imports no Node module.
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
  /** Returns the mutants that were reached since the last call, for the test that runs in this process. */
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
