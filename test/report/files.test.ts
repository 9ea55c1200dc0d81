/** Files for other tools: event files of TensorBoard, metrics.csv, figures as SVG. */
import * as fc from "fast-check";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { csvHeader, csvRows } from "#dist/report/csv.js";
import { readPageData, writeCsv, writeFigures } from "#dist/report/index.js";
import { openEvents, writeEvents } from "#dist/report/tensorboard.js";
import { crc32c, scalarsRecord, versionRecord } from "#dist/report/tfevents.js";
import { expectNear } from "../near.ts";
import { domainNames, madeLines, makeRun } from "./made-runs.ts";

const work = mkdtempSync(join(tmpdir(), "gradmix-files-"));
afterAll(() => rmSync(work, { recursive: true, force: true }));

interface Event {
  readonly wallTime: number;
  readonly step: number;
  readonly version: string | null;
  readonly values: readonly (readonly [string, number])[];
}

/** CRC-32C bit by bit, without a table. */
function slowCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

function unmasked(value: number): number {
  const rotated = (value - 0xa282ead8) >>> 0;
  return ((rotated << 15) | (rotated >>> 17)) >>> 0;
}

/** A reader that shares nothing with the writer: checks both sums of each record, and reads any message of protocol buffers. */
function readEvents(bytes: Uint8Array): Event[] {
  const events: Event[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length;) {
    const length = Number(view.getBigUint64(at, true));
    expect(unmasked(view.getUint32(at + 8, true))).toBe(slowCrc(bytes.subarray(at, at + 8)));
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(unmasked(view.getUint32(at + 12 + length, true))).toBe(slowCrc(data));
    at += length + 16;
    const fields = readMessage(data);
    const text = (field: Uint8Array | undefined): string | null =>
      field === undefined ? null : new TextDecoder().decode(field);
    events.push({
      wallTime: doubleOf(fields.get(1)?.[0]),
      step: Number(fields.get(2)?.[0] === undefined ? 0 : varintOf(fields.get(2)?.[0] ?? new Uint8Array())),
      version: text(fields.get(3)?.[0]),
      values: (fields.get(5) ?? []).flatMap((summary) =>
        (readMessage(summary).get(1) ?? []).map((value) => {
          const parts = readMessage(value);
          return [text(parts.get(1)?.[0]) ?? "", floatOf(parts.get(2)?.[0])] as const;
        }),
      ),
    });
  }
  return events;
}

/** Raw bytes by number of the field. */
function readMessage(bytes: Uint8Array): Map<number, Uint8Array[]> {
  const fields = new Map<number, Uint8Array[]>();
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const begin = at;
    let found: Uint8Array;
    if ((key & 7) === 0) {
      varint();
      found = bytes.subarray(begin, at);
    } else {
      const length = (key & 7) === 1 ? 8 : (key & 7) === 5 ? 4 : varint();
      found = bytes.subarray(at, at + length);
      at += length;
    }
    fields.set(key >> 3, [...(fields.get(key >> 3) ?? []), found]);
  }
  expect(at).toBe(bytes.length);
  return fields;
}

const varintOf = (bytes: Uint8Array): bigint =>
  bytes.reduceRight((value, byte) => (value << 7n) | BigInt(byte & 127), 0n);
const doubleOf = (bytes: Uint8Array | undefined): number =>
  bytes === undefined ? NaN : new DataView(bytes.buffer, bytes.byteOffset).getFloat64(0, true);
const floatOf = (bytes: Uint8Array | undefined): number =>
  bytes === undefined ? NaN : new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true);

