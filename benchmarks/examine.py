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
    plain, ours = [], []
    forward(model, images)
    for _ in range(5):
        start = time.perf_counter()
        forward(model, images)
        plain.append(time.perf_counter() - start)
        start = time.perf_counter()
        record = examine(model, {"train": (images, labels)})
        ours.append(time.perf_counter() - start)
    ratio = statistics.median(b / a for a, b in zip(plain, ours, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    accuracy = float(record["performance"]["accuracy"].values.squeeze())
    print(
        f"{what}: forward {statistics.median(plain):.2f} s, examine {statistics.median(ours):.2f} s, ratio {ratio:.2f}"
    )
    print(f"(bar 2.0); accuracy {accuracy:.2%}; peak memory of the process {peak:.0f} MiB")


if __name__ == "__main__":
    main()
