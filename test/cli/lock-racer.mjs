// Child of lock.test.ts: told a folder and a moment, it tries to take the folder's lock then, and holds it until it is told to give it back.
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
