// Curves for drawing: fewer points that look the same, and a smoothed one beside the raw.

/**
 * Which points of a long curve to draw: of each bucket the least and the largest finite value, and the first that is not
 * finite, so that spikes and gaps stay. First and last always stay.
 */
export function keptPoints(y: ArrayLike<number>, limit: number): number[] {
  const n = y.length;
  if (n <= limit) return Array.from({ length: n }, (_, i) => i);
  const kept = new Set<number>([0, n - 1]);
  const buckets = Math.max(limit >> 1, 1);
  for (let bucket = 0; bucket < buckets; bucket++) {
    const start = Math.floor((bucket * n) / buckets);
    const stop = Math.floor(((bucket + 1) * n) / buckets);
    let low = -1;
    let high = -1;
    let gap = -1;
    for (let i = start; i < stop; i++) {
      const value = y[i] as number;
      if (!Number.isFinite(value)) {
        if (gap < 0) gap = i;
        continue;
      }
      if (low < 0 || value < (y[low] as number)) low = i;
      if (high < 0 || value > (y[high] as number)) high = i;
    }
    for (const place of [low, high, gap]) if (place >= 0) kept.add(place);
  }
  return [...kept].sort((a, b) => a - b);
}

/** A map from one ascending list to another of the same length, linear in between; NaN before the first and after the last. */
export function along(from: ArrayLike<number>, to: ArrayLike<number>, value: number): number {
  const n = from.length;
  if (!n || !(value >= (from[0] as number) && value <= (from[n - 1] as number))) return NaN;
  let [low, high] = [0, n - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((from[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  const [b, d] = [from[high] as number, to[high] as number];
  if (b === value) return d;
  const [a, c] = [from[high - 1] as number, to[high - 1] as number];
  return c + ((value - a) / (b - a)) * (d - c);
}

/** The least and the largest value but for one in a hundred on each side. */
export function middle(values: number[]): [number, number] | null {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length < 3) return null;
  const at = (share: number): number => sorted[Math.round(share * (sorted.length - 1))] as number;
  return [at(0.01), at(0.99)];
}

/**
 * An exponential moving average without the bias of its start; a value that is not finite leaves a gap and is passed over.
 *
 * @param weight of the past, from 0 (nothing is smoothed) to below 1.
 */
export function smooth(y: ArrayLike<number>, weight: number): Float64Array {
  const found = new Float64Array(y.length);
  let total = 0;
  let mass = 0;
  for (let i = 0; i < y.length; i++) {
    const value = y[i] as number;
    if (!Number.isFinite(value)) {
      found[i] = NaN;
      continue;
    }
    total = weight * total + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    found[i] = total / mass;
  }
  return found;
}
