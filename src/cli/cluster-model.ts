/** Reads the embedder of a folder that `gradmix cluster` has written. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { TextClusters } from "../data/cluster/text-clusters.ts";
import { type ClusterLevel, leafCount } from "../data/cluster/tree.ts";
import { GradmixError } from "../errors.ts";
import { openSafetensors, type StoredTensor } from "../nn/safetensors.ts";
import { reading } from "../node/files.ts";
import type { ClusterFolder } from "./cluster-folder.ts";

const MODEL = "embedder.safetensors";

/**
 * Reads what assigns texts to the clusters of a folder; null if the folder has none, because its clusters come from elsewhere. Throws `data` for
 * files that are damaged or inconsistent.
 */
export function readTextClusters({
  folder,
  names,
  seed,
}: ClusterFolder): Pick<TextClusters, "embedder" | "clusters"> | null {
  const path = join(folder, MODEL);
  if (!existsSync(path)) return null;
  return reading(path, (source) => {
    const invalid = (what: string): GradmixError =>
      new GradmixError("data", `${path}: ${what}; cluster the text again`);
    const { shapes, read } = openSafetensors(source, path);
    // With embeddings from elsewhere, texts cannot be embedded.
    if (!shapes.has("idf")) return null;
    const tensor = (name: string): StoredTensor => {
      if (!shapes.has(name)) throw invalid(`has no "${name}"`);
      return read(name);
    };
    const directions = tensor("directions");
    const [dim = 0] = directions.shape;
    const levels: ClusterLevel[] = [];
    for (let level = 0; shapes.has(`levels.${level}.starts`); level++)
      levels.push({
        centroids: tensor(`levels.${level}.centroids`).data,
        starts: Int32Array.from(tensor(`levels.${level}.starts`).data),
        ...(shapes.has(`levels.${level}.prices`) ? { prices: tensor(`levels.${level}.prices`).data } : {}),
      });
    const clusters = { dim, levels };
    if (leafCount(clusters) !== names.length)
      throw invalid(`has ${leafCount(clusters)} clusters, but clusters.json has ${names.length}`);
    return { embedder: { dim, seed, idf: tensor("idf").data, directions: directions.data }, clusters };
  });
}