describe("event files", () => {
  test("CRC-32C has the values of RFC 3720", () => {
    const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(255))).toBe(0x62a8ab43);
    expect(crc32c(ascending)).toBe(0x46dd794e);
    expect(crc32c(ascending.toReversed())).toBe(0x113fdb5c);
    expect(crc32c(new TextEncoder().encode("123456789"))).toBe(0xe3069283);
    // The sum of this one has its highest bit set.
    expect(slowCrc(ascending)).toBe(0x46dd794e);
  });

  const scalar = fc.record({
    tag: fc.string({ unit: "binary", maxLength: 300 }),
    value: fc.float({ noNaN: true }),
  });
  test("an independent reader reads what is written", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 2 ** 53 - 1 }), fc.array(scalar, { maxLength: 4 })), {
          maxLength: 4,
        }),
        fc.double({ min: 0, max: 2e9, noNaN: true }),
        (steps, wallTime) => {
          const file = Buffer.concat([
            versionRecord(wallTime),
            ...steps.map(([step, scalars]) => scalarsRecord(wallTime + 1, step, scalars)),
          ]);
          const [first, ...others] = readEvents(file);
          expect(first).toEqual({ wallTime, step: 0, version: "brain.Event:2", values: [] });
          expect(others).toEqual(
            steps.map(([step, scalars]) => ({
              wallTime: wallTime + 1,
              step,
              version: null,
              values: scalars.map(({ tag, value }) => [tag, value]),
            })),
          );
        },
      ),
    );
  });

  const run = makeRun(join(work, "events-run"), { steps: 30, domains: ["code", "</script>", "中文"] });
  const place = join(work, "events");
  const lines = madeLines({ steps: 30, domains: ["code", "</script>", "中文"] });

  /** The expected values by tag, from the lines. */
  function wantedScalars(): Map<string, (readonly [number, number])[]> {
    const found = new Map<string, (readonly [number, number])[]>();
    const add = (tag: string, step: number, value: number): void =>
      void found.set(tag, [...(found.get(tag) ?? []), [step, Math.fround(value)]]);
    for (const line of lines) {
      if ("event" in line && line.event === "resumed") continue;
      const { step, evaluation } = line;
      if (!("event" in line)) {
        add("training/loss", step, line.loss);
        add("training/learning_rate", step, line.lr);
        add("training/gradient_norm", step, line.gradNorm ?? NaN);
        add("training/tokens", step, line.tokens);
        for (const [name, weight] of line.weights) add(`weights/${name}`, step, weight);
        for (const [name, { value }] of line.alignments ?? []) add(`alignments/${name}`, step, value);
        if (evaluation !== undefined)
          for (const [name, { epochs }] of line.domains) add(`epochs/${name}`, step, epochs);
      }
      if (evaluation !== undefined) {
        add("held_out/target", step, evaluation.target ?? NaN);
        for (const [name, loss] of evaluation.domains) add(`held_out_domains/${name}`, step, loss);
      }
    }
    return found;
  }

  function scalarsIn(path: string): Map<string, (readonly [number, number])[]> {
    const found = new Map<string, (readonly [number, number])[]>();
    for (const { step, values } of readEvents(readFileSync(path)))
      for (const [tag, value] of values) found.set(tag, [...(found.get(tag) ?? []), [step, value]]);
    return found;
  }

  test("of a run hold everything that its lines say, with increasing times; writing again leaves one file", () => {
    const path = writeEvents(run, place);
    expect(scalarsIn(path)).toEqual(wantedScalars());
    const times = readEvents(readFileSync(path)).map(({ wallTime }) => wallTime);
    times.slice(1).forEach((time, i) => expect(time).toBeGreaterThanOrEqual(times[i]));
    writeEvents(run, place);
    expect(readdirSync(place)).toEqual(["events-run"]);
    expect(readdirSync(join(place, "events-run")).length).toBe(1);
  });

  test("of a resumed run begin with the lines that are kept, and grow", () => {
    const folder = makeRun(join(work, "resumed"), {
      steps: 30,
      done: 20,
      domains: ["code", "</script>", "中文"],
    });
    const text = readFileSync(join(folder, "metrics.jsonl"), "utf8");
    const first = openEvents(folder);
    first.close();
    const writer = openEvents(folder);
    for (const line of lines.slice(text.trim().split("\n").length)) writer.add(line);
    writer.close();
    const files = readdirSync(join(folder, "tensorboard"));
    expect(files.length).toBe(1);
    const path = join(folder, "tensorboard", files[0]);
    expect(scalarsIn(path)).toEqual(wantedScalars());
    // The lines that were there are as far apart as they were.
    const [, start, first20] = readEvents(readFileSync(path)).filter(({ step }) => step === 0 || step === 20);
    expectNear(first20.wallTime - start.wallTime, 20 * 0.5 + 0.25 * 6, 1e-6, 10);
  });

  test("can be read by TensorBoard itself", ({ skip }) => {
    const python = process.env["GRADMIX_PYTHON"];
    if (python === undefined) skip("GRADMIX_PYTHON names no Python with tensorboard");
    const { status, stdout, stderr } = spawnSync(
      python ?? "",
      [
        "-c",
        `import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}))`,
        join(place, "events-run"),
      ],
      { encoding: "utf8" },
    );
    if (stderr.includes("No module named")) skip(`GRADMIX_PYTHON: ${stderr.trim().split("\n").at(-1) ?? ""}`);
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout)).toEqual(Object.fromEntries(wantedScalars()));
  });
});

/** RFC 4180. */
function parseCsv(text: string): string[][] {
  const rows: string[][] = [[""]];
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const row = rows[rows.length - 1];
    const letter = text[i];
    if (quoted && letter === '"' && text[i + 1] === '"') row[row.length - 1] += text[++i];
    else if (letter === '"') quoted = !quoted;
    else if (!quoted && letter === ",") row.push("");
    else if (!quoted && letter === "\n") rows.push([""]);
    else row[row.length - 1] += letter;
  }
  expect(rows.pop()).toEqual([""]);
  return rows;
}

