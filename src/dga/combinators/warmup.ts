/** Updates that are measured but not applied. */
import { integerIn } from "../../options.ts";
import { type Rule } from "../rule.ts";
import { wrap } from "./wrap.ts";

/**
 * Keeps the initial weights for the first `updates` updates; their signals are checked and then ignored. Throws `config` unless `updates` is an
 * integer of at least 0.
 */
export function warmup(rule: Rule, updates: number): Rule {
  integerIn(0)("warmup: updates", updates);
  return wrap(rule, { name: "warmup", drops: (update) => update < updates });
}
