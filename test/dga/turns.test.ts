/** Overlapping calls are refused. */
import { createTurns } from "#dist/dga/turns.js";
import { expect, test } from "vitest";
import { errorOf } from "../errors.ts";

const busy = "trainer.save: step() is still running; await its promise before the next call";

test("while a call runs, every other call is refused, and the error names both; afterwards, even after a failure, the next call runs", async () => {
  const turns = createTurns("trainer");
  for (const fails of [false, true]) {
    let settle: () => void = () => expect.unreachable();
    const running = turns.run("step", async () => {
      await new Promise<void>((done) => (settle = done));
      if (fails) throw new Error("it failed");
      return 7;
    });
    await expect(turns.run("save", async () => Promise.resolve(1))).rejects.toMatchObject({
      code: "busy",
      message: busy,
    });
    expect(errorOf(() => turns.runNow("save", () => 1))).toMatchObject({ code: "busy", message: busy });
    expect(errorOf(() => turns.end("save", () => expect.unreachable()))).toMatchObject({
      code: "busy",
      message: busy,
    });
    settle();
    if (fails) await expect(running).rejects.toThrow("it failed");
    else expect(await running).toBe(7);
    expect(turns.runNow("save", () => 2)).toBe(2);
  }
});

test("a synchronous call excludes others, and lets them run again if it fails", () => {
  const turns = createTurns("trainer");
  turns.runNow("step", () => {
    expect(errorOf(() => turns.runNow("save", () => 1)).message).toBe(busy);
  });
  expect(() => turns.runNow("step", () => { throw new Error("it failed"); })).toThrow("it failed"); // prettier-ignore
  expect(turns.runNow("save", () => 3)).toBe(3);
});

test("ends once: later calls are refused, and ending again has no effect", async () => {
  const turns = createTurns("trainer");
  let ends = 0;
  turns.end("dispose", () => {
    ends++;
    // The function that ends it may not call it either.
    expect(errorOf(() => turns.runNow("save", () => 1)).code).toBe("disposed");
  });
  turns.end("dispose", () => ends++);
  expect(ends).toBe(1);
  const disposed = { code: "disposed", message: "trainer.save: it was disposed; make a new one" };
  expect(errorOf(() => turns.runNow("save", () => 1))).toMatchObject(disposed);
  await expect(turns.run("save", async () => Promise.resolve(1))).rejects.toMatchObject(disposed);
});
