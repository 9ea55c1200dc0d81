/** The page's style. Its colours are those of the charts' themes. */
import { dark, light, type Theme } from "./page/theme.ts";

function variables({ background, panel, ink, muted, rule, accent, warning, runs }: Theme): string {
  return `--background: ${background}; --panel: ${panel}; --ink: ${ink}; --muted: ${muted}; --rule: ${rule}; --accent: ${accent}; --warning: ${warning}; --bar: ${runs[0]};`;
}

export const style: string = `
:root { ${variables(light)} color-scheme: light; }
@media screen and (prefers-color-scheme: dark) { :root { ${variables(dark)} color-scheme: dark; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--background); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1440px; margin: 0 auto; padding: 28px clamp(14px, 3vw, 44px) 64px; }
header { display: grid; gap: 4px; }
.kind { margin: 0; color: var(--muted); font-size: 13px; letter-spacing: 0.04em; }
h1 { margin: 0; font-size: clamp(21px, 2.6vw, 30px); line-height: 1.2; font-weight: 650; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 19px; line-height: 1.3; font-weight: 650; letter-spacing: -0.01em; }
h3 { margin: 28px 0 8px; font-size: 15px; font-weight: 650; }
section { margin-top: 36px; padding-top: 20px; border-top: 1px solid var(--rule); }
p { margin: 0 0 8px; max-width: 96ch; overflow-wrap: anywhere; }
.lead { font-size: clamp(17px, 1.5vw, 20px); line-height: 1.45; }
.note, .readout { color: var(--muted); font-size: 13.5px; }
.caution { border-left: 3px solid var(--warning); padding-left: 10px; font-size: 14px; }
.status:empty { display: none; }
.status { color: var(--accent); font-weight: 550; }
.controls { display: flex; flex-wrap: wrap; gap: 8px 24px; align-items: center; margin-top: 8px; }
fieldset.units { display: flex; flex-wrap: wrap; gap: 2px 14px; border: 0; margin: 0; padding: 0; font-size: 14px; }
fieldset.units legend { float: left; padding: 0; margin-right: 12px; color: var(--muted); }
.pick { color: var(--muted); font-size: 14px; }
.check { display: inline-block; font-size: 13.5px; color: var(--muted); }
input, select, textarea, button { font: inherit; color: inherit; accent-color: var(--accent); }
select, input[type="search"], textarea, button { background: var(--background); border: 1px solid var(--rule); border-radius: 6px; padding: 4px 10px; }
select { max-width: 100%; }
input[type="search"] { width: min(320px, 100%); font-size: 14px; margin: 0 0 10px; }
button { cursor: pointer; font-size: 14px; }
button:hover { border-color: var(--muted); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.more { margin-top: 10px; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; font-size: 14px; margin-bottom: 6px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 28px 36px; }
.multiples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(230px, 100%), 1fr)); gap: 16px 22px; }
.multiples figcaption { font-weight: 500; font-size: 13px; margin: 0; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.chart, .plot { min-width: 0; }
.plot { width: 100%; overflow: hidden; }
.u-hz .u-cursor-x, .u-vt .u-cursor-y { border-right-color: var(--muted); }
.u-select { background: color-mix(in srgb, var(--accent) 18%, transparent); }
.legend { list-style: none; margin: 4px 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 20px; font-size: 13.5px; }
.legend li { display: flex; gap: 7px; align-items: center; min-width: 0; max-width: 100%; }
.legend .name, .bar-row .name, .domain .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; min-width: 0; }
.value { font-variant-numeric: tabular-nums; color: var(--muted); white-space: nowrap; }
.swatch { flex: none; }
.beside { display: grid; grid-template-columns: minmax(0, 1fr) minmax(170px, 240px); gap: 0 20px; align-items: center; }
.beside .legend { display: grid; gap: 1px; }
.beside .legend .value { margin-left: auto; }
.heat { position: relative; }
.heat canvas { display: block; width: 100%; image-rendering: pixelated; }
.heat-scroll { max-height: 640px; overflow-y: auto; }
.heat-foot { display: flex; flex-wrap: wrap; gap: 6px 32px; justify-content: space-between; margin-top: 8px; }
.heat-foot .readout { margin: 0; min-height: 1.5em; }
.heat-scale { width: min(380px, 100%); font-size: 12px; color: var(--muted); }
.heat-bar { height: 10px; border-radius: 2px; }
.heat-ticks { display: flex; justify-content: space-between; }
.bars { display: grid; gap: 5px; font-size: 13.5px; }
.bar-row { display: grid; grid-template-columns: minmax(70px, 26%) 1fr 128px; gap: 10px; align-items: center; }
.bar-row .value { text-align: right; font-size: 12.5px; }
.track { position: relative; height: 14px; background: var(--panel); border-radius: 2px; }
.bar { position: absolute; inset: 2px auto 2px 0; background: var(--muted); border-radius: 1px; }
.tick { position: absolute; top: -1px; bottom: -1px; width: 3px; margin-left: -1.5px; background: var(--ink); outline: 1px solid var(--background); }
.dots { margin-top: 8px; }
.dots .track { height: 16px; }
.dots .bar-row { grid-template-columns: minmax(70px, 16%) 1fr minmax(60px, auto); }
.dot { width: 12px; height: 12px; background: var(--dot); outline: 1px solid var(--background); }
.track .dot { position: absolute; top: 2px; margin-left: -6px; }
.shape-0, .shape-3 { border-radius: 50%; }
.shape-2 { transform: rotate(45deg) scale(0.85); }
.shape-3 { background: var(--background); border: 3px solid var(--dot); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 18px 0 0; }
.tiles div { background: var(--panel); border-radius: 8px; padding: 10px 14px; display: flex; flex-direction: column; }
.tiles dd { margin: 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; letter-spacing: -0.01em; }
.tiles dt { color: var(--muted); font-size: 12.5px; line-height: 1.35; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
table.sortable, table.figures { width: 100%; }
.above { margin: 16px 0 4px; }
th, td { padding: 4px 10px; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; font-weight: 400; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--muted); border-bottom-color: var(--muted); vertical-align: bottom; }
thead button { all: unset; cursor: pointer; }
thead button:focus-visible { outline: 2px solid var(--accent); }
th[aria-sort] button { color: var(--ink); font-weight: 600; }
th[aria-sort="ascending"] button::after { content: " ↑"; }
th[aria-sort="descending"] button::after { content: " ↓"; }
.sortable tbody tr:hover { background: var(--panel); }
.domain { display: flex; align-items: center; max-width: 260px; }
.passed { color: var(--warning); }
.settings td, .settings th { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.settings th:first-child { color: var(--muted); white-space: nowrap; }
.settings thead th { white-space: nowrap; }
.costs td { text-align: left; white-space: nowrap; }
details { margin-top: 20px; }
summary { cursor: pointer; }
textarea { width: 100%; max-width: 900px; margin-top: 10px; font: 12.5px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
@media (max-width: 620px) {
  .beside { grid-template-columns: minmax(0, 1fr); }
  .bar-row { grid-template-columns: minmax(60px, 30%) 1fr 116px; gap: 8px; }
  .dots .bar-row { grid-template-columns: 34% 1fr auto; }
  .multiples { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media print {
  main { max-width: none; padding: 0; }
  section, figure, tr { break-inside: avoid; }
  section { break-inside: auto; }
  .more, .controls button, input[type="search"], .check, .status, fieldset.units, .readout { display: none; }
  table { font-size: 10.5px; }
  th, td { padding: 3px 5px; }
  .domain { max-width: 150px; }
  .heat-scroll { max-height: none; overflow: visible; }
  .wide { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`;
