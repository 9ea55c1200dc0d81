/** A line of metrics.jsonl without its times, the only fields that differ between two equal runs. */
export function timeless<T extends object>(line: T): Omit<T, "seconds" | "evaluationSeconds"> {
  const { seconds, evaluationSeconds, ...rest } = line as T & {
    seconds?: unknown;
    evaluationSeconds?: unknown;
  };
  void [seconds, evaluationSeconds];
  return rest;
}
