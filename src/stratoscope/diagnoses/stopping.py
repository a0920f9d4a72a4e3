"""A training as it was known at each of its steps: the best step so far by several measures, and what lies between."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from stratoscope.diagnoses.curves import table
from stratoscope.diagnoses.path import Path
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.network.subject import TRANSFER
from stratoscope.numerics.paired import wilson

if TYPE_CHECKING:
    from stratoscope.record.group import Group
    from stratoscope.record.rows import LayerRow

TRAIN = "train"

_ALONG = ("norm", "activation", "dropout")
"""Kinds of layers that leave a map a map."""


def running_best(values: Float[np.ndarray, " steps"], least: bool = False) -> Int[np.ndarray, " steps"]:
    """The place of the best value until each place, the first of equals; -1 where nothing finite has come yet.

    It never moves back: one more value either is better than all before it, which moves it there, or is not.

    Args:
        values: NaN and infinity where nothing was measured.
        least: whether the least is the best.

    >>> running_best(np.array([np.nan, 3.0, 1.0, 2.0, 4.0])).tolist()
    [-1, 1, 1, 1, 4]
    """
    known = np.isfinite(values)
    score = np.where(known, -values if least else values, -np.inf)
    before = np.concatenate([[-np.inf], np.maximum.accumulate(score)[:-1]]) if len(score) else score
    better = known & (score > before)
    found: np.ndarray = np.maximum.accumulate(np.where(better, np.arange(len(score)), -1)) if len(score) else better
    return found


def between(steps: Sequence[int], first: int, last: int) -> int:
    """The place of the measured step that is nearest to the geometric mean of two of them, the earlier of two as near.

    Steps count from 1 here, so that step 0 has a logarithm: the mean is of `1 + step`.

    Args:
        steps: all that were measured, ascending.
        first: the place of one step.
        last: that of the other.

    >>> between([0, 1, 3, 8, 15, 30], 1, 4)  # the mean of 2 and 16 is 5.7; 4 is nearer to it than 9
    2
    """
    low, high = min(first, last), max(first, last)
    logs = np.log1p(np.asarray(steps[low : high + 1], dtype=np.float64))
    # rounding must not make a tie of one step and not of the next
    distance = np.round(np.abs(logs - 0.5 * (logs[0] + logs[-1])), 12)
    return low + int(np.argmin(distance))


def judged_layers(layers: Sequence[LayerRow]) -> list[str]:
    """Layers whose reconstruction may be judged, the best choice first.

    The first is the last place before the output layer that still gives a map: what the last convolution, or block with
    convolutions, gives, with the norms and activations that directly follow. In networks without convolutions it is the
    last place before the output layer. The others come in the order back to the input.

    Args:
        layers: of a record.
    """
    path, rows = Path.of(layers), {row.name: row for row in layers}
    maps = [place for place in range(path.before) if _convolves(path.names[place], layers, rows)]
    last = maps[-1] if maps else path.before - 1
    while maps and last + 1 < path.before and rows[path.names[last + 1]].kind in _ALONG:
        last += 1
    return list(path.names[last::-1]) if last >= 0 else []


def _convolves(name: str, layers: Sequence[LayerRow], rows: Mapping[str, LayerRow]) -> bool:
    if rows[name].kind != "block":
        return rows[name].kind == "conv"
    return any(row.kind == "conv" and row.name.startswith(f"{name}.") for row in layers)


@dataclass(frozen=True)
class Course:
    """What was measured along a training, for one layer; NaN where it was not.

    Attributes:
        layer: whose output the inputs are rebuilt from.
        split: the data that they are rebuilt on, held out where there are such.
        classifier: what says how good the classifier is, in words; empty where nothing does.
        steps: at which anything of this was measured, ascending.
        error: of the reconstruction.
        floor: error of always saying the mean input.
        accuracy: of the classifier.
        transfer: accuracy of a probe for another task.
        n: examples of that probe.
    """

    layer: str
    split: str
    classifier: str
    steps: tuple[int, ...]
    error: Float[np.ndarray, " steps"]
    floor: Float[np.ndarray, " steps"]
    accuracy: Float[np.ndarray, " steps"]
    transfer: Float[np.ndarray, " steps"]
    n: Float[np.ndarray, " steps"]

    @classmethod
    def of(cls, groups: Mapping[str, Group], layers: Sequence[LayerRow], layer: str = "", settle: int = 0) -> Course:
        """Read it from what instruments measured.

        Args:
            groups: by the instrument's key; `reconstruction` is among them.
            layers: of the record.
            layer: the one to judge; chosen by `judged_layers` where it is empty.
            settle: steps at the beginning whose error is left out where the network has running statistics.

        Raises:
            NotApplicable: if nothing was rebuilt from any layer that can be judged.
            SettingError: if nothing was rebuilt from the layer that was asked for.
        """
        group = groups["reconstruction"]
        steps = tuple(sorted({step for one in groups.values() for step in one.steps}))
        splits = splits_of(group, "error")
        own = [split for split in splits if split != TRANSFER]
        split = next((split for split in own if split != TRAIN), own[0] if own else "")
        layer = _chosen(group, layers, layer, steps, split)

        def of_layer(name: str, split: str) -> np.ndarray:
            return table(group, name, steps, [split], [layer])[:, 0, 0]

        accuracy, said = _classifier(groups, steps, split, layer)
        nothing = np.full(len(steps), np.nan)
        there = TRANSFER in splits_of(group, "class_accuracy")
        error = of_layer("error", split)
        if any(param.get("role") == "statistic" for row in layers for param in row.spec.get("params", ())):
            error = np.where(np.array(steps) < settle, np.nan, error)
        return cls(
            layer, split, said, steps, error, of_layer("error_floor", split), accuracy,
            of_layer("class_accuracy", TRANSFER) if there else nothing, of_layer("n", TRANSFER) if there else nothing,
        )._measured()  # fmt: skip

    def _measured(self) -> Course:
        """Without the steps at which nothing of it was measured."""
        values = (self.error, self.floor, self.accuracy, self.transfer, self.n)
        kept = np.isfinite(np.stack([self.error, self.accuracy, self.transfer])).any(0)
        steps = tuple(step for step, keep in zip(self.steps, kept, strict=True) if keep)
        return Course(self.layer, self.split, self.classifier, steps, *(value[kept] for value in values))

    @cached_property
    def reconstruction_best(self) -> Int[np.ndarray, " steps"]:
        """The place of the least error so far; -1 where there is none."""
        return running_best(self.error, least=True)

    @cached_property
    def classifier_best(self) -> Int[np.ndarray, " steps"]:
        """The place of the highest accuracy so far; -1 where there is none."""
        return running_best(self.accuracy)

    @cached_property
    def transfer_best(self) -> Int[np.ndarray, " steps"]:
        """The place of the highest accuracy on the other task so far; -1 where there is none."""
        return running_best(self.transfer)

    @cached_property
    def stop(self) -> Int[np.ndarray, " steps"]:
        r"""The place between the best reconstruction and the best classifier so far; -1 where one of them is not known.

        It never moves back. With $R_t$ and $C_t$ the two best steps known at step $t$, it is the measured step nearest
        to $g_t = \sqrt{(1 + R_t)(1 + C_t)} - 1$. Both ends never move back (`running_best`), so neither does $g_t$. A
        step that is measured after $t$ is farther from $g_t$ than the later of $R_t$ and $C_t$ is, so the nearest of
        those until $t$ is the nearest of all there will ever be; and among the members of one fixed set the nearest to
        $g$ does not move back as $g$ grows.
        """
        pairs = zip(self.reconstruction_best, self.classifier_best, strict=True)
        found: np.ndarray = np.array([between(self.steps, r, c) if min(r, c) >= 0 else -1 for r, c in pairs], dtype=int)
        return found

    def difference(self, first: int, second: int, confidence: float = 0.95) -> tuple[float, float, float]:
        """By how much a probe for the other task is right more often at one step than at another, and the interval.

        Newcombe's hybrid of two Wilson intervals, as if the examples were others: they are the same, so it is too wide
        rather than too narrow.

        Args:
            first: the place of one step.
            second: that of the other.
            confidence: of the interval.

        Returns:
            Difference, lower end, upper end; NaN where one of both was not measured.
        """
        if min(first, second) < 0 or not np.isfinite(self.transfer[[first, second]]).all():
            return math.nan, math.nan, math.nan
        (p, p_low, p_high), (q, q_low, q_high) = (self._share(place, confidence) for place in (first, second))
        down, up = math.hypot(p - p_low, q_high - q), math.hypot(p_high - p, q - q_low)
        return p - q, p - q - down, p - q + up

    def as_good(self, best: int, until: int, confidence: float) -> tuple[int, int]:
        """The first and the last place at which the other task's accuracy is not shown to be worse than at the best.

        Args:
            best: the place of the highest accuracy.
            until: the last place to look at.
            confidence: of each comparison.
        """
        good = [
            place
            for place in np.flatnonzero(np.isfinite(self.transfer[: until + 1]))
            if not self.difference(best, int(place), confidence)[1] > 0
        ]
        return int(good[0]), int(good[-1])

    def _share(self, place: int, confidence: float) -> tuple[float, float, float]:
        share, n = float(self.transfer[place]), self.n[place]
        count = int(n) if math.isfinite(n) else 0
        low, high = wilson(min(max(round(share * count), 0), count), count, confidence)
        return share, min(low, share), max(high, share)


def splits_of(group: Group, name: str) -> list[str]:
    """The splits on which a variable was measured; `""` where it has none, nothing where it was not measured."""
    if name not in group:
        return []
    array = group[name]
    return [str(split) for split in array.coords["split"].values] if "split" in array.dims else [""]


def _chosen(group: Group, layers: Sequence[LayerRow], layer: str, steps: Sequence[int], split: str) -> str:
    order = [layer] if layer else judged_layers(layers)
    known = np.isfinite(table(group, "error", steps, [split], order)[:, 0]) if order else np.zeros((0, 0), bool)
    if not known.any():
        if layer:
            raise SettingError(
                f"The inputs were not rebuilt from layer={layer!r}; they were from {', '.join(group.layers) or 'none'}."
            )
        raise NotApplicable("the inputs were not rebuilt from any layer before the output layer")
    # one choice for the whole run, also as it was known at its first measurement
    first = known[known.any(1)][0]
    return order[int(np.flatnonzero(first)[0])]


def _classifier(
    groups: Mapping[str, Group], steps: Sequence[int], split: str, layer: str
) -> tuple[Float[np.ndarray, " steps"], str]:
    """The accuracy along the steps, and what it is of: the network's own on held-out data, else that of a probe."""
    own = splits_of(groups["performance"], "accuracy") if "performance" in groups else []
    held_out = next((name for name in own if name not in (TRAIN, TRANSFER)), None)
    if held_out is not None:
        accuracy = table(groups["performance"], "accuracy", steps, [held_out], [layer])[:, 0, 0]
        if np.isfinite(accuracy).any():
            return accuracy, f"the network's accuracy on {held_out}" if held_out else "the network's accuracy"
    for key, name in (("reconstruction", "class_accuracy"), ("probe", "accuracy")):
        if key in groups and split in splits_of(groups[key], name):
            accuracy = table(groups[key], name, steps, [split], [layer])[:, 0, 0]
            if np.isfinite(accuracy).any():
                return accuracy, f"a linear probe's accuracy at {layer} on {split}" if split else "a linear probe"
    return np.full(len(steps), np.nan), ""
