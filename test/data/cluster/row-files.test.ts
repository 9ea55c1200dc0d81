/** Embeddings in files: the same rows from every format, in any order, and refusals. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openRows, rowsByNumber } from "#dist/data/cluster/row-files.js";
import { encodeNpy } from "#dist/data/npy.js";
import { encodeSafetensors } from "#dist/nn/safetensors.js";

let folder = "";
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), "gradmix-rows-"))));
afterAll(() => rmSync(folder, { recursive: true }));

const put = (name: string, bytes: Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};
/** Whole numbers, which every format has exactly; as in make_embeddings.py. */
const values = Float32Array.from(
  { length: 240 },
  (_, at) => ((Math.floor(at / 4) * 7 + (at % 4) * 3) % 11) - 5,
);
const golden = JSON.parse(
  readFileSync(resolve(import.meta.dirname, "../../golden/embeddings.json"), "utf8"),
) as { lists: string; ragged: string };

/** A .npy of another type than `encodeNpy` writes. */
function npy(descr: string, numbers: Uint8Array, shape = "(60, 4)"): Uint8Array {
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }`.padEnd(117) + "\n";
  return Uint8Array.from([
    0x93,
    0x4e,
    0x55,
    0x4d,
    0x50,
    0x59,
    1,
    0,
    118,
    0,
    ...Buffer.from(header),
    ...numbers,
  ]);
}
/** Rows of small whole numbers. */
function half(x: number): number {
  if (x === 0) return 0;
  const exponent = Math.floor(Math.log2(Math.abs(x)));
  return (x < 0 ? 0x8000 : 0) | ((exponent + 15) << 10) | ((Math.abs(x) / 2 ** exponent - 1) * 1024);
}
const bytesOf = (array: Uint16Array | Float64Array): Uint8Array => new Uint8Array(array.buffer);

test("every format gives the same rows, in parts and by number", async () => {
  const tensor = { shape: [60, 4], data: values };
  const paths = [
    put("f4.npy", encodeNpy({ shape: [60, 4], values })),
    put("f2.npy", npy("<f2", bytesOf(Uint16Array.from(values, half)))),
    put("f8.npy", npy("<f8", bytesOf(Float64Array.from(values)))),
    put("i4.npy", encodeNpy({ shape: [60, 4], values: Int32Array.from(values) })),
    put("one.safetensors", encodeSafetensors(new Map([["any", tensor]]))),
    put(
      "named.safetensors",
      encodeSafetensors(
        new Map([
          ["other", { shape: [1, 2], data: new Float32Array(2) }],
          ["embeddings", tensor],
        ]),
      ),
    ),
    put("lists.parquet", Buffer.from(golden.lists, "base64")),
  ];
  for (const path of paths) {
    const file = await openRows(path);
    expect([path, file.count, file.dim]).toEqual([path, 60, 4]);
    expect(await file.read(0, 60)).toEqual(values);
    for (const [first, count] of [
      [3, 5],
      [40, 20],
      [1, 1],
      [24, 3],
    ] as const)
      expect(await file.read(first, count)).toEqual(values.slice(4 * first, 4 * (first + count)));
    const numbers = [59, 0, 17, 17, 30];
    expect(await rowsByNumber(file, numbers)).toEqual(
      Float32Array.from(numbers.flatMap((i) => [...values.subarray(4 * i, 4 * i + 4)])),
    );
    file.close();
  }
});

const withNaN = values.slice();
withNaN[4 * 13 + 2] = NaN;
test.each<[string, () => string, string]>([
  ["NaN", () => put("nan.npy", encodeNpy({ shape: [60, 4], values: withNaN })), "number 2 of row 13 is NaN"],
  [
    "∞ in 16 bits",
    () => put("inf.npy", npy("<f2", bytesOf(new Uint16Array(240).fill(0x7c00)))),
    "number 0 of row 0 is Infinity",
  ],
  [
    "a file that is cut off",
    () => put("cut.npy", encodeNpy({ shape: [60, 4], values }).subarray(0, 900)),
    "cut.npy: has 772 bytes",
  ],
  ["a list", () => put("list.npy", encodeNpy({ shape: [240], values })), "of the shape (240)"],
  ["no .npy", () => put("no.npy", Buffer.from("text")), "is not a .npy"],
  [
    "two matrices",
    () =>
      put(
        "two.safetensors",
        encodeSafetensors(new Map(["a", "b"].map((name) => [name, { shape: [60, 4], data: values }]))),
      ),
    "has 2 matrices",
  ],
  [
    "a shorter row",
    () => `${put("ragged.parquet", Buffer.from(golden.ragged, "base64"))}#v`,
    'row 7: "v" has 3 numbers',
  ],
  [
    "another column",
    () => put("column.parquet", Buffer.from(golden.ragged, "base64")),
    "#NAME names another",
  ],
  [
    "a column of numbers",
    () => `${put("id.parquet", Buffer.from(golden.lists, "base64"))}#id`,
    "is not a list of numbers",
  ],
  ["no file", () => join(folder, "none.npy"), "cannot be read"],
])("%s is refused", async (_, path, message) => {
  await expect(openRows(path())).rejects.toThrow(message);
});
