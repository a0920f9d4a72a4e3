"""
Examine a trained network
=========================

How far apart are the classes in each layer? One forward pass over each split answers for all layers.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from stratoscope import examine

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
train, test = (images[:1400], labels[:1400]), (images[1400:], labels[1400:])


def network(seed):
    """A small convolutional network."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


model = network(0)
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
draw = torch.Generator().manual_seed(0)
for _ in range(250):
    batch = torch.randint(1400, (64,), generator=draw)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(train[0][batch]), train[1][batch]).backward()
    optimizer.step()

# %%
# The trained network and an untrained one, on the same examples:

splits = {"train": train, "test": test}
trained, untrained = examine(model, splits), examine(network(1), splits)
for name, record in (("trained", trained), ("untrained", untrained)):
    accuracy = record["performance"]["accuracy"].isel(step=-1)
    print(f"{name:10} accuracy: train {accuracy.sel(split='train'):.3f}, test {accuracy.sel(split='test'):.3f}")

# %%
# The generalized discrimination value says how far apart the classes lie. Its fraction is 1 where every class is one
# point, and about 0 where labels say nothing about distances.

figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
for name, record in (("trained", trained), ("untrained", untrained)):
    fraction = record["separation"]["gdv_fraction"].isel(step=-1).sel(split="test")
    kinds = {layer.name: layer.kind for layer in record.layers}
    ticks = [f"{layer}\n{kinds.get(layer, '')}" for layer in fraction.layer.values]
    axis.plot(ticks, fraction.values, marker="o", label=name)
axis.set(ylabel="share of the best separation", xlabel="layer", ylim=(-0.05, 1))
axis.legend()
plt.show()

# %%
# What every layer's rectifiers do: dead, always on, or working.

units = trained["units"]
for layer in units["dead_share"].layer.values:
    here = {"layer": layer, "split": "test"}
    dead, on = (float(units[name].sel(here).isel(step=-1)) for name in ("dead_share", "on_share"))
    print(f"layer {layer}: {dead:5.1%} dead, {on:5.1%} always on")
