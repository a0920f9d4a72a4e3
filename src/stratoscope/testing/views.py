"""A layer that was seen, made of given activations: for tests of instruments on input whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.capture.activations import Activations, Sample
from stratoscope.capture.class_moments import ClassMoments, LayerMoments
from stratoscope.capture.needs import Need, Worked
from stratoscope.errors import CaptureError, NotApplicable
from stratoscope.numerics.scatter import Scatter


class SampleView:
    """Stands in for a `LayerView`: `view[need]` for samples, what is worked out from them, and moments.

    >>> view = SampleView(torch.tensor([[0.0], [2.0]]))
    >>> view[ClassMoments()].scatter.covariance.item()
    1.0
    """

    def __init__(
        self,
        features: Float[Tensor, "n D"],
        labels: Int[Tensor, " n"] | None = None,
        *,
        name: str = "fc",
        activation: str | None = None,
        note: str = "as is",
        width_from: int = 0,
    ) -> None:
        """One layer that gave these activations.

        Args:
            features: one example a row.
            labels: class of each, if there are classes.
            name: of the layer.
            activation: its nonlinearity, as the catalogue calls it.
            note: how it was sampled, in words.
            width_from: how many numbers there were before projection, if there was one.
        """
        self.layer = SimpleNamespace(
            name=name, activation=activation, kind="linear", params=(), matrices=(), module=None
        )
        self.split = "data"
        width = width_from or features.shape[1]
        self.sample = Sample(features, labels, torch.arange(len(features)), width, note)
        self._moments = LayerMoments(_scatter(features, labels), len(features), width, note) if len(features) else None

    def __getitem__(self, need: Need) -> Any:
        """The value of a need.

        Raises:
            NotApplicable: if it cannot be worked out from this sample.
            CaptureError: if it is none of those that a sample answers.
        """
        if isinstance(need, Activations):
            return self.sample
        if isinstance(need, ClassMoments) and self._moments is not None:
            return self._moments
        if isinstance(need, Worked):
            found = self.sample.worked_out.once(need, lambda: type(need).work_out([need], self[need.of])[need])
            if isinstance(found, Exception):
                raise found
            return found
        raise CaptureError(
            f"{need} is not what a sample answers; give Activations, ClassMoments or what follows from them."
        )

    def get(self, need: Need, default: Any = None) -> Any:
        """The value of a need, or `default` where there is none."""
        try:
            return self[need]
        except (NotApplicable, CaptureError):
            return default


def _scatter(features: Tensor, labels: Tensor | None) -> Any:
    scatter = Scatter()
    scatter.update(features, labels)
    return scatter.result()
