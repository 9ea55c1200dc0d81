// @ts-check
/**
 * A process that keeps vitest loaded and runs one test file per request, each in a fresh process:
 * `{ file, ids, env }` → `{ passed, why, tests }`. `ids` selects tests of the file; null means all of them.
 */
import { createVitest } from "vitest/node";

const [root = ".", bail = "0"] = process.argv.slice(2);
process.chdir(root);
const vitest = await createVitest(
  "test",
  {
    root,
    watch: false,
    reporters: [{}],
    setupFiles: [`${root}/scripts/mutate/setup.mjs`],
    maxWorkers: 1,
    bail: Number(bail),
    cache: false,
  },
  { cacheDir: `${root}/.cache/vite` },
);
await vitest.standalone();
const specifications = await vitest.globTestSpecifications();
const send = (/** @type {unknown} */ message) => process.send?.(message);

process.on("disconnect", () => process.exit());
/** @param {{ file: string, ids: string[] | null, env: Record<string, string> }} request */
async function answer({ file, ids, env }) {
  Object.assign(process.env, env);
  const path = `${root}/${file}`;
  const specification =
    ids === null
      ? specifications.find(({ moduleId }) => moduleId === path)
      : vitest.getRootProject().createSpecification(path, { testIds: ids });
  if (specification === undefined) throw new Error(`${file}: vitest does not know this file`);
  const run = await vitest.runTestSpecifications([specification]);
  // Vitest gives back the modules of earlier runs too.
  const testModules = run.testModules.filter(({ moduleId }) => moduleId === path);
  const tests = testModules.flatMap((module) =>
    [...module.children.allTests()].map((test) => ({
      id: test.id,
      name: test.fullName,
      state: test.result().state,
      ms: test.diagnostic()?.duration ?? 0,
    })),
  );
  const errors = [...testModules.flatMap((module) => module.errors()), ...run.unhandledErrors];
  const failed = tests.find(({ state }) => state === "failed");
  const why = failed?.name ?? (errors.length > 0 ? `error: ${textOf(errors[0])}` : null);
  return { passed: why === null, why, tests };
}

/** @param {unknown} error */
const textOf = (error) => (error instanceof Error ? error.message : JSON.stringify(error));

process.on("disconnect", () => process.exit());
process.on("message", (/** @type {Parameters<typeof answer>[0]} */ request) => {
  answer(request).then(send, (error) => send({ passed: false, why: `error: ${textOf(error)}`, tests: [] }));
});
send({ ready: specifications.map(({ moduleId }) => moduleId.slice(root.length + 1)) });
