/** `gradmix report` and `gradmix watch` from the command line: the files, and refusals before anything is written. */
import { spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { report } from "#dist/cli/report-command.js";
import { writePage } from "#dist/cli/side-files.js";
import type { PageData } from "#dist/report/page-data.js";
import { makeRun } from "../report/made-runs.ts";

const work = mkdtempSync(join(tmpdir(), "gradmix-report-"));
afterAll(() => rmSync(work, { recursive: true, force: true }));
const main = resolve("dist/cli/main.js");

/** Runs the command, without a process of its own; gives what it prints. */
async function run(
  runs: readonly string[],
  more: { out?: string; svg?: string; tensorboard?: string; csv?: boolean } = {},
): Promise<string> {
  let text = "";
  const output = {
    write: (part: string) => void (text += part),
    deliver: (part: string) => Promise.resolve(void (text += part)),
    isTTY: false,
    columns: 80,
    behind: false,
    lost: null,
    flush: () => Promise.resolve(true),
  };
  const { out = null, svg = null, tensorboard = null, csv = false } = more;
  expect(await report({ runs, out, svg, tensorboard, csv }, output)).toBe(0);
  return text;
}

test("the page of one run is written into its folder, and other files to the given places", async () => {
  const folder = makeRun(join(work, "one"), { steps: 10 });
  const place = join(work, "asked");
  const text = await run([folder], {
    svg: join(place, "svg"),
    tensorboard: join(place, "events"),
    csv: true,
  });
  const written = Array.from(text.matchAll(/^written to (.*)$/gm), ([, path]) => path);
  expect(written[0]).toBe(join(folder, "report.html"));
  expect(written.every((path) => existsSync(path))).toBe(true);
  expect(written.length).toBe(1 + readdirSync(join(place, "svg")).length + 1 + 1);
  expect(text).toMatch(/^The held-out loss on the target fell from/);
  // The mixture in the formats of trainers, whose shares are those of the table.
  const data = /<script type="application\/json" id="data">(.*)<\/script>/.exec(
    readFileSync(written[0], "utf8"),
  )?.[1];
  const [{ exports, domains }] = (JSON.parse(data ?? "") as PageData).runs;
  expect(exports.map(({ name }) => name)).toEqual(expect.arrayContaining(["csv", "megatron", "hf-datasets"]));
  const csv =
    exports
      .find(({ name }) => name === "csv")
      ?.text.trim()
      .split("\n")
      .slice(1) ?? [];
  expect(csv.length).toBe(domains.length);
  // Equal input gives an equal page.
  const page = readFileSync(written[0]);
  await run([folder]);
  expect(readFileSync(written[0])).toEqual(page);
});

test("runs whose folders have one name have their own event files", async () => {
  const runs = ["a/run", "b/run", "x/b/run", "single"].map((name) =>
    makeRun(join(work, "events", name), { steps: 4 }),
  );
  const place = join(work, "event-files");
  const text = await run(runs, { out: join(work, "several.html"), tensorboard: place });
  const written = Array.from(text.matchAll(/^written to (.*tfevents.*)$/gm), ([, path]) => path);
  expect(written.map((path) => relative(place, dirname(path)))).toEqual([
    "a/run",
    "events/b/run",
    "x/b/run",
    "single",
  ]);
  expect(written.every((path) => existsSync(path))).toBe(true);
});

test("event files of the same run are replaced, and those of anything else are kept and refused", async () => {
  const [one, other] = ["p/run", "q/run"].map((name) => makeRun(join(work, "again", name), { steps: 4 }));
  const place = join(work, "again-events");
  const events = (): string[] => readdirSync(join(place, "run"));
  const out = join(work, "again.html");
  for (const _ of [1, 2]) await run([one], { out, tensorboard: place });
  const [own] = events();
  expect(events()).toEqual([own]);
  rmSync(out);
  const refused =
    /again-events\/run: has event files of something else than .* \(events\.out\.tfevents\..*\)/;
  await expect(run([other], { out, tensorboard: place })).rejects.toThrow(refused);
  writeFileSync(join(place, "run", "events.out.tfevents.mine"), "");
  await expect(run([one], { out, tensorboard: place })).rejects.toThrow(refused);
  expect(events().sort()).toEqual([own, "events.out.tfevents.mine"].sort());
  expect(existsSync(out)).toBe(false);
});

test("the page of several runs does not replace that of the run in the current folder", async () => {
  const runs = ["here", "there"].map((name) => makeRun(join(work, "current", name), { steps: 4 }));
  await run([runs[0]]);
  const page = readFileSync(join(runs[0], "report.html"));
  const before = process.cwd();
  process.chdir(runs[0]);
  try {
    await expect(run([".", "../there"])).rejects.toThrow(
      "report.html here is the page of a single run; name another file for the page of these 2 runs with --out FILE",
    );
    for (const name of ["lock", "lock.0123456789abcdef"])
      await expect(run(["."], { out: name })).rejects.toThrow(/it is a part of what gradmix wrote in/);
    await run(["."], { out: "lock.html" });
  } finally {
    process.chdir(before);
  }
  expect(readFileSync(join(runs[0], "report.html"))).toEqual(page);
  expect(existsSync(join(runs[0], "lock.html"))).toBe(true);
});

test("a folder with control characters in its name gives lines and figures without them", async () => {
  const folder = makeRun(join(work, "new\nline\u001b[31m\u0001"), { steps: 4 });
  const place = join(work, "controlled");
  const text = await run([folder], { svg: place });
  expect(text).not.toMatch(/[^\P{Cc}\n]/u);
  expect(text).toMatch(/^written to .*new line\\u001b\[31m\\u0001\/report\.html$/m);
  for (const name of readdirSync(place))
    expect(readFileSync(join(place, name), "utf8")).not.toMatch(/[^\P{Cc}\n]/u);
});

describe("the command is refused in one line, and nothing is written:", () => {
  const good = makeRun(join(work, "good"), { steps: 10 });
  const empty = makeRun(join(work, "empty"), { steps: 10 });
  writeFileSync(join(empty, "metrics.jsonl"), "");
  const unwritten = makeRun(join(work, "unwritten"), { steps: 10 });
  rmSync(join(unwritten, "metrics.jsonl"));
  const broken = makeRun(join(work, "broken"), { steps: 10 });
  writeFileSync(join(broken, "metrics.jsonl"), '{"step": 1}\n');
  const twice = makeRun(join(work, "twice"), { steps: 10 });
  const lines = readFileSync(join(twice, "metrics.jsonl"), "utf8").split("\n");
  writeFileSync(join(twice, "metrics.jsonl"), [...lines.slice(0, 4), lines[3], ""].join("\n"));
  // As a run writes it to model/ and best/, and as anybody may have it elsewhere.
  const [ofRun, elsewhere] = [join(good, "best"), join(work, "weights")];
  for (const model of [ofRun, elsewhere]) {
    mkdirSync(model);
    for (const name of ["config.json", "model.safetensors"]) writeFileSync(join(model, name), "{}");
  }
  const other = makeRun(join(work, "other"), { steps: 10, target: "another" });

  test.each([
    ["no run", [good, work], /contains no run \(there is no .*config\.json\); give the folder of a run/],
    ["a folder that is not there", [join(work, "nowhere")], /nowhere: contains no run/],
    ["nothing measured", [empty], /empty: has no measurements yet; wait for its first step/],
    ["no measurements at all", [unwritten], /unwritten: has no measurements yet; wait for its first step/],
    ["a broken line", [good, broken], /broken\/metrics\.jsonl, line 1: tokens is missing/],
    ["a step twice", [twice], /twice\/metrics\.jsonl: a line of step 3 follows one of step 3/],
    ["one run twice", [good, `${good}/`], /good\/: is listed twice/],
    [
      "the model of a run",
      [ofRun],
      `${ofRun}: is the folder of a model, not of a run; give that of the run, ${good}`,
    ],
    ["a model", [elsewhere], "weights: is the folder of a model, not of a run; give the folder of a run"],
    ["other targets", [good, other], /good and .*other have different targets/],
  ])("%s", async (_, runs, message) => {
    const place = join(work, "refused");
    await expect(
      run(runs, { out: join(place, "a.html"), svg: place, tensorboard: place, csv: true }),
    ).rejects.toThrow(message);
    expect(existsSync(place)).toBe(false);
    expect(runs.some((folder) => existsSync(join(folder, "metrics.csv")))).toBe(false);
    // The page of a single run goes to its own folder.
    if (runs.length === 1) await expect(run(runs)).rejects.toThrow(message);
  });

  test("when started as a command, with exit code 2", () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, "report", work], {
      encoding: "utf8",
    });
    expect([status, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^gradmix: .*contains no run.*\n$/);
  });
});

