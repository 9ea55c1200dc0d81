/** A second signal ends the process at once, also if nobody reads what the first one said. */
import { PassThrough } from "node:stream";
import { afterEach, expect, test, vi } from "vitest";
import { listenForInterrupt } from "#dist/cli/interrupt.js";
import { openOutput } from "#dist/cli/output.js";

afterEach(() => void vi.restoreAllMocks());

test.each([
  ["is read", 1 << 20],
  ["is not read", 1],
])(
  "if the output %s, a later second signal ends the process, and one at the same time does not",
  async (_, room) => {
    const exits: unknown[] = [];
    vi.spyOn(process, "exit").mockImplementation((code) => {
      exits.push(code);
      return undefined as never;
    });
    const stream = new PassThrough({ writableHighWaterMark: room, readableHighWaterMark: room });
    const output = openOutput(stream);
    const calls: string[] = [];
    const interrupt = listenForInterrupt({
      output,
      line: () => output.write("stopping; Ctrl-C again to stop at once\n"),
      atOnce: () => calls.push("at once"),
    });
    try {
      process.emit("SIGINT", "SIGINT");
      process.emit("SIGINT", "SIGINT");
      expect([interrupt.signal.aborted, interrupt.exitCode(), exits]).toEqual([true, 130, []]);
      await vi.waitFor(
        () => {
          process.emit("SIGTERM", "SIGTERM");
          expect(exits).toContain(143);
        },
        { timeout: 10_000, interval: 50 },
      );
      expect(calls).toContain("at once");
    } finally {
      interrupt.stop();
    }
  },
);
