/**
 * Colours, light and dark. Runs are lines in the colours of `runs`, each with its own dashes; domains are areas and lines in those of `domains`; no
 * colour is in both.
 */

export interface Theme {
  readonly background: string;
  readonly panel: string;
  readonly ink: string;
  readonly muted: string;
  readonly rule: string;
  readonly accent: string;
  readonly warning: string;
  readonly runs: readonly string[];
  /** Neighbours differ in lightness, so that they can be distinguished without hues. After Tol, "muted". */
  readonly domains: readonly string[];
  /** The same for lines, which need more contrast than areas. */
  readonly domainLines: readonly string[];
  /** For all domains without a colour of their own. */
  readonly others: string;
  /** For unknown values. */
  readonly unknown: string;
}

export const light: Theme = {
  background: "#ffffff",
  panel: "#f6f7f8",
  ink: "#16181d",
  muted: "#5a6270",
  rule: "#dfe2e6",
  accent: "#0b57a4",
  warning: "#a33a00",
  runs: ["#0057b7", "#c2410c", "#1f2328", "#00796b", "#8e24aa", "#8a6100", "#b0004e", "#4b5d16"],
  domains: [
    "#332288",
    "#88ccee",
    "#117733",
    "#ddcc77",
    "#6699cc",
    "#661100",
    "#999933",
    "#882255",
    "#44aa99",
    "#aa4499",
    "#d8a0b8",
    "#cc6677",
  ],
  domainLines: [
    "#332288",
    "#2b8fb8",
    "#117733",
    "#a3892a",
    "#4676ab",
    "#661100",
    "#7d7d22",
    "#882255",
    "#2d8a7c",
    "#aa4499",
    "#b8668b",
    "#c0505f",
  ],
  others: "#b4b9c0",
  unknown: "#e9ebee",
};

export const dark: Theme = {
  background: "#14171c",
  panel: "#1c2027",
  ink: "#eceef1",
  muted: "#a3acb8",
  rule: "#343a44",
  accent: "#79b8ff",
  warning: "#ff9f66",
  runs: ["#6cb2ff", "#ff9257", "#f4f4f4", "#3fd0b6", "#d79bf0", "#e6b94d", "#ff7fae", "#b8cf6a"],
  domains: [
    "#7a6ee0",
    "#9bd7f2",
    "#3d9e5b",
    "#e3d48b",
    "#5f8fc4",
    "#b0542f",
    "#a9a942",
    "#bf4f8b",
    "#58bfae",
    "#c56fc0",
    "#e2b6c9",
    "#dd7b8a",
  ],
  domainLines: [
    "#8f84ee",
    "#9bd7f2",
    "#48ad68",
    "#e3d48b",
    "#6b9bd0",
    "#c4683f",
    "#b4b44c",
    "#d0639d",
    "#58bfae",
    "#c56fc0",
    "#e2b6c9",
    "#dd7b8a",
  ],
  others: "#69717d",
  unknown: "#262b33",
};

/** Dashes of runs, by index; the first is solid. */
const dashes: readonly (readonly number[])[] = [
  [],
  [7, 4],
  [2, 3],
  [10, 3, 2, 3],
  [12, 5],
  [4, 3],
  [1, 4],
  [8, 2, 2, 2, 2, 2],
];

export interface Stroke {
  readonly colour: string;
  readonly dash: readonly number[];
}

/** Colour and dashes of a run. After all colours have been used, they repeat with other dashes. */
export function runStroke(theme: Theme, index: number): Stroke {
  const round = Math.floor(index / theme.runs.length);
  return {
    colour: theme.runs[index % theme.runs.length]!,
    dash: dashes[(index + 3 * round) % dashes.length]!,
  };
}

/** The colour of a domain for an area or a line. `rank` is its rank by weight; −1 if it has no colour of its own. */
export function domainColour(theme: Theme, rank: number, mark: "area" | "line"): string {
  const colours = mark === "area" ? theme.domains : theme.domainLines;
  if (rank >= 0 && rank < colours.length) return colours[rank]!;
  return mark === "area" ? theme.others : theme.muted;
}

/** cividis (Nuñez, Anderton and Renslow 2018), which looks the same with colour vision deficiency: dark to light. */
const cividis: readonly (readonly [number, number, number])[] = [
  [0, 32, 77],
  [20, 51, 111],
  [62, 74, 109],
  [92, 97, 111],
  [122, 121, 119],
  [155, 146, 115],
  [190, 174, 101],
  [226, 203, 75],
  [254, 233, 69],
];

/** The colour for a share from 0 to 1. */
export function heat(share: number): readonly [number, number, number] {
  const at = Math.max(0, Math.min(1, share)) * (cividis.length - 1);
  const i = Math.min(Math.floor(at), cividis.length - 2);
  const [low, high] = [cividis[i]!, cividis[i + 1]!];
  const mix = (one: number, other: number): number => Math.round(one + (other - one) * (at - i));
  return [mix(low[0], high[0]), mix(low[1], high[1]), mix(low[2], high[2])];
}
