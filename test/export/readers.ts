/** Readers of the exported files, independent of the writers: numbers stay the printed text. */
import type { Exported, ExportedFile } from "gradmix/export";

/** Reads JSON and keeps each number as its text after a mark. Also reads Python literals without None, True and False. */
function readJson(text: string): unknown {
  const marked = text.replaceAll(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, (token) =>
    token.startsWith('"') ? token : `"${NUMBER}${token}"`,
  );
  return JSON.parse(marked) as unknown;
}

/** The mark, with which no name in a test begins. */
const NUMBER = "#number:";

/** A printed number. */
function numberText(value: unknown): string {
  if (typeof value !== "string" || !value.startsWith(NUMBER))
    throw new Error(`${String(value)} is no number`);
  return value.slice(NUMBER.length);
}

/** Returns 10⁹ times a printed number, exactly. */
export function billionths(text: string): bigint {
  const [, whole, fraction] = /^(\d+)\.(\d{1,9})$/.exec(text) ?? [];
  if (fraction === undefined) throw new Error(`${text} is no plain decimal of at most 9 digits`);
  return BigInt(whole + fraction.padEnd(9, "0"));
}

interface Line {
  indent: number;
  text: string;
}

/** Reads the subset of YAML that is written: blocks of maps and lists, keys and scalars in double quotes or bare, lists and maps in flow style. Throws for anything else. */
function readYaml(text: string): unknown {
  const lines = text
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line): Line => ({ indent: /^ */.exec(line)?.[0].length ?? 0, text: line.trimStart() }));
  const value = readBlock(lines, 0);
  if (lines.length > 0) throw new Error(`left over: ${lines[0].text}`);
  return value;
}

const KEY = /^("(?:[^"\\]|\\.)*"|[a-z_]+):(?: (.*))?$/s;

function readBlock(lines: Line[], indent: number): unknown {
  const [first] = lines;
  if (first === undefined || first.indent !== indent) throw new Error(`no block at ${indent}`);
  if (first.text.startsWith("- ")) {
    const items: unknown[] = [];
    while (lines[0]?.indent === indent && lines[0].text.startsWith("- ")) {
      lines[0] = { indent: indent + 2, text: lines[0].text.slice(2) };
      const { text } = lines[0];
      if (KEY.test(text) || text.startsWith("- ")) items.push(readBlock(lines, indent + 2));
      else items.push(readFlow(lines.shift()?.text ?? ""));
    }
    return items;
  }
  const members = new Map<string, unknown>();
  while (lines[0]?.indent === indent) {
    const [, key, value] = KEY.exec(lines[0].text) ?? [];
    if (key === undefined) throw new Error(`no key: ${lines[0].text}`);
    lines.shift();
    const name = key.startsWith('"') ? (JSON.parse(key) as string) : key;
    // Bare words that YAML 1.1 reads as null or as booleans.
    if (!key.startsWith('"') && /^(?:y|n|yes|no|on|off|true|false|null)$/.test(key))
      throw new Error(`bare ${key}`);
    if (members.has(name)) throw new Error(`${name} stands twice`);
    members.set(name, value === undefined ? readBlock(lines, indent + 2) : readFlow(value));
  }
  return members;
}

function readFlow(text: string): unknown {
  return readJson(text);
}

/** Reads the records of a CSV file (RFC 4180). */
function readCsv(text: string): string[][] {
  const rows: string[][] = [];
  let [row, field, inQuotes]: [string[], string, boolean] = [[], "", false];
  for (let i = 0; i < text.length; i++) {
    const sign = text[i];
    if (inQuotes) {
      if (sign !== '"') field += sign;
      else if (text[i + 1] === '"') {
        field += sign;
        i++;
      } else inQuotes = false;
    } else if (sign === '"' && field === "") inQuotes = true;
    else if (sign === ",") {
      row.push(field);
      field = "";
    } else if (sign === "\n") {
      rows.push([...row, field]);
      [row, field] = [[], ""];
    } else field += sign;
  }
  return rows;
}

/** Splits a line into words like a POSIX shell, but without expansions. */
function shellWords(text: string): string[] {
  const words: string[] = [];
  let word: string | null = null;
  for (let i = 0; i < text.length; i++) {
    const sign = text[i];
    if (sign === "'") {
      const end = text.indexOf("'", i + 1);
      word = (word ?? "") + text.slice(i + 1, end);
      i = end;
    } else if (sign === "\\") word = (word ?? "") + text[++i];
    else if (/\s/.test(sign)) {
      if (word !== null) words.push(word);
      word = null;
    } else {
      if (!/[\w@%+=:,./-]/.test(sign)) throw new Error(`${sign} is not quoted`);
      word = (word ?? "") + sign;
    }
  }
  return word === null ? words : [...words, word];
}

