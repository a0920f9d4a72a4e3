"""The page of `view` on a lot of data: how long until it is there, and how fast it scrubs.

Not against a peer: these are bars of our own. 250 runs in one folder; one run of 1,000 metrics; one run of 1,000 steps and
200 layers. Chromium draws with SwiftShader, on the CPU that serves the page as well, so a real screen is faster. Prints the
time until the page can be used, the steps a second that it scrubs, and the longest time that it did not answer.

    python benchmarks/view.py
"""

from __future__ import annotations

import gzip
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from stratoscope.network.layers import Catalogue, Layer, Param
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.writer import RecordWriter
from stratoscope.view.bundle import bundle
from stratoscope.view.runs import Runs
from stratoscope.view.serving import Serving

RUNS, METRICS, STEPS, LAYERS = 250, 1000, 1000, 200
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def write_run(folder: Path, name: str, steps: int, layers: int, metrics: int, rng: np.random.Generator) -> None:
    """A run of random walks, one for each layer, and of so many curves beside them."""
    names = [f"layer{place:03d}" for place in range(layers)]
    params = {name: (Param(f"{name}.weight", name, (4, 4), "weight"),) for name in names}
    catalogue = {name: Layer(name, "linear", depth, params[name], (), None, "") for depth, name in enumerate(names)}
    walks = np.cumsum(rng.normal(size=(steps, layers)), axis=0)
    with RecordWriter.create(folder, {"name": name, "config": {"group": int(name[-1])}}) as writer:
        writer.write_layers(Catalogue(catalogue))
        for step in range(steps):
            curves = [np.sin(0.1 * step + place) for place in range(metrics)]
            entries = [
                Entry(f"group{m // 20}", f"metric{m}", quantity(float(value), units="1", long_name=f"metric {m}"))
                for m, value in enumerate(curves)
            ]
            if layers:
                share = quantity(walks[step], units="1", long_name="share", dims="layer", coords={"layer": names})
                entries.append(Entry("probe", "share", share))
            writer.commit(step, entries)


def main() -> None:
    """Print the figures."""
    from playwright.sync_api import sync_playwright

    page = bundle(print)
    size = sum(len(gzip.compress((page / name).read_bytes(), 9)) for name in ("view.js", "view.css", "index.html"))
    print(f"shell and charts: {size / 1000:.1f} kB gzip")
    rng = np.random.default_rng(0)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        for number in range(RUNS):
            write_run(home / "many" / f"run{number:03d}", f"run {number:03d}", 3, 2, 2, rng)
        write_run(home / "metrics", "metrics 0", 50, 0, METRICS, rng)
        write_run(home / "deep", "deep 0", STEPS, LAYERS, 0, rng)
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for name in ("many", "metrics", "deep"):
            with Serving(Runs([home / name]), page) as serving:
                times = [opened(browser, serving.address)[0] for _ in range(5)]
                print(f"{name}: usable after {statistics.median(times):.2f} s (median of 5; worst {max(times):.2f} s)")
                _, tab = opened(browser, serving.address)
                if name == "deep":
                    print(f"deep: scrubs {scrubbed(tab):.0f} steps a second")
                print(f"{name}: longest without an answer {blocked(tab):.0f} ms, while it is scrolled through")
                tab.close()
        browser.close()


def opened(browser, address):
    tab = browser.new_page(viewport={"width": 1400, "height": 1000})
    begin = time.perf_counter()
    tab.goto(address)
    while not tab.evaluate("() => !!(window.__view && window.__view.ready())"):
        time.sleep(0.01)
    taken = time.perf_counter() - begin
    if len(browser.contexts) > 6:
        browser.contexts[0].close()
    return taken, tab


def scrubbed(tab) -> float:
    """Steps a second, each drawn before the next one."""
    tab.wait_for_timeout(3000)
    return tab.evaluate(
        """async () => {
          const slider = document.querySelector('.steps input');
          const frame = () => new Promise(requestAnimationFrame);
          for (let i = 0; i < 5; i++) { slider.value = i; slider.dispatchEvent(new Event('input', {bubbles: true})); await frame(); }
          await new Promise(done => setTimeout(done, 1500));
          const begin = performance.now();
          const count = 120;
          for (let i = 0; i < count; i++) {
            slider.value = (i * 7) % 1000;
            slider.dispatchEvent(new Event('input', {bubbles: true}));
            await frame();
          }
          return 1000 * count / (performance.now() - begin);
        }"""
    )


def blocked(tab) -> float:
    """The longest task, in milliseconds, while the page is scrolled to its end."""
    return tab.evaluate(
        """async () => {
          let longest = 0, last = performance.now(), on = true;
          const beat = () => { const now = performance.now(); longest = Math.max(longest, now - last); last = now; if (on) setTimeout(beat, 0); };
          setTimeout(beat, 0);
          for (let y = 0; y < document.body.scrollHeight && y < 20000; y += 800) { scrollTo(0, y); await new Promise(done => setTimeout(done, 60)); }
          on = false;
          return longest;
        }"""
    )


if __name__ == "__main__":
    main()
