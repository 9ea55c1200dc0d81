/**
 * Runs commands of `gradmix` one after another in this process, for `served.ts`. Arguments: a FIFO of requests, and one of responses. Ends when nobody
 * can send a request any more.
 */
import { openSync, rmSync, writeSync } from "node:fs";
import { Socket } from "node:net";
import { dirname } from "node:path";
import { createInterface } from "node:readline";
import { PassThrough, Readable } from "node:stream";
import { main } from "../../dist/cli/program.js";

const [requests, responses] = process.argv.slice(2);
const answers = openSync(responses, "w");
const lines = createInterface({
  input: new Socket({ fd: openSync(requests, "r"), readable: true, writable: false }),
});

/** Events on which a command listens until its process ends. */
const events = ["exit", "uncaughtException", "SIGINT", "SIGTERM", "SIGHUP"];

/** Replaces a stream of the process. Returns what is written to it. */
function collect(name) {
  const chunks = [];
  const stream = new PassThrough();
  stream.on("data", (chunk) => chunks.push(chunk));
  Object.defineProperty(process, name, { configurable: true, get: () => stream });
  return () => Buffer.concat(chunks).toString("utf8");
}

function setEnvironment(env) {
  for (const name of Object.keys(process.env)) if (!Object.hasOwn(env, name)) delete process.env[name];
  Object.assign(process.env, env);
}

async function run({ args, cwd, env, input }) {
  process.chdir(cwd);
  setEnvironment(env);
  Object.defineProperty(process, "stdin", { configurable: true, value: Readable.from([Buffer.from(input)]) });
  const [stdout, stderr] = [collect("stdout"), collect("stderr")];
  const before = new Map(events.map((event) => [event, new Set(process.listeners(event))]));
  const status = await main(args);
  // As when the process ends.
  for (const [event, known] of before)
    for (const listener of process.rawListeners(event)) {
      if (known.has(listener.listener ?? listener)) continue;
      process.removeListener(event, listener);
      if (event === "exit") listener.call(process, status);
    }
  // What a stream has taken arrives at its listener in the next turn.
  await new Promise((resolve) => setImmediate(resolve));
  return { status, stdout: stdout(), stderr: stderr() };
}

for await (const line of lines) {
  const answer = Buffer.from(`${JSON.stringify(await run(JSON.parse(line)))}\n`);
  for (let at = 0; at < answer.length;) at += writeSync(answers, answer, at);
}
// Its parent may have been killed.
rmSync(dirname(requests), { recursive: true, force: true });
process.exit(0);
