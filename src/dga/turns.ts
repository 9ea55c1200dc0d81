/** Runs one call at a time of an object whose calls change one state. */
import { GradmixError } from "../errors.ts";

export interface Turns {
  /** Runs an asynchronous call. Throws `busy`, naming both, while another call runs, and `disposed` after `end`. */
  run<T>(name: string, call: () => Promise<T>): Promise<T>;
  /** The same for a synchronous call. */
  runNow<T>(name: string, call: () => T): T;
  /** Calls `last` once; no other call runs after it. */
  end(name: string, last: () => void): void;
}

/** What the running call of each shared subject is, and who runs it. */
const inUse = new WeakMap<object, { readonly by: object; readonly name: string }>();

/**
 * Makes the turns of one object. Objects that share a `subject`, such as two trainers of the same parameters, also run one call at a time among them;
 * `end`, which does not touch the subject, does not wait for the others.
 */
export function createTurns(what: string, subject: object = {}): Turns {
  const own = {};
  let running: string | null = null;
  let ended = false;
  const begin = (name: string): void => {
    if (running !== null)
      throw new GradmixError(
        "busy",
        `${what}.${name}: ${running}() is still running; await its promise before the next call`,
      );
    if (ended) throw new GradmixError("disposed", `${what}.${name}: it was disposed; make a new one`);
    running = name;
  };
  const beginShared = (name: string): void => {
    const other = inUse.get(subject);
    if (other !== undefined && other.by !== own)
      throw new GradmixError(
        "busy",
        `${what}.${name}: ${other.name}() of another ${what} of the same model is still running; await its promise before the next call`,
      );
    begin(name);
    inUse.set(subject, { by: own, name });
  };
  const endShared = (): void => {
    running = null;
    inUse.delete(subject);
  };
  return {
    async run(name, call) {
      beginShared(name);
      try {
        return await call();
      } finally {
        endShared();
      }
    },
    runNow(name, call) {
      beginShared(name);
      try {
        return call();
      } finally {
        endShared();
      }
    },
    end(name, last) {
      if (ended) return;
      begin(name);
      ended = true;
      running = null;
      last();
    },
  };
}
