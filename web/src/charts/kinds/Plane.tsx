// Everything else as SVG: profiles along layers, planes, distributions.
import { useMemo } from "preact/hooks";
import { css, isDark, ramp } from "../colours";
import { number } from "../format";
import { placeAt, valuesOf } from "../at";
import { cursorLayer, cursorStep, is, point, show } from "../state";
import type { Axis } from "../types";
import type { Numbers } from "../wire";
import { colourOf, marksOf, numbersOf, type Part, summary } from "./parts";
import { scale } from "./scale";
import type { View } from "./index";

const LEFT = 60;
const BOTTOM = 46;

export function Plane({ parts, size, log, readout }: View) {
  const first = (parts[0] as Part).chart;
  const [x, y] = useMemo(() => {
    const yAxis: Axis = log && [...numbersOf(parts, "y")].every((v) => !(v <= 0)) ? { ...first.y, scale: "log" } : first.y;
    return [
      scale(first.x, numbersOf(parts, "x"), LEFT, size.width - 12, number),
      scale(yAxis, numbersOf(parts, "y"), size.height - BOTTOM, 10, number),
    ];
  }, [parts, size.width, size.height, log]);
  void is.theme.value;
  const dark = isDark();
  const layers = first.x.scale === "category";
  const names = first.x.labels;
  const chosen = cursorLayer.value;

  const move = (event: PointerEvent): void => {
    const box = (event.currentTarget as SVGElement).getBoundingClientRect();
    if (!layers || !names.length) return;
    const at = event.clientX - box.left;
    const place = names.reduce((best, _, i) => (Math.abs(x(i) - at) < Math.abs(x(best) - at) ? i : best), 0);
    if (first.x.title !== "class") point({ layer: names[place] ?? null });
    readout({ head: names[place] ?? "", rows: reading(parts, place, dark) });
  };
  const leave = (): void => {
    point({ layer: null });
    readout(null);
  };
  const click = (): void => {
    if (layers && chosen) show({ layer: chosen });
  };
  return (
    <svg class="plane" width={size.width} height={size.height} role="img" aria-label={summary(parts)} onPointerMove={move} onPointerLeave={leave} onClick={click}>
      <g class="grid">
        {y.ticks.map((tick) => (
          <g key={tick.at}>
            <line x1={LEFT} x2={size.width - 12} y1={tick.at} y2={tick.at} />
            <text x={LEFT - 6} y={tick.at} text-anchor="end" dominant-baseline="middle">{tick.text}</text>
          </g>
        ))}
        {x.ticks.map((tick) => (
          <text key={tick.at} x={tick.at} y={size.height - BOTTOM + 14} text-anchor={layers ? "end" : "middle"} transform={layers ? `rotate(-28 ${tick.at} ${size.height - BOTTOM + 14})` : ""}>
            {tick.text.length > 18 ? `…${tick.text.slice(-17)}` : tick.text}
          </text>
        ))}
        {!layers && <text x={size.width - 12} y={size.height - 6} text-anchor="end">{first.x.title}</text>}
      </g>
      {layers && chosen !== null && names.includes(chosen) && <line class="chosen" x1={x(names.indexOf(chosen))} x2={x(names.indexOf(chosen))} y1={10} y2={size.height - BOTTOM} />}
      {parts.map((part) => (
        <g key={part.run} class={cursorStep.value !== null && part.chart.kind === "profile" && valuesOf(part.run, part.chart.instrument, part.chart.variable) ? "behind" : ""}>
          <Marks part={part} parts={parts.length} x={x} y={y} dark={dark} size={size} />
        </g>
      ))}
      {parts.map((part) => (
        <AtStep key={part.run} part={part} parts={parts.length} x={x} y={y} dark={dark} />
      ))}
    </svg>
  );
}

type Scaling = ReturnType<typeof scale>;