test("a page that cannot be written is reported in one line, and the run continues", async () => {
  const lines: string[] = [];
  expect(await writePage([join(work, "nowhere")], (line) => lines.push(line))).toBeNull();
  expect(lines).toEqual([expect.stringMatching(/nowhere\/report\.html was not written: .*contains no run/)]);
});

test("watch serves until Ctrl-C, and says when the run has ended", async () => {
  const folder = makeRun(join(work, "watched"), { steps: 5 });
  const child = spawn(process.execPath, [main, "watch", folder, "--port", "0"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (text: Buffer) => (out += String(text)));
  const ended = new Promise<number | null>((done) => child.once("exit", done));
  await new Promise<void>((told) => {
    child.stderr.on("data", (text: Buffer) => {
      err += String(text);
      if (err.includes("\n")) told();
    });
  });
  const [url = ""] = /http:\/\/127\.0\.0\.1:\d+\//.exec(out) ?? [];
  expect((await fetch(url)).status).toBe(200);
  child.kill("SIGINT");
  expect(await ended).toBe(0);
  expect(err).toBe("the run has ended after 5 steps; the page stays until Ctrl-C\n");
  const { status, stderr } = spawnSync(process.execPath, [main, "watch", folder, "--port", "70000"], {
    encoding: "utf8",
  });
  expect([status, stderr]).toEqual([2, "gradmix: --port 70000: must be a whole number from 0 to 65535\n"]);
});
