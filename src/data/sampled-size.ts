/** Tokens of a selected share of a domain's windows, of the domain's `tokens`. */
export function sampledSize(tokens: number, share: number): number {
  return Math.round(tokens * share);
}
