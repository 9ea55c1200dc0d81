/** Small charts beside each other, one per name, with a search field if there are many. */
import { h } from "./dom.ts";
import { type Chart, chart, type ChartOptions, type Line } from "./lines.ts";

export interface Panel {
  readonly name: string;
  readonly lines: readonly Line[];
  readonly options: ChartOptions;
}

export interface Multiples {
  readonly element: HTMLElement;
  show(panels: readonly Panel[]): void;
}

/** Panels that are shown at first. */
const FIRST_PANELS = 12;
/** Number of panels from which there is a search field. */
const SEARCHED = 9;

export function searchBox(label: string, change: (text: string) => void): HTMLElement {
  const input = h("input", {
    type: "search",
    placeholder: label,
    "aria-label": label,
    input: () => change((input as HTMLInputElement).value.trim()),
  });
  return input;
}

export function multiples(label: string): Multiples {
  let panels: readonly Panel[] = [];
  let query = "";
  let most = FIRST_PANELS;
  let charts: readonly Chart[] = [];
  const grid = h("div", { class: "multiples" });
  const search = searchBox(label, (text) => {
    query = text.toLowerCase();
    most = FIRST_PANELS;
    draw();
  });
  const more = h("button", {
    type: "button",
    class: "more",
    click: () => {
      most *= 2;
      draw();
    },
  });
  const none = h("p", { class: "readout" }, "No name contains this text.");
  const draw = (): void => {
    for (const one of charts) one.destroy();
    const found = panels.filter(({ name }) => name.toLowerCase().includes(query));
    const shown = found.slice(0, most);
    charts = shown.map(({ lines, options }) => chart(lines, options));
    grid.replaceChildren(
      ...shown.map(({ name }, i) =>
        h("figure", {}, h("figcaption", { title: name }, name), charts[i]!.element),
      ),
    );
    search.hidden = panels.length < SEARCHED;
    none.hidden = found.length > 0 || panels.length === 0;
    more.hidden = shown.length === found.length;
    more.textContent = `${shown.length} of ${found.length.toLocaleString("en")} shown: show more`;
  };
  return {
    element: h("div", {}, search, grid, none, more),
    show(next) {
      panels = next;
      draw();
    },
  };
}
