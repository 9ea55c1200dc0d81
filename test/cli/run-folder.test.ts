/** Files of a run survive kills, full disks and damage. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import * as nodeFs from "node:fs";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { decodeCheckpoint, encodeCheckpoint } from "#dist/node/checkpoint-file.js";
import { readCheckpoint, writeCheckpoint } from "gradmix/node";
import { jsonLayer, resolveConfig } from "#dist/cli/config.js";
import { type FileParts, writeFileAtomic, writeFilesAtomic, type WriteFs } from "#dist/node/files.js";
import { checkFree, findRun, openRunFolder } from "#dist/cli/run-folder.js";
import { openMetrics, truncateMetrics } from "#dist/cli/metrics-file.js";
import { listCheckpoints } from "#dist/cli/run-places.js";
import { readStart } from "#dist/cli/start.js";
import type { Checkpoint, CheckpointArray } from "#dist/dga/checkpoint.js";
import type { StartLine, StepMetrics } from "#dist/runs/lines.js";
import type { TrainConfig } from "#dist/cli/train-config.js";
import { formatJson } from "#dist/json.js";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { makeFolders } from "#dist/folders-node.js";
import { errorOf } from "../errors.ts";

let root = "";
let out = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "gradmix-run-"));
  out = join(root, "run");
});
afterEach(() => rmSync(root, { recursive: true }));

function configOf(folder: string, lr = 0.001): TrainConfig {
  const json = { data: { domains: { a: "a" }, target: "t" }, training: { lr }, run: { out: folder } };
  return resolveConfig([jsonLayer(json, "c.json")]);
}

function metrics(step: number): StepMetrics {
  return {
    step,
    tokens: step,
    loss: 1,
    gradNorm: 1,
    lr: 1,
    seconds: 1,
    weights: new Map(),
    domains: new Map(),
  };
}

const startLine: StartLine = {
  step: 0,
  event: "start",
  seconds: 1,
  evaluation: { target: 1, domains: new Map([["a", 1]]) },
  cost: { alignment: 0.1, evaluation: 0.2 },
};

function state(step: number): Checkpoint {
  return { json: { step }, arrays: { x: Float32Array.of(step, step) } };
}

function join_(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

describe("the checkpoint file", () => {
  const arrays: fc.Arbitrary<CheckpointArray> = fc.oneof(
    fc.uint8Array(),
    fc.int32Array(),
    fc.uint32Array(),
    fc.float64Array(),
    fc.bigInt64Array(),
    // All bit patterns, the quiet and the signalling NaN included.
    fc.uint32Array().map((bits) => new Float32Array(bits.buffer, bits.byteOffset, bits.length)),
  );
  const checkpoints = fc.record({
    json: fc
      .dictionary(fc.string(), fc.jsonValue())
      .map((x) => JSON.parse(JSON.stringify(x)) as Checkpoint["json"]),
    arrays: fc.dictionary(
      fc.string({ minLength: 1 }).filter((name) => !name.startsWith("__")),
      arrays,
      { maxKeys: 5, noNullPrototype: true },
    ),
  });
  const bits = (array: CheckpointArray): Uint8Array =>
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

  test("reproduces every bit", () => {
    fc.assert(
      fc.property(fc.option(fc.nat()), checkpoints, (step, checkpoint) => {
        const read = decodeCheckpoint(
          join_(encodeCheckpoint({ ...checkpoint, ...(step === null ? {} : { step }) })),
          "c",
        );
        expect(read.step).toBe(step ?? undefined);
        expect("step" in read).toBe(step !== null);
        expect(read.json).toEqual(checkpoint.json);
        // Number-like names come back in another order.
        expect(Object.keys(read.arrays).sort()).toEqual(Object.keys(checkpoint.arrays).sort());
        for (const [name, array] of Object.entries(checkpoint.arrays)) {
          const got = read.arrays[name];
          expect(got.constructor).toBe(array.constructor);
          expect(bits(got)).toEqual(bits(array));
        }
      }),
    );
  });

  test("keeps the sign of a zero", () => {
    const json = { a: -0, b: [0, -0], c: { d: -0 } };
    expect(decodeCheckpoint(join_(encodeCheckpoint({ json, arrays: {} })), "c").json).toEqual(json);
  });

  test("has the layout of safetensors", () => {
    const file = join_(
      encodeCheckpoint({ step: 7, json: {}, arrays: { a: Float32Array.of(1, 2), b: Uint8Array.of(9) } }),
    );
    const length = Number(new DataView(file.buffer).getBigUint64(0, true));
    expect(length % 8).toBe(0);
    const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
    expect(header.a).toEqual({ dtype: "F32", shape: [2], data_offsets: [0, 8] });
    expect(header.b).toEqual({ dtype: "U8", shape: [1], data_offsets: [8, 9] });
    expect(file.length).toBe(8 + length + 9);
    for (const value of Object.values(header.__metadata__)) expect(value).toBeTypeOf("string");
  });

  test("is refused if it is cut short, lengthened, or has one changed byte", () => {
    const whole = join_(
      encodeCheckpoint({ step: 3, json: { a: "ü" }, arrays: { x: Float32Array.of(1, 2, 3) } }),
    );
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const damaged = whole.slice();
        damaged[at] ^= change;
        for (const file of [whole.slice(0, at), damaged, join_([whole, Uint8Array.of(change)])])
          expect(errorOf(() => decodeCheckpoint(file, "c.safetensors"))).toMatchObject({
            code: "checkpoint",
            message: expect.stringMatching(/^c\.safetensors: [^\n]*$/),
          });
      }),
      { numRuns: 400 },
    );
  });
});

describe("values that cannot be stored are refused", () => {
  test.each<[object, string]>([
    [{ json: { a: [1, NaN] } }, "json.a[1] is NaN, which is not JSON"],
    [{ json: { a: { b: Infinity } } }, "json.a.b is Infinity, which is not JSON"],
    [{ json: { a: new Map() } }, "json.a is an object, which is not JSON"],
    [{ json: { a: Float64Array.of(1) } }, "json.a is an object, which is not JSON"],
    [{ json: { a: [undefined] } }, "json.a[0] is undefined, which is not JSON"],
    [{ json: { a: 1n } }, "json.a is 1, which is not JSON"],
    [{ json: null }, "json is null, not an object"],
    [{ arrays: null }, "arrays is null, not an object"],
    [{ arrays: { x: [1, 2] } }, "arrays of the type [object Array] cannot be stored"],
    [{ arrays: { x: Int16Array.of(1) } }, "arrays of the type [object Int16Array] cannot be stored"],
    [{ arrays: { __metadata__: Float32Array.of(1) } }, 'an array cannot have the name "__metadata__"'],
    [{ step: 0.5 }, "step is 0.5, not a number of steps"],
  ])("case %#", (part, message) => {
    const path = join(root, "c.safetensors");
    const error = errorOf(() => writeCheckpoint(path, { json: {}, arrays: {}, ...part }));
    expect(error.code).toBe("checkpoint");
    expect(error.message.startsWith(`checkpoint: ${message}`), error.message).toBe(true);
    expect(readdirSync(root)).toEqual([]);
  });

  test("a member with the value undefined is left out", () => {
    const path = join(root, "c.safetensors");
    writeCheckpoint(path, { json: { a: undefined, b: 1 }, arrays: {} });
    expect(readCheckpoint(path).json).toEqual({ b: 1 });
  });

  // With a checksum that is right: what another program might write.
  test.each<[string, string, RegExp]>([
    [
      '"dtype":"F32"',
      '"dtype":"F16"',
      /^c: header\.x\.dtype is "F16", not "F32" or .*; the file was damaged, or is not a checkpoint/,
    ],
    ['"dtype":"F32"', '"dtype":"F64"', /^c: "x" has 4 bytes, which is not a whole number of F64 values$/],
    [
      '"data_offsets":[0,4]',
      '"data_offsets":[4,0]',
      /^c: header\.x\.data_offsets begins at 4 and ends before it, at 0; /,
    ],
    ['"json":"{}"', '"json":"[]"', /^c: state is a list, not an object$/],
    ['"json":"{}"', '"json":"{"', /^c: state is not JSON \(/],
    ['"step":"1"', '"step":"x"', /^c: header\.__metadata__\.step is "x", not a number of steps; /],
  ])("a file with %s as %s is refused", (from, to, message) => {
    const whole = join_(encodeCheckpoint({ step: 1, json: {}, arrays: { x: Float32Array.of(1) } }));
    const length = Number(new DataView(whole.buffer).getBigUint64(0, true));
    const text = new TextDecoder().decode(whole.subarray(8, 8 + length));
    expect(text).toContain(from);
    const sum = /"sha256":"(\w+)"/.exec(text)![1];
    const changed = text
      .replace(from, to)
      .trimEnd()
      .padEnd(length + 8)
      .slice(0, length);
    const fileOf = (own: string): Uint8Array =>
      join_([
        whole.subarray(0, 8),
        new TextEncoder().encode(changed.replace(sum, own)),
        whole.subarray(8 + length),
      ]);
    const right = createHash("sha256")
      .update(fileOf("0".repeat(64)))
      .digest("hex");
    expect(errorOf(() => decodeCheckpoint(fileOf(right), "c"))).toMatchObject({
      code: "checkpoint",
      message: expect.stringMatching(message),
    });
  });
});

describe("writing", () => {
  /** A disk with `room` bytes that writes at most `chunk` bytes a call. */
  function disk(room: number, chunk = Infinity): WriteFs {
    return {
      ...nodeFs,
      writeSync: (file, bytes, offset = 0, length = bytes.length - offset) => {
        const count = Math.min(length, chunk, room);
        if (count === 0) throw Object.assign(new Error("write"), { code: "ENOSPC" });
        room -= count;
        return nodeFs.writeSync(file, bytes, offset, count);
      },
    };
  }

  test("a full disk at any byte gives one clear line, keeps the old file, and leaves no partial file", () => {
    const path = join(root, "step-00000001.safetensors");
    writeCheckpoint(path, state(1));
    const before = readFileSync(path);
    fc.assert(
      fc.property(fc.nat(before.length - 1), (room) => {
        const error = errorOf(() => writeCheckpoint(path, state(1), disk(room)));
        expect(error).toMatchObject({ code: "io", message: `${path}: cannot be written (the disk is full)` });
        expect(readdirSync(root)).toEqual(["step-00000001.safetensors"]);
        expect(readFileSync(path).equals(before)).toBe(true);
      }),
    );
  });

  test("works if the system writes only a few bytes per call", () => {
    const path = join(root, "a", "b.safetensors");
    writeCheckpoint(path, { step: 1, ...state(1) }, disk(Infinity, 7));
    expect(readCheckpoint(path)).toEqual({ step: 1, ...state(1) });
  });

  test.runIf(nodeFs.existsSync("/dev/full"))("to a real device without room is refused", () => {
    const full: WriteFs = { ...nodeFs, openSync: () => nodeFs.openSync("/dev/full", "w") };
    expect(errorOf(() => writeFileAtomic(join(root, "x"), [Uint8Array.of(1)], full)).message).toMatch(
      /the disk is full/,
    );
    expect(readdirSync(root)).toEqual([]);
  });

  test("several files are replaced together, and if one cannot be replaced, the others stay as they were", () => {
    const [first, second] = [join(root, "first"), join(root, "second")];
    const files = (text: string): FileParts[] =>
      [first, second].map((path) => ({ path, parts: [Buffer.from(text), Buffer.from("!")] }));
    writeFilesAtomic(files("old"));
    for (let room = 0; room < 8; room++) {
      expect(errorOf(() => writeFilesAtomic(files("new"), disk(room))).message).toMatch(/the disk is full/);
      expect(readdirSync(root)).toEqual(["first", "second"]);
      expect(readFileSync(first, "utf8")).toBe("old!");
    }
    nodeFs.rmSync(second);
    nodeFs.mkdirSync(second);
    expect(errorOf(() => writeFilesAtomic(files("new"))).message).toBe(
      `${second}: cannot be written (it is a folder); name a file`,
    );
    expect(readFileSync(first, "utf8")).toBe("old!");
    nodeFs.rmdirSync(second);
    writeFilesAtomic(files("new"));
    for (const path of [first, second]) expect(readFileSync(path, "utf8")).toBe("new!");
  });

  test.skipIf(process.platform === "win32")("links are kept, and a device is not replaced by a file", () => {
    const [file, link, device] = [join(root, "a", "file"), join(root, "link"), join(root, "device")];
    const write = (path: string): void => writeFileAtomic(path, [Buffer.from(path)]);
    write(file);
    nodeFs.symlinkSync(file, link);
    write(link);
    expect(nodeFs.readlinkSync(link)).toBe(file);
    expect(readFileSync(file, "utf8")).toBe(link);
    // A link, so that nothing is lost where this fails.
    nodeFs.symlinkSync("/dev/null", device);
    expect(errorOf(() => write(device))).toMatchObject({
      code: "io",
      message: `${device}: cannot be written (it is a device, pipe or socket); name a file`,
    });
    expect(nodeFs.readlinkSync(device)).toBe("/dev/null");
    const circle = join(root, "circle");
    nodeFs.symlinkSync(circle, circle);
    expect(errorOf(() => write(circle)).message).toContain("its symbolic links lead in a circle");
    expect(errorOf(() => write(join(root, "n".repeat(300)))).message).toContain("the name is too long");
    // A link, or a chain of them, to a file that does not exist yet.
    nodeFs.rmSync(join(root, "a"), { recursive: true });
    const chain = join(root, "chain");
    nodeFs.symlinkSync("link", chain);
    write(chain);
    expect([nodeFs.readlinkSync(chain), nodeFs.readlinkSync(link)]).toEqual(["link", file]);
    expect(readFileSync(file, "utf8")).toBe(chain);
  });

  test("folders are made as Node makes them, and where Node would never return, the error of the system is thrown", () => {
    const deep = join(root, "a", "b", "c");
    expect(makeFolders(deep)).toBe(join(root, "a"));
    expect(makeFolders(deep)).toBeNull();
    expect(makeFolders(join(deep, "..", "d"))).toBe(join(root, "a", "b", "d"));
    const file = join(root, "file");
    nodeFs.writeFileSync(file, "");
    expect(() => makeFolders(file)).toThrow("EEXIST");
    expect(() => makeFolders(join(file, "x", "y"))).toThrow("ENOTDIR");
    // Another process makes the folder first.
    const racing = {
      mkdirSync(path: string) {
        nodeFs.mkdirSync(path);
        nodeFs.mkdirSync(path);
      },
    };
    expect(makeFolders(join(root, "e", "f"), racing)).toBeNull();
    expect(nodeFs.existsSync(join(root, "e", "f"))).toBe(true);
    if (process.platform === "linux") expect(() => makeFolders("/proc/x/y")).toThrow("ENOENT");
  });

  test("if the disk fills up during a run, the last good checkpoint is kept", () => {
    const first = openRunFolder(configOf(out));
    first.appendMetrics(metrics(1));
    first.saveCheckpoint(1, state(1));
    first.close();
    const second = openRunFolder(configOf(out), findRun(out), disk(2000));
    expect(second.load()?.step).toBe(1);
    expect(
      errorOf(() => second.saveCheckpoint(2, { json: {}, arrays: { x: new Uint8Array(5000) } })).code,
    ).toBe("io");
    second.close();
    expect(openRunFolder(configOf(out), findRun(out)).load()?.step).toBe(1);
  });

  test(
    "after a writer is killed, the newest checkpoint is complete, and the metrics reach up to it",
    { timeout: 60_000 },
    async () => {
      for (const delay of [0, 1, 3, 7, 12, 20, 33, 54]) {
        const folder = join(root, `kill-${delay}`);
        const child = spawn(
          process.execPath,
          [join(import.meta.dirname, "write-checkpoints.mjs"), folder, formatJson(configOf(folder))],
          { stdio: ["ignore", "pipe", "inherit"] },
        );
        await once(child.stdout, "data");
        await new Promise((resolve) => setTimeout(resolve, delay));
        child.kill("SIGKILL");
        await once(child, "exit");

        const resumed = openRunFolder(configOf(folder), findRun(folder));
        const loaded = resumed.load()!;
        const { x } = loaded.checkpoint.arrays;
        expect(x).toEqual(new Float32Array(50_000).fill(loaded.step));
        expect(loaded.checkpoint.json).toEqual({ step: loaded.step });
        // The dead process's lock does not keep the folder closed.
        resumed.begin();
        resumed.appendMetrics(metrics(loaded.step + 1));
        resumed.close();
        const steps = lines(folder).map(({ step }) => step);
        expect(steps).toEqual(Array.from({ length: loaded.step + 1 }, (_, i) => i + 1));
        const left = readdirSync(join(folder, "checkpoints")).concat(readdirSync(folder));
        expect(left.filter((name) => name.endsWith(".tmp") || name === "lock")).toEqual([]);
      }
    },
  );
});

