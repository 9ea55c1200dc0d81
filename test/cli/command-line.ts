/** Reads command lines of `gradmix` with the command's own parser, but runs nothing. */
import { PassThrough } from "node:stream";
import { Command, CommanderError, Option } from "commander";
import { clusterArguments } from "#dist/cli/cluster-arguments.js";
import { addCommands } from "#dist/cli/commands.js";
import { rulesOfFlag, seedsOf } from "#dist/cli/compare-plan.js";
import { commandLineLayer, jsonLayer, type Layer, resolveConfig } from "#dist/cli/config.js";
import { divideArguments, divideTakes } from "#dist/cli/divide-arguments.js";
import { histogramArguments, histogramTakes } from "#dist/cli/histogram-arguments.js";
import { mixRows } from "#dist/cli/mix-arguments.js";
import { openOutput } from "#dist/cli/output.js";
import { type OptionRow, optionRows } from "#dist/cli/options.js";
import { prepareArguments, prepareTakes } from "#dist/cli/prepare-arguments.js";
import { type Raw, textOption } from "#dist/cli/values.js";
import { GradmixError } from "#dist/errors.js";
import { exportFormats } from "#dist/export/index.js";
import { parseJson } from "#dist/json.js";

/** Splits a line as a shell does: quotes are removed, and a comment ends the line. Throws for what a shell would read otherwise. */
export function wordsOf(line: string): string[] {
  const words: string[] = [];
  const rest = line.replaceAll(/\s*((?:'[^']*'|"[^"]*"|[^\s'"])+)/g, (_, word: string) => {
    words.push(word);
    return "";
  });
  if (rest.trim() !== "") throw new Error(`a quote is not closed: ${line}`);
  const end = words.findIndex((word) => word.startsWith("#"));
  return (end < 0 ? words : words.slice(0, end)).map((word) => {
    if (/[*?]/.test(word.replaceAll(/'[^']*'|"[^"]*"/g, "")))
      throw new Error(`the shell would expand ${word}; quote it`);
    return word.replaceAll(/['"]/g, "");
  });
}

/** A line that commander has parsed. */
interface Parsed {
  readonly command: string;
  readonly args: readonly string[];
  readonly options: Readonly<Record<string, unknown>>;
}

function newProgram(): Command {
  const silent = openOutput(new PassThrough().resume());
  const program = new Command("gradmix");
  addCommands(program, { out: silent, err: silent });
  for (const command of [program, ...program.commands])
    command.exitOverride().configureOutput({ writeOut: () => {}, writeErr: () => {} });
  return program;
}

/** Parses the words after `gradmix`, without the command's action. Null: the line only asks for help. Throws CommanderError. */
function parse(words: readonly string[]): Parsed | null {
  const program = newProgram();
  let parsed: Parsed | null = null;
  for (const command of program.commands)
    command.action(
      () => void (parsed = { command: command.name(), args: command.args, options: command.opts() }),
    );
  try {
    program.parse(words, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError) || error.exitCode !== 0) throw error;
  }
  return parsed;
}

/** The options of a line as commander gives them to the command; null if the line only asks for help. */
export function optionsOf(words: readonly string[]): Parsed["options"] | null {
  return parse(words)?.options ?? null;
}

const isShares = (path: string): boolean => ["mixing.weights", "mixing.histogram"].includes(path);

/** The options of `gradmix train` that a command accepts, among those that were given, checked. */
function layerOf(
  options: Parsed["options"],
  rows: readonly OptionRow[] = optionRows(),
): { given: ReadonlyMap<string, Raw>; layer: Layer } {
  const given = new Map<string, Raw>();
  for (const { flag, path } of rows) {
    const read = options[new Option(flag).attributeName()];
    const value = typeof read === "string" ? [read] : read;
    if (typeof value === "boolean") given.set(path, value);
    // A file of an earlier run, which is not here, is replaced by the shares that it would hold.
    else if (Array.isArray(value))
      given.set(
        path,
        isShares(path) && String(value).endsWith(".json") ? ["code=0.5,prose=0.5"] : (value as Raw),
      );
  }
  return { given, layer: commandLineLayer(given) };
}

/** A config file that says only which text there is, in place of one that a page names. */
const someText: Layer = jsonLayer(
  parseJson(
    '{ "data": { "domains": { "code": "code.txt", "prose": "prose.txt" }, "target": "target.txt" } }',
    {
      source: "config.json",
    },
  ),
  "config.json",
);

/** Checks the values of the options and how they go together, as each command does before it reads text. */
const checks: Readonly<Record<string, (parsed: Parsed) => void>> = {
  train({ args: [config], options }) {
    const { layer } = layerOf(options);
    if (options["resume"] === undefined) resolveConfig(config === undefined ? [layer] : [layer, someText]);
  },
  compare({ args: [config], options }) {
    const { layer } = layerOf(options);
    const [rules, seeds] = [textOption(options, "rules"), textOption(options, "seeds")];
    if (rules !== null) rulesOfFlag(rules, []);
    if (seeds !== null) seedsOf(seeds, 0, "--seeds");
    if (options["resume"] === undefined) resolveConfig(config === undefined ? [layer] : [layer, someText]);
  },
  histogram({ args: [config], options }) {
    const { layer } = layerOf(options, optionRows().filter(histogramTakes));
    histogramArguments(options);
    resolveConfig(config === undefined ? [layer] : [layer, someText]);
  },
  prepare({ args: [config], options }) {
    const { given, layer } = layerOf(options, optionRows().filter(prepareTakes));
    prepareArguments(config, given, optionRows(), options);
    resolveConfig(config === undefined ? [layer] : [layer, someText]);
  },
  divide({ args: [config], options }) {
    const { given, layer } = layerOf(options, optionRows().filter(divideTakes));
    divideArguments(config, given, optionRows(), options);
    resolveConfig(config === undefined ? [layer] : [layer, someText]);
  },
  cluster: ({ args, options }) => void clusterArguments(args, options),
  mix: ({ options }) => void layerOf(options, mixRows(optionRows())),
  export({ options: { to } }) {
    if (typeof to === "string" && !exportFormats.has(to))
      throw new GradmixError("config", `--to: there is no format ${to}`);
  },
  report() {},
  watch() {},
  doctor() {},
};

/**
 * Why `gradmix` refuses the words after its name before it reads text; null if it accepts them. `partial`: the line may leave out arguments, options and
 * values that are required, as when a sentence names a command with one option.
 */
export function refusalOf(
  words: readonly string[],
  { partial = false }: { partial?: boolean } = {},
): string | null {
  try {
    const parsed = parse(words);
    if (parsed === null || partial) return null;
    const check = checks[parsed.command];
    if (check === undefined) throw new Error(`add a check of gradmix ${parsed.command}`);
    check(parsed);
    return null;
  } catch (error) {
    if (error instanceof GradmixError) return error.message;
    if (!(error instanceof CommanderError)) throw error;
    const isMissing = [
      "commander.missingArgument",
      "commander.missingMandatoryOptionValue",
      "commander.optionMissingArgument",
    ].includes(error.code);
    return partial && isMissing ? null : error.message;
  }
}

/** The options of each command: the flag, whether it takes a value, and its help. */
export function optionsByCommand(): ReadonlyMap<
  string,
  readonly { readonly flag: string; readonly takesValue: boolean; readonly help: string }[]
> {
  return new Map(
    newProgram().commands.map((command) => [
      command.name(),
      command.options.flatMap(({ long, required, optional, description }) =>
        long === undefined || long === null
          ? []
          : [{ flag: long, takesValue: required || optional, help: description }],
      ),
    ]),
  );
}

/** The flags of all commands. */
export function allFlags(): ReadonlySet<string> {
  return new Set([...optionsByCommand().values()].flat().map(({ flag }) => flag));
}
