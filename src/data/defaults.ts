/** Defaults of the options of this layer that the command shows in its help, which loads nothing else of it. */

/** Of `selectWindows`. */
export const selectionDefaults = { leastShare: 0.25 } as const;
/** Of `divideByLikeness`. */
export const likenessDefaults = { parts: 4 } as const;
/** Of `fitEmbedder`. */
export const embedderDefaults = { dim: 128, seed: 1 };
/** Of `kMeans` and of trees of clusters. */
export const kMeansDefaults = { iterations: 50, tolerance: 1e-5, seed: 1 };
