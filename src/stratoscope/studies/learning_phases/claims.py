"""What the paper says of learning phases, and how each statement is checked.

The places are those of the paper's abstract and of its code, whose settings are the study's; its figures were not at hand.
Steps at which a curve is least or largest are chosen by the other seeds wherever the value there is what counts, so that no
noise flatters it. Margins are ours where a note says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stratoscope.numerics.phases import phases
from stratoscope.studies import Claim, Evidence, StudyRuns
from stratoscope.studies.curves import Array, Curves

Check = Callable[[StudyRuns], Evidence]

BATCH = "batch statistics"
LAYER = "features"
START, END, BEST = "the start", "the end", "the classifier's best step"
RISE = 1.1
"""The end is at least so many times the minimum."""
CLOSE = 0.1
"""Share of a curve's range by which it may change and is near constant, and by which what was derived may differ."""


# -- curves ------------------------------------------------------------------------------------------------------------


def error(runs: StudyRuns, label: str = "") -> Curves:
    """Of reconstruction on held-out pictures; a label says how it was measured."""
    return Curves.of(runs, _group("reconstruction", label), "error", split="test", layer=LAYER)


def transfer(runs: StudyRuns) -> Curves:
    """Accuracy of a new linear layer for the other task."""
    return Curves.of(runs, "reconstruction", "class_accuracy", split="transfer", layer=LAYER)


def classifier(runs: StudyRuns) -> Curves:
    """Accuracy of the network itself on held-out pictures."""
    return Curves.of(runs, "performance", "accuracy", split="test")


def simulated(runs: StudyRuns) -> Curves:
    """Error of the single layer."""
    return Curves.of(runs, "layer", "error")


def _group(key: str, label: str) -> str:
    return f"{key}:{label}" if label else key


def _evidence(curves: Curves, effects: Array, long_name: str, **more: Any) -> Evidence:
    return Evidence(dict(zip(curves.seeds, map(float, effects), strict=True)), long_name, **more)


# -- phases ------------------------------------------------------------------------------------------------------------


def three_phases(read: Callable[[StudyRuns], Curves]) -> Check:
    """Whether change points cut the curves into near constant, falling and rising, in this order and nothing else."""

    def check(runs: StudyRuns) -> Evidence:
        curves = read(runs)
        least = CLOSE * float(np.ptp(curves.mean))
        found, strict = (
            phases(curves.places, curves.values, least=limit, generator=np.random.default_rng(0))
            for limit in (least, 0.0)
        )
        numbers = {f"direction of phase {place}": float(way) for place, way in enumerate(found.directions, start=1)}
        numbers |= {f"step of change {place}": 2**knot - 1 for place, knot in enumerate(found.knots, start=1)}
        numbers |= {f"p {place}": p for place, p in enumerate(found.p_values, start=1)}
        numbers |= {f"strict direction {place}": float(way) for place, way in enumerate(strict.directions, start=1)}
        return Evidence.fact(
            float(found.directions == (0, -1, 1)),
            f"1 if change points over {len(curves.seeds)} seeds give flat, falling, rising, else 0",
            margin=0.5,
            numbers=numbers | {"seeds": float(len(curves.seeds))} | curves.told("error"),
        )

    return check


def interior_minimum(read: Callable[[StudyRuns], Curves]) -> Check:
    """The least of the curve lies below the start, and the end is at least `RISE` times it."""

    def check(runs: StudyRuns) -> Evidence:
        curves = read(runs)
        least = np.array([1 + int(curves.of_others(place)[1:-1].argmin()) for place in range(len(curves.seeds))])
        low = curves.at(least)
        before, after = curves.values[:, 0] / low, curves.values[:, -1] / low
        return _evidence(
            curves, np.minimum(before - 1, after - RISE),
            f"the smaller of: start over minimum, less 1; end over minimum, less {RISE}",
            numbers={"start over minimum": float(before.mean()), "end over minimum": float(after.mean()),
                     "step of minimum": float(np.median(curves.steps[least])), **curves.told("error")},
        )  # fmt: skip

    return check


# -- transfer ----------------------------------------------------------------------------------------------------------


