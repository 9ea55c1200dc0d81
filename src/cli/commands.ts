/**
 * The commands of `gradmix`: the arguments and help of each, and the function that it calls. The code of a command is loaded when it runs, so
 * that `--help` stays fast.
 */
import { type Command, Option } from "commander";
import { THREADS_UNASKED } from "../backends/cpu/options.ts";
import { clusterArguments, clusterDefaults } from "./cluster-arguments.ts";
import { compareDescription, compareGroup, compareNotes, comparisonRow } from "./compare-help.ts";
import { usualRules, usualSeeds } from "./compare-plan.ts";
import { divideArguments, divideFlags, divideTakes } from "./divide-arguments.ts";
import { DEFAULT_PORT, firstExamples } from "./first-examples.ts";
import { gathers, listOption, refuseSecondValues } from "./flags.ts";
import { histogramArguments, histogramOptions, histogramRow, histogramTakes } from "./histogram-arguments.ts";
import { exportArguments, exportOptions } from "./export-arguments.ts";
import { mixFlags, type MixFlags, mixRows } from "./mix-arguments.ts";
import { groups, type OptionRow, optionRows } from "./options.ts";
import { prepareArguments, prepareFormats, prepareTakes } from "./prepare-arguments.ts";
import type { Outputs } from "./train.ts";
import { type Raw, textOption, configError, flagOf } from "./values.ts";

const examples = `
More examples:
  Take the options from a file, with another step size:
    $ gradmix train config.json --eta 2

  config.json holds the options in sections ("training.lr" is --lr):
    { "data": { "domains": { "code": "src/**/*.ts" }, "target": "answer.md" },
      "training": { "steps": 2000, "lr": 0.001 }, "mixing": { "eta": 2 } }

  Continue a run that was stopped; extend a run with --schedule constant:
    $ gradmix train --resume runs/first
    $ gradmix train --resume runs/steady --steps 4000

  Start a new run from the parameters of another run, or of a Hugging Face
  folder:
    $ gradmix train config.json --init-from runs/first --lr 0.0005

Quote globs, so that gradmix expands them instead of the shell.

Every option with a value is given once, except those that are repeatable.
--no-quiet, --no-keep-best and so on turn off what a config file turns on; of
--quiet and --no-quiet, the last one counts.

Exit codes:
  0              the run is complete
  1              an internal error, or the result could not be printed
  2              the input was refused, or the run ended for the reason in the
                 last line
  129, 130, 143  stopped by a hang-up, Ctrl-C or SIGTERM: the first signal in
                 training writes a checkpoint, a second one ends the run at once
`;

/** What all commands share. */
interface Io extends Outputs {
  /** The table of options of `gradmix train`. */
  readonly rows: readonly OptionRow[];
  /** The exit code, set once a command has run. */
  code: number;
}

/** Adds all commands. The returned object holds the exit code of the command that ran. */
export function addCommands(program: Command, outputs: Outputs): { readonly code: number } {
  const io: Io = { ...outputs, rows: optionRows(), code: 0 };
  for (const [group, adders] of helpGroups) {
    program.commandsGroup(group);
    for (const add of adders) add(program, io);
  }
  for (const command of program.commands) {
    command.addHelpText("before", firstExamples[command.name()] ?? "");
    refuseSecondValues(command);
  }
  return io;
}

/** The commands by purpose, in the order of `gradmix --help`. */
const helpGroups: readonly (readonly [
  heading: string,
  add: readonly ((program: Command, io: Io) => void)[],
])[] = [
  ["Find a mixture:", [addTrain, addCompare]],
  ["Before you train:", [addCluster, addDivide, addHistogram, addPrepare, addDoctor]],
  ["Look at runs, and use mixtures in other trainers:", [addReport, addWatch, addExport, addMix]],
];

function addTrain(program: Command, io: Io): void {
  const trainCommand = program
    .command("train")
    .summary("train a GPT while finding the weights of its domains")
    .description(
      "Train a GPT on several domains of text, and find how much of each domain it should read to become good at a small target set (Dynamic Gradient Alignment).",
    )
    .argument(
      "[CONFIG.json]",
      "a file with any of the options below; options on the command line override it",
    )
    .addHelpText("after", examples);
  addOptions(trainCommand, io.rows);
  trainCommand.addOption(
    new Option(
      "--resume <DIR>",
      "continue the run in DIR, or continue from one of its checkpoint files",
    ).helpGroup(groups.run),
  );
  trainCommand.action(async (config: string | undefined, options: Record<string, unknown>) => {
    const given = givenOf(io.rows, options);
    const { train } = await import("./train.ts");
    io.code = await train(
      { config: config ?? null, given, resume: textOption(options, "resume") },
      undefined,
      io,
    );
  });
}

