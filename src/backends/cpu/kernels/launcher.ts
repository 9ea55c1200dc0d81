/** The type of kernel launchers: a launcher turns one call of the table into launches of WebAssembly functions. */
import type { Inputs, KernelName, KernelParams, Outputs } from "../../kernels/index.ts";
import type { Runtime } from "../runtime.ts";

export type Launcher<K extends KernelName> = (
  runtime: Runtime,
  params: KernelParams[K],
  inputs: Inputs<K>,
  outputs: Outputs<K>,
) => void;

export type Launchers = { readonly [K in KernelName]: Launcher<K> };
