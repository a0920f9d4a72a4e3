"""
Inspect weights without data
============================

A checkpoint says something about itself. Here a network is trained, one of its layers is cut down to few directions and
another is pruned, and the file alone tells both.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

from stratoscope import inspect

digits = load_digits()
inputs, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
for _ in range(150):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs), labels).backward()
    optimizer.step()

# %%
# Keep one direction of the middle layer, and the larger third of the last layer's weights.

with torch.no_grad():
    u, s, v = torch.linalg.svd(model[2].weight)
    model[2].weight.copy_(s[0] * torch.outer(u[:, 0], v[0]))
    last = model[4].weight
    last[last.abs() < last.abs().quantile(0.67)] = 0

path = Path(tempfile.mkdtemp()) / "digits.safetensors"
save_file(model.state_dict(), path)

# %%
# Nothing but the file is needed, and nothing in it is run.

record = inspect(path)
for finding in record.findings:
    if finding.wants_action:
        print(f"{finding.code}  {finding.says}")

weights = record["weights"]
names = list(weights["stable_rank"].matrix.values)
print("\nmatrix     stable rank  numerical rank  zeros")
for name in names:
    row = [float(weights[v].sel(matrix=name, step=0)) for v in ("stable_rank", "numerical_rank", "zero_share")]
    print(f"{name:10} {row[0]:11.1f}  {row[1]:14.0f}  {row[2]:5.0%}")

# %%
# Two ranks beside the full one:

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for offset, name in enumerate(("full_rank", "effective_rank", "stable_rank")):
    values = [float(weights[name].sel(matrix=matrix, step=0)) for matrix in names]
    axis.bar([place + 0.27 * offset for place in range(len(names))], values, width=0.25, label=name.replace("_", " "))
axis.set(xticks=[place + 0.27 for place in range(len(names))], xticklabels=names, ylabel="rank")
axis.legend()
plt.show()
