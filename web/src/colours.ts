// Colours that people with any colour vision can tell apart, as in stratoscope.charts.colours.

export const CATEGORY = ["#0072b2", "#c04f00", "#008060", "#b0578f", "#2b8cbe", "#a06b00", "#6e6e6e", "#8a7d00"];
export const CATEGORY_DARK = ["#4aa8e0", "#ff9045", "#33c19a", "#e39ac3", "#8fd0f2", "#f0b840", "#b5b5b5", "#f0e442"];

export const DASHES: number[][] = [[], [6, 4], [2, 3], [9, 3, 2, 3], [12, 4], [4, 2, 1, 2], [1, 4], [8, 2]];

/** Viridis at nine places, by van der Walt and Smith (CC0). */
const STOPS: [number, number, number][] = [
  [68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142],
  [31, 158, 137], [53, 183, 121], [110, 206, 88], [253, 231, 37],
]; // prettier-ignore

export function ramp(share: number): [number, number, number] {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  const [a, b] = [STOPS[low] as [number, number, number], STOPS[low + 1] as [number, number, number]];
  return [0, 1, 2].map((i) => Math.round((a[i] as number) + (at - low) * ((b[i] as number) - (a[i] as number)))) as [
    number,
    number,
    number,
  ];
}

export const css = ([r, g, b]: [number, number, number]): string => `rgb(${r} ${g} ${b})`;

export const isDark = (): boolean => {
  const said = document.documentElement.dataset["theme"];
  return said ? said === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

/** The colour of the n-th series; of ordered ones from dark to light. */
export function seriesColour(place: number, count: number, ordered: boolean, dark: boolean): string {
  if (!ordered || count < 2) {
    const table = dark ? CATEGORY_DARK : CATEGORY;
    return table[place % table.length] as string;
  }
  const share = place / (count - 1);
  return css(ramp(dark ? 0.25 + 0.75 * share : 0.8 * share));
}

/** What the style sheet says a colour is now. */
export const token = (name: string): string =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
