/** The command line: commands, help and error messages. docs/runs.md lists the exit codes. */
import { closeSync, openSync } from "node:fs";
import { isatty } from "node:tty";
import { Command, CommanderError, Option } from "commander";
import { GradmixError, onOneLine } from "../errors.ts";
import { addCommands } from "./commands.ts";
import { openOutput, type Output } from "./output.ts";
import { version } from "./version.ts";
import { reasonOf } from "../node/system-errors.ts";
import { didYouMean, configError } from "./values.ts";

/** Runs the command with the arguments that follow its name. Returns the exit code; never throws. */
export async function main(args: readonly string[]): Promise<number> {
  const out = openOutput(process.stdout);
  const err = openOutput(process.stderr);
  const terminals = [0, 1, 2].filter((fd) => isatty(fd));
  const fail = (error: unknown): number => {
    const known = error instanceof GradmixError ? error : null;
    const message =
      known?.message ?? `internal error: ${error instanceof Error ? error.message : String(error)}`;
    const hint = known === null && !debugging() ? " (set GRADMIX_DEBUG=1 to see where)" : "";
    err.write(`gradmix: ${onOneLine(message)}${hint}\n`);
    if (debugging() && error instanceof Error) err.write(`${error.stack ?? ""}\n`);
    return known === null ? 1 : 2;
  };
  // An error that nothing else handles also ends with one line, and the listeners of "exit" run.
  const end = async (error: unknown): Promise<never> => {
    const code = fail(error);
    await err.flush();
    process.exit(code);
  };
  process.on("uncaughtException", (error) => void end(error));
  let code: number;
  try {
    code = await run(args, out, err);
  } catch (error) {
    code = error instanceof CommanderError && error.exitCode === 0 ? 0 : fail(error);
  }
  await out.flush();
  // A reader that closed the pipe (`gradmix --help | head`) did so on purpose. Any other loss of output is an error.
  if (out.lost !== null && out.lost !== "EPIPE") {
    err.write(`gradmix: the output could not be written (${reasonOf(out.lost)})\n`);
    if (code === 0) code = 1;
  }
  await err.flush();
  leaveLostTerminals(terminals);
  return code;
}

/**
 * Replaces terminals that have disappeared by /dev/null. Node restores its terminals when it exits, and is killed by a signal if one of them is gone
 * (seen up to Node 24). A descriptor that now leads elsewhere is not touched.
 */
function leaveLostTerminals(terminals: readonly number[]): void {
  for (const fd of terminals)
    if (!isatty(fd))
      try {
        closeSync(fd);
        // `open` returns the lowest free number, which is this one.
        openSync("/dev/null", "r+");
      } catch {
        // Node then behaves as it would have.
      }
}

function debugging(): boolean {
  return process.env["GRADMIX_DEBUG"] === "1";
}

async function run(args: readonly string[], out: Output, err: Output): Promise<number> {
  const program = new Command("gradmix")
    .description("Train a language model while finding the mixture of its training data.")
    .version(version(), "-v, --version", "print the version")
    .addHelpOption(new Option("-h, --help", "print this help").hideHelp())
    .helpCommand(false)
    .usage("COMMAND [options]")
    .configureHelp({ subcommandTerm: (command) => command.name() })
    .addHelpText(
      "after",
      "\nSee gradmix COMMAND --help, which begins with an example, and gradmix --version.",
    );
  // The last lines of the help describe these options, because a section of their own would not fit one screen.
  for (const option of program.options) option.hideHelp();

  const ran = addCommands(program, { out, err });
  for (const command of [program, ...program.commands])
    command
      .exitOverride((error) => {
        throw oneLine(error, command);
      })
      .showSuggestionAfterError(false)
      .configureOutput({
        writeOut: (text) => out.write(text),
        writeErr: () => {},
        getOutHelpWidth: () => out.columns ?? 80,
      });
  if (args.length === 0) {
    out.write(program.helpInformation());
    return 0;
  }
  // `gradmix help train` is what many other commands offer; the option is the one that this command documents.
  const [first, ...rest] = args;
  const [subject] = rest;
  const known = [undefined, "-h", "--help", ...program.commands.map((command) => command.name())];
  if (first === "help" && !known.includes(subject)) throw unknownCommand(subject ?? "", program);
  await program.parseAsync(first === "help" ? [...rest, "--help"] : args, { from: "user" });
  return ran.code;
}

/** Turns an error of commander into one line in our words, with the nearest known option or command. */
function oneLine(error: CommanderError, command: Command): Error {
  if (error.exitCode === 0) return error;
  const subject = /'([^']*)'/.exec(error.message)?.[1] ?? "";
  switch (error.code) {
    case "commander.unknownOption": {
      const flags = command.options.flatMap((option) =>
        option.long === undefined || option.long === null ? [] : [option.long],
      );
      const flag = subject.split("=")[0] ?? subject;
      return configError(`unknown option ${flag}${didYouMean(flag, [...flags, "--help"])}`);
    }
    case "commander.unknownCommand":
      return unknownCommand(subject, command);
    case "commander.missingArgument":
      return configError(`${command.name()}: name ${subject === "RUN" ? "the folder of a run" : subject}`);
    case "commander.optionMissingArgument":
      return configError(`${subject.split(" ")[0]}: a value is missing (${subject})`);
    case "commander.excessArguments":
      if (command.registeredArguments.length === 0)
        return configError(`${command.name()}: takes no arguments (${command.args.slice(0, 3).join(" ")})`);
      return configError(
        `too many arguments: ${command.args.slice(0, 3).join(" ")}${command.args.length > 3 ? " …" : ""}; quote globs, so that the shell does not expand them`,
      );
    default:
      return configError(error.message.replace(/^error: /, ""));
  }
}

function unknownCommand(name: string, program: Command): Error {
  const names = program.commands.map((command) => command.name());
  return configError(`unknown command ${name}${didYouMean(name, names)}`);
}
