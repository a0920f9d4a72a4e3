"""What the paper says of statistics and performance, and how each statement is checked.

The paper's first page and abstract were at hand; margins are ours, and were set before the numbers were seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from stratoscope.studies import Claim, Evidence, Run, StudyRuns

FIGURE = "abstract; figure 1"
PLAIN = "none"
LAYER = "relu5"
HALF = math.log(2)
"""At least half, or twice, as a logarithm."""

WEAK = 0.5
"""A rank correlation below this explains less than a quarter of the order."""

POINT = 0.01
"""One percentage point of accuracy."""

SAME_OUTPUT = 1e-4
"""Difference of outputs as a share of the largest one."""

STAYS = 1e-3
"""Relative change of a statistic that counts as none."""


def statistic(run: Run, name: str) -> float:
    """A statistic of the fifth layer, such as `"correlation"`, `"active"`, `"stable_rank_excess"` or `"gdv"`."""
    if name == "gdv":
        return run.number("separation", "gdv", layer=LAYER, split="test")

    def read(variable: str) -> float:
        return run.number("statistics", variable, layer=LAYER, split="test")

    prefix = "class_" if name.startswith("class_") else ""
    plain = name.removeprefix("class_")
    if plain == "active":
        return 1.0 - read(f"{prefix}sparsity")
    if plain == "stable_rank_excess":
        return read(f"{prefix}stable_rank") - 1.0
    return read(name)


def accuracy(run: Run, split: str = "test") -> float:
    """Share of pictures that are told right."""
    return run.number("logged", f"{split}_accuracy")


def moves(name: str, regulariser: str, sign: int) -> Callable[[StudyRuns], Evidence]:
    """The strongest setting against the plain network.

    Args:
        name: of the statistic.
        regulariser: which.
        sign: -1 where it is to fall, 1 where it is to rise.
    """

    def check(runs: StudyRuns) -> Evidence:
        def change(same: StudyRuns) -> float:
            plain, strong = _pair(same, regulariser)
            return sign * math.log(_positive(statistic(strong, name)) / _positive(statistic(plain, name)))

        pairs = [_pair(same, regulariser) for _, same in runs.by("seed")]
        return Evidence(
            runs.per_seed(change),
            f"log ratio of the {name.replace('_', ' ')} {'with and without' if sign > 0 else 'without and with'} it",
            margin=HALF,
            numbers={
                "plain": _mean([statistic(one, name) for one, _ in pairs]),
                "regularised": _mean([statistic(two, name) for _, two in pairs]),
                "accuracy plain": _mean([accuracy(one) for one, _ in pairs]),
                "accuracy regularised": _mean([accuracy(two) for _, two in pairs]),
            },
        )

    return check


def does_not_follow(name: str) -> Callable[[StudyRuns], Evidence]:
    """Spearman's rank correlation of a statistic with test accuracy over all settings of a seed."""

    def check(runs: StudyRuns) -> Evidence:
        def rho(same: StudyRuns) -> float:
            return spearman([statistic(run, name) for run in same], [accuracy(run) for run in same])

        found = runs.per_seed(rho)
        return Evidence(
            {seed: WEAK - abs(value) for seed, value in found.items()},
            f"{WEAK} less the absolute rank correlation of test accuracy with the {name.replace('_', ' ')}",
            numbers={"rank correlation": _mean(list(found.values())), "settings": len(runs) / len(found)},
        )

    return check


