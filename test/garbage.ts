/** The garbage collector, on demand. */
import { setTimeout as wait } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** Collects until `done`, and a few times more, because one pass need not free everything; afterwards unreachable tensors are freed. */
export async function garbageCollected(done: () => boolean = () => true): Promise<void> {
  for (let i = 0; i < 200 && !done(); i++) {
    collect();
    await wait(5);
  }
  for (let i = 0; i < 3; i++) {
    collect();
    await wait(1);
  }
}
