/** The members of an `AbortSignal` that gradmix uses. They are declared here so that the types compile without the DOM library and without @types/node. */
export interface CancelSignal {
  /** Whether the signal has been aborted. */
  readonly aborted: boolean;
  /** Throws the reason if the signal has been aborted. */
  throwIfAborted(): void;
}
