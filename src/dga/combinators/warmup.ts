/** Updates that are measured but not taken. */
import { checkRange } from "../../options.ts";
import { type Rule } from "../rule.ts";
import { wrap } from "./wrap.ts";

/** The weights stay where they start for the first `updates` updates; their signals are checked and dropped. */
export function warmup(rule: Rule, updates: number): Rule {
  checkRange("warmup: updates", updates, { min: 0, max: Infinity, openMax: true, integer: true });
  return wrap(rule, { name: "warmup", drops: (taken) => taken < updates });
}