def peaks_before_the_classifier(runs: StudyRuns) -> Evidence:
    """In doublings of the step."""
    probe, own = transfer(runs), classifier(runs)
    first, second = probe.best(), own.best()
    return _evidence(
        probe, second - first, "doublings from the transfer probe's best step to the classifier's best",
        numbers={"best step for transfer": _step(first), "best step of the classifier": _step(second),
                 **probe.told("transfer"), **own.told("classifier")},
    )  # fmt: skip


def gains_at_the_peak(against: str) -> Check:
    """Over `"the end"`, `"the classifier's best step"` or `"the start"`; steps chosen by the other seeds."""

    def check(runs: StudyRuns) -> Evidence:
        probe, own = transfer(runs), classifier(runs)
        seeds = range(len(probe.seeds))
        first = 1 if against == START else 0  # or nothing would be compared with itself
        peak = np.array([first + int(probe.of_others(place)[first:].argmax()) for place in seeds])
        best = np.array([int(own.of_others(place).argmax()) for place in seeds])
        other = {START: np.zeros_like(best), END: np.full_like(best, -1), BEST: best}[against]
        return _evidence(
            probe, 100 * (probe.at(peak) - probe.at(other)), f"transfer accuracy at its peak less that at {against}",
            units="percentage points",
            numbers={"at the peak": float(probe.at(peak).mean()), f"at {against}": float(probe.at(other).mean()),
                     "step of the peak": float(np.median(probe.steps[peak]))},
        )  # fmt: skip

    return check


def advice_gains(label: str) -> Check:
    """Stop at the geometric mean of the step of the least error and of the classifier's best, over the end."""

    def check(runs: StudyRuns) -> Evidence:
        probe, own, rebuilt = transfer(runs), classifier(runs), error(runs, label)
        least, best = rebuilt.best(least=True), own.best()
        middle = np.log2(np.sqrt(2 ** (least + best)))
        advised = probe.nearest(middle)
        return _evidence(
            probe, 100 * (probe.at(advised) - probe.values[:, -1]),
            "transfer accuracy at the advised step less that at the end", units="percentage points",
            numbers={
                "advised step": _step(middle), "step of least error": _step(least), "classifier's best step": _step(best),
                "at the advised step": float(probe.at(advised).mean()), "at the end": float(probe.mean[-1]),
                "at the classifier's best": float(probe.at(probe.nearest(best)).mean()), "best of all": float(probe.mean.max()),
            },
        )  # fmt: skip

    return check


def _step(places: Array) -> float:
    return float(2 ** np.median(places) - 1)


# -- what may feign phases ---------------------------------------------------------------------------------------------


def scale_makes_the_fall(runs: StudyRuns) -> Evidence:
    """Share of the fall that a trained decoder sees on raw features and does not see on standardised ones."""
    raw, scaled = error(runs, "trained 20, raw"), error(runs, "trained 20")
    falls = [_fall(raw), _fall(scaled)]
    numbers = {"fall, raw": float(falls[0].mean()), "fall, standardised": float(falls[1].mean())}
    return _evidence(
        raw, 1 - falls[1] / falls[0], "share of the fall on raw features that is missing on standardised ones",
        margin=0.5, numbers=numbers | raw.told("raw") | scaled.told("standardised"),
    )  # fmt: skip


def scale_leaves_ridge_alone(runs: StudyRuns) -> Evidence:
    """Error of ridge on raw features beside that on standardised ones, against what a trained decoder makes of the same."""
    pairs = [[error(runs, name) for name in names] for names in (("ridge, raw", ""), ("trained 20, raw", "trained 20"))]
    apart = [np.abs(raw.values - scaled.values).mean(1) for raw, scaled in pairs]
    return _evidence(
        pairs[0][0], apart[1] - apart[0],
        "how much raw features change the error of a trained decoder, less how much they change that of ridge",
        numbers={"ridge": float(apart[0].mean()), "trained": float(apart[1].mean())},
    )  # fmt: skip


