"""What the paper says of the information plane, what was said against it, and how each statement is checked.

Phases are read off one line with one bend, fitted to all seeds together over the logarithm of the epoch (see
`stratoscope.numerics.change_point`); a seed's effect is its own fitted fall from that bend to the end. So a wiggle of
one seed is no phase. Margins are ours and were chosen before the runs. Places are topics and not numbers of figures, as
the paper's text was not at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stratoscope.numerics.change_point import Bend, bend
from stratoscope.studies import Claim, Evidence, Run, StudyRuns
from stratoscope.studies.information_plane.task import SMOOTH, VERTICES, baselines

Array = NDArray[np.float64]

LAST = "hidden5"
"""The last hidden layer, of three units."""
LATE = ("hidden3", "hidden4", "hidden5")
"""Hidden layers that do not stand at the ceiling."""
FALL = 0.5
"""Bits by which I(X;T) falls at least where we speak of compression."""
NOISY_FALL = 0.25
"""The same for I(X;T+N), whose whole range is smaller."""
NEAR = 0.1
"""Bits below the bound that still count as near."""
LEAN = 1.0
"""Bits of I(X;T) beyond what is needed that still count as near."""
FACTOR = 3.0
"""Epochs that differ by less than this factor are about the same."""

PATHS = "layers' paths through the information plane (tanh)"
GRADIENTS = "mean and deviation of the layers' gradients"
DEPTHS = "networks of one to six hidden layers"
BOUND = "converged layers and the information-bottleneck bound"
SAXE = "contested by Saxe et al. (doi:10.1088/1742-5468/ab3985)"
GOLDFELD = "contested by Goldfeld et al. (arXiv:1810.05728)"


def series(run: Run, variable: str, layer: str = LAST) -> tuple[Array, Array]:
    """Epochs from 1 on, and a variable at them; of one layer, where it has them."""
    found = run.array("plane", variable)
    values = np.asarray((found.sel(layer=layer) if "layer" in found.dims else found).values, dtype=np.float64)
    epochs = np.asarray(found["step"].values, dtype=np.float64)
    real = (epochs > 0) & np.isfinite(values)
    return epochs[real], values[real]


def phases(runs: StudyRuns, variable: str = "information_x") -> tuple[Bend, dict[int, float]]:
    """The bend of all seeds together in the last hidden layer, and the fall of each."""
    found = {int(run.spec["seed"]): series(run, variable) for run in runs}
    epochs = next(iter(found.values()))[0]
    curves = np.stack([values for _, values in found.values()])
    one = bend(np.log10(epochs), curves, generator=np.random.default_rng(0))
    return one, dict(zip(found, one.falls, strict=True))


def _about(one: Bend) -> dict[str, float]:
    return {
        "second phase found": float(one.second_phase),
        "epoch of the bend": 10**one.knot,
        "bend not before": 10 ** one.knot_interval[0],
        "bend not after": 10 ** one.knot_interval[1],
        "p-value of the fall": one.p_value,
        "slope before, bits for ten times the epochs": one.slope_before,
        "slope after": one.slope_after,
    }


def _ends(runs: StudyRuns, variable: str = "information_x") -> dict[str, float]:
    curves = np.stack([series(run, variable)[1] for run in runs]).mean(0)
    ends = {"bits at the first epoch": curves[0], "most bits": curves.max(), "bits at the end": curves[-1]}
    return {name: float(bits) for name, bits in ends.items()}


def _accuracy(runs: StudyRuns) -> dict[str, float]:
    mean = float(np.mean([run.number("plane", "test_accuracy") for run in runs]))
    return {"test accuracy": mean} | {f"accuracy, {name}": value for name, value in baselines().items()}


def two_phases(runs: StudyRuns) -> Evidence:
    """A rise, and then a fall."""
    one, falls = phases(runs)
    first = float(np.log10(series(runs[0], "information_x")[0][0]))
    rise = one.slope_before * (one.knot - first)
    told = float(np.mean([series(run, "information_y")[1][-1] for run in runs]))
    return Evidence(
        {seed: min(fall, rise) for seed, fall in falls.items()},
        "fall of I(X;T) after the bend (or the mean rise before it, if that is less)", "bit", FALL,
        _about(one) | _ends(runs) | {"I(T;Y) at the end": told} | _accuracy(runs),
    )  # fmt: skip


def relu_falls_less(runs: StudyRuns) -> Evidence:
    """Less than half of what tanh loses."""
    falls = {}
    for net in ("tanh", "relu"):
        _, falls[net] = phases(runs.where(net=net))
    effect = {seed: falls["tanh"][seed] / 2 - max(0.0, falls["relu"][seed]) for seed in falls["relu"]}
    means = {f"fall, {net}": float(np.mean(list(each.values()))) for net, each in falls.items()}
    return Evidence(
        effect, "half of tanh's fall of I(X;T) less ReLU's (none where it rises)", "bit",
        numbers=means | _accuracy(runs.where(net="relu")),
    )  # fmt: skip


def fall_from(run: Run, variable: str, knot: float) -> float:
    """From the checkpoint nearest to a bend to the end, as measured."""
    epochs, values = series(run, variable)
    return float(values[int(np.argmin(np.abs(np.log10(epochs) - knot)))] - values[-1])


def _falls(runs: StudyRuns, knot: float) -> dict[str, float]:
    names = {"step_x": "each step's range", "information_x": "the run's range", "quantile_x": "equal counts"}
    numbers = {"epoch of the bend": 10**knot}
    for key, name in names.items():
        numbers[f"fall from the bend, {name}"] = float(np.mean([fall_from(run, key, knot) for run in runs]))
        ends = _ends(runs, key)
        numbers[f"fall from the most, {name}"] = ends["most bits"] - ends["bits at the end"]
    return numbers


def bins_widen(runs: StudyRuns) -> Evidence:
    """From the bend of the curve with each step's own bins to the end."""
    knot = phases(runs, "step_x")[0].knot
    growth = [series(run, "largest")[1] for run in runs]

    def added(same: StudyRuns) -> float:
        own = fall_from(same.only, "step_x", knot)
        return min(own, own - fall_from(same.only, "information_x", knot))

    return Evidence(
        runs.per_seed(added),
        "fall of I(X;T) with bins over each step's range, or what it has more than with the run's if that is less", "bit",
        0.1, _falls(runs, knot) | {"growth of the range": float(np.mean([g[-1] / g[0] for g in growth]))},
    )  # fmt: skip


