/** Without a bundler: the published modules through an import map, and files at given URLs. */
import { init, matmul, ones, scope, shutdown } from "gradmix";
import { createTrainer } from "gradmix/dga";
import { createGPT } from "gradmix/nn";
import { refusal, report } from "./page.js";

const place = (name) => new URL(`/elsewhere/${name}`, location.href);
const kernels = { relaxed: place("kernels-relaxed.wasm"), plain: place("kernels-plain.wasm").href };

/** A product of ones, large enough for all threads. */
async function product(options) {
  const lines = [];
  const backend = await init({ backend: "cpu", log: (line) => lines.push(line), ...options });
  const { threads, simd } = backend.capabilities;
  const data = await scope(() => matmul(ones([300, 200]), ones([200, 300]))).data();
  await shutdown();
  return { right: data.every((x) => x === 200), threads, simd, lines };
}

const started = (urls) => refusal(init({ backend: "cpu", threads: 2, urls }));

try {
  await report({
    cores: navigator.hardwareConcurrency,
    entries: [typeof createTrainer, typeof createGPT],
    beside: await product({}),
    given: await product({ urls: { ...kernels, worker: place("worker-browser.js") } }),
    plain: await product({ simd: "plain", urls: kernels }),
    missingKernels: await started({ relaxed: "/nowhere.wasm" }),
    notKernels: await started({ relaxed: "/app/page.js" }),
    missingWorker: await started({ worker: "/nowhere.js" }),
    foreignWorker: await started({ worker: "https://example.com/worker.js" }),
    brokenWorker: await started({ worker: "data:text/javascript,throw new Error('planned')" }),
    withoutWorker: await product({ urls: { worker: "/nowhere.js" } }),
  });
} catch (error) {
  await report({ error: error.stack });
}
