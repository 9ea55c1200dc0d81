// Child of lock.test.ts: it receives a folder and a time, tries to take the folder's lock at that time, and holds it until it is asked to release it.
import { takeLock } from "#dist/cli/lock.js";

let held = null;
process.on("message", ({ folder, at }) => {
  if (folder === undefined) {
    held?.release();
    held = null;
    process.send("released");
    return;
  }
  while (performance.timeOrigin + performance.now() < at);
  try {
    held = takeLock(folder);
    process.send("taken");
  } catch (error) {
    process.send(error.code === "config" ? "refused" : `${error.code}: ${error.message}`);
  }
});
process.send("ready");
