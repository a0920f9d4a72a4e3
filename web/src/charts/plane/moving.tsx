// What moves with the cursor: drawings of their own over the one that stands still, so that going through the steps draws little.
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { placeAt } from "../../at";
import { cursorLayer, cursorStep } from "../../state";
import { placeOf } from "../../store";
import { colourOf, marksOf, type Part } from "../parts";
import { type Frame, seen } from "./frame";
import { along, overSteps, way } from "./still";

/** The layer that is looked at: its place along the axis, or its way. */
export function Chosen({ frame: { parts, size, x, y, top, bottom } }: { frame: Frame }) {
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
export function Profiles({ frame }: { frame: Frame }) {
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
export function AtStep({ frame }: { frame: Frame }) {
  return (
    <g class="at-step">
      {profilesAt(frame, cursorStep.peek()).map(({ d, colour }, i) => (
        <path key={i} class="line" stroke={colour} d={d} />
      ))}
    </g>
  );
}

/** Where ways through a plane are at the step that is looked at. */
export function Here({ part, frame: { x, y } }: { part: Part; frame: Frame }) {
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
