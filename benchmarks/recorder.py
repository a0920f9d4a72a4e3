"""What recording every step costs: a watched training step against a plain one."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from pairs import alternate
from torch import Tensor, nn

from stratoscope import watch


def network() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def main() -> None:
    torch.set_num_threads(1)
    x, y = torch.randn(128, 784), torch.randint(0, 10, (128,))
    plain_model, plain_optimizer = network()
    model, optimizer = network()
    # no budget, so that every step is recorded; no data, so that nothing but the recorder runs
    options = {"budget": math.inf, "only": ["training"], "every": 10**9}
    with (
        tempfile.TemporaryDirectory() as folder,
        watch(model, optimizer=optimizer, to=Path(folder) / "run", **options) as w,
    ):
        plain, ours, ratio = alternate(
            # the plain loop reads its loss too, as every training loop does for its own log
            lambda: train(plain_model, plain_optimizer, x, y).item(),
            lambda: w.step(loss=train(model, optimizer, x, y)),
        )
    print(f"plain step {plain * 1e3:.2f} ms, recorded step {ours * 1e3:.2f} ms, ratio {ratio:.3f} (bar 1.2)")


if __name__ == "__main__":
    main()
