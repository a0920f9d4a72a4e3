"""What came of cutting a network: how often it is right, beside the whole one, and what is saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stratoscope.numerics.paired import PairedDifference, wilson


@dataclass(frozen=True)
class Share:
    """How often something is right.

    Attributes:
        accuracy: share of hits.
        low: lower end of Wilson's 95 % interval.
        high: its upper end.
    """

    accuracy: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, n: int) -> Share:
        """From a count."""
        return cls(hits / n, *wilson(hits, n))


@dataclass(frozen=True)
class Cut:
    """A network that was run only up to a layer, with a probe on it, beside the whole network.

    Attributes:
        layer: after which the network was cut.
        fitted_on: the split that the probe was fitted on.
        scored_on: the split on which both were compared, on the same examples; `fitted_on` where there was no other:
            then each half was predicted by a probe fitted to the other half.
        n_fitted: examples that the probe was fitted to.
        cut: accuracy of the cut network with its probe.
        whole: accuracy of the whole network.
        difference: `cut` less `whole`, with its 95 % interval and McNemar's p-value, from the examples as pairs.
        probed: accuracy of the same kind of probe, fitted to the same examples, on what the output layer is given: what a
            probe costs where nothing is cut off. `None` where that is no row an example.
        depth: `cut` less `probed`, as `difference`: what the layers between are worth to such a probe.
        layers_run: layers that were called up to the cut, the blocks around it among them.
        layers_saved: layers that the whole network calls and the cut one does not.
        params: trainable or not, the numbers of all params that the whole network's layers own.
        params_saved: those of the layers that the cut network does not call.
        params_probe: numbers of the probe.
        seconds: of one example through the whole network; median over the batches.
        seconds_cut: of one example through the cut one, without the probe's single product. Where the place is a
            function's, watching for it is part of that.
        width: numbers an example that the probe reads.
        strength: `lam / n` of the ridge regression, chosen by generalised cross-validation.
        note: how the layer's output was made to rows.
    """

    layer: str
    fitted_on: str
    scored_on: str
    n_fitted: int
    cut: Share
    whole: Share
    difference: PairedDifference
    probed: Share | None
    depth: PairedDifference | None
    layers_run: tuple[str, ...]
    layers_saved: tuple[str, ...]
    params: int
    params_saved: int
    params_probe: int
    seconds: float
    seconds_cut: float
    width: int
    strength: float
    note: str

    @property
    def speedup(self) -> float:
        """How many times as fast the cut network is."""
        return self.seconds / self.seconds_cut

    @property
    def worse(self) -> bool:
        """Whether the cut network is right less often, beyond the interval."""
        return self.difference.high < 0

    @property
    def says(self) -> str:
        """The comparison in a few sentences."""
        found = self.difference
        verdict = (
            "less often right" if self.worse else "more often right" if found.low > 0 else "not to be told from it"
        )
        return (
            f"Cut after {self.layer}, with a linear probe fitted on {self.n_fitted:,} examples of {self.fitted_on}, the "
            f"network is right on {self.cut.accuracy:.1%} of {found.n:,} examples of {self.scored_on}; the whole network "
            f"on {self.whole.accuracy:.1%}. The difference is {_points(found)}: {verdict}. "
            f"{self._of_depth}"
            f"{len(self.layers_saved)} of {len(self.layers_saved) + len(self.layers_run)} layers and "
            f"{self.params_saved / max(self.params, 1):.0%} of the parameters are not run; it takes "
            f"{self.seconds_cut / self.seconds:.0%} of the time."
        )

    @property
    def _of_depth(self) -> str:
        """How much of the difference is the probe's, and how much the depth's."""
        if self.probed is None or self.depth is None:
            return ""
        return (
            f"The same probe on what the output layer is given is right on {self.probed.accuracy:.1%}, so cutting off "
            f"the layers between makes a difference of {_points(self.depth)}. "
        )

    def plain(self) -> dict[str, Any]:
        """Everything as JSON-ready values."""
        return asdict(self) | {"speedup": self.speedup, "worse": self.worse, "says": self.says}


def _points(found: PairedDifference) -> str:
    return (
        f"{100 * found.difference:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}] (95 %, paired; "
        f"McNemar's p = {found.p_value:.2g})"
    )
