/** Serves the protocol over HTTP, to processes on the same machine that know the token. */
import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { errorCode, GradmixError } from "../errors.ts";
import { MessageError } from "./fields.ts";
import type { Keeper } from "./keeper.ts";
import { decoded, MOST_BYTES, tooLong } from "./lines.ts";
import { currentReply, type ErrorReply, errorReply, type Reply } from "./protocol.ts";

/** Options of `startServer`. */
export interface ServerOptions {
  /** A loopback host: "127.0.0.1", "localhost" or "::1". */
  readonly host: string;
  /** Port number; 0 chooses a free port. */
  readonly port: number;
  /** Secret that requests must send as `Authorization: Bearer TOKEN`. */
  readonly token: string;
  /** Largest number of bytes of a request's body. Default 64 MiB. */
  readonly mostBytes?: number;
}

/** A running server. */
export interface MixServer {
  /** Address of the server, without a slash at the end. */
  readonly url: string;
  /** Stops the server and closes all connections. */
  close(): Promise<void>;
}

/** Loopback hosts that can be given, with the address that each stands for. */
const loopbackHosts: Readonly<Record<string, string>> = {
  "127.0.0.1": "127.0.0.1",
  localhost: "127.0.0.1",
  "::1": "::1",
};

/** Starts a server. Throws `config` for a host that is not a loopback host, and for a port that cannot be opened. */
export async function startServer(keeper: Keeper, options: ServerOptions): Promise<MixServer> {
  const { host, port, token, mostBytes = MOST_BYTES } = options;
  const address = loopbackHosts[host];
  if (address === undefined)
    throw new GradmixError(
      "config",
      `--listen: the host ${host} may be reachable from other machines; it must be one of ${Object.keys(loopbackHosts).join(", ")}`,
    );
  let hosts: readonly string[] = [];
  const server = createServer((request, response) => {
    void handle(request, { keeper, hosts, token, mostBytes }).then((made) => send(response, made));
  });
  await listening(server, port, address);
  const { port: taken } = server.address() as AddressInfo;
  // Only these Host headers are accepted, because a web page could point its own name at this address (DNS rebinding).
  hosts = hostHeaders(taken);
  return {
    url: `http://${bracketed(host)}:${taken}`,
    close: async () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** The accepted values of a request's Host header, for a port. Clients leave out the port if it is 80, the default of HTTP. */
export function hostHeaders(port: number): string[] {
  return Object.keys(loopbackHosts).flatMap((name) => [
    `${bracketed(name)}:${port}`,
    ...(port === 80 ? [bracketed(name)] : []),
  ]);
}

const bracketed = (host: string): string => (host.includes(":") ? `[${host}]` : host);

async function listening(server: Server, port: number, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) => {
      const code = errorCode(error);
      const reason =
        code === "EADDRINUSE"
          ? "is in use; choose another, or 0 for any free port"
          : code === "EACCES"
            ? "is reserved for the administrator; choose one above 1023, or 0"
            : `cannot be used (${code})`;
      reject(new GradmixError("config", `--listen: port ${port} of ${address} ${reason}`, { cause: error }));
    });
    server.listen(port, address, resolve);
  });
}

interface Serving {
  readonly keeper: Keeper;
  /** Accepted values of the Host header. */
  readonly hosts: readonly string[];
  readonly token: string;
  readonly mostBytes: number;
}

interface Response {
  readonly status: number;
  readonly reply: Reply;
}

const refusal = (status: number, error: string): Response => ({
  status,
  reply: { type: "error", field: null, error } satisfies ErrorReply,
});

async function handle(request: IncomingMessage, serving: Serving): Promise<Response> {
  const { keeper, hosts, token, mostBytes } = serving;
  const { method = "", url = "", headers } = request;
  if (!hosts.includes((headers.host ?? "").toLowerCase()))
    return refusal(400, "the header Host is not this server; use the address that it printed");
  const path = url.split("?")[0] ?? "";
  const allowed = new Map([
    ["/", "POST"],
    ["/weights", "GET"],
  ]).get(path);
  if (allowed === undefined)
    return refusal(404, "not found; the server answers POST / with a message, and GET /weights");
  if (!knowsToken(headers.authorization, token))
    return refusal(
      401,
      "the header Authorization must be: Bearer TOKEN, with the token that the server printed",
    );
  if (method !== allowed) return refusal(405, `the method of ${path} must be ${allowed}`);
  if (method === "GET") {
    const session = keeper.session();
    return session === null
      ? refusal(400, "there is no session yet; send init first")
      : { status: 200, reply: currentReply(session) };
  }
  const body = await bodyOf(request, mostBytes);
  if (body === null) return { status: 413, reply: errorReply(tooLong(mostBytes)) };
  const text = decoded(body);
  const reply = text instanceof MessageError ? errorReply(text) : keeper.line(text);
  return { status: reply.type === "error" ? 400 : 200, reply };
}

/** Whether a header contains the token. It compares digests of equal length in constant time, so the time does not reveal a part of the token. */
function knowsToken(header: string | undefined, token: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(header ?? ""), digest(`Bearer ${token}`));
}

/** Reads the body of a request; null if it is longer than `most` bytes. */
async function bodyOf(request: IncomingMessage, most: number): Promise<Uint8Array | null> {
  if (Number(request.headers["content-length"] ?? 0) > most) return null;
  return new Promise((resolve) => {
    let parts: Uint8Array[] = [];
    let size = 0;
    request.on("data", (part: Buffer) => {
      size += part.length;
      if (size <= most) parts.push(part);
      else {
        parts = [];
        resolve(null);
      }
    });
    request.on("end", () => resolve(Buffer.concat(parts)));
    // The client has closed the connection, so it gets no reply, and an incomplete body must not be used.
    request.on("error", () => resolve(Buffer.alloc(0)));
  });
}

function send(response: ServerResponse, { status, reply }: Response): void {
  const text = `${JSON.stringify(reply)}\n`;
  response.on("error", () => {});
  response.writeHead(status, {
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(text),
    "Cache-Control": "no-store",
    ...(status === 401 ? { "WWW-Authenticate": "Bearer" } : {}),
  });
  response.end(text);
}
