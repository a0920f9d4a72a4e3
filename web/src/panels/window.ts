// Which rows of a long list are seen: the others are not drawn, and blank room stands for them.

export interface Seen {
  begin: number;
  end: number;
  /** Room of the rows before and after, in pixels. */
  before: number;
  after: number;
}

/** The rows from `begin` to before `end`, with some on each side that are about to be seen. */
export function seen(heights: number[], top: number, tall: number, spare = 6): Seen {
  let place = 0;
  let begin = -1;
  let end = 0;
  heights.forEach((height, row) => {
    if (place + height > top && begin < 0) begin = row;
    if (place < top + tall) end = row + 1;
    place += height;
  });
  begin = Math.max((begin < 0 ? heights.length : begin) - spare, 0);
  end = Math.min(Math.max(end, begin) + spare, heights.length);
  const room = (rows: number[]): number => rows.reduce((a, b) => a + b, 0);
  return { begin, end, before: room(heights.slice(0, begin)), after: room(heights.slice(end)) };
}