def equal_counts_keep(runs: StudyRuns) -> Evidence:
    """Bins of equal counts follow any increasing function of the activations, such as a saturation."""
    knot = phases(runs)[0].knot
    return Evidence(
        runs.per_seed(
            lambda same: fall_from(same.only, "information_x", knot) / 2 - fall_from(same.only, "quantile_x", knot)
        ),
        "half of the fall of I(X;T) with bins of one width less the fall with bins of equal counts, from one bend", "bit",
        numbers=_falls(runs, knot)
        | {"saturated at the end": float(np.mean([series(run, "saturation")[1][-1] for run in runs]))},
    )  # fmt: skip


def noisy_falls(runs: StudyRuns) -> Evidence:
    """With real noise I(X;T) is well defined."""
    one, falls = phases(runs, "noisy_x")
    error = max(float(series(run, "noisy_x_se")[1].max()) for run in runs)
    return Evidence(
        falls, "fall of I(X;T+N) after its bend, noise of variance 0.01", "bit", NOISY_FALL,
        _about(one) | _ends(runs, "noisy_x") | {"largest standard error of a drawing": error},
    )  # fmt: skip


def _signal(run: Run) -> tuple[Array, Array]:
    """Epochs, and the geometric mean over layers of the gradient's signal-to-noise ratio."""
    found = run.array("plane", "gradient_snr")
    values = np.exp(np.log(np.maximum(found.values, 1e-12)).mean(found.get_axis_num("layer")))
    return np.asarray(found["step"].values, dtype=np.float64), values