def running_statistics_hide_the_fall(runs: StudyRuns) -> Evidence:
    """By how much more the error falls from its start when batch norms have the statistics of the present weights."""
    running, batch = error(runs), error(runs, BATCH)
    falls = [_fall(batch), _fall(running)]
    numbers = {"fall, batch statistics": float(falls[0].mean()), "fall, running statistics": float(falls[1].mean())}
    return _evidence(
        running, falls[0] - falls[1], "fall of the error with batch statistics less that with running statistics",
        numbers=numbers | batch.told("batch") | running.told("running"),
    )  # fmt: skip


def statistics_leave_the_rise_alone(runs: StudyRuns) -> Evidence:
    """The end over the minimum differs by little between the two."""
    ratios = [_rise(error(runs, label)) for label in ("", BATCH)]
    return _evidence(
        error(runs), 0.05 - np.abs(np.log(ratios[0] / ratios[1])),
        "0.05 less the difference of end over minimum between running and batch statistics (log)",
        numbers={"running": float(ratios[0].mean()), "batch": float(ratios[1].mean())},
    )  # fmt: skip


def short_training_is_worse_than_the_mean(runs: StudyRuns) -> Evidence:
    """At the end, a decoder of 2 epochs against the mean picture."""
    short = error(runs, "trained 2, raw")
    floor = Curves.of(runs, "reconstruction", "error_floor", split="test", layer=LAYER)
    return _evidence(
        short, short.values[:, -1] - floor.values[:, -1],
        "error of a decoder of 2 epochs at the end of training less that of the mean picture",
        numbers={"mean picture": float(floor.mean[-1]), **short.told("2 epochs")},
    )  # fmt: skip


def training_falls_short_of_ridge(runs: StudyRuns) -> Evidence:
    """At the step where they are nearest, on raw features."""
    trained, closed = error(runs, "trained 20, raw"), error(runs, "ridge, raw")
    return _evidence(
        closed, (trained.values - closed.values).min(1), "least error of 20 epochs less that of ridge at the same step",
        numbers=trained.told("20 epochs") | closed.told("ridge"),
    )  # fmt: skip


def the_rise_is_not_of_budget(runs: StudyRuns) -> Evidence:
    """Ridge, which has no budget, rises by at least half of what the trained decoder does."""
    trained, closed = error(runs, "trained 20, raw"), error(runs)
    rises = [_rise(trained) - 1, _rise(closed) - 1]
    return _evidence(
        closed, rises[1] / rises[0], "relative rise with ridge over that with 20 epochs", margin=0.5,
        numbers={"rise, ridge": float(rises[1].mean()), "rise, 20 epochs": float(rises[0].mean())},
    )  # fmt: skip


def _fall(curves: Curves) -> Array:
    return np.asarray(curves.values[:, 0] - curves.values.min(1))


def _rise(curves: Curves) -> Array:
    return np.asarray(curves.values[:, -1] / curves.values.min(1))


# -- the single layer --------------------------------------------------------------------------------------------------


def as_derived(runs: StudyRuns) -> Evidence:
    """Up to the derived minimum, in shares of the derived fall."""
    sim, theory = simulated(runs), Curves.of(runs, "layer", "derived")
    ends = theory.values.argmin(1)
    worst = [
        np.abs(s - t)[: end + 1].max() / (t[0] - t[end])
        for s, t, end in zip(sim.values, theory.values, ends, strict=True)
    ]
    return _evidence(
        sim, CLOSE - np.array(worst), f"{CLOSE} less the largest distance of simulated and derived error over the derived fall",
        numbers={"largest distance": float(np.mean(worst)), **sim.told("simulated"), **theory.told("derived")},
    )  # fmt: skip


def minimum_as_derived(runs: StudyRuns) -> Evidence:
    """Within one doubling."""
    sim, theory = simulated(runs), Curves.of(runs, "layer", "derived")
    places = sim.best(least=True), theory.best(least=True)
    return _evidence(
        sim, 1 - np.abs(places[0] - places[1]), "1 less the doublings between the simulated and the derived minimum",
        numbers={"simulated minimum": _step(places[0]), "derived minimum": _step(places[1])},
    )  # fmt: skip


