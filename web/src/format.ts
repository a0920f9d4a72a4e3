// Numbers as people read them; the same rules as stratoscope.charts.numbers.

export function number(value: unknown): string {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string") return value;
  if (typeof value !== "number") return "–";
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return minus(value.toLocaleString("en-US"));
  if (size >= 1e5 || size < 1e-3) return minus(value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e"));
  return minus(String(Number(value.toPrecision(4))));
}

const minus = (text: string): string => text.replace("-", "−");

/** A unit behind a number; nothing for a pure one. */
export const unit = (units: string): string => (units === "1" || units === "" ? "" : ` ${units}`);

/** The step that a label of a category axis names: "1,024" is 1024. */
export function stepOf(label: string): number | null {
  const plain = label.replaceAll(",", "");
  return /^\d+$/.test(plain) ? Number(plain) : null;
}

/** Where the finite value nearest to `wanted` stands in an ascending list; -1 in an empty one. */
export function nearest(values: ArrayLike<number>, wanted: number): number {
  let low = 0;
  let high = values.length - 1;
  if (high < 0) return -1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((values[middle] as number) < wanted) low = middle + 1;
    else high = middle;
  }
  const before = low > 0 && wanted - (values[low - 1] as number) <= (values[low] as number) - wanted;
  return before ? low - 1 : low;
}

export const escapeText = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
