/** `gradmix mix` as a process: its streams, its files, a kill at any moment, HTTP and its access control, and replays of runs. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import * as nodeFs from "node:fs";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { request, type RequestOptions } from "node:http";
import { tmpdir } from "node:os";
import { Writable } from "node:stream";
import { join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { GradmixError } from "gradmix";
import type { MixFlags } from "#dist/cli/mix-arguments.js";
import { mix as mixCommand } from "#dist/cli/mix-command.js";
import { openOutput } from "#dist/cli/output.js";
import { ruleNames } from "#dist/dga/rules/index.js";
import { createKeeper, type Keeper } from "#dist/mix/keeper.js";
import { type Line, linesOf, serveLines } from "#dist/mix/lines.js";
import { answer, type Reply, type Session } from "#dist/mix/protocol.js";
import { replay } from "#dist/mix/replay.js";
import { hostHeaders, type MixServer, startServer } from "#dist/mix/server.js";
import { garbageCollected } from "../garbage.ts";
import { runCommand } from "../cli/served.ts";

const command = resolve(import.meta.dirname, "../../dist/cli/main.js");
let folder = "";
const at = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-mix-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
const children: ChildProcessWithoutNullStreams[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

/** Runs to the end on the given input. */
function mix(args: readonly string[], input = ""): { status: number | null; out: Reply[]; err: string } {
  const { status, stdout, stderr } = runCommand(["mix", ...args], { cwd: folder, input });
  const lines = stdout.split("\n").filter((line) => line !== "");
  return { status, out: lines.map((line) => JSON.parse(line) as Reply), err: stderr };
}

interface Talk {
  readonly child: ChildProcessWithoutNullStreams;
  /** The reply to a line. */
  say(message: unknown): Promise<Reply>;
  next(): Promise<Reply>;
}

function talk(...args: readonly string[]): Talk {
  const child = spawn(process.execPath, [command, "mix", ...args], { cwd: folder });
  children.push(child);
  const lines = linesOf(child.stdout);
  const next = async (): Promise<Reply> => {
    const { value, done } = await lines.next();
    if (done === true || typeof value !== "string") throw new Error("it ended without a reply");
    return JSON.parse(value) as Reply;
  };
  return {
    child,
    next,
    say(message) {
      child.stdin.write(`${JSON.stringify(message)}\n`);
      return next();
    },
  };
}

const domains = ["web", "code"];
const rule = { name: "dga", normalise: "raw", beta: 1 };
const init = { type: "init", domains, rule };
const observe = (step: number): object => ({
  type: "observe",
  step,
  alignments: { web: 0.1 * Math.sin(step), code: 0.1 * Math.cos(step) },
});
const sessionAfter = (steps: readonly number[]): Session => {
  let { session } = answer(null, init);
  for (const step of steps) ({ session } = answer(session, observe(step)));
  if (session === null) throw new Error("no session");
  return session;
};

test("answers each line with one line, whatever it contains, and stops at the end of the input", () => {
  const lines = [
    JSON.stringify(init),
    "nonsense",
    "",
    JSON.stringify(observe(1)),
    "\u00ff{",
    '{"type":"snapshot"}',
  ];
  // The last has no end.
  const { status, out, err } = mix([], lines.join("\n"));
  expect([status, err]).toEqual([0, ""]);
  expect(out.map(({ type }) => type)).toEqual(["weights", "error", "error", "weights", "error", "state"]);
  expect(out.at(-1)).toEqual({ type: "state", state: sessionAfter([1]) });
});

test("takes domains and rule from flags and a config file, whose other sections are ignored", () => {
  const config = {
    data: { domains: { web: "w", code: "c" }, target: "t" },
    training: { steps: 3 },
    mixing: { eta: 3, updateEvery: 5 },
  };
  writeFileSync(at("config.json"), JSON.stringify(config));
  const { status, out, err } = mix(
    [
      "config.json",
      "--rule-options",
      '{"normalise":"raw"}',
      "--floor",
      "0.1",
      "--sizes",
      "web=5,code=7",
      "--tokens",
      "90",
    ],
    '{"type":"snapshot"}\n',
  );
  // Without tracking, the rule has no limit on repetitions.
  const unused = ["--sizes", "--tokens"].map(
    (flag) => `${flag} has no effect: rule dga does not use it with these options\n`,
  );
  expect([status, err]).toEqual([0, unused.join("")]);
  expect(out).toMatchObject([
    {
      state: {
        setup: {
          domains,
          rule: { name: "dga", eta: 3, normalise: "raw", floor: 0.1 },
          combinators: [],
          sizes: { web: 5, code: 7 },
          tokens: 90,
          updateEvery: 5,
          updateAfter: 0,
        },
      },
    },
  ]);
});

const noFlags: MixFlags = {
  domains: null,
  sizes: null,
  stateFile: null,
  weightsFile: null,
  listen: null,
  tokenFile: null,
  replay: null,
};
const silent = openOutput(new Writable({ write: (_chunk, _encoding, done) => done() }));

