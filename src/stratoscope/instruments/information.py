r"""Information plane: what bins, kernels, drawn noise and nearest neighbours say a layer tells about inputs and labels.

A deterministic network maps equal inputs to equal activations $T$, so the true $I(X;T)$ is $H(X)$ at every layer that
does not merge inputs, or infinite for continuous ones (Goldfeld et al., arXiv:1810.05728). What is plotted as $I(X;T)$
is a property of the estimator: of how activations **cluster** on the scale of its bins or of its noise. So each number
stands here beside its estimator, its parameter, its ceiling and, for labels, what shuffled labels read. All in bits.

| quantity | definition | range |
|---|---|---|
| `information_x` | $H(\text{bin } T)$: plug-in entropy of cells, `bins` of one width over `bin_low` to `bin_high` | 0 to its ceiling |
| `information_x_low`, `_high` | least and most of it over the numbers of bins in `sweep` | |
| `information_x_ceiling` | $\min(\log_2 n, H(X))$ | |
| `information_y` | $I(\text{bin } T; Y)$, plug-in; `_low` and `_high` over the sweep, `_ceiling` is $H(Y)$ | 0 to $H(Y)$ |
| `information_y_null`, `_null_sd` | its mean and deviation under shuffled labels | |
| `information_y_debiased`, `_z`, `_p` | `information_y` less `_null`; deviations from it; how often shuffles read as much | about 0 on noise |
| `information_x_miller_madow`, `information_y_miller_madow` | with the correction for cells that were missed | |
| `singletons`, `cells` | share of occupied cells that hold one example; occupied cells | 0 to 1 |
| `uninformative` | 1 where `singletons` exceeds its setting, or `information_x` is `within` bits of its ceiling | 0, 1 |
| `sweep_x`, `sweep_y`, `sweep_y_debiased`, `sweep_singletons` | by `rule` (bins of one width, bins of equal counts) and number of `bins` | |
| `quantile_x`, `quantile_y_debiased` | with `bins` bins of equal counts of all the layer's numbers | |
| `fixed_x`, `fixed_y_debiased` | with bins of the width `bin_width`, whatever the range | |
| `noisy_x` | $I(X;T+N)$ with Gaussian noise of `noise_variance` on each unit, by Monte Carlo | 0 to $\log_2 n$ |
| `noisy_x_low`, `noisy_x_high` | lower and upper kernel bound of the same (Kolchinsky and Tracey, arXiv:1706.02419) | |
| `noisy_y`, `_low`, `_high` | $I(T+N;Y)$, drawn and bounded | 0 to $H(Y)$ |
| `noisy_x_error`, `noisy_y_error` | standard errors of the drawing | |
| `noisy_y_null`, `_null_sd`, `_z` | mean and deviation of `noisy_y` under shuffled labels; deviations from it | |
| `noisy_uninformative` | 1 where the noise joins no points: `noisy_x` is `within` bits of $\log_2 n$ | 0, 1 |
| `label_z` | the largest of the deviations from shuffled labels, over bins and noise that are informative | |
| `kernel_y_upper`, `kernel_y_lower` | difference of the upper bounds of whole and classes, and of the lower ones: **no bounds** | |
| `neighbour_y`, `neighbour_status` | $I(T;Y)$ by nearest neighbours (Ross), where that is valid, and whether it is | |
| `saturation` | share of activations with under a tenth of the nonlinearity's largest slope; a rectifier's zeros | 0 to 1 |
| `within_distance`, `between_distance` | mean distance within and between classes of standardised units, over $\sqrt D$ | |
| `bin_low`, `bin_high`, `bin_range`, `outside` | the bins' range, where it comes from, and the share of numbers outside it | |

**Range of the bins.** `"step"`: from the least to the largest number of that layer at that step. Bins then widen as
activations grow, which alone makes the entropy fall. `"activation"`: the bounds of a bounded nonlinearity, and the step's
range elsewhere. A pair `(low, high)`, or `"low:high"` in a settings file, is taken for all layers. `ranges` has the range of each layer over a whole run, which
stands in for the step's: `stratoscope.observe.plane.information_plane` goes through a series of checkpoints twice and
sets it.

**What it means.** A fall of `information_x` says that examples moved into the same bins, which a saturating nonlinearity
does by itself (Saxe et al., doi:10.1088/1742-5468/ab3985): equal-count bins do not see it, since they do not change under
an increasing function. `information_y_debiased` is what labels share with the cells beyond chance.

**When it misleads.** With many units every example has a cell of its own: `information_x` is $\log_2 n$ and
`information_y` is $H(Y)$, whatever the layer does (`uninformative`). The value of `noisy_x` is set by the variance, which
is why there are several. Absolute numbers of two layers of different width or scale cannot be compared. Repeated
positions of one image (`pooling="spatial"`) are rows of one input: kernel bounds of `noisy_x` are left out there, and
labels are shuffled by image. Where the sample is every possible input, plug-in entropies are exact, and Miller and
Madow's correction does not apply.

**What to do.** Speak of compression only where estimators agree, over several seeds, and `saturation` does not explain it.

Source: Shwartz-Ziv and Tishby, arXiv:1703.00810.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from stratoscope.capture.activations import Activations
from stratoscope.capture.needs import Need
from stratoscope.capture.pairs import VARIANCES, ClassDistances, KernelSums
from stratoscope.capture.unit_counts import BOUNDED, UnitCounts
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Finding
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.information_findings import findings_of
from stratoscope.instruments.information_numbers import RANGES, numbers_of
from stratoscope.numerics.matrices import not_finite
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from torch import Tensor

    from stratoscope.capture.activations import Sample
    from stratoscope.capture.unit_counts import UnitTally
    from stratoscope.capture.views import LayerView
    from stratoscope.numerics.separation import ClassSeparation
    from stratoscope.record.group import Group


@dataclass(frozen=True)
class Information(LayerInstrument):
    """What each layer's activations tell about inputs and labels, by several estimators side by side.

    Attributes:
        n: examples kept at most.
        pooling: `"gap"`, the mean over positions, `"flatten"` or `"spatial"`.
        width: units kept at most; wider activations are projected.
        bins: how many bins for the numbers in front.
        sweep: other numbers of bins, for the band.
        bin_width: of the bins of fixed width.
        bin_range: `"step"`, `"activation"`, or a pair `(low, high)`, which is kept as the text `"low:high"`.
        ranges: `(layer, low, high)` for layers whose range over a whole run is known; taken in place of the step's.
        variances: of the noise, as in `KernelSums`; an empty tuple for bins alone, at a fraction of the cost.
        draws: places to draw for the noise; 0 for kernel bounds alone.
        distances: whether to look at mean distances within and between classes.
        widest: units up to which nearest neighbours are asked.
        permutations: shuffles of the labels for the null, at most 8 of them along the sweep; without at least 2 nothing is
            judged against noise.
        seed: of shuffles and noise.
        singletons: share of cells with one example from which a layer's bins say nothing.
        within: bits from the ceiling within which they say nothing.
        noise_z: how many deviations above shuffled labels count as information; of errors, as a movement.
        fall: bits by which bins have to move for a disagreement of estimators to be told.
        against: bits by which another estimator has to move the other way.
        spill: share of numbers outside the bins' range from which a tip is given.
    """

    key: ClassVar[str] = "information"
    title: ClassVar[str] = "Information plane"
    source: ClassVar[str] = "arXiv:1703.00810"
    codes: ClassVar[Mapping[str, str]] = {
        "IN001": "a layer's bins hold about one example each, so that their entropy says nothing about the layer",
        "IN002": "what a layer tells about the labels is no more than it tells about shuffled labels",
        "IN003": "estimators disagree about the direction in which a layer moved",
        "IN004": "many activations lie outside the range of the bins",
    }
    dims: ClassVar[Mapping[str, str]] = {
        "rule": "how bins are cut: into one width, or to equal counts",
        "bins": "number of bins",
        "noise": "variance of the Gaussian noise on each unit, absolute or relative to that of the units",
    }

    n: int = 1000
    pooling: str = "gap"
    width: int = 4096
    bins: int = 30
    sweep: tuple[int, ...] = (10, 16, 26, 43, 70, 113, 185, 300)
    bin_width: float = 0.07
    bin_range: str | tuple[float, float] = "step"
    ranges: tuple[tuple[str, float, float], ...] = ()
    variances: tuple[tuple[str, float], ...] = VARIANCES
    draws: int = 64
    distances: bool = True
    widest: int = 3
    permutations: int = 20
    seed: int = 0
    singletons: float = 0.9
    within: float = 0.05
    noise_z: float = 3.0
    fall: float = 0.5
    against: float = 0.1
    spill: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.bin_range, tuple | list):  # as text it can be written to a file and read back
            object.__setattr__(self, "bin_range", ":".join(map(str, self.bin_range)))
        ends = self._ends
        if self.bin_range not in RANGES[:2] and not (ends is not None and -math.inf < ends[0] < ends[1] < math.inf):
            raise SettingError(
                f"Information(bin_range={self.bin_range!r}): choose 'step', 'activation', a pair (low, high) or 'low:high'."
            )
        if min(self.bins, *self.sweep) < 2 or not self.bin_width > 0 or self.permutations < 0 or self.draws in (-1, 1):
            raise SettingError(
                f"Information(bins={self.bins}, sweep={self.sweep}, bin_width={self.bin_width}, "
                f"permutations={self.permutations}, draws={self.draws}): give 2 bins or more, a width above 0, 0 or more "
                "shuffles, and 0 or at least 2 draws."
            )

    @property
    def _ends(self) -> tuple[float, float] | None:
        """The ends of a stated range."""
        parts = str(self.bin_range).split(":")
        try:
            return (float(parts[0]), float(parts[1])) if len(parts) == 2 else None
        except ValueError:
            return None

    @property
    def requires(self) -> set[Need]:
        """A sample of the layer's activations, and kernels between its examples unless there is no noise to look through."""
        return {self._need} if self._kernels is None else {self._need, self._kernels}

    @property
    def uses(self) -> set[Need]:
        """How often units are saturated, and distances within and between classes."""
        return {UnitCounts(), ClassDistances(self._need)} if self.distances else {UnitCounts()}

    @property
    def _need(self) -> Activations:
        return Activations(n=self.n, width=self.width, pooling=self.pooling)

    @property
    def _kernels(self) -> KernelSums | None:
        return KernelSums(self._need, self.variances) if self.variances else None

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """All estimators at one layer."""
        sample: Sample = view[self._need]
        if bad := not_finite(sample.features):
            raise NotApplicable(f"{bad:,} of {sample.features.numel():,} numbers that it gives are NaN or infinite")
        if len(sample.features) < 2 or sample.features.shape[1] == 0:
            n, width = sample.features.shape
            raise NotApplicable(f"{n} example of {width} numbers; two examples of one are needed")
        span = self._span(view, sample.features)
        kernels = None if self._kernels is None else view[self._kernels]
        # layers that give the same share one sample, and most of what follows from it
        found = dict(sample.worked_out.once((self, span), lambda: numbers_of(self, sample, kernels, span)))
        found["saturation"] = quantity(
            _saturation(view.get(UnitCounts())), units="1", valid_min=0.0, valid_max=1.0,
            long_name="share of activations with less than a tenth of the largest slope",
        )  # fmt: skip
        if sample.labels is not None and self.distances:
            found |= _distances(view.get(ClassDistances(self._need)))
        return found

    def _span(self, view: LayerView, features: Tensor) -> tuple[float, float, str]:
        """The bins' range at a layer, and where it comes from."""
        if self._ends is not None:
            return *self._ends, "given"
        bounds = _bounds(view) if self.bin_range == "activation" else None
        if bounds is not None:
            return *bounds, "activation"
        for layer, low, high in self.ranges:
            if layer == view.layer.name:
                return low, high, "run"
        least, most = torch.aminmax(features)
        return float(least), float(most), "step"

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Where bins say nothing, labels are within their null, estimators disagree, or bins miss the activations."""
        return findings_of(self, measured)


def _bounds(view: LayerView) -> tuple[float, float] | None:
    """The natural bounds of a layer's nonlinearity."""
    module, activation = view.layer.module, view.layer.activation
    if isinstance(module, torch.nn.Hardtanh):
        return float(module.min_val), float(module.max_val)
    return (0.0, 1.0) if activation == "softmax" else BOUNDED.get(activation or "")


def _saturation(tally: UnitTally | None) -> float:
    """Share of all counted activations that are not in the active band; NaN where that says nothing of slopes."""
    if tally is None or tally.leaky or not (tally.has_bounds or tally.one_sided):
        return math.nan
    return 1.0 - float(tally.active.sum()) / (tally.positions * len(tally.active))


def _distances(found: ClassSeparation | None) -> dict[str, Quantity]:
    within = float(np.mean(found.intra)) if found is not None else math.nan
    between = within - found.gdv if found is not None else math.nan
    what = "of standardised units, over the root of the width"
    return {
        "within_distance": quantity(within, units="1", long_name=f"mean distance within classes {what}", chart="none"),
        "between_distance": quantity(
            between, units="1", long_name=f"mean distance between classes {what}", chart="none"
        ),
    }
