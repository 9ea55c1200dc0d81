/** A turn for the event loop, on backends whose kernels never wait: without it neither signals nor timers are heard during a long evaluation. */

const TURN_MILLISECONDS = 50;

let last = performance.now();

/** Lets what waits in the event loop run, if it had no turn for some time. */
export async function giveTurn(): Promise<void> {
  if (performance.now() - last < TURN_MILLISECONDS) return;
  await new Promise<void>((next) => {
    if (typeof setImmediate === "function") setImmediate(next);
    else afterMessages(next);
  });
  last = performance.now();
}

/** Browsers let timers of a hidden page wait for a second, messages not. */
function afterMessages(next: () => void): void {
  const { port1, port2 } = new MessageChannel();
  port1.addEventListener("message", () => {
    port1.close();
    next();
  });
  port1.start();
  port2.postMessage(null);
}