function addCompare(program: Command, io: Io): void {
  const compareCommand = program
    .command("compare")
    .summary("train with several rules and seeds; compare held-out losses")
    .description(compareDescription)
    .argument(
      "[CONFIG.json|DIR]",
      "a config file of gradmix train, or the folder of a comparison to continue",
    )
    .addHelpText("after", compareNotes);
  const compareRows = io.rows.filter(({ path }) => path !== "mixing.rule").map(comparisonRow);
  compareCommand
    .addOption(
      new Option("--rules <A,B,…>", `the rules to compare (default: ${usualRules})`).helpGroup(compareGroup),
    )
    .addOption(
      new Option(
        "--seeds <N|A,B,…>",
        `the number of seeds, which count up from --seed, or a list such as 1,5,9 (default: ${usualSeeds})`,
      ).helpGroup(compareGroup),
    )
    .addOption(
      new Option(
        "--baseline <RULE>",
        "the rule with which the others are compared (default: the first)",
      ).helpGroup(compareGroup),
    );
  addOptions(compareCommand, compareRows);
  compareCommand.addOption(
    new Option("--resume <DIR>", "continue the comparison in DIR, like gradmix compare DIR").helpGroup(
      groups.run,
    ),
  );
  compareCommand.action(async (path: string | undefined, options: Record<string, unknown>) => {
    const text = (name: string): string | null => textOption(options, name);
    const { compare } = await import("./compare-command.ts");
    io.code = await compare(
      {
        path: path ?? null,
        given: givenOf(compareRows, options),
        rules: text("rules"),
        seeds: text("seeds"),
        baseline: text("baseline"),
        resume: text("resume"),
      },
      io,
    );
  });
}

function addHistogram(program: Command, io: Io): void {
  const histogramCommand = program
    .command("histogram")
    .summary("show what share of a target resembles each domain")
    .description(
      "Show what share of a target resembles each domain, without training. --rule dga starts from these shares, and --rule importanceSampling trains on them. If --domains is a folder of gradmix cluster, the shares come from the nearest centroids. Otherwise they come from bigrams of tokens.",
    )
    .argument("[CONFIG.json]", "a config file of gradmix train; options on the command line override it");
  const itsRows = io.rows.filter(histogramTakes).map(histogramRow);
  addOptions(histogramCommand, itsRows);
  for (const option of histogramOptions()) histogramCommand.addOption(option.helpGroup(groups.run));
  histogramCommand.action(async (config: string | undefined, options: Record<string, unknown>) => {
    const { showHistogram } = await import("./histogram-command.ts");
    io.code = await showHistogram(
      {
        config: config ?? null,
        given: givenOf(itsRows, options),
        rows: itsRows,
        ...histogramArguments(options),
      },
      io,
    );
  });
}

function addPrepare(program: Command, io: Io): void {
  const prepareCommand = program
    .command("prepare")
    .summary("turn text into files of tokens once, for many runs")
    .description(
      "Turn text into files of tokens, on all cores. Training on the folder starts at once and reads the tokens from disk, so a corpus may be larger than memory. To continue a command that was stopped, run it again.",
    )
    .argument("[CONFIG.json]", "a config file of gradmix train; options on the command line override it");
  const itsRows = io.rows.filter(prepareTakes).map(forText);
  addOptions(prepareCommand, itsRows);
  for (const [flag, value, help] of [
    ["--out", "DIR", "folder for the tokens (required)"],
    ["--format", prepareFormats.join("|"), `files of tokens (default: ${prepareFormats[0]})`],
    ["--workers", "N", "worker threads (default: one per core)"],
  ])
    prepareCommand.addOption(new Option(`${flag} <${value}>`, help).helpGroup(groups.run));
  // Known, so that it is refused with its reason.
  prepareCommand.addOption(new Option("--drop-contaminated").hideHelp());
  prepareCommand.action(async (config: string | undefined, options: Record<string, unknown>) => {
    const { prepare } = await import("./prepare-command.ts");
    io.code = await prepare(prepareArguments(config, givenOf(itsRows, options), itsRows, options), io);
  });
}

