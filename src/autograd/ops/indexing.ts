/** Rows by index: gather and its transpose scatterAdd. Elements along an axis by index: takeAlongAxis and its transpose scatterAddAlongAxis. */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { integerIn } from "../../options.ts";
import { aroundAxis, formatShape, normaliseAxis, sameShape, sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { mixesBatch } from "../batch.ts";
import { wantLike, wantTensors } from "../checks.ts";
import { allocate, apply1, type None, none, type Op, type Spec, wantType } from "../op.ts";
import { reshape } from "./broadcast.ts";

/** The shape of table[ids]. Throws `shape`. */
export function gatheredSpec(name: string, table: Spec, ids: Spec): Spec {
  wantType(name, "the table", table, "f32");
  wantType(name, "the index", ids, "i32");
  if (table.shape.length === 0)
    throw new GradmixError(
      "shape",
      `${name}: a scalar cannot be a table for indices ${formatShape(ids.shape)}`,
    );
  return { shape: [...ids.shape, ...table.shape.slice(1)], dtype: "f32" };
}

export function gatherForward(table: Tensor, ids: Tensor, spec: Spec): Tensor {
  const out = allocate(spec, table);
  run(
    "gather",
    { rows: ids.size, width: sizeOf(table.shape.slice(1)), tableRows: table.shape[0]! },
    { table, ids },
    { out },
  );
  return out;
}

export const gatherOp: Op<None, "table ids", "y", "ids"> = {
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

/** The cotangent of the table: each row of ct is added to the row from which it came. */
export function gatherVjp(ct: Tensor, ids: Tensor, table: Spec): Tensor {
  const flat = reshape(ct, [...ids.shape, sizeOf(table.shape.slice(1))]);
  return reshape(scatterAdd(flat, ids, table.shape[0]!), table.shape);
}

export const scatterAddOp: Op<{ rows: number }, "x ids", "y", "ids"> = {
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
    return [{ shape: [rows, x.shape[x.shape.length - 1]!], dtype: "f32" }];
  },
  forward([x, ids], { rows }, [spec]) {
    const out = allocate(spec, x);
    run(
      "scatterAdd",
      { rows: ids.size, width: spec.shape[1]!, tableRows: rows, accumulate: false },
      { x, ids },
      { out },
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

/** table[ids]: table [rows, …], ids i32 → ids.shape + table.shape[1…]. An id outside the table gives NaN. */
export function gather(table: Tensor, ids: Tensor): Tensor<"f32"> {
  return apply1(gatherOp, [table, ids], none);
}

/**
 * Adds the rows of x [n…, width] to the rows ids [n…] of zeros [rows, width]. Ids must be rows of the result: a row of x with another id is left out, since
 * the contents of a tensor are not known when an op is called.
 */
export function scatterAdd(x: Tensor, ids: Tensor, rows: number): Tensor<"f32"> {
  return apply1(scatterAddOp, [x, ids], { rows });
}

/** Throws `shape` unless an index has as many axes as x, and the same extents except along the axis. */
function wantAlong(name: string, x: Spec, indices: Spec, axis: number): void {
  wantType(name, "x", x, "f32");
  wantType(name, "the index", indices, "i32");
  integerIn(0, x.shape.length - 1)(`${name}: axis`, axis);
  if (
    !sameShape(
      indices.shape,
      x.shape.map((extent, i) => (i === axis ? indices.shape[i]! : extent)),
    )
  )
    throw new GradmixError(
      "shape",
      `${name}: the index ${formatShape(indices.shape)} does not fit ${formatShape(x.shape)} along axis ${axis}; all other axes must be alike`,
    );
}

export const takeAlongAxisOp: Op<{ axis: number }, "x indices", "y", "indices"> = {
  name: "takeAlongAxis",
  keepsBatch: (slot, _inputs, _output, { axis }) => slot === 0 && axis > 0,
  infer([x, indices], { axis }) {
    wantAlong("takeAlongAxis", x, indices, axis);
    return [{ shape: indices.shape, dtype: "f32" }];
  },
  forward([x, indices], { axis }, [spec]) {
    const out = allocate(spec, x);
    const count = indices.shape[axis]!;
    run("takeAlong", { ...aroundAxis(x.shape, axis), count }, { x, indices }, { out });
    return { outputs: [out], saved: [indices] };
  },
  vjp([ct], { saved: [indices], inputs: [x], attrs: { axis } }) {
    return [ct === null ? null : scatterAddAlongAxis(ct, indices, axis, x.shape[axis]!), null];
  },
  jvp([tangent], { inputs: [, indices], attrs: { axis } }) {
    return [tangent === null ? null : takeAlongAxis(tangent, indices, axis)];
  },
};

export const scatterAddAlongAxisOp: Op<{ axis: number; extent: number }, "x indices", "y", "indices"> = {
  name: "scatterAddAlongAxis",
  keepsBatch: (slot, _inputs, _output, { axis }) => slot === 0 && axis > 0,
  infer([x, indices], { axis, extent }) {
    wantType("scatterAddAlongAxis", "x", x, "f32");
    wantLike("scatterAddAlongAxis", "the index", indices, { shape: x.shape, dtype: "i32" });
    integerIn(0, x.shape.length - 1)("scatterAddAlongAxis: axis", axis);
    integerIn(0)("scatterAddAlongAxis: extent", extent);
    return [{ shape: x.shape.map((e, i) => (i === axis ? extent : e)), dtype: "f32" }];
  },
  forward([x, indices], { axis }, [spec]) {
    const out = allocate(spec, x);
    const count = x.shape[axis]!;
    run("scatterAddAlong", { ...aroundAxis(spec.shape, axis), count }, { y: x, indices }, { out });
    return { outputs: [out], saved: [indices] };
  },
  vjp([ct], { saved: [indices], attrs: { axis } }) {
    return [ct === null ? null : takeAlongAxis(ct, indices, axis), null];
  },
  jvp([tangent], { inputs: [, indices], attrs: { axis, extent } }) {
    return [tangent === null ? null : scatterAddAlongAxis(tangent, indices, axis, extent)];
  },
};

/**
 * Elements of x along an axis by index, like NumPy's take_along_axis and PyTorch's gather: out[…, c, …] = x[…, indices[…, c, …], …]. `indices` (i32)
 * and the result have the shape of x except along the axis. An index outside the axis gives NaN. Throws `shape` for shapes or types that do not fit.
 */
export function takeAlongAxis(x: Tensor, indices: Tensor, axis: number): Tensor<"f32"> {
  wantTensors("takeAlongAxis", [x, indices]);
  return apply1(takeAlongAxisOp, [x, indices], { axis: normaliseAxis(axis, x.rank, "takeAlongAxis") });
}

/**
 * Adds x to zeros along an axis by index, the transpose of `takeAlongAxis`: out[…, indices[…, c, …], …] += x[…, c, …], in the order of c. `indices`
 * (i32) has the shape of x; so has the result, except for `extent` along the axis. Indices must lie within it: an element of x with another index is left
 * out. Throws `shape` for shapes or types that do not fit.
 */
export function scatterAddAlongAxis(x: Tensor, indices: Tensor, axis: number, extent: number): Tensor<"f32"> {
  wantTensors("scatterAddAlongAxis", [x, indices]);
  const along = normaliseAxis(axis, x.rank, "scatterAddAlongAxis");
  return apply1(scatterAddAlongAxisOp, [x, indices], { axis: along, extent });
}
