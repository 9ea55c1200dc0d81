/** The server of `gradmix watch`: which requests it answers, and what it reads. */
import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { followRun } from "#dist/report/follow.js";
import { readPageData } from "#dist/report/index.js";
import { watchRun } from "#dist/report/serve.js";
import { domainNames, makeRun } from "./made-runs.ts";

const work = mkdtempSync(join(tmpdir(), "gradmix-watch-"));
afterAll(() => rmSync(work, { recursive: true, force: true }));

interface Reply {
  readonly status: number;
  readonly etag: string;
  readonly body: string;
}

async function ask(
  url: string,
  options: { method?: string; host?: string; path?: string } = {},
): Promise<Reply> {
  const { method = "GET", host, path = new URL(url).pathname + new URL(url).search } = options;
  return new Promise((resolve, reject) => {
    request(url, { method, path, headers: host === undefined ? {} : { Host: host } }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (text: string) => (body += text));
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, etag: response.headers.etag ?? "", body }),
      );
    })
      .on("error", reject)
      .end();
  });
}

test("the server answers only reading requests, under this machine's names and for what exists; an unchanged run is not sent again", async () => {
  const folder = makeRun(join(work, "served"), { steps: 10 });
  const watch = await watchRun(folder, { port: 0, isRunning: () => false });
  try {
    const { port } = new URL(watch.url);
    const page = await ask(watch.url);
    expect(page.status).toBe(200);
    expect(page.body).toContain("connect-src 'self'");
    expect((await ask(watch.url, { host: `localhost:${port}` })).status).toBe(200);
    for (const host of [
      "evil.example",
      `evil.example:${port}`,
      "127.0.0.1",
      `127.0.0.1.evil.example:${port}`,
    ])
      expect((await ask(watch.url, { host })).status, host).toBe(403);
    expect((await ask(watch.url, { method: "POST" })).status).toBe(405);
    expect((await ask(`${watch.url}../config.json`)).status).toBe(404);
    // What is no URL does not end the server.
    for (const path of ["//", "///", "//:", "/%zz", "*"])
      expect((await ask(watch.url, { path })).status, path).toBe(404);
    const data = await ask(`${watch.url}data`);
    expect(JSON.parse(data.body)).toEqual(readPageData([folder]));
    expect((await ask(`${watch.url}data?after=${encodeURIComponent(data.etag)}`)).status).toBe(204);
    // The port is taken now.
    await expect(watchRun(folder, { port: Number(port), isRunning: () => true })).rejects.toThrow(
      `--port ${port}: is in use; choose another one, or 0 for any free port`,
    );
    // A run that was deleted is reported, and the server keeps running.
    rmSync(join(folder, "config.json"));
    rmSync(join(folder, "run.json"));
    const gone = await ask(watch.url);
    expect([gone.status, gone.body]).toEqual([500, expect.stringContaining("contains no run")]);
  } finally {
    await watch.close();
  }
  await expect(watchRun(work, { port: 0, isRunning: () => true })).rejects.toThrow("contains no run");
});

test("the weights of a run that wrote its last line before them are sent when they are there", () => {
  // With many domains, the weights of all are only in weights.json.
  const folder = makeRun(join(work, "ends"), { steps: 12, domains: domainNames(150) });
  let running = true;
  const { look } = followRun(folder, () => running);
  const [before, again] = [look(), look()];
  expect(before.data.runs[0].state).toBe("done");
  expect(again.version).toBe(before.version);
  running = false;
  const after = look();
  const known = ({ data }: typeof after): number =>
    data.runs[0].domains.filter(({ averaged }) => averaged !== null).length;
  expect([known(before), known(after)]).toEqual([0, 150]);
  expect(after.version).not.toBe(before.version);
});

test("a run that grows by parts of lines, or returns to a checkpoint, is read as it is", () => {
  const folder = makeRun(join(work, "grows"), { steps: 12 });
  const metrics = join(folder, "metrics.jsonl");
  const text = readFileSync(metrics);
  writeFileSync(metrics, "");
  // A run has no weights while it trains.
  rmSync(join(folder, "weights.json"));
  const { look } = followRun(folder, () => false);
  expect(look().data.runs[0].step).toBe(0);
  const versions = new Set<string>();
  // Pieces that end within lines, and within letters of them.
  for (let at = 0; at < text.length; at += 501) {
    appendFileSync(metrics, text.subarray(at, at + 501));
    const { data, version } = look();
    versions.add(version);
    if (data.runs[0].step > 0) expect(data).toEqual(readPageData([folder]));
  }
  expect(look().data.runs[0].step).toBe(12);
  expect(versions.size).toBe(13);
  // Resumed from step 5, and already beyond where it was: the same length of file, other lines.
  const lines = text.toString().split("\n");
  truncateSync(metrics, Buffer.byteLength(`${lines.slice(0, 6).join("\n")}\n`));
  expect(look().data.runs[0].step).toBe(5);
  writeFileSync(metrics, text);
  expect(look().data.runs[0].step).toBe(12);
  truncateSync(metrics, Buffer.byteLength(`${lines.slice(0, 6).join("\n")}\n`));
  writeFileSync(metrics, text);
  // Written over by a longer file, whose lines lie elsewhere.
  writeFileSync(
    metrics,
    `${JSON.stringify({ ...(JSON.parse(lines[0]) as object), note: "x".repeat(333) })}\n${lines.slice(1).join("\n")}`,
  );
  appendFileSync(metrics, `${lines[12].replace('"step":12', '"step":13')}\n`);
  expect(look().data.runs[0].step).toBe(13);
  writeFileSync(metrics, text);
  const later = new Date(Date.now() + 5000);
  utimesSync(join(folder, "run.json"), later, later);
  expect(look().data).toEqual(readPageData([folder]));
});