function lines(folder: string): StepMetrics[] {
  const text = readFileSync(join(folder, "metrics.jsonl"), "utf8");
  expect(text.endsWith("\n")).toBe(true);
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as StepMetrics);
}

describe("a run", () => {
  test("writes nothing before it begins", () => {
    const folder = openRunFolder(configOf(out));
    expect(folder.load()).toBeNull();
    folder.close();
    expect(readdirSync(root)).toEqual([]);
  });

  test("keeps its configuration, metrics and files, and the last two checkpoints", () => {
    const config = configOf(out);
    const folder = openRunFolder(config);
    folder.begin();
    for (let step = 1; step <= 3; step++) {
      folder.appendMetrics(metrics(step));
      folder.saveCheckpoint(step, state(step));
    }
    folder.saveFile("weights.json", "{}");
    folder.saveFile("model/model.safetensors", Uint8Array.of(1, 2));
    folder.close();
    expect(findRun(out).config).toEqual(config);
    expect(lines(out).map(({ step }) => step)).toEqual([1, 2, 3]);
    expect(listCheckpoints(out).map(({ step }) => step)).toEqual([2, 3]);
    expect(readdirSync(out).sort()).toEqual([
      "checkpoints",
      "config.json",
      "metrics.jsonl",
      "model",
      "weights.json",
    ]);
    expect([...readFileSync(join(out, "model/model.safetensors"))]).toEqual([1, 2]);
    expect(openRunFolder(config, findRun(out)).load()).toEqual({ step: 3, checkpoint: state(3), config });
  });

  test("writes nothing more after its folder was moved or deleted", () => {
    const folder = openRunFolder(configOf(out));
    folder.appendMetrics(metrics(1));
    nodeFs.renameSync(out, join(root, "moved"));
    for (const write of [
      () => folder.saveCheckpoint(1, state(1)),
      () => folder.saveFile("weights.json", "{}"),
      () => folder.saveFolder("best", new Map([["best.json", "{}"]])),
    ])
      expect(errorOf(write)).toMatchObject({
        code: "io",
        message: `${out}: was moved or deleted during the run; put it back to continue`,
      });
    expect(nodeFs.existsSync(out)).toBe(false);
    folder.close();
  });

  test("has neither weights nor a model while it is running after a resume", () => {
    const model = new Map([["config.json", "{}"]]);
    const there = (): boolean[] =>
      ["weights.json", "model"].map((name) => nodeFs.existsSync(join(out, name)));
    const first = openRunFolder(configOf(out));
    first.appendMetrics(metrics(1));
    first.saveCheckpoint(1, state(1));
    first.saveFile("weights.json", "{}");
    first.saveFolder("model", model);
    first.close();
    const second = openRunFolder(configOf(out), findRun(out));
    second.load();
    // A run that is refused before its first step leaves them as they are.
    expect(there()).toEqual([true, true]);
    second.begin();
    expect(there()).toEqual([false, false]);
    second.saveFile("weights.json", "{}");
    second.saveFolder("model", model);
    second.appendMetrics(metrics(2));
    second.close();
    expect(there()).toEqual([true, true]);
  });

  test("is named to those who name a part of it: a folder in it, the folder of checkpoints, a checkpoint that is no longer there", () => {
    const folder = openRunFolder(configOf(out));
    folder.begin();
    for (const step of [2, 4, 6]) folder.saveCheckpoint(step, state(step));
    for (const name of ["best", "model"])
      folder.saveFolder(name, new Map([["config.json", '{"model_type":"llama"}'], ["model.safetensors", ""]])); // prettier-ignore
    folder.close();
    nodeFs.mkdirSync(join(out, "tensorboard"));
    nodeFs.cpSync(join(out, "checkpoints"), join(root, "copied", "deep", "er"), { recursive: true });
    const step = (n: number): string => join(out, "checkpoints", `step-0000000${n}.safetensors`);
    const part = `is part of the run ${out}; name that`;
    const resume = (path: string): string => errorOf(() => findRun(path)).message;
    const start = (path: string): string => errorOf(() => readStart(path)).message;
    const gone = `is not there; a run keeps its last 2 checkpoints, here ${step(4)} and ${step(6)}; name one of them, or the run ${out} for the last one`;
    const checkpoints = join(out, "checkpoints");
    const copied = join(root, "copied", "deep", "er");
    const many = (path: string, run = ""): string =>
      `holds the checkpoints of a run; name ${run}one of them, such as ${join(path, "step-00000006.safetensors")}`;
    for (const [path, resumed, started] of [
      [checkpoints, many(checkpoints, `the run ${out}, or `), many(checkpoints, `the run ${out}, or `)],
      [copied, many(copied), many(copied)],
      [step(2), gone, gone],
      [join(out, "tensorboard"), part, part],
      [
        join(out, "best"),
        `${part}, or start a new run from this model with --init-from ${join(out, "best")}`,
        null,
      ],
      [
        join(out, "model"),
        `${part}, or start a new run from this model with --init-from ${join(out, "model")}`,
        null,
      ],
      [join(out, "config.json"), part, null],
      [
        root,
        `holds no run (there is no ${join(root, "config.json")})`,
        "holds no model; give a run's folder, one of its checkpoints, or a Hugging Face folder with config.json and model.safetensors",
      ],
      [
        join(root, "none"),
        `holds no run (there is no ${join(root, "none", "config.json")})`,
        "cannot be read (no such file or folder)",
      ],
    ] as const) {
      // prettier-ignore
      expect(resume(path)).toBe(`--resume ${path}: ${resumed}`);
      if (started !== null) expect(start(path)).toBe(`--init-from: ${path} ${started}`);
    }
    writeFileSync(join(root, "file"), "");
    expect(resume(join(root, "file"))).toBe(
      `--resume ${join(root, "file")}: is not a checkpoint in the folder of a run; name the folder of a run`,
    );
    // What is wrong with a model is said with its folder.
    expect(start(join(out, "best"))).toMatch(`--init-from: ${join(out, "best")}: config.json: `);
    expect(findRun(step(4)).file).toBe(step(4));
  });

  test("refuses a folder that already holds a run, and a path that is a file", () => {
    const folder = openRunFolder(configOf(out));
    folder.begin();
    folder.close();
    expect(errorOf(() => checkFree(out)).message).toMatch(/already holds a run .*--resume /);
    const spaced = join(root, "my run");
    nodeFs.renameSync(out, spaced);
    expect(errorOf(() => checkFree(spaced)).message).toContain(`continue it with --resume '${spaced}'`);
    nodeFs.renameSync(spaced, out);
    expect(errorOf(() => openRunFolder(configOf(out)).begin()).code).toBe("config");
    writeFileSync(join(root, "file"), "");
    expect(errorOf(() => checkFree(join(root, "file"))).message).toMatch(/not a folder/);
    checkFree(join(root, "new"));
  });

  test("refuses a folder that another process is writing", () => {
    const first = openRunFolder(configOf(out));
    first.begin();
    const second = openRunFolder(configOf(out), findRun(out));
    expect(errorOf(() => second.begin()).message).toContain(`is being written by process ${process.pid}`);
    first.close();
    second.begin();
    second.close();
    // A lock of an earlier process that had our id, as in a container that was started again.
    writeFileSync(join(out, "lock"), `${process.pid} ${hostname()} 1\n`);
    const third = openRunFolder(configOf(out), findRun(out));
    third.begin();
    third.close();
    writeFileSync(join(out, "lock"), `1 not-${hostname()}\n`);
    expect(errorOf(() => openRunFolder(configOf(out), findRun(out)).begin()).message).toMatch(
      /delete .*lock/,
    );
  });

  test("that is resumed from an earlier checkpoint drops the later ones", () => {
    const folder = openRunFolder(configOf(out));
    for (let step = 1; step <= 4; step++) {
      folder.appendMetrics(metrics(step));
      if (step < 4) folder.saveCheckpoint(step, state(step));
    }
    folder.close();
    const resumed = openRunFolder(configOf(out), findRun(listCheckpoints(out)[0].path));
    expect(resumed.load()?.step).toBe(2);
    resumed.begin();
    resumed.close();
    expect(lines(out).map(({ step }) => step)).toEqual([1, 2]);
    expect(listCheckpoints(out).map(({ step }) => step)).toEqual([2]);
  });

  test("a run without a checkpoint begins anew", () => {
    const folder = openRunFolder(configOf(out));
    folder.appendMetrics(startLine);
    folder.appendMetrics(metrics(1));
    folder.close();
    const resumed = openRunFolder(configOf(out), findRun(out));
    expect(resumed.load()).toBeNull();
    resumed.begin();
    resumed.close();
    expect(readFileSync(join(out, "metrics.jsonl"), "utf8")).toBe("");
  });

  test("a checkpoint of step 0 keeps the line before the first step, unless it says that the line is still to be written", () => {
    for (const [lines, kept] of [
      [0, true],
      [-1, false],
    ] as const) {
      const config = configOf(join(out, String(lines)));
      const folder = openRunFolder(config);
      folder.appendMetrics(startLine);
      folder.saveCheckpoint(0, state(0), lines);
      folder.appendMetrics(metrics(1));
      folder.close();
      const resumed = openRunFolder(config, findRun(config.run.out));
      expect(resumed.load()?.step).toBe(0);
      resumed.begin();
      resumed.close();
      expect(readFileSync(join(config.run.out, "metrics.jsonl"), "utf8")).toBe(
        kept ? `${formatJson(startLine)}\n` : "",
      );
    }
  });

  test("a truncated newest checkpoint is refused, and the error names the intact one before it", () => {
    const folder = openRunFolder(configOf(out));
    for (let step = 1; step <= 2; step++) {
      folder.appendMetrics(metrics(step));
      folder.saveCheckpoint(step, state(step));
    }
    folder.close();
    const [older, newest] = listCheckpoints(out);
    nodeFs.truncateSync(newest.path, 100);
    const error = errorOf(() => openRunFolder(configOf(out), findRun(out)).load());
    expect(error.code).toBe("checkpoint");
    expect(error.message).toMatch(/cut short.*; the checkpoint of step 1 is intact: --resume /);
    expect(error.message).toContain(older.path);
    expect(openRunFolder(configOf(out), findRun(older.path)).load()?.step).toBe(1);
    nodeFs.truncateSync(older.path, 5);
    expect(errorOf(() => openRunFolder(configOf(out), findRun(out)).load()).message).toMatch(
      /; there is no other one$/,
    );
  });

  test("a run whose metrics do not reach its checkpoint is refused and stays as it is", () => {
    const folder = openRunFolder(configOf(out));
    for (let step = 1; step <= 6; step++) folder.appendMetrics(metrics(step));
    folder.saveCheckpoint(6, state(6));
    folder.close();
    const path = join(out, "metrics.jsonl");
    const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
    const without = (at: number): string => lines.filter((_, i) => i !== at).join("\n");
    const damages: [text: string | null, last: RegExp][] = [
      [
        `${lines.slice(0, 4).join("\n")}\n`,
        /its lines of steps end at step 4, but the checkpoint was made after step 6/,
      ],
      [`${lines.join("\n").slice(0, -1)}\n`, /end at step 5/],
      [`${without(2)}\n`, /end at step 2/],
      [`${lines.with(3, "no JSON").join("\n")}\n`, /end at step 3/],
      [`${lines.with(4, lines[1]).join("\n")}\n`, /end at step 4/],
      ["", /has no line of a step/],
      [null, /has no line of a step/],
    ];
    for (const [text, message] of damages) {
      if (text === null) rmSync(path);
      else writeFileSync(path, text);
      const error = errorOf(() => openRunFolder(configOf(out), findRun(out)).begin());
      expect([error.code, error.message]).toEqual(["checkpoint", expect.stringMatching(message)]);
      expect(nodeFs.existsSync(path) ? readFileSync(path, "utf8") : null).toBe(text);
      expect(readdirSync(out)).not.toContain("lock");
    }
    // Lines after the checkpoint belong to steps that run again.
    writeFileSync(path, `${lines.join("\n")}\n${JSON.stringify(metrics(7))}\n`);
    const resumed = openRunFolder(configOf(out), findRun(out));
    resumed.begin();
    resumed.close();
    expect(readFileSync(path, "utf8")).toBe(`${lines.join("\n")}\n`);
  });

  test("a checkpoint of another configuration is refused, and the first key that differs is named", () => {
    const folder = openRunFolder(configOf(out));
    folder.saveCheckpoint(1, state(1));
    folder.close();
    const error = errorOf(() => openRunFolder(configOf(out, 0.5), findRun(out)).load());
    expect(error.code).toBe("checkpoint");
    expect(error.message).toContain("was made with training.lr = 0.001, not 0.5");
  });
});

