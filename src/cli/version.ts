import { readFileSync } from "node:fs";
import { isObject } from "../json.ts";

/** Of the installed package. */
export function version(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return isObject(manifest) ? String(manifest["version"]) : "";
}
