/**
 * A program of a user of the package. It calls at least one function of each entry point and checks its result. scripts/check-package.mjs compiles it twice, to a
 * module and to CommonJS (where imports become calls of `require`), and runs both.
 */
import { init, shutdown, square, sum, tensor } from "gradmix";
import { byteTokenizer } from "gradmix/data";
import { rules, uniformWeights } from "gradmix/dga";
import { exportMixture, mixtureOfRun } from "gradmix/export";
import { createGPT, parameterCount } from "gradmix/nn";
import { readParameters, writeParameters } from "gradmix/node";
import { checkRule } from "gradmix/testing";

function equal(what: string, found: unknown, expected: unknown): void {
  if (found !== expected) throw new Error(`${what}: ${String(found)}, not ${String(expected)}`);
}

async function main(): Promise<void> {
  const backend = await init({ backend: "cpu", threads: 1 });
  equal("gradmix", await sum(square(tensor([3, 4]))).item(), 25);
  equal("gradmix: backend", backend.name, "cpu");

  const config = { vocabSize: byteTokenizer().vocabSize, dim: 8, layers: 1, heads: 1, context: 4 };
  const [model, other] = [createGPT(config), createGPT(config, { seed: 2 })];
  equal("gradmix/data", byteTokenizer().decode(byteTokenizer().encode("é")), "é");
  equal("gradmix/nn", parameterCount(config), parameterCount(model.config));

  await writeParameters("parameters.safetensors", model.parameters);
  readParameters("parameters.safetensors", other.parameters);
  const first = async ({ parameters }: typeof model): Promise<number> =>
    (await parameters.list[0]?.data())?.[0] ?? NaN;
  equal("gradmix/node", await first(other), await first(model));
  await shutdown();

  equal("gradmix/dga", uniformWeights(4)[3], 0.25);
  equal("gradmix/testing", checkRule(() => rules.uniform()).length > 0, true);

  equal("gradmix/export", typeof mixtureOfRun, "function");
  const domain = { tokens: 1000, documentTokens: null };
  const { files } = exportMixture(
    {
      domains: [
        { ...domain, name: "web", weight: 0.25, paths: ["web"] },
        { ...domain, name: "code", weight: 0.75, paths: ["code"] },
      ],
      stages: null,
      tokens: 2000,
      context: 8,
      batch: 2,
      repetitions: null,
      metrics: new Map(),
      source: { gradmix: "0", run: "made", step: 1, rule: "dga", weights: "final" },
    },
    { format: "csv" },
  );
  equal("gradmix/export", files[0]?.text.includes("code"), true);
}

main().then(
  () => process.stdout.write("every entry point works\n"),
  (error: unknown) => {
    process.stderr.write(`${String(error)}\n`);
    process.exitCode = 1;
  },
);
