/** What a kernel launcher is: it turns one call of the table into launches of WebAssembly functions. */
import type { View } from "../../../tensor/memory.ts";
import type { KernelName, KernelParams } from "../../kernels.ts";
import type { Runtime } from "../runtime.ts";

export type Launcher<K extends KernelName> = (
  runtime: Runtime,
  params: KernelParams[K],
  inputs: readonly (View | null)[],
  outputs: readonly (View | null)[],
) => void;

export type Launchers = { readonly [K in KernelName]: Launcher<K> };
