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

export function createTurns(what: string): Turns {
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
  return {
    async run(name, call) {
      begin(name);
      try {
        return await call();
      } finally {
        running = null;
      }
    },
    runNow(name, call) {
      begin(name);
      try {
        return call();
      } finally {
        running = null;
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
