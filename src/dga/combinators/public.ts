/** The combinators as users call them, `combinators.floor(rule, 0.1)`: each under its own name. */
export { ceiling, floor, repetitionCap, tokenBudget } from "./bounds.ts";
export { ema } from "./ema.ts";
export { etaSchedule } from "./eta-schedule.ts";
export { guard } from "./guard.ts";
export { shrinkage } from "./shrinkage.ts";
export { warmup } from "./warmup.ts";
