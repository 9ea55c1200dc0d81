/** Progress of `gradmix prepare`: its share of the input, its speed, and the remaining time. */
import type { JobProgress } from "./prepare-jobs.ts";
import { formatCount, formatDuration, type Screen, type StatusLine } from "./progress.ts";

export interface PrepareProgress {
  add(progress: JobProgress): void;
}

/** Milliseconds between two lines. */
const plainInterval = 5000;
const terminalInterval = 200;

/** `total` is the number of bytes of the input, of which `before` were done by an earlier command. `now` returns milliseconds. */
export function startPrepareProgress(
  { screen, status }: { readonly screen: Screen; readonly status: StatusLine },
  { total, before }: { readonly total: number; readonly before: number },
  now: () => number = (): number => performance.now(),
): PrepareProgress {
  const began = now();
  const interval = screen.isTTY === true ? terminalInterval : plainInterval;
  let shown = began;
  const done = { input: 0, text: 0, documents: 0 };
  return {
    add({ input, text, documents }) {
      done.input += input;
      done.text += text;
      done.documents += documents;
      const time = now();
      if (time - shown < interval || screen.behind === true) return;
      shown = time;
      status.show(formatProgress(done, { total, before }, (time - began) / 1000));
    },
  };
}

/** For example `41% 52.3 MB/s 1.23M documents 3:05 left`; the speed is that of the unpacked text. */
export function formatProgress(
  { input, text, documents }: JobProgress,
  { total, before }: { readonly total: number; readonly before: number },
  seconds: number,
): string {
  const share = Math.floor((100 * (before + input)) / Math.max(1, total));
  const left = ((total - before - input) * seconds) / input;
  return [
    `${String(share).padStart(3)}%`,
    `${(text / seconds / 1e6).toFixed(1)} MB/s`,
    `${formatCount(documents)} documents`,
    `${formatDuration(left)} left`,
  ].join("  ");
}
