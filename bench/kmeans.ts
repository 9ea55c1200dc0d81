/**
 * k-means beside faiss and scikit-learn, on the same points and cores, in turns: seconds of a whole fit with the choice of the first centroids (random points in the
 * peers, k-means‖ here) and the last assignment, which faiss leaves out.
 *
 * Options: --rows 131072, --dim 256, --clusters 4096, --iterations 10, --rounds 3, --threads 2, --levels 64,64 (a tree in place of --clusters, without a peer), --peers faiss,sklearn, --python
 * PYTHON (has faiss-cpu or scikit-learn; else GRADMIX_PYTHON, else python3). Points are a mixture of normal distributions on the sphere, in a space whose directions have less and less variance, as embeddings of texts have.
 */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { init, shutdown } from "gradmix";
import { fitClusters, kMeans, type Points } from "gradmix/data";
import { key, threefry2x32 } from "#dist/tensor/rng.js";
import { readOptions } from "./_options.js";
import { type Peer, pythonOf, startPeer } from "./_peer.js";
import { median } from "./_timing.js";
import type { BenchOptions } from "./main.ts";

interface Fit {
  readonly seconds: number;
  /** Processor time of all threads. */
  readonly cpuSeconds: number;
  readonly meanSquare: number;
}

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, [
    ...["rows", "dim", "clusters", "iterations", "rounds", "threads", "levels", "peers", "python"],
  ]);
  const [rows, dim, clusters] = [
    read.count("rows", 131_072),
    read.count("dim", 256),
    read.count("clusters", 4096),
  ];
  const [iterations, rounds] = [read.count("iterations", 10), read.count("rounds", 3)];
  const threads = read.count("threads", availableParallelism());
  const levels = read.counts("levels", []);
  const points = embeddings(rows, dim);
  await init({ backend: "cpu", threads, vectorBits: "auto" });
  const shape = { node: process.version, rows, dim, iterations, threads };
  try {
    if (levels.length > 0) {
      const fits: Fit[] = [];
      for (let round = 0; round < rounds; round++)
        fits.push(
          await timed(async () => {
            await fitClusters(points, { levels, iterations });
            return NaN;
          }),
        );
      return { ...shape, levels, ...medians(fits), maxRssMiB: maxRss() };
    }
    return {
      ...shape,
      clusters,
      ...(await beside(read.text("peers") ?? "faiss,sklearn", read.text("python"))),
    };
  } finally {
    await shutdown();
  }

  async function beside(names: string, python: string | null): Promise<Record<string, unknown>> {
    const folder = mkdtempSync(join(tmpdir(), "gradmix-kmeans-"));
    const file = join(folder, "points.f32");
    const found: { readonly name: string; readonly peer: Peer }[] = [];
    try {
      writePoints(file, points);
      for (const name of names.split(",").filter((one) => one !== "none")) {
        const args = [name, file, dim, clusters, iterations, threads].map(String);
        const peer = await startPeer(pythonOf(python), "kmeans.py", args);
        if (peer === null) process.stderr.write(`bench kmeans: ${name} cannot be imported; it is left out\n`);
        else found.push({ name: `${name} ${String(peer.first["version"])}`, peer });
      }
      const own: Fit[] = [];
      const theirs = found.map((): Fit[] => []);
      for (let round = 0; round < rounds; round++) {
        own.push(
          await timed(async () => (await kMeans(points, { clusters, iterations, tolerance: 0 })).meanSquare),
        );
        for (const [i, { peer }] of found.entries()) theirs[i]?.push(fitOf(await peer.ask("fit")));
        process.stderr.write(`round ${round + 1} of ${rounds}\n`);
      }
      const ours = medians(own);
      const gigaflops = ({ seconds }: Fit): number =>
        (2 * rows * dim * clusters * iterations) / seconds / 1e9;
      return {
        gradmix: { ...ours, gigaflops: gigaflops(ours), maxRssMiB: maxRss() },
        ...Object.fromEntries(
          found.map(({ name }, i) => {
            const fit = medians(theirs[i] ?? []);
            const ratio = {
              throughput: fit.seconds / ours.seconds,
              perCpuSecond: fit.cpuSeconds / ours.cpuSeconds,
            };
            return [name, { ...fit, gigaflops: gigaflops(fit), oursToTheirs: ratio }];
          }),
        ),
      };
    } finally {
      for (const { peer } of found) peer.end();
      rmSync(folder, { recursive: true, force: true });
    }
  }
}

const fitOf = ({ seconds, cpuSeconds, meanSquare }: Readonly<Record<string, unknown>>): Fit => ({
  seconds: Number(seconds),
  cpuSeconds: Number(cpuSeconds),
  meanSquare: Number(meanSquare),
});

const maxRss = (): number => Math.round(process.resourceUsage().maxRSS / 1024);

async function timed(fit: () => Promise<number>): Promise<Fit> {
  const [began, used] = [performance.now(), process.cpuUsage()];
  const meanSquare = await fit();
  const { user, system } = process.cpuUsage(used);
  return { seconds: (performance.now() - began) / 1000, cpuSeconds: (user + system) / 1e6, meanSquare };
}

function medians(fits: readonly Fit[]): Fit {
  return {
    seconds: median(fits.map(({ seconds }) => seconds)),
    cpuSeconds: median(fits.map(({ cpuSeconds }) => cpuSeconds)),
    meanSquare: median(fits.map(({ meanSquare }) => meanSquare)),
  };
}

/** Points of a mixture of 500 topics, of unit length. */
function embeddings(rows: number, dim: number): Points {
  const [k0, k1] = key(1);
  // Sums of four even numbers are nearly normal.
  const normal = (stream: number, at: number): number => {
    const [a, b] = threefry2x32(k0, k1, at, stream);
    return ((a & 0xffff) + (a >>> 16) + (b & 0xffff) + (b >>> 16)) / 37_837 - 3.4641;
  };
  const scales = Float64Array.from({ length: dim }, (_, d) => (1 + d / 8) ** -0.5);
  const topics = Float64Array.from({ length: 500 * dim }, (_, at) => normal(1, at) * (scales[at % dim] ?? 0));
  const values = new Float32Array(rows * dim);
  for (let i = 0; i < rows; i++) {
    const topic = ((threefry2x32(k0, k1, i, 2)[0] >>> 8) % 500) * dim;
    let square = 0;
    for (let d = 0; d < dim; d++) {
      const value = (topics[topic + d] ?? 0) + normal(0, i * dim + d) * (scales[d] ?? 0);
      values[i * dim + d] = value;
      square += value * value;
    }
    for (let at = i * dim; at < (i + 1) * dim; at++) values[at] = (values[at] ?? 0) / Math.sqrt(square);
  }
  return { values, dim };
}

function writePoints(path: string, { values }: Points): void {
  const file = openSync(path, "w");
  const bytes = new Uint8Array(values.buffer);
  for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at, Math.min(2 ** 28, bytes.length - at));
  closeSync(file);
}