test("metrics are cut after the last complete line up to a step, wherever a kill has cut them", () => {
  const path = join(root, "metrics.jsonl");
  const all = Array.from({ length: 12 }, (_, i) => `${JSON.stringify(metrics(i + 1))}\n`);
  fc.assert(
    fc.property(fc.nat(all.join("").length), fc.nat(12), (length, step) => {
      writeFileSync(path, all.join("").slice(0, length));
      truncateMetrics(path, step);
      const text = readFileSync(path, "utf8");
      const whole = all.join("").slice(0, length).split("\n").length - 1;
      expect(text).toBe(all.slice(0, Math.min(step, whole)).join(""));
    }),
  );
  truncateMetrics(join(root, "none.jsonl"), 1);
});

test("a line that was written in part is cut off before the next one, also if that could not be done at once", () => {
  const path = join(root, "metrics.jsonl");
  let full = false;
  let [writes, cuts] = [0, 0];
  const fs: WriteFs = {
    ...nodeFs,
    writeSync(file: number, bytes: Uint8Array, from: number, count: number) {
      writes++;
      if (!full) return nodeFs.writeSync(file, bytes, from, count);
      if (writes % 2 === 1) return nodeFs.writeSync(file, bytes, from, Math.min(count, 3));
      throw Object.assign(new Error("full"), { code: "ENOSPC" });
    },
    ftruncateSync(file: number, length: number) {
      cuts++;
      if (full) throw Object.assign(new Error("failed"), { code: "EIO" });
      nodeFs.ftruncateSync(file, length);
    },
  };
  const file = openMetrics(path, null, fs);
  file.append('{"step":1}\n');
  [full, writes] = [true, 0];
  expect(() => file.append('{"step":2}\n')).toThrow(/metrics\.jsonl: cannot be written \(the disk is full\)/);
  expect([readFileSync(path, "utf8"), cuts]).toEqual(['{"step":1}\n{"s', 1]);
  // Nothing follows the part while it is there, and the checkpoint keeps the line.
  expect(file.sync()).toEqual(['{"step":2}\n']);
  expect(readFileSync(path, "utf8")).toBe('{"step":1}\n{"s');
  full = false;
  expect(file.sync()).toEqual([]);
  file.append('{"step":3}\n');
  file.close();
  expect(readFileSync(path, "utf8")).toBe('{"step":1}\n{"step":2}\n{"step":3}\n');
});

test("metrics over a megabyte are cut at the same place", () => {
  const path = join(root, "metrics.jsonl");
  const all = Array.from(
    { length: 900 },
    (_, i) => `{"step":${i + 1},"padding":"${"ü".repeat(1000 + (i % 7))}"}\n`,
  );
  writeFileSync(path, all.join("") + '{"step":901');
  truncateMetrics(path, 900);
  expect(readFileSync(path, "utf8")).toBe(all.join(""));
  truncateMetrics(path, 777);
  expect(readFileSync(path, "utf8")).toBe(all.slice(0, 777).join(""));
});
