/**
 * The backend interface: memory (tensor/memory.ts) plus kernels. A backend implements every kernel of the table in kernels/index.ts; ops enqueue
 * synchronously, and only reading waits.
 */
import { GradmixError } from "../errors.ts";
import type { Memory, View } from "../tensor/memory.ts";
import { checkCall } from "./kernels/check.ts";
import type { Inputs, KernelName, KernelParams, NamedViews, Outputs } from "./kernels/index.ts";

/** Name of a backend: `cpu` is WebAssembly SIMD with threads, `webgpu` a GPU, `reference` plain loops in doubles, for tests. */
export type BackendName = "cpu" | "reference" | "webgpu";

/** The capabilities of a backend on this machine. */
export interface Capabilities {
  /** Number of threads that run kernels, including the caller's. */
  readonly threads: number;
  /** Instruction set or adapter, for reports: "relaxed", "plain", "f64", or the name of an adapter. */
  readonly simd: string;
  /** Width of the vectors of the cpu backend, in bits. */
  readonly vectorBits?: 128 | 256;
  /** Largest number of bytes that may be live at once. */
  readonly memoryLimit: number;
}

/** A backend: memory for tensors, and the kernels that compute with them. `init` returns the one that it chose. */
export interface Backend extends Memory {
  /** Which backend it is. */
  readonly name: BackendName;
  /** The capabilities of the backend on this machine. */
  readonly capabilities: Capabilities;
  /**
   * Enqueues one kernel. Operands are given by their names in the table; optional ones may be null or left out. Unless the table allows it, an output
   * must not overlap an input.
   */
  run<K extends KernelName>(kernel: K, params: KernelParams[K], inputs: Inputs<K>, outputs: Outputs<K>): void;
  /** Submits everything enqueued to the device, without waiting. */
  flush(): void;
  /** Frees everything; the backend cannot be used afterwards. */
  dispose(): Promise<void>;
}

function isBackend(memory: Memory): memory is Backend {
  return "run" in memory;
}

/** Returns the memory that the operands and `known` share, or null if there are neither. Throws `backend` if they are in different memories. */
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

/** Checks a call against the table, then runs it on the backend of the operands. */
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

/** A view that knows its memory, such as a tensor. */
export interface Operand extends View {
  readonly memory: Memory;
  /** Called before a kernel writes to it. */
  written?(): void;
}
