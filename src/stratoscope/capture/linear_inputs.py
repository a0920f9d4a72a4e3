"""A seeded sample of what linear layers are given, example by example: the features that a classifier head reads."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Self

from stratoscope.capture.activations import Activations, ActivationSample, Sample
from stratoscope.capture.batch import SiteBatch
from stratoscope.capture.needs import Kept, KeptReducer, Site
from stratoscope.errors import NotApplicable


@dataclass(frozen=True)
class LinearInputs(Kept):
    """A sample of the vectors that each linear layer of one weight matrix is given; the value is a `Sample`.

    What a layer is given is what its weight multiplies, whatever stands before it: a dropout, a reshaping, a function
    without a name. Linear layers that run over positions are left out, and keep nothing.

    Attributes:
        n: at most so many examples: those of `Activations(n)`.
        width: at most so many numbers an example; wider ones are projected.
        split: a named split, or `None` for the one being measured.
    """

    n: int = 1000
    width: int = 4096
    split: str | None = None
    site: str = "input"

    def reducer(self, site: Site) -> VectorSample | None:
        """A sample for a linear layer; `None` for every other."""
        if site.layer.kind != "linear" or len(site.layer.matrices) != 1:
            return None
        return VectorSample(Activations(self.n, self.width, "flatten", self.split, self.site))


class VectorSample(KeptReducer):
    """An `ActivationSample` of sites that are given one vector an example."""

    def __init__(self, need: Activations) -> None:
        self._sample = ActivationSample(need)

    def update(self, batch: SiteBatch) -> None:
        """Keep those rows of the batch that belong to the sample."""
        if (positions := batch.blocks.shape[1]) != 1:
            raise NotApplicable(f"{batch.site.name} is given {positions} positions of an example, not one vector")
        self._sample.update(batch)

    def merge(self, other: Self) -> None:
        """Take in another part of the same sample."""
        self._sample.merge(other._sample)

    def shown(self) -> Hashable:
        """Which tensors were kept, and of which examples."""
        return self._sample.shown()

    def bytes_per_example(self) -> int:
        """Four bytes a number; eight where the network computes in float64."""
        return self._sample.bytes_per_example()

    def keep_at_most(self, n: int) -> None:
        """Keep the first `n` of the probe set only."""
        self._sample.keep_at_most(n)

    def result(self) -> Sample:
        """The sample, in the order of the probe set."""
        return self._sample.result()
