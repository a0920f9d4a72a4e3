"""What the paper says of class separation along depth, and how each statement is checked.

`v1` and `v2` are the two versions of the paper, whose abstracts differ; figures were not at hand, so signs and orders are
checked and no absolute values. Layers are counted from 1; layer 0 is the input. All numbers are of held-out pictures. A lower
GDV is a better separation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stratoscope.studies import Claim, Evidence, Run, StudyRuns

Curve = NDArray[np.float64]
"""The GDV of the input and of each layer after it."""

EARLY, LATER = 10, 20
"""Layers of the belief network that are looked at: fixed, so that no choice of the best flatters the result."""
PRINTED, BEYOND = 30, 40
"""The best layer by the first version, and one beyond it."""
SURE = 3.0
"""Standard errors by which a loss counts: the layer it is compared with is the best of many."""
ALIKE = 2.0
"""Curves of two depths are one if they are at most so many times as far apart as those of two seeds."""


def curve(run: Run, variable: str = "gdv", step: int = -1) -> Curve:
    """A number of the input and of each layer, in order of depth, on held-out pictures."""
    names = [f"layers.{place}" for place in range(run.spec.get("layers", 0))]
    names = ["flatten", *names] if names else ["flat", *(f"relu{1 + place}" for place in range(run.spec["depth"]))]
    along = run.array("separation", variable).isel(step=step).sel(split="test", layer=names)
    return np.asarray(along.values, dtype=np.float64)


# -- the deep belief network -------------------------------------------------------------------------------------------


def improves_layer_by_layer(runs: StudyRuns) -> Evidence:
    """The smallest of the steps."""
    return Evidence(
        runs.per_seed(lambda same: min(a - b for a, b in pairwise(curve(same.only)[: EARLY + 1]))),
        f"smallest fall of the GDV from one layer to the next, up to layer {EARLY}",
        numbers=_along(runs),
    )


def improves_between(first: int, second: int) -> Callable[[StudyRuns], Evidence]:
    """Whether one layer separates better than another one below it."""

    def check(runs: StudyRuns) -> Evidence:
        def fall(same: StudyRuns) -> float:
            along = curve(same.only)
            return float(along[first] - along[second])

        return Evidence(runs.per_seed(fall), f"GDV of layer {first} less that of layer {second}", numbers=_along(runs))

    return check


def gets_worse(runs: StudyRuns) -> Evidence:
    """From the best of the layers before it to the last one, against what chance in the pictures would do."""

    def loss(same: StudyRuns) -> float:
        along, error = curve(same.only), curve(same.only, "standard_error")
        best = int(along[:-1].argmin())
        return float((along[-1] - along[best]) / math.hypot(error[-1], error[best]))

    return Evidence(
        runs.per_seed(loss),
        "GDV of the last layer less that of the best one before it, in standard errors",
        margin=SURE,
        numbers=_best(runs) | _along(runs),
    )


def worse_beyond_the_printed(runs: StudyRuns) -> Evidence:
    """Two fixed layers."""

    def rise(same: StudyRuns) -> float:
        along = curve(same.only)
        return float(along[BEYOND] - along[PRINTED])

    return Evidence(
        runs.per_seed(rise), f"GDV of layer {BEYOND} less that of layer {PRINTED}", numbers=_best(runs) | _along(runs)
    )


def learning_and_not_depth(runs: StudyRuns) -> Evidence:
    """The same network before and after training."""

    def gain(same: StudyRuns) -> float:
        return float(curve(same.only, step=0)[EARLY] - curve(same.only)[EARLY])

    fresh = {f"fresh layer {layer}": _mean(curve(run, step=0)[layer] for run in runs) for layer in _shown(runs)}
    return Evidence(runs.per_seed(gain), f"GDV of layer {EARLY} before training less that after it", numbers=fresh)


def _best(runs: StudyRuns) -> dict[str, float]:
    """The best layer of each seed, its mean and its spread."""
    layers = [float(curve(run).argmin()) for run in runs]
    spread = float(np.std(layers, ddof=1)) if len(layers) > 1 else math.nan
    own = {f"best layer, seed {run.spec['seed']}": layer for run, layer in zip(runs, layers, strict=True)}
    return {"best layer": _mean(layers), "spread of the best layer": spread, **own}


def _along(runs: StudyRuns) -> dict[str, float]:
    return {f"layer {layer}": _mean(curve(run)[layer] for run in runs) for layer in _shown(runs)}


def _shown(runs: StudyRuns) -> list[int]:
    last = runs[0].spec["layers"]
    return sorted({layer for layer in (0, 1, 2, 5, *range(10, last, 10)) if layer < last} | {last})


# -- perceptrons -------------------------------------------------------------------------------------------------------


def has_a_barrier(runs: StudyRuns) -> Evidence:
    """In the first third of the deepest network."""
    deepest = runs.values("depth")[-1]

    def rise(same: StudyRuns) -> float:
        along = curve(same.where(depth=deepest).only)
        return float(along[1 : 1 + max(1, deepest // 3)].max() - along[0])

    found = [curve(run) for run in runs.where(depth=deepest)]
    layers = {f"layer {layer}": _mean(along[layer] for along in found) for layer in range(deepest + 1)}
    return Evidence(
        runs.per_seed(rise),
        "highest GDV in the first third of the layers less that of the input",
        numbers=layers
        | {"test accuracy": _mean(r.number("logged", "test_accuracy") for r in runs.where(depth=deepest))},
    )


def on_one_curve(runs: StudyRuns) -> Evidence:
    """Networks of different depths are as alike, layer by layer, as two of one depth that differ in their seed."""
    found = {(run.spec["seed"], run.spec["depth"]): curve(run) for run in runs}
    common = np.arange(1, runs.values("depth")[0] + 1, dtype=np.float64)
    apart = {seed: _apart(found, seed, common, _at_layer) for seed in runs.values("seed")}
    return Evidence(
        {seed: ALIKE - between / within if within > 0 else math.nan for seed, (within, between) in apart.items()},
        f"{ALIKE:.0f} less the distance between curves of different depths, in distances between seeds",
        numbers={
            "distance between depths": _mean(between for _, between in apart.values()),
            "distance between seeds": _mean(within for within, _ in apart.values()),
            "range of the curves": _mean(float(np.ptp(along)) for along in found.values()),
        },
    )


def by_number_rather_than_share(runs: StudyRuns) -> Evidence:
    """Curves over the layer's number are nearer to each other than curves over its share of the depth."""
    found = {(run.spec["seed"], run.spec["depth"]): curve(run) for run in runs}
    shallowest = runs.values("depth")[0]
    numbers = np.arange(1, shallowest + 1, dtype=np.float64)
    effect, means = {}, dict[str, list[float]]()
    for seed in runs.values("seed"):
        _, by_number = _apart(found, seed, numbers, _at_layer)
        _, by_share = _apart(found, seed, numbers / shallowest, _at_share)
        effect[seed] = by_share - by_number
        means.setdefault("distance by number", []).append(by_number)
        means.setdefault("distance by share", []).append(by_share)
    return Evidence(
        effect,
        "distance between curves of different depths at the same share of the depth, less that at the same layer",
        numbers={name: _mean(values) for name, values in means.items()},
    )


