/** The domains of `gradmix mix`: names, a folder that has domains with names, or those of a config file or a run. */
import { statSync } from "node:fs";
import {
  type ClusterFolder,
  clustersWithText,
  isClusterFolder,
  readClusterFolder,
} from "./cluster-folder.ts";
import type { Layer } from "./config.ts";
import { preparedAmong } from "./prepared-folder.ts";
import { checkNamedOnce, configError } from "./values.ts";

/** Domains, as far as they are known. */
export interface MixDomains {
  /** null: no domains are named. */
  readonly names: readonly string[] | null;
  /** Number of tokens of each domain; null if they were not all counted. */
  readonly sizes: Readonly<Record<string, number>> | null;
}

/** The domains of `--domains`; null: those of the config file, or else of the run. Throws `config` and `data`. */
export function mixDomains(given: string | null, file: Layer | null, run: Layer | null): MixDomains {
  const inFolders = domainsInFolders(given, file);
  if (inFolders !== null) return inFolders;
  const names =
    given === null ? (namesIn(file, "data.domains") ?? namesIn(run, "data.domains")) : namesOf(given);
  return { names, sizes: null };
}

/** The names that an option of a layer has as its keys; null if it has none. */
export function namesIn(layer: Layer | null, path: string): string[] | null {
  const value = layer?.values.get(path);
  // A run writes an empty list if its domains were found in folders.
  return value instanceof Map && value.size > 0 ? Array.from(value.keys(), String) : null;
}

/**
 * The clusters, or the domains of gradmix prepare, that `--domains` or `data.domainsFrom` of the config file names; null for other domains. Throws
 * `config` and `data`.
 */
function domainsInFolders(domains: string | null, file: Layer | null): MixDomains | null {
  const from = domains === null ? file?.values.get("data.domainsFrom") : [domains];
  const paths = Array.isArray(from) ? from.map(String) : [];
  const labelOf = (path: string): string => file?.label(path) ?? "";
  checkNamedOnce(paths, domains === null ? labelOf("data.domainsFrom") : "--domains");
  const folder = paths.find(isClusterFolder);
  // A run has these domains, too, before those of the folders.
  const named = domains === null ? (namesIn(file, "data.domains") ?? []) : [];
  const other = paths.find((path) => !isClusterFolder(path) && preparedAmong([path]).length === 0);
  if (domains === null && other !== undefined)
    throw configError(
      `${labelOf("data.domainsFrom")}: gradmix mix does not look for domains in ${other}, which is not a folder of gradmix cluster, divide or prepare; name all domains with --domains A,B,…`,
    );
  if (folder === undefined) return preparedDomains(paths, named);
  const [beside] = [...named, ...paths.filter((path) => path !== folder)];
  if (beside !== undefined)
    throw configError(
      `${labelOf(named.length > 0 ? "data.domains" : "data.domainsFrom")}: a folder of clusters cannot be combined with other domains; leave out ${beside}`,
    );
  return clusterDomains(readClusterFolder(folder));
}

/** The domains of prepared folders, after those that are `named`; null if there is no such folder. */
function preparedDomains(paths: readonly string[], named: readonly string[]): MixDomains | null {
  const prepared = preparedAmong(paths).flatMap(({ domains }) => [...domains]);
  if (prepared.length === 0) return null;
  return {
    names: [...named, ...prepared.map(([name]) => name)],
    // The sizes of the named domains are not known, and sizes are for all domains.
    sizes: named.length > 0 ? null : Object.fromEntries(prepared.map(([name, { tokens }]) => [name, tokens])),
  };
}

function clusterDomains(clusters: ClusterFolder): MixDomains {
  const names = clustersWithText(clusters);
  const sizes = new Map<string, number>();
  for (const [j, { documents, tokens }] of clusters.clusters.entries())
    if (documents > 0 && tokens !== null) sizes.set(clusters.names[j]!, tokens);
  return { names, sizes: sizes.size === names.length ? Object.fromEntries(sizes) : null };
}

/** The names in a list A,B,C. Throws `config`. */
function namesOf(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  const at = names.indexOf("");
  if (at >= 0)
    throw configError(`--domains: "${text}" has an empty name at position ${at + 1}; write names as A,B,C`);
  if (names.includes("*"))
    throw configError(
      '--domains: "*" cannot be the name of a domain, because options such as --floor *=0.1 mean all domains by it; choose another name',
    );
  // One domain alone always has the weight 1, so a folder was meant.
  if (names.length === 1 && statSync(text, { throwIfNoEntry: false })?.isDirectory() === true)
    throw configError(
      `--domains: ${text} is a folder, but not one of gradmix cluster, divide or prepare, whose domains have names; write the names as A,B,C`,
    );
  return names;
}
