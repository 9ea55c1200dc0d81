/** Serves the page of a run that goes on, on this machine alone. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { errorCode, GradmixError } from "../errors.ts";
import { reasonOf } from "../node/system-errors.ts";
import { followRun } from "./follow.ts";
import type { RunData } from "./page-data.ts";
import { readAssets } from "./page-script.ts";
import { renderPage } from "./render.ts";

export interface WatchOptions {
  /** 0: any that is free. */
  readonly port: number;
  readonly isRunning: (folder: string) => boolean;
}

export interface Watch {
  /** Where the page is. */
  readonly url: string;
  /** What is known of the run now. Throws as `readRunRecord`. */
  look(): RunData;
  close(): Promise<void>;
}

const HOST = "127.0.0.1";

/** Throws as `readRunRecord`, and `io` for a port that cannot be had. */
export async function watchRun(folder: string, { port, isRunning }: WatchOptions): Promise<Watch> {
  const follower = followRun(folder, isRunning);
  // What is wrong with the folder is said before there is a server.
  follower.look();
  const assets = readAssets();
  const server = createServer((request, response) => {
    const refused = refusal(request, portOf(server));
    if (refused !== null) return send(response, refused, "text/plain", "");
    try {
      const { data, version } = follower.look();
      const url = new URL(request.url ?? "/", `http://${HOST}`);
      if (url.pathname === "/data")
        return url.searchParams.get("after") === version
          ? send(response, 204, "application/json", "")
          : send(response, 200, "application/json", JSON.stringify(data), { ETag: version });
      if (url.pathname !== "/") return send(response, 404, "text/plain", "not there\n");
      return send(response, 200, "text/html", renderPage(data, assets, { live: true }));
    } catch (error) {
      return send(response, 500, "text/plain", `${error instanceof Error ? error.message : String(error)}\n`);
    }
  });
  await listen(server, port);
  return {
    url: `http://${HOST}:${portOf(server)}/`,
    look: () => follower.look().data.runs[0],
    async close() {
      const closed = new Promise((done) => server.close(done));
      server.closeAllConnections();
      await closed;
    },
  };
}

/** The status for a request that is not answered. A page of elsewhere whose name was made to lead here says its own name as the host. */
function refusal({ method, headers }: IncomingMessage, port: number): number | null {
  if (![`${HOST}:${port}`, `localhost:${port}`].includes(headers.host ?? "")) return 403;
  return method === "GET" || method === "HEAD" ? null : 405;
}

function send(
  response: ServerResponse,
  status: number,
  type: string,
  body: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, {
    "Content-Type": `${type}; charset=utf-8`,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    ...headers,
  });
  response.end(body);
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : 0;
}

async function listen(server: Server, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => {
      const code = errorCode(error);
      const why = code === "EADDRINUSE" ? "is in use" : `cannot be had (${reasonOf(code)})`;
      reject(
        new GradmixError("io", `--port ${port}: ${why}; choose another one, or 0 for any that is free`, {
          cause: error,
        }),
      );
    });
    server.listen(port, HOST, resolve);
  });
}
