r"""Statistics of activations: correlation, variance, sparsity, ranks and tails of each layer, whole and within classes.

Of a sample of $n$ examples and $D$ units, the matrix $A$ with entries $a_{ij}$:

| quantity | definition | without structure |
|---|---|---|
| `correlation` | mean $\vert r\vert$ (Pearson) over pairs of units that are not constant | `correlation_null`: $\Gamma(\frac{n-1}{2})/(\sqrt{\pi}\,\Gamma(\frac{n}{2})) \approx \sqrt{2/(\pi n)}$ |
| `variance` | population variance, mean over units | |
| `largest_variance_share` | largest variance over the sum of all | $1/D$ if all are alike |
| `sparsity` | share of exact zeros | |
| `near_zero_share` | share of $\vert a\vert \le$ `near` $\cdot \max\vert a\vert$ | |
| `always_zero_share` | units that are zero for every example | |
| `never_zero_share` | units that are zero for none; only where nothing is below zero | |
| `constant_share` | units that do not vary beyond rounding, dead ones among them | |
| `kurtosis` | fourth moment over squared variance, mean over units | `kurtosis_null`: $3(n-1)/(n+1)$, Gaussian |
| `massive` | $\max\vert a\vert$ over the median of what is not zero | `massive_null`: as many Gaussian numbers |
| `rank` | singular values $s_i$ above $s_1 \max(n, D)\,\varepsilon$ | `rank_ceiling`: $\min(n, D)$ |
| `stable_rank` | $\Vert A\Vert _F^2 / \Vert A\Vert _2^2$ | |
| `effective_rank` | $\exp H(s / \sum s)$ | |
| `..._centred` | the same after each unit's mean is taken off | `..._null`: each unit's examples shuffled apart |
| `class_...` | correlation, variance, sparsity and ranks within each class, mean over classes | `class_..._null`: classes of the same sizes at random; none of raw ranks |

$\varepsilon$ is that of the type in which activations were kept, float32 at least. `uninformative` is 1 where the
examples and not the units bound the ranks: the centred rank is $n - 1$.

**What it means.** Raw ranks see the mean of the activations as a direction of its own, often the largest: behind a ReLU
the raw stable rank is mostly near 1 and says nothing more. Centred ranks speak of how the examples differ. Within
classes, a class that is more correlated, less varied or of lower rank than a random one is what class structure is.
For classes drawn at random the variance is $S^2 (1 - \overline{1/n_c})$ and the sparsity that of all; the null of the
others is one draw, of up to five classes.

**When it misleads.** None of these numbers explains performance by itself: where a layer feeds a linear map, an
invertible map of the layer and its inverse in the next weight change each of them, and no output. Pooled maps are
means over positions: they are zero only where the whole map is, and less heavy-tailed than single positions.
Activations that are wider than `width` are projected; then units are mixtures, and everything that speaks of units is
NaN, while variance and ranks are right on average. Effective rank grows with `n` until `n` is many times the width:
compare it at equal `n`. With two examples a class, every correlation within it is 1. With `"spatial"` pooling the
rows of one example are not independent, and independent units read more than `correlation_null`.

**What to do.** Read them beside their nulls and ceilings. Constant units, a layer that says one number in many units,
or single outputs thousands of times the usual size are worth a look at the initialisation, the norm before them and
the numbers' precision.

Source: Choi et al., arXiv:1811.03666; effective rank, Roy and Vetterli, doi:10.5281/zenodo.40328; stable rank,
arXiv:math/0503442; massive activations, Sun et al., arXiv:2402.17762.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from stratoscope.capture.activations import Activations
from stratoscope.capture.needs import Need
from stratoscope.errors import NotApplicable
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.reading import At, by_split, passed_if_silent, together
from stratoscope.numerics.activation_statistics import ActivationStatistics, Ranks, activation_statistics
from stratoscope.numerics.class_statistics import ClassStatistics, class_statistics, random_classes
from stratoscope.numerics.matrices import not_finite
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.capture.activations import Sample
    from stratoscope.capture.views import LayerView
    from stratoscope.record.group import Group

RANDOM_CLASSES = 5
"""Classes that are drawn at random for the null."""

READ = (
    "variance", "n", "width", "classes", "correlation", "correlation_null", "constant_share", "always_zero_share",
    "effective_rank_centred", "effective_rank_centred_null", "massive", "massive_null", "largest",
)  # fmt: skip
"""What judgements read; the first is there wherever anything is."""

_HEADLINES = {"correlation": 1, "effective_rank_centred": 2, "sparsity": 3}
_ASIDE = ("near_zero_share", "largest", "rank_ceiling", "rank_centred_ceiling")


@dataclass(frozen=True)
class Statistics(LayerInstrument):
    """Correlation, variance, sparsity, ranks and tails of each layer's activations, whole and within classes.

    Attributes:
        n: examples kept at most.
        pooling: `"gap"`, the mean over positions, `"flatten"`, or `"spatial"`: positions are rows of their own.
        width: units kept at most; wider activations are projected, and then nothing is said of units.
        near: share of the largest output up to which one counts as nearly zero.
        most_units: units among which correlations are taken at most, drawn by seed.
        seed: of that draw and of the shuffles.
        constant_limit: share of constant units, dead ones left out, from which a tip is given.
        correlation_limit: mean correlation from which a tip is given.
        rank_limit: effective rank, over that of the same units shuffled apart, up to which a tip is given.
        massive_limit: largest over median output from which a tip is given, if the largest is at least `large`.
        large: size of an output below which none counts as massive.
        min_n: examples below which nothing is judged.
        min_units: units below which correlation and rank are not judged: few units, as of an output, cannot be diverse.
    """

    key: ClassVar[str] = "statistics"
    title: ClassVar[str] = "Activation statistics"
    source: ClassVar[str] = "arXiv:1811.03666"
    codes: ClassVar[Mapping[str, str]] = {
        "AS001": "units give the same number for every example, and not zero",
        "AS002": "the units of a layer are strongly correlated",
        "AS003": "the activations of a layer lie along very few directions",
        "AS004": "single activations are thousands of times as large as the others",
        "AS005": "too few examples to judge activations",
    }

    n: int = 1000
    pooling: str = "gap"
    width: int = 4096
    near: float = 1e-3
    most_units: int = 256
    seed: int = 0
    constant_limit: float = 0.1
    correlation_limit: float = 0.7
    rank_limit: float = 0.05
    massive_limit: float = 1000.0
    large: float = 100.0
    min_n: int = 30
    min_units: int = 10

    @property
    def requires(self) -> set[Need]:
        """A sample of the layer's activations."""
        return {self._need}

    @property
    def _need(self) -> Activations:
        return Activations(n=self.n, width=self.width, pooling=self.pooling)

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """Statistics of one layer's sample; within classes only where there are labels and two examples of one."""
        sample: Sample = view[self._need]
        if bad := not_finite(sample.features):
            raise NotApplicable(f"{bad:,} of {sample.features.numel():,} numbers that it gives are NaN or infinite")
        if len(sample.features) < 2 or sample.features.shape[1] == 0:
            raise NotApplicable(f"a layer of shape {tuple(sample.features.shape)}; two examples and a unit are needed")
        settings = (self.near, self.most_units, self.seed)
        whole = sample.worked_out.once((activation_statistics, settings), lambda: self._whole(sample))
        found = self._quantities(whole, sample)
        if sample.labels is not None and len(sample.labels.unique()) < len(sample.labels):
            own, null = sample.worked_out.once((class_statistics, settings), lambda: self._within(sample))
            found |= self._class_quantities(own, null, whole, sample)
        return found

    def _whole(self, sample: Sample) -> ActivationStatistics:
        return activation_statistics(sample.features, near=self.near, most_units=self.most_units, seed=self.seed)

    def _within(self, sample: Sample) -> tuple[ClassStatistics, ClassStatistics]:
        assert sample.labels is not None
        own = class_statistics(sample.features, sample.labels, most_units=self.most_units, seed=self.seed)
        null = class_statistics(
            sample.features, random_classes(sample.labels, self.seed), most_units=self.most_units,
            most_classes=RANDOM_CLASSES, seed=self.seed,
        )  # fmt: skip
        return own, null

    def _quantities(self, found: ActivationStatistics, sample: Sample) -> dict[str, Quantity]:
        n, width = found.n, found.units
        of_units: dict[str, tuple[float, str]] = {
            "correlation": (found.correlation, "mean absolute correlation between units"),
            "correlation_null": (found.correlation_null, "mean absolute correlation between independent units"),
            "largest_variance_share": (found.largest_variance_share, "largest variance of a unit over the sum of all"),
            "sparsity": (found.sparsity, "share of outputs that are exactly zero"),
            "near_zero_share": (found.near_zero, f"share of outputs of at most {self.near:g} times the largest"),
            "always_zero_share": (found.dead / width, "share of units that are zero for every example"),
            "never_zero_share": (found.undead / width, "share of units that are zero for no example"),
            "constant_share": (found.constant / width, "share of units that do not vary"),
            "kurtosis": (found.kurtosis, "kurtosis of a unit over the examples, mean over units"),
            "kurtosis_null": (found.kurtosis_null, "kurtosis of Gaussian units"),
            "massive": (found.massive, "largest over median output, in size, of those that are not zero"),
            "massive_null": (found.massive_null, "largest over median of as many Gaussian numbers"),
            "largest": (found.largest, "largest output in size"),
        }
        numbers: dict[str, tuple[float, str]] = {
            "variance": (found.variance * _mixing(sample), "variance of a unit, mean over units"),
            "rank_ceiling": (min(n, width), "the rank that so many examples and units allow"),
            "rank_centred_ceiling": (min(n - 1, width), "the centred rank that so many examples and units allow"),
            **_ranks("", found.raw, "activations"),
            **_ranks("_centred", found.centred, "activations around their mean"),
            **_ranks("_centred_null", found.shuffled, "activations if their units had nothing in common"),
        }
        counts: dict[str, tuple[float, str]] = {
            "n": (n, "examples counted"),
            "width": (width, "units counted"),
            "constant_units": (found.constant, "units that do not vary, left out of correlations"),
            "uninformative": (int(found.centred.numerical == n - 1), "the examples bound the ranks, not the units"),
        }
        numbers.pop("rank_centred_null")  # shuffling changes no rank but by accident
        return {
            **_quantities_of(of_units, _spoiled(sample)),
            **_quantities_of(numbers, {"note": sample.note}),
            **_quantities_of(counts, {"note": sample.note, "chart": "none"}),
        }

    def _class_quantities(
        self, own: ClassStatistics, null: ClassStatistics, whole: ActivationStatistics, sample: Sample
    ) -> dict[str, Quantity]:
        mixing = _mixing(sample)
        of_units: dict[str, tuple[float, str]] = {
            "class_correlation": (own.correlation, "mean absolute correlation between units within a class"),
            "class_correlation_null": (null.correlation, "the same within classes drawn at random"),
            "class_sparsity": (own.sparsity, "share of outputs of a class that are exactly zero"),
            "class_sparsity_null": (whole.sparsity, "the same within classes drawn at random"),
        }
        expected = whole.variance * whole.n / (whole.n - 1) * own.freedom
        numbers: dict[str, tuple[float, str]] = {
            "class_variance": (own.variance * mixing, "variance of a unit within a class, mean over units"),
            "class_variance_null": (expected * mixing, "the same within classes drawn at random"),
            **_ranks("", own.raw, "activations of a class", "class_"),
            **_ranks("_centred", own.centred, "activations of a class around its mean", "class_"),
            **_ranks("_centred_null", null.centred, "activations of a random class around its mean", "class_"),
        }
        counts: dict[str, tuple[float, str]] = {
            "classes": (own.classes, "classes counted"),
            "skipped_classes": (own.skipped, "classes with a single example, left out"),
        }
        return {
            **_quantities_of(of_units, _spoiled(sample)),
            **_quantities_of(numbers, {"note": sample.note}),
            **_quantities_of(counts, {"note": sample.note, "chart": "none"}),
        }

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Constant, redundant and massive activations, and layers of few directions; at the last step."""
        yield from passed_if_silent(self, self._judge(measured), self._checked(measured), measured)

    def _checked(self, measured: Group) -> list[str]:
        """Codes that could be looked at: examples enough, and units that are not mixtures."""
        layers = [at for layers in by_split(measured, *READ) for at in layers if at["n"] >= self.min_n]
        of_units = [at for at in layers if math.isfinite(at["constant_share"])]
        several = any(at["width"] >= self.min_units for at in layers)
        alike = any(at["width"] >= self.min_units for at in of_units)
        return [
            *(["AS001"] if of_units else []),
            *(["AS002"] if alike else []),
            *(["AS003"] if several else []),
            *(["AS004"] if of_units else []),
        ]

    def _judge(self, measured: Group) -> Iterator[Finding]:
        for layers in by_split(measured, *READ):
            few = [at for at in layers if at["n"] < self.min_n]
            if few:
                fewest = min(few, key=lambda at: at["n"])
                yield self.finding(
                    "AS005", Outcome.SKIPPED, f"{fewest['n']:.0f} examples are too few to judge activations",
                    step=fewest.step, split=fewest.split, do=f"probe at least {self.min_n} examples",
                    limit=self.min_n, n=int(fewest["n"]),
                )  # fmt: skip
            enough = [at for at in layers if at["n"] >= self.min_n]
            several = [at for at in enough if at["width"] >= self.min_units]
            yield from self._constant(enough)
            yield from self._correlated(several)
            yield from self._narrow(several)
            yield from self._massive(enough)

    def _constant(self, layers: list[At]) -> Iterator[Finding]:
        """Dead units are left out: the census of units speaks of them."""
        found = [at for at in layers if _still(at) >= self.constant_limit]
        yield from together(
            self, "AS001", found, _still, len(layers), "has units that say one number other than zero",
            lambda at: f"{_still(at):.0%} of {at['width']:.0f} units on {at['n']:.0f} examples",
            do="look at the bias and the norm before them, and at saturation; they can be folded into the next bias",
            evidence=lambda at: {"share": _still(at), "limit": self.constant_limit, "n": int(at["n"])},
        )  # fmt: skip

    def _correlated(self, layers: list[At]) -> Iterator[Finding]:
        def correlation(at: At) -> float:
            return at["correlation"]

        # few examples make independent units look alike, too
        found = [at for at in layers if at["correlation"] >= max(self.correlation_limit, 2 * at["correlation_null"])]
        yield from together(
            self, "AS002", found, correlation, len(layers), "has units that largely repeat each other",
            lambda at: f"mean |r| {at['correlation']:.2f}, independent units {at['correlation_null']:.2f}",
            do="fewer units may do: try it; correlation alone says nothing about performance",
            evidence=lambda at: {
                "correlation": at["correlation"], "null": at["correlation_null"], "limit": self.correlation_limit,
                "n": int(at["n"]),
            },
        )  # fmt: skip

    def _narrow(self, layers: list[At]) -> Iterator[Finding]:
        """Fewer directions than separate the classes, where these are known: `C - 1` are a classifier's aim."""
        found = [
            at
            for at in layers
            if _used(at) <= self.rank_limit and not at["effective_rank_centred"] >= at["classes"] - 1
        ]
        yield from together(
            self, "AS003", found, lambda at: -_used(at), len(layers), "varies along very few directions",
            lambda at: f"effective rank {at['effective_rank_centred']:.1f} of {at['width']:.0f} units; "
            f"{at['effective_rank_centred_null']:.1f} if they had nothing in common",
            do="look for a collapsed representation: the initialisation, the norm, and the scale of the inputs",
            evidence=lambda at: {
                "effective_rank": at["effective_rank_centred"], "null": at["effective_rank_centred_null"],
                "share": _used(at), "limit": self.rank_limit, "width": int(at["width"]), "n": int(at["n"]),
            },
        )  # fmt: skip

    def _massive(self, layers: list[At]) -> Iterator[Finding]:
        def massive(at: At) -> float:
            return at["massive"]

        found = [at for at in layers if at["massive"] >= self.massive_limit and at["largest"] >= self.large]
        yield from together(
            self, "AS004", found, massive, len(layers), "has activations far out of scale",
            lambda at: f"the largest is {at['massive']:,.0f} times the median one",
            do="keep this layer out of low-precision formats, or treat such units apart when quantising",
            evidence=lambda at: {
                "massive": at["massive"], "null": at["massive_null"], "limit": self.massive_limit,
                "largest": at["largest"], "n": int(at["n"]),
            },
        )  # fmt: skip


