/**
 * Exported files as the tools themselves read them: with their own code if it is installed for Python (GRADMIX_PYTHON, or python3), otherwise with
 * PyYAML or Python's json and csv.
 */
import { exportFormats, exportMixture, type Mixture } from "gradmix/export";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectNear } from "../near.ts";
import { readers } from "./readers.ts";
import { tricky } from "./mixtures.ts";

const python = process.env["GRADMIX_PYTHON"] ?? "python3";
const script = resolve(import.meta.dirname, "read_back.py");
let folder = "";
let found: Readonly<
  Record<string, { readonly by?: string; readonly weights?: [string, number][]; readonly skip?: string }>
> = {};
let missing: string | null = null;

/** Names that each format can hold, the trickiest first. */
function mixtureFor(name: string): Mixture {
  const names = tricky.filter((domain) => {
    if (name === "llama-factory") return !domain.includes(",") && !/^[\s\u0085]|[\s\u0085]$/.test(domain);
    // pandas cuts a byte-order mark, and olmix keeps some columns for itself.
    return name === "olmix" ? domain !== "run" : name === "nemo-automodel" ? domain !== "weighted" : true;
  });
  const raw = names.map((_, i) => 0.9 ** i);
  const total = raw.reduce((sum, x) => sum + x, 0);
  return {
    domains: names.map((domain, i) => ({
      name: domain,
      weight: raw[i] / total,
      tokens: 1000 + i,
      documentTokens: 100 + i,
      paths: [`/data/${i} ${domain}.`],
    })),
    stages: null,
    tokens: 1e6,
    context: 64,
    batch: 16,
    repetitions: 4,
    metrics: new Map([["target_bpb", 1.5]]),
    source: { gradmix: "0.1.0", run: "a\nrun: #1", step: 10, rule: "dga", weights: "averaged" },
  };
}

const exported = Object.fromEntries(
  Array.from(exportFormats.keys(), (name) => [name, exportMixture(mixtureFor(name), { format: name })]),
);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-read-back-"));
  for (const [name, { files }] of Object.entries(exported)) {
    mkdirSync(join(folder, name));
    for (const file of files) writeFileSync(join(folder, name, file.name), file.text);
  }
  const { error, status, stdout, stderr } = spawnSync(python, ["-B", script, folder], {
    encoding: "utf8",
    env: { ...process.env, PYTHONIOENCODING: "utf-8", HF_HUB_OFFLINE: "1" },
    timeout: 60_000,
  });
  if (error !== undefined) missing = `${python} does not run: ${error.message}`;
  else {
    if (status !== 0) throw new Error(stderr);
    found = JSON.parse(stdout) as typeof found;
  }
}, 70_000);
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

describe.each([...exportFormats.keys()])("%s", (name) => {
  test("is read by the trainer's own code as intended", (context) => {
    if (missing !== null) context.skip(missing);
    const { skip, weights = [] } = found[name] ?? {};
    if (skip !== undefined) context.skip(`${name}: ${skip}`);
    const [{ weights: wanted }] = readers[name](exported[name]);
    expect(new Set(weights.map(([key]) => key))).toEqual(new Set(wanted.map(([key]) => key)));
    const read = new Map(weights);
    // Some divide by the sum of the weights, which is 1 but for rounding.
    for (const [key, weight] of wanted) expectNear(read.get(key), Number(weight), 1e-12);
    expect(weights.length).toBe(wanted.length);
  });
});
