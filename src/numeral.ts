/** A number in decimals, as people write it. `Number` would also read "" as 0 and "0x10" as 16. */
export const numeral: RegExp = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
