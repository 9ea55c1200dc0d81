/** The script of the page of clusters: their sizes, and a list to search and sort, with words and examples. */
import type { ClusterPageData, ClusterRow } from "../cluster-page-data.ts";
import { h, section } from "./dom.ts";
import { formatCount, formatShare } from "./format.ts";

/** Clusters that are shown at first. */
const SHOWN_AT_ONCE = 60;

const formatWhole = (n: number): string => n.toLocaleString("en");
/** For example 12.4 MB. */
const formatBytes = (bytes: number): string =>
  formatCount(bytes)
    .replace("B", "G")
    .replace(/([kMGT]?)$/, " $1B");

type Order = "size" | "small" | "name";

const page = document.getElementById("page");
const clusterData = JSON.parse(document.getElementById("data")?.textContent ?? "{}") as ClusterPageData;
page?.replaceChildren(clusterHeader(clusterData), sizesPart(clusterData), listPart(clusterData));

function clusterHeader({
  clusters,
  rows,
  documents,
  files,
  bytes,
  tokens,
  sample,
}: ClusterPageData): HTMLElement {
  const tile = (value: string, name: string): HTMLElement =>
    h("div", {}, h("dd", {}, value), h("dt", {}, name));
  const empty = rows.filter((row) => row.documents === 0).length;
  const middle = rows[Math.floor(rows.length / 2)];
  return h(
    "header",
    {},
    h("p", { class: "kind" }, "gradmix cluster"),
    h(
      "h1",
      {},
      `${formatWhole(clusters)} ${clusters === 1 ? "cluster" : "clusters"} of ${formatWhole(documents)} documents`,
    ),
    h(
      "dl",
      { class: "tiles" },
      tile(formatCount(files), files === 1 ? "file" : "files"),
      tile(formatBytes(bytes), "of text (UTF-8)"),
      ...(tokens === null ? [] : [tile(formatCount(tokens), "tokens")]),
      tile(formatCount(sample), "documents that they were fitted to"),
      tile(formatCount(rows[0]?.documents ?? 0), "documents in the largest"),
      ...(rows.length === clusters
        ? [tile(formatCount(middle?.documents ?? 0), "documents in the median one")]
        : []),
      ...(empty === 0 ? [] : [tile(formatCount(empty), "without a document")]),
    ),
  );
}

/** Number of documents by rank, on a logarithmic axis. */
function sizesPart({ rows, clusters }: ClusterPageData): HTMLElement {
  const most = Math.max(1, rows[0]?.documents ?? 1);
  const [width, height] = [1000, 120];
  const step = width / Math.max(1, rows.length);
  const y = (n: number): number => height - (height * Math.log1p(n)) / Math.log1p(most);
  const points = rows.flatMap(({ documents }, i) => [
    `${(i * step).toFixed(2)},${y(documents).toFixed(2)}`,
    `${((i + 1) * step).toFixed(2)},${y(documents).toFixed(2)}`,
  ]);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute(
    "aria-label",
    `Documents of each cluster, from ${formatCount(most)} to ${formatCount(rows.at(-1)?.documents ?? 0)}`,
  );
  const area = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
  area.setAttribute("points", `0,${height} ${points.join(" ")} ${width},${height}`);
  area.setAttribute("fill", "var(--bar)");
  svg.append(area);
  const shown =
    rows.length < clusters ? ` (the largest ${formatCount(rows.length)} of ${formatCount(clusters)})` : "";
  return section(
    "sizes",
    "Sizes",
    h(
      "figure",
      { class: "sizes" },
      h("figcaption", {}, `Documents of each cluster, the largest first, on a logarithmic axis${shown}`),
      svg,
      h(
        "div",
        { class: "axis" },
        h("span", {}, `1st: ${formatWhole(most)}`),
        h("span", {}, `last: ${formatWhole(rows.at(-1)?.documents ?? 0)}`),
      ),
    ),
  );
}

function listPart({ rows, documents, clusters }: ClusterPageData): HTMLElement {
  const most = Math.max(1, rows[0]?.documents ?? 1);
  const texts = rows.map(({ name, words, examples }) =>
    [name, ...words, ...examples].join("\n").toLowerCase(),
  );
  let query = "";
  let order: Order = "size";
  let limit = SHOWN_AT_ONCE;
  const list = h("div", { id: "list" });
  const count = h("p", { class: "readout", "aria-live": "polite" });
  const more = h("button", {
    type: "button",
    class: "more",
    click: () => {
      limit += 5 * SHOWN_AT_ONCE;
      draw();
    },
  });
  const search = h("input", {
    type: "search",
    placeholder: "Search names, words and examples",
    "aria-label": "Search the clusters",
    input: (event) => {
      query = (event.target as HTMLInputElement).value.trim().toLowerCase();
      limit = SHOWN_AT_ONCE;
      draw();
    },
  });
  const sorting = h(
    "select",
    {
      "aria-label": "Order",
      change: (event) => {
        order = (event.target as HTMLSelectElement).value as Order;
        draw();
      },
    },
    h("option", { value: "size" }, "largest first"),
    h("option", { value: "small" }, "smallest first"),
    h("option", { value: "name" }, "by name"),
  );
  const draw = (): void => {
    const found = rows.filter((_, i) => texts[i]!.includes(query));
    if (order === "small") found.reverse();
    if (order === "name") found.sort((a, b) => (a.name < b.name ? -1 : 1));
    list.replaceChildren(...found.slice(0, limit).map((row) => clusterCard(row, most, documents, query)));
    const inThem = found.reduce((sum, row) => sum + row.documents, 0);
    count.textContent =
      query === ""
        ? `${formatWhole(clusters)} clusters`
        : `${formatWhole(found.length)} found, with ${formatShare(documents === 0 ? 0 : inThem / documents)} of the documents`;
    more.hidden = found.length <= limit;
    more.textContent = `Show more of ${found.length.toLocaleString("en")}`;
  };
  draw();
  return section("clusters", "Clusters", h("div", { class: "tools" }, search, sorting, count), list, more);
}

function clusterCard(
  { name, documents, bytes, tokens, words, examples }: ClusterRow,
  most: number,
  all: number,
  query: string,
): HTMLElement {
  const size = [
    `${formatWhole(documents)} ${documents === 1 ? "document" : "documents"}`,
    formatShare(all === 0 ? 0 : documents / all),
    tokens === null ? formatBytes(bytes) : `${formatCount(tokens)} tokens`,
  ];
  return h(
    "article",
    { class: "cluster" },
    h(
      "div",
      {},
      h("h3", {}, marked(name, query)),
      h("p", { class: "words" }, marked(words.join(" "), query)),
      h(
        "div",
        { class: "size" },
        h(
          "div",
          { class: "track" },
          h("div", { class: "bar", style: `width: ${((100 * documents) / most).toFixed(2)}%` }),
        ),
        h("span", { class: "value" }, size.join(" · ")),
      ),
    ),
    h(
      "ul",
      {},
      examples.map((text) => h("li", { title: text }, marked(text, query))),
    ),
  );
}

/** The text with matches of the search highlighted. */
function marked(text: string, query: string): (string | Node)[] {
  const lower = text.toLowerCase();
  // If lower-casing changes the length, positions do not match.
  if (query === "" || lower.length !== text.length) return [text];
  const parts: (string | Node)[] = [];
  let from = 0;
  for (let at = lower.indexOf(query); at >= 0; at = lower.indexOf(query, from)) {
    parts.push(text.slice(from, at), h("mark", {}, text.slice(at, at + query.length)));
    from = at + query.length;
  }
  return [...parts, text.slice(from)];
}