/** Stages that were read back: the start of each in the unit of the format, and printed weights by name, or by path if the format has no names. */
export interface ReadStage {
  readonly start: number;
  readonly weights: readonly (readonly [string, string])[];
}

const map = (value: unknown): ReadonlyMap<string, unknown> => {
  if (value instanceof Map) return value as ReadonlyMap<string, unknown>;
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return new Map(Object.entries(value));
  throw new Error("no map");
};
const list = (value: unknown): readonly unknown[] => {
  if (!Array.isArray(value)) throw new Error("no list");
  return value;
};
const at = (value: unknown, ...keys: string[]): unknown =>
  keys.reduce<unknown>((inner, key) => map(inner).get(key), value);
const text = (value: unknown): string => {
  if (typeof value !== "string" || value.startsWith(NUMBER)) throw new Error(`${String(value)} is no text`);
  return value;
};
const zip = (names: readonly unknown[], numbers: readonly unknown[]): (readonly [string, string])[] => {
  if (names.length !== numbers.length) throw new Error("lists of two lengths");
  return names.map((name, i) => [text(name), numberText(numbers[i])]);
};
const shares = (value: unknown): (readonly [string, string])[] =>
  Array.from(map(value), ([name, number]) => [name, numberText(number)]);
const one = (weights: readonly (readonly [string, string])[]): ReadStage[] => [{ start: 0, weights }];
const fileOf = ({ files }: Exported, name: string): string => {
  const found = files.find((file: ExportedFile) => file.name === name);
  if (found === undefined) throw new Error(`no ${name}`);
  return found.text;
};
const yamlOf = (exported: Exported): unknown => readYaml(fileOf(exported, "mixture.yaml"));
const pairsOfWords = (words: readonly string[]): (readonly [string, string])[] =>
  Array.from({ length: words.length / 2 }, (_, i) => [words[2 * i + 1], words[2 * i]]);
/** Reads a dict of a Python module. */
const constant = (exported: Exported, name: string): unknown => {
  const [, found] =
    new RegExp(`^${name} = (\\{\\n[^]*?^\\})$`, "m").exec(fileOf(exported, "mixture.py")) ?? [];
  return readJson(found ?? "");
};

