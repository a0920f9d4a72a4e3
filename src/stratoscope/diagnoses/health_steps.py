"""What `health` derives from what was recorded of every step of a training.

A training has many steps, so what is known of each step is summed up over at most `blocks` stretches of recorded steps,
each labelled with its last step.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.numerics.spikes import spikes
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.record.group import Group
    from stratoscope.record.rows import LayerRow

SOONEST = 20
"""Steps at the beginning that say how large a gradient is to begin with; and steps within which bursts belong together."""

TIMES = 3
"""Large gradients that make a burst."""


@dataclass(frozen=True)
class Wiring:
    """The trained tensors of a network by what the catalogue says of them.

    Attributes:
        depth: place in depth of each param that weight matrices are made of, embeddings left out.
        trainable: of every param that could learn, whether it is meant to: 1, 0, or NaN where nobody says.
        params_of: for each matrix, the params that it is made of.
    """

    depth: Mapping[str, int]
    trainable: Mapping[str, float]
    params_of: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, layers: Sequence[LayerRow]) -> Wiring:
        """Read off a record's layers."""
        depth: dict[str, int] = {}
        trainable: dict[str, float] = {}
        params_of: dict[str, tuple[str, ...]] = {}
        for place, row in enumerate(layers):
            for matrix in row.spec.get("matrices", ()):
                params_of[matrix["name"]] = tuple(matrix["params"])
                if matrix["kind"] != "embedding":
                    depth |= {name: place for name in matrix["params"] if name not in depth}
            for param in row.spec.get("params", ()):
                if param["role"] != "statistic" and param["same_as"] is None and not param["reason"]:
                    trainable[param["name"]] = math.nan if param["trainable"] is None else float(param["trainable"])
        return cls(depth, trainable, params_of)


