/** Bytes and UTF-8 as in Node's Buffer, which browsers lack, also for texts with halves of surrogate pairs. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { detach } from "#dist/data/bpe.js";
import { joinBytes, readable, utf8Length } from "#dist/data/bytes.js";

const unit = fc.oneof(
  fc.integer({ min: 0, max: 0x7f }),
  fc.constantFrom(0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xd800, 0xdbff, 0xdc00, 0xdfff, 0xe000, 0xfeff, 0xffff),
  fc.integer({ min: 0xd800, max: 0xdfff }),
  fc.integer({ min: 0, max: 0xffff }),
);
/** Any UTF-16 there is, of lengths on both sides of those at which a piece becomes a string of its own. */
const anyText = fc.array(unit, { maxLength: 40 }).map((units) => String.fromCharCode(...units));

test("the number of UTF-8 bytes of a text is right", () => {
  fc.assert(
    fc.property(anyText, (text) => {
      expect(utf8Length(text)).toBe(Buffer.byteLength(text));
    }),
  );
});

test("a piece of a text does not change when it is copied into a string of its own", () => {
  fc.assert(
    fc.property(anyText, (text) => {
      expect(detach(text)).toBe(text);
    }),
  );
});

test("bytes can be joined and read", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 9 }), { maxLength: 5 }), (parts) => {
      const joined = joinBytes(parts);
      expect([...joined]).toEqual([...Buffer.concat(parts)]);
      expect(readable(joined)).toBe(Buffer.from(joined).toString());
    }),
  );
});
