// Everything else as SVG: profiles along layers, planes, distributions. What moves with the cursor is a drawing of its own over
// the one that stands still, so that going through the steps draws little.
import { effect, useComputed } from "@preact/signals";
import { render } from "preact";
import { useEffect, useId, useMemo, useRef } from "preact/hooks";
import { placeAt, valuesOf } from "../../at";
import { css, isDark, ramp } from "../../colours";
import { middle } from "../../curves";
import { number, unit } from "../../format";
import { cursorLayer, cursorStep, hover, is, point, show } from "../../state";
import { placeOf } from "../../store";
import type { Axis } from "../../types";
import type { Numbers } from "../../wire";
import { drawingsIn, standalone } from "../exports";
import type { Kind, Readout, Shot, View } from "../kind";
import { asShown, colourOf, dashOf, isTime, marksOf, numbersOf, type Of, type Part, rangeShown, summary, titleUp } from "../parts";
import { fitted, short, wide } from "../pen";
import { type Ruler, type Scale, scale } from "../scale";

const LEFT = 60;
const BOTTOM = 46;
const TOP = 10;
/** Names under a profile lean by 45 degrees, where they do not stand side by side. */
const LEAN = Math.SQRT1_2;

/** Where things lie, and in which colours. */
interface Frame {
  parts: Part[];
  size: View["size"];
  x: Scale;
  y: Scale;
  dark: boolean;
  /** Room above and below what is drawn. */
  top: number;
  bottom: number;
  /** Whether names lean. */
  leaning: boolean;
  /** What the vertical axis shows, where the title does not say it. */
  upwards: string;
}

/** The room that an axis takes below. */
function below({ scale, labels }: Axis, { width, height }: View["size"]): { bottom: number; leaning: boolean; labels: string[] } {
  if (scale !== "category") return { bottom: BOTTOM, leaning: false, labels };
  if ((wide(labels) + 8) * labels.length <= width - LEFT - 12) return { bottom: 28, leaning: false, labels };
  const most = 0.34 * height;
  const names = short(labels, (most - 22) / LEAN);
  return { bottom: Math.ceil(Math.min(LEAN * wide(names) + 22, most)), leaning: true, labels: names };
}

function framed({ parts, size, log, logx, clip, zoom }: Shot): Frame {
  const first = (parts[0] as Part).chart;
  const ys = [...numbersOf(parts, "y")];
  const { bottom, leaning, labels } = below(first.x, size);
  const xAxis: Ruler = logx && isTime(first.x) ? { ...first.x, scale: "symlog" } : { ...first.x, labels };
  const upwards = titleUp(first);
  const top = upwards ? 22 : TOP;
  const yAxis: Ruler = log && ys.every((value) => !(value <= 0)) ? { ...first.y, scale: "log" } : first.y;
  return {
    parts,
    size,
    x: scale(xAxis, numbersOf(parts, "x"), LEFT, size.width - 12, number, zoom),
    y: scale(yAxis, ys, size.height - bottom, top, number, clip ? middle(ys) : null),
    dark: isDark(),
    top,
    bottom,
    leaning,
    upwards,
  };
}

function Plane({ readout, ...shot }: View) {
  const { parts, size, log, logx, clip, zoom } = shot;
  const theme = is.theme.value;
  const frame = useMemo(() => framed(shot), [parts, size.width, size.height, log, logx, clip, zoom?.[0], zoom?.[1], theme]);
  const still = useMemo(() => <Still frame={frame} />, [frame]);
  const first = (parts[0] as Part).chart;
  const layers = first.x.scale === "category";
  const names = first.x.labels;

  const spots = useMemo(() => spotsOf(frame), [frame]);

  const move = (event: PointerEvent): void => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const at: [number, number] = [event.clientX - box.left, event.clientY - box.top];
    if (spots.length) {
      const spot = nearestSpot(spots, at);
      if (!spot) return leave();
      point({ layer: spot.part.chart.series[spot.path.series] ?? null, step: spot.path.along.data[spot.place] ?? null });
      readout(spotRead(spot, parts.length, frame.dark));
      return;
    }
    if (!layers || !names.length) return;
    const place = names.reduce((best, _, i) => (Math.abs(frame.x(i) - at[0]) < Math.abs(frame.x(best) - at[0]) ? i : best), 0);
    if (first.x.title !== "class") point({ layer: names[place] ?? null });
    readout({ head: names[place] ?? "", rows: reading(parts, place, frame.dark) });
  };
  const leave = (): void => {
    point({ layer: null, ...(spots.length ? { step: null } : {}) });
    readout(null);
  };
  const click = (): void => {
    const { layer, step } = hover.peek();
    if (layer) show({ layer, ...(spots.length ? { step } : {}) });
  };
  return (
    <div class="planes" role="img" aria-label={summary(parts)} onPointerMove={move} onPointerLeave={leave} onClick={click}>
      {still}
      <Profiles frame={frame} />
      <svg class="plane over" width={size.width} height={size.height} style={{ clipPath: seen(frame) }}>
        <Chosen frame={frame} />
        {parts.map((part) => (
          <Here key={part.run} part={part} frame={frame} />
        ))}
      </svg>
    </div>
  );
}

