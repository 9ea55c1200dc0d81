/** .npy files: a round trip, NumPy's own bytes, and refusals of broken files. */
import { spawnSync } from "node:child_process";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeNpy, encodeNpy } from "#dist/data/npy.js";
import { codeOf } from "../errors.ts";

const python = process.env["GRADMIX_PYTHON"] ?? "python3";
const hasNumpy = spawnSync(python, ["-c", "import numpy"]).status === 0;

test("data that was written can be read back, and numbers begin at a multiple of 64 bytes", () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(5), { maxLength: 3 }),
      fc.boolean(),
      fc.array(fc.float({ noNaN: true }), { minLength: 125, maxLength: 125 }),
      (shape, integer, numbers) => {
        const count = shape.reduce((a, b) => a * b, 1);
        const values = integer
          ? Int32Array.from(numbers.slice(0, count), (x) => Math.sign(x) * (Math.abs(x) % 2 ** 31))
          : Float32Array.from(numbers.slice(0, count));
        const bytes = encodeNpy({ shape, values });
        expect((bytes.length - values.byteLength) % 64).toBe(0);
        expect(decodeNpy(bytes, "a.npy")).toEqual({ shape, values });
      },
    ),
  );
  expect(codeOf(() => encodeNpy({ shape: [2], values: new Int32Array(3) }))).toContain(
    "3 values for the shape [2]",
  );
  // They would be stored under the type of other numbers.
  for (const values of [new Float64Array(2), new Uint32Array(2), new Uint8Array(8), [1, 2]])
    expect(codeOf(() => encodeNpy({ shape: [2], values: values as never }))).toMatch(
      /^data: npy: the values are .*; an Int32Array or a Float32Array is needed/,
    );
  expect(codeOf(() => encodeNpy({ shape: [-1, -2], values: new Int32Array(2) }))).toMatch(
    /^shape: encodeNpy: /,
  );
});

describe("files by other programs", () => {
  const file = (
    descr: string,
    numbers: Uint8Array,
    shape = "(2,)",
    order = "False",
    version = 1,
  ): Uint8Array => {
    const header = new TextEncoder().encode(
      `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': ${shape}, }\n`,
    );
    const length = version === 1 ? [header.length & 255, header.length >> 8] : [header.length, 0, 0, 0];
    return Uint8Array.from([
      0x93,
      ...new TextEncoder().encode("NUMPY"),
      version,
      0,
      ...length,
      ...header,
      ...numbers,
    ]);
  };
  const bytesOf = (values: ArrayBufferView): Uint8Array =>
    new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

  test.each([
    ["|u1", Uint8Array.of(7, 200)],
    ["|i1", Int8Array.of(-7, 20)],
    ["<u2", Uint16Array.of(7, 60000)],
    ["<i2", Int16Array.of(-7, 20)],
    ["<u4", Uint32Array.of(7, 2_000_000_000)],
    ["<i8", BigInt64Array.of(-7n, 20n)],
    ["<u8", BigUint64Array.of(7n, 20n)],
    ["<f4", Float32Array.of(-0.5, 1e30)],
    ["<f8", Float64Array.of(-0.5, 2)],
  ])("%s is read", (descr, values) => {
    for (const version of [1, 2]) {
      const { shape, values: found } = decodeNpy(
        file(descr, bytesOf(values), "(2,)", "False", version),
        "a.npy",
      );
      expect(shape).toEqual([2]);
      expect(Array.from(found)).toEqual(Array.from(values, Number).map(Math.fround));
    }
  });

  test.each([
    ["another file", new Uint8Array(100), "is not a .npy file"],
    [
      "half a number",
      file("<i4", new Uint8Array(7)),
      "has 7 bytes of numbers for the shape (2), which takes 8",
    ],
    ["another type", file("<c8", new Uint8Array(16)), "the type <c8"],
    ["another byte order", file(">i4", new Uint8Array(8)), "the type >i4"],
    ["another order", file("<i4", new Uint8Array(16), "(2, 2)", "True"), "Fortran order"],
    ["no header", file("<i4", new Uint8Array(8), "two"), "header cannot be read"],
    [
      "too large a number",
      file("<u4", Uint8Array.of(255, 255, 255, 255, 0, 0, 0, 0)),
      "does not fit into 32 bits",
    ],
  ])("%s is refused", (_, bytes, message) => {
    expect(codeOf(() => decodeNpy(bytes, "a.npy"))).toMatch(/^data: a\.npy: /);
    expect(codeOf(() => decodeNpy(bytes, "a.npy"))).toContain(message);
  });

  test.skipIf(!hasNumpy)("NumPy reads and writes them (skipped where Python has no NumPy)", () => {
    const script =
      "import io,sys,numpy as np; a=np.load(io.BytesIO(sys.stdin.buffer.read())); o=io.BytesIO(); np.save(o,(a*2).astype(np.int64)); sys.stdout.buffer.write(o.getvalue())";
    const values = Int32Array.of(1, -2, 3, 4, 5, 6);
    const { stdout } = spawnSync(python, ["-c", script], { input: encodeNpy({ shape: [2, 3], values }) });
    expect(decodeNpy(stdout, "a.npy")).toEqual({ shape: [2, 3], values: values.map((x) => 2 * x) });
  });
});
