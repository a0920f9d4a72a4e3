r"""Dimension: how many directions each layer's activations use, all together and around each example.

Two questions that are often mixed up. How many straight directions hold the variance? That is read off the eigenvalues
$\lambda_1 \ge \lambda_2 \ge \dots$ of the covariance of the $n$ kept examples. And how many coordinates are needed close
to an example, on a set that may be curved? That is read off the distances to its nearest neighbours. A circle has 2 of
the first and 1 of the second.

| quantity | definition | range |
|---|---|---|
| `twonn` | TwoNN: with $\mu = r_2 / r_1$ the ratio of the distances to the two nearest neighbours, the slope through the origin of $-\ln(1 - F(\mu))$ on $\ln \mu$, the largest tenth left out | above 0 |
| `twonn_mle` | the same by maximum likelihood, $(n - 1) / \sum \ln \mu$ | above 0 |
| `twonn_null` | what TwoNN reads on as many draws of a normal distribution with the same covariance | above 0 |
| `twonn_ceiling` | `rank`: no set in so many straight directions has a higher dimension | |
| `twonn_by_cut` | TwoNN on every example, on halves and on quarters of the sample | above 0 |
| `scale_ratio` | TwoNN on all over that on quarters: 1 where the dimension does not depend on the scale | above 0 |
| `lid` | Levina and Bickel's likelihood over 20 neighbours, inverses averaged as MacKay and Ghahramani proposed | above 0 |
| `participation_ratio` | $(\sum \lambda)^2 / \sum \lambda^2$ of this sample | 1 to `rank` |
| `participation_ratio_unbiased` | the same with both sums replaced by unbiased estimates: that of the population | about 1 to $D$ |
| `rankme` | $\exp(-\sum p \ln p)$, $p = \sigma / \sum \sigma$ over the singular values of the activations, not centred | 1 to $\min(n, D)$ |
| `rankme_centred` | the same after the mean is taken off | 1 to `rank` |
| `alpha` | alpha-ReQ: $\lambda_k \sim k^{-\alpha}$ fitted for $k$ from `alpha_first` to `alpha_last` | about 0 to 3 |
| `directions`, `saturation` | the smallest $k$ with 99 % of the variance in the first $k$ directions, and $k / D$ | 1 to $D$, 0 to 1 |
| `rank` | eigenvalues above what rounding leaves | up to $\min(n - 1, D)$ |
| `n`, `duplicates`, `width` | examples; those that give what an earlier one gives; units | |
| `uninformative` | 1 where `twonn` is not below `twonn_null` by more than two standard errors | 0, 1 |

`_se` is a standard error over samples of this size; it does not speak of bias. **TwoNN and LID read too low in many
dimensions**: white noise in 20 dimensions with 1,000 examples reads 16.5 and 14.6, in 30 dimensions with 300 examples
about 21 and 17. `twonn_null` has this bias as well, so compare `twonn` with it: what is
below it is curvature or clusters, what equals it is no more than linear correlation.

**What it means.** Scaling, shifting and rotating the activations change none of these but the two RankMe, of which the
raw one moves with the mean. In trained classifiers the dimension usually rises in the first layers, then falls to about
the number of classes less one. A representation of self-supervised training that has collapsed shows in `rankme` and
`participation_ratio`; `alpha` near 1 was found to go with good transfer.

**When it misleads.** `participation_ratio`, `rankme`, `rank` and `saturation` grow with `n` until it is far above $D$;
compare at one `n`. Dimensions from neighbours depend on the scale: noise of full dimension at small distances hides a
curve at large ones, so look at `twonn_by_cut` before quoting a number. Examples with the same output have no nearest
neighbours' ratio and are counted once. With `"spatial"` pooling neighbours are often places of one picture. The
slope `alpha` is a description; `alpha_r2` says how well a power law fits, and its error does not count misfit.

**What to do.** Where few directions hold the variance of a wide layer before the last ones, a narrower layer may do. A
dimension far below its null says that the layer has folded the data: linear tools (principal components, linear
probes) will not show that structure.

Source: Facco, d'Errico, Rodriguez and Laio, doi:10.1038/s41598-017-11873-y; Levina and Bickel, NIPS 2004; Garrido et al.,
arXiv:2210.02885; Ghosh, Mondal, Agrawal and Richards, arXiv:2202.05808; Richter et al., arXiv:2006.08679.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from stratoscope.capture.activations import Activations
from stratoscope.capture.needs import Need
from stratoscope.capture.pairs import Neighbours
from stratoscope.errors import NotApplicable
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.reading import At, last_of, passed_if_silent, some, together
from stratoscope.network.layers import ROOT
from stratoscope.numerics.covariance_spectrum import (
    CovarianceSpectrum,
    covariance_spectrum,
    directions_for,
    participation_ratio,
    power_law_decay,
    rank_me,
    unbiased_participation_ratio,
)
from stratoscope.numerics.dimension_by_scale import distinct, gaussian_two_nn, two_nn_by_scale
from stratoscope.numerics.intrinsic_dimension import LEAST, levina_bickel
from stratoscope.numerics.matrices import not_finite
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.capture.activations import Sample
    from stratoscope.capture.views import LayerView
    from stratoscope.numerics.neighbours import NearestNeighbours
    from stratoscope.record.group import Group

PARTS = (1, 2, 4)
"""Into how many parts the sample is cut to see how the dimension depends on the scale."""

NULL_POINTS = 300
"""Draws of the normal distribution whose neighbours are looked at."""

_SHOWN: dict[str, dict[str, Any]] = {
    "twonn": {"headline": 1, "scale": "log"}, "participation_ratio_unbiased": {"headline": 2}, "rankme": {"headline": 3, "scale": "log"},
    "lid": {}, "alpha": {}, "saturation": {"valid_min": 0.0, "valid_max": 1.0}, "participation_ratio": {},
    "scale_ratio": {},
}  # fmt: skip
"""What a report draws, with the errors and references that belong to it; the other numbers bound these."""

_BESIDE = ("_se", "_null", "_ceiling")


@dataclass(frozen=True)
class Dimension(LayerInstrument):
    """How many directions each layer's activations use, in all and around each example.

    Attributes:
        n: examples kept at most.
        pooling: `"gap"`, the mean over positions, `"flatten"`, or `"spatial"`: positions are rows of their own.
        width: units kept at most; wider activations are projected.
        k: neighbours for the local dimension.
        discard: share of the largest ratios that TwoNN's fit leaves out.
        share: of the variance that `directions` hold.
        alpha_first: first eigenvalue of the power law's fit, from 1.
        alpha_share: of the rank, up to which it is fitted.
        seed: of the cut into parts and of the normal draws.
        low: saturation below which a tip is given.
        disagree: factor between the estimates of one layer's dimension from which a tip is given.
        same: share of examples with the same output as an earlier one from which a tip is given.
    """

    key: ClassVar[str] = "dimension"
    title: ClassVar[str] = "Dimension"
    source: ClassVar[str] = "doi:10.1038/s41598-017-11873-y"
    codes: ClassVar[Mapping[str, str]] = {
        "DM001": "few directions hold nearly all of the variance of a wide layer",
        "DM002": "the dimension of a layer depends on the scale at which it is measured",
        "DM003": "there are too few examples for the width of a layer",
        "DM004": "different examples give the same output",
    }
    dims: ClassVar[Mapping[str, str]] = {"cut": "into how many parts the sample is cut"}

    n: int = 1000
    pooling: str = "gap"
    width: int = 4096
    k: int = 20
    discard: float = 0.1
    share: float = 0.99
    alpha_first: int = 3
    alpha_share: float = 0.5
    seed: int = 0
    low: float = 0.05
    disagree: float = 1.5
    same: float = 0.05

    @property
    def requires(self) -> set[Need]:
        """A sample of the layer's activations, and the nearest neighbours in it."""
        return {self._need, self._neighbours}

    @property
    def _need(self) -> Activations:
        return Activations(n=self.n, width=self.width, pooling=self.pooling)

    @property
    def _neighbours(self) -> Neighbours:
        return Neighbours(self._need, k=self.k)

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """Dimensions of one layer's sample."""
        sample: Sample = view[self._need]
        features = sample.features
        if bad := not_finite(features):
            raise NotApplicable(f"{bad:,} of {features.numel():,} numbers that it gives are NaN or infinite")
        if len(features) < LEAST:
            raise NotApplicable(f"{len(features)} examples are too few for a dimension; {LEAST} are needed")
        key = (Dimension, self.k, self.discard, self.share, self.alpha_first, self.alpha_share, self.seed)
        numbers = sample.worked_out.once(key, lambda: self._numbers(features, view[self._neighbours]))
        return _quantities(numbers, sample.note)

    def _numbers(self, features: torch.Tensor, nearest: NearestNeighbours) -> dict[str, float]:
        spectrum = covariance_spectrum(features)
        if spectrum.rank == 0:
            raise NotApplicable("it gives the same for every example: one point has no dimension")
        known = distinct(features, nearest.distances[:, 0])
        found = {
            "n": spectrum.n,
            "width": spectrum.units,
            "duplicates": spectrum.n - int(known.sum()),
            **self._linear(spectrum),
            **self._local(features, nearest, known),
        }
        null = gaussian_two_nn(
            spectrum.eigenvalues, int(known.sum()), points=NULL_POINTS, seed=self.seed, discard=self.discard
        )
        error = 2 * math.hypot(found["twonn_se"], null.standard_error)
        found |= {"twonn_null": null.value, "uninformative": int(not found["twonn"] < null.value - error)}
        return {name: value if math.isfinite(value) else math.nan for name, value in found.items()}

    def _linear(self, spectrum: CovarianceSpectrum) -> dict[str, float]:
        """Numbers of the eigenvalues."""
        unbiased = unbiased_participation_ratio(spectrum)
        decay = power_law_decay(spectrum, first=self.alpha_first, share=self.alpha_share)
        directions = directions_for(spectrum.eigenvalues, self.share)
        return {
            "participation_ratio": participation_ratio(spectrum.eigenvalues),
            "participation_ratio_unbiased": unbiased.value,
            "participation_ratio_unbiased_se": unbiased.standard_error,
            "rankme": rank_me(spectrum.raw),
            "rankme_ceiling": min(spectrum.n, spectrum.units),
            "rankme_centred": rank_me(spectrum.eigenvalues.sqrt()),
            "alpha": decay.alpha,
            "alpha_se": decay.standard_error,
            "alpha_r2": decay.r2,
            "alpha_first": decay.first,
            "alpha_last": decay.last,
            "directions": directions,
            "saturation": directions / spectrum.units,
            "rank": spectrum.rank,
            "twonn_ceiling": spectrum.rank,
        }

    def _local(self, features: torch.Tensor, nearest: NearestNeighbours, known: torch.Tensor) -> dict[str, float]:
        """Dimensions from neighbours: on all, halves and quarters, and over more neighbours."""
        cuts = two_nn_by_scale(features, nearest, known, PARTS, seed=self.seed, discard=self.discard)
        there = known[nearest.index] & known[:, None] & (nearest.distances > 0)
        lid = levina_bickel(nearest.distances, nearest.index, there)
        whole, least = cuts[PARTS[0]], cuts[PARTS[-1]]
        ratio = whole.fit.value / least.fit.value
        return {
            "twonn": whole.fit.value,
            "twonn_se": whole.fit.standard_error,
            "twonn_mle": whole.likelihood.value,
            "twonn_mle_se": whole.likelihood.standard_error,
            "lid": lid.value,
            "lid_se": lid.standard_error,
            "scale_ratio": ratio,
            "scale_ratio_se": ratio * math.hypot(*(e.standard_error / e.value for e in (whole.fit, least.fit))),
            **{f"twonn_by_cut {cut}": found.fit.value for cut, found in cuts.items()},
            **{f"twonn_by_cut_se {cut}": found.fit.standard_error for cut, found in cuts.items()},
        }

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Narrow layers, dimensions that are not one number, and samples that are too small; at the last step."""
        yield from passed_if_silent(self, self._judge(measured), self._checked(measured), measured)

    def _checked(self, measured: Group) -> list[str]:
        """Codes for which there was something to look at."""
        layers = [at for split in _by_split(measured) for at in split]
        enough = {
            "DM001": any(at["n"] > at["width"] >= self._wide for at in layers),
            "DM002": any(math.isfinite(at["scale_ratio"]) for at in layers),
            "DM003": bool(layers),
            "DM004": bool(layers),
        }
        return [code for code, looked in enough.items() if looked]

    @property
    def _wide(self) -> float:
        """Widths from which on a single direction can be few."""
        return 1 / self.low if self.low > 0 else math.inf

    def _judge(self, measured: Group) -> Iterator[Finding]:
        for layers in _by_split(measured):
            yield from self._few_directions([at for at in layers if at["n"] > at["width"] >= self._wide])
            yield from self._many_scales(layers)
            yield from self._small_sample([at for at in layers if at["n"] <= at["width"]], len(layers))
            yield from self._duplicates(layers)

    def _few_directions(self, layers: list[At]) -> Iterator[Finding]:
        found = [at for at in layers if at["saturation"] < self.low]
        yield from together(
            self, "DM001", found, lambda at: -at["saturation"], len(layers),
            f"holds {self.share:.0%} of its variance in few directions",
            lambda at: f"{at['directions']:.0f} of {at['width']:.0f}",
            do="try a narrower layer, unless it is one of the last of a trained classifier, where as many directions as "
            "classes less one are usual, or embeds few tokens",
            evidence=lambda at: {
                "saturation": at["saturation"], "limit": self.low, "directions": int(at["directions"]),
                "width": int(at["width"]), "participation_ratio": at["participation_ratio_unbiased"], "n": int(at["n"]),
            },
        )  # fmt: skip

    def _many_scales(self, layers: list[At]) -> Iterator[Finding]:
        """TwoNN differs between the whole sample and quarters of it, by more than chance."""
        found = [at for at in layers if _factor(at) >= self.disagree and _beyond(at)]
        if found:
            worst, names = max(found, key=_factor), [str(at.layer) for at in found]
            yield self.finding(
                "DM002", Outcome.TIP,
                f"The dimension of {some(names)} depends on the scale: in {worst.layer} it is {worst['twonn']:.1f} "
                f"among {worst['n']:.0f} examples and {worst['twonn'] / worst['scale_ratio']:.1f} among a quarter of them",
                do="quote the range and not one number; probe more examples, and see whether it settles",
                ratio=worst["scale_ratio"], standard_error=worst["scale_ratio_se"], limit=self.disagree,
                layers=", ".join(names), count=len(names), of=len(layers), worst=worst.layer, n=int(worst["n"]),
                step=worst.step, split=worst.split, layer=names[0] if len(names) == 1 else None,
            )  # fmt: skip

    def _small_sample(self, layers: list[At], of: int) -> Iterator[Finding]:
        if layers:
            widest, names = max(layers, key=lambda at: at["width"]), [str(at.layer) for at in layers]
            yield self.finding(
                "DM003", Outcome.SKIPPED,
                f"{some(names)}: ranks of {widest['n']:.0f} examples cannot exceed {widest['n']:.0f}, and a layer has up "
                f"to {widest['width']:.0f} units",
                do="probe more examples than the layer has units, or read the unbiased participation ratio",
                layers=", ".join(names), count=len(names), of=of, width=int(widest["width"]), limit=int(widest["n"]),
                n=int(widest["n"]), step=widest.step, split=widest.split,
            )  # fmt: skip

    def _duplicates(self, layers: list[At]) -> Iterator[Finding]:
        found = [at for at in layers if at["duplicates"] > self.same * at["n"]]
        if found:
            worst, names = max(found, key=lambda at: at["duplicates"] / at["n"]), [str(at.layer) for at in found]
            share = worst["duplicates"] / worst["n"]
            yield self.finding(
                "DM004", Outcome.TIP,
                f"{share:.0%} of the examples give exactly what an earlier one gives in {worst.layer}",
                do="see whether the examples themselves are equal, or the units dead or saturated",
                share=share, limit=self.same, layers=", ".join(names), count=len(names), of=len(layers),
                n=int(worst["n"]), **worst.place,
            )  # fmt: skip


_NAMES = {
    "twonn": "intrinsic dimension by TwoNN",
    "twonn_se": "standard error of the intrinsic dimension by TwoNN",
    "twonn_mle": "intrinsic dimension by TwoNN, maximum likelihood",
    "twonn_mle_se": "standard error of TwoNN, maximum likelihood",
    "twonn_null": "intrinsic dimension by TwoNN of normal draws with the same covariance",
    "twonn_ceiling": "straight directions that are used",
    "scale_ratio": "TwoNN on all examples over that on quarters",
    "scale_ratio_se": "standard error of that ratio",
    "lid": "local intrinsic dimension by maximum likelihood",
    "lid_se": "standard error of the local intrinsic dimension",
    "participation_ratio": "participation ratio of the sample",
    "participation_ratio_unbiased": "participation ratio, unbiased",
    "participation_ratio_unbiased_se": "standard error of the participation ratio",
    "rankme": "RankMe: effective rank of the activations",
    "rankme_ceiling": "the most that RankMe can be",
    "rankme_centred": "effective rank of the centred activations",
    "alpha": "exponent of the eigenvalues' decay (alpha-ReQ)",
    "alpha_se": "standard error of the exponent",
    "alpha_r2": "share of the log eigenvalues' scatter that the power law explains",
    "alpha_first": "first eigenvalue of the power law's fit",
    "alpha_last": "last eigenvalue of the power law's fit",
    "directions": "directions that hold the variance",
    "saturation": "directions that hold the variance, over the width",
    "rank": "straight directions that are used",
    "n": "examples counted",
    "duplicates": "examples with the output of an earlier one",
    "width": "units counted",
}


def _quantities(numbers: Mapping[str, float], note: str) -> dict[str, Quantity]:
    found = {}
    for name, what in _NAMES.items():
        base = next((name.removesuffix(end) for end in _BESIDE if name.endswith(end)), name)
        shown = _SHOWN.get(name) if name in _SHOWN else {} if base in _SHOWN else {"chart": "none"}
        found[name] = quantity(numbers[name], units="1", long_name=what, note=note, **(shown or {}))
    for name, what in (
        ("twonn_by_cut", "intrinsic dimension by TwoNN, mean over the parts of the sample"),
        ("twonn_by_cut_se", "standard error of that mean"),
    ):
        values = [numbers[f"{name} {cut}"] for cut in PARTS]
        found[name] = quantity(
            values, units="1", long_name=what, dims="cut", coords={"cut": PARTS}, note=note, chart="none"
        )
    found["uninformative"] = quantity(
        int(numbers["uninformative"]), units="1", chart="none", flag_values=[0, 1],
        flag_meanings="informative uninformative", long_name="linear correlation alone would read the same TwoNN",
    )  # fmt: skip
    return found


def _by_split(measured: Group) -> Iterator[list[At]]:
    """The layers of each split in order, without the network where it gives what a layer gives."""
    names = (
        "n", "width", "duplicates", "twonn", "scale_ratio", "scale_ratio_se", "directions", "saturation",
        "participation_ratio_unbiased", "rankme",
    )  # fmt: skip
    for _, layers in groupby(last_of(measured, *names), key=lambda at: at.split):
        in_order = list(layers)
        own = {(at["rankme"], at["saturation"]) for at in in_order if at.layer != ROOT}
        yield [at for at in in_order if at.layer != ROOT or (at["rankme"], at["saturation"]) not in own]


def _factor(at: At) -> float:
    """By how much the dimension changes with the scale, in either direction; 0 where it is not known."""
    ratio = at["scale_ratio"]
    return max(ratio, 1 / ratio) if ratio > 0 else 0.0


def _beyond(at: At) -> bool:
    return abs(at["scale_ratio"] - 1) > 3 * at["scale_ratio_se"]
