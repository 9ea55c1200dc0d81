/** The safetensors format: round trip, half precision, the published layout, and files that are broken at any byte. */
import { describe, expect, it } from "vitest";
import * as fc from "fast-check";
import { GradmixError } from "gradmix";
import { type ByteSource, decodeSafetensors, encodeSafetensors, type StoredTensor } from "gradmix/nn";
import { openSafetensors } from "#dist/nn/safetensors.js";
import { errorOf } from "../errors.ts";
import { codeOf } from "../errors.ts";

type Tensors = Map<string, StoredTensor>;

const tensors: fc.Arbitrary<Tensors> = fc
  .uniqueArray(
    fc
      .tuple(
        fc.oneof(
          fc.string({ maxLength: 12, unit: "grapheme" }).filter((name) => name !== "__metadata__"),
          fc.constantFrom("__proto__", "constructor", "0"),
        ),
        fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
      )
      .chain(([name, shape]) => {
        const size = shape.reduce((a, b) => a * b, 1);
        return fc
          .array(fc.float(), { minLength: size, maxLength: size })
          .map((data): [string, StoredTensor] => [name, { shape, data: Float32Array.from(data) }]);
      }),
    { selector: ([name]) => name, maxLength: 5 },
  )
  .map((entries) => new Map(entries));

/** A file from its parts. */
function file(header: unknown, data: Uint8Array): Uint8Array {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const out = new Uint8Array(8 + text.length + data.length);
  new DataView(out.buffer).setBigUint64(0, BigInt(text.length), true);
  out.set(text, 8);
  out.set(data, 8 + text.length);
  return out;
}

const headerEnd = (bytes: Uint8Array): number =>
  8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));

/** Returns the tensors that are read, or the message of the only error that is allowed. */
function attempt(bytes: Uint8Array): Tensors | string {
  try {
    return decodeSafetensors(bytes, "some.safetensors");
  } catch (error) {
    expect(error).toBeInstanceOf(GradmixError);
    const { code, message } = error as GradmixError;
    expect(code).toBe("data");
    expect(message).toMatch(/^some\.safetensors: .+$/);
    return message;
  }
}

describe("round trip", () => {
  it("any names, shapes and values are kept, at any position in a larger buffer", () => {
    fc.assert(
      fc.property(tensors, fc.nat(9), (given, margin) => {
        const bytes = encodeSafetensors(given);
        const buffer = new Uint8Array(bytes.length + 2 * margin).fill(255);
        buffer.set(bytes, margin);
        const read = decodeSafetensors(buffer.subarray(margin, margin + bytes.length));
        expect([...read.keys()].toSorted()).toEqual([...given.keys()].toSorted());
        for (const [name, { shape, data }] of given) {
          expect(read.get(name)?.shape).toEqual(shape);
          // toEqual distinguishes −0 from 0, and NaN equals NaN.
          expect(read.get(name)?.data).toEqual(data);
        }
      }),
    );
  });

  it("the layout is the published one: a little-endian length, a header padded to eight bytes, then the data", () => {
    const bytes = encodeSafetensors(
      new Map([
        ["é", { shape: [2], data: Float32Array.of(1, -2) }],
        ["b", { shape: [], data: Float32Array.of(0.5) }],
      ]),
    );
    const end = headerEnd(bytes);
    expect(end % 8).toBe(0);
    const text = new TextDecoder().decode(bytes.subarray(8, end));
    expect(text).toMatch(/^\{.*\} *$/);
    expect(JSON.parse(text)).toEqual({
      __metadata__: { format: "pt" },
      é: { dtype: "F32", shape: [2], data_offsets: [0, 8] },
      b: { dtype: "F32", shape: [], data_offsets: [8, 12] },
    });
    expect([...bytes.subarray(end)]).toEqual([0, 0, 128, 63, 0, 0, 0, 192, 0, 0, 0, 63]);
  });

  it("values that do not fill their shape are refused", () => {
    expect(() => encodeSafetensors(new Map([["w", { shape: [3], data: new Float32Array(2) }]]))).toThrow(
      new GradmixError("data", 'safetensors: "w" has 2 values for the shape [3]'),
    );
  });

  it.each<[unknown, string]>([
    [
      { shape: [2], data: new Float64Array(2) },
      '"w" has as data Float64Array, not a Float32Array; convert it',
    ],
    [{ shape: [2], data: Int32Array.of(1, 2) }, '"w" has as data Int32Array, not a Float32Array; convert it'],
    [{ shape: [4], data: new Uint8Array(4) }, '"w" has as data Uint8Array, not a Float32Array; convert it'],
    [{ shape: [2], data: [1, 2] }, '"w" has as data a list, not a Float32Array; convert it'],
    [{ shape: [-1, -2], data: new Float32Array(2) }, '"w" has as shape a list, not a list of extents'],
    [{ shape: [0.5, 4], data: new Float32Array(2) }, '"w" has as shape a list, not a list of extents'],
    [{ data: new Float32Array(2) }, '"w" has as shape undefined, not a list of extents'],
  ])("what would be stored as other numbers is refused: %o", (stored, message) => {
    expect(codeOf(() => encodeSafetensors(new Map([["w", stored as StoredTensor]])))).toContain(
      `data: safetensors: ${message}`,
    );
  });

  it("metadata are strings, and the source of a file is bytes", () => {
    expect(codeOf(() => encodeSafetensors(new Map(), { step: 3 } as never))).toBe(
      "data: safetensors: metadata: step is 3, not a string",
    );
    expect(codeOf(() => decodeSafetensors(new ArrayBuffer(8) as never, "a"))).toBe(
      "data: a: its contents are an ArrayBuffer; pass new Uint8Array(…) of it",
    );
  });
});