@dataclass(frozen=True)
class Steps:
    """What was recorded of every step.

    Attributes:
        group: of the instrument `training`.
        wiring: of the network.
        blocks: stretches of steps at most.
        window: steps before each that its loss is compared with.
    """

    group: Group
    wiring: Wiring
    blocks: int
    window: int

    def quantities(self) -> dict[str, Quantity]:
        """What follows from them."""
        recorded = quantity(
            float(self._recorded()), units="1", long_name="steps with a finite loss or gradient", chart="none"
        )
        return {"steps_recorded": recorded, **self._loss(), **self._gradients(), **self._updates(), **self._never()}

    def of_steps(self, name: str) -> xr.DataArray | None:
        """A variable of `training` at those steps at which it was recorded."""
        group = self.group
        if name not in group:
            return None
        return group[name].where(group.measured(name)).dropna("step", how="all")

    def _recorded(self) -> int:
        """Steps at which a loss or a gradient is known and finite."""
        steps = [
            set(a.coords["step"].values.tolist())
            for n in ("loss", "gradient_norm")
            if (a := self.of_steps(n)) is not None
        ]
        return len(set().union(*steps)) if steps else 0

    def _stretches(self, steps: int) -> list[slice]:
        """At most `blocks` stretches of about as many steps."""
        edges = np.unique(np.linspace(0, steps, min(self.blocks, steps) + 1).round().astype(int))
        return [slice(int(one), int(two)) for one, two in pairwise(edges)]

    def _by_stretch(self, array: xr.DataArray, values: np.ndarray, how: Any, long_name: str, **attrs: Any) -> Quantity:
        """Sum a curve, or one of each param, up over each stretch."""
        stretches = self._stretches(len(values))
        steps = array.coords["step"].values
        rows = np.array([_quietly(how, values[stretch]) for stretch in stretches], dtype=float)
        labels: dict[str, Sequence[Any]] = {"step": [int(steps[stretch.stop - 1]) for stretch in stretches]}
        dims = ("step", "param")[: rows.ndim]
        if rows.ndim == 2:
            labels["param"] = [str(name) for name in array.coords["param"].values]
        return quantity(rows, units="1", long_name=long_name, dims=dims, coords=labels, **attrs)

    def _loss(self) -> dict[str, Quantity]:
        loss = self.of_steps("loss")
        if loss is None or loss.sizes["step"] == 0:
            return {}
        values = loss.values.astype(float)
        seen = spikes(values, self.window)
        worst = [_worst(seen.height[s]) + s.start for s in self._stretches(len(values))]
        steps = [int(loss.coords["step"].values[s.stop - 1]) for s in self._stretches(len(values))]

        def at_worst(numbers: np.ndarray, long_name: str, **attrs: Any) -> Quantity:
            return quantity(
                numbers[worst].astype(float),
                units="1",
                long_name=long_name,
                dims="step",
                coords={"step": steps},
                **attrs,
            )

        return {
            "loss_level": self._by_stretch(loss, values, np.nanmedian, "loss of the mini-batch, median over a stretch of steps"),
            "spike_height": at_worst(
                seen.height, "highest loss of the stretch above those before it, in deviations of their noise", headline=1
            ),
            "spike_undone": at_worst(seen.undone, "that rise over all that the loss had fallen", chart="none"),
            "spike_loss": at_worst(values, "the loss there", chart="none"),
            "spike_before": at_worst(seen.expected, "what the losses before it led to", chart="none"),
            "spike_step": at_worst(loss.coords["step"].values, "the step of that loss", chart="none"),
        }  # fmt: skip

    def weights_among(self, array: xr.DataArray) -> tuple[list[int], list[str]]:
        """Places and names of the weights of a variable, in the order of depth."""
        names = [str(name) for name in array.coords["param"].values]
        kept = sorted((self.wiring.depth[name], i) for i, name in enumerate(names) if name in self.wiring.depth)
        return [i for _, i in kept], [names[i] for _, i in kept]

    def _gradients(self) -> dict[str, Quantity]:
        norm = self.of_steps("gradient_norm")
        if norm is None or norm.sizes["step"] == 0:
            return {}
        places, names = self.weights_among(norm)
        if not places:
            return {}
        norm = norm.isel(param=places)
        values = np.where(np.isfinite(norm.values), norm.values, np.nan).astype(float)
        found = {
            "gradient_level": self._by_stretch(
                norm, values, lambda rows: np.nanmedian(rows, 0), "norm of the gradient, median over a stretch of steps", scale="log"
            ),
        }  # fmt: skip
        level = found["gradient_level"]
        found["burst"] = quantity(
            _bursts(values, level.values, self._stretches(len(values))), units="1", dims=level.dims, coords=level.coords,
            long_name="norm of the gradient over what it was before and to begin with, third largest of late", scale="log",
        )  # fmt: skip
        slope, plain = along_depth(values, np.array([self.wiring.depth[name] for name in names]))
        text = "gradient of the first weights over that of the last"
        found["gradient_along_depth"] = self._by_stretch(
            norm.isel(param=0), slope, np.nanmedian, f"{text}, by a line through all, median", scale="log", headline=2
        )
        found["gradient_along_depth_most"] = self._by_stretch(
            norm.isel(param=0), slope, np.nanmax, f"{text}, by a line through all, largest", scale="log"
        )
        found["gradient_first_over_last"] = self._by_stretch(
            norm.isel(param=0), plain, np.nanmedian, f"{text}, median", scale="log"
        )
        return found

    def _updates(self) -> dict[str, Quantity]:
        ratio = self.of_steps("update_ratio")
        if ratio is None or ratio.sizes["step"] == 0:
            return {}
        places, _ = self.weights_among(ratio)
        if not places:
            return {}
        ratio = ratio.isel(param=places)
        values = np.where(np.isfinite(ratio.values), ratio.values, np.nan).astype(float)
        typical = _quietly(lambda rows: np.nanmedian(np.where(rows > 0, rows, np.nan), 1, keepdims=True), values)
        steps = ratio.coords["step"].values
        stretch = (steps[-1] - steps[0] + 1) / len(steps)  # steps that were not recorded moved it, too
        return {
            "update_level": self._by_stretch(
                ratio, values, lambda rows: np.nanmedian(rows, 0), "update over weights, median over a stretch of steps", scale="log"
            ),
            "relative_speed": self._by_stretch(
                ratio, values / typical, lambda rows: np.nanmedian(rows, 0),
                "update over weights, over the median of all weights that move", scale="log",
            ),
            "path": quantity(
                np.nansum(values, 0) * stretch, units="1", dims="param", scale="log",
                coords={"param": [str(name) for name in ratio.coords["param"].values]},
                long_name="length of the way that weights went, over their norm; more than how far they came",
            ),
        }  # fmt: skip

    def _never(self) -> dict[str, Quantity]:
        """Which params were never updated, if it was seen what steps did."""
        group, known = self.group, self.wiring.trainable
        if "gradient_norm" not in group:
            return {}
        norm = group.variable("gradient_norm")
        seen = norm.measured.reshape(len(norm.measured), -1).sum(0)
        updated = {str(name) for name, count in zip(norm.axes[-1].labels(), seen, strict=True) if count}
        if not updated & set(known):  # another module's names, or nothing recorded
            return {}
        names = list(known)
        coords = {"param": names}
        return {
            "never_updated": quantity(
                [float(name not in updated) for name in names], units="1", dims="param", coords=coords, chart="none",
                long_name="whether no optimizer step ever had a gradient for it",
            ),
            "trainable": quantity(
                [known[name] for name in names], units="1", dims="param", coords=coords, chart="none",
                long_name="whether it asks for a gradient",
            ),
        }  # fmt: skip


