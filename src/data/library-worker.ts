/** The thread in which Hugging Face's library runs: it answers asynchronously, and the caller waits for it (library-tokenizer.ts). */
import { type MessagePort, workerData } from "node:worker_threads";
import type { Tokenizer } from "tokenizers";

export interface LibrarySetup {
  readonly port: MessagePort;
  /** Grows by one with every answer. */
  readonly answers: Int32Array;
}

/** `file` is the index of the tokenizer, in the order in which they were loaded. */
export type LibraryRequest =
  | { readonly load: string }
  | { readonly file: number; readonly encode: string }
  | { readonly file: number; readonly decode: readonly number[] };

export type LibraryAnswer =
  | { readonly loaded: number }
  | { readonly ids: Uint32Array }
  | { readonly text: string }
  | { readonly error: string };

function serve({ port, answers }: LibrarySetup): void {
  const library = import("tokenizers");
  // The request reports the failure; until then the rejection must count as handled.
  library.catch(() => {});
  const files: Tokenizer[] = [];
  const answer = async (request: LibraryRequest): Promise<LibraryAnswer> => {
    if ("load" in request) {
      files.push((await library).Tokenizer.fromString(request.load));
      return { loaded: files.length - 1 };
    }
    const file = files[request.file]!;
    if ("encode" in request) {
      const encoding = await file.encode(request.encode, null, { addSpecialTokens: false });
      return { ids: Uint32Array.from(encoding.getIds()) };
    }
    return { text: await file.decode([...request.decode], false) };
  };
  const reply = async (request: LibraryRequest): Promise<void> => {
    const message = await answer(request).catch((error: unknown) => ({
      error: error instanceof Error ? error.message : String(error),
    }));
    port.postMessage(message);
    Atomics.add(answers, 0, 1);
    Atomics.notify(answers, 0);
  };
  port.on("message", (request: LibraryRequest) => void reply(request));
}

serve(workerData as LibrarySetup);
