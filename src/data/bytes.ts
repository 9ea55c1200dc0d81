/** Bytes and UTF-8 with what both Node.js and browsers have. */

/** One array after the other; a single one is given back as it is. */
export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const out = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** The text of UTF-8; what is none of it becomes U+FFFD. */
export function readable(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** Bytes of a text as UTF-8, in which half a surrogate pair is U+FFFD. */
export function utf8Length(text: string): number {
  let bytes = text.length;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) continue;
    if (unit < 0x800) bytes++;
    else {
      bytes += 2;
      // The two halves of a pair have two bytes each.
      if ((text.codePointAt(i) ?? 0) > 0xffff) i++;
    }
  }
  return bytes;
}
