/** Rows by index: gather and its transpose scatterAdd. */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { integerIn } from "../../options.ts";
import { formatShape, sameShape, sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { mixesBatch } from "../batch.ts";
import { allocate, apply1, type None, none, type Op, type Spec, wantType } from "../op.ts";
import { reshape } from "./broadcast.ts";

/** The shape of table[ids]. Throws `shape`. */
export function gatheredSpec(name: string, table: Spec, ids: Spec): Spec {
  wantType(name, "the table", table, "f32");
  wantType(name, "the index", ids, "i32");
  if (table.shape.length === 0)
    throw new GradmixError("shape", `${name}: a scalar is no table for indices ${formatShape(ids.shape)}`);
  return { shape: [...ids.shape, ...table.shape.slice(1)], dtype: "f32" };
}

export function gatherForward(table: Tensor, ids: Tensor, spec: Spec): Tensor {
  const out = allocate(spec, table);
  run(
    "gather",
    { rows: ids.size, width: sizeOf(table.shape.slice(1)), tableRows: table.shape[0] },
    [table, ids],
    [out],
  );
  return out;
}

export const gatherOp: Op<None> = {
  name: "gather",
  keepsBatch: mixesBatch,
  infer([table, ids]) {
    return [gatheredSpec("gather", table, ids)];
  },
  forward([table, ids], _, [spec]) {
    return { outputs: [gatherForward(table, ids, spec)], saved: [ids] };
  },
  vjp([ct], { saved: [ids], inputs: [table] }) {
    return [ct === null ? null : gatherVjp(ct, ids, table), null];
  },
  jvp([tangent], { inputs: [, ids] }) {
    return [tangent === null ? null : gather(tangent, ids)];
  },
};

/** The cotangent of the table: each row of ct is added to the row that it came from. */
export function gatherVjp(ct: Tensor, ids: Tensor, table: Spec): Tensor {
  const flat = reshape(ct, [...ids.shape, sizeOf(table.shape.slice(1))]);
  return reshape(scatterAdd(flat, ids, table.shape[0]), table.shape);
}

export const scatterAddOp: Op<{ rows: number }> = {
  name: "scatterAdd",
  keepsBatch: mixesBatch,
  infer([x, ids], { rows }) {
    wantType("scatterAdd", "x", x, "f32");
    wantType("scatterAdd", "the index", ids, "i32");
    if (x.shape.length === 0 || !sameShape(x.shape.slice(0, -1), ids.shape))
      throw new GradmixError(
        "shape",
        `scatterAdd: x ${formatShape(x.shape)} and the index ${formatShape(ids.shape)} do not fit; x has one more axis`,
      );
    integerIn(0)("scatterAdd: rows", rows);
    return [{ shape: [rows, x.shape[x.shape.length - 1]], dtype: "f32" }];
  },
  forward([x, ids], { rows }, [spec]) {
    const out = allocate(spec, x);
    run(
      "scatterAdd",
      { rows: ids.size, width: spec.shape[1], tableRows: rows, accumulate: false },
      [x, ids],
      [out],
    );
    return { outputs: [out], saved: [ids] };
  },
  vjp([ct], { saved: [ids] }) {
    return [ct === null ? null : gather(ct, ids), null];
  },
  jvp([tangent], { inputs: [, ids], attrs: { rows } }) {
    return [tangent === null ? null : scatterAdd(tangent, ids, rows)];
  },
};

/** table[ids]: table [rows, …], ids i32 → ids.shape + table.shape[1…]. An id outside of the table gives NaN. */
export function gather(table: Tensor, ids: Tensor): Tensor {
  return apply1(gatherOp, [table, ids], none);
}

/** Adds the rows of x [n…, width] into row ids [n…] of zeros [rows, width]. Ids must be rows of the result. */
export function scatterAdd(x: Tensor, ids: Tensor, rows: number): Tensor {
  return apply1(scatterAddOp, [x, ids], { rows });
}
