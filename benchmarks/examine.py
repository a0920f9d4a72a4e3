"""What looking at everything costs: `examine` against the plain forward pass over the same images."""

from __future__ import annotations

import importlib.util
import resource
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from stratoscope import examine

HERE = Path(__file__).resolve().parent

ONLY = ("weights", "units", "separation", "performance")
"""What the bar speaks of. Spectra are fitted matrix by matrix, whatever the data; they have a benchmark of their own."""


def subject() -> tuple[nn.Module, Tensor, Tensor, str]:
    """ResNet-20 with its trained weights and 2,000 real images, or the same shapes with noise."""
    spec = importlib.util.spec_from_file_location("cifar10_resnet", HERE.parent / "examples/networks/cifar10_resnet.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        images, labels = module.data()["train"]
        return module.build(), images[:2000], labels[:2000], "trained weights, real images"
    except (FileNotFoundError, OSError) as error:
        print(f"({error}; random weights and images of the same shapes instead)")
        return module.build(weights=False), torch.randn(2000, 3, 32, 32), torch.randint(0, 10, (2000,)), "noise"


@torch.no_grad()
def forward(model: nn.Module, images: Tensor) -> None:
    for batch in images.split(128):
        model(batch)


def main() -> None:
    torch.set_num_threads(1)
    model, images, labels, what = subject()
    model.eval()
    records = []
    clocks = {"time": time.perf_counter, "CPU time": time.process_time}
    shown: dict[str, list[tuple[float, float]]] = {name: [] for name in clocks}
    forward(model, images)
    examine(model, {"train": (images, labels)}, only=ONLY)
    for _ in range(7):
        starts = {name: clock() for name, clock in clocks.items()}
        forward(model, images)
        middles = {name: clock() for name, clock in clocks.items()}
        records.append(examine(model, {"train": (images, labels)}, only=ONLY))
        for name, clock in clocks.items():
            shown[name].append((middles[name] - starts[name], clock() - middles[name]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    accuracy = float(records[-1]["performance"]["accuracy"].values.squeeze())
    print(f"{what}; {', '.join(ONLY)}")
    for name, pairs in shown.items():
        ratios = sorted(ours / plain for plain, ours in pairs)
        plain, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{name}: forward {plain:.2f} s, examine {ours:.2f} s, ratio {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}; bar 2.0)"
        )
    print(f"accuracy {accuracy:.2%}; peak memory of the process {peak:.0f} MiB")


if __name__ == "__main__":
    main()
