/**
 * The backend interface: memory (tensor/memory.ts) plus kernels. A backend runs every kernel of the table in
 * kernels/index.ts; ops enqueue synchronously, only reading waits.
 */
import { GradmixError } from "../errors.ts";
import type { Memory, View } from "../tensor/memory.ts";
import { checkCall } from "./kernels/check.ts";
import type { Inputs, KernelName, KernelParams, NamedViews, Outputs } from "./kernels/index.ts";

/** Names of the backends: `cpu` is WebAssembly SIMD with threads, `webgpu` a GPU, `reference` plain loops in doubles, for tests. */
export type BackendName = "cpu" | "reference" | "webgpu";

/** What a backend has on this machine. */
export interface Capabilities {
  /** Threads that run kernels, the caller's included. */
  readonly threads: number;
  /** Instruction set or adapter, for reports: "relaxed", "plain", "f64", an adapter's name. */
  readonly simd: string;
  /** Most bytes that may be live at once. */
  readonly memoryLimit: number;
}

/** A backend: memory for tensors, and the kernels that compute with them. `init` gives the one that it chose. */
export interface Backend extends Memory {
  /** Which backend it is. */
  readonly name: BackendName;
  /** What it has on this machine. */
  readonly capabilities: Capabilities;
  /**
   * Enqueues one kernel. Operands go by their names in the table; optional ones may be null or left out. Unless the
   * table says so, an output may not overlap an input.
   */
  run<K extends KernelName>(kernel: K, params: KernelParams[K], inputs: Inputs<K>, outputs: Outputs<K>): void;
  /** Hands what was enqueued to the device; no wait. */
  flush(): void;
  /** Gives everything back; the backend cannot be used afterwards. */
  dispose(): Promise<void>;
}

function isBackend(memory: Memory): memory is Backend {
  return "run" in memory;
}

/** The memory that the operands live on, which `known` is if it is not null; null without operands. Throws `backend` where there are several. */
function memoryOf(kernel: KernelName, operands: NamedViews<Operand>, known: Memory | null): Memory | null {
  let memory = known;
  for (const name in operands) {
    const operand = operands[name];
    if (operand === null || operand === undefined) continue;
    memory ??= operand.memory;
    if (operand.memory !== memory)
      throw new GradmixError("backend", `${kernel}: operands live on different backends; create them on one`);
  }
  return memory;
}

/** Checks a call against the table, then runs it on the backend that the operands live on. */
export function run<K extends KernelName>(
  kernel: K,
  params: KernelParams[K],
  inputs: Inputs<K, Operand>,
  outputs: Outputs<K, Operand>,
): void {
  const memory = memoryOf(kernel, outputs, memoryOf(kernel, inputs, null));
  if (memory === null || !isBackend(memory))
    throw new GradmixError("backend", `${kernel}: no operand lives on a backend that runs kernels`);
  checkCall(kernel, params, inputs, outputs);
  tellWritten(outputs);
  memory.run(kernel, params, inputs, outputs);
}

function tellWritten(outputs: NamedViews<Operand>): void {
  for (const name in outputs) outputs[name]?.written?.();
}

/** A view that knows its memory; tensors are such. */
export interface Operand extends View {
  readonly memory: Memory;
  /** Told before a kernel writes to it. */
  written?(): void;
}
