/** Alignments in PyTorch modules, and the example of a trainer; skipped if PyTorch is not installed. */
import { checksOf } from "./checks.ts";

checksOf("torch_checks", ["torch"]);
