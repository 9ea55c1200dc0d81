// Activations that products apply to their rows. Kinds: 1 GELU (tanh form), 2 ReLU, 3 SiLU.
import {
  gated4, geluFrom, geluHeld, geluPower, geluShare, geluSlopeFrom, logistic4, reluSlope4, siluSlope4,
} from "./functions";
import { at, put, storePair, wide } from "./simd";

// Applies the activation to four numbers, or one, in place, and writes their slopes to `slope` if it is not 0.
// @ts-ignore: decorator
@inline function activate(kind: i32, vector: bool, place: usize, slope: usize): void {
  const x = at(vector, place);
  if (kind == 1) {
    const held = geluHeld(x), power = geluPower(held), share = geluShare(power);
    put(vector, place, geluFrom(x, share));
    if (slope) put(vector, slope, geluSlopeFrom(held, power, share));
  } else if (kind == 2) {
    put(vector, place, f32x4.max(x, f32x4.splat(0)));
    if (slope) put(vector, slope, reluSlope4(x));
  } else if (kind == 3) {
    const share = logistic4(x);
    put(vector, place, gated4(x, x));
    if (slope) put(vector, slope, siluSlope4(x, share));
  } else if (slope) put(vector, slope, f32x4.splat(1));
}

// Like activate, for eight numbers.
// @ts-ignore: decorator
@inline function activatePair(kind: i32, place: usize, slope: usize): void {
  const x = v128.load(place), y = v128.load(place, 16);
  if (kind == 1) {
    const heldX = geluHeld(x), heldY = geluHeld(y), powerX = geluPower(heldX), powerY = geluPower(heldY);
    const shareX = geluShare(powerX), shareY = geluShare(powerY);
    storePair(place, geluFrom(x, shareX), geluFrom(y, shareY));
    if (slope) storePair(slope, geluSlopeFrom(heldX, powerX, shareX), geluSlopeFrom(heldY, powerY, shareY));
  } else if (kind == 2) {
    storePair(place, f32x4.max(x, f32x4.splat(0)), f32x4.max(y, f32x4.splat(0)));
    if (slope) storePair(slope, reluSlope4(x), reluSlope4(y));
  } else if (kind == 3) {
    storePair(place, gated4(x, x), gated4(y, y));
    if (slope) storePair(slope, siluSlope4(x, logistic4(x)), siluSlope4(y, logistic4(y)));
  } else if (slope) storePair(slope, f32x4.splat(1), f32x4.splat(1));
}

// @ts-ignore: decorator
@inline function block(kind: i32, x: usize, slope: usize, stride: usize, rows: i32, bytes: usize): void {
  for (let r = 0; r < rows; r++) {
    let i: usize = 0;
    if (slope) {
      for (; wide && i + 32 <= bytes; i += 32) activatePair(kind, x + i, slope + i);
      for (; i + 16 <= bytes; i += 16) activate(kind, true, x + i, slope + i);
      for (; i < bytes; i += 4) activate(kind, false, x + i, slope + i);
      slope += stride;
    } else {
      for (; wide && i + 32 <= bytes; i += 32) activatePair(kind, x + i, 0);
      for (; i + 16 <= bytes; i += 16) activate(kind, true, x + i, 0);
      for (; i < bytes; i += 4) activate(kind, false, x + i, 0);
    }
    x += stride;
  }
}

// Functions of their own: if all of these loops are in one, V8 has too many constants to keep at hand, and each loop takes longer.
function geluBlock(x: usize, slope: usize, stride: usize, rows: i32, bytes: usize): void {
  block(1, x, slope, stride, rows, bytes);
}
function reluBlock(x: usize, slope: usize, stride: usize, rows: i32, bytes: usize): void {
  block(2, x, slope, stride, rows, bytes);
}
function siluBlock(x: usize, slope: usize, stride: usize, rows: i32, bytes: usize): void {
  block(3, x, slope, stride, rows, bytes);
}

// Applies the activation to a block in place, whose rows are `stride` bytes apart, and writes the slopes to one at `slope`, if that is not 0.
export function activateBlock(kind: i32, x: usize, slope: usize, stride: usize, rows: i32, bytes: usize): void {
  if (kind == 1) geluBlock(x, slope, stride, rows, bytes);
  else if (kind == 2) reluBlock(x, slope, stride, rows, bytes);
  else if (kind == 3) siluBlock(x, slope, stride, rows, bytes);
  else block(0, x, slope, stride, rows, bytes);
}