def _still(at: At) -> float:
    return at["constant_share"] - at["always_zero_share"]


def _used(at: At) -> float:
    """Effective rank over that of the same units with nothing in common."""
    return at["effective_rank_centred"] / at["effective_rank_centred_null"]


def _mixing(sample: Sample) -> float:
    """A projection keeps the sum of variances on average and spreads it over fewer numbers."""
    return sample.features.shape[1] / max(sample.width_from, sample.features.shape[1])


def _spoiled(sample: Sample) -> dict[str, Any]:
    """Attributes of what speaks of units: the note, and whether a projection has made mixtures of them."""
    if sample.width_from <= sample.features.shape[1]:
        return {"note": sample.note}
    return {"note": f"{sample.note}: mixtures of units, so nothing is said of units", "absent": True}


def _ranks(suffix: str, ranks: Ranks, of: str, prefix: str = "") -> dict[str, tuple[float, str]]:
    return {
        f"{prefix}rank{suffix}": (ranks.numerical, f"numerical rank of the {of}"),
        f"{prefix}stable_rank{suffix}": (ranks.stable, f"stable rank of the {of}"),
        f"{prefix}effective_rank{suffix}": (ranks.effective, f"effective rank of the {of}"),
    }


def _quantities_of(numbers: Mapping[str, tuple[float, str]], attrs: Mapping[str, Any]) -> dict[str, Quantity]:
    absent = attrs.get("absent", False)
    plain = {name: value for name, value in attrs.items() if name != "absent"}
    found = {}
    for name, (value, what) in numbers.items():
        more: dict[str, Any] = {"headline": _HEADLINES[name]} if name in _HEADLINES else {}
        if name in _ASIDE or name.endswith("_null"):
            more["chart"] = "none"
        found[name] = quantity(math.nan if absent else value, units="1", long_name=what, **plain, **more)
    return found