describe("half precision", () => {
  const read = (dtype: string, bits: readonly number[]): number[] => {
    const data = new Uint8Array(Uint16Array.from(bits).buffer);
    const header = { w: { dtype, shape: [bits.length], data_offsets: [0, data.length] } };
    return Array.from(decodeSafetensors(file(header, data)).get("w")?.data ?? []);
  };

  it("F16: normal, subnormal, largest, zeros, infinities, NaN", () => {
    const bits = [
      0x3c00, 0xc000, 0x3555, 0x0001, 0x83ff, 0x0400, 0x7bff, 0x0000, 0x8000, 0x7c00, 0xfc00, 0x7e00,
    ];
    expect(read("F16", bits)).toEqual([
      1,
      -2,
      0.333251953125,
      2 ** -24,
      -1023 * 2 ** -24,
      2 ** -14,
      65504,
      0,
      -0,
      Infinity,
      -Infinity,
      NaN,
    ]);
  });

  it("F16: all numbers, each one step above the previous one", () => {
    const positive = read(
      "F16",
      Array.from({ length: 0x7c00 }, (_, bits) => bits),
    );
    positive.forEach((x, i) => {
      const exponent = Math.max(-14, Math.floor(Math.log2(Math.max(x, 2 ** -24))));
      if (i > 0) expect(x - positive[i - 1]).toBeLessThanOrEqual(2 ** (exponent - 10));
      if (i > 0) expect(x).toBeGreaterThan(positive[i - 1]);
      expect(Number.isInteger(x * 2 ** (10 - exponent))).toBe(true);
    });
  });

  it("BF16: the upper half of an F32", () => {
    fc.assert(
      fc.property(fc.float(), (x) => {
        const [bits] = new Uint32Array(Float32Array.of(x).buffer);
        const [want] = new Float32Array(Uint32Array.of(bits & 0xffff0000).buffer);
        expect(read("BF16", [bits >>> 16])).toEqual([want]);
      }),
    );
  });

  it("several numbers of each type, one after another", () => {
    const bits = [0x3f80, 0xbf80, 0x4049, 0x0001, 0x7f7f];
    const upper = new Float32Array(Uint32Array.from(bits, (x) => x << 16).buffer);
    expect(read("BF16", bits)).toEqual([...upper]);
    expect(read("F16", bits)).toEqual(bits.flatMap((x) => read("F16", [x])));
  });

  it("a missing tensor is refused by name", () => {
    const stored = openSafetensors(file({}, new Uint8Array(0)), "f");
    expect(errorOf(() => stored.read("w")).message).toBe('f: the tensor "w" is missing');
  });

  it("other types are refused by name, unless they are not requested", () => {
    const data = new Uint8Array(12);
    const header = {
      mask: { dtype: "BOOL", shape: [4], data_offsets: [0, 4] },
      w: { dtype: "F32", shape: [2], data_offsets: [4, 12] },
    };
    expect(attempt(file(header, data))).toBe(
      'some.safetensors: "mask" has the type BOOL; F32, F16 and BF16 can be read',
    );
    const read = decodeSafetensors(file(header, data), "f", (name) => name === "w");
    expect([...read.keys()]).toEqual(["w"]);
  });
});

