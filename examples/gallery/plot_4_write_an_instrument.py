"""
Write an instrument
===================

An instrument is one file. This one measures how much the rows of a weight matrix repeat each other, and is run over a
training like those that come with the package.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from stratoscope import LayerInstrument, NotApplicable, Outcome, Record, quantity, watch
from stratoscope.capture.weights import Matrices
from stratoscope.instruments.reading import last_of, passed_if_silent


def redundancy(matrix):
    """Mean absolute cosine between different rows: 0 for orthogonal rows, 1 where all are parallel.

    >>> redundancy(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]))
    0.3333333432674408
    """
    rows = nn.functional.normalize(matrix, dim=1)
    cosines = (rows @ rows.T).abs()
    n = len(rows)
    return float((cosines.sum() - cosines.diagonal().sum()) / (n * (n - 1)))


@dataclass(frozen=True)
class Redundancy(LayerInstrument):
    """How much the rows of each weight matrix repeat each other.

    Attributes:
        limit: mean absolute cosine from which a tip is given.
    """

    key, title, source = "redundancy", "Redundant rows", "doi:10.5555/12345678"
    codes: ClassVar = {"RD001": "the rows of a weight matrix repeat each other"}

    limit: float = 0.5

    @property
    def requires(self):
        """The layer's matrices."""
        return {Matrices()}

    def measure_layer(self, view):
        """The redundancy of each matrix of one layer."""
        found = {name: redundancy(matrix) for name, matrix in view[Matrices()].items() if len(matrix) > 1}
        if not found:
            raise NotApplicable("no matrix has two rows")
        names, values = tuple(found), list(found.values())
        meaning = "mean absolute cosine between rows"
        along = {"dims": "matrix", "coords": {"matrix": names}}
        return {"redundancy": quantity(values, units="1", long_name=meaning, **along)}

    def judge(self, measured):
        """Matrices whose rows repeat each other."""
        yield from passed_if_silent(self, self._judge(measured), self.codes, measured)

    def _judge(self, measured):
        for at in last_of(measured, "redundancy", dim="matrix"):
            if at["redundancy"] >= self.limit:
                says = f"{at.layer}: rows have a mean absolute cosine of {at['redundancy']:.2f}"
                yield self.finding(
                    "RD001", Outcome.TIP, says, do="try fewer units, or a penalty on correlated rows",
                    redundancy=at["redundancy"], limit=self.limit, **at.place,
                )  # fmt: skip


print(f"on noise: {redundancy(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))):.3f}")

# %%
# Hand it over as a value, with its settings. The second network starts with all rows of its first layer nearly alike;
# training takes them apart, and not all the way. Findings speak of the last step.

digits = load_digits()
inputs, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name in ("usual", "alike"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    if name == "alike":
        with torch.no_grad():
            model[0].weight.mul_(0.1).add_(0.2 * torch.rand(1, 64))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    folder = Path(tempfile.mkdtemp()) / name
    with watch(model, optimizer=optimizer, to=folder, instruments=[Redundancy(limit=0.25)], budget=10) as w:
        for step in range(1, 201):
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(step, loss=loss)
    record = Record.open(folder)
    curve = record["redundancy"]["redundancy"].sel(matrix="0.weight")
    axis.plot(curve.step, curve, marker=".", label=name)
    print(f"{name}: {[finding.says for finding in record.findings if finding.wants_action] or 'nothing to say'}")
axis.set(xlabel="step", ylabel=curve.attrs["long_name"], xscale="symlog", ylim=(0, 1))
axis.legend()
plt.show()
