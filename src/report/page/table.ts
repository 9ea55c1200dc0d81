/** A table that can be sorted by clicking a heading and filtered by a search. */
import { h } from "./dom.ts";

export interface TableColumn<R> {
  readonly title: string;
  /** Shown when the pointer rests on the heading. */
  readonly explanation?: string;
  /** Sort key of a row. Text first sorts ascending, numbers descending; null comes last. */
  readonly key: (row: R) => string | number | null;
  readonly cell: (row: R) => string | Node;
}

export interface Table<R> {
  readonly element: HTMLElement;
  show(rows: readonly R[]): void;
  search(text: string): void;
}

/** Rows that are shown at first. */
const FIRST_ROWS = 30;

/** Makes a table. Rows start in the given order; the search looks at `nameOf`. */
export function table<R>(columns: readonly TableColumn<R>[], nameOf: (row: R) => string): Table<R> {
  let rows: readonly R[] = [];
  let query = "";
  let sorted: { readonly column: number; readonly descending: boolean } | null = null;
  let all = false;
  const body = h("tbody");
  const more = h("button", {
    type: "button",
    class: "more",
    click: () => {
      all = true;
      draw();
    },
  });
  const heads = columns.map(({ title, explanation }, i) =>
    h(
      "th",
      { scope: "col", ...(explanation === undefined ? {} : { title: explanation }) },
      h("button", { type: "button", click: () => sortBy(i) }, title),
    ),
  );
  const sortBy = (column: number): void => {
    const first = rows.map((row) => columns[column]!.key(row)).find((key) => key !== null);
    const descending = sorted?.column === column ? !sorted.descending : typeof first === "number";
    sorted = { column, descending };
    draw();
  };
  const draw = (): void => {
    const found = rows.filter((row) => nameOf(row).toLowerCase().includes(query));
    const order = sorted === null ? found : sortedRows(found, columns[sorted.column]!.key, sorted.descending);
    const shown = all ? order : order.slice(0, FIRST_ROWS);
    heads.forEach((head, i) => {
      if (sorted?.column === i)
        head.setAttribute("aria-sort", sorted.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    body.replaceChildren(
      ...shown.map((row) =>
        h(
          "tr",
          {},
          columns.map(({ cell }, i) => h(i === 0 ? "th" : "td", i === 0 ? { scope: "row" } : {}, cell(row))),
        ),
      ),
    );
    more.hidden = shown.length === order.length;
    more.textContent = `Show all ${order.length.toLocaleString("en")} rows`;
  };
  return {
    element: h(
      "div",
      {},
      h(
        "div",
        { class: "wide" },
        h("table", { class: "sortable" }, h("thead", {}, h("tr", {}, heads)), body),
      ),
      more,
    ),
    show(next) {
      rows = next;
      draw();
    },
    search(text) {
      query = text.toLowerCase();
      draw();
    },
  };
}

/** A sorted copy; equal rows keep their order. */
export function sortedRows<R>(
  rows: readonly R[],
  key: (row: R) => string | number | null,
  descending: boolean,
): R[] {
  const sign = descending ? -1 : 1;
  return [...rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === null || b === null) return Number(a === null) - Number(b === null);
    if (typeof a === "string" || typeof b === "string")
      return sign * String(a).localeCompare(String(b), "en");
    return sign * (a - b);
  });
}
