/** Guarded domains of one run: their held-out losses against their limits. */
import type { PageData, RunData } from "../page-data.ts";
import { h, section } from "./dom.ts";
import { formatShare } from "./format.ts";
import { multiples, type Panel } from "./multiples.ts";
import { unpackFloats } from "./packing.ts";
import { theme } from "./screen.ts";
import { nameColour, type Part, rowOf, runOf } from "./view.ts";

export function guardsPart(): Part {
  const note = h("p", { class: "note" });
  const panels = multiples("Search a guard");
  const element = section("guards", "Guards", note, panels.element);
  return {
    element,
    show(view) {
      const { guards } = runOf(view);
      element.hidden = guards === null;
      note.textContent = guards === null ? "" : sentence(guards);
      panels.show(guards === null ? [] : panelsOf(view.data, guards));
    },
  };
}

type Guards = NonNullable<RunData["guards"]>;

function sentence({ rows, tokens, values, limits }: Guards): string {
  const ratios = unpackFloats(values);
  const lasts = rows.map((_, i) => rowOf(ratios, tokens.length, i).findLast((ratio) => !Number.isNaN(ratio)));
  const held = lasts.filter((last, i) => last !== undefined && last <= limits[i]!).length;
  const one = held === 1 ? "it is" : "it is not";
  const several = held === rows.length ? `all ${held} are` : `${held} of ${rows.length} are`;
  return `The held-out loss of each guarded domain against its reference; the dashed line is the limit, bars are ± two standard errors. At the end, ${rows.length === 1 ? one : several} at or below the limit.`;
}

function panelsOf(data: PageData, { rows, tokens, values, errors, limits }: Guards): Panel[] {
  const [ratios, wide] = [unpackFloats(values), unpackFloats(errors)];
  return rows.map((name, i) => ({
    name: data.names[name]!,
    lines: [
      {
        label: data.names[name]!,
        colour: nameColour(data, name, "line"),
        tokens,
        values: rowOf(ratios, tokens.length, i).map((ratio) => ratio - 1),
        band: rowOf(wide, tokens.length, i).map((error) => 2 * error),
      },
    ],
    options: {
      height: 130,
      title: `Held-out loss of ${data.names[name]} against its reference`,
      format: formatShare,
      tick: formatShare,
      spread: "bars",
      small: true,
      legend: "nowhere",
      ...(Number.isNaN(limits[i]!)
        ? {}
        : { level: { at: limits[i]! - 1, label: "", colour: theme().warning } }),
    },
  }));
}