function Marks({ part, parts, x, y, dark, size }: { part: Part; parts: number; x: Scaling; y: Scaling; dark: boolean; size: { width: number; height: number } }) {
  const { chart } = part;
  const colour = (series: number): string => colourOf(part, series, parts, dark);
  const boxes = marksOf(chart, "boxes")[0];
  return (
    <g>
      {marksOf(chart, "band").map((band, i) => (
        <path key={i} class="band" fill={colour(band.series)} d={area(band.x.data, band.low.data, band.high.data, x, y)} />
      ))}
      {boxes && <Boxes boxes={boxes} x={x} y={y} colour={colour(0)} />}
      {marksOf(chart, "rule").map((rule, i) => {
        if (rule.value === null) return null;
        const at = rule.upright ? x(rule.value) : y(rule.value);
        return (
          <g class="rule" key={i}>
            {rule.upright ? <line x1={at} x2={at} y1={10} y2={size.height - BOTTOM} /> : <line x1={LEFT} x2={size.width - 12} y1={at} y2={at} />}
            <text x={rule.upright ? at + 4 : LEFT + 4} y={rule.upright ? 20 : at - 4}>{rule.name}</text>
          </g>
        );
      })}
      {marksOf(chart, "line").map((line, i) => (
        <path key={i} class={`line ${line.role}`} stroke={colour(line.series)} d={way(line.x.data, line.y.data, x, y)} />
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

/** A profile as it was at the step that is looked at, over the one at the end. */
function AtStep({ part, parts, x, y, dark }: { part: Part; parts: number; x: Scaling; y: Scaling; dark: boolean }) {
  const { chart, run } = part;
  const step = cursorStep.value;
  if (chart.kind !== "profile" || step === null) return null;
  const values = valuesOf(run, chart.instrument, chart.variable);
  if (!values || values.values.shape.length !== 3) return null;
  const [, splits = 1, places = 0] = values.values.shape;
  const names = values.labels[0] ?? [];
  return (
    <g class="at-step">
      {values.splits.map((split, which) => {
        const series = Math.max(chart.series.indexOf(split), 0);
        const points = Array.from({ length: places }, (_, at) => {
          const i = placeAt(values, which, at, step);
          const spot = chart.x.labels.indexOf(String(names[at]));
          return i < 0 || spot < 0 ? null : [x(spot), y(values.values.data[(i * splits + which) * places + at] as number)];
        }).filter((point): point is [number, number] => point !== null && point.every(Number.isFinite));
        return <path key={split} class="line" stroke={colourOf(part, series, parts, dark)} d={points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("")} />;
      })}
    </g>
  );
}

function way(xs: Numbers, ys: Numbers, x: Scaling, y: Scaling): string {
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

function area(xs: Numbers, low: Numbers, high: Numbers, x: Scaling, y: Scaling): string {
  const there = Array.from(xs.keys()).filter((i) => Number.isFinite(low[i]) && Number.isFinite(high[i]));
  if (!there.length) return "";
  const up = there.map((i) => `${x(xs[i] as number).toFixed(1)} ${y(high[i] as number).toFixed(1)}`);
  const down = there.reverse().map((i) => `${x(xs[i] as number).toFixed(1)} ${y(low[i] as number).toFixed(1)}`);
  return `M${[...up, ...down].join("L")}Z`;
}

/** A way through a plane, coloured along it; the page's step is marked on it. */
function Way({ path, x, y }: { path: Extract<Part["chart"]["marks"][number], { mark: "path" }>; x: Scaling; y: Scaling }) {
  const n = path.along.data.length;
  const pieces = [];
  for (let i = 1; i < n; i++) {
    const [a, b, c, d] = [x(path.x.data[i - 1] as number), y(path.y.data[i - 1] as number), x(path.x.data[i] as number), y(path.y.data[i] as number)];
    if ([a, b, c, d].every(Number.isFinite)) pieces.push(<line key={i} class="way" x1={a} y1={b} x2={c} y2={d} stroke={css(ramp(i / n))} />);
  }
  const step = cursorStep.value;
  const at = step === null ? -1 : Array.from(path.along.data).findLastIndex((value) => value <= step);
  return (
    <g>
      {pieces}
      {Array.from(path.along.data, (_, i) => {
        const [a, b] = [x(path.x.data[i] as number), y(path.y.data[i] as number)];
        return Number.isFinite(a) && Number.isFinite(b) ? <circle key={i} cx={a} cy={b} r={i === at ? 6 : 2.4} fill={css(ramp(i / Math.max(n - 1, 1)))} class={i === at ? "here" : ""} /> : null;
      })}
    </g>
  );
}

function Boxes({ boxes, x, y, colour }: { boxes: Extract<Part["chart"]["marks"][number], { mark: "boxes" }>; x: Scaling; y: Scaling; colour: string }) {
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

function reading(parts: Part[], place: number, dark: boolean): [string, string, string][] {
  const rows: [string, string, string][] = [];
  for (const part of parts) {
    for (const dots of marksOf(part.chart, "dots")) {
      const at = dots.x.data.indexOf(place as never);
      const name = part.chart.series[dots.series] ?? part.chart.title;
      if (at >= 0) rows.push([parts.length > 1 ? `${part.name}: ${name}` : name, number(dots.y.data[at]), colourOf(part, dots.series, parts.length, dark)]);
    }
    const boxes = marksOf(part.chart, "boxes")[0];
    if (boxes) rows.push(["median", number(boxes.quantiles.data[place * 7 + 3]), colourOf(part, 0, parts.length, dark)]);
  }
  return rows;
}