def _bursts(norms: np.ndarray, level: np.ndarray, stretches: Sequence[slice]) -> np.ndarray:
    """For each stretch and the steps just before it, the third largest norm over what it was before and to begin with."""
    begin = _quietly(lambda rows: np.nanmedian(rows, 0), norms[:SOONEST])
    found = np.full(level.shape, np.nan)
    for place, stretch in enumerate(stretches):
        late = np.nan_to_num(norms[max(stretch.start - SOONEST, 0) : stretch.stop])
        before = level[: max(place - SOONEST * len(level) // len(norms), 1)]
        usual = np.fmax(before[-1], begin) if place else begin
        with np.errstate(divide="ignore", invalid="ignore"):
            if len(late) >= TIMES:
                found[place] = np.partition(late, -TIMES, axis=0)[-TIMES] / usual
    return np.where(np.isfinite(found), found, np.nan)


def along_depth(norms: np.ndarray, depths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first weights' gradient norm over the last ones', at each step: by a straight line through the logarithms, and plain.

    Weights whose gradient is zero or unknown take no part; several at one depth count as their geometric mean. NaN where
    there are fewer than two depths.

    Args:
        norms: steps x weights.
        depths: of each weight.

    >>> [ratio.round(6).tolist() for ratio in along_depth(np.array([[1e-4, 1e-2, 1.0]]), np.array([0, 1, 2]))]
    [[0.0001], [0.0001]]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(np.isfinite(norms) & (norms > 0), np.log(norms), np.nan)
    every = np.unique(depths)
    rows = np.stack([_quietly(lambda part: np.nanmean(part, 1), logs[:, depths == place]) for place in every], axis=1)
    there = np.isfinite(rows)
    count = there.sum(1)
    filled, place = np.where(there, rows, 0.0), np.where(there, np.arange(len(every)), 0)
    first = np.where(there.any(1), there.argmax(1), 0)
    last = np.where(there.any(1), len(every) - 1 - there[:, ::-1].argmax(1), 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        centred = np.where(there, place - (place.sum(1) / count)[:, None], 0.0)
        slope = (centred * filled).sum(1) / (centred**2).sum(1)
        line, ends = (
            np.exp(-slope * (last - first)),
            np.exp(
                np.take_along_axis(rows, first[:, None], 1)[:, 0] - np.take_along_axis(rows, last[:, None], 1)[:, 0]
            ),
        )
    return np.where(count > 1, line, np.nan), np.where(count > 1, ends, np.nan)


def _worst(heights: np.ndarray) -> int:
    return int(np.nanargmax(heights)) if np.isfinite(heights).any() else 0


def _quietly(how: Any, values: np.ndarray) -> Any:
    """Without numpy's warning about rows of which nothing is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return how(values)