/** What lies over a drawing ends where that ends. */
const seen = ({ top, bottom }: Frame): string => `inset(${top - 8}px 4px ${bottom - 2}px ${LEFT - 6}px)`;

/** What does not move with the cursor. */
function Still({ frame }: { frame: Frame }) {
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

/** The layer that is looked at: its place along the axis, or its way. */
function Chosen({ frame: { parts, size, x, y, top, bottom } }: { frame: Frame }) {
  const layer = cursorLayer.value;
  if (layer === null) return null;
  const { labels, scale } = (parts[0] as Part).chart.x;
  const at = scale === "category" ? placeOf(labels, layer) : -1;
  if (at >= 0) return <line class="chosen" x1={x(at)} x2={x(at)} y1={top} y2={size.height - bottom} />;
  return (
    <g>
      {parts.flatMap((part) =>
        marksOf(part.chart, "path")
          .filter((path) => path.series === placeOf(part.chart.series, layer))
          .map((path) => <path key={`${part.run} ${path.series}`} class="chosen way" d={way(path.x.data, path.y.data, x, y)} />),
      )}
    </g>
  );
}

/** The values of a profile over the steps, where they are there. */
const overSteps = ({ chart, run }: Part) => (chart.kind === "profile" ? valuesOf(run, chart.instrument, chart.variable) : null);

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

/** Profiles as they were at the step that is looked at: their ways and colours, a line for each split. */
function profilesAt({ parts, x, y, dark }: Frame, step: number | null): { d: string; colour: string }[] {
  if (step === null) return [];
  return parts.flatMap((part) => {
    const { chart } = part;
    const values = overSteps(part);
    if (!values || values.values.shape.length !== 3) return [];
    const [, splits = 1, places = 0] = values.values.shape;
    const spots = (values.labels[0] ?? []).map((name) => chart.x.labels.indexOf(String(name)));
    return values.splits.map((split, which) => {
      const there = [...spots.keys()].flatMap((at) => {
        const [i, spot] = [placeAt(values, which, at, step), spots[at] as number];
        return i < 0 || spot < 0 ? [] : [[spot, values.values.data[(i * splits + which) * places + at] as number] as const];
      });
      const known = there.filter(([, value]) => Number.isFinite(value));
      const [xs, ys] = [known.map(([spot]) => spot), known.map(([, value]) => value)];
      return { d: way(xs, ys, x, y), colour: colourOf(part, Math.max(chart.series.indexOf(split), 0), parts.length, dark) };
    });
  });
}

/** These over the profiles at the end; a canvas, since an SVG that changes thirty times a second costs several times as much. */
function Profiles({ frame }: { frame: Frame }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { width, height } = frame.size;
  const profiles = frame.parts.some((part) => part.chart.kind === "profile");
  useEffect(() => {
    const sheet = canvas.current;
    if (!sheet) return;
    const sharp = devicePixelRatio;
    [sheet.width, sheet.height] = [width * sharp, height * sharp];
    // drawn by the processor: for a few lines that is less work than the way to the graphics card and back
    const pen = sheet.getContext("2d", { willReadFrequently: true }) as CanvasRenderingContext2D;
    pen.scale(sharp, sharp);
    pen.lineWidth = 2.4;
    pen.lineJoin = "round";
    return effect(() => {
      pen.clearRect(0, 0, width, height);
      for (const { d, colour } of profilesAt(frame, cursorStep.value)) {
        pen.strokeStyle = colour;
        pen.stroke(new Path2D(d));
      }
    });
  }, [frame, profiles]);
  return profiles ? <canvas class="over" ref={canvas} style={{ width: `${width}px`, height: `${height}px`, clipPath: seen(frame) }} /> : null;
}

/** The same as SVG, for a picture to take along. */
function AtStep({ frame }: { frame: Frame }) {
  return (
    <g class="at-step">
      {profilesAt(frame, cursorStep.peek()).map(({ d, colour }, i) => (
        <path key={i} class="line" stroke={colour} d={d} />
      ))}
    </g>
  );
}

/** Where ways through a plane are at the step that is looked at. */
function Here({ part, frame: { x, y } }: { part: Part; frame: Frame }) {
  const paths = marksOf(part.chart, "path");
  const step = cursorStep.value;
  if (step === null || !paths.length) return null;
  return (
    <g>
      {paths.map((path, i) => {
        const at = Array.from(path.along.data).findLastIndex((value) => value <= step);
        const [a, b] = [x(path.x.data[at] as number), y(path.y.data[at] as number)];
        return Number.isFinite(a) && Number.isFinite(b) ? <circle key={i} class="here" cx={a} cy={b} r={4} fill={along(path.along.data.length, at)} /> : null;
      })}
    </g>
  );
}

/** The colour of a place along a way. */
const along = (count: number, at: number): string => css(ramp(at / Math.max(count - 1, 1)));

function way(xs: ArrayLike<number>, ys: ArrayLike<number>, x: Scale, y: Scale): string {
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

/** A point of a way: where it lies, what of, and at which step. */
interface Spot {
  at: [number, number];
  part: Part;
  path: Of<"path">;
  place: number;
}

const spotsOf = ({ parts, x, y }: Frame): Spot[] =>
  parts.flatMap((part) =>
    marksOf(part.chart, "path").flatMap((path) =>
      Array.from(path.along.data, (_, place): Spot => ({ at: [x(path.x.data[place] as number), y(path.y.data[place] as number)], part, path, place })).filter((spot) => spot.at.every(Number.isFinite)),
    ),
  );

/** The point that is nearest to a place, if any is near. */
function nearestSpot(spots: Spot[], [x, y]: [number, number], most = 24): Spot | null {
  let best: Spot | null = null;
  let least = most;
  for (const spot of spots) {
    const far = Math.hypot(spot.at[0] - x, spot.at[1] - y);
    if (far < least) [best, least] = [spot, far];
  }
  return best;
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

function Boxes({ boxes, x, y, colour }: { boxes: Extract<Part["chart"]["marks"][number], { mark: "boxes" }>; x: Scale; y: Scale; colour: string }) {
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

/** A point of a way in words: whose it is, and both its numbers. */
function spotRead({ part, path, place }: Spot, parts: number, dark: boolean): Readout {
  const { chart } = part;
  const name = chart.series[path.series] ?? chart.title;
  const colour = colourOf(part, path.series, parts, dark);
  const said = (axis: Axis, value: number | undefined): [string, string, string] => [axis.title, `${number(value)}${unit(axis.units)}`, colour];
  return {
    head: `${parts > 1 ? `${part.name}: ` : ""}${name}, step ${number(path.along.data[place])}`,
    rows: [said(chart.x, path.x.data[place]), said(chart.y, path.y.data[place])],
  };
}

/** A distribution in words. */
function spread({ quantiles }: Of<"boxes">, place: number): [string, string][] {
  const cut = (at: number): string => number(quantiles.data[place * 7 + at]);
  const between = (low: number, high: number): string => `${cut(low)} to ${cut(high)}`;
  return [["median", cut(3)], ["middle half", between(2, 4)], ["5 to 95 %", between(1, 5)], ["all", between(0, 6)]];
}

function reading(parts: Part[], place: number, dark: boolean): [string, string, string][] {
  const rows: [string, string, string][] = [];
  for (const part of parts) {
    for (const dots of marksOf(part.chart, "dots")) {
      const at = dots.x.data.indexOf(place as never);
      const name = part.chart.series[dots.series] ?? part.chart.title;
      if (at >= 0) rows.push([parts.length > 1 ? `${part.name}: ${name}` : name, number(dots.y.data[at]), colourOf(part, dots.series, parts.length, dark)]);
    }
    const boxes = marksOf(part.chart, "boxes")[0];
    if (boxes) for (const [name, value] of spread(boxes, place)) rows.push([parts.length > 1 ? `${part.name}: ${name}` : name, value, colourOf(part, 0, parts.length, dark)]);
  }
  return rows;
}

/** Charts as one drawing in text, as they are shown, with what lies over them at the step that is looked at. */
export function planeSvg(shot: Shot): string {
  const host = document.createElement("div");
  host.className = "away";
  document.body.append(host);
  try {
    const parts = shot.parts.map((part) => asShown(part, shot.weight));
    const frame = framed({ ...shot, parts, zoom: rangeShown(shot.parts[0] as Part, shot.zoom) });
    render(
      <>
        <Still frame={frame} />
        <svg class="plane">
          <AtStep frame={frame} />
          {parts.map((part) => <Here key={part.run} part={part} frame={frame} />)}
        </svg>
      </>,
      host,
    );
    return standalone(drawingsIn(host));
  } finally {
    render(null, host);
    host.remove();
  }
}

export const kind: Kind = {
  claims: () => 1,
  view: Plane,
  height: 280,
  overlays: true,
  scaled: true,
  follows: (chart) => chart.kind === "profile" || chart.marks.includes("path"),
  svg: planeSvg,
};
