// A number over the steps, as small as a word: its whole course, and where it is at the step that is looked at.
import { useMemo } from "preact/hooks";
import { lastAt, seriesOf, valuesOf } from "../at";
import { cursorStep, show } from "../state";
import type { Column, Row } from "../types";

const WIDE = 84;
const TALL = 20;

/** The course of a cell of the table; nothing where it was measured once. Pointing at it shows nothing else, a click its step. */
export function Course({ run, row, column }: { run: string; row: Row; column: Column }) {
  const values = valuesOf(run, column.instrument, column.variable);
  const course = useMemo(() => values && seriesOf(values, column.split, [row.name, row.tensor, row.layer]), [values, column, row]);
  if (!course || values?.meanings.length) return null;
  const { steps, numbers } = course;
  const finite = numbers.filter(Number.isFinite);
  if (finite.length < 2) return null;
  const [first, last] = [steps[0] as number, steps.at(-1) as number];
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const x = (step: number): number => 2 + ((WIDE - 4) * (step - first)) / (last - first || 1);
  const y = (value: number): number => (high > low ? 2 + ((TALL - 4) * (high - value)) / (high - low) : TALL / 2);
  let drawing = false;
  const d = numbers.map((value, i) => {
    const gap = !Number.isFinite(value);
    const piece = gap ? "" : `${drawing ? "L" : "M"}${x(steps[i] as number).toFixed(1)} ${y(value).toFixed(1)}`;
    drawing = !gap;
    return piece;
  });
  const click = (event: MouseEvent): void => {
    const share = (event.offsetX - 2) / (WIDE - 4);
    show({ step: steps[Math.max(lastAt(steps, first + share * (last - first)), 0)] ?? null });
  };
  return (
    <svg class="course" width={WIDE} height={TALL} aria-hidden="true" onClick={click}>
      <path d={d.join("")} />
      <Now steps={steps} numbers={numbers} x={x} y={y} />
    </svg>
  );
}

/** The dot at the step that is looked at; at the end where none is. */
function Now({ steps, numbers, x, y }: { steps: number[]; numbers: number[]; x: (step: number) => number; y: (value: number) => number }) {
  const step = cursorStep.value;
  const at = step === null ? steps.length - 1 : lastAt(steps, step);
  const value = numbers[at];
  return value !== undefined && Number.isFinite(value) ? <circle cx={x(steps[at] as number)} cy={y(value)} r={2.4} /> : null;
}