def drift_then_diffusion(runs: StudyRuns) -> Evidence:
    """Above 1 at first and below 1 at last, on the logarithm's scale."""

    def both(same: StudyRuns) -> float:
        _, values = _signal(same.only)
        return min(math.log10(values.max()), -math.log10(values[-1]))

    curves = np.stack([_signal(run)[1] for run in runs])
    found = {"at the start": curves[:, 0], "most": curves.max(1), "at the end": curves[:, -1]}
    numbers = {name: float(values.mean()) for name, values in found.items()} | {"what 6 batches of noise read": 6**-0.5}
    return Evidence(
        runs.per_seed(both),
        "lesser of log10 of the largest and -log10 of the last signal-to-noise ratio",
        numbers=numbers,
    )


def turns_with_the_gradient(runs: StudyRuns) -> Evidence:
    """The epoch at which the ratio falls below 1 and that at which I(X;T) begins to fall."""
    one, _ = phases(runs)

    def crossing(same: StudyRuns) -> float:
        epochs, values = _signal(same.only)
        peak = int(np.argmax(values))
        below = np.flatnonzero(values[peak:] < 1)
        return float(epochs[peak + below[0]] if len(below) else epochs[-1])

    crossings = runs.per_seed(crossing)
    return Evidence(
        {seed: math.log10(FACTOR) - abs(math.log10(epoch) - one.knot) for seed, epoch in crossings.items()},
        "log10 of 3 less the distance of both epochs on a log10 scale",
        numbers={
            "epoch of the bend": 10**one.knot,
            "epoch of the crossing (the last where there is none), median": float(np.median(list(crossings.values()))),
        },
    )


def more_layers_fewer_epochs(runs: StudyRuns) -> Evidence:
    """The slope of the epochs' logarithm over the number of hidden layers."""

    def slope(same: StudyRuns) -> float:
        ordered = same.sorted("depth")
        epochs = [math.log10(max(1.0, run.number("plane", "epochs"))) for run in ordered]
        return -float(np.polyfit([run.spec["depth"] for run in ordered], epochs, 1)[0])

    numbers = {}
    for depth, some in runs.by("depth"):
        numbers[f"{depth} hidden: median epochs"] = float(np.median([run.number("plane", "epochs") for run in some]))
        numbers[f"{depth} hidden: share that got there"] = float(
            np.mean([run.number("plane", "reached") for run in some])
        )
    return Evidence(
        runs.per_seed(slope), "fall of log10 of the epochs to a test accuracy of 0.9 for each further hidden layer",
        numbers=numbers,
    )  # fmt: skip


def _at_the_end(run: Run, variable: str) -> float:
    return float(np.mean([run.number("plane", variable, layer=layer) for layer in LATE]))


def near_the_bound(variable: str, most: float, what: str) -> Callable[[StudyRuns], Evidence]:
    """Mean over the late hidden layers at the end."""

    def check(runs: StudyRuns) -> Evidence:
        numbers = {f"{layer}: {variable}": float(np.mean([run.number("plane", variable, layer=layer) for run in runs])) for layer in LATE}  # fmt: skip
        return Evidence(
            runs.per_seed(lambda same: most - _at_the_end(same.only, variable)),
            f"{most:g} bits less {what}, mean of the last three hidden layers at the end", "bit",
            numbers=numbers | _accuracy(runs),
        )  # fmt: skip

    return check


def first_layers_say_nothing(runs: StudyRuns) -> Evidence:
    """Every pattern has a cell of its own at every checkpoint."""

    def room(same: StudyRuns) -> float:
        bits = [series(same.only, "information_x", layer)[1] for layer in ("hidden1", "hidden2")]
        return 0.05 - (VERTICES - float(np.min(bits)))

    furthest = max(0.05 - value for value in runs.per_seed(room).values())
    return Evidence(
        runs.per_seed(room), "0.05 bits less the largest distance of I(X;T) from 12 bits, first two layers, all checkpoints",
        "bit", numbers={"largest distance of all seeds": furthest},
    )  # fmt: skip


