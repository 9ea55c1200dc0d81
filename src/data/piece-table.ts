/** Tables for the lookups of byte-pair encoding, in typed arrays: the ids of cached pieces, and the ranks of pairs. */

/** Number of pieces whose ids are cached; words repeat, but long pieces hardly ever do. A power of two, like the sizes of tables. */
const MOST_PIECES = 1 << 18;
/** UTF-16 units of the longest piece that is cached. */
export const LONGEST_PIECE = 64;

/** Cached ids of pieces, by their UTF-16 units. */
export interface PieceTable {
  /**
   * A record per piece: the number of its ids, the number of its units, the ids, the units. They are adjacent, because distant memory is slowest.
   * `add` may replace the array, but never changes records.
   */
  records: Uint32Array;
  /** Position of the record of the piece in `units` from `from` (included) to `to` (excluded); −1 if there is none. */
  find(units: Uint16Array, from: number, to: number): number;
  /** Caches the piece that was looked up last. If the table is full, it is emptied first. */
  add(units: Uint16Array, from: number, to: number, ids: Uint32Array): void;
}

/** Makes a table that grows with its contents, up to `most` pieces, a power of two. */
export function pieceTable(most: number = MOST_PIECES): PieceTable {
  let room = 0;
  let count = 0;
  /**
   * For each slot, the hash of its piece and the position of its record plus 1, or 0. There are twice as many slots as pieces, so that most are found
   * at the first lookup.
   */
  let slots = new Int32Array(0);
  let used = 0;
  let lastHash = 0;

  /** Allocates new arrays, since a caller may encode another text before it has read all ids. */
  const empty = (): void => {
    room = Math.min(1 << 9, most);
    count = 0;
    used = 0;
    slots = new Int32Array(4 * room);
    table.records = new Uint32Array(16 * room);
  };
  const grow = (): void => {
    const old = slots;
    room *= 2;
    slots = new Int32Array(4 * room);
    for (let slot = 0; slot < old.length; slot += 2) if (old[slot + 1] !== 0) put(old[slot]!, old[slot + 1]!);
  };
  const put = (hash: number, record: number): void => {
    const mask = slots.length - 2;
    let slot = (2 * hash) & mask;
    while (slots[slot + 1] !== 0) slot = (slot + 2) & mask;
    slots[slot] = hash;
    slots[slot + 1] = record;
  };
  const table: PieceTable = {
    records: new Uint32Array(0),
    find(units, from, to) {
      let hash = 0;
      for (let i = from; i < to; i++) hash = Math.imul(hash, 0x01000193) ^ units[i]!;
      hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
      hash ^= hash >>> 13;
      lastHash = hash;
      const { records } = table;
      const mask = slots.length - 2;
      for (let slot = (2 * hash) & mask; ; slot = (slot + 2) & mask) {
        const record = slots[slot + 1]! - 1;
        if (record < 0) return -1;
        if (slots[slot] !== hash || records[record + 1] !== to - from) continue;
        let i = from;
        for (let j = record + 2 + records[record]!; i < to && units[i] === records[j]; j++) i++;
        if (i === to) return record;
      }
    },
    add(units, from, to, ids) {
      if (count === most) empty();
      else if (count === room) grow();
      const size = 2 + ids.length + to - from;
      if (used + size > table.records.length) {
        const larger = new Uint32Array(2 * table.records.length + size);
        larger.set(table.records);
        table.records = larger;
      }
      const { records } = table;
      put(lastHash, used + 1);
      records[used] = ids.length;
      records[used + 1] = to - from;
      records.set(ids, used + 2);
      records.set(units.subarray(from, to), used + 2 + ids.length);
      used += size;
      count++;
    },
  };
  empty();
  return table;
}

/** Rank of a pair that is not merged; larger than all ranks. */
export const NO_RANK = 0x7fffffff;

/** The rank of each pair of ids; NO_RANK for one that is not merged. A pair that is listed twice has its last rank, as in Hugging Face's library. */
export function pairRanks(
  merges: readonly { readonly left: number; readonly right: number }[],
): (left: number, right: number) => number {
  const size = 2 ** Math.ceil(Math.log2(2 * merges.length + 2));
  const mask = size - 1;
  // Left, right and rank of each slot, one after another; −1 on the left marks a free slot.
  const slots = new Int32Array(3 * size).fill(-1);
  const slotOf = (left: number, right: number): number => {
    const hash = Math.imul(left, 0x2c1b3c6d) ^ Math.imul(right, 0x297a2d39);
    let slot = (hash ^ (hash >>> 15)) & mask;
    while (slots[3 * slot] !== -1 && (slots[3 * slot] !== left || slots[3 * slot + 1] !== right))
      slot = (slot + 1) & mask;
    return 3 * slot;
  };
  merges.forEach(({ left, right }, rank) => {
    slots.set([left, right, rank], slotOf(left, right));
  });
  return (left, right) => {
    const slot = slotOf(left, right);
    return slots[slot] === -1 ? NO_RANK : slots[slot + 2]!;
  };
}
