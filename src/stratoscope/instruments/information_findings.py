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
    "information_y_ceiling", "outside", "bin_low", "bin_high", "n",
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
        layers = [at for at in places]
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
        f"Bins tell every example of {who} from every other: H(bin T) reads {first['information_x']:.2f} of at most "
        f"{first['information_x_ceiling']:.2f} bit there, and would whatever the layer did",
        do="read noisy_x at the larger variances, take fewer bins, or probe more examples",
        layer=first.layer if len(layers) == 1 else None, step=first.step, split=first.split,
        layers=", ".join(str(at.layer) for at in layers), count=len(layers), of=of,
        information_x=first["information_x"], ceiling=first["information_x_ceiling"], singletons=first["singletons"],
        limit=made.singletons, within=made.within, n=int(first["n"]),
    )  # fmt: skip


def _has_null(at: At) -> bool:
    """Whether shuffled labels could have read otherwise than they did, and labels differ at all."""
    return at["uninformative"] == 0 and math.isfinite(at["information_y_null_sd"]) and at["information_y_ceiling"] > 0


def _about_labels(made: Information, layers: list[At]) -> Iterator[Finding]:
    """Layers of which labels cannot be told from shuffled ones; a layer of one cell is one of them."""
    if layers and math.isfinite(layers[0]["information_y"]) and math.isnan(layers[0]["information_y_null_sd"]):
        yield made.finding(
            "IN002", Outcome.SKIPPED, "Without shuffled labels nothing says what noise would read", step=layers[0].step,
            split=layers[0].split, do="set permutations to 2 or more", limit=made.noise_z, n=int(layers[0]["n"]),
        )  # fmt: skip
    known = [at for at in layers if _has_null(at)]
    noise = [at for at in known if not at["information_y_z"] >= made.noise_z]
    if not noise:
        return
    best = max(noise, key=lambda at: at["information_y_z"] if math.isfinite(at["information_y_z"]) else -math.inf)
    who = f"{best.layer} tell" if len(noise) == 1 else f"{len(noise)} of {len(known)} layers ({_names(noise)}) tell"
    at_all = f"{best['information_y']:.3f} bit, shuffled labels {best['information_y_null']:.3f}"
    if best["cells"] == 1:
        says = f"The bins of {who} nothing: every example is in one cell"
    else:
        says = f"The bins of {who} no more about the labels than about shuffled ones ({best.layer}: {at_all})"
    yield made.finding(
        "IN002", Outcome.TIP, says, layer=best.layer if len(noise) == 1 else None, step=best.step, split=best.split,
        do="check that labels and examples belong together; probe more examples, or train longer",
        layers=", ".join(str(at.layer) for at in noise), count=len(noise), of=len(known), closest=best.layer,
        information_y=best["information_y"], null=best["information_y_null"], z=best["information_y_z"],
        p_value=best["information_y_p"], limit=made.noise_z, n=int(best["n"]),
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
    front = measured["information_x"]
    splits = [str(s) for s in front.coords["split"].values] if "split" in front.dims else [None]
    for split in splits:
        for layer in map(str, front.coords["layer"].values):
            yield from _at(made, measured, split, layer)


def _at(made: Information, measured: Group, split: str | None, layer: str) -> Iterator[_Movement]:
    bins = _series(measured, "information_x", split, layer)
    silent = _series(measured, "uninformative", split, layer)
    known = np.flatnonzero(np.isfinite(bins))
    if len(known) < STEPS:
        return
    steps = measured["information_x"].coords["step"].values
    span = _series(measured, "bin_high", split, layer) - _series(measured, "bin_low", split, layer)
    last = known[-1]
    for start in dict.fromkeys((known[np.argmax(bins[known])], known[0])):
        change = bins[last] - bins[start]
        if abs(change) < made.fall or silent[start] == 1 == silent[last]:
            continue
        for name, (values, errors) in _others(measured, split, layer).items():
            away = values[last] - values[start]
            error = math.hypot(errors[start], errors[last])
            if away * change < 0 and abs(away) >= made.against and abs(away) > made.noise_z * error:
                widened = span[last] / span[start] if span[start] > 0 else math.nan
                saturation = _series(measured, "saturation", split, layer)[last]
                yield _Movement(
                    layer, split, name, int(steps[start]), int(steps[last]), float(change), float(away), float(widened),
                    float(saturation),
                )  # fmt: skip


def _others(
    measured: Group, split: str | None, layer: str
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The estimators that the bins are compared with, each with its standard errors along steps."""
    counted = _series(measured, "quantile_x", split, layer)
    found = {"bins of equal counts": (counted, np.zeros_like(counted))}
    noisy, errors = (_series(measured, name, split, layer, noise=RELATIVE) for name in ("noisy_x", "noisy_x_error"))
    found["noise of a tenth of the variance"] = noisy, errors
    return found


def _series(measured: Group, name: str, split: str | None, layer: str, noise: str | None = None) -> NDArray[np.float64]:
    """One variable along the steps; NaN where it is not there."""
    steps = measured["information_x"].coords["step"].values
    if name not in measured:
        return np.full(len(steps), np.nan)
    array: xr.DataArray = measured[name]
    wanted = {"split": split, "layer": layer, "noise": noise}
    for dim, label in wanted.items():
        if dim in array.dims:
            if label not in array.coords[dim].values.tolist():
                return np.full(len(steps), np.nan)
            array = array.sel({dim: label})
    return array.reindex(step=steps).values.astype(float)