def spearman(first: list[float], second: list[float]) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN where one of the two is constant.

    >>> spearman([1.0, 2.0, 3.0], [9.0, 4.0, 1.0])
    -1.0
    """
    if len(set(first)) < 2 or len(set(second)) < 2:
        return math.nan
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def comparable(runs: StudyRuns) -> Evidence:
    """The plain network, covariance and rank at their strongest."""

    def room(same: StudyRuns) -> float:
        found = [accuracy(run) for run in _of_figure(same)]
        return POINT - (max(found) - min(found))

    return Evidence(
        runs.per_seed(room), "one point less the spread of test accuracy over the three", numbers=_figure(runs)
    )


def apart(runs: StudyRuns) -> Evidence:
    """The correlation of the rank regulariser against that of the covariance regulariser."""

    def ratio(same: StudyRuns) -> float:
        _, covariance, rank = _of_figure(same)
        return math.log(statistic(rank, "correlation") / statistic(covariance, "correlation"))

    return Evidence(
        runs.per_seed(ratio), "log ratio of the mean absolute correlation, rank over covariance", margin=HALF,
        numbers=_figure(runs),
    )  # fmt: skip


def within_two_points(runs: StudyRuns) -> Evidence:
    """The setting that is farthest from the plain network."""

    def room(same: StudyRuns) -> float:
        plain = accuracy(same.where(regulariser=PLAIN).only)
        return 2 * POINT - max(abs(accuracy(run) - plain) for run in same)

    return Evidence(
        runs.per_seed(room),
        "two points less the largest difference of test accuracy from the plain network's",
        numbers={
            "lowest": min(map(accuracy, runs)), "highest": max(map(accuracy, runs)),
            "plain": _mean([accuracy(run) for run in runs.where(regulariser=PLAIN)]),
        },
    )  # fmt: skip


def best_beats_plain(runs: StudyRuns) -> Evidence:
    """The setting that is best on validation pictures, on test pictures."""

    def gain(same: StudyRuns) -> float:
        best = max(same, key=lambda run: accuracy(run, "validation"))
        return accuracy(best) - accuracy(same.where(regulariser=PLAIN).only)

    return Evidence(runs.per_seed(gain), "test accuracy of the setting best on validation, less the plain network's")


def outputs_agree(runs: StudyRuns) -> Evidence:
    """The twin whose outputs differ most."""

    def digits(same: StudyRuns) -> float:
        worst = max(run.number("logged", "relative_difference") for run in same)
        return math.log10(SAME_OUTPUT / max(worst, 1e-12))

    return Evidence(
        runs.per_seed(digits),
        "decimal digits by which the largest difference of outputs is below 1e-4 of the largest output",
        numbers={f"{r.spec['layer']} {r.spec['target']}": r.number("logged", "relative_difference") for r in runs.where(seed=0)},
    )  # fmt: skip


def must_stay(runs: StudyRuns) -> Evidence:
    """Every statistic of every twin that theory says is left."""

    def room(same: StudyRuns) -> float:
        return STAYS - max(_relative(run, name) for run in same for name in _statistics(run) if _stays(run, name))

    return Evidence(
        runs.per_seed(room),
        "one per mille less the largest relative change of a statistic that theory says stays",
        numbers={"statistics that stay": sum(_stays(run, name) for run in runs for name in _statistics(run)) / len(runs)},
    )  # fmt: skip


def twin_changes(*names: str, margin: float) -> Callable[[StudyRuns], Evidence]:
    """The least change of several statistics, as a logarithm."""

    def check(runs: StudyRuns) -> Evidence:
        def least(same: StudyRuns) -> float:
            return min(abs(math.log(_positive(_after(same.only, n)) / _positive(_before(same.only, n)))) for n in names)

        means = {
            f"{name} {when}": _mean([value(run, name) for run in runs])
            for name in names
            for when, value in (("before", _before), ("after", _after))
        }
        return Evidence(
            runs.per_seed(least), f"least absolute log ratio of {', '.join(names)}, twin over network".replace("_", " "),
            margin=margin, numbers=means,
        )  # fmt: skip

    return check


def _before(run: Run, name: str) -> float:
    return run.number("logged", f"{name}_before")


def _after(run: Run, name: str) -> float:
    return run.number("logged", f"{name}_after")


def _stays(run: Run, name: str) -> bool:
    return run.number("logged", f"{name}_stays") > 0


def _statistics(run: Run) -> list[str]:
    suffix = "_stays"
    return [str(name).removesuffix(suffix) for name in run.record["logged"] if str(name).endswith(suffix)]


def _relative(run: Run, name: str) -> float:
    before, after = _before(run, name), _after(run, name)
    return 0.0 if before == after else abs(after - before) / max(abs(before), abs(after))


def _pair(same: StudyRuns, regulariser: str) -> tuple[Run, Run]:
    """The plain network, and the one of the strongest setting."""
    strong = same.where(regulariser=regulariser, strength="strong").only
    return same.where(regulariser=PLAIN).only, strong


def _of_figure(same: StudyRuns) -> list[Run]:
    names = (PLAIN, "covariance", "rank")
    return [same.where(regulariser=name, strength="strong").only for name in names]


def _figure(runs: StudyRuns) -> dict[str, float]:
    names = (PLAIN, "covariance", "rank")
    strong = runs.where(strength="strong")
    found = {f"accuracy {name}": _mean([accuracy(run) for run in strong.where(regulariser=name)]) for name in names}
    return found | {
        f"correlation {name}": _mean([statistic(run, "correlation") for run in strong.where(regulariser=name)])
        for name in names
    }


def _positive(value: float) -> float:
    return max(abs(value), 1e-12)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


MOVED = {
    "correlation": ("correlation", -1, "the mean absolute correlation"),
    "covariance": ("correlation", -1, "the mean absolute correlation"),
    "variance": ("variance", -1, "the mean variance"),
    "sparsity": ("active", -1, "the share of active outputs"),
    "rank": ("stable_rank_excess", -1, "the stable rank above 1"),
    "rank raised": ("stable_rank_excess", 1, "the stable rank above 1"),
}
"""For each regulariser the statistic that is followed, which way it goes, and what it is called."""

FOLLOWED = ("correlation", "variance", "active", "stable_rank", "stable_rank_centred", "class_correlation", "class_variance", "gdv")  # fmt: skip

GRID = {"part": "grid"}
OURS = "the penalty is a mean over units and pairs, its strongest coefficient was chosen on another seed; a factor of 2 is our margin"


def _moved() -> list[Claim]:
    found = []
    for prefix, before in (("", ""), ("class_", "class-wise ")):
        for plain, (name, sign, words) in MOVED.items():
            regulariser, verb = f"{before}{plain}", "at least halves" if sign < 0 else "at least doubles"
            within = " within classes" if prefix else ""
            of = {**GRID, "regulariser": (PLAIN, regulariser), "strength": "strong"}
            says = f"The {regulariser} regulariser {verb} {words}{within}"
            found.append(Claim(says, FIGURE, moves(f"{prefix}{name}", regulariser, sign), of=of, note=OURS))
    return found


def _twin(layer: str, target: str) -> dict[str, str]:
    return {"part": "twin", "layer": layer, "target": target}


THREE = {**GRID, "regulariser": (PLAIN, "covariance", "rank"), "strength": "strong"}

CLAIMS = (
    *_moved(),
    Claim("With the rank regulariser units are at least twice as correlated as with the covariance regulariser", "figure 1", apart, of=THREE),
    Claim("The plain network and those of figure 1 are within one point of test accuracy", "figure 1: performances are comparable", comparable, of=THREE, note="one point is our margin"),
    *(
        Claim(
            f"Test accuracy does not follow the {name.replace('_', ' ').replace('gdv', 'separation of classes (GDV)')}",
            "abstract: no consistent relationship", does_not_follow(name), of=GRID,
            note="over all regularisers and strengths; an absolute rank correlation below 0.5 is our reading of it",
        )
        for name in FOLLOWED
    ),
    Claim("No setting is farther than two points of test accuracy from the plain network", "not in the paper", within_two_points, of=GRID, note="our control: how much there is to explain"),
    Claim("Trying all regularisers and strengths improves on the plain network", "abstract: performance can be improved by trying all", best_beats_plain, of=GRID, note="chosen on validation pictures"),
    Claim("Identical output networks: the outputs agree to 1e-4", "identical output networks", outputs_agree, of={"part": "twin"}, note="in float32; in float64 a twin is refused beyond 1e-10"),
    Claim("Identical output networks: what theory says is left by the map is left", "identical output networks; theorems of our notes", must_stay, of={"part": "twin"}),
    Claim("A rectified layer has a twin of at least twice or half the variance and stable rank above its mean", "identical output networks with ReLU", twin_changes("variance", "stable_rank_centred", margin=HALF), of=_twin("relu", "rescale"), note="positive factors for each unit, between 0.1 and 10"),
    Claim("A linear layer has a twin without correlations", "identical output networks", twin_changes("correlation", margin=math.log(10)), of=_twin("linear", "whiten"), note="a tenth of the correlation at most"),
    Claim("A linear layer has a twin whose units are at least 1.5 times as correlated", "identical output networks", twin_changes("correlation", margin=math.log(1.5)), of=_twin("linear", "correlate")),
    Claim("A rotation of a linear layer changes correlation and separation of classes (GDV) by at least 5 %", "identical output networks", twin_changes("correlation", "gdv", margin=math.log(1.05)), of=_twin("linear", "rotate"), note="CKA, collapse and kernel bounds of information stay, which another claim checks"),
    Claim("A linear layer has a twin with class-wise correlation and variance changed by at least a fifth", "identical output networks, class-wise statistics", twin_changes("class_correlation", "class_variance", margin=math.log(1.2)), of=_twin("linear", "whiten")),
)  # fmt: skip