function addCluster(program: Command, io: Io): void {
  const clusterCommand = program
    .command("cluster")
    .summary("divide a corpus without labels into domains by topic")
    .description(
      "Divide a corpus into clusters of documents on the same topics. A run then uses the clusters as its domains.",
    )
    .argument(
      "<FILES...>",
      "paths, folders and globs of the corpus: text, .jsonl, .csv, .parquet, also .gz and .zst, tokenised corpora, and folders of gradmix prepare",
    )
    .requiredOption("--out <DIR>", "folder for the clusters; must not exist yet")
    .option("--clusters <N>", `number of clusters (default: ${clusterDefaults.levels.join(",")})`)
    .option(
      "--levels <N,N,…>",
      "make a tree: the number of clusters per cluster of the level above, from the top. 64,64 makes up to 4,096 clusters. Replaces --clusters",
    )
    .option(
      "--ids <DIR>",
      "use existing clusters: DIR has a .npy for each file, with a whole number for each document, in the layout of WebOrganizer; --clusters gives the number of clusters",
    )
    .option(
      "--tokenizer <FILE>",
      "also count the tokens of the clusters, with a tokenizer.json, the name of a vocabulary, or byte",
    )
    .option("--dim <N>", `dimension of the embeddings (default: ${clusterDefaults.dim})`)
    .option(
      "--embeddings <PATH>",
      "use these embeddings of the documents instead of the built-in ones: a .npy, .safetensors or .parquet file (FILE#COLUMN) with one row per document, in their order; a model2vec folder; or the folder of a run or a model",
    )
    .option(
      "--balanced <X>",
      "limit on the size of a cluster, relative to the mean size on its level, such as 1.5 (default: no limit)",
    )
    .option("--sample <N>", `fit the clusters to at most N documents (default: ${clusterDefaults.sample})`)
    .option(
      "--text-field <NAME>",
      `the field of .jsonl lines that holds the text (default: ${clusterDefaults.textField})`,
    )
    .option("--skip-bad-lines", "skip broken .jsonl lines and invalid UTF-8 instead of stopping")
    .option("--seed <N>", `seed; equal seeds and text give equal clusters (default: ${clusterDefaults.seed})`)
    .option("--threads <N>", `CPU threads (default: one per core, at most ${THREADS_UNASKED})`)
    .option("--quiet", "print no progress");
  clusterCommand.action(async (files: string[], options: Record<string, unknown>) => {
    const { cluster } = await import("./cluster-command.ts");
    io.code = await cluster(clusterArguments(files, options), io);
  });
}

function addDivide(program: Command, io: Io): void {
  const divideCommand = program
    .command("divide")
    .summary("divide domains by how much their documents resemble a target")
    .description(
      "Divide each domain into parts of about equal size, by how much its documents resemble the target. A run then uses the parts as its domains, so that it can choose text within a domain. Part 1 of a domain resembles the target most.",
    )
    .argument("[CONFIG.json]", "a config file of gradmix train; options on the command line override it");
  const itsRows = io.rows.filter(divideTakes).map(forText);
  addOptions(divideCommand, itsRows);
  for (const [flag, help] of divideFlags)
    divideCommand.addOption(new Option(flag, help).helpGroup(groups.run));
  divideCommand.action(async (config: string | undefined, options: Record<string, unknown>) => {
    const { divide } = await import("./divide-command.ts");
    io.code = await divide(divideArguments(config, givenOf(itsRows, options), itsRows, options), io);
  });
}

function addExport(program: Command, io: Io): void {
  const exportCommand = program
    .command("export")
    .summary("write the mixture of a run in the format of another trainer")
    .description(
      "Write the weights that a run found as the configuration of another trainer, with its names, units and quoting. If the format cannot express something, a note on the standard error says so. Without --to, the command lists the formats.",
    )
    .argument("[RUN]", "the folder of a run");
  for (const option of exportOptions()) exportCommand.addOption(option);
  exportCommand.action(async (run: string | undefined, options: Record<string, unknown>) => {
    const { exportRun } = await import("./export-command.ts");
    io.code = await exportRun(exportArguments(run, options), io);
  });
}

function addMix(program: Command, io: Io): void {
  const mixCommand = program
    .command("mix")
    .summary("choose the weights for your own trainer, over JSON lines or HTTP")
    .description(
      "Run the rule for any trainer: the trainer sends its measurements, and receives the weights for its sampler. docs/trainers.md describes the messages.",
    )
    .argument("[CONFIG.json]", "a config file of gradmix train; only its domains and mixing are used");
  const ruleRows = mixRows(io.rows);
  for (const [name, [value, help]] of Object.entries(mixFlags))
    mixCommand.addOption(new Option(`${flagOf(name)} <${value}>`, help));
  addOptions(mixCommand, ruleRows, false);
  mixCommand.action(async (config: string | undefined, options: Record<string, unknown>) => {
    const flags = Object.fromEntries(
      Object.keys(mixFlags).map((name) => [name, textOption(options, name)]),
    ) as MixFlags;
    const { mix } = await import("./mix-command.ts");
    io.code = await mix({ config: config ?? null, given: givenOf(ruleRows, options), flags }, io.err);
  });
}

