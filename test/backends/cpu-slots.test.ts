/** Parameter blocks of the CPU kernels have one description, which the kernels and the launchers both use. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { SLOTS } from "../../assembly/slots.mjs";
import { assemblyScript, typeScript } from "../../scripts/slots.mjs";
import { PARAMETER_BYTES } from "../../src/backends/cpu/protocol.ts";
import type { Runtime } from "../../src/backends/cpu/runtime.ts";
import { type Words, writeScratch, writeSlots } from "../../src/backends/cpu/slots.ts";

const root = resolve(import.meta.dirname, "../..");
const descriptions: Readonly<Record<string, Readonly<Record<string, string>>>> = SLOTS;

/** Kinds by slot, those of what a kernel extends first. */
function kindsOf(kernel: string): [slot: string, kind: string][] {
  const { extends: parent, ...own } = descriptions[kernel];
  return [...(parent === undefined ? [] : kindsOf(parent)), ...Object.entries(own)];
}

describe("slots", () => {
  it.each([
    ["assembly/slots.ts", assemblyScript],
    ["src/backends/cpu/slots.ts", typeScript],
  ])("in %s are generated from the description", (file, text) => {
    expect(readFileSync(resolve(root, file), "utf8")).toBe(text(SLOTS));
  });

  it("are described for every function of the module", () => {
    // The plain build: every Node.js compiles it.
    const bytes = readFileSync(resolve(root, "dist/backends/cpu/kernels-plain.wasm"));
    const functions = WebAssembly.Module.exports(new WebAssembly.Module(bytes)).filter(
      ({ kind, name }) => kind === "function" && name !== "setThread",
    );
    const kernels = new Set(functions.map(({ name }) => name.replace(/_.*/, "")));
    expect([...kernels].toSorted()).toEqual(Object.keys(SLOTS).toSorted());
  });

  it.each(Object.entries(writeSlots))(
    "of %s are written one after the other, each with its type",
    (kernel, write) => {
      const first = 7;
      const memory = new ArrayBuffer(4 * first + PARAMETER_BYTES + 16);
      const words: Words = { i32: new Int32Array(memory), f32: new Float32Array(memory) };
      words.i32.fill(-1);
      const bits = new Int32Array(Float32Array.of(0.1).buffer)[0];
      const slots: Record<string, number | number[]> = {};
      const expected = [100, 200];
      for (const [n, [slot, kind]] of kindsOf(kernel).entries()) {
        const length = Number(/\d+(?=\])/.exec(kind)?.[0] ?? 0);
        // One number more than there is room for: the next slot must not be touched by it.
        const numbers = Array.from({ length: length + 1 }, (_, i) => 1000 * (n + 1) + i);
        slots[slot] = length > 0 ? numbers : kind === "f32" ? 0.1 : numbers[0];
        if (kind === "f32") expected.push(bits);
        else expected.push(...numbers.slice(0, Math.max(1, length)));
      }
      writeScratch(words, first, 100, 200);
      // Each writer has a type of its own, which an enumeration cannot know.
      (write as (words: Words, at: number, slots: object) => void)(words, first, slots);
      expect([...words.i32.subarray(first, first + expected.length)]).toEqual(expected);
      expect(words.i32.subarray(0, first).every((word) => word === -1)).toBe(true);
      expect(words.i32.subarray(first + expected.length).every((word) => word === -1)).toBe(true);
      expect(4 * expected.length).toBeLessThanOrEqual(PARAMETER_BYTES);
    },
  );

  it("that are missing, unknown or belong to another kernel do not compile", () => {
    const launch = (runtime: Runtime): void => {
      const common = { tasks: 1, work: 1 };
      runtime.launch({ kernel: "dotTotal", slots: { partials: 0, count: 0, out: 0 }, ...common });
      // @ts-expect-error: `out` is missing.
      runtime.launch({ kernel: "dotTotal", slots: { partials: 0, count: 0 }, ...common });
      // @ts-expect-error: there is no `to`.
      runtime.launch({ kernel: "dotTotal", slots: { partials: 0, count: 0, out: 0, to: 0 }, ...common });
      // @ts-expect-error: there is no such kernel.
      runtime.launch({ kernel: "dotSum", slots: { partials: 0, count: 0, out: 0 }, ...common });
      const slots = { x: 0, y: 0, elements: 1, elementsPerTask: 1 };
      runtime.launch({ kernel: "unary", entry: "unary_exp", slots, ...common });
      // @ts-expect-error: the function is another kernel's.
      runtime.launch({ kernel: "unary", entry: "binary_add", slots, ...common });
    };
    expect(launch).toBeTypeOf("function");
  });

  it.each([
    ["of no kind", { a: { x: "f64" } }, 'slot x is "f64"; kinds are pointer, i32, f32 and i32[N]'],
    ["arrays of addresses", { a: { x: "pointer[2]" } }, 'slot x is "pointer[2]"'],
    ["that extend nothing", { a: { extends: "b" } }, "slots of a extend b, which is none"],
    ["named twice", { a: { x: "i32" }, b: { extends: "a", x: "i32" } }, "slot x of b is in a already"],
    ["beyond the block", { a: { x: "i32[62]", y: "i32" } }, "slots of a take 65 words; a block has 64"],
  ])("%s are refused", (_, wrong: Record<string, Record<string, string>>, message) => {
    for (const make of [assemblyScript, typeScript]) expect(() => make(wrong)).toThrow(message);
  });
});
