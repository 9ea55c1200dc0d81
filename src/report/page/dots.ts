/** Names with a dot for each run on one scale: what curves of one point are shown as. Elements alone: uPlot has no axis of names. */
import { h } from "./dom.ts";
import { swatch } from "./lines.ts";

export interface DotRow {
  readonly name: string;
  /** In the order of the groups; null: none. */
  readonly values: readonly (number | null)[];
}

export interface DotGroup {
  readonly label: string;
  readonly colour: string;
  readonly dash: readonly number[];
}

export function dots(
  rows: readonly DotRow[],
  groups: readonly DotGroup[],
  format: (value: number) => string,
): HTMLElement {
  const all = rows.flatMap(({ values }) => values.filter((value) => value !== null));
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const place = (value: number): string =>
    `${(2 + (96 * (value - least)) / (most - least || 1)).toFixed(2)}%`;
  const key = h(
    "ul",
    { class: "legend" },
    groups.map((group) => h("li", {}, swatch(group), h("span", { class: "name" }, group.label))),
  );
  return h(
    "div",
    {},
    groups.length > 1 ? key : null,
    h(
      "div",
      { class: "bars dots" },
      rows.map(({ name, values }) =>
        h(
          "div",
          { class: "bar-row" },
          h("span", { class: "name", title: name }, name),
          h(
            "span",
            { class: "track" },
            values.map((value, i) =>
              value === null
                ? null
                : h("span", {
                    class: "dot",
                    title: `${groups[i].label}: ${format(value)}`,
                    style: `left: ${place(value)}; background: ${groups[i].colour}`,
                  }),
            ),
          ),
          h(
            "span",
            { class: "value" },
            values.map((value) => (value === null ? "–" : format(value))).join(" · "),
          ),
        ),
      ),
    ),
  );
}
