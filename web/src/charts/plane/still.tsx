// What does not move with the cursor.
import { useComputed } from "@preact/signals";
import { useId } from "preact/hooks";
import { valuesOf } from "../../at";
import { css, ramp } from "../../colours";
import { cursorStep } from "../../state";
import type { Numbers } from "../../wire";
import { colourOf, dashOf, marksOf, type Of, type Part } from "../parts";
import { fitted } from "../pen";
import type { Scale } from "../scale";
import { type Frame, LEAN, LEFT } from "./frame";

export function Still({ frame }: { frame: Frame }) {
  const { parts, size, x, y, top, bottom, leaning, upwards } = frame;
  const first = (parts[0] as Part).chart;
  const layers = first.x.scale === "category";
  const id = useId();
  return (
    <svg class="plane" width={size.width} height={size.height}>
      <clipPath id={id}>
        <rect x={LEFT - 6} y={top - 6} width={Math.max(size.width - LEFT, 0)} height={Math.max(size.height - bottom - top + 10, 0)} />
      </clipPath>
      <g class="grid">
        {y.ticks.map((tick) => (
          <g key={tick.at}>
            <line x1={LEFT} x2={size.width - 12} y1={tick.at} y2={tick.at} />
            <text x={LEFT - 6} y={tick.at} text-anchor="end" dominant-baseline="middle">{tick.text}</text>
          </g>
        ))}
        {x.ticks.map((tick) => (
          <text key={tick.at} x={tick.at} y={size.height - bottom + 15} text-anchor={leaning ? "end" : "middle"} transform={leaning ? `rotate(-45 ${tick.at} ${size.height - bottom + 15})` : ""}>
            {leaning ? fitted(tick.text, Math.min(bottom - 20, tick.at - 4) / LEAN) : tick.text}
          </text>
        ))}
        {!layers && <text x={size.width - 12} y={size.height - 6} text-anchor="end">{first.x.title}</text>}
        {upwards && <text x={4} y={12}>{upwards}</text>}
      </g>
      <g clip-path={`url(#${id})`}>
        {parts.map((part) => (
          <Marks key={part.run} part={part} frame={frame} />
        ))}
      </g>
    </svg>
  );
}

/** The values of a profile over the steps, where they are there. */
export const overSteps = ({ chart, run }: Part) => (chart.kind === "profile" ? valuesOf(run, chart.instrument, chart.variable) : null);

function Marks({ part, frame }: { part: Part; frame: Frame }) {
  const { parts, x, y, dark } = frame;
  const { chart } = part;
  const colour = (series: number): string => colourOf(part, series, parts.length, dark);
  const boxes = marksOf(chart, "boxes")[0];
  // the profile at the end is in the background while that of another step lies over it
  const behind = useComputed(() => (cursorStep.value !== null && overSteps(part) ? "behind" : ""));
  return (
    <g class={behind}>
      {marksOf(chart, "band").map((band, i) => (
        <path key={i} class="band" fill={colour(band.series)} d={area(band.x.data, band.low.data, band.high.data, x, y)} />
      ))}
      {boxes && <Boxes boxes={boxes} x={x} y={y} colour={colour(0)} />}
      {marksOf(chart, "rule").map((rule, i) => (
        <RuleLine key={i} rule={rule} frame={frame} />
      ))}
      {marksOf(chart, "span").map((span, i) => (
        <path key={i} class="span" d={across(span, x, y)} />
      ))}
      {marksOf(chart, "line").map((line, i) => (
        <path key={i} class={`line ${line.role}`} stroke={colour(line.series)} {...dashed(part, line.series, line.role, parts.length)} d={way(line.x.data, line.y.data, x, y)} />
      ))}
      {marksOf(chart, "path").map((path, i) => (
        <Way key={i} path={path} x={x} y={y} />
      ))}
      {marksOf(chart, "dots").map((dots, i) =>
        Array.from(dots.y.data, (value, at) => {
          const [a, b] = [x(dots.x.data[at] as number), y(value)];
          return Number.isFinite(a) && Number.isFinite(b) ? <circle key={`${i}.${at}`} r={3} cx={a} cy={b} fill={colour(dots.series)} /> : null;
        }),
      )}
    </g>
  );
}

/** The dashes of a curve, as an attribute. */
function dashed(part: Part, series: number, role: string, parts: number): { style?: { strokeDasharray: string } } {
  const dash = dashOf(part, series, role, parts);
  return dash.length ? { style: { strokeDasharray: dash.join(" ") } } : {};
}

