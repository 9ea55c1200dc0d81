/** Updates that are measured but not taken. */
import { integerIn } from "../../options.ts";
import { type Rule } from "../rule.ts";
import { wrap } from "./wrap.ts";

/** The weights stay where they start for the first `updates` updates; their signals are checked and dropped. Throws `config` unless `updates` is a count. */
export function warmup(rule: Rule, updates: number): Rule {
  integerIn(0)("warmup: updates", updates);
  return wrap(rule, { name: "warmup", drops: (taken) => taken < updates });
}