describe("broken files", () => {
  const whole = encodeSafetensors(
    new Map([
      ["model.a", { shape: [2, 3], data: Float32Array.from({ length: 6 }, (_, i) => i + 1) }],
      ["model.b", { shape: [12], data: new Float32Array(12).fill(7) }],
    ]),
  );
  const original = attempt(whole);

  it("a file cut off anywhere is refused", () => {
    for (let length = 0; length < whole.length; length++)
      expect(typeof attempt(whole.subarray(0, length)), `${length} bytes`).toBe("string");
    expect(attempt(whole.subarray(0, whole.length - 1))).toMatch(/it is cut off$/);
    expect(attempt(new Uint8Array([...whole, 0]))).toMatch(/1 bytes at its end belong to no tensor$/);
  });

  it("a change in any byte of the length or the header gives an error, or the same shapes and values", () => {
    const values = (read: Tensors): StoredTensor[] => [...read.values()];
    if (typeof original === "string") expect.fail(original);
    for (let at = 0; at < headerEnd(whole); at++)
      for (const change of [1, 2, 4, 8, 16, 32, 64, 128, 0x13]) {
        const bytes = whole.slice();
        bytes[at] ^= change;
        const read = attempt(bytes);
        // Names and metadata may change: nothing in a file says what they were.
        if (typeof read !== "string")
          expect(values(read), `byte ${at} ^ ${change}`).toEqual(values(original));
      }
  });

  it("any bytes are read or refused", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void attempt(bytes)));
    fc.assert(
      fc.property(
        fc.json(),
        fc.uint8Array({ maxLength: 20 }),
        (json, data) => void attempt(file(json, data)),
      ),
    );
  });

  it("any entry is read or refused", () => {
    const count = fc.oneof(fc.integer({ min: -2, max: 20 }), fc.double(), fc.string({ maxLength: 3 }));
    const entry = fc.record(
      {
        dtype: fc.oneof(fc.constantFrom("F32", "F16", "F64", "toString", "__proto__"), fc.integer()),
        shape: fc.oneof(fc.array(count, { maxLength: 4 }), fc.constant(null)),
        data_offsets: fc.oneof(fc.array(count, { maxLength: 3 }), fc.constant({})),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 3 }), fc.uint8Array({ maxLength: 40 }), (entries, data) => {
        const read = attempt(file(Object.fromEntries(entries.map((e, i) => [`t${i}`, e])), data));
        if (typeof read === "string") return;
        const bytes = [...read.values()].map((t) => t.data.length);
        expect(bytes.every((n) => n * 2 <= data.length)).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });

  it.each<[string, unknown, string]>([
    ["no object", [1], "header is a list, not an object"],
    ["the header null", null, "header is null, not an object"],
    ["the header 3", 3, "header is 3, not an object"],
    ["the entry 3", { w: 3 }, "header.w is 3, not an object"],
    ["the entry null", { w: null }, "header.w is null, not an object"],
    ["the entry F32", { w: "F32" }, 'header.w is "F32", not an object'],
    ...[
      ...[-1, 1.5, "1", null, 2 ** 53].map((size) => ({ shape: [size] })),
      ...[-1, 0.5, "0", null].map((from) => ({ data_offsets: [from, 8] })),
      ...[-1, 8.5, "8", null].map((to) => ({ data_offsets: [0, to] })),
      ...[[0], [0, 8, 8], [8, 0], 8, null].map((offsets) => ({ data_offsets: offsets })),
      ...[{ shape: 2 }, { shape: null }, { dtype: 32 }, { dtype: null }],
    ].map((fields): [string, unknown, string] => [
      JSON.stringify(fields),
      { w: { dtype: "F32", shape: [2], data_offsets: [0, 8], ...fields } },
      `header.w.${Object.keys(fields)[0]}`,
    ]),
    [
      "a shape beyond the data",
      { w: { dtype: "F32", shape: [2 ** 40, 2 ** 40], data_offsets: [0, 8] } },
      `"w" has 8 bytes for F32 [${2 ** 40}, ${2 ** 40}]`,
    ],
    [
      "a gap",
      {
        v: { dtype: "F32", shape: [1], data_offsets: [0, 4] },
        w: { dtype: "F16", shape: [1], data_offsets: [6, 8] },
      },
      '"w" does not begin where the tensor before it ends',
    ],
    [
      "an overlap",
      {
        v: { dtype: "F32", shape: [2], data_offsets: [0, 8] },
        w: { dtype: "F32", shape: [1], data_offsets: [4, 8] },
      },
      '"w" does not begin where the tensor before it ends',
    ],
    [
      "offsets beyond the end",
      { w: { dtype: "F32", shape: [1e15], data_offsets: [0, 4e15] } },
      "it has 100 of 4000000000000092 bytes; it is cut off",
    ],
  ])("%s", (_, header, message) => {
    const refused = attempt(file(header, new Uint8Array(8)));
    if (message.startsWith("header.w.")) expect(refused).toMatch(`some.safetensors: ${message}`);
    else expect(refused).toBe(`some.safetensors: ${message}`);
  });

  it("a header that is not JSON is refused", () => {
    expect(attempt(file("{", new Uint8Array(8)))).toMatch(/^some\.safetensors: header is not JSON \(/);
  });

  it("a header longer than the format allows is refused without parsing", () => {
    const bytes = new Uint8Array(100_000_020);
    new DataView(bytes.buffer).setBigUint64(0, 100_000_001n, true);
    expect(attempt(bytes)).toBe(
      "some.safetensors: the header has 100000001 bytes; the format allows 100000000",
    );
  });

  it("a header longer than any file is refused", () => {
    const bytes = whole.slice();
    bytes.fill(255, 0, 8);
    expect(attempt(bytes)).toMatch(/^some\.safetensors: the header of \d+ bytes is cut off$/);
  });
});