export const readers: Readonly<Record<string, (exported: Exported) => ReadStage[]>> = {
  megatron(exported) {
    const suffixes = exported.files.flatMap(({ name }) => /^per-split(.*)\.json$/.exec(name)?.slice(1) ?? []);
    const [, after] = /--phase-transition-iterations ([\d,]+);/.exec(exported.notes.join("\n")) ?? [];
    const starts = [
      0,
      ...(after ?? "")
        .split(",")
        .filter((part) => part !== "")
        .map(Number),
    ];
    return suffixes.map((suffix, i) => {
      const split = JSON.parse(fileOf(exported, `per-split${suffix}.json`)) as { train: string[] };
      const [comments, words] = [/^#/, /^--data-path /].map((begin) =>
        fileOf(exported, `data-path${suffix}.sh`)
          .split("\n")
          .filter((line) => begin.test(line)),
      );
      // A path may contain a line break.
      const all = fileOf(exported, `data-path${suffix}.sh`).split("\n").slice(comments.length).join("\n");
      if (words.length < 1) throw new Error("no words");
      const [flag, ...shell] = shellWords(all);
      const same = [
        shell,
        ...exported.files
          .filter(({ name }) => name === `data-args${suffix}.txt`)
          .map((file) => file.text.trim().split(/[\s\u001C-\u001F\u0085]+/)),
      ];
      for (const other of same)
        if (flag !== "--data-path" || JSON.stringify(other) !== JSON.stringify(split.train))
          throw new Error("the files differ");
      return { start: starts[i], weights: pairsOfWords(split.train) };
    });
  },
  "nemo-automodel"(exported) {
    const data = yamlOf(exported);
    const domains = list(at(data, "domain_mixture", "domains"));
    const paths = pairsOfWords(list(at(data, "dataset", "paths")).map(text));
    const weights = domains.map(
      (domain) => [text(at(domain, "name")), numberText(at(domain, "sampling_weight"))] as const,
    );
    const objective = domains.map(
      (domain) => [text(at(domain, "path")), numberText(at(domain, "objective_weight"))] as const,
    );
    if (JSON.stringify(objective) !== JSON.stringify(paths)) throw new Error("paths and domains differ");
    return one(weights);
  },
  "megatron-bridge"(exported) {
    const dataset = at(yamlOf(exported), "dataset");
    return one(
      zip(
        list(at(dataset, "source")).map((source) => at(source, "path_or_dataset")),
        list(at(dataset, "source_weights")),
      ),
    );
  },
  energon(exported) {
    const data = yamlOf(exported);
    if (
      text(at(data, "__class__")) !== "MetadatasetV2" ||
      text(at(data, "__module__")) !== "megatron.energon"
    )
      throw new Error("no recipe");
    return one(
      list(at(data, "splits", "train", "blend")).map((part) => [
        text(at(part, "path")),
        numberText(at(part, "weight")),
      ]),
    );
  },
  "hf-datasets": (exported) => one(shares(constant(exported, "PROBABILITIES"))),
  litdata: (exported) => one(shares(constant(exported, "WEIGHTS"))),
  torchtitan: (exported) => one(shares(constant(exported, "WEIGHTS"))),
  mosaic: (exported) =>
    one(
      Array.from(map(at(yamlOf(exported), "train_loader", "dataset", "streams")), ([name, stream]) => [
        name,
        numberText(at(stream, "proportion")),
      ]),
    ),
  "olmo-core": (exported) =>
    one(
      list(at(yamlOf(exported), "sources")).map((source) => [
        text(at(source, "source_name")),
        numberText(at(source, "target_ratio")),
      ]),
    ),
  levanter(exported) {
    const weights = at(yamlOf(exported), "data", "train_weights");
    if (weights instanceof Map) return one(shares(weights));
    return list(weights).map((stage) => {
      const [start, inner] = list(stage);
      return { start: Number(numberText(start)), weights: shares(inner) };
    });
  },
  nanotron: (exported) =>
    list(at(yamlOf(exported), "data_stages")).map((stage) => {
      const dataset = at(stage, "data", "dataset");
      return {
        start: Number(numberText(at(stage, "start_training_step"))) - 1,
        weights: zip(list(at(dataset, "dataset_folder")), list(at(dataset, "dataset_weights"))),
      };
    }),
  neox(exported) {
    const body = fileOf(exported, "mixture.yml")
      .split("\n")
      .filter((line) => !line.startsWith("#"))
      .join("\n");
    const data = readJson(body);
    return one(zip(list(at(data, "train-data-paths")), list(at(data, "train-data-weights"))));
  },
  maxtext: (exported) =>
    one(
      Array.from(map(readJson(fileOf(exported, "mixture.json"))), ([name, part]) => [
        name,
        numberText(at(part, "weight")),
      ]),
    ),
  "llama-factory"(exported) {
    const data = yamlOf(exported);
    const cut = (key: string): string[] =>
      text(at(data, key))
        .split(",")
        .map((item) => item.trim());
    const numbers = cut("interleave_probs");
    return one(cut("dataset").map((name, i) => [name, numbers[i]]));
  },
  doremi: (exported) => one(shares(at(readJson(fileOf(exported, "mixture.json")), "train_domain_weights"))),
  regmix: (exported) => one(shares(at(yamlOf(exported), "train"))),
  olmix(exported) {
    const [header, row, ...more] = readCsv(fileOf(exported, "ratios.csv"));
    const [ids, values] = readCsv(fileOf(exported, "metrics.csv"));
    if (more.length > 0 || header.length !== row.length || ids.length !== values.length)
      throw new Error("rows of two lengths");
    if (values[0] !== row[0] || ids[0] !== "run") throw new Error("not joined");
    return one(header.slice(3).map((name, i) => [name, row[i + 3]]));
  },
  csv(exported) {
    const [, ...rows] = readCsv(fileOf(exported, "mixture.csv"));
    const stages = [...new Set(rows.map(([stage]) => stage))];
    return stages.map((stage) => {
      const own = rows.filter(([number]) => number === stage);
      return { start: Number(own[0][1]), weights: own.map(([, , name, weight]) => [name, weight]) };
    });
  },
  json: (exported) =>
    list(at(readJson(fileOf(exported, "mixture.json")), "stages")).map((stage) => ({
      start: Number(numberText(at(stage, "start"))),
      weights: Array.from(map(at(stage, "domains")), ([name, part]) => [
        name,
        numberText(at(part, "weight")),
      ]),
    })),
};
