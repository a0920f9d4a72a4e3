"""How well layers tell the classes apart, along a path: what is left to gain after each, and where it is enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.diagnoses.curves import NORMAL_95, Curve, table
from stratoscope.diagnoses.path import Path
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.record.group import Group

TRAIN = "train"

MEASURES = ("probe", "separation")
"""Measures with an interval; the one that decides first."""

NAMES = {"probe": "accuracy of a linear probe", "separation": "share of the possible separation"}

_PLACES = {
    "best": "layer before the output where the {} is largest",
    "enough": "earliest layer after which the {} grows by less than the margin",
    "lost": "layer from which on the {} is that of noise",
}
_DECIDED: dict[str, dict[str, Any]] = {
    "enough": {"what": "earliest layer that is enough to tell the classes apart", "layer": True, "shown": True},
    "beyond": {"what": "layers with weights between that layer and the output layer", "shown": True},
    "params_beyond": {"what": "share of all trainable numbers in these layers", "shown": True},
    "informative": {"what": "whether that layer tells more of the classes than noise would"},
    "skill": {"what": "the network's accuracy above the majority's (lower end), over the best that is readable"},
    "decided_by": {"what": "the measure that decided", "flag_values": [0, 1], "flag_meanings": list(MEASURES)},
}

_END = {"": "", "_low": ", lower end of the 95 % interval", "_high": ", upper end of the 95 % interval"}


@dataclass(frozen=True)
class Profile:
    """What several instruments measured, laid along one path.

    Attributes:
        groups: by the instrument's key.
        path: the layers.
        margin: less than this counts as nothing.
    """

    groups: Mapping[str, Group]
    path: Path
    margin: float
    _tables: dict[tuple[str, str], np.ndarray] = field(default_factory=dict, repr=False)

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Steps at which any of the measures was taken."""
        taken = (self.groups[key].steps for key in (*MEASURES, "collapse") if key in self.groups)
        return tuple(sorted({step for steps in taken for step in steps}))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Splits on which any was taken, training data first."""
        arrays = [self.groups[key][next(iter(self.groups[key]))] for key in self.groups]
        names = dict.fromkeys(str(s) for a in arrays if "split" in a.dims for s in a.coords["split"].values)
        return tuple(sorted(names, key=lambda name: name != TRAIN)) or ("",)

    def table(self, key: str, name: str) -> np.ndarray:
        """One variable of one instrument: steps, splits, layers of the path."""
        if (key, name) not in self._tables:
            shape = len(self.steps), len(self.splits), len(self.path.names)
            there = key in self.groups
            self._tables[key, name] = (
                table(self.groups[key], name, self.steps, self.splits, self.path.names)
                if there
                else np.full(shape, np.nan)
            )
        return self._tables[key, name]

    @cached_property
    def curves(self) -> dict[str, dict[tuple[int, int], Curve]]:
        """For each measure, its curve along the path by the positions of step and split."""
        return {"separation": self._curves(*self._separation()), "probe": self._curves(*self._probe())}

    def _curves(self, *tables: np.ndarray) -> dict[tuple[int, int], Curve]:
        value, low, high, noise = tables
        places = np.ndindex(len(self.steps), len(self.splits))
        return {
            at: Curve(value[at], low[at], high[at], noise[at] == 0) for at in places if not np.isnan(value[at]).all()
        }

    def _separation(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        value, gdv = self.table("separation", "gdv_fraction"), self.table("separation", "gdv")
        # the same output for every example: no distances at all
        value = np.where(np.isnan(value) & ~np.isnan(gdv), 0.0, value)
        floor = np.abs(self.table("separation", "gdv_floor"))
        error = self.table("separation", "standard_error") / np.where(floor > 0, floor, np.inf)
        half = NORMAL_95 * np.where(np.isnan(error), 0.0, error)
        return value, value - half, value + half, self.table("separation", "uninformative")

    def _probe(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        names = ("accuracy", "accuracy_low", "accuracy_high", "uninformative")
        value, low, high, noise = (self.table("probe", name) for name in names)
        return value, low, high, noise

    def quantities(self) -> dict[str, Quantity]:
        """Everything that follows, what matters most first."""
        profiles = {measure: self._profile(measure) for measure in MEASURES if self.curves[measure]}
        found = self._decided(profiles) if profiles else {}
        for measure, (left, places) in profiles.items():
            found |= self._left(measure, left) | self._places(measure, places) | self._gaps(measure)
        return found | self._collapse()

    def _profile(self, measure: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What is left after each layer (difference and ends), and the places that matter."""
        shape, before = (len(self.steps), len(self.splits)), self.path.before
        left = np.full((3, *shape, before - 1), np.nan)
        places = {name: np.full(shape, np.nan) for name in _PLACES}
        for at, whole in self.curves[measure].items():
            curve = whole.until(before)
            if curve.measured.any():
                left[(slice(None), *at)] = curve.left()[:, :-1]  # after the last one nothing comes
                places["best"][at], places["enough"][at] = curve.best(), self._enough(curve)
                lost = whole.lost(curve.best(), self.margin)
                # what an untrained output layer does not make use of is not lost in the layers before it
                places["lost"][at] = lost if lost < before else np.nan
        return left, places

    def _enough(self, curve: Curve) -> int:
        """The earliest place that is enough, and of several with the same layers after them the last.

        Between two layers with weights it is all the same for the cut, and what a norm or an activation gives is what
        the next layer would have been given.
        """
        run = curve.enough(self.margin)
        return next(place for place in run if self.path.weights[place] == self.path.weights[run[-1]])

    def _decided(self, profiles: Mapping[str, tuple[np.ndarray, dict[str, np.ndarray]]]) -> dict[str, Quantity]:
        """The answer: from the first measure that there is at a step and split."""
        shape = (len(self.steps), len(self.splits))
        found = {name: np.full(shape, np.nan) for name in _DECIDED}
        for at in np.ndindex(shape):
            for number, measure in reversed(list(enumerate(MEASURES))):
                place = profiles[measure][1]["enough"][at] if measure in profiles else np.nan
                if np.isnan(place):
                    continue
                row, curve = int(place), self.curves[measure][at]
                answer = (
                    row, self.path.weights[row], self.path.params[row] / max(self.path.total, 1),
                    float(curve.informative[row]), self._skill(measure, at), number,
                )  # fmt: skip
                for name, value in zip(_DECIDED, answer, strict=True):
                    found[name][at] = value
        return {name: self._scalar(found[name], **about) for name, about in _DECIDED.items()}

    def _skill(self, measure: str, at: tuple[int, int]) -> float:
        """The network's accuracy above the majority's, over the best that is readable before the output."""
        accuracy, majority = (self.table("performance", name)[at][0] for name in ("accuracy_low", "majority"))
        curve = self.curves[measure][at].until(self.path.before)
        most = float(np.nanmax(curve.value)) if measure == "probe" else 1.0
        return float((accuracy - majority) / max(most - majority, 1e-9))

    def _left(self, measure: str, left: np.ndarray) -> dict[str, Quantity]:
        what = f"most that a later layer before the output adds to the {NAMES[measure]}"
        return {f"{measure}_left{end}": self._layered(left[n], what + _END[end]) for n, end in enumerate(_END)}

    def _places(self, measure: str, places: Mapping[str, np.ndarray]) -> dict[str, Quantity]:
        found = {}
        for name, where in places.items():
            value = np.full(where.shape, np.nan)
            for at in zip(*np.nonzero(~np.isnan(where)), strict=True):
                value[at] = self.curves[measure][at].value[int(where[at])]
            words = _PLACES[name].format(NAMES[measure])
            found[f"{measure}_{name}"] = self._scalar(where, words, True)
            found[f"{measure}_at_{name}"] = self._scalar(value, f"{NAMES[measure]} at the {words}")
        return found

    def _gaps(self, measure: str) -> dict[str, Quantity]:
        """Training data less each held-out split."""
        curves, held = self.curves[measure], [place for place, name in enumerate(self.splits) if name != TRAIN]
        gap = np.full((3, len(self.steps), len(self.splits), self.path.before), np.nan)
        for step, place in ((step, place) for step in range(len(self.steps)) for place in held):
            pair = curves.get((step, 0)), curves.get((step, place))
            if self.splits[0] == TRAIN and pair[0] is not None and pair[1] is not None:
                gap[:, step, place] = pair[0].less(pair[1])[:, : self.path.before]
        if np.isnan(gap).all():
            return {}
        what = f"{NAMES[measure]} on {TRAIN} less that on this split"
        return {f"{measure}_gap{end}": self._layered(gap[n], what + _END[end]) for n, end in enumerate(_END)}

    def _collapse(self) -> dict[str, Quantity]:
        value = self.table("collapse", "nc1")[..., : self.path.before]
        best = np.full(value.shape[:2], np.nan)
        for at in np.ndindex(best.shape):
            if not np.isnan(value[at]).all():
                best[at] = int(np.nanargmin(value[at]))
        if np.isnan(best).all():
            return {}
        least = "layer before the output where the scatter within the classes (NC1) is least"
        return {"collapse_best": self._scalar(best, least, True)}

    def _layered(self, values: np.ndarray, what: str) -> Quantity:
        layers = self.path.names[: values.shape[-1]]
        coords = {"step": self.steps, "split": self.splits, "layer": layers}
        return quantity(values, units="1", long_name=what, dims=("step", "split", "layer"), coords=coords)

    def _scalar(self, values: np.ndarray, what: str, layer: bool = False, shown: bool = False, **more: Any) -> Quantity:
        names: dict[str, Any] = {
            "flag_values": list(range(len(self.path.names))),
            "flag_meanings": list(self.path.names),
        }
        attrs = more | (names if layer else {}) | ({} if shown else {"chart": "none"})
        coords = {"step": self.steps, "split": self.splits}
        return quantity(values, units="1", long_name=what, dims=("step", "split"), coords=coords, **attrs)
