/**
 * Number of times that a language model can read the same text and lose almost nothing against as much new text (Muennighoff and others, "Scaling
 * Data-Constrained Language Models", 2023, arXiv:2305.16264).
 */
export const GOOD_EPOCHS = 4;
