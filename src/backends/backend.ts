/**
 * The backend interface: memory (tensor/memory.ts) plus kernels. A backend runs every kernel of the table in
 * kernels.ts; ops enqueue synchronously, only reading waits.
 */
import { GradmixError } from "../errors.ts";
import type { Memory, View } from "../tensor/memory.ts";
import { checkCall, type KernelName, type KernelParams } from "./kernels.ts";

export type BackendName = "cpu" | "reference" | "webgpu";

export interface Capabilities {
  /** Threads that run kernels, the caller's included. */
  readonly threads: number;
  /** Instruction set or adapter, for reports: "relaxed", "plain", "f64", an adapter's name. */
  readonly simd: string;
  /** Most bytes that may be live at once. */
  readonly memoryLimit: number;
}

export interface Backend extends Memory {
  readonly name: BackendName;
  readonly capabilities: Capabilities;
  /**
   * Enqueues one kernel. `inputs` and `outputs` are in the table's order; optional operands are null. Unless the
   * table says so, an output may not overlap an input.
   */
  run<K extends KernelName>(
    kernel: K,
    params: KernelParams[K],
    inputs: readonly (View | null)[],
    outputs: readonly (View | null)[],
  ): void;
  /** Hands what was enqueued to the device; no wait. */
  flush(): void;
  /** Gives everything back; the backend cannot be used afterwards. */
  dispose(): Promise<void>;
}

function isBackend(memory: Memory): memory is Backend {
  return "run" in memory;
}

function firstMemory(operands: readonly (Operand | null)[]): Memory | null {
  for (const operand of operands) if (operand !== null) return operand.memory;
  return null;
}

function allOn(memory: Memory, operands: readonly (Operand | null)[]): boolean {
  for (const operand of operands) if (operand !== null && operand.memory !== memory) return false;
  return true;
}

/** Checks a call against the table, then runs it on the backend that the operands live on. */
export function run<K extends KernelName>(
  kernel: K,
  params: KernelParams[K],
  inputs: readonly (Operand | null)[],
  outputs: readonly (Operand | null)[],
): void {
  const memory = firstMemory(inputs) ?? firstMemory(outputs);
  if (memory === null || !isBackend(memory))
    throw new GradmixError("backend", `${kernel}: no operand lives on a backend that runs kernels`);
  if (!allOn(memory, inputs) || !allOn(memory, outputs))
    throw new GradmixError("backend", `${kernel}: operands live on different backends; create them on one`);
  checkCall(kernel, params, inputs, outputs);
  for (const output of outputs) output?.written?.();
  memory.run(kernel, params, inputs, outputs);
}

/** A view that knows its memory; tensors are such. */
export interface Operand extends View {
  readonly memory: Memory;
  /** Told before a kernel writes to it. */
  written?(): void;
}
