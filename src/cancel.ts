/** What gradmix asks of an `AbortSignal`. It is not named, so that the types compile without the DOM library and without @types/node. */
export interface CancelSignal {
  /** Has it been aborted? */
  readonly aborted: boolean;
  /** Throws the reason once it is aborted. */
  throwIfAborted(): void;
}