def _bound_claims() -> list[Claim]:
    made = []
    for gamma, bits in zip(SMOOTH, ("0.99", "0.86"), strict=True):
        where, of = f"{BOUND}; labels smoothed to {bits} bits", {"part": "smooth", "gamma": gamma}
        made += [
            Claim(
                f"Converged layers know about the label what the bound allows, at I(X;Y) = {bits} bits", where,
                near_the_bound("missing", NEAR, "the bits of I(T;Y) below the bound"), of=of,
                note="Bins of one width over the run's range. The paper's smoothing is not published; gamma is ours.",
            ),
            Claim(
                f"Converged layers keep no more of the input than that needs, at I(X;Y) = {bits} bits", where,
                near_the_bound("surplus", LEAN, "the bits of I(X;T) beyond the bound"), of=of,
                note="The second half of lying near the bound. I(X;T) is set by the bins, and grows with their number.",
            ),
        ]  # fmt: skip
    return made


TANH, RELU = {"part": "plane", "net": "tanh"}, {"part": "plane", "net": "relu"}

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "The last hidden layer of a tanh network fits first and compresses then", PATHS, two_phases, of=TANH,
        note="30 bins on [-1, 1], as the authors' code. Half of the paper's epochs in the analogue.",
    ),
    Claim(
        "The last hidden layer of a ReLU network fits first and compresses then", f"the same for ReLU; {SAXE}",
        two_phases, expected=False, of=RELU,
        note="30 bins over the range of the whole run, which hardly see the layer while its activations are small.",
    ),
    Claim(
        "ReLU compresses less than half as much as tanh", SAXE, relu_falls_less, of={"part": "plane"},
        note="Both with 30 bins over the range of the whole run.",
    ),
    Claim(
        "Bins that widen with the activations add to what looks like compression in ReLU networks", SAXE, bins_widen, of=RELU,
        note="Bins over the run's range hardly see a layer while its activations are small, so that their rise is none of "
        "fitting. Bins over a step's range do not change where all activations grow alike.",
    ),
    Claim(
        "The compression of tanh is its saturation: bins of equal counts do not see half of it", SAXE, equal_counts_keep,
        of=TANH, note="Equal-count bins do not change under an increasing function of the activations. The fall is that after the bend of "
        "the curve with bins of one width; an earlier one, if there is any, is among the numbers.",
    ),
    Claim(
        "A tanh layer with noise added compresses", f"{PATHS}; {GOLDFELD}", noisy_falls, of=TANH,
        note="The network is trained without noise; noise of one variance is added when it is measured.",
    ),
    Claim(
        "A ReLU layer with noise added compresses", GOLDFELD, noisy_falls, expected=False, of=RELU,
        note="Activations without bounds grow beside a noise that does not.",
    ),
    Claim("The gradient goes from drift to diffusion: its signal falls below its noise (tanh)", GRADIENTS, drift_then_diffusion, of=TANH),
    Claim(
        "ReLU networks go from drift to diffusion as well", SAXE, drift_then_diffusion, of=RELU,
        note="If they do and do not compress, diffusion is not what compresses.",
    ),
    Claim("Compression begins where the gradient's signal falls below its noise (tanh)", GRADIENTS, turns_with_the_gradient, of=TANH,
          note="Within a factor of 3 in epochs."),
    Claim(
        "More hidden layers need fewer epochs", DEPTHS, more_layers_fewer_epochs, of={"part": "depth"},
        note="Hidden widths 12, 10, 8, 6, 4, of which a network has the first. Runs that do not get to a test accuracy of 0.9 "
        "count with all epochs of the budget.",
    ),
    *_bound_claims(),
    Claim(
        "The first two layers stand at 12 bits of I(X;T) throughout, whatever they learn", f"{PATHS}; {GOLDFELD}",
        first_layers_say_nothing, of=TANH, note="A ceiling: it tells nothing of these layers.",
    ),
)  # fmt: skip
