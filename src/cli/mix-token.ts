/** The access token of `gradmix mix --listen`: a new one, or the one in a file that only this user can read. */
import { randomBytes } from "node:crypto";
import { closeSync, openSync, readFileSync, statSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { GradmixError } from "../errors.ts";
import { makeFolders } from "../folders-node.ts";
import { reason } from "../node/system-errors.ts";
import { configError } from "./values.ts";

export const newToken = (): string => randomBytes(32).toString("base64url");

/** Shorter tokens can be guessed. */
const SHORTEST_TOKEN = 16;

/** Reads the token in a file, or writes a new one there that only this user can read. */
export function tokenOf(path: string): string {
  try {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined) {
      const token = newToken();
      makeFolders(dirname(path));
      const file = openSync(path, "wx", 0o600);
      try {
        writeSync(file, `${token}\n`);
      } finally {
        closeSync(file);
      }
      return token;
    }
    // A pipe may bring the token. Reading a device may never end.
    if (!stats.isFile() && !stats.isFIFO())
      throw configError(
        `--token-file: ${path} is ${stats.isDirectory() ? "a folder" : "a device or socket"}, not a file; name a file with a token, or a path at which gradmix creates one`,
      );
    const token = readFileSync(path, "utf8").trim();
    if (token.length < SHORTEST_TOKEN || /\s/.test(token))
      throw configError(
        `--token-file: ${path} holds no token of at least ${SHORTEST_TOKEN} characters; ${stats.isFile() ? "delete it, and gradmix creates one" : "write one into the pipe"}`,
      );
    // Windows has no such modes.
    if (process.platform !== "win32" && (stats.mode & 0o077) !== 0)
      throw configError(`--token-file: others can read ${path}; chmod 600 it`);
    return token;
  } catch (error) {
    if (error instanceof GradmixError) throw error;
    throw new GradmixError("io", `--token-file: ${path} cannot be used (${reason(error)})`, { cause: error });
  }
}
