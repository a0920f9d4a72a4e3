"""What the instrument `information` says of saved numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.reading import At, last_of, passed_if_silent, some
from stratoscope.network.layers import ROOT

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.instruments.information import Information
    from stratoscope.record.group import Group

STEPS = 3
"""Steps from which a movement is looked for."""
RELATIVE = "relative 0.1"
"""The noise that a movement of bins is compared with, where it was measured."""

_READ = (
    "information_x", "information_x_ceiling", "uninformative", "singletons", "cells", "information_y",
    "information_y_null", "information_y_null_sd", "information_y_debiased", "information_y_z", "information_y_p",
    "information_y_ceiling", "label_z", "outside", "bin_low", "bin_high", "n",
)  # fmt: skip


def findings_of(made: Information, measured: Group) -> Iterator[Finding]:
    """Findings at the last step that was measured, and about the movement until then."""
    return passed_if_silent(made, _judge(made, measured), _checked(measured), measured)


def _checked(measured: Group) -> list[str]:
    """Codes about which the numbers could say something."""
    places = list(last_of(measured, *_READ))
    steps = measured["information_x"].sizes["step"] if "information_x" in measured else 0
    return [
        *(["IN001"] if places else []),
        *(["IN002"] if any(_has_null(at) for at in places) else []),
        *(["IN003"] if steps >= STEPS else []),
        *(["IN004"] if places else []),
    ]


def _judge(made: Information, measured: Group) -> Iterator[Finding]:
    for _, places in groupby(last_of(measured, *_READ), key=lambda at: at.split):
        layers = list(places)
        own = {(at["information_x"], at["bin_low"], at["bin_high"]) for at in layers if at.layer != ROOT}
        layers = [
            at for at in layers if at.layer != ROOT or (at["information_x"], at["bin_low"], at["bin_high"]) not in own
        ]
        yield from _says_nothing(made, [at for at in layers if at["uninformative"] == 1], len(layers))
        yield from _about_labels(made, layers)
        yield from _spilled(made, [at for at in layers if at["outside"] >= made.spill])
    yield from _disagreements(made, measured)


def _says_nothing(made: Information, layers: list[At], of: int) -> Iterator[Finding]:
    if not layers:
        return
    first = layers[0]
    who = (
        str(first.layer)
        if len(layers) == 1
        else f"{len(layers)} of {of} layers ({some([str(a.layer) for a in layers])})"
    )
    yield made.finding(
        "IN001", Outcome.NOT_APPLICABLE,
        f"Bins tell nearly every example from every other in {who}: H(bin T) of {first.layer} reads "
        f"{first['information_x']:.2f} of at most {first['information_x_ceiling']:.2f} bit, and would whatever it did",
        do="read noisy_x at the larger variances, take fewer bins, or probe more examples",
        layer=first.layer if len(layers) == 1 else None, step=first.step, split=first.split,
        layers=", ".join(str(at.layer) for at in layers), count=len(layers), of=of,
        information_x=first["information_x"], ceiling=first["information_x_ceiling"], singletons=first["singletons"],
        limit=made.singletons, within=made.within, n=int(first["n"]),
    )  # fmt: skip


def _has_null(at: At) -> bool:
    """Whether some estimator could have read otherwise under shuffled labels, or every example is in one cell."""
    return at["information_y_ceiling"] > 0 and (math.isfinite(at["label_z"]) or at["cells"] == 1)


def _about_labels(made: Information, layers: list[At]) -> Iterator[Finding]:
    """Layers of which labels cannot be told from shuffled ones, if the last one that can be judged is among them.

    That early layers of a network tell nothing by distances alone is no news.
    """
    if layers and math.isfinite(layers[0]["information_y"]) and math.isnan(layers[0]["information_y_null_sd"]):
        yield made.finding(
            "IN002", Outcome.SKIPPED, "Without shuffled labels nothing says what noise would read", step=layers[0].step,
            split=layers[0].split, do="set permutations to 2 or more", limit=made.noise_z, n=int(layers[0]["n"]),
        )  # fmt: skip
        return
    known = [at for at in layers if _has_null(at)]
    noise = [at for at in known if not at["label_z"] >= made.noise_z]
    if not noise or noise[-1] is not known[-1]:
        return
    last = noise[-1]
    who = f"{last.layer} tells" if len(noise) == 1 else f"{len(noise)} of {len(known)} layers ({_names(noise)}) tell"
    if last["cells"] == 1:
        says = f"{last.layer} tells nothing about the labels: every example is in one cell"
    else:
        says = (
            f"{who} no more about the labels than about shuffled ones: bins of {last.layer} read "
            f"{last['information_y']:.3f} bit, with shuffled labels {last['information_y_null']:.3f}, and the estimator "
            f"that sees most is {last['label_z']:.1f} deviations from them"
        )
    yield made.finding(
        "IN002", Outcome.TIP, says, layer=last.layer if len(noise) == 1 else None, step=last.step, split=last.split,
        do="check that labels and examples belong together; probe more examples, or train longer",
        layers=", ".join(str(at.layer) for at in noise), count=len(noise), of=len(known), last=last.layer,
        information_y=last["information_y"], null=last["information_y_null"], z=last["label_z"], limit=made.noise_z,
        n=int(last["n"]),
    )  # fmt: skip


def _spilled(made: Information, layers: list[At]) -> Iterator[Finding]:
    if not layers:
        return
    worst = max(layers, key=lambda at: at["outside"])
    yield made.finding(
        "IN004", Outcome.TIP,
        f"{worst['outside']:.0%} of the numbers of {worst.layer} lie outside the bins, {worst['bin_low']:.3g} to "
        f"{worst['bin_high']:.3g}, and are counted in the outermost ones",
        do="take bins over the layer's own range: bin_range='step', or the range of a whole run",
        outside=worst["outside"], limit=made.spill, low=worst["bin_low"], high=worst["bin_high"],
        layers=", ".join(str(at.layer) for at in layers), count=len(layers), **worst.place,
    )  # fmt: skip


def _names(layers: list[At]) -> str:
    return some([str(at.layer) for at in layers])


# -- movement ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Movement:
    """How much bins and another estimator moved between two steps, at one layer."""

    layer: str
    split: str | None
    other: str
    first: int
    last: int
    bins: float
    others: float
    widened: float
    saturation: float


def _disagreements(made: Information, measured: Group) -> Iterator[Finding]:
    """The largest movement of the bins that another estimator saw go the other way; one finding for each split."""
    found = sorted(_movements(made, measured), key=lambda m: (m.split or "", -abs(m.bins)))
    for split, group in groupby(found, key=lambda m: m.split):
        moved = list(group)
        one, layers = moved[0], list(dict.fromkeys(m.layer for m in moved))
        way = ("fell", "rose") if one.bins < 0 else ("rose", "fell")
        more = f", and {len(layers) - 1} more layers disagree" if len(layers) > 1 else ""
        yield made.finding(
            "IN003", Outcome.TIP,
            f"From step {one.first} to {one.last}, H(bin T) of {one.layer} {way[0]} by {abs(one.bins):.2f} bit with bins of "
            f"one width and {way[1]} by {abs(one.others):.2f} bit with {one.other}{more}",
            do="speak of neither compression nor its absence here; look at the bins' range and at saturation",
            layer=one.layer, step=one.last, split=split, other=one.other, since=one.first, change=one.bins,
            other_change=one.others, limit=made.fall, against=made.against, range_ratio=one.widened,
            saturation=one.saturation, layers=", ".join(layers), count=len(layers),
        )  # fmt: skip


def _movements(made: Information, measured: Group) -> Iterator[_Movement]:
    if "information_x" not in measured or measured["information_x"].sizes["step"] < STEPS:
        return
    found = _Along(measured)
    bins, silent = found["information_x"], found["uninformative"]
    for split, layer in zip(*np.nonzero(np.isfinite(bins).sum(-1) >= STEPS), strict=True):
        known = np.flatnonzero(np.isfinite(bins[split, layer]))
        last = known[-1]
        for first in dict.fromkeys((known[np.argmax(bins[split, layer, known])], known[0])):
            change = bins[split, layer, last] - bins[split, layer, first]
            always = silent[split, layer, first] == 1 == silent[split, layer, last]
            if abs(change) >= made.fall and not always:
                yield from _against(made, found, (split, layer), (int(first), int(last)), float(change))


def _against(
    made: Information, found: _Along, place: tuple[int, int], ends: tuple[int, int], change: float
) -> Iterator[_Movement]:
    """The estimators that moved the other way between two steps."""
    first, last = ends
    for name, values, errors in found.others():
        away = float(values[place][last] - values[place][first])
        error = 0.0 if errors is None else math.hypot(errors[place][first], errors[place][last])
        if away * change < 0 and abs(away) >= made.against and abs(away) > made.noise_z * error:
            spans = found["bin_high"][place] - found["bin_low"][place]
            yield _Movement(
                found.layers[place[1]], found.splits[place[0]], name, found.steps[first], found.steps[last], change, away,
                float(spans[last] / spans[first]) if spans[first] > 0 else math.nan,
                float(found["saturation"][place][last]),
            )  # fmt: skip


class _Along:
    """Variables as splits x layers x steps, each read once; NaN where there is nothing."""

    def __init__(self, measured: Group) -> None:
        self._measured, self._read = measured, dict[str, NDArray[np.float64]]()
        front = measured["information_x"]
        self.steps = [int(step) for step in front.coords["step"].values]
        self.layers = [str(layer) for layer in front.coords["layer"].values]
        there = "split" in front.dims
        self.splits: list[str | None] = [str(split) for split in front.coords["split"].values] if there else [None]

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name not in self._read:
            self._read[name] = self._of(name)
        return self._read[name]

    def others(self) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64] | None]]:
        """The estimators that the bins are compared with, each with its standard errors."""
        yield "bins of equal counts", self["quantile_x"], None
        yield "noise of a tenth of the variance", self["noisy_x"], self["noisy_x_error"]

    def _of(self, name: str) -> NDArray[np.float64]:
        shape = len(self.splits), len(self.layers), len(self.steps)
        array: xr.DataArray | None = self._measured.get(name)
        if array is not None and "noise" in array.dims:
            array = array.sel(noise=RELATIVE) if RELATIVE in array.coords["noise"].values.tolist() else None
        if array is None:
            return np.full(shape, math.nan)
        labels = {"split": self.splits, "layer": self.layers, "step": self.steps}
        array = array.reindex({dim: along for dim, along in labels.items() if dim in array.dims})
        array = array.transpose(*(dim for dim in labels if dim in array.dims))
        return np.asarray(array.values, dtype=np.float64).reshape(shape)
