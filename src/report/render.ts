/** The page as one self-contained file. Pure. */
import type { PageData } from "./page-data.ts";
import type { PageAssets } from "./page-script.ts";
import { style } from "./style.ts";

/** uPlot asks for the browser's language when it is loaded, and some systems without one (LANG=C) report one that no browser knows: "en-US@posix". */
const language = `try { new Intl.NumberFormat(navigator.language); } catch { Object.defineProperty(navigator, "language", { value: "en" }); }`;

export interface RenderOptions {
  /** Whether the page asks its server for updates. */
  readonly live: boolean;
}

export function renderPage(data: PageData, assets: PageAssets, { live }: RenderOptions): string {
  return renderShell({
    title: data.title,
    kind: "gradmix report",
    summary: data.summary,
    data,
    style: assets.chartStyle,
    before: `<script>${language}\n${assets.charts}</script>\n`,
    script: assets.script,
    live,
  });
}

/** The parts in which pages differ. */
export interface Shell extends RenderOptions {
  readonly title: string;
  /** The kind of page. */
  readonly kind: string;
  /** Sentences that can be read without JavaScript. */
  readonly summary: readonly string[];
  /** Data for the script, as JSON. */
  readonly data: unknown;
  /** Style that precedes the style of all pages. */
  readonly style: string;
  /** Elements that precede the script. */
  readonly before: string;
  readonly script: string;
}

export function renderShell({ title, kind, summary, data, style: own, before, script, live }: Shell): string {
  const policy = `default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src ${live ? "'self'" : "'none'"}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${escapeHtml(title)} – ${kind}</title>
<style>${own}
${style}</style>
</head>
<body${live ? ' data-live=""' : ""}>
<main id="page">
<h1>${escapeHtml(title)}</h1>
${summary.map((sentence) => `<p>${escapeHtml(sentence)}</p>`).join("\n")}
<noscript><p>Charts and tables need JavaScript.</p></noscript>
</main>
<script type="application/json" id="data">${escapeScript(JSON.stringify(data))}</script>
${before}<script type="module">
${script}</script>
</body>
</html>
`;
}

/** JSON in a script element, escaped so that it cannot contain the end of the element or a comment. */
export function escapeScript(json: string): string {
  return json.replaceAll("<", "\\u003c").replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029");
}

function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