test.each<[Partial<MixFlags>, Record<string, string>, RegExp]>([
  [{}, { eta: "2" }, /^the rule is given without domains: add --domains A,B/],
  [{ domains: "a,,b" }, {}, /^--domains: "a,,b" has an empty name at position 2/],
  [{ domains: "a,a" }, {}, /^domains\.1: it is "a", which is in the list twice/],
  [{ domains: "a,b" }, { rule: "dgaa" }, /^--rule: "dgaa" is not one of .*did you mean dga\?/],
  [
    { domains: "a,b" },
    { rule: "rnb", histogram: "a=1" },
    /^--histogram: --rule rnb does not use a histogram; leave it out/,
  ],
  [{ domains: "a,b" }, { histogram: "c=1" }, /^--histogram: "c" is not a domain/],
  [{ domains: "a,b" }, { rule: "grape" }, /^--rule grape needs targets: add their names with --rule-options/],
  [
    { domains: "a,b" },
    { rule: "grape", ruleOptions: '{"targets":["m"],"mu":-1}' },
    /^--rule-options: grape: mu: -1 does not fit/,
  ],
  [{ domains: "a,b", sizes: "a=1,b" }, {}, /^--sizes/],
  [{ domains: "*,b" }, {}, /^--domains: "\*" cannot be the name of a domain/],
  [{ domains: "." }, {}, /^--domains: \. is a folder, but not one of gradmix cluster, divide or prepare/],
  [{ domains: "a,b", sizes: "a=1" }, { rule: "temperature" }, /^sizes\.b: it is missing/],
  [{ tokenFile: "t" }, {}, /^--token-file: only --listen uses a token/],
  [{ replay: "x", stateFile: "s" }, {}, /^--state-file: --replay only prints/],
  [{ replay: "/nowhere.jsonl" }, {}, /^--replay: \/nowhere\.jsonl cannot be read \(no such file/],
  [{ stateFile: "same", weightsFile: "./same" }, {}, /--state-file writes it too/],
  [{ domains: "a,b" }, { repetitionCap: "1" }, /^--repetition-cap: .*; add --sizes NAME=N,… and --tokens N$/],
  [
    { domains: "a,b", sizes: "a=1,b=2" },
    { repetitionCap: "1", rule: "uniform" },
    /^--repetition-cap: .*; add --sizes/,
  ],
  [{ listen: "99999" }, {}, /^--listen: "99999" is not \[HOST:\]PORT/],
  [{ listen: "0.0.0.0:0" }, {}, /^--listen: the host 0\.0\.0\.0 may be reachable from other machines/],
])("flags %j with %j are refused in one line", async (flags, options, message) => {
  const given = new Map(Object.entries(options).map(([name, value]) => [`mixing.${name}`, [value]]));
  const error = await mixCommand({ config: null, given, flags: { ...noFlags, ...flags } }, silent).then(
    () => "it ran",
    (refused: unknown) => refused,
  );
  expect(error).toBeInstanceOf(GradmixError);
  const { message: text } = error as GradmixError;
  expect(text).toMatch(message);
  expect(text).not.toContain("\n");
});

test("domains may have any names, in flags as in messages", () => {
  const flags =
    "--domains web/cc,books:old --sizes web/cc=5,books:old=7 --tokens 9 --floor web/cc=0.1 --histogram web/cc=1,books:old=3";
  const { status, out, err } = mix(flags.split(" "), '{"type":"snapshot"}\n');
  expect([status, err]).toEqual([0, ""]);
  expect(out).toMatchObject([
    { state: { setup: { domains: ["web/cc", "books:old"], sizes: { "web/cc": 5, "books:old": 7 } } } },
  ]);
});

test("sizes and tokens are used, refused if one without the other gives no limit, or named, for every rule", async () => {
  const needs: Readonly<Record<string, Record<string, string[]>>> = {
    static: { weights: ["a=0.5,b=0.5"] },
    importanceSampling: { histogram: ["a=1,b=1"] },
    grape: { ruleOptions: ['{"targets":["m"]}'] },
  };
  const outcome = async (
    flag: "sizes" | "tokens",
    options: Record<string, string[]>,
    config: string | null = null,
  ) => {
    let told = "";
    const err = openOutput(
      new Writable({
        write(chunk, _encoding, done) {
          told += String(chunk);
          done();
        },
      }),
    );
    const given = new Map(Object.entries(options).map(([name, value]) => [`mixing.${name}`, value]));
    if (flag === "tokens" && config === null) given.set("training.tokens", ["90"]);
    // It ends here if nothing was refused before.
    const flags = { ...noFlags, domains: "a,b", sizes: flag === "sizes" ? "a=10,b=20" : null, listen: "x" };
    const refused: unknown = await mixCommand({ config, given, flags }, err).catch((error: unknown) => error);
    await err.flush();
    return told + (refused instanceof GradmixError ? refused.message.replace(/^--listen: .*/, "") : "it ran");
  };
  const both = "rule dga limits repetitions only if it knows the tokens of each domain and of the run";
  const alone = {
    sizes: `--sizes: ${both}; add --tokens N, the training tokens of the whole run, or leave --sizes out`,
    tokens: `--tokens: ${both}; add --sizes NAME=N,…, the tokens of each domain, or leave --tokens out`,
  };
  for (const rule of ruleNames)
    for (const flag of ["sizes", "tokens"] as const) {
      const named = `--${flag} has no effect: rule ${rule} does not use it with these options\n`;
      const used = flag === "sizes" && ["temperature", "ado"].includes(rule);
      const options = { rule: [rule], ...needs[rule] };
      expect(await outcome(flag, options), `${rule} ${flag}`).toBe(
        rule === "dga" ? alone[flag] : used ? "" : named,
      );
      // A combinator uses it.
      const budget = '[{"name":"tokenBudget","budgets":{"a":50,"b":50}}]';
      const cap = '[{"name":"repetitionCap","repetitions":9,"tokens":90}]';
      const combinators = [flag === "tokens" ? budget : cap];
      expect(await outcome(flag, { ...options, combinators }), `${rule} ${flag} ${combinators[0]}`).toBe("");
    }
  expect(await outcome("sizes", { normalise: ["raw"] })).toContain(
    "--sizes has no effect: rule dga does not use it",
  );
  expect(await outcome("sizes", { ruleOptions: ['{"tokens":90}'] })).toBe("");
  // A config file may serve gradmix train too.
  const path = at("tokens.json");
  writeFileSync(path, JSON.stringify({ training: { tokens: 90 } }));
  expect(await outcome("tokens", {}, path)).toBe(
    `training.tokens has no effect: ${both}; add --sizes NAME=N,…, the tokens of each domain\n`,
  );
  expect(await outcome("tokens", { rule: ["odm"] }, path)).toBe("");
});

test("options that the rule does not use are named, also by a replay", () => {
  writeFileSync(at("few.jsonl"), `${JSON.stringify(init)}\n`);
  for (const more of [
    ["--domains", "web,code"],
    ["--replay", "few.jsonl", "--domains", "web,code"],
  ]) {
    const args = ["mix", ...more, "--rule", "uniform", "--eta", "2", "--normalise", "raw"];
    const { status, stdout, stderr } = runCommand(args, { cwd: folder });
    expect(status).toBe(0);
    expect(stderr).toBe(
      "mixing.eta has no effect: rule uniform does not use it\nmixing.normalise has no effect: rule uniform does not use it\n",
    );
    if (more[0] === "--replay") expect(stdout).toContain('"weights":{"web":0.5,"code":0.5}');
  }
});

test("sizes that are not numbers are shown as they were written", async () => {
  const flags = { ...noFlags, domains: "a,b", sizes: "a=100K,b=2" };
  await expect(mixCommand({ config: null, given: new Map(), flags }, silent)).rejects.toThrow(
    '--sizes: "a" is "100K", not a number of at least 0',
  );
});

test("refuses bases in a config file, because the weights would be those of domains", async () => {
  const path = at("bases.json");
  writeFileSync(path, JSON.stringify({ mixing: { bases: "b.json" } }));
  const flags = { ...noFlags, domains: "a,b" };
  await expect(mixCommand({ config: path, given: new Map(), flags }, silent)).rejects.toMatchObject({
    code: "config",
    message: expect.stringMatching(
      /bases\.json: mixing\.bases: gradmix mix does not know what bases contain; leave them out, name the bases/,
    ),
  });
});

test("has a short help that begins with an example", () => {
  const { stdout } = spawnSync(process.execPath, [command, "mix", "--help"], { encoding: "utf8" });
  expect(stdout).toMatch(/^Example: .*\n.*\n {2}\$ gradmix mix/);
  expect(stdout.split("\n").length).toBeLessThan(60);
  // The example prints what the command replies, with three digits.
  const [line = "", shown = ""] = stdout.split("\n").filter((text) => text.startsWith('  {"type"'));
  const { session } = answer(null, { type: "init", domains });
  const { reply } = answer(session, JSON.parse(line));
  const rounded = JSON.stringify(reply, (_, value: unknown) =>
    typeof value === "number" ? Number(value.toPrecision(3)) : value,
  );
  expect(rounded).toContain(shown.trim().replace(/,…\}$/, ""));
});

