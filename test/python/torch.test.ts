/** Alignments in PyTorch modules, and the example of a trainer, where PyTorch is installed. */
import { checksOf } from "./checks.ts";

checksOf("torch_checks", ["torch"]);
