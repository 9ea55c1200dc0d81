/** Functions on bytes and UTF-8 that work in both Node.js and browsers. */

/** Concatenates arrays; a single one is returned without a copy. */
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

/** Decodes UTF-8; invalid bytes become U+FFFD. */
export function readable(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** Number of UTF-8 bytes of a text; a lone half of a surrogate pair counts as U+FFFD. */
export function utf8Length(text: string): number {
  let bytes = text.length;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) continue;
    if (unit < 0x800) bytes++;
    else {
      bytes += 2;
      // The two halves of a pair count two bytes each.
      if ((text.codePointAt(i) ?? 0) > 0xffff) i++;
    }
  }
  return bytes;
}
