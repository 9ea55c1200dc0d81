/** The page as one file that needs nothing else. Pure. */
import type { PageData } from "./page-data.ts";
import type { PageAssets } from "./page-script.ts";
import { style } from "./style.ts";

/** uPlot asks for the browser's language when it is loaded, and some systems without one (LANG=C) name one that no browser knows: "en-US@posix". */
const language = `try { new Intl.NumberFormat(navigator.language); } catch { Object.defineProperty(navigator, "language", { value: "en" }); }`;

export interface RenderOptions {
  /** The page asks its server for news. */
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

/** What pages differ in. */
export interface Shell extends RenderOptions {
  readonly title: string;
  /** What kind of page it is. */
  readonly kind: string;
  /** Sentences that are read without JavaScript too. */
  readonly summary: readonly string[];
  /** For the script, as JSON. */
  readonly data: unknown;
  /** Before the style of all pages. */
  readonly style: string;
  /** Elements before the script. */
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

/** JSON in a script element: no end of the element and no comment can stand in it. */
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
