// Single values, with the ends of their intervals.
import { number, unit } from "../../format";
import { marksOf } from "../parts";
import { type Kind, only, type View } from "../kind";

function Numbers({ parts }: View) {
  return (
    <dl class="numbers">
      {parts.flatMap((part) =>
        marksOf(part.chart, "number").map((mark) => (
          <div key={`${part.run} ${mark.name}`}>
            <dt>{parts.length > 1 ? `${part.name}: ${mark.name}` : mark.name}</dt>
            <dd>
              {number(mark.value ?? NaN)}
              {unit(part.chart.units)}
              {mark.low !== null && mark.high !== null && <small> {number(mark.low)} to {number(mark.high)}</small>}
            </dd>
          </div>
        )),
      )}
    </dl>
  );
}

export const kind: Kind = {
  claims: (chart) => (chart.marks.length && only(chart, "number") ? 2 : 0),
  view: Numbers,
  height: 84,
  overlays: true,
  scaled: false,
};
