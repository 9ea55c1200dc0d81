/** What a command prints: in the background for a run, in full for a result, and only what the terminal can show. */
import { PassThrough, Writable } from "node:stream";
import { openOutput } from "#dist/cli/output.js";
import { startStatusLine } from "#dist/cli/progress.js";
import { GradmixError } from "#dist/errors.js";
import fc from "fast-check";
import { expect, test } from "vitest";

/** A reader that takes a chunk every few milliseconds. */
function slowReader(): { stream: Writable; bytes: () => number } {
  let bytes = 0;
  const stream = new Writable({
    highWaterMark: 1,
    write(chunk: Uint8Array, _encoding, done) {
      setTimeout(() => {
        bytes += chunk.length;
        done();
      }, 5);
    },
  });
  return { stream, bytes: () => bytes };
}

const BIG = 3 << 20;

test("a result of any size is written in full, after what was written before", async () => {
  const { stream, bytes } = slowReader();
  const output = openOutput(stream);
  output.write("first");
  await output.deliver("x".repeat(BIG));
  expect(bytes()).toBe(BIG + 5);
  expect([output.lost, await output.flush()]).toEqual([null, true]);
});

test("a message beyond the limit is dropped, and this is known", async () => {
  const { stream, bytes } = slowReader();
  const output = openOutput(stream);
  output.write("x".repeat(BIG));
  expect([output.lost, await output.flush(), bytes()]).toEqual(["EAGAIN", false, 0]);
});

test("a result whose reader has gone ends, and the reason is known", async () => {
  const stream = new PassThrough();
  const output = openOutput(stream);
  stream.destroy(Object.assign(new Error("gone"), { code: "EPIPE" }));
  await output.deliver("result");
  expect(output.lost).not.toBeNull();
});

test("a terminal of unknown width has no columns; a dumb one and a file cannot erase a line", () => {
  const opened = (isTTY: boolean, columns: number, kind: string): [boolean, number | undefined] => {
    const { isTTY: erases, columns: width } = openOutput(
      Object.assign(new PassThrough(), { isTTY, columns }),
      kind,
    );
    return [erases, width];
  };
  expect(opened(true, 0, "xterm")).toEqual([true, undefined]);
  expect(opened(true, 90, "xterm")).toEqual([true, 90]);
  expect(opened(true, 90, "dumb")).toEqual([false, 90]);
  expect(opened(false, 0, "xterm")).toEqual([false, undefined]);
});

test("the status line of a terminal of unknown width is not cut to nothing", async () => {
  const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 0 });
  startStatusLine(openOutput(stream, "xterm")).show("step 1/2");
  expect(String(stream.read())).toBe("step 1/2");
});

test("the message of an error is one line without control characters, whatever it quotes", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      const { message } = new GradmixError("data", `before ${text} after`);
      expect(message).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}]/u);
      expect(message).toMatch(/^before .*after$/u);
      if (!/[\p{Cc}\p{Zl}\p{Zp}]/u.test(text)) expect(message).toBe(`before ${text} after`);
    }),
  );
  expect(new GradmixError("numeric", ["a\nb", "c"]).message).toBe("a b\nc");
  expect(new GradmixError("io", "a:\n  b\r\nc\u2028\u001b[2K").message).toBe("a: b c\\u2028\\u001b[2K");
});