/** A reference, with its name where there is room for it. */
function RuleLine({ rule, frame: { x, y, size, top, bottom } }: { rule: Of<"rule">; frame: Frame }) {
  if (rule.value === null) return null;
  const at = rule.upright ? x(rule.value) : y(rule.value);
  const late = rule.upright && at > size.width - 110;
  return (
    <g class="rule">
      {rule.upright ? <line x1={at} x2={at} y1={top} y2={size.height - bottom} /> : <line x1={LEFT} x2={size.width - 12} y1={at} y2={at} />}
      <text x={rule.upright ? at + (late ? -4 : 4) : LEFT + 4} y={rule.upright ? size.height - bottom - 6 : at < top + 12 ? at + 13 : at - 4} text-anchor={late ? "end" : "start"}>{rule.name}</text>
    </g>
  );
}

/** How wide points are: a stroke across each. */
function across(span: Of<"span">, x: Scale, y: Scale): string {
  let text = "";
  for (let i = 0; i < span.y.data.length; i++) {
    const [a, b, at] = [x(span.low.data[i] as number), x(span.high.data[i] as number), y(span.y.data[i] as number)];
    if ([a, b, at].every(Number.isFinite)) text += `M${a.toFixed(1)} ${at.toFixed(1)}H${b.toFixed(1)}`;
  }
  return text;
}

/** The colour of a place along a way. */
export const along = (count: number, at: number): string => css(ramp(at / Math.max(count - 1, 1)));

export function way(xs: ArrayLike<number>, ys: ArrayLike<number>, x: Scale, y: Scale): string {
  let text = "";
  let drawing = false;
  for (let i = 0; i < ys.length; i++) {
    const [a, b] = [x(xs[i] as number), y(ys[i] as number)];
    if (!Number.isFinite(a) || !Number.isFinite(b)) drawing = false;
    else {
      text += `${drawing ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`;
      drawing = true;
    }
  }
  return text;
}

function area(xs: Numbers, low: Numbers, high: Numbers, x: Scale, y: Scale): string {
  const there = Array.from(xs.keys()).filter((i) => Number.isFinite(low[i]) && Number.isFinite(high[i]));
  if (!there.length) return "";
  const up = there.map((i) => `${x(xs[i] as number).toFixed(1)} ${y(high[i] as number).toFixed(1)}`);
  const down = there.reverse().map((i) => `${x(xs[i] as number).toFixed(1)} ${y(low[i] as number).toFixed(1)}`);
  return `M${[...up, ...down].join("L")}Z`;
}

/** A way through a plane, coloured along it. */
function Way({ path, x, y }: { path: Of<"path">; x: Scale; y: Scale }) {
  const n = path.along.data.length;
  const spots = Array.from({ length: n }, (_, i) => [x(path.x.data[i] as number), y(path.y.data[i] as number)] as [number, number]);
  const there = (spot: [number, number] | undefined): spot is [number, number] => spot !== undefined && spot.every(Number.isFinite);
  return (
    <g>
      {spots.map((to, i) => {
        const from = spots[i - 1];
        return there(from) && there(to) ? <line key={i} class="way" x1={from[0]} y1={from[1]} x2={to[0]} y2={to[1]} stroke={along(n, i)} /> : null;
      })}
      {spots.map((spot, i) => (there(spot) ? <circle key={i} cx={spot[0]} cy={spot[1]} r={2.4} fill={along(n, i)} /> : null))}
    </g>
  );
}

function Boxes({ boxes, x, y, colour }: { boxes: Of<"boxes">; x: Scale; y: Scale; colour: string }) {
  const [places = 0, cuts = 7] = boxes.quantiles.shape;
  const at = (place: number, cut: number): number => y(boxes.quantiles.data[place * cuts + cut] as number);
  return (
    <g>
      {Array.from({ length: places }, (_, i) =>
        Number.isFinite(boxes.quantiles.data[i * cuts + 3]) ? (
          <g key={i} stroke={colour} fill={colour}>
            <line x1={x(i)} x2={x(i)} y1={at(i, 1)} y2={at(i, 5)} />
            <rect x={x(i) - 5} width={10} y={at(i, 4)} height={Math.max(at(i, 2) - at(i, 4), 1)} fill-opacity={0.25} />
            <line x1={x(i) - 5} x2={x(i) + 5} y1={at(i, 3)} y2={at(i, 3)} stroke-width={2} />
          </g>
        ) : null,
      )}
    </g>
  );
}
