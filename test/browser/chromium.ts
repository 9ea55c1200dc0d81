/** A page in headless Chromium, from a server of its own, and its report. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { notHere, unpackChromium } from "../../scripts/unpack-chromium.mjs";

/** The reason why Chromium does not run on this machine, or null. */
export function chromiumMissing(): string | null {
  if (notHere !== null) return `Chromium: ${notHere}`;
  const { executable, libraries } = unpackChromium();
  const { status, stderr, error } = spawnSync(executable, ["--version"], {
    env: { ...process.env, LD_LIBRARY_PATH: libraries },
    encoding: "utf8",
    timeout: 20_000,
  });
  return status === 0 ? null : `Chromium does not start (${error?.message ?? stderr.trim()})`;
}

export interface Page {
  /** A module of the site, "/app/readme.js". */
  readonly module: string;
  /** A value for the page, which is in `location.search` as JSON. */
  readonly options?: object;
  /** Whether to send the headers with which threads can share memory. */
  readonly isolated: boolean;
  /** A JSON import map. */
  readonly imports?: Readonly<Record<string, string>>;
}

/** Folders by their paths on the site. */
export type Site = Readonly<Record<string, string>>;

const TYPES: Readonly<Record<string, string>> = {
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** Opens a page and returns what it posts to /report. Rejects with the browser's messages if it reports nothing in time. */
export async function visit(site: Site, page: Page, seconds = 60): Promise<unknown> {
  const profile = mkdtempSync(join(tmpdir(), "gradmix-chromium-"));
  let browser: ChildProcess | null = null;
  let stderr = "";
  const server = createServer();
  try {
    return await new Promise<unknown>((resolve, reject) => {
      const fail = (reason: string): void => reject(new Error(`${page.module}: ${reason}\n${stderr}`));
      setTimeout(() => fail(`no report within ${seconds} s`), seconds * 1000).unref();
      server.on("request", (request, response) => answer(site, page, request, response, resolve));
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo;
        const query = encodeURIComponent(JSON.stringify(page.options ?? null));
        browser = startChromium(`http://127.0.0.1:${port}/?${query}`, profile);
        browser.stderr?.on("data", (text: Buffer) => (stderr += String(text)));
        browser.on("error", (error) => fail(error.message));
        browser.on("exit", (code, signal) => fail(`Chromium ended (${code ?? signal})`));
      });
    });
  } finally {
    await endChromium(browser);
    server.closeAllConnections();
    server.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
  }
}

/** Ends the browser and waits for its end. */
export async function endChromium(browser: ChildProcess | null): Promise<void> {
  if (browser === null || browser.exitCode !== null || browser.signalCode !== null) return;
  const gone = new Promise((done) => browser.once("exit", done));
  // Its helper processes are in its group, and end too.
  if (browser.pid !== undefined) process.kill(-browser.pid, "SIGKILL");
  await gone;
}

/** Starts headless Chromium with its own profile, as the leader of a group of processes. `pipe`: DevTools use the descriptors 3 (in) and 4 (out). */
export function startChromium(url: string, profile: string, pipe: boolean = false): ChildProcess {
  const { executable, libraries } = unpackChromium();
  return spawn(
    executable,
    [
      ...(pipe ? ["--remote-debugging-pipe"] : []),
      "--headless=shell",
      // The sandbox does not work for root in a container, and only our own pages are opened.
      ...["--no-sandbox", "--no-zygote", "--disable-dev-shm-usage"],
      ...["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"],
      ...["--enable-logging=stderr", "--no-first-run", "--disable-background-networking"],
      `--user-data-dir=${profile}`,
      url,
    ],
    {
      env: { ...process.env, LD_LIBRARY_PATH: libraries },
      stdio: ["ignore", "ignore", "pipe", ...(pipe ? (["pipe", "pipe"] as const) : [])],
      detached: true,
    },
  );
}

function answer(
  site: Site,
  page: Page,
  request: IncomingMessage,
  response: ServerResponse,
  report: (value: unknown) => void,
): void {
  const path = normalize(decodeURIComponent((request.url ?? "/").replace(/\?.*$/s, "")));
  if (page.isolated) for (const [name, value] of Object.entries(ISOLATED)) response.setHeader(name, value);
  if (path === "/report") {
    let text = "";
    request.on("data", (part: Buffer) => (text += part.toString()));
    request.on("end", () => {
      response.end();
      report(JSON.parse(text));
    });
    return;
  }
  if (path === "/") {
    response.setHeader("Content-Type", "text/html");
    const map =
      page.imports === undefined
        ? ""
        : `<script type="importmap">${JSON.stringify({ imports: page.imports })}</script>`;
    response.end(`<!doctype html>${map}<script>
      const failed = (error) => fetch("/report", { method: "POST", body: JSON.stringify({ error }) });
      addEventListener("error", ({ message }) => failed(message));
      addEventListener("unhandledrejection", ({ reason }) => failed(String(reason)));
      </script><script type="module" src="${page.module}" onerror="failed('a module could not be loaded')"></script>`);
    return;
  }
  const prefix = Object.keys(site).find((name) => path.startsWith(name));
  try {
    const body = readFileSync(join(site[prefix ?? ""], path.slice((prefix ?? "").length)));
    response.setHeader("Content-Type", TYPES[extname(path)] ?? "application/octet-stream");
    response.end(body);
  } catch {
    response.writeHead(404).end("not there");
  }
}
