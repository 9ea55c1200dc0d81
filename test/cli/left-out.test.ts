/** Documents without text: every command that reads text says once how many it left out, and where the first is. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { formatEmpty } from "#dist/cli/left-out.js";
import { placeInFile } from "#dist/cli/prepare-jobs.js";
import { runCommand } from "./served.ts";

let folder = "";
const gradmix = (...args: string[]) => {
  const { status, stdout, stderr } = runCommand(args.join(" ").split(" "), { cwd: folder });
  return { code: status, said: stdout + stderr };
};
const json = (path: string): Record<string, unknown> =>
  JSON.parse(readFileSync(join(folder, path), "utf8")) as Record<string, unknown>;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-left-out-"));
  const lines = (name: string, empty: readonly number[]): string =>
    Array.from({ length: 40 }, (_, i) =>
      JSON.stringify({
        text: empty.includes(i) ? "" : `${name} ${i} is a document of ${name} words`,
        of: "ab"[i % 2],
      }),
    ).join("\n");
  writeFileSync(join(folder, "a.jsonl"), lines("first", [4, 9]));
  writeFileSync(join(folder, "b.csv"), `text,n\n${Array.from({ length: 40 }, (_, i) => `${i === 7 ? "" : `row ${i} of a table`},${i}`).join("\n")}\n`); // prettier-ignore
  writeFileSync(join(folder, "t.jsonl"), lines("target", [30]));
  writeFileSync(join(folder, "whole.jsonl"), lines("whole", []));
});
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

const text = "--domain a=a.jsonl --domain b=b.csv --target t.jsonl --tokenizer byte";
const small = "--dim 16 --layers 1 --heads 2 --context 8 --batch 2 --threads 1 --steps 2";
const all = "4 empty documents were left out, the first at t.jsonl:31";
const times = (said: string, line: string): number => said.split("were left out").length - 1 + (said.includes(line) ? 0 : 100); // prettier-ignore

test("train and compare count those of all text, once", () => {
  const { code, said } = gradmix(`train ${text} ${small} --out run`);
  expect(code).toBe(0);
  expect(times(said, `${all}\n`)).toBe(1);
  expect(times(gradmix(`compare ${text} ${small} --rules uniform,dga --out both`).said, all)).toBe(1);
  const mixed = gradmix(`train --domains a.jsonl --domain-field of --target whole.jsonl --tokenizer bpe --vocab-size 300 ${small} --out mixed`); // prettier-ignore
  expect(times(mixed.said, "2 empty documents were left out, the first at a.jsonl:5\n")).toBe(1);
  const whole = gradmix(`train --domain w=whole.jsonl --target whole.jsonl --rule uniform --tokenizer byte ${small} --out whole`); // prettier-ignore
  expect(whole.said).not.toContain("empty document");
});

test("prepare records their number", () => {
  const { code, said } = gradmix(`prepare ${text} --workers 1 --out prepared`);
  expect(code).toBe(0);
  expect(said).toContain("  empty    4 empty documents were left out, the first at a.jsonl:5\n");
  expect(json("prepared/prepared.json")).toMatchObject({ skipped: 0, empty: 4 });
});

test("the line in a later part of a file is that of the whole file", () => {
  const path = join(folder, "lines.txt");
  writeFileSync(path, "one\ntwo\nthree\nfour\n");
  expect(placeInFile({ path, from: 0, line: 2 })).toBe(`${path}:2`);
  expect(placeInFile({ path, from: 8, line: 2 })).toBe(`${path}:4`);
  expect(formatEmpty(1, "a:1")).toBe("1 empty document was left out, at a:1");
  expect(formatEmpty(1000, "a:1")).toBe("1,000 empty documents were left out, the first at a:1");
});

test("cluster, histogram and divide", () => {
  const clustered = gradmix("cluster a.jsonl --clusters 2 --dim 8 --out clusters");
  expect(clustered.code).toBe(0);
  expect(clustered.said).toContain("empty    2 empty documents were left out, the first at a.jsonl:5\n");
  expect(json("clusters/clusters.json")).toMatchObject({ empty: 2 });
  const nearest = gradmix("histogram --domains clusters --target t.jsonl");
  expect(nearest.said).toContain("1 empty document was left out, at t.jsonl:31\n");
  expect(gradmix(`histogram ${text}`).said).toContain(`${all}\n`);
  const divided = gradmix(`divide ${text} --parts 2 --out parts`);
  expect(divided.code).toBe(0);
  expect(divided.said).toContain(`${all}\n`);
});