test("stops when nobody reads its output", async () => {
  const { child, say } = talk("--domains", "web,code");
  await say({ type: "snapshot" });
  child.stdout.destroy();
  child.stdin.write('{"type":"snapshot"}\n');
  // The input stays open.
  const [code] = (await once(child, "exit")) as [number];
  expect(code).toBe(0);
});

describe("files", () => {
  test("kill -9 at any moment loses no acknowledged message, and other messages can be sent again", async () => {
    const files = ["--state-file", "state.json", "--weights-file", "weights.json"];
    const onDisk = (name: string): unknown => JSON.parse(readFileSync(at(name), "utf8"));
    let step = 0;
    const acknowledged = async ({ say }: Talk): Promise<void> => {
      const reply = await say(observe(++step));
      const wanted = sessionAfter(Array.from({ length: step }, (_, s) => s + 1));
      // When the reply is heard it is on disk.
      expect(onDisk("state.json")).toEqual(wanted);
      expect(reply).toMatchObject({ type: "weights", step });
      const weights = Object.fromEntries(domains.map((name, d) => [name, wanted.mixer.rule.weights[d]]));
      expect(onDisk("weights.json")).toEqual({ version: 1, step, weights });
    };
    for (let life = 0; life < 4; life++) {
      const one = talk(...files);
      const { step: kept } = (await one.say(init)) as { step: number };
      // A message that was not acknowledged may have had its effect or not, and is sent again.
      expect([step, step + 1]).toContain(kept);
      await acknowledged(one);
      await acknowledged(one);
      one.child.stdin.write(`${JSON.stringify(observe(step + 1))}\n`);
      await new Promise((go) => setTimeout(go, life));
      one.child.kill("SIGKILL");
      await once(one.child, "exit");
    }
    // One that ends by itself leaves no lock.
    expect(mix(files, "").status).toBe(0);
    expect(readdirSync(folder).filter((name) => name.endsWith(".lock"))).toEqual([]);
  });

  test("an init that contradicts the state file is refused, as a line or as flags, and so is a file that is not a state", () => {
    const other = `${JSON.stringify({ ...init, rule: { name: "odm" } })}\n`;
    expect(mix(["--state-file", "state.json"], other).out).toMatchObject([
      { type: "error", field: "rule.name" },
    ]);
    const flags = mix(["--state-file", "state.json", "--domains", "code,web"]);
    expect([flags.status, flags.err]).toEqual([
      2,
      expect.stringMatching(
        /^gradmix: --state-file state\.json: domains: the session has \["web","code"\].*; for a new session, name another file\n$/,
      ),
    ]);
    for (const [text, message] of [
      ['{"version":1}', /broken\.json: .*the session cannot continue from it/],
      [
        '{"version":2}',
        /version: it is 2, and this gradmix reads 1; continue with the version of gradmix that wrote the state/,
      ],
      ['{"version":', /broken\.json: is not JSON \(.*\); to start a new session, name another file/],
      ["{", /broken\.json: .*JSON/],
    ] as const) {
      writeFileSync(at("broken.json"), text);
      expect(() => createKeeper({ state: at("broken.json"), weights: null })).toThrow(message);
    }
  });

  test("weights that would replace the state by a link are refused", () => {
    writeFileSync(at("kept.json"), "");
    symlinkSync(at("kept.json"), at("link.json"));
    const { status, err } = mix([
      "--domains",
      "a",
      "--state-file",
      "kept.json",
      "--weights-file",
      "link.json",
    ]);
    expect([status, err]).toEqual([
      2,
      "gradmix: --weights-file: link.json would be replaced, but --state-file writes it too; choose another file\n",
    ]);
  });

  test("weights that would replace the lock of the state are refused", () => {
    for (const [state, weights] of [
      ["locked.json", "locked.json.lock"],
      ["./locked.json", join(folder, "locked.json.lock")],
    ])
      expect(mix(["--domains", "a", "--state-file", state, "--weights-file", weights]).err).toBe(
        `gradmix: --weights-file: ${weights} would be replaced, but it is the lock of --state-file; choose another file\n`,
      );
  });

  test("only one process can use a state file, also by a link to it", async () => {
    // The first of them is a link to nothing.
    symlinkSync("mine.json", at("link-to-mine.json"));
    for (const [first, second] of [
      ["link-to-mine.json", "mine.json"],
      ["mine.json", "link-to-mine.json"],
    ]) {
      const { child, say } = talk("--state-file", first);
      await say(init);
      for (const other of [first, second]) {
        const { status, err } = mix(["--state-file", other]);
        expect([status, err]).toEqual([
          2,
          `gradmix: ${other}: is being written by process ${child.pid}; wait for it, or choose another file\n`,
        ]);
      }
      child.stdin.end();
      await once(child, "exit");
    }
  });

  test("a message whose state cannot be saved has no effect", () => {
    const state = at("full.json");
    const keeper = createKeeper({ state, weights: null });
    keeper.message(init);
    const before = keeper.session();
    rmSync(state);
    // A folder stands where the file goes.
    symlinkSync("/dev/null/nowhere", `${state}.x`);
    const blocked = createKeeper({ state: `${state}.x/y`, weights: null });
    expect(blocked.message(init)).toMatchObject({
      type: "error",
      field: null,
      error: expect.stringContaining("cannot be written") as unknown,
    });
    expect(blocked.session()).toBe(null);
    expect(before).not.toBe(null);
  });

  test("nor does one whose files cannot be replaced: the state is the last one, and a new start writes its weights", () => {
    const files = { state: at("last.json"), weights: at("last-weights.json") };
    createKeeper(files).message(init);
    const both = (): string[] => [files.state, files.weights].map((path) => readFileSync(path, "utf8"));
    const before = both();
    const renamed: string[] = [];
    const failing = {
      ...nodeFs,
      renameSync(from: string, to: string) {
        if (to === files.state) throw Object.assign(new Error("failed"), { code: "EIO" });
        renamed.push(to);
        nodeFs.renameSync(from, to);
      },
    };
    const moving = { type: "observe", step: 1, alignments: { web: 1, code: 2 }, standardErrors: { web: 0.1, code: 0.1 } }; // prettier-ignore
    const keeper = createKeeper(files, failing);
    renamed.length = 0;
    expect(keeper.message(moving)).toMatchObject({ type: "error" });
    expect(renamed).toEqual([files.weights]);
    expect(both()).toEqual([before[0], expect.not.stringMatching(before[1])]);
    createKeeper(files);
    expect(both()).toEqual(before);
  });

  test("nor does one whose weights cannot be saved, also after a new start", () => {
    const files = { state: at("both.json"), weights: at("both-weights.json") };
    const keeper = createKeeper(files);
    keeper.message(init);
    const kept = readFileSync(files.state, "utf8");
    rmSync(files.weights);
    mkdirSync(files.weights);
    const moving = { type: "observe", step: 1, alignments: { web: 1, code: 2 }, standardErrors: { web: 0.1, code: 0.1 } }; // prettier-ignore
    expect(keeper.message(moving)).toMatchObject({ type: "error" });
    expect(readFileSync(files.state, "utf8")).toBe(kept);
    rmSync(files.weights, { recursive: true });
    // A new process has not heard of that step, so another message may be sent for it.
    const next = createKeeper(files);
    expect(next.message({ ...moving, alignments: { web: 2, code: 1 } })).toMatchObject({
      step: 1,
      changed: true,
    });
  });
});

