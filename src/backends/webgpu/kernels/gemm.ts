/**
 * Matrix products.
 *
 * `tiled` is the portable design: a workgroup of 16 × 16 invocations makes a tile of 64 × 64, an invocation 4 × 4 of it; slices of 16 of k go through
 * workgroup memory, A transposed so that both operands are read along rows. `plain` is for software adapters: an invocation makes a strip of 1 × 4
 * without barriers.
 */
import { GradmixError } from "../../../errors.ts";
import type { KernelParams } from "../../kernels.ts";
import { type Dispatch, f32, type KernelContext, type Launchers, operandsOf, u32 } from "../context.ts";
import { activated, MATH } from "./elementwise.ts";

type Params = KernelParams["gemm"];

export const gemm: Pick<Launchers, "gemm"> = {
  gemm(context, params, [a, b, bias], [c, pre]) {
    if (params.accumulate && params.activation !== "none")
      throw new GradmixError(
        "shape",
        `gemm: "accumulate" goes with the activation "none", not "${params.activation}"`,
      );
    const { m, n, k, batch, strideA, strideB, strideC, alpha } = params;
    if (m === 0 || n === 0 || batch === 0) return;
    const epilogue = [params.accumulate, params.activation, bias !== null, pre !== null].join();
    const shared: Omit<Dispatch, "key" | "groups" | "body" | "workgroup"> = {
      operands: operandsOf({ a, b, bias }, { c, pre }),
      scalars: {
        m: u32(m),
        n: u32(n),
        k: u32(k),
        stride_a: u32(strideA),
        stride_b: u32(strideB),
        stride_c: u32(strideC),
        alpha: f32(alpha),
        tiles_m: u32(Math.ceil(m / TILE)),
        tiles_n: u32(Math.ceil(n / TILE)),
        batch: u32(batch),
      },
      declarations: `${MATH}
fn at_a(item: u32, i: u32, l: u32) -> u32 { return item * p.stride_a + ${params.transA ? "l * p.m + i" : "i * p.k + l"}; }
fn at_b(item: u32, l: u32, j: u32) -> u32 { return item * p.stride_b + ${params.transB ? "j * p.k + l" : "l * p.n + j"}; }
fn finish(item: u32, i: u32, j: u32, sum: f32) {
  let at = item * p.stride_c + i * p.n + j;
  let x = p.alpha * sum${bias === null ? "" : " + bias(j)"}${params.accumulate ? " + c(at)" : ""};
${pre === null ? "" : "  set_pre(at, x);\n"}  set_c(at, ${activated[params.activation]});
}`,
    };
    const kind = `${params.transA ? "T" : "N"}${params.transB ? "T" : "N"} ${epilogue}`;
    (context.traits.software ? plain : tiled)(context, params, shared, kind);
  },
};

const TILE = 64;
const SLICE = 16;

function tiled(
  context: KernelContext,
  { m, n, batch }: Params,
  shared: Omit<Dispatch, "key" | "groups" | "body" | "workgroup">,
  kind: string,
): void {
  const four = [0, 1, 2, 3];
  const products = four.flatMap((i) =>
    four.map((j) => `      sum${i}${j} = fma(a${i}, b${j}, sum${i}${j});`),
  );
  context.dispatch({
    ...shared,
    key: `gemm tiled ${kind}`,
    workgroup: 256,
    groups: batch * Math.ceil(m / TILE) * Math.ceil(n / TILE),
    declarations: `${shared.declarations ?? ""}
// Rows are padded, so that the invocations of a warp fall on different banks.
var<workgroup> tile_a: array<f32, ${SLICE * (TILE + 1)}>;
var<workgroup> tile_b: array<f32, ${SLICE * (TILE + 1)}>;`,
    body: `  let tiles = p.tiles_m * p.tiles_n;
  let item = group / tiles;
  let row0 = ((group % tiles) / p.tiles_n) * ${TILE}u;
  let col0 = ((group % tiles) % p.tiles_n) * ${TILE}u;
  let ti = (local / 16u) * 4u;
  let tj = (local % 16u) * 4u;
${four.map((i) => `  var ${four.map((j) => `sum${i}${j} = 0.0;`).join(" var ")}`).join("\n")}
  for (var l0 = 0u; l0 < p.k; l0 += ${SLICE}u) {
    workgroupBarrier();
    for (var e = local; e < ${TILE * SLICE}u; e += 256u) {
      // Neighbouring invocations read neighbouring elements of either storage.
      let ia = ${kind.startsWith("T") ? `e % ${TILE}u` : `e / ${SLICE}u`};
      let la = ${kind.startsWith("T") ? `e / ${TILE}u` : `e % ${SLICE}u`};
      let inside_a = row0 + ia < p.m && l0 + la < p.k;
      tile_a[la * ${TILE + 1}u + ia] = select(0.0, a(select(0u, at_a(item, row0 + ia, l0 + la), inside_a)), inside_a);
      let jb = ${kind[1] === "T" ? `e / ${SLICE}u` : `e % ${TILE}u`};
      let lb = ${kind[1] === "T" ? `e % ${SLICE}u` : `e / ${TILE}u`};
      let inside_b = col0 + jb < p.n && l0 + lb < p.k;
      tile_b[lb * ${TILE + 1}u + jb] = select(0.0, b(select(0u, at_b(item, l0 + lb, col0 + jb), inside_b)), inside_b);
    }
    workgroupBarrier();
    for (var l = 0u; l < ${SLICE}u; l++) {
${four.map((i) => `      let a${i} = tile_a[l * ${TILE + 1}u + ti + ${i}u];\n      let b${i} = tile_b[l * ${TILE + 1}u + tj + ${i}u];`).join("\n")}
${products.join("\n")}
    }
  }
${four
  .flatMap((i) =>
    four.map(
      (j) =>
        `  if (row0 + ti + ${i}u < p.m && col0 + tj + ${j}u < p.n) { finish(item, row0 + ti + ${i}u, col0 + tj + ${j}u, sum${i}${j}); }`,
    ),
  )
  .join("\n")}`,
  });
}

function plain(
  context: KernelContext,
  { m, n, batch }: Params,
  shared: Omit<Dispatch, "key" | "groups" | "body" | "workgroup">,
  kind: string,
): void {
  const strips = Math.ceil(n / 4);
  const four = [0, 1, 2, 3];
  context.dispatch({
    ...shared,
    key: `gemm plain ${kind}`,
    groups: Math.ceil((batch * m * strips) / 64),
    body: `  let strips = (p.n + 3u) / 4u;
  if (thread >= p.batch * p.m * strips) { return; }
  let item = thread / (p.m * strips);
  let i = (thread / strips) % p.m;
  let j = (thread % strips) * 4u;
  // Beyond the last column the last one is read again, and not written.
${four.map((c) => `  let j${c} = min(j + ${c}u, p.n - 1u);\n  var sum${c} = 0.0;`).join("\n")}
  for (var l = 0u; l < p.k; l++) {
    let value = a(at_a(item, i, l));
${four.map((c) => `    sum${c} = fma(value, b(at_b(item, l, j${c})), sum${c});`).join("\n")}
  }
${four.map((c) => `  if (j + ${c}u < p.n) { finish(item, i, j${c}, sum${c}); }`).join("\n")}`,
  });
}
