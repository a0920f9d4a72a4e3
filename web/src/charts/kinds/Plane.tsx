// Everything else: profiles along layers, planes, distributions.
import { render } from "preact";
import { useMemo } from "preact/hooks";
import { hover, is, point, show } from "../../state";
import { drawingsIn, standalone } from "../exports";
import type { Kind, Shot, View } from "../kind";
import { asShown, type Part, rangeShown, summary } from "../parts";
import { framed, seen } from "../plane/frame";
import { AtStep, Chosen, Here, Profiles } from "../plane/moving";
import { nearestSpot, reading, spotRead, spotsOf } from "../plane/reading";
import { Still } from "../plane/still";

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
