"""What keeping a step costs: 200 layers x 30 variables appended and committed, and read back."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from stratoscope import Record
from stratoscope.record.quantity import quantity
from stratoscope.record.writer import Entry, RecordWriter

LAYERS, VARIABLES, STEPS = 200, 30, 500


def main() -> None:
    rng = np.random.default_rng(0)
    names = [f"layer{i}" for i in range(LAYERS)]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        times = []
        with RecordWriter.create(folder, {}) as writer:
            for step in range(STEPS):
                entries = [
                    Entry(
                        "bench",
                        f"v{k}",
                        quantity(
                            rng.normal(size=LAYERS), units="1", long_name="v", dims="layer", coords={"layer": names}
                        ),
                    )
                    for k in range(VARIABLES)
                ]
                start = time.perf_counter()
                writer.commit(step, entries)
                times.append(time.perf_counter() - start)
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        start = time.perf_counter()
        values = Record.open(folder)["bench"]["v3"].values
        read = time.perf_counter() - start
    payload = STEPS * LAYERS * VARIABLES * 8
    print(f"commit of {LAYERS} x {VARIABLES} numbers: median {statistics.median(times) * 1e3:.2f} ms")
    print(
        f"{size / 2**20:.1f} MiB on disk for {payload / 2**20:.1f} MiB of numbers; {values.shape} read in {read * 1e3:.0f} ms"
    )


if __name__ == "__main__":
    main()
