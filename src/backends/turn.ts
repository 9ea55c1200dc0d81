/** Gives the event loop a turn on backends whose kernels never wait, so that signals and timers are handled during a long evaluation. */

const TURN_MILLISECONDS = 50;

let last = performance.now();

/** Lets the event loop run its waiting callbacks, if it had no turn for some time. */
export async function giveTurn(): Promise<void> {
  if (performance.now() - last < TURN_MILLISECONDS) return;
  await new Promise<void>((next) => {
    if (typeof setImmediate === "function") setImmediate(next);
    else afterMessages(next);
  });
  last = performance.now();
}

/** Calls `next` after a message: browsers delay the timers of a hidden page by a second, but not messages. */
function afterMessages(next: () => void): void {
  const { port1, port2 } = new MessageChannel();
  port1.addEventListener("message", () => {
    port1.close();
    next();
  });
  port1.start();
  port2.postMessage(null);
}
