/** Caches compute pipelines by dispatch, and bind groups by pipeline and buffers, so that training steps after the first make none. */
import { GradmixError } from "../../errors.ts";
import { type Dispatch, textOf } from "./context.ts";
import { type Faults, firstLine } from "./faults.ts";
import type { PooledBuffer } from "./pool.ts";
import { scalarLayout, type ShaderOperand, shaderOf, type ShaderSlot } from "./shader.ts";
import { COMPUTE } from "./usage.ts";

export interface Pipeline {
  readonly id: number;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  /** Bytes of its scalars. */
  readonly scalarBytes: number;
  /** Whether the device has reported that it compiles. */
  proven: boolean;
  failure: GradmixError | null;
  /** The key of its dispatches, and how many there were. */
  readonly key: string;
  dispatches: number;
  /** Resolves when the device has reported whether it compiles. */
  readonly answered: Promise<void>;
}

export interface Pipelines {
  /** Returns the pipeline of a dispatch. `layoutKey` describes which operands share a binding and how each is bound; the dispatch's key contains all else that the shader depends on. */
  pipelineOf(
    dispatch: Dispatch,
    layoutKey: string,
    operands: readonly ShaderOperand[],
    slots: readonly ShaderSlot[],
  ): Pipeline;
  /** Returns the group that binds these buffers after the scalars. */
  groupOf(pipeline: Pipeline, scalars: GPUBuffer, buffers: readonly PooledBuffer[]): GPUBindGroup;
  /** Forgets the groups that bind this buffer. */
  forget(id: number): void;
  /** All pipelines made so far. */
  readonly made: readonly Pipeline[];
  readonly bindGroups: number;
}

export function createPipelines(device: GPUDevice, faults: Faults): Pipelines {
  /** Pipelines by the dispatch's key, then by `layoutKey`. */
  const known = new Map<string, Map<string, Pipeline>>();
  const groups = new Map<string, { readonly group: GPUBindGroup; readonly buffers: readonly number[] }>();
  const all: Pipeline[] = [];
  let bindGroups = 0;
  return {
    made: all,
    pipelineOf(dispatch, layoutKey, operands, slots) {
      const alike = known.get(dispatch.key) ?? new Map<string, Pipeline>();
      const found = alike.get(layoutKey);
      if (found !== undefined) return found;
      const pipeline = makePipeline(device, faults, dispatch, operands, slots, all.length);
      all.push(pipeline);
      known.set(dispatch.key, alike.set(layoutKey, pipeline));
      return pipeline;
    },
    groupOf({ id, layout, scalarBytes }, scalars, buffers) {
      let key = `${id}`;
      for (const buffer of buffers) key += `,${buffer.id}`;
      const found = groups.get(key);
      if (found !== undefined) return found.group;
      const group = device.createBindGroup({
        layout,
        entries: [
          { binding: 0, resource: { buffer: scalars, size: scalarBytes } },
          ...buffers.map(({ buffer }, slot) => ({ binding: slot + 1, resource: { buffer } })),
        ],
      });
      groups.set(key, { group, buffers: buffers.map((buffer) => buffer.id) });
      bindGroups++;
      return group;
    },
    forget(id) {
      for (const [key, { buffers }] of groups) if (buffers.includes(id)) groups.delete(key);
    },
    get bindGroups() {
      return bindGroups;
    },
  };
}

function makePipeline(
  device: GPUDevice,
  faults: Faults,
  dispatch: Dispatch,
  operands: readonly ShaderOperand[],
  slots: readonly ShaderSlot[],
  id: number,
): Pipeline {
  const source = {
    operands,
    slots,
    scalars: Object.entries(dispatch.scalars ?? {}).map(([name, [type]]) => [name, type] as const),
    workgroup: dispatch.workgroup ?? 64,
    ...(dispatch.declarations === undefined ? {} : { declarations: textOf(dispatch.declarations) }),
    ...(dispatch.features === undefined ? {} : { features: dispatch.features }),
    ...(dispatch.subgroupSize === undefined ? {} : { subgroupSize: dispatch.subgroupSize }),
    body: textOf(dispatch.body),
    more: dispatch.more?.text() ?? null,
  };
  const scalarBytes = 16 * Math.ceil(scalarLayout(source).length / 4);
  const layout = device.createBindGroupLayout({
    entries: [
      {
        binding: 0,
        visibility: COMPUTE,
        buffer: { type: "uniform", hasDynamicOffset: true, minBindingSize: scalarBytes },
      },
      ...slots.map(({ written }, slot): GPUBindGroupLayoutEntry => ({
        binding: slot + 1,
        visibility: COMPUTE,
        buffer: { type: written ? "storage" : "read-only-storage" },
      })),
    ],
  });
  device.pushErrorScope("internal");
  device.pushErrorScope("validation");
  const pipeline = device.createComputePipeline({
    label: dispatch.key,
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: {
      module: device.createShaderModule({ label: dispatch.key, code: shaderOf(source) }),
      entryPoint: "main",
    },
  });
  const affected = faults.owner;
  const answers = [device.popErrorScope(), device.popErrorScope()];
  const answered = faults.awaitReport(async () => {
    const found = await Promise.all(answers).catch(() => []);
    const error = found.find((each) => each !== null) ?? null;
    entry.proven = true;
    if (error === null || faults.disposed) return;
    entry.failure = new GradmixError(
      "backend",
      `webgpu: the kernel "${dispatch.key}" does not compile: ${firstLine(error.message)}`,
    );
    faults.failPassing(entry.failure, affected);
  });
  const entry: Pipeline = {
    ...{ id, pipeline, layout, scalarBytes, answered },
    ...{ key: dispatch.key, dispatches: 0, proven: false, failure: null },
  };
  return entry;
}
