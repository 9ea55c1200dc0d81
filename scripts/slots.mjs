// Generates from assembly/slots.mjs the classes that the kernels read, and the writers that the launchers call.

/** The first slots of every block: the address of the scratch memory, and the bytes from one thread's scratch memory to the next. */
const SCRATCH = { scratchAt: "pointer", scratchStride: "pointer" };
/** Words per block; PARAMETER_BYTES in src/backends/cpu/protocol.ts is the same in bytes. */
const WORDS = 64;
const NOTE =
  "Made by scripts/slots.mjs out of assembly/slots.mjs: change that, and run `npm run build:wasm`.";

/**
 * A slot with its position in the block.
 *
 * @typedef {object} Slot
 * @property {string} name
 * @property {string} type "pointer", "i32" or "f32".
 * @property {number} word Words before it in the block.
 * @property {number} count Its words; 0 is one that is no array.
 */

/**
 * Kernels by name, each with the kinds of its slots by name; `extends` names the kernel whose slots come first.
 *
 * @typedef {Readonly<Record<string, Readonly<Record<string, string>>>>} Descriptions
 */

/**
 * Text of assembly/slots.ts. Throws where a slot is of no kind, is named twice, extends nothing, or lies beyond the block.
 *
 * @param {Descriptions} descriptions
 */
export function assemblyScript(descriptions) {
  const base = ["@unmanaged export class ScratchSlots {", ...layOut(SCRATCH, 0).flatMap(field), "}"];
  const classes = kernels(descriptions).flatMap(({ name, parent, own }) => [
    "",
    "// @ts-ignore: decorator",
    `@unmanaged export class ${classOf(name)} extends ${parent === null ? "ScratchSlots" : classOf(parent)} {`,
    ...own.flatMap((slot) => field(slot, classOf(name))),
    "}",
  ]);
  return lines([`// ${NOTE}`, "", "// @ts-ignore: decorator", ...base, ...classes]);
}

/**
 * Text of src/backends/cpu/slots.ts. Throws as `assemblyScript` does.
 *
 * @param {Descriptions} descriptions
 */
export function typeScript(descriptions) {
  const all = kernels(descriptions);
  return lines([
    `/** What a launch writes into its parameter block, by kernel. ${NOTE} */`,
    "",
    "/** Views of the memory in which the block is. */",
    "export interface Words {",
    "  readonly i32: Int32Array;",
    "  readonly f32: Float32Array;",
    "}",
    ...all.flatMap(({ name, parent, own }) => interfaceOf(name, parent, own)),
    "",
    "export interface KernelSlots {",
    ...all.map(({ name }) => `  readonly ${name}: ${classOf(name)};`),
    "}",
    "",
    "/** Write the slots of a block that begins at word `at`. Each is a function of its own, so that it meets objects of one shape only. */",
    "export const writeSlots: {",
    "  readonly [K in keyof KernelSlots]: (words: Words, at: number, slots: KernelSlots[K]) => void;",
    "} = {",
    ...all.flatMap(({ name, slots }) => writer(name, slots)),
    "};",
    "",
    "/** Writes where the first thread's scratch memory is, and the bytes of each thread's. */",
    `export function writeScratch({ i32 }: Words, at: number, ${Object.keys(SCRATCH).join(": number, ")}: number): void {`,
    ...layOut(SCRATCH, 0).map(({ name, word }) => `  i32[${place(word)}] = ${name};`),
    "}",
  ]);
}

/** @param {readonly string[]} text */
const lines = (text) => `${text.join("\n")}\n`;

/** @param {string} name */
const classOf = (name) => `${name[0]?.toUpperCase()}${name.slice(1)}Slots`;

/** @param {number} word */
const place = (word) => (word === 0 ? "at" : `at + ${word}`);

/**
 * The kernels with all their slots, and those that no parent has.
 *
 * @param {Descriptions} descriptions
 */
function kernels(descriptions) {
  return Object.entries(descriptions).map(([name, description]) => {
    const { parent, kinds } = flatten(descriptions, name, description);
    const slots = layOut(kinds, Object.keys(SCRATCH).length);
    const end = Math.max(...slots.map(({ word, count }) => word + Math.max(1, count)));
    if (end > WORDS) throw new Error(`slots of ${name} take ${end} words; a block has ${WORDS}`);
    const own = slots.filter((slot) => slot.name in description);
    return { name, parent, slots, own };
  });
}

/**
 * @param {Descriptions} descriptions
 * @param {string} name
 * @param {Readonly<Record<string, string>>} description
 * @returns {{ parent: string | null, kinds: Record<string, string> }}
 */
function flatten(descriptions, name, { extends: parent, ...own }) {
  if (parent === undefined) return { parent: null, kinds: own };
  const above = descriptions[parent];
  if (above === undefined) throw new Error(`slots of ${name} extend ${parent}, which is none`);
  const { kinds } = flatten(descriptions, parent, above);
  for (const slot of Object.keys(own))
    if (slot in kinds) throw new Error(`slot ${slot} of ${name} is in ${parent} already`);
  return { parent, kinds: { ...kinds, ...own } };
}

/**
 * @param {Readonly<Record<string, string>>} kinds
 * @param {number} first
 * @returns {Slot[]}
 */
function layOut(kinds, first) {
  let word = first;
  return Object.entries(kinds).map(([name, kind]) => {
    const [, type, length] = /^(pointer|i32|f32)(?:\[(\d+)\])?$/.exec(kind) ?? [];
    if (type === undefined || (length !== undefined && type !== "i32"))
      throw new Error(`slot ${name} is "${kind}"; kinds are pointer, i32, f32 and i32[N]`);
    const slot = { name, type, word, count: Number(length ?? 0) };
    word += Math.max(1, slot.count);
    return slot;
  });
}

/**
 * A field of an AssemblyScript class; an array's address, and its words.
 *
 * @param {Slot} slot
 * @param {string | number} owner
 */
function field({ name, type, count }, owner) {
  if (count === 0) return [`  ${name}: ${type === "pointer" ? "usize" : type};`];
  return [
    `  @inline get ${name}(): usize { return changetype<usize>(this) + offsetof<${owner}>("${name}_0"); }`,
    ...Array.from({ length: count }, (_, i) => `  private ${name}_${i}: ${type};`),
  ];
}

/**
 * @param {string} name
 * @param {string | null} parent
 * @param {readonly Slot[]} own
 */
function interfaceOf(name, parent, own) {
  if (parent !== null && own.length === 0) return ["", `export type ${classOf(name)} = ${classOf(parent)};`];
  return [
    "",
    `export interface ${classOf(name)}${parent === null ? "" : ` extends ${classOf(parent)}`} {`,
    ...own.map(
      ({ name: slot, count }) => `  readonly ${slot}: ${count === 0 ? "number" : "readonly number[]"};`,
    ),
    "}",
  ];
}

/**
 * @param {string} name
 * @param {readonly Slot[]} slots
 */
function writer(name, slots) {
  const views = slots.some(({ type }) => type === "f32") ? "i32, f32" : "i32";
  return [
    `  ${name}({ ${views} }, at, slots) {`,
    ...slots.map(({ name: slot, type, word, count }) => {
      const view = type === "f32" ? "f32" : "i32";
      if (count === 0) return `    ${view}[${place(word)}] = slots.${slot};`;
      const bound = `i < ${count} && i < slots.${slot}.length`;
      return `    for (let i = 0; ${bound}; i++) ${view}[${place(word)} + i] = slots.${slot}[i]!;`;
    }),
    "  },",
  ];
}
