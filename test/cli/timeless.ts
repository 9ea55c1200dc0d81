/** A line of metrics.jsonl without its times, the only fields in which two runs that are the same differ. */
export function timeless<T extends object>(line: T): Omit<T, "seconds" | "evaluationSeconds"> {
  const { seconds, evaluationSeconds, ...rest } = line as T & {
    seconds?: unknown;
    evaluationSeconds?: unknown;
  };
  void [seconds, evaluationSeconds];
  return rest;
}
