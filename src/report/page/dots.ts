/** Names with a dot for each run on one scale, for curves with a single point. Plain elements: uPlot has no axis of names. */
import { h } from "./dom.ts";

export interface DotRow {
  readonly name: string;
  /** One value per group, in their order; null: none. */
  readonly values: readonly (number | null)[];
}

export interface DotGroup {
  readonly label: string;
  readonly colour: string;
}

/** With more groups, the values are not written beside the dots. */
const WRITTEN = 3;
/** Circle, square, diamond, ring: dots can be distinguished without colours. */
const SHAPES = 4;

export function dots(
  rows: readonly DotRow[],
  groups: readonly DotGroup[],
  format: (value: number) => string,
): HTMLElement {
  const all = rows.flatMap(({ values }) => values.filter((value) => value !== null));
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const place = (value: number): string =>
    `${(2 + (96 * (value - least)) / (most - least || 1)).toFixed(2)}%`;
  const dot = (i: number, more: Readonly<Record<string, string>>, style: string): HTMLElement =>
    h("span", { class: `dot shape-${i % SHAPES}`, style: `--dot: ${groups[i]!.colour}; ${style}`, ...more });
  const row = ({ name, values }: DotRow): HTMLElement =>
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
            : dot(i, { title: `${groups[i]!.label}: ${format(value)}` }, `left: ${place(value)}`),
        ),
      ),
      h(
        "span",
        { class: "value" },
        groups.length > WRITTEN
          ? ""
          : values.map((value) => (value === null ? "–" : format(value))).join(" · "),
      ),
    );
  const key = groups.map(({ label }, i) => h("li", {}, dot(i, {}, ""), h("span", { class: "name" }, label)));
  return h(
    "div",
    {},
    groups.length > 1 ? h("ul", { class: "legend" }, key) : null,
    h("div", { class: "bars dots" }, rows.map(row)),
  );
}
