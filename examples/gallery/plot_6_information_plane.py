"""
The information plane of a small network
========================================

What do its layers tell about the inputs and about the labels, from the first step to the last? And which layers say the
same?
"""

import itertools
import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from stratoscope.instruments.information import Information
from stratoscope.instruments.similarity import Similarity
from stratoscope.observe.plane import information_plane

digits = load_digits()
inputs, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)

torch.manual_seed(0)
widths = (64, 24, 12, 6, 3)
hidden = [layer for one, two in itertools.pairwise(widths) for layer in (nn.Linear(one, two), nn.Tanh())]
model = nn.Sequential(*hidden, nn.Linear(3, 10))

# %%
# Train it, and keep a checkpoint now and then, on a logarithmic scale of steps:

home = Path(tempfile.mkdtemp())
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
draw = torch.Generator().manual_seed(0)
keep = {0, 10, 20, 40, 80, 150, 300, 600, 1200, 2500}
for step in range(2501):
    if step in keep:
        torch.save(model.state_dict(), home / f"step-{step:04}.pt")
    batch = torch.randint(len(labels), (128,), generator=draw)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
    optimizer.step()

# %%
# The plane goes through the checkpoints twice: first for the range that each layer has in the whole run, then to measure
# with this range cut into bins. So a bin means the same at every step.

layers = ["1", "3", "5", "7"]
ask = [Information(), Similarity()]
plane = information_plane(model, (inputs, labels), str(home), instruments=ask, layers=layers)
information = plane["information"]
print(information["information_x"].to_series().unstack("layer").round(2))

# %%
# On the left is what is usually called the plane: the entropy of binned activations, and what the bins tell of the
# labels. The first layers stand at the ceiling, :math:`\log_2 n`: every example has a cell of its own, and the estimator would
# read the same whatever these layers did (crosses). On the right the same layers with a little noise of a stated
# variance, which has an answer: bounds from kernels enclose it.

colours = plt.get_cmap("viridis")
steps = information["information_x"].step.values
shade = {step: colours(place / (len(steps) - 1)) for place, step in enumerate(steps)}
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained", sharey=True)
for marker, layer in zip("osD^", layers, strict=True):
    here = {"layer": layer, "split": "data"}
    x, y, silent = (
        information[name].sel(here) for name in ("information_x", "information_y_debiased", "uninformative")
    )
    left.plot(x, y, color="0.7", linewidth=0.8, zorder=0)
    for step in steps:
        mark = "x" if silent.sel(step=step) == 1 else marker
        left.scatter(x.sel(step=step), y.sel(step=step), color=shade[step], marker=mark, s=28)
    noisy, low, high, about, chance = (
        information[name].sel(here).sel(noise="relative 0.1")
        for name in ("noisy_x", "noisy_x_low", "noisy_x_high", "noisy_y", "noisy_y_null")
    )
    about = about - chance
    right.plot(noisy, about, color="0.7", linewidth=0.8, zorder=0)
    right.hlines(about, low, high, color="0.85", linewidth=3, zorder=0)
    right.scatter(noisy, about, c=[shade[step] for step in steps], marker=marker, s=28, label=f"layer {layer}")
left.axvline(float(information["information_x_ceiling"].max()), color="0.4", linestyle=":", linewidth=1)
left.set(xlabel="H(bin T), bits", ylabel="about the labels beyond chance, bits", title="30 bins")
right.set(xlabel="I(X; T + noise), bits, with its kernel bounds", title="noise of a tenth of the variance")
right.legend(fontsize=8, loc="lower left")
bar = figure.colorbar(plt.cm.ScalarMappable(cmap=colours), ax=(left, right), ticks=[0, 1], shrink=0.8)
bar.ax.set_yticklabels([f"step {steps[0]}", f"step {steps[-1]}"])
plt.show()

# %%
# How much of the way of the last layer is the estimator's? The band is what other numbers of bins read, from 10 to 300;
# saturation is the share of activations where tanh has less than a tenth of its largest slope. Where the layer
# saturates, bins of one width empty out by themselves, and bins of equal counts show how much of it that is.

last = layers[-1]
figure, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
read = {name: information[name].sel(layer=last).squeeze() for name in (
    "information_x", "information_x_low", "information_x_high", "quantile_x", "saturation",
)}  # fmt: skip
places = range(len(steps))
axis.fill_between(places, read["information_x_low"], read["information_x_high"], alpha=0.2, label="10 to 300 bins")
axis.plot(places, read["information_x"], marker="o", label="30 bins of one width")
axis.plot(places, read["quantile_x"], marker="s", label="30 bins of equal counts")
axis.set(xlabel="step", ylabel=f"H(bin T) of layer {last}, bits", xticks=list(places), xticklabels=steps)
share = axis.twinx()
share.plot(places, read["saturation"], color="0.5", linestyle="--", label="saturation (right)")
share.set(ylim=(0, 1.25), yticks=[0, 0.5, 1])
axis.set_ylim(0, 14)
axis.legend(fontsize=8, loc="upper left", ncols=3)
share.legend(fontsize=8, loc="upper right")
plt.show()

# %%
# Which layers say the same? The map of debiased centered kernel alignment before and after the training: 1 is the same up
# to rotation and scale, 0 is what shuffled examples read.

alike = plane["similarity"]["cka"].sel(split="data", layer=layers, other=layers)
figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.4), layout="constrained")
for axis, step in zip(axes, (steps[0], steps[-1]), strict=True):
    table = alike.sel(step=step)
    picture = axis.imshow(table, vmin=0, vmax=1, cmap="magma")
    axis.set(title=f"step {step}", xticks=range(len(layers)), yticks=range(len(layers)))
    axis.set_xticklabels(table.other.values)
    axis.set_yticklabels(table.layer.values)
    for row in range(table.shape[0]):
        for column in range(table.shape[1]):
            value = float(table[row, column])
            colour = "black" if value > 0.6 else "white"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
figure.colorbar(picture, ax=axes, label="debiased CKA")
plt.show()

# %%
# What is to be said about it, in words:

for finding in plane.findings:
    if finding.instrument == "information" and finding.outcome != "passed":
        print(textwrap.fill(f"{finding.outcome} {finding.code} {finding.says}", 92))
