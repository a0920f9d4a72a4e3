import { effect } from "@preact/signals";
import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./page.css";
import { speak } from "./frame";
import { Bar } from "./panels/Bar";
import { Charts } from "./panels/Charts";
import { Detail } from "./panels/Detail";
import { Findings } from "./panels/Findings";
import { Groups } from "./panels/Groups";
import { Layers } from "./panels/Layers";
import { Runs } from "./panels/Runs";
import { Waiting } from "./panels/Waiting";
import { cursorLayer, cursorStep, is, listen, shown } from "./state";
import { again, begin, cancel, first, open, trouble } from "./store";

function Page() {
  const index = first.value;
  return (
    <>
      <Bar />
      {trouble.value && (
        <p class="trouble" role="alert">
          {trouble.value} <button onClick={again}>Try again</button>
        </p>
      )}
      <div class={`columns${is.layer.value || is.instrument.value ? " with-detail" : ""}`}>
        <div class="side">
          <Runs />
          <Groups />
        </div>
        <main>
          {!index && !trouble.value && <Waiting what="the run" stop={cancel} />}
          {index && !is.chart.value && (
            <div class="overview">
              <Findings />
              <Layers />
            </div>
          )}
          <Charts />
        </main>
        <Detail />
      </div>
    </>
  );
}

listen();
effect(() => {
  const theme = is.theme.value;
  if (theme === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
});
effect(() => {
  document.title = first.value ? `${first.value.name} · Stratoscope` : "Stratoscope";
});
begin();
speak();
render(<Page />, document.getElementById("app") as HTMLElement);

// for tests: what the page shows, as plain values
Object.assign(globalThis, {
  __view: {
    state: () => ({ ...shown.peek(), cursorStep: cursorStep.peek(), cursorLayer: cursorLayer.peek(), seq: Object.fromEntries(open.peek().map((one) => [one.id, one.seq])) }),
    ready: () => first.peek() !== null,
  },
});
