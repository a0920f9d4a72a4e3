// A film of a chart: the page goes through the steps, and what the chart shows at each becomes a picture of the film.
import { number } from "../format";
import { shown, show } from "../state";
import { first } from "../store";
import type { Head } from "../types";
import { painted, save } from "./exports";
import type { Key } from "./legend";

const PICTURES = 120;
/** Milliseconds that a picture stays. */
const STAY = 80;

/** Whether this browser can make films. */
export const canFilm = (): boolean => "MediaRecorder" in globalThis && MediaRecorder.isTypeSupported("video/webm");

/**
 * Save a film of the steps; of many, so many spread evenly. Afterwards the page shows the step that it showed before.
 *
 * @param going asked before each picture; where it says no, the film ends there and is not saved.
 */
export async function saveFilm(body: HTMLElement, head: Head, keys: Key[], going: () => boolean): Promise<void> {
  const steps = first.peek()?.steps ?? [];
  const before = shown.peek().step;
  const picture = document.createElement("canvas");
  await painted(body, head, keys, picture);
  const recorder = new MediaRecorder(picture.captureStream(), { mimeType: "video/webm" });
  const parts: Blob[] = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  const ended = new Promise<void>((done) => (recorder.onstop = () => done()));
  recorder.start();
  const count = Math.min(PICTURES, steps.length);
  let whole = true;
  for (let i = 0; i < count && whole; i++) {
    const step = steps[count < 2 ? 0 : Math.round((i * (steps.length - 1)) / (count - 1))] as number;
    show({ step }, true);
    await new Promise((done) => setTimeout(done, STAY));
    await painted(body, head, keys, picture, `, step ${number(step)}`);
    whole = going();
  }
  await new Promise((done) => setTimeout(done, STAY));
  recorder.stop();
  await ended;
  show({ step: before }, true);
  if (whole) save(new Blob(parts, { type: "video/webm" }), `${head.id}.webm`);
}