describe("lines", () => {
  async function collected(chunks: readonly Uint8Array[], most: number): Promise<Line[]> {
    async function* input(): AsyncGenerator<Uint8Array, void> {
      for (const chunk of chunks) yield chunk;
    }
    const out: Line[] = [];
    for await (const line of linesOf(input(), most)) out.push(line);
    return out;
  }

  test("are found wherever the stream is cut into chunks", async () => {
    const text = `first\nzweite ü\r\n\n${"x".repeat(40)}\n${"y".repeat(41)}\nlast`;
    const bytes = Buffer.from(text);
    for (const size of [1, 2, 3, 7, 1000]) {
      const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
        bytes.subarray(i * size, (i + 1) * size),
      );
      const lines = await collected(chunks, 40);
      expect(lines.map((line) => (typeof line === "string" ? line : line.message))).toEqual([
        "first",
        "zweite ü\r",
        "",
        "x".repeat(40),
        "the message is longer than 40 bytes, the most that is read",
        "last",
      ]);
    }
  });

  test("that are too long are dropped", async () => {
    const chunks: WeakRef<ArrayBuffer>[] = [];
    async function* endless(): AsyncGenerator<Uint8Array, void> {
      for (let i = 0; i < 5; i++) {
        const chunk = new Uint8Array(1000).fill(120);
        chunks.push(new WeakRef(chunk.buffer));
        yield chunk;
      }
      await garbageCollected();
      expect(chunks.slice(0, 3).map((chunk) => chunk.deref())).toEqual([undefined, undefined, undefined]);
      yield Buffer.from("\nnext\n");
    }
    const lines: Line[] = [];
    for await (const line of linesOf(endless(), 2500)) lines.push(line);
    expect(lines).toMatchObject([{ field: null }, "next"]);
  });

  test("that are not UTF-8 are refused, and the next is read", async () => {
    const lines = await collected([Buffer.from([0xff, 0xfe, 10, 0x61, 10])], 40);
    expect(lines.map((line) => (typeof line === "string" ? line : line.message))).toEqual([
      "the message is not valid UTF-8",
      "a",
    ]);
  });

  test("no message is answered after a reply that cannot be written", async () => {
    const full = new Writable({
      write(_chunk, _encoding, done) {
        done(Object.assign(new Error("no space"), { code: "ENOSPC" }));
      },
    });
    let replies = 0;
    await serveLines([Buffer.from("x\ny\n")] as unknown as AsyncIterable<Uint8Array>, full, () => {
      replies++;
      return { type: "error", field: null, error: "" };
    });
    expect(replies).toBe(1);
  });

  test.runIf(existsSync("/dev/full"))("a full disk is reported in one line", () => {
    const full = openSync("/dev/full", "w");
    for (const args of [[], ["--listen", "0"]]) {
      const { status, stderr } = spawnSync(process.execPath, [command, "mix", ...args], {
        input: "{}\n",
        stdio: ["pipe", full, "pipe"],
        encoding: "utf8",
      });
      expect([status, stderr]).toEqual([1, "gradmix: the output could not be written (the disk is full)\n"]);
    }
    closeSync(full);
  });
});

