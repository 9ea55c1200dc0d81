/** Softmax cross-entropy, with one loss per row, and its derivatives. The loss of a row whose target is beyond the columns is NaN. */
import { dotProduct, type Kernels } from "./kernel.ts";

export const loss: Kernels<"crossEntropy" | "crossEntropyVjp" | "crossEntropyJvp"> = {
  crossEntropy: (p, { logits, targets }, { losses, lse }) => {
    for (let r = 0; r < p.rows; r++) {
      const row = logits.subarray(r * p.cols, (r + 1) * p.cols);
      let max = -Infinity;
      for (const logit of row) max = Math.max(max, logit);
      let sum = 0;
      for (const logit of row) sum += Math.exp(logit - max);
      const logSum = max + Math.log(sum);
      lse[r] = logSum;
      const target = targets[r]!;
      losses[r] = target < 0 ? 0 : target >= p.cols ? NaN : logSum - row[target]!;
    }
  },

  crossEntropyVjp: (p, { logits, targets, lse, dlosses }, { dlogits }) => {
    for (let r = 0; r < p.rows; r++) {
      const target = targets[r]!;
      for (let j = 0; j < p.cols; j++) {
        const at = r * p.cols + j;
        if (target < 0) dlogits[at] = 0;
        else if (target >= p.cols) dlogits[at] = NaN;
        else dlogits[at] = (Math.exp(logits[at]! - lse[r]!) - (j === target ? 1 : 0)) * dlosses[r]!;
      }
    }
  },

  crossEntropyJvp: (p, { logits, targets, lse, dlogits }, { dlosses }) => {
    for (let r = 0; r < p.rows; r++) {
      const target = targets[r]!;
      const row = logits.subarray(r * p.cols, (r + 1) * p.cols);
      const tangent = dlogits.subarray(r * p.cols, (r + 1) * p.cols);
      const probs = Float64Array.from(row, (logit) => Math.exp(logit - lse[r]!));
      if (target < 0) dlosses[r] = 0;
      else if (target >= p.cols) dlosses[r] = NaN;
      else dlosses[r] = dotProduct(probs, tangent) - tangent[target]!;
    }
  },
};