Curves = dict[tuple[int, int], Curve]
"""For each seed and depth."""


def _apart(found: Curves, seed: int, places: Curve, at: Callable[[Curve, Curve], Curve]) -> tuple[float, float]:
    """How far a seed's curves are from other seeds' of the same depth, and from other seeds' of other depths.

    Root mean squares. Both compare different seeds, so they are equal on average where depth makes no difference.
    """
    within: list[float] = []
    between: list[float] = []
    for (mine, depth), along in found.items():
        for (other, theirs), their_curve in found.items():
            if mine == seed and other != seed:
                difference = at(along, places) - at(their_curve, places)
                (within if depth == theirs else between).append(float((difference**2).mean()))
    return _root_mean(within), _root_mean(between)


def _at_layer(along: Curve, layers: Curve) -> Curve:
    return np.asarray(along[layers.astype(int)])


def _at_share(along: Curve, shares: Curve) -> Curve:
    """Between layers, on a straight line."""
    return np.interp(shares * (len(along) - 1), np.arange(len(along)), along)


def _root_mean(squares: list[float]) -> float:
    return math.sqrt(_mean(squares)) if squares else math.nan


def _mean(values: Iterator[float] | list[float]) -> float:
    found = [float(value) for value in values]
    return math.fsum(found) / len(found)


V1, V2 = "abstract of v1 (deep belief network on MNIST)", "abstract of v2"
BELIEF = {"part": "belief"}
SETS = {"mnist": "MNIST", "cifar10": "CIFAR-10"}


def _of(name: str) -> dict[str, str]:
    return {"part": "perceptron", "set": name}


CLAIMS = (
    Claim(f"Without labels, each of the first {EARLY} layers of a deep belief network separates the digits better than the one before", V1, improves_layer_by_layer, of=BELIEF, note="the paper says so of about 30 layers"),
    Claim(f"Contrastive divergence raises class separation over tens of layers: layer {LATER} is better than the input", V2, improves_between(0, LATER), of=BELIEF),
    Claim(f"Separation still improves from layer {EARLY} to layer {LATER}", f"{V1}; {V2}", improves_between(EARLY, LATER), of=BELIEF),
    Claim(f"Beyond layer {PRINTED} separation gets worse again", V1, worse_beyond_the_printed, of=BELIEF, note="width, rates and epochs are ours; the best layer that was measured stands beside it, with its spread"),
    Claim("There is a best layer, and separation gets worse beyond it", V1, gets_worse, of=BELIEF, note=f"by more than {SURE:.0f} standard errors, since the best layer is chosen by the same numbers; a best layer that is the last one says nothing of deeper networks"),
    Claim(f"It is learning that separates, not depth: layer {EARLY} is better after training than before", "not in the paper", learning_and_not_depth, of=BELIEF, note="our control: the same network with fresh weights, which are so small that its deep layers soon give the same for every picture"),
    *(
        Claim(f"{name}: a perceptron trained by backpropagation first loses separation, before it gains (energy barrier)", f"{V2}: for highly complex data sets", has_a_barrier, expected=key != "mnist", of=_of(key), note="the simple set is our control" if key == "mnist" else "")
        for key, name in SETS.items()
    ),
    *(
        Claim(f"{name}: perceptrons of different depths lie on one master curve GDV(L)", V2, on_one_curve, of=_of(key), note=f"at most {ALIKE:.0f} times as far apart as two seeds of one depth; seeds are compared with each other, so their effects are not quite independent")
        for key, name in SETS.items()
    ),
    *(
        Claim(f"{name}: the master curve is one over the number of the layer rather than over its share of the depth", f"{V2}, as we read it", by_number_rather_than_share, of=_of(key))
        for key, name in SETS.items()
    ),
)  # fmt: skip
