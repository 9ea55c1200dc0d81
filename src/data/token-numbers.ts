/** Numbers the tokens, and the pairs of tokens, that occur in some text, so that arrays can count them. */

/** Numbers pairs of integers below 2³¹ in the order of their first occurrence. */
export interface Keys {
  readonly size: number;
  /** The number of a pair; −1 if it has none. */
  get(a: number, b: number): number;
  add(a: number, b: number): number;
  /** Calls `use` with each pair and its number, in any order. */
  forEach(use: (a: number, b: number, number: number) => void): void;
}

/**
 * Pairs of integers below this are in a table (4 MB), which is several times faster than hashing. Numbers of tokens are in the order of their first
 * occurrence, so frequent tokens, and most pairs, are among them.
 */
const SIDE_BITS = 10;
const SIDE = 2 ** SIDE_BITS;

export function createKeys(): Keys {
  /** The number of a pair + 1; 0 if it has none. */
  const table = new Int32Array(SIDE * SIDE);
  const others = createHashed();
  let size = 0;
  const get = (a: number, b: number): number =>
    (a | b) < SIDE ? table[(a << SIDE_BITS) | b]! - 1 : others.get(a, b);
  return {
    get size() {
      return size;
    },
    get,
    add(a, b) {
      const known = get(a, b);
      if (known >= 0) return known;
      if ((a | b) < SIDE) table[(a << SIDE_BITS) | b] = size + 1;
      else others.set(a, b, size);
      return size++;
    },
    forEach(use) {
      table.forEach((value, at) => {
        if (value > 0) use(at >> SIDE_BITS, at & (SIDE - 1), value - 1);
      });
      others.forEach(use);
    },
  };
}

/** Numbers of pairs: a hash table with open addressing. */
interface Hashed {
  get(a: number, b: number): number;
  /** Gives a number to a pair that has none. */
  set(a: number, b: number, number: number): void;
  forEach(use: (a: number, b: number, number: number) => void): void;
}

function createHashed(): Hashed {
  let mask = 1023;
  // A slot holds a, b, the number, and an unused entry: with 16 bytes it lies within one cache line.
  let slots = new Int32Array(4 * (mask + 1)).fill(-1);
  let size = 0;
  const slotOf = (a: number, b: number): number => {
    let hash = Math.imul(a, 0x9e3779b1) ^ Math.imul(b ^ (b >>> 15), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35);
    let slot = (hash ^ (hash >>> 13)) & mask;
    while (slots[4 * slot + 2]! >= 0 && (slots[4 * slot] !== a || slots[4 * slot + 1] !== b))
      slot = (slot + 1) & mask;
    return 4 * slot;
  };
  const put = (a: number, b: number, number: number): void => {
    const slot = slotOf(a, b);
    slots[slot] = a;
    slots[slot + 1] = b;
    slots[slot + 2] = number;
  };
  const grow = (): void => {
    const before = slots;
    mask = 2 * mask + 1;
    slots = new Int32Array(4 * (mask + 1)).fill(-1);
    for (let at = 0; at < before.length; at += 4)
      if (before[at + 2]! >= 0) put(before[at]!, before[at + 1]!, before[at + 2]!);
  };
  return {
    get: (a, b) => slots[slotOf(a, b) + 2]!,
    set(a, b, number) {
      if (2 * size++ > mask) grow();
      put(a, b, number);
    },
    forEach(use) {
      for (let at = 0; at < slots.length; at += 4)
        if (slots[at + 2]! >= 0) use(slots[at]!, slots[at + 1]!, slots[at + 2]!);
    },
  };
}

/** Numbers tokens in the order of their first occurrence. */
export interface TokenNumbers {
  readonly size: number;
  /** The number of a token; −1 if it has none. */
  get(token: number): number;
  add(token: number): number;
}

/** Larger tokens, which hardly any tokenizer has, are looked up more slowly. */
const MOST_DIRECT = 2 ** 20;

export function createTokenNumbers(): TokenNumbers {
  const direct = new Int32Array(MOST_DIRECT).fill(-1);
  const others = new Map<number, number>();
  let size = 0;
  const get = (token: number): number => (token < MOST_DIRECT ? direct[token]! : (others.get(token) ?? -1));
  return {
    get size() {
      return size;
    },
    get,
    add(token) {
      const known = get(token);
      if (known >= 0) return known;
      if (token < MOST_DIRECT) direct[token] = size;
      else others.set(token, size);
      return size++;
    },
  };
}
