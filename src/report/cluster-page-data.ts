/** What the page of clusters shows, as one plain object. */

export interface ClusterPageData {
  readonly files: number;
  /** Of the whole corpus. */
  readonly documents: number;
  readonly bytes: number;
  /** null: they were not counted. */
  readonly tokens: number | null;
  /** Documents that the clusters were fitted to. */
  readonly sample: number;
  /** How many there are; of very many the largest are in `rows`. */
  readonly clusters: number;
  /** The largest first. */
  readonly rows: readonly ClusterRow[];
}

export interface ClusterRow {
  readonly name: string;
  readonly documents: number;
  readonly bytes: number;
  readonly tokens: number | null;
  /** The most telling first. */
  readonly words: readonly string[];
  /** Beginnings of some of its documents. */
  readonly examples: readonly string[];
}
