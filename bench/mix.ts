/**
 * The time that a trainer waits for `gradmix mix`: milliseconds from the first byte of an `observe` to the last of its reply, over pipes and over HTTP, with and without a
 * state file; and the part of it that the protocol itself takes. Options: --k N domains (1000), --updates N (200), --rule NAME (dga, or another rule that needs
 * alignments).
 *
 * Each observe holds alignments, standard errors, norms and tokens of every domain, and is a line of text before the clock starts; the reply is text when it stops.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { GradmixError } from "gradmix";
import { answerLine, type Session } from "#dist/mix/protocol.js";
import { random } from "./_languages.js";
import { readOptions } from "./_options.js";
import type { BenchOptions } from "./main.ts";

const command = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

interface Times {
  readonly way: string;
  readonly least: number;
  readonly median: number;
  readonly p95: number;
  readonly largest: number;
}

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["k", "updates", "rule"]);
  const [k, updates] = [read.count("k", 1000), read.count("updates", 200)];
  const rule = read.text("rule") ?? "dga";
  const domains = Array.from({ length: k }, (_, i) => `domain ${i}`);
  const init = { type: "init", domains, rule: { name: rule } };
  const next = random(3);
  const numbers = (): Record<string, number> => Object.fromEntries(domains.map((name) => [name, next()]));
  const observe = (step: number): object => ({
    type: "observe",
    step,
    alignments: numbers(),
    standardErrors: numbers(),
    norms: numbers(),
    targetNorm: 1,
    tokens: numbers(),
  });
  const folder = mkdtempSync(join(tmpdir(), "gradmix-bench-mix-"));
  try {
    const times = [
      protocolAlone(init, observe, updates),
      await overPipes("pipes", [], init, observe, updates),
      await overPipes(
        "pipes, state file",
        ["--state-file", join(folder, "state.json")],
        init,
        observe,
        updates,
      ),
      await overHttp(folder, init, observe, updates),
    ];
    return { k, updates, rule, lineBytes: JSON.stringify(observe(1)).length, milliseconds: times };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The first ones are not counted, because code is still being compiled. */
const WARM = 20;

function summary(way: string, milliseconds: readonly number[]): Times {
  const sorted = milliseconds.slice(WARM).toSorted((a, b) => a - b);
  const at = (share: number): number =>
    Number((sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN).toFixed(3));
  return { way, least: at(0), median: at(0.5), p95: at(0.95), largest: at(1) };
}

/** Calls once for each update, and for those before that do not count. */
async function timed(
  way: string,
  updates: number,
  observe: (step: number) => object,
  say: (line: string) => Promise<string>,
): Promise<Times> {
  const times: number[] = [];
  for (let step = 1; step <= updates + WARM; step++) {
    const line = JSON.stringify(observe(step));
    const start = performance.now();
    const reply = await say(line);
    times.push(performance.now() - start);
    if (!reply.startsWith('{"type":"weights"')) throw new GradmixError("data", reply.slice(0, 200));
  }
  return summary(way, times);
}

function protocolAlone(init: object, observe: (step: number) => object, updates: number): Times {
  let session: Session | null = null;
  const times: number[] = [];
  for (let step = 0; step <= updates + WARM; step++) {
    const line = JSON.stringify(step === 0 ? init : observe(step));
    const start = performance.now();
    const made: ReturnType<typeof answerLine> = answerLine(session, line);
    JSON.stringify(made.reply);
    if (step > 0) times.push(performance.now() - start);
    session = made.session;
  }
  return summary("the protocol alone", times);
}

async function overPipes(
  way: string,
  args: readonly string[],
  init: object,
  observe: (step: number) => object,
  updates: number,
): Promise<Times> {
  const child = spawn(process.execPath, [command, "mix", ...args], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const say = async (line: string): Promise<string> => {
    child.stdin.write(`${line}\n`);
    const { value, done } = await lines.next();
    return done === true ? "it ended" : value;
  };
  try {
    await say(JSON.stringify(init));
    return await timed(way, updates, observe, say);
  } finally {
    child.stdin.end();
  }
}

async function overHttp(
  folder: string,
  init: object,
  observe: (step: number) => object,
  updates: number,
): Promise<Times> {
  const tokenFile = join(folder, "token");
  const child = spawn(process.execPath, [command, "mix", "--listen", "0", "--token-file", tokenFile], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const { value } = await createInterface(child.stdout)[Symbol.asyncIterator]().next();
    const { url } = JSON.parse(String(value)) as { url: string };
    const authorization = `Bearer ${readFileSync(tokenFile, "utf8").trim()}`;
    const say = async (line: string): Promise<string> =>
      new Promise((resolve, reject) => {
        const sent = request(url, { method: "POST", headers: { authorization } }, (response) => {
          const parts: Buffer[] = [];
          response.on("data", (part: Buffer) => parts.push(part));
          response.on("end", () => resolve(Buffer.concat(parts).toString()));
        });
        sent.on("error", reject);
        sent.end(line);
      });
    await say(JSON.stringify(init));
    return await timed("HTTP", updates, observe, say);
  } finally {
    child.kill();
  }
}
