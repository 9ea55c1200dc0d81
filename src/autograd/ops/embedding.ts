/** Embedding lookup; the table's gradient is passed on as factors. */
import { GradmixError } from "../../errors.ts";
import { formatShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { mixesBatch } from "../batch.ts";
import { apply1, type None, none, type Op } from "../op.ts";
import { gather, gatheredSpec, gatherForward, gatherVjp } from "./indexing.ts";

export const embeddingOp: Op<None, "table ids", "y", "ids"> = {
  name: "embedding",
  keepsBatch: mixesBatch,
  emits: [0],
  infer([table, ids]) {
    if (table.shape.length !== 2 || ids.shape.length === 0)
      throw new GradmixError(
        "shape",
        `embedding: table ${formatShape(table.shape)} and ids ${formatShape(ids.shape)} do not fit; wanted [rows, width] and [batch, …]`,
      );
    return [gatheredSpec("embedding", table, ids)];
  },
  forward([table, ids], _, [spec]) {
    return { outputs: [gatherForward(table, ids, spec)], saved: [ids] };
  },
  vjp([ct], { saved: [ids], inputs: [table], needs, parameters: [parameter], sink }) {
    if (ct === null) return [null, null];
    if (parameter !== null) sink.embedding(parameter, ids, ct);
    return [needs[0] ? gatherVjp(ct, ids, table) : null, null];
  },
  jvp([tangent], { inputs: [, ids] }) {
    return [tangent === null ? null : gather(tangent, ids)];
  },
  compose([table, ids]) {
    return [gather(table, ids)];
  },
};

/** Looks up rows: table [rows, width], ids i32 [batch, …] → [batch, …, width]. If the table is a parameter, it has a per-example rule. */
export function embedding(table: Tensor, ids: Tensor): Tensor<"f32"> {
  return apply1(embeddingOp, [table, ids], none);
}
