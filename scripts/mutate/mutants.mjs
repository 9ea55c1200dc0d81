// @ts-check
/**
 * The mutants of a built module: the possible changes (`findMutants`), and the module with all of them, each behind a
 * switch (`instrument`). Messages of errors and code that the TypeScript compiler adds are not changed.
 */
import { SourceMap } from "node:module";
import { parse } from "acorn";

/** @typedef {import("acorn").AnyNode} Node */
/** @typedef {readonly [start: number, end: number]} Range */
/**
 * The mutant replaces the characters `from`–`to` of the module by `text`. `around` is the smallest expression or statement around them that can be
 * replaced by a choice of two versions. `line`, `source` and `change` identify the mutant: number and text of the line in the TypeScript
 * source, and the change.
 * @typedef {{ around: Range, statement: boolean, from: number, to: number, text: string, line: number, source: string, change: string }} Mutant
 */

const SWAPS = /** @type {Record<string, readonly string[]>} */ ({
  "+": ["-"],
  "-": ["+"],
  "*": ["/"],
  "/": ["*"],
  "%": ["*"],
  "**": ["*"],
  "&": ["|"],
  "|": ["&"],
  "^": ["&"],
  "<<": [">>"],
  ">>": ["<<"],
  ">>>": ["<<"],
  "<": ["<=", ">="],
  "<=": ["<", ">"],
  ">": [">=", "<="],
  ">=": [">", "<"],
  "===": ["!=="],
  "!==": ["==="],
  "&&": ["||"],
  "||": ["&&"],
});
const ASSIGNMENTS = /** @type {Record<string, string>} */ ({
  "+=": "-=",
  "-=": "+=",
  "*=": "/=",
  "/=": "*=",
  "??=": "=",
  "||=": "=",
});
const METHODS = /** @type {Record<string, string>} */ ({
  some: "every",
  every: "some",
  startsWith: "endsWith",
  endsWith: "startsWith",
  indexOf: "lastIndexOf",
  findIndex: "findLastIndex",
  find: "findLast",
});
/** Methods whose receiver can stand for their result. */
const IDENTITIES = new Set(["sort", "toSorted", "reverse", "slice", "subarray", "trim", "fill", "filter"]);
const FUNCTIONS = /** @type {Record<string, string>} */ ({
  "Math.min": "Math.max",
  "Math.max": "Math.min",
  "Math.floor": "Math.ceil",
  "Math.ceil": "Math.floor",
  "Math.round": "Math.floor",
  "Math.trunc": "Math.floor",
  "Math.abs": "",
  "Math.sqrt": "",
  "Math.fround": "",
  "Math.exp": "Math.expm1",
  "Math.expm1": "Math.exp",
  "Math.log": "Math.log1p",
  "Math.log1p": "Math.log",
  "Number.isFinite": "!Number.isNaN",
});
const CONDITIONALS = new Set(["IfStatement", "ConditionalExpression", "WhileStatement", "DoWhileStatement"]);

/** @param {string} text */
const oneLine = (text) => {
  const line = text.replaceAll(/\s+/g, " ").trim();
  return line.length <= 100 ? line : `${line.slice(0, 60)} … ${line.slice(-36)}`;
};

/**
 * What an operator has at hand: the node's parents (the innermost last), the text of nodes, where `symbol` stands between two nodes,
 * and what it makes: `put`: the range becomes `text`, within the node; `remove`: the node, a statement, is left out.
 * @typedef {{
 *   parents: readonly Node[],
 *   textOf: (node: Node) => string,
 *   between: (left: Node, right: Node, symbol: string) => Range,
 *   put: (range: Range, text: string) => void,
 *   remove: () => void,
 * }} Context
 */

/** The compiler's own: `__addDisposableResource`, `env_1`, `result_1`. @param {string} text */
const isHelper = (text) => /^(__|(env|result)_\d)/.test(text);

/** @param {Node} node @param {Context} context */
function removeJump(node, { parents, remove }) {
  const [above, parent] = parents.slice(-2);
  const last =
    parent?.type === "BlockStatement" && parent.body.at(-1) === node && /Function/.test(above?.type ?? "");
  const endsCase = node.type === "BreakStatement" && parent?.type === "SwitchCase";
  if (!last && !endsCase) remove();
}

