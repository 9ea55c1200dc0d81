import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { object, parse, string } from "../schema.ts";

/** The version of the installed package. */
export function version(): string {
  const file = fileURLToPath(new URL("../../package.json", import.meta.url));
  const source = { source: file, code: "io", advice: "install gradmix again" } as const;
  return parse(object<{ version: string }>({ version: string }), readFileSync(file), source).version;
}