describe("metrics.csv", () => {
  const names = ["plain", 'a "quoted", name', "two\nlines"];
  const lines = madeLines({ steps: 20, domains: names });
  const [head, ...rows] = parseCsv(csvHeader + lines.map((line) => csvRows(line, false)).join(""));
  const column = (row: readonly string[], name: string): string => row[head.indexOf(name)];
  const find = (step: number, of: string, name: string): readonly string[] =>
    rows.find(
      (row) =>
        column(row, "step") === String(step) && column(row, "of") === of && column(row, "name") === name,
    ) ?? [];

  test("has every number of the lines in its place, unrounded", () => {
    for (const row of rows) expect(row.length).toBe(head.length);
    for (const line of lines) {
      if ("event" in line) continue;
      const whole = find(line.step, "run", "");
      expect([Number(column(whole, "loss")), Number(column(whole, "tokens"))]).toEqual([
        line.loss,
        line.tokens,
      ]);
      for (const name of names) {
        const row = find(line.step, "domain", name);
        expect(Number(column(row, "weight"))).toBe(line.weights.get(name));
        expect(Number(column(row, "trained_tokens"))).toBe(line.domains.get(name)?.tokens);
        expect(column(row, "alignment")).toBe(String(line.alignments?.get(name)?.value ?? ""));
        expect(column(row, "alignment_standard_error")).toBe(
          String(line.alignments?.get(name)?.standardError ?? ""),
        );
        expect(column(row, "held_out_loss")).toBe(String(line.evaluation?.domains.get(name) ?? ""));
      }
      const target = find(line.step, "target", "");
      expect(target.length > 0 ? Number(column(target, "held_out_loss")) : undefined).toBe(
        line.evaluation?.target ?? undefined,
      );
    }
    expect(Number(column(find(0, "target", ""), "held_out_loss"))).toBeGreaterThan(0);
  });

  test("with bases, weights and alignments are those of the bases, and tokens those of the domains", () => {
    const line = lines.find((one) => !("event" in one) && one.alignments !== undefined);
    if (line === undefined || "event" in line) throw new Error("no such line");
    const own = parseCsv(
      csvRows({ ...line, domains: new Map([["d", { weight: 0.5, loss: 1, tokens: 2, epochs: 3 }]]) }, true),
    );
    const of = (kind: string): string[][] => own.filter((row) => row[2] === kind);
    expect(of("basis").map((row) => row[3])).toEqual(names);
    expect(of("basis").every((row) => row[4] !== "" && column(row, "trained_tokens") === "")).toBe(true);
    const domain = of("domain").find((row) => row[3] === "d") ?? [];
    expect([column(domain, "weight"), column(domain, "trained_tokens")]).toEqual(["0.5", "2"]);
  });

  test("is written beside metrics.jsonl, without the incomplete last line of a running run", () => {
    const folder = makeRun(join(work, "csv"), { steps: 10 });
    const jsonl = readFileSync(join(folder, "metrics.jsonl"), "utf8");
    writeFileSync(join(folder, "metrics.jsonl"), jsonl.slice(0, -20));
    const path = writeCsv(folder);
    expect(path).toBe(join(folder, "metrics.csv"));
    const steps = parseCsv(readFileSync(path, "utf8"))
      .slice(1)
      .map(([step]) => Number(step));
    expect(Math.max(...steps)).toBe(9);
  });
});

test("figures are complete SVG files, with a panel for each of the heaviest domains and the last values in place", () => {
  const names = ["<b>&", ...domainNames(20)];
  const folders = [1, 2].map((seed) =>
    makeRun(join(work, `svg-${seed}`), { steps: 20, seed, domains: names }),
  );
  const place = join(work, "figures");
  const files = writeFigures(readPageData(folders), place);
  expect(files.map((path) => path.slice(place.length + 1)).sort()).toEqual(
    [
      "domains.svg",
      "loss.svg",
      ...[1, 2].flatMap((i) => [`alignments-${i}-svg-${i}.svg`, `weights-${i}-svg-${i}.svg`]),
    ].sort(),
  );
  const text = (name: string): string => readFileSync(join(place, name), "utf8");
  for (const path of files) expect(readFileSync(path, "utf8")).toMatch(/^<svg [^]*<\/svg>\n$/);
  expect(text("domains.svg").match(/font-size="14"/g)?.length).toBe(12);
  expect(text("domains.svg")).toContain("&lt;b&gt;&amp;");
  // Areas up to the top: the twelve and the others are all.
  const tops = Array.from(text("weights-1-svg-1.svg").matchAll(/<polygon points="([^"]*)"/g), ([, points]) =>
    points.split(" ").map((point) => point.split(",").map(Number)),
  );
  expect(tops.length).toBe(13);
  const highest = Math.min(...tops.flat().map(([, y]) => y));
  const last = tops[12];
  expectNear(
    last.slice(0, last.length / 2).map(([, y]) => y),
    last.slice(0, last.length / 2).map(() => highest),
    0.003,
  );
});