/** @param {import("acorn").BinaryExpression | import("acorn").LogicalExpression} node @param {Context} context */
function swapOperator(node, { textOf, between, put }) {
  const { left, right, operator } = node;
  const joinsTexts = operator === "+" && [left, right].some((side) => /^["`]/.test(textOf(side)));
  if (operator === "??") {
    put([left.start, left.end], "undefined");
    put([between(left, right, operator)[0], node.end], "");
  } else if (!joinsTexts)
    for (const other of SWAPS[operator] ?? []) put(between(left, right, operator), other);
}

/** @param {import("acorn").ObjectExpression} node @param {Context} context */
function removeProperties({ properties, end: nodeEnd }, { parents, put }) {
  for (const [i, property] of properties.entries()) {
    const spread = property.type === "SpreadElement";
    const option =
      !spread && parents.at(-1)?.type === "CallExpression" && !/Function/.test(property.value.type);
    if (!spread && !option) continue;
    const next = properties[i + 1];
    const end = properties[i - 1]?.end;
    if (next === undefined && end !== undefined) put([end, property.end], "");
    else put([property.start, next?.start ?? nodeEnd - 1], "");
  }
}

/** @param {import("acorn").CallExpression} node @param {Context} context */
function changeCall(node, { textOf, between, put }) {
  const { callee, arguments: given } = node;
  const name = textOf(callee);
  if (isHelper(name)) return;
  const other = Object.hasOwn(FUNCTIONS, name) ? FUNCTIONS[name] : undefined;
  if (other !== undefined) put([callee.start, callee.end], other);
  else if (callee.type === "MemberExpression" && callee.property.type === "Identifier") {
    const { object, property } = callee;
    const method = Object.hasOwn(METHODS, property.name) ? METHODS[property.name] : undefined;
    if (method !== undefined) put([property.start, property.end], method);
    const dot = between(object, property, callee.optional ? "?." : ".")[0];
    if (IDENTITIES.has(property.name) && object.type !== "Super") put([dot, node.end], "");
  }
  const [before, last] = given.slice(-2);
  if (before !== undefined && last !== undefined && other === undefined && !/^(Math|Object)\./.test(name))
    put([between(before, last, ",")[0], node.end - 1], "");
}

/** @param {import("acorn").Literal} node @param {Context} context */
function changeConstant({ value, start, end }, { put }) {
  if (typeof value === "number") {
    const other = value === 1 ? 0 : Number.isSafeInteger(value) ? value + 1 : value * 2;
    put([start, end], String(other));
  } else if (typeof value === "bigint") put([start, end], `${value + 1n}n`);
  else if (typeof value === "boolean") put([start, end], String(!value));
}

/** The operators, by the type of the node that they change. */
const OPERATORS = /** @type {Record<string, (node: any, context: Context) => void>} */ ({
  ThrowStatement: (_, { remove }) => remove(),
  ReturnStatement: removeJump,
  BreakStatement: removeJump,
  ContinueStatement: removeJump,
  ExpressionStatement(node, { remove }) {
    if (node.directive === undefined && node.expression.callee?.type !== "Super") remove();
  },
  BinaryExpression: swapOperator,
  LogicalExpression: swapOperator,
  AssignmentExpression({ left, right, operator }, { between, put }) {
    const other = ASSIGNMENTS[operator];
    if (other !== undefined) put(between(left, right, operator), other);
  },
  UpdateExpression(node, { parents, put }) {
    const { operator, prefix, start, end } = node;
    const loop = parents.at(-1);
    // In the head of a loop it would only make the loop endless.
    if (loop?.type === "ForStatement" && loop.update === node) return;
    put(prefix ? [start, start + 2] : [end - 2, end], operator === "++" ? "--" : "++");
  },
  UnaryExpression({ operator, start }, { put }) {
    if (operator === "!" || operator === "-") put([start, start + 1], "");
  },
  Literal: changeConstant,
  ObjectExpression: removeProperties,
  CallExpression: changeCall,
});

/** Whether a node has no mutants: imports, messages of errors, code that the compiler adds. @param {Node} node @param {(node: Node) => string} textOf */
function isLeftAlone(node, textOf) {
  if (node.type === "ImportDeclaration" || node.type === "ExportAllDeclaration") return true;
  if (node.type === "NewExpression") return textOf(node.callee).endsWith("Error");
  if (node.type === "VariableDeclarator") return isHelper(textOf(node.id)) && !textOf(node).includes("__add");
  if (node.type === "IfStatement") return isHelper(textOf(node.test));
  return node.type === "ExpressionStatement" && isHelper(textOf(node));
}

/**
 * The mutants of the built module `code`, in the order of the text; `map` is its source map.
 * @param {string} code
 * @param {string} map
 * @returns {Mutant[]}
 */
export function findMutants(code, map) {
  /** @type {Mutant[]} */
  const mutants = [];
  const payload = JSON.parse(map);
  const sources = new SourceMap(payload);
  const sourceLines = /** @type {string} */ (payload.sourcesContent[0]).split("\n");
  const starts = [0, ...[...code.matchAll(/\n/g)].map(({ index }) => index + 1)];

  /** The line of the source that made the character at `at`, from 0; −1 if the compiler added it. @param {number} at */
  const lineOf = (at) => {
    const row = starts.findLastIndex((start) => start <= at);
    const entry = sources.findEntry(row, at - starts[row]);
    return "originalLine" in entry && entry.generatedLine === row ? entry.originalLine : -1;
  };

  /** @param {Node} node */
  const textOf = (node) => code.slice(node.start, node.end);

  /** @type {Context["between"]} */
  const between = (left, right, symbol) => {
    const at = code.indexOf(symbol, left.end);
    return at + symbol.length <= right.start ? [at, at + symbol.length] : [left.end, right.start];
  };

  /** @param {Node} shown @param {Node} around @param {Range} range @param {string} text @param {boolean} statement */
  const add = (shown, around, [from, to], text, statement) => {
    const line = lineOf(from);
    if (line < 0) return;
    const before = oneLine(textOf(shown));
    const after = oneLine(code.slice(shown.start, from) + text + code.slice(to, shown.end));
    const change = statement ? `removed: ${before}` : `${before} → ${after}`;
    const source = (sourceLines[line] ?? "").trim();
    mutants.push({
      around: [around.start, around.end],
      statement,
      from,
      to,
      text,
      line: line + 1,
      source,
      change,
    });
  };

  /**
   * @param {Node} node
   * @param {readonly Node[]} parents
   * @param {Node | null} chain the optional chain of which `node` is a link
   */
  const visit = (node, parents, chain) => {
    if (isLeftAlone(node, textOf)) return;
    OPERATORS[node.type]?.(node, {
      parents,
      textOf,
      between,
      put: (range, text) => add(node, chain ?? node, range, text, false),
      remove: () => add(node, node, [node.start, node.end], ";", true),
    });
    if (node.type === "ThrowStatement") return;
    if (CONDITIONALS.has(node.type)) {
      const { test } = /** @type {import("acorn").IfStatement} */ (node);
      // Other conditions are already inverted by changes of their operators.
      const flips = ["BinaryExpression", "LogicalExpression", "UnaryExpression"].includes(test.type);
      if (!flips) add(test, test, [test.start, test.end], `!(${textOf(test)})`, false);
    }
    for (const [key, value] of Object.entries(node))
      for (const child of Array.isArray(value) ? value : [value]) {
        const names =
          key === "label" ||
          ((key === "key" || key === "property") && !("computed" in node && node.computed));
        if (typeof child?.type !== "string" || names) continue;
        const links = key === "object" || key === "callee";
        visit(child, [...parents, node], node.type === "ChainExpression" ? node : links ? chain : null);
      }
  };
  visit(parse(code, { ecmaVersion: "latest", sourceType: "module" }), [], null);
  return mutants.sort((a, b) => a.from - b.from || b.to - a.to);
}

/**
 * The module with every mutant in it: mutant `first + i` is active where `__mutant(first + i)` is true. `runtime` is the specifier of
 * the module that exports `__mutant`.
 * @param {string} code
 * @param {readonly Mutant[]} mutants
 * @param {number} first
 * @param {string} runtime
 */
export function instrument(code, mutants, first, runtime) {
  if (mutants.length === 0) return code;
  /** @type {Map<string, { start: number, end: number, statement: boolean, ids: number[] }>} */
  const byRange = new Map();
  for (const [i, { around, statement }] of mutants.entries()) {
    const [start, end] = around;
    const key = `${start}-${end}-${statement}`;
    const place = byRange.get(key) ?? { start, end, statement, ids: [] };
    place.ids.push(i);
    byRange.set(key, place);
  }
  // A node comes before those that it contains; a statement contains the expression of which it consists.
  const places = [...byRange.values()].sort(
    (a, b) => a.start - b.start || b.end - a.end || Number(b.statement) - Number(a.statement),
  );
  let at = 0;

  /** The text from `start` to `end`, with the places in it from `places[at]` on. @param {number} start @param {number} end @returns {string} */
  const render = (start, end) => {
    let text = "";
    let done = start;
    for (let place = places[at]; place !== undefined && place.start < end; place = places[at]) {
      at++;
      text += code.slice(done, place.start);
      const plain = render(place.start, place.end);
      if (place.statement) text += `{ if (!__mutant(${first + place.ids[0]})) { ${plain} } }`;
      else {
        const versions = place.ids.map((i) => {
          const { from, to, text } = mutants[i];
          return `__mutant(${first + i}) ? (${code.slice(place.start, from)}${text}${code.slice(to, place.end)}) : `;
        });
        text += `(${versions.join("")}(${plain}))`;
      }
      done = place.end;
    }
    return text + code.slice(done, end);
  };
  return `import { __mutant } from ${JSON.stringify(runtime)};\n${render(0, code.length)}`;
}
