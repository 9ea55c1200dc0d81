/** Paths without symbolic links. */
import { existsSync, readlinkSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";

/** The path without symbolic links, also of a file that does not exist yet. */
export function realPath(path: string): string {
  return withoutLinks(resolve(path), MOST_LINKS);
}

/** Systems follow at most about this many links. */
const MOST_LINKS = 40;

function withoutLinks(path: string, links: number): string {
  if (existsSync(path)) return realpathSync(path);
  const parent = dirname(path);
  if (parent === path) return path;
  const place = join(withoutLinks(parent, links), basename(path));
  // A link to a file that does not exist.
  const target = links > 0 ? targetOf(place) : null;
  return target === null ? place : withoutLinks(resolve(dirname(place), target), links - 1);
}

/** Where a link leads; null for anything else, also if there is nothing. */
function targetOf(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}
