/**
 * A training step with 1 to 16 threads: predicted from the time of each kernel on one thread, the serial part and the cost of starting a launch on other threads
 * (`_threads.ts`), and measured for the given numbers of threads. `serialShare` is the part of the step on one thread that more threads do not shorten; its kernels are listed.
 *
 * Options: --model mixture|small|tiny (mixture), --measured 1,2, --steps N (20).
 */
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { cpuBackend, startMachine } from "#dist/backends/cpu/index.js";
import { PARALLEL_WORK } from "#dist/backends/cpu/runtime.js";
import { shapeOf } from "./_models.js";
import { readOptions } from "./_options.js";
import { plainStep } from "./_step.js";
import { type KernelWork, predictedSeconds, serialSeconds, type StepWork } from "./_threads.js";
import { median } from "./_timing.js";
import type { BenchOptions } from "./main.ts";

const MOST = 16;

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["model", "measured", "steps"]);
  const name = read.text("model") ?? "mixture";
  const steps = read.count("steps", 20);
  const work = await workOf(name, steps);
  const measured = new Map<number, number>();
  for (const threads of read.counts("measured", [1, 2]))
    measured.set(threads, await secondsWith(name, threads, steps));
  const one = predictedSeconds(work, 1);
  return {
    node: process.version,
    model: name,
    hostMilliseconds: 1000 * work.host,
    handOverMicroseconds: 1e6 * work.handOver,
    serialShare: serialSeconds(work) / one,
    threads: Array.from({ length: MOST }, (_, i) => {
      const predicted = predictedSeconds(work, i + 1);
      const seconds = measured.get(i + 1);
      return {
        threads: i + 1,
        predictedMilliseconds: 1000 * predicted,
        predictedSpeedup: one / predicted,
        measuredMilliseconds: seconds === undefined ? null : 1000 * seconds,
      };
    }),
    serialKernels: work.kernels
      .filter(({ alone }) => alone > 0)
      .toSorted((a, b) => b.alone - a.alone)
      .map(({ kernel, launches, alone }) => ({
        kernel,
        launches,
        milliseconds: 1000 * alone,
        share: alone / one,
      })),
  };
}

/** Medians over the steps of what each kernel takes on one thread. */
async function workOf(model: string, steps: number): Promise<StepWork> {
  const { machine, capabilities } = await startMachine({ threads: 1, vectorBits: "auto" });
  const launches = new Map<string, { launches: number; tasks: number; shared: number[]; alone: number[] }>();
  let at = 0;
  const backend = cpuBackend(
    {
      ...machine,
      launch(launch) {
        const began = performance.now();
        machine.launch(launch);
        const took = (performance.now() - began) / 1000;
        const shares = launch.tasks > 1 && launch.work >= PARALLEL_WORK;
        const key = `${launch.entry ?? launch.kernel}${shares ? "" : ", alone"}`;
        let entry = launches.get(key);
        if (entry === undefined)
          launches.set(key, (entry = { launches: 0, tasks: 0, shared: [], alone: [] }));
        entry.launches++;
        entry.tasks += launch.tasks;
        const times = shares ? entry.shared : entry.alone;
        times[at] = (times[at] ?? 0) + took;
      },
    },
    capabilities,
  );
  setCurrentMemory(backend);
  const step = plainStep(shapeOf(model));
  for (let i = 0; i < 3; i++) await step();
  launches.clear();
  const hosts: number[] = [];
  for (; at < steps; at++) {
    const began = performance.now();
    await step();
    const all = (performance.now() - began) / 1000;
    hosts.push(
      all - [...launches.values()].reduce((sum, e) => sum + (e.shared[at] ?? 0) + (e.alone[at] ?? 0), 0),
    );
  }
  await backend.dispose();
  const kernels: KernelWork[] = [...launches].map(([kernel, e]) => ({
    kernel,
    launches: e.launches / steps,
    tasks: e.tasks / steps,
    shared: e.shared.length === 0 ? 0 : median(e.shared),
    alone: e.alone.length === 0 ? 0 : median(e.alone),
  }));
  return { kernels, host: median(hosts), handOver: await handOver() };
}

/** Returns the time of a launch of two tasks with hardly any work, on two threads. */
async function handOver(): Promise<number> {
  const { machine } = await startMachine({ threads: 2, vectorBits: "auto" });
  const times: number[] = [];
  for (let i = 0; i < 2000; i++) {
    const began = performance.now();
    machine.launch({ kernel: "microPeak", tasks: 2, slots: { rounds: 1 }, scratch: 1 << 16, work: Infinity });
    times.push((performance.now() - began) / 1000);
  }
  machine.stop();
  await Promise.all(machine.workers.map((worker) => worker.stop()));
  return median(times);
}

async function secondsWith(model: string, threads: number, steps: number): Promise<number> {
  const { machine, capabilities } = await startMachine({ threads, vectorBits: "auto" });
  const backend = cpuBackend(machine, capabilities);
  setCurrentMemory(backend);
  const step = plainStep(shapeOf(model));
  for (let i = 0; i < 3; i++) await step();
  const times: number[] = [];
  for (let i = 0; i < steps; i++) {
    const began = performance.now();
    await step();
    times.push((performance.now() - began) / 1000);
  }
  await backend.dispose();
  return median(times);
}
