/** Serves the page of a run in progress, on the local machine only. */
import { createServer, type IncomingMessage, type Server } from "node:http";
import { errorCode, GradmixError } from "../errors.ts";
import { reasonOf } from "../node/system-errors.ts";
import { followRun } from "./follow.ts";
import type { RunData } from "./page-data.ts";
import { readAssets } from "./page-script.ts";
import { renderPage } from "./render.ts";

export interface WatchOptions {
  /** Port of the server; 0 for any free port. */
  readonly port: number;
  readonly isRunning: (folder: string) => boolean;
}

export interface Watch {
  /** Address of the page. */
  readonly url: string;
  /** The current data of the run. Throws like `readRunRecord`. */
  look(): RunData;
  close(): Promise<void>;
}

interface Answer {
  readonly status: number;
  readonly type?: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const HOST = "127.0.0.1";

/** Starts the server. Throws like `readRunRecord`, and `io` for a port that cannot be used. */
export async function watchRun(folder: string, { port, isRunning }: WatchOptions): Promise<Watch> {
  const follower = followRun(folder, isRunning);
  // Errors of the folder are reported before the server starts.
  follower.look();
  const assets = readAssets();
  const server = createServer((request, response) => {
    const { status, type = "text/plain", body = "", headers = {} } = answerTo(request);
    response.writeHead(status, {
      "Content-Type": `${type}; charset=utf-8`,
      "Cache-Control": "no-store",
      "X-Content-Type-Options": "nosniff",
      ...headers,
    });
    response.end(body);
  });
  const answerTo = (request: IncomingMessage): Answer => {
    const refused = refusal(request, portOf(server));
    if (refused !== null) return { status: refused };
    const [asked, base] = [request.url ?? "/", `http://${HOST}`];
    // A client may send an address that is not a URL, such as "//".
    if (!URL.canParse(asked, base)) return { status: 404 };
    const url = new URL(asked, base);
    if (url.pathname !== "/" && url.pathname !== "/data") return { status: 404 };
    try {
      const { data, version } = follower.look();
      if (url.pathname === "/")
        return { status: 200, type: "text/html", body: renderPage(data, assets, { live: true }) };
      if (url.searchParams.get("after") === version) return { status: 204 };
      return {
        status: 200,
        type: "application/json",
        body: JSON.stringify(data),
        headers: { ETag: version },
      };
    } catch (error) {
      return { status: 500, body: `${error instanceof Error ? error.message : String(error)}\n` };
    }
  };
  await listen(server, port);
  return {
    url: `http://${HOST}:${portOf(server)}/`,
    look: () => follower.look().data.runs[0]!,
    async close() {
      const closed = new Promise((done) => server.close(done));
      server.closeAllConnections();
      await closed;
    },
  };
}

/**
 * The status of a refused request; null for one that is answered. A page on another site whose name was redirected here (DNS rebinding) sends its own
 * name as the host.
 */
function refusal({ method, headers }: IncomingMessage, port: number): number | null {
  if (![`${HOST}:${port}`, `localhost:${port}`].includes(headers.host ?? "")) return 403;
  return method === "GET" || method === "HEAD" ? null : 405;
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : 0;
}

async function listen(server: Server, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => {
      const code = errorCode(error);
      const problem = code === "EADDRINUSE" ? "is in use" : `cannot be used (${reasonOf(code)})`;
      reject(
        new GradmixError("io", `--port ${port}: ${problem}; choose another one, or 0 for any free port`, {
          cause: error,
        }),
      );
    });
    server.listen(port, HOST, resolve);
  });
}