it("the header and the requested tensors are read by position, even from a file larger than any array", () => {
  fc.assert(
    fc.property(tensors, fc.infiniteStream(fc.boolean()), (stored, choices) => {
      const wanted = new Set([...stored.keys()].filter(() => choices.next().value));
      const bytes = encodeSafetensors(stored);
      const end = headerEnd(bytes);
      const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, end))) as Record<string, unknown>;
      // A tensor of 2⁴⁰ bytes comes first, so that all others lie behind it.
      const gap = 2 ** 40;
      const entries = Object.entries(header).map(([name, entry]): [string, unknown] => {
        const { data_offsets: at } = entry as { data_offsets?: [number, number] };
        return at === undefined
          ? [name, entry]
          : [name, { ...(entry as object), data_offsets: [at[0] + gap, at[1] + gap] }];
      });
      // Names may be those of an object's own parts, so the text is put together from its members.
      const members = [
        ...entries,
        [`huge ${bytes.length}`, { dtype: "I8", shape: [gap], data_offsets: [0, gap] }] as const,
      ];
      const text = `{${members.map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`).join(",")}}`;
      const front = file(text, new Uint8Array(0));
      let asked = 0;
      const source: ByteSource = {
        size: front.length + gap + bytes.length - end,
        read(at, into) {
          asked += into.length;
          const back = at - front.length - gap;
          if (back >= 0) into.set(bytes.subarray(end + back, end + back + into.length));
          else {
            expect(at + into.length).toBeLessThanOrEqual(front.length);
            into.set(front.subarray(at, at + into.length));
          }
        },
      };
      const read = decodeSafetensors(source, "huge.safetensors", (name) => wanted.has(name));
      expect(read).toEqual(new Map([...stored].filter(([name]) => wanted.has(name))));
      const values = [...read.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
      expect(asked).toBe(front.length + values);
    }),
  );
});
