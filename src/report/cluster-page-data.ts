/** The contents of the page of clusters, as one plain object. */

export interface ClusterPageData {
  readonly files: number;
  /** Documents of the whole corpus. */
  readonly documents: number;
  readonly bytes: number;
  /** Tokens of the corpus; null if they were not counted. */
  readonly tokens: number | null;
  /** Number of documents to which the clusters were fitted. */
  readonly sample: number;
  /** Number of clusters; if there are very many, `rows` has only the largest. */
  readonly clusters: number;
  /** The clusters, the largest first. */
  readonly rows: readonly ClusterRow[];
}

export interface ClusterRow {
  readonly name: string;
  readonly documents: number;
  readonly bytes: number;
  readonly tokens: number | null;
  /** Typical words of the cluster, the most typical first. */
  readonly words: readonly string[];
  /** Beginnings of some of its documents. */
  readonly examples: readonly string[];
}
