/** Makes folders on disk. Only for Node.js. */
import * as nodeFs from "node:fs";
import { dirname, resolve } from "node:path";

/**
 * Makes a folder with all folders above it, and returns the topmost that was missing; null if the folder exists. Throws the error of the system.
 * Node's own recursive mkdir never returns below /proc, and for a relative path if the current folder was removed.
 */
export function makeFolders(path: string, fs: { mkdirSync(path: string): void } = nodeFs): string | null {
  const missing: string[] = [];
  let above = resolve(path);
  for (; nodeFs.statSync(above, { throwIfNoEntry: false }) === undefined; above = dirname(above)) {
    missing.push(above);
    if (dirname(above) === above) break;
  }
  if (missing.length === 0 && !nodeFs.statSync(above).isDirectory()) fs.mkdirSync(above);
  let first: string | null = null;
  for (const folder of missing.reverse())
    try {
      fs.mkdirSync(folder);
      first ??= folder;
    } catch (error) {
      // Another process may have made it in the meantime.
      if (nodeFs.statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) throw error;
    }
  return first;
}

/**
 * Removes an empty folder, and the folders above it up to `top` that are then empty. A folder that is not empty, is missing or cannot be removed
 * stays as it is, with those above it.
 */
export function removeEmptyFolders(folder: string, top: string = folder): void {
  try {
    for (let path = resolve(folder); ; path = dirname(path)) {
      nodeFs.rmdirSync(path);
      if (path === resolve(top)) return;
    }
  } catch {
    // Removing is only tidying up.
  }
}
