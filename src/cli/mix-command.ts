/** `gradmix mix`: runs a rule as a process, for other trainers. docs/trainers.md describes the protocol. */
import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { GradmixError } from "../errors.ts";
import { makeFolders } from "../folders-node.ts";
import { ioError } from "../node/files.ts";
import { takeFileLock } from "./lock.ts";
import type { MixArguments, MixFlags } from "./mix-arguments.ts";
import { initOf } from "./mix-init.ts";
import { addressOf, listen } from "./mix-listen.ts";
import { replayFile } from "./mix-replay.ts";
import type { Output } from "./output.ts";
import { checkOutputs, filesAmong } from "./outputs.ts";
import { configError } from "./values.ts";

/** Runs the command and returns the exit code. Throws `config`, `data`, `checkpoint` and `io`. */
export async function mix(args: MixArguments, err: Output): Promise<number> {
  const { flags } = args;
  checkTogether(flags);
  checkOutputs(
    Object.entries({
      // A file that exists is read.
      "--token-file": flags.tokenFile === null || existsSync(flags.tokenFile) ? null : flags.tokenFile,
      "--state-file": flags.stateFile,
      "--weights-file": flags.weightsFile,
    }).flatMap(([flag, path]) => (path === null ? [] : [[flag, path] as const])),
    filesAmong([args.config, flags.sizes, flags.tokenFile, ...args.given.values()]),
    flags.stateFile === null ? [] : [["--state-file", flags.stateFile]],
  );
  if (flags.replay !== null) return replayFile(flags.replay, args, err);
  const init = initOf(args, null, err);
  if (init !== null && !("domains" in init))
    throw configError(
      "the rule is given without domains: add --domains A,B, or give both in the first line (init)",
    );
  const { stateFile, weightsFile } = flags;
  const address = flags.listen === null ? null : addressOf(flags.listen);
  if (stateFile !== null) lock(stateFile);
  const { createKeeper } = await import("../mix/keeper.ts");
  const keeper = createKeeper({ state: stateFile, weights: weightsFile });
  const continued = keeper.session() !== null;
  if (init !== null) {
    const reply = keeper.message(init);
    if (reply.type === "error")
      throw new GradmixError(
        "config",
        `${continued ? `--state-file ${stateFile ?? ""}: ` : ""}${reply.field === null ? "" : `${reply.field}: `}${reply.error}${continued ? "; for a new session, name another file" : ""}`,
      );
  }
  if (address !== null) {
    await listen(keeper, address, flags.tokenFile);
    return 0;
  }
  // Ctrl-C on a terminal also reaches the trainer, which may request the state a last time; this process ends when its input ends.
  if (!process.stdin.isTTY) process.on("SIGINT", () => {});
  else
    err.write('Write one message per line, first {"type":"init","domains":[…]}; Ctrl-D ends the session.\n');
  const { serveLines } = await import("../mix/lines.ts");
  await serveLines(process.stdin, process.stdout, keeper.line);
  return 0;
}

function checkTogether(flags: MixFlags): void {
  const { replay, listen, tokenFile, stateFile, weightsFile } = flags;
  if (tokenFile !== null && listen === null) throw configError("--token-file: only --listen uses a token");
  for (const [flag, value] of Object.entries({
    "--listen": listen,
    "--state-file": stateFile,
    "--weights-file": weightsFile,
  }))
    if (replay !== null && value !== null)
      throw configError(`${flag}: --replay only prints weights and saves nothing; leave one of them out`);
}

/** Locks a file until the process exits. The lock of a process that was killed is taken over. */
function lock(file: string): void {
  try {
    makeFolders(dirname(file));
  } catch (error) {
    throw ioError(file, error);
  }
  const { release } = takeFileLock(file);
  process.once("exit", release);
}
