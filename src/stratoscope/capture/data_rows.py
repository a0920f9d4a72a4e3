"""Which rows of the data the examples of the probe set are, for what is known of each row from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from stratoscope.capture.needs import Operator
from stratoscope.capture.operators import Bench


@dataclass(frozen=True)
class DataRows(Operator):
    """For each example of the probe set its index in the split's data; no pass is run.

    `view[DataRows()][sample.ids]` are the rows of a kept sample.

    Attributes:
        split: a named split, or `None` for the one being measured.
    """

    split: str | None = None

    def open(self, bench: Bench) -> Int64[Tensor, " n"]:
        """The indices."""
        return bench.probe.ids
