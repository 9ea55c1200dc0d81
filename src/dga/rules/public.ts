/** The rules as users call them, `rules.dga(…)`: each under its own name. */
export { ado } from "./ado.ts";
export { dga } from "./dga.ts";
export { doge } from "./doge.ts";
export { doremi } from "./doremi.ts";
export { grape } from "./grape.ts";
export { importanceSampling } from "./importance-sampling.ts";
export { odm } from "./odm.ts";
export { rnb } from "./rnb.ts";
export { staticWeights as static } from "./static.ts";
export { temperature } from "./temperature.ts";
export { uniform } from "./uniform.ts";
