"""
Compare two runs
================

Two learning rates, two records, and where they differ most.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from stratoscope import Record, watch
from stratoscope.record.combine import compare, concat

digits = load_digits()
inputs, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
splits = {"train": (inputs[:1400], labels[:1400]), "test": (inputs[1400:], labels[1400:])}
home = Path(tempfile.mkdtemp())


def train(name, rate):
    """Train the same network on the same batches with another learning rate."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    draw = torch.Generator().manual_seed(0)
    with watch(model, splits, optimizer=optimizer, to=home / name, every=40, budget=10) as w:
        for step in range(1, 201):
            batch = torch.randint(1400, (64,), generator=draw)
            loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(step, loss=loss)
    return Record.open(home / name)


slow, fast = train("slow", 0.02), train("fast", 0.5)

# %%
# The run is one more dimension.

runs = concat([slow, fast])
loss = runs["training"]["loss"]
accuracy = runs["performance"]["accuracy"].sel(split="test")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for run in loss.run.values:
    left.plot(loss.step, loss.sel(run=run), label=run, linewidth=0.9)
    right.plot(accuracy.step, accuracy.sel(run=run), label=run, marker="o")
left.set(xlabel="step", ylabel="loss of the mini-batch", yscale="log")
right.set(xlabel="step", ylabel="accuracy on test")
left.legend()
plt.show()

# %%
# Where they differ at the last step that both measured:

for difference in compare(slow, fast):
    if difference.key in ("performance", "separation", "weights") and difference.variable in (
        "accuracy", "gdv_fraction", "stable_rank", "param_norm",
    ):  # fmt: skip
        where = ", ".join(f"{dim}={label}" for dim, label in difference.where.items())
        print(f"{difference.variable:14} {where:28} slow {difference.before:8.3f}   fast {difference.after:8.3f}")
