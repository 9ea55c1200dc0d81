/** The page of a folder of clusters, as one self-contained file. */
import type { ClusterPageData } from "./cluster-page-data.ts";
import { formatCount } from "./page/format.ts";
import { joinModules } from "./page-script.ts";
import { renderShell } from "./render.ts";

export function renderClusterPage(data: ClusterPageData): string {
  const plural = (n: number, one: string): string => `${formatCount(n)} ${one}${n === 1 ? "" : "s"}`;
  return renderShell({
    title: plural(data.clusters, "cluster"),
    kind: "gradmix cluster",
    summary: [
      `${plural(data.documents, "document")} of ${plural(data.files, "file")}, in clusters that were fitted to ${formatCount(data.sample)} of them.`,
    ],
    data,
    style: ownStyle,
    before: "",
    script: joinModules(new URL("./page/clusters.js", import.meta.url)),
    live: false,
  });
}

const ownStyle = `
.cluster { padding: 12px 0 13px; border-top: 1px solid var(--rule); display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 2fr); gap: 4px 32px; break-inside: avoid; }
.cluster h3 { margin: 0; font-size: 14px; overflow-wrap: anywhere; }
.cluster .words { margin: 0; color: var(--muted); font-size: 13.5px; overflow-wrap: anywhere; }
.cluster .size { display: grid; grid-template-columns: 1fr auto; gap: 10px; align-items: center; margin: 5px 0 0; font-size: 12.5px; }
.cluster .track { height: 8px; }
.cluster .bar { inset: 0 auto 0 0; background: var(--bar); }
.cluster ul { margin: 0; padding: 0; list-style: none; display: grid; gap: 6px; font-size: 13.5px; line-height: 1.42; }
.cluster li { overflow: hidden; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow-wrap: anywhere; padding-left: 10px; border-left: 2px solid var(--rule); }
.cluster mark { background: color-mix(in srgb, var(--accent) 24%, transparent); color: inherit; border-radius: 2px; }
.sizes svg { display: block; width: 100%; height: 120px; }
.sizes .axis { display: flex; justify-content: space-between; color: var(--muted); font-size: 12px; }
.tools { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: center; position: sticky; top: 0; background: var(--background); padding: 8px 0; z-index: 1; }
.tools input[type="search"] { margin: 0; }
.tools .readout { margin: 0; }
@media (max-width: 700px) { .cluster { grid-template-columns: minmax(0, 1fr); gap: 8px; } }
`;
