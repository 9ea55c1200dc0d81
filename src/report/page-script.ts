/**
 * The page's script and style as text. Its modules (page/) are compiled like all others and joined here, so that neither a bundler nor a second build
 * is needed.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

/**
 * Joins the module at `url` and everything that it imports into one module, each after its imports, without import and export keywords. It only
 * understands `import { name } from "./file.js"` and exported declarations, which is all that page/ uses. If two modules declare the same name, the
 * page has a SyntaxError, which the tests would find. Throws for an import that it cannot remove.
 */
export function joinModules(url: URL, read: (url: URL) => string = readText): string {
  const done = new Set<string>();
  const parts: string[] = [];
  const add = (one: URL): void => {
    if (done.has(one.href)) return;
    done.add(one.href);
    const source = read(one);
    for (const [text, path = ""] of source.matchAll(importing)) {
      if (/\sas\s/.test(text)) throw unjoined(text);
      add(new URL(path, one));
    }
    parts.push(
      source
        .replaceAll(importing, "")
        .replaceAll(/^export (?=(?:async )?function|const|let|class)/gm, "")
        .replaceAll(/^export \{\};$/gm, "")
        .replaceAll(/^\/\/# sourceMappingURL=.*$/gm, ""),
    );
  };
  add(url);
  const joined = parts.join("\n");
  const left = /^(?:import|export)\b.*$/m.exec(joined);
  if (left !== null) throw unjoined(left[0]);
  return joined;
}

function unjoined(text: string): Error {
  return new Error(`the page's script cannot be joined: ${text}`);
}

const importing = /^import \{[^}]*\} from "(\.[^"]*)";$/gm;

function readText(url: URL): string {
  return readFileSync(url, "utf8");
}

export interface PageAssets {
  readonly script: string;
  /** uPlot (MIT), which defines the global `uPlot`. */
  readonly charts: string;
  readonly chartStyle: string;
}

export function readAssets(): PageAssets {
  const charts = createRequire(import.meta.url);
  const read = (path: string): string => readFileSync(charts.resolve(path), "utf8");
  return {
    script: joinModules(new URL("./page/main.js", import.meta.url)),
    // Its licence is included with it.
    charts: `/* uPlot\n${read("uplot/LICENSE")}*/\n${read("uplot/dist/uPlot.iife.min.js")}`,
    chartStyle: read("uplot/dist/uPlot.min.css"),
  };
}
