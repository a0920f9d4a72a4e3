"""
Watch a training
================

A small network learns handwritten digits. ``watch`` records every step, and looks at all layers now and then.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from stratoscope import Record, watch

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
train, test = (images[:1400], labels[:1400]), (images[1400:], labels[1400:])

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(),
    nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10),
)  # fmt: skip
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

# %%
# The loop is the usual one; ``w.step`` is all that it says to the watch. ``budget=1`` lets measuring take as long as the
# training itself, since this training is very short; the default is 0.05.

folder = Path(tempfile.mkdtemp()) / "run"
draw = torch.Generator().manual_seed(0)
with watch(model, {"train": train, "test": test}, optimizer=optimizer, to=folder, budget=1) as w:
    for step in range(1, 301):
        batch = torch.randint(1400, (64,), generator=draw)
        loss = nn.functional.cross_entropy(model(train[0][batch]), train[1][batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        w.step(step, loss=loss)

# %%
# What it has to say:

record = Record.open(folder)
for finding in record.findings:
    if finding.wants_action:
        print(f"{finding.code}  {finding.says}. Try: {finding.do}.")
print(sum(finding.outcome == "passed" for finding in record.findings), "checks passed")

# %%
# Every number is an xarray with named axes.

accuracy = record["performance"]["accuracy"]
ratio = record["training"]["update_ratio"]
dead = record["units"]["dead_share"].sel(split="train")

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for split in ("train", "test"):
    left.plot(accuracy.step, accuracy.sel(split=split), marker=".", label=split)
left.set(xlabel="step", ylabel="accuracy", xscale="symlog")
left.legend()
for name in ("0.weight", "3.weight", "6.weight", "8.weight"):
    middle.plot(ratio.step, ratio.sel(param=name), label=name, linewidth=0.8)
middle.set(xlabel="step", ylabel="update over weight", yscale="log")
middle.legend()
for layer in dead.layer.values:
    right.plot(dead.step, dead.sel(layer=layer), marker=".", label=layer)
right.set(xlabel="step", ylabel="share of dead units", xscale="symlog", ylim=(-0.02, 1))
right.legend(title="layer")
plt.show()