function addReport(program: Command, io: Io): void {
  program
    .command("report")
    .summary("write one HTML page: losses, weights, alignments, cost")
    .description(
      `Write one HTML file that shows one or more runs and needs no network: gains, losses, weights over time, alignments, tokens and epochs, settings and cost.`,
    )
    .argument("<RUN...>", "folders of runs with the same target")
    .option("--out <FILE>", "the file to write (default for a single run: report.html in its folder)")
    .option("--svg <DIR>", "also write the figures as SVG files to DIR")
    .option("--csv", "also write metrics.csv beside the metrics.jsonl of each run")
    .option("--tensorboard <DIR>", "also write event files for TensorBoard, one folder in DIR per run")
    .action(async (runs: string[], options: Record<string, unknown>) => {
      const given = (name: string): string | null => textOption(options, name);
      const { report } = await import("./report-command.ts");
      io.code = await report(
        {
          runs,
          out: given("out"),
          svg: given("svg"),
          tensorboard: given("tensorboard"),
          csv: options["csv"] === true,
        },
        io.out,
      );
    });
}

function addWatch(program: Command, io: Io): void {
  program
    .command("watch")
    .summary("serve a page that follows a run while it trains")
    .description(
      `Serve the page of gradmix report at an address of this machine. The page updates itself while the run trains.`,
    )
    .argument("<RUN>", "the folder of a run")
    .addOption(
      new Option("--port <N>", "port of the page; 0: any free port").default(
        String(DEFAULT_PORT),
        String(DEFAULT_PORT),
      ),
    )
    .action(async (run: string, { port }: { port: string }) => {
      const { watch } = await import("./watch-command.ts");
      io.code = await watch(run, port, io);
    });
}

function addDoctor(program: Command, io: Io): void {
  program
    .command("doctor")
    .summary("show what this machine can do: backends, threads, speed")
    .description("Show which backends run on this machine, with their threads, SIMD level and speed.")
    .action(async () => {
      const { doctor } = await import("./doctor.ts");
      io.code = await doctor(io.out);
    });
}

/** Adds options to a command, in the groups of `gradmix train` or in a single group. */
function addOptions(command: Command, rows: readonly OptionRow[], grouped = true): void {
  const place = (option: Option, group: string): Option => (grouped ? option.helpGroup(group) : option);
  for (const row of rows)
    for (const option of commanderOptions(row)) command.addOption(place(option, groups[row.section]));
  command.addHelpOption(place(new Option("-h, --help", "print this help"), groups.run));
}

/** A row of a command that reads only files of text. */
function forText(row: OptionRow): OptionRow {
  return { ...row, help: row.helpForText ?? row.help };
}

/** The flags that were given, by key path. */
function givenOf(rows: readonly OptionRow[], options: Readonly<Record<string, unknown>>): Map<string, Raw> {
  const given = new Map<string, Raw>();
  for (const row of rows) {
    const value = options[attribute(row.flag)];
    const former = row.formerly?.flag;
    const before = former === undefined ? undefined : options[attribute(former)];
    if (value !== undefined && before !== undefined)
      throw configError(`${former ?? ""} is the former name of ${row.flag}; give one of them`);
    const present = value ?? before;
    if (typeof present === "string") given.set(row.path, [present]);
    else if (typeof present === "boolean" || Array.isArray(present)) given.set(row.path, present as Raw);
  }
  return given;
}

/** A row of the table as commander's options. Every value is collected as text; values.ts parses it. */
function commanderOptions(row: OptionRow): Option[] {
  const otherwise = row.default ?? row.otherwise;
  const fixed = typeof otherwise === "string" || typeof otherwise === "number" ? `${otherwise}` : null;
  const shown = row.auto ?? fixed;
  const prefix = shown?.startsWith("required") === true ? "" : "default: ";
  const help = shown === null ? row.help : `${row.help} (${prefix}${shown})`;
  if (row.value === undefined)
    return [new Option(row.flag, help), new Option(row.flag.replace("--", "--no-")).hideHelp()];
  const optionOf = (flag: string, description?: string): Option => {
    const flags = `${flag} <${row.value ?? ""}>`;
    return gathers(row.kind) ? listOption(flags, description) : new Option(flags, description);
  };
  const former = row.formerly?.flag;
  return [optionOf(row.flag, help), ...(former === undefined ? [] : [optionOf(former).hideHelp()])];
}

function attribute(flag: string): string {
  return new Option(flag).attributeName();
}
