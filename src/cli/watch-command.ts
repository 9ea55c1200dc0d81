/** `gradmix watch`: serves the page of a run on this machine, and updates it until Ctrl-C. */
import { listenForInterrupt } from "./interrupt.ts";
import { watchRun } from "../report/serve.ts";
import { isLocked } from "./lock.ts";
import type { Outputs } from "./train.ts";
import { configError } from "./values.ts";

/** Interval at which it checks whether the run has ended. */
const LOOK_MILLISECONDS = 2000;

/** Serves until a signal arrives. Returns the exit code, which is 0 for Ctrl-C. Throws `config`, `data` and `io`. */
export async function watch(run: string, port: string, { out, err }: Outputs): Promise<number> {
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535)
    throw configError(`--port ${port}: must be a whole number from 0 to 65535`);
  const watching = await watchRun(run, { port: Number(port), isRunning: isLocked });
  const interrupt = listenForInterrupt({ output: err, line: () => {}, atOnce: () => {} });
  const ended = new Promise((resolve) => interrupt.signal.addEventListener("abort", resolve, { once: true }));
  out.write(`${watching.url} shows ${run} and follows it; Ctrl-C stops the server\n`);
  let state = "";
  const look = (): void => {
    try {
      const { state: now, step, steps } = watching.look();
      if (now !== state && now !== "running")
        err.write(
          now === "done"
            ? `the run has ended after ${step} steps; the page stays until Ctrl-C\n`
            : `the run is not training: ${step} of ${steps} steps are done; the page stays until Ctrl-C\n`,
        );
      state = now;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (message !== state) err.write(`${message}\n`);
      state = message;
    }
  };
  look();
  const timer = setInterval(look, LOOK_MILLISECONDS);
  try {
    await ended;
  } finally {
    clearInterval(timer);
    interrupt.stop();
    await watching.close();
  }
  const code = interrupt.exitCode();
  return code === 130 ? 0 : code;
}