describe("HTTP", () => {
  const token = "a-token-of-enough-characters";
  let keeper: Keeper;
  let server: MixServer;
  let port = 0;
  beforeAll(async () => {
    keeper = createKeeper({ state: null, weights: null });
    server = await startServer(keeper, { host: "127.0.0.1", port: 0, token, mostBytes: 2000 });
    port = Number(new URL(server.url).port);
  });
  afterAll(() => server.close());

  interface Got {
    readonly status: number | undefined;
    readonly reply: Reply;
  }
  async function ask(options: RequestOptions, body: string | null = null, chunked = false): Promise<Got> {
    return new Promise((done, fail) => {
      const sent = request(
        {
          host: "127.0.0.1",
          port,
          agent: false,
          ...options,
          headers: {
            authorization: `Bearer ${token}`,
            ...(options.headers as Readonly<Record<string, string>> | undefined),
          },
        },
        (response) => {
          let text = "";
          response.setEncoding("utf8");
          response.on("data", (part: string) => (text += part));
          response.on("end", () => done({ status: response.statusCode, reply: JSON.parse(text) as Reply }));
        },
      );
      sent.on("error", fail);
      if (body !== null && !chunked) sent.setHeader("content-length", Buffer.byteLength(body));
      sent.end(body ?? undefined);
    });
  }
  const post = async (message: unknown): Promise<Got> =>
    ask({ method: "POST", path: "/" }, JSON.stringify(message));

  test("each request carries one message, and GET returns the weights", async () => {
    const early = await ask({ path: "/weights" });
    expect([early.status, early.reply]).toEqual([
      400,
      { type: "error", field: null, error: "there is no session yet; send init first" },
    ]);
    expect(await post(init)).toMatchObject({ status: 200, reply: { type: "weights", v: 1, step: 0 } });
    const { status, reply } = await post(observe(1));
    expect([status, reply]).toMatchObject([200, { type: "weights", step: 1, changed: true }]);
    const { reply: weights } = await ask({ path: "/weights" });
    expect(weights).toMatchObject({
      type: "weights",
      v: 1,
      step: 1,
      changed: false,
      weights: (reply as { weights: object }).weights,
    });
    expect(await post(observe(0))).toMatchObject({ status: 400, reply: { type: "error", field: "step" } });
    expect(await ask({ method: "POST", path: "/" }, "{")).toMatchObject({
      status: 400,
      reply: { type: "error", field: null },
    });
    expect(keeper.session()).toEqual(sessionAfter([1]));
  });

  const long = "x".repeat(2001);
  test.each<[string, RequestOptions, string | null, number, RegExp]>([
    ["no token", { path: "/weights", headers: { authorization: "" } }, null, 401, /Authorization/],
    [
      "a wrong token",
      { path: "/weights", headers: { authorization: `Bearer ${token}x` } },
      null,
      401,
      /Authorization/,
    ],
    [
      "a part of the token",
      { path: "/weights", headers: { authorization: `Bearer ${token.slice(1)}` } },
      null,
      401,
      /Authorization/,
    ],
    [
      "a token by another name",
      { path: "/weights", headers: { authorization: `Basic ${token}` } },
      null,
      401,
      /Authorization/,
    ],
    [
      "a message without a token",
      { method: "POST", path: "/", headers: { authorization: "" } },
      JSON.stringify(observe(9)),
      401,
      /Authorization/,
    ],
    ["another host", { path: "/weights", headers: { host: "evil.example:80" } }, null, 400, /Host/],
    [
      "this machine by a name that was pointed at it",
      { path: "/weights", headers: { host: "evil.example" } },
      null,
      400,
      /Host/,
    ],
    ["another path", { path: "/other" }, null, 404, /GET \/weights/],
    ["a path above", { path: "/../weights" }, null, 404, /GET \/weights/],
    ["another method", { path: "/" }, null, 405, /POST/],
    ["weights by POST", { method: "POST", path: "/weights" }, "{}", 405, /GET/],
    ["a long body", { method: "POST", path: "/" }, long, 413, /longer than 2000 bytes/],
    [
      "a long body in chunks",
      { method: "POST", path: "/", headers: { "transfer-encoding": "chunked" } },
      long,
      413,
      /longer than 2000 bytes/,
    ],
  ])("%s is refused, and the session does not change", async (_, options, body, status, error) => {
    const before = keeper.session();
    const chunked = options.headers !== undefined && "transfer-encoding" in options.headers;
    const got = await ask(options, body, chunked);
    expect(got).toMatchObject({
      status,
      reply: { type: "error", field: null, error: expect.stringMatching(error) as unknown },
    });
    expect(keeper.session()).toBe(before);
  });

  test("the host may have any name of the loopback address", async () => {
    for (const host of ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
      expect((await ask({ path: "/weights", headers: { host: `${host}:${port}` } })).status).toBe(200);
  });

  test("the command writes its token to a file that only its user can read, and refuses a port that is in use", async () => {
    const { child, next } = talk("--listen", "localhost:0", "--token-file", "token", "--domains", "web,code");
    const told = (await next()) as unknown as { type: string; url: string; tokenFile: string };
    expect(told).toEqual({
      type: "listening",
      url: expect.stringMatching(/^http:\/\/localhost:\d+$/) as unknown,
      tokenFile: "token",
    });
    expect(statSync(at("token")).mode & 0o777).toBe(0o600);
    const secret = readFileSync(at("token"), "utf8").trim();
    expect(secret.length).toBe(43);
    const taken = new URL(told.url).port;
    const got = await ask({
      path: "/weights",
      port: Number(taken),
      headers: { authorization: `Bearer ${secret}` },
    });
    expect(got).toMatchObject({ status: 200, reply: { weights: { web: 0.5, code: 0.5 } } });
    const { status, err } = mix(["--listen", taken, "--token-file", "token"]);
    expect([status, err]).toEqual([
      2,
      `gradmix: --listen: port ${taken} of 127.0.0.1 is in use; choose another, or 0 for any free port\n`,
    ]);
    child.kill("SIGTERM");
    await once(child, "exit");
    writeFileSync(at("short"), "abc\n", { mode: 0o600 });
    writeFileSync(at("open"), `${secret}\n`, { mode: 0o644 });
    for (const [name, message] of [
      ["short", /holds no token of at least 16 characters/],
      ["open", /others can read .*open; chmod 600 it/],
      [
        ".",
        /: .* is a folder, not a file; name a file with a token, or a path at which gradmix creates one$/,
      ],
      ...(process.platform === "win32"
        ? []
        : ([
            // The second one never ends.
            ["/dev/null", /: \/dev\/null is a device or socket, not a file; name a file with a token/],
            ["/dev/zero", /: \/dev\/zero is a device or socket, not a file; name a file with a token/],
          ] as const)),
    ] as const) {
      const flags = { ...noFlags, listen: "0", tokenFile: resolve(at("."), name) };
      await expect(mixCommand({ config: null, given: new Map(), flags }, silent)).rejects.toThrow(message);
    }
  });
});

describe("replay", () => {
  async function replayed(
    lines: readonly unknown[],
    fields: object = {},
    preconditioned = false,
    bases = false,
    isRun = false,
  ): Promise<Reply[]> {
    async function* input(): AsyncGenerator<Line, void> {
      for (const line of lines) yield typeof line === "string" ? line : JSON.stringify(line);
    }
    const out: Reply[] = [];
    const options = { source: "log", init: { ...fields }, preconditioned, bases, isRun };
    for await (const reply of replay(input(), options)) out.push(reply);
    return out;
  }

  test("of messages gives the replies that the process gave", async () => {
    const kept = [init, observe(1), { type: "snapshot" }, { type: "observe", step: 2 }, observe(3)];
    let session: Session | null = null;
    const replies: Reply[] = [];
    for (const message of kept) {
      const made: { session: Session | null; reply: Reply } = answer(session, message);
      session = made.session;
      replies.push(made.reply);
    }
    const [first, one, , , three] = replies;
    // Replies may be in between.
    expect(await replayed([init, ...kept.slice(1), one])).toEqual([first, one, three]);
    // Another rule on the same.
    const other = await replayed(kept, { rule: { ...rule, eta: 0 } });
    expect(other.map((reply) => reply.type === "weights" && reply.weights)).toEqual(
      other.map(() => ({ web: 0.5, code: 0.5 })),
    );
  });

  test("of a log with its replies leaves out what the session refused, and what was sent twice", async () => {
    const bad = { ...observe(2), alignments: { cod: 1 } };
    const error = answer(answer(null, init).session, bad).reply;
    expect(error.type).toBe("error");
    const straight = await replayed([init, observe(1), observe(3)]);
    expect(straight).toHaveLength(3);
    expect(await replayed([init, observe(1), bad, error, observe(3), observe(3)])).toEqual(straight);
    expect(await replayed([init, observe(1), observe(1), observe(3), bad, error])).toEqual(straight);
    const stops = /^log, line 3: alignments\.cod: /;
    await expect(replayed([init, observe(1), bad, observe(3)])).rejects.toThrow(stops);
    await expect(replayed([init, observe(1), bad])).rejects.toThrow(stops);
    await expect(replayed([init, observe(1), bad, straight[0], error])).rejects.toThrow(stops);
  });

  test("of messages in which the trainer starts again, at the same step and from a checkpoint", async () => {
    const sent = [init, observe(1)];
    const checkpoint = sent.reduce<Session | null>(
      (session, message) => answer(session, message).session,
      null,
    );
    const again = { ...init, step: 1 };
    const kept = [...sent, again, { ...again, state: checkpoint }, observe(2), observe(4)];
    const straight = await replayed([...sent, observe(2), observe(4)]);
    expect(await replayed(kept)).toEqual(straight);
    const gone = [...kept, { ...init, state: checkpoint }, observe(2), observe(4)];
    const back = await replayed(gone);
    expect(back.map((reply) => reply.type === "weights" && reply.step)).toEqual([0, 1, 2, 4, 1, 2, 4]);
    expect(back.slice(5)).toEqual(straight.slice(2));
    // Another rule has other weights than the checkpoint.
    const slow = { rule: { ...rule, eta: 0.1 } };
    expect(await replayed(kept, slow)).toEqual(await replayed([...sent, observe(2), observe(4)], slow));
    await expect(replayed(gone, slow)).rejects.toThrow(
      /^log, line 7: state goes from step 4 to step 1, with the weights of the recorded session/,
    );
    await expect(replayed([...sent, { ...init, state: { version: 2 } }], slow)).rejects.toThrow(
      /^log, line 3: state the session cannot continue from it: version/,
    );
    const others = { ...init, domains: ["web", "books"] };
    await expect(replayed([...sent, others])).rejects.toThrow(/^log, line 3: domains/);
  });

  test.each<[unknown[], object, RegExp]>([
    [[], {}, /^log: it has no lines/],
    [["{"], {}, /^log, line 1: is not JSON/],
    [["3"], {}, /^log, line 1: is 3, not an object; give lines of metrics\.jsonl, or messages/],
    [[init, observe(2), observe(1)], {}, /^log, line 3: step: step 1 is before step 2, the last one/],
    [[observe(1)], {}, /^log, line 1: domains: it is missing/],
    [
      [observe(1)],
      { domains: ["web"], sizes: { web: 1, cod: 1 } },
      /^log, the options of its replay: sizes\.cod: it is not a domain/,
    ],
    [
      [{ text: "a" }, { type: "weights" }, { step: 0, event: "start" }],
      {},
      /^log: none of its lines is an init, an observe or the step of a run with measurements, so there is nothing to replay$/,
    ],
    // Replies without their type, and the file of --weights-file.
    [[{ weights: { web: 0.5, code: 0.5 } }], {}, /nothing to replay$/],
    [[{ version: 1, step: 100, weights: { web: 0.5, code: 0.5 } }], {}, /nothing to replay$/],
    [
      [{ step: 1, weights: { web: 1 }, alignments: { web: { value: 1 } } }],
      { rule: { name: "rnb" } },
      /have alignments and targetNorm, but rule rnb needs gram/,
    ],
  ])("names the line that cannot be used: %j", async (lines, fields, error) => {
    await expect(replayed(lines, fields)).rejects.toThrow(error);
  });

  test("of a run with bases uses the tokens of the domains", async () => {
    const line = {
      step: 1,
      weights: { even: 0.5, odd: 0.5 },
      domains: { web: { tokens: 3 }, code: { tokens: 4 }, mail: { tokens: 5 } },
      alignments: { even: { value: 1 }, odd: { value: 0 } },
    };
    const raw = { rule: { name: "dga", normalise: "raw", beta: 1 } };
    const [, moved] = await replayed([line], raw, false, true);
    expect(moved).toMatchObject({ changed: true, diagnostics: { measured: 2 } });
    await expect(replayed([line], { rule: { name: "ado" } }, false, true)).rejects.toThrow(/rule ado needs/);
  });

  test("of a run with many domains, whose lines have some of them", async () => {
    const line = {
      step: 1,
      weights: { web: 0.4, code: 0.4 },
      domains: { web: { tokens: 3 }, mail: { tokens: 4 } },
      alignments: { web: { value: 1 }, code: { value: 0 } },
    };
    const fields = { domains: ["web", "code", "mail"], rule: { name: "dga", normalise: "raw", beta: 1 } };
    const [first, moved] = await replayed([line, { ...line, step: 2 }], fields);
    expect(first).toMatchObject({ weights: { web: 1 / 3, code: 1 / 3, mail: 1 / 3 } });
    expect(moved).toMatchObject({ changed: true, diagnostics: { measured: 2 }, weights: { mail: 1 / 3 } });
  });

  test("stops with an error if the lines of a run lack what the rule needs", async () => {
    const line = { step: 1, weights: { web: 1 }, alignments: { web: { value: 1 } } };
    const init = { rule: { name: "rnb" } };
    const lines = linesOf([Buffer.from(`${JSON.stringify(line)}\n`)] as unknown as AsyncIterable<Uint8Array>);
    const options = { source: "log", init, preconditioned: false, bases: false, isRun: false };
    const replies = replay(lines, options);
    await expect(replies.next()).rejects.toThrow(/rule rnb needs gram/);
  });

  test("of a run stops at lines that are missing or repeated, which would give other weights", async () => {
    const line = (step: number): object => ({
      ...{ step, weights: { web: 0.5, code: 0.5 } },
      ...(step % 2 === 0 ? { alignments: { web: { value: 1 }, code: { value: 0 } } } : {}),
    });
    const start = { step: 0, event: "start" };
    const resumed = (step: number): object => ({ step, event: "resumed", changes: {} });
    const lines = [start, line(1), line(2), resumed(2), line(3), line(4)];
    expect(await replayed(lines, {}, false, false, true)).toEqual(await replayed(lines));
    for (const at of [1, 2, 4, 5])
      for (const other of [
        lines.toSpliced(at, 0, ...lines.slice(at - 1, at + 1)),
        // A last line that is missing may not have been written yet.
        ...(at === 5 ? [] : [lines.toSpliced(at, 1)]),
      ])
        await expect(replayed(other, {}, false, false, true)).rejects.toThrow(
          /^log, line \d+: step is \d, and the line before has \d; a run writes each step once, in order$/,
        );
  });

  test("of alignments preconditioned by Adam works only for a rule that needs them", async () => {
    const line = {
      step: 1,
      weights: { web: 0.5, code: 0.5 },
      alignments: { web: { value: 1, norm: 1 }, code: { value: 0, norm: 1 } },
      targetNorm: 1,
    };
    const adam = { rule: { name: "dga", normalise: "adam", beta: 1 } };
    const [, moved] = await replayed([line], adam, true);
    expect(moved).toMatchObject({ changed: true });
    await expect(replayed([line], adam, false)).rejects.toThrow(/needs preconditionedAlignments/);
    await expect(replayed([line], {}, true)).rejects.toThrow(/needs alignments/);
  });

  test("of a run gives the run's own weights, to the bit", () => {
    for (const [i, name] of ["a", "b", "target"].entries())
      writeFileSync(
        at(`${name}.jsonl`),
        Array.from(
          { length: 30 },
          (_, j) => `{"text":"the ${["dog", "cat", "dog's"][i]} sees ${(j * 7919) % 97} houses"}\n`,
        ).join(""),
      );
    const text = "--domain a=a.jsonl --domain b=b.jsonl --target target.jsonl --tokenizer byte";
    const model = "--dim 8 --layers 1 --heads 1 --context 8 --batch 16 --lr 0.02 --threads 1 --backend cpu";
    const when = "--update-every 4 --steps 16 --eval-every 0 --eval-tokens 16 --quiet --out run";
    const run = runCommand(["train", ...`${text} ${model} ${when}`.split(" ")], { cwd: folder });
    expect([run.status, run.stderr]).toEqual([0, ""]);
    expect(existsSync(at("run/histogram.json"))).toBe(true);
    const lines = readFileSync(at("run/metrics.jsonl"), "utf8").trim().split("\n");
    const steps = lines.map((line) => JSON.parse(line) as { step: number; weights?: Record<string, number> });
    const drawn = new Map(
      steps.flatMap(({ step, weights }) => (weights === undefined ? [] : [[step, weights] as const])),
    );
    const { final } = JSON.parse(readFileSync(at("run/weights.json"), "utf8")) as {
      final: Record<string, number>;
    };
    const { status, out, err } = mix(["--replay", "run"]);
    expect([status, err]).toEqual([0, ""]);
    expect(out.map((reply) => reply.type === "weights" && [reply.step, reply.weights])).toEqual(
      [0, 4, 8, 12, 16].map((step) => [step, drawn.get(step + 1) ?? final]),
    );
    expect(
      new Set(out.map((reply) => JSON.stringify(reply.type === "weights" && reply.weights))).size,
    ).toBeGreaterThan(1);
    // A line that the run is still writing is left for later; a stored message may be the last line without a newline.
    writeFileSync(at("run/metrics.jsonl"), `${lines.join("\n")}\n{"step":17,"tok`);
    const damaged = mix(["--replay", "run"]);
    expect([damaged.status, damaged.err]).toEqual([2, expect.stringContaining("its last line is incomplete, although the run has ended")]); // prettier-ignore
    renameSync(at("run/weights.json"), at("weights.json"));
    expect(mix(["--replay", "run"])).toEqual({ status, out, err });
    writeFileSync(at("run/metrics.jsonl"), `${lines.join("\n")}\n`);
    // Without its facts, the run would be replayed with other options.
    renameSync(at("run/run.json"), at("run.json"));
    for (const path of ["run", "run/metrics.jsonl"])
      expect(mix(["--replay", path]).err).toContain("run: has no run.json, which a run writes before its first step"); // prettier-ignore
    renameSync(at("run/config.json"), at("config.json"));
    expect(mix(["--replay", "run"]).err).toContain("--replay: run is a folder, but not of a run");
    const alone = mix(["--replay", "run/metrics.jsonl"]);
    expect([alone.status, alone.err]).toEqual([0, expect.stringMatching(/^run.metrics\.jsonl is not in the folder of a run, so the rule and the facts of its run are not known; [^\n]*\n$/)]); // prettier-ignore
    expect(alone.out[0]).toMatchObject({ weights: { a: 0.5, b: 0.5 } });
    renameSync(at("config.json"), at("run/config.json"));
    renameSync(at("run.json"), at("run/run.json"));
    // Another rule on what this one measured.
    const other = mix([
      "--replay",
      "run/metrics.jsonl",
      "--rule",
      "dga",
      "--rule-options",
      '{"normalise":"cosine","eta":0}',
    ]);
    expect(other.out.map((reply) => reply.type === "weights" && reply.weights)).toHaveLength(5);
  });

  test.each([
    ["a folder", ["--domains", "texts"]],
    ["a folder and a name", ["--domain", "more=more.jsonl", "--domains", "texts"]],
    ["a field", ["--domains", "mixed.jsonl", "--domain-field", "kind"]],
    ["prepared text", ["--domains", "prepared"]],
  ])("of a run whose domains come from %s, to the bit", (source, domains) => {
    const lines = (word: string, kind: string): string =>
      Array.from({ length: 30 }, (_, j) =>
        JSON.stringify({ text: `the ${word} sees ${(j * 7919) % 97} houses`, kind }),
      ).join("\n");
    mkdirSync(at("texts"), { recursive: true });
    for (const [word, name] of [
      ["dog", "texts/9.jsonl"],
      ["cat", "texts/web page.jsonl"],
      ["cow", "more.jsonl"],
      ["dog's", "target.jsonl"],
    ])
      writeFileSync(at(name), lines(word, name));
    writeFileSync(at("mixed.jsonl"), `${lines("dog", "10")}\n${lines("cat", "b c")}`);
    const gradmix = (args: readonly string[]): void => {
      const { status, stderr } = runCommand(args, { cwd: folder });
      expect([status, stderr]).toEqual([0, args[0] === "train" ? "" : expect.anything()]);
    };
    const run = `run on ${source}`;
    const target = ["--target", "target.jsonl"];
    const given = domains.includes("prepared") ? domains : [...domains, ...target, "--tokenizer", "byte"];
    if (domains.includes("prepared"))
      gradmix(["prepare", "--domains", "texts", ...target, "--tokenizer", "byte", "--out", "prepared"]);
    const model = "--dim 8 --layers 1 --heads 1 --context 8 --batch 16 --lr 0.02 --threads 1 --backend cpu";
    const when = "--update-every 4 --steps 16 --eval-every 0 --eval-tokens 16 --quiet";
    gradmix(["train", "--out", run, ...given, ...`${model} ${when}`.split(" ")]);
    const { final } = JSON.parse(readFileSync(at(`${run}/weights.json`), "utf8")) as {
      final: Record<string, number>;
    };
    const { status, out, err } = mix(["--replay", run]);
    expect([status, err]).toEqual([0, ""]);
    expect(out.at(-1)).toMatchObject({ step: 16, weights: final });
    // The run's configuration has no names, except of prepared text, which is found by its folder.
    const session = mix([`${run}/config.json`], '{"type":"snapshot"}\n');
    const looked = domains.at(domains.indexOf("--domains") + 1);
    if (source === "prepared text")
      expect(session).toMatchObject({
        err: "",
        out: [{ state: { setup: { domains: Object.keys(final) } } }],
      });
    else
      expect([session.status, session.err]).toEqual([
        2,
        `gradmix: ${run}/config.json: data.domainsFrom: gradmix mix does not look for domains in ${looked}, which is not a folder of gradmix cluster, divide or prepare; name all domains with --domains A,B,…\n`,
      ]);
    expect(new Set(Object.values(final)).size).toBeGreaterThan(1);
  });
});

test("the header Host must name this machine with its port, which may be left out for port 80", () => {
  expect(hostHeaders(8123).toSorted()).toEqual(["127.0.0.1:8123", "[::1]:8123", "localhost:8123"]);
  expect(hostHeaders(80).toSorted()).toEqual(
    ["127.0.0.1", "[::1]", "localhost"].flatMap((host) => [host, `${host}:80`]).toSorted(),
  );
});