def no_fall_from_zero(runs: StudyRuns) -> Evidence:
    """The largest fall below an earlier error, in shares of the fall from random weights; step 0 has no weights at all."""
    whole, zero = (simulated(runs.where(variant=name)) for name in ("whole", "from zero"))
    later = zero.values[:, 1:]
    falls = (np.maximum.accumulate(later, 1) - later).max(1)
    return _evidence(
        whole, 0.1 * _fall(whole) - falls, "a tenth of the fall from random weights, less the largest one from zero",
        numbers={"fall from zero": float(falls.mean()), "fall from random weights": float(_fall(whole).mean()), **zero.told("from zero")},
    )  # fmt: skip


def no_rise_without_weak(runs: StudyRuns) -> Evidence:
    """In shares of the rise with weak features."""
    rises = [_rise(simulated(runs.where(variant=name))) - 1 for name in ("whole", "strong only")]
    return _evidence(
        simulated(runs.where(variant="whole")), 0.1 * rises[0] - rises[1],
        "a tenth of the relative rise with weak features, less that without them",
        numbers={"rise": float(rises[0].mean()), "rise without weak features": float(rises[1].mean())},
    )  # fmt: skip


def layer_peaks_before_the_classifier(runs: StudyRuns) -> Evidence:
    """As for networks; the probe is for the largest strong feature."""
    probe, own = (Curves.of(runs, "layer", name) for name in ("transfer_accuracy", "class_accuracy"))
    first, second = probe.best(), own.best()
    return _evidence(
        probe, second - first, "doublings from the probe's best step to the layer's best",
        numbers={"best step for transfer": _step(first), "best step of the layer": _step(second),
                 "transfer at its peak": float(probe.values.max(1).mean()), "transfer at the end": float(probe.mean[-1])},
    )  # fmt: skip


# -- all of them -------------------------------------------------------------------------------------------------------

ABSTRACT, CODE = "abstract", "the authors' code and its log"
OURS = "not in the paper: a confounder"
MODEL = "abstract: phases of single-layer networks, proved on a data model"
SETS = {"cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST"}
NETS = {"vgg": "VGG", "resnet": "ResNet"}
ANALOGUE = "the analogue has 8,000 pictures of 16 x 16, narrow networks and 2,048 iterations; the paper 50,000 of 32 x 32 and 65,536"
CONSTANT = (
    "to stay is to change by less than a tenth of the curve's range, our margin; it was set after a first look, in which change "
    "points without a margin found a slope in the first steps of the nearly noiseless curves; the strict directions stand beside"
)
CONTROL = {"part": "network", "set": "cifar10", "net": "vgg"}
OTHER = {
    "cifar10": "the other task is which colour is the strongest, on the pictures that are measured with, as in the paper's code",
    "fashion_mnist": "the other task is MNIST's digits, since these pictures have no colours; the paper has no such pair",
}


def _of_networks(name: str, net: str) -> tuple[Claim, ...]:
    who, of = f"{SETS[name]}, {NETS[net]}", {"part": "network", "set": name, "net": net}
    running, batch = "with running statistics", "with statistics of the present weights"
    lag = "batch norms as a frozen network has them, whose statistics lag in the first tens of steps"
    fresh = "batch norms with mean statistics of training batches, as the network sees them while it trains"

    def batched(runs: StudyRuns) -> Curves:
        return error(runs, BATCH)

    return (
        Claim(f"{who}: the reconstruction error stays, falls and rises ({running})", ABSTRACT, three_phases(error), of=of, note=f"{ANALOGUE}; {lag}; {CONSTANT}"),
        Claim(f"{who}: the same {batch}", ABSTRACT, three_phases(batched), of=of, note=f"{ANALOGUE}; {fresh}; {CONSTANT}"),
        Claim(f"{who}: the error is least in between, and ends at {RISE} times that or more ({running})", CODE, interior_minimum(error), of=of, note=f"{ANALOGUE}; {lag}; the margin is ours, the paper's log has 1.54"),
        Claim(f"{who}: least in between, and the rise, {batch}", CODE, interior_minimum(batched), of=of, note=f"{ANALOGUE}; {fresh}; the margin is ours"),
        Claim(f"{who}: the other task is read best before the classifier is best", ABSTRACT, peaks_before_the_classifier, of=of, note=f"{ANALOGUE}; {OTHER[name]}"),
        Claim(f"{who}: training helps it first: it is read better at a later step than from the untrained network", CODE, gains_at_the_peak(START), of=of, note=f"{ANALOGUE}; {OTHER[name]}; the paper's log has 6.4 points; running statistics"),
        Claim(f"{who}: it is read better at that peak than at the end", CODE, gains_at_the_peak(END), of=of, note=f"{ANALOGUE}; {OTHER[name]}; the paper's log has 8.1 points"),
        Claim(f"{who}: it is read better at that peak than where the classifier is best", CODE, gains_at_the_peak(BEST), of=of, note=f"{ANALOGUE}; {OTHER[name]}; the paper's log has 5.2 points"),
        Claim(f"{who}: stopping at the advised step gains over the end ({running})", "our rule; the paper only says: well before", advice_gains(""), of=of, note=f"{OTHER[name]}; the geometric mean of the steps at which the error is least and the classifier best"),
        Claim(f"{who}: stopping at the advised step gains over the end ({batch})", "our rule; the paper only says: well before", advice_gains(BATCH), of=of, note=f"{OTHER[name]}; the error is that {batch}, the probe that of the frozen network"),
    )  # fmt: skip


