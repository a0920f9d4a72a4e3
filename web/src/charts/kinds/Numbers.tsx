// Single values, with the ends of their intervals.
import { isDark } from "../../colours";
import { number, unit } from "../../format";
import { colourOf, marksOf, type Part } from "../parts";
import { type Kind, only, type View } from "../kind";

function Numbers({ parts }: View) {
  if (parts.length > 1) return <Runs parts={parts} />;
  return (
    <dl class="numbers">
      {parts.flatMap((part) =>
        marksOf(part.chart, "number").map((mark) => (
          <div key={`${part.run} ${mark.name}`}>
            <dt>{mark.name}</dt>
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

/** A row for each run, a column for each number. */
function Runs({ parts }: { parts: Part[] }) {
  const columns = [...new Set(parts.flatMap((part) => marksOf(part.chart, "number").map((mark) => mark.name)))];
  return (
    <div class="scroll">
      <table class="by-run">
        <thead>
          <tr>
            <th scope="col">run</th>
            {columns.map((name) => <th scope="col" key={name}>{name}</th>)}
          </tr>
        </thead>
        <tbody>
          {parts.map((part) => (
            <tr key={part.run}>
              <th scope="row"><i style={{ background: colourOf(part, 0, parts.length, isDark()) }} /> {part.name}</th>
              {columns.map((name) => {
                const mark = marksOf(part.chart, "number").find((one) => one.name === name);
                return <td key={name}>{mark && `${number(mark.value ?? NaN)}${unit(part.chart.units)}`}</td>;
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export const kind: Kind = {
  claims: (chart) => (chart.marks.length && only(chart, "number") ? 2 : 0),
  view: Numbers,
  height: 48,
  small: true,
  overlays: true,
  scaled: false,
};
