/** `gradmix mix --listen`: serves the session of a keeper over HTTP, and tells where. */
import type { Keeper } from "../mix/keeper.ts";
import { newToken, tokenOf } from "./mix-token.ts";
import { configError } from "./values.ts";

/** An address on which the command listens. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Parses HOST:PORT, [HOST]:PORT or PORT. */
export function addressOf(text: string): Address {
  const [, bracketed, plain, digits] = /^(?:(?:\[([^\]]*)\]|([^:]*)):)?(\d+)$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits === undefined || port > 65_535)
    throw configError(
      `--listen: "${text}" is not [HOST:]PORT, such as 8123, 127.0.0.1:8123 or 0 for any free port`,
    );
  return { host: bracketed ?? plain ?? "127.0.0.1", port };
}

/**
 * Serves the session until a signal ends the process; returns earlier only if nobody reads the line that has the address. The state of every reply
 * has been written to disk.
 */
export async function listen(keeper: Keeper, address: Address, tokenFile: string | null): Promise<void> {
  const [{ startServer }, { writeLine }] = await Promise.all([
    import("../mix/server.ts"),
    import("../mix/lines.ts"),
  ]);
  const token = tokenFile === null ? newToken() : tokenOf(tokenFile);
  const { url, close } = await startServer(keeper, { ...address, token });
  const written = await writeLine(process.stdout, {
    type: "listening",
    url,
    ...(tokenFile === null ? { token } : { tokenFile }),
  });
  if (written) return new Promise(() => {});
  await close();
}