def _of_model() -> tuple[Claim, ...]:
    mine = "the data model is ours (model.py), in the paper's spirit, since its exact form could not be checked"
    whole = {"part": "model", "variant": "whole"}
    return (
        Claim("Single layer: the reconstruction error stays, falls and rises", MODEL, three_phases(simulated), of=whole, note=f"{mine}; {CONSTANT}"),
        Claim(f"Single layer: the error is least in between, and ends at {RISE} times that or more", MODEL, interior_minimum(simulated), of=whole, note=mine),
        Claim("Single layer: until its minimum the error is what the linearised training gives in closed form", "our derivation", as_derived, of=whole, note=f"{mine}; the margin is ours"),
        Claim("Single layer: the minimum comes when it was derived to come", "our derivation", minimum_as_derived, of=whole, note=f"{mine}; within one doubling"),
        Claim("Single layer: without random weights at the start nothing falls", "our theorem, for the linearised training", no_fall_from_zero, of={"part": "model", "variant": ("whole", "from zero")}, note=f"{mine}; the margin is ours"),
        Claim("Single layer: where the classes differ along one variance only, nothing rises", "our theorem, for the linearised training", no_rise_without_weak, of={"part": "model", "variant": ("whole", "strong only")}, note=f"{mine}; the margin is ours"),
        Claim("Single layer: the strongest feature is read best before the classes are", MODEL, layer_peaks_before_the_classifier, of=whole, note=mine),
    )  # fmt: skip


CLAIMS = (
    *(claim for name in SETS for net in NETS for claim in _of_networks(name, net)),
    Claim("Scale: most of the fall that a decoder of 20 epochs sees is missing once features are standardised", OURS, scale_makes_the_fall, of=CONTROL, note="running statistics; activations of the first steps are some hundred times smaller than later ones; the margin is ours"),
    Claim("Scale: it changes what a trained decoder says more than what ridge says", OURS, scale_leaves_ridge_alone, of=CONTROL),
    Claim("Batch norm: lagging running statistics hide the fall", OURS, running_statistics_hide_the_fall, of=CONTROL),
    Claim("Batch norm: the rise is the same with running and with batch statistics", OURS, statistics_leave_the_rise_alone, of=CONTROL, note="within 5 %, our margin"),
    Claim("Budget: at the end of training a decoder of 2 epochs is worse than the mean picture", OURS, short_training_is_worse_than_the_mean, of=CONTROL, note="raw features, as in the paper's code; an epoch has as many steps as one over 8,000 pictures in batches of 128"),
    Claim("Budget: a decoder of 20 epochs falls short of ridge at every step", OURS, training_falls_short_of_ridge, of=CONTROL, note="the same raw features, folds and pictures"),
    Claim("Budget: the rise is there without any: ridge shows at least half of that of 20 epochs", OURS, the_rise_is_not_of_budget, of=CONTROL, note="the margin is ours"),
    *_of_model(),
)  # fmt: skip
