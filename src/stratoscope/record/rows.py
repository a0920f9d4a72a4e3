"""What a record says beside numbers: what was measured and when, the layers, and how they are linked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STATUSES = ("measured", "not_applicable", "skipped", "failed")


@dataclass(frozen=True)
class Coverage:
    """Whether one instrument measured one part of the network.

    Attributes:
        instrument: the instrument's key.
        label: which settings of it; `""` normally.
        layer: name of the layer; `""` for the whole network.
        param: exact key of the param; `""` for the layer as a whole.
        split: the data split; `""` where no data were needed.
        step: since which step this holds.
        status: `"measured"`, `"not_applicable"`, `"skipped"` or `"failed"`.
        reason: why, where it was not measured.
    """

    instrument: str
    label: str
    layer: str
    param: str
    split: str
    step: int
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Passed:
    """How much of its data a training has seen at a step, as its loop counts it.

    Attributes:
        epoch: passes over the training data.
        tokens: tokens (or examples, or whatever the loop counts), a whole number.
    """

    epoch: float | None = None
    tokens: int | None = None


NOTHING_SAID = Passed()
"""Where the loop says nothing of it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a step was: by the clock, and by how much the training had seen.

    Attributes:
        seconds: since the first step was written.
        epoch: passes over the training data; `None` where they were not given.
        tokens: tokens seen; `None` where they were not given.
    """

    seconds: float
    epoch: float | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Edge:
    """The output of one layer goes into another."""

    src: str
    dst: str
    kind: str


@dataclass(frozen=True)
class LayerRow:
    """One layer as it is kept with the run.

    Attributes:
        name: module path.
        kind: what it is, as in the layer catalogue.
        depth: position in module or file order, from 0.
        n_params: trainable numbers of its own; tied params count where they are first.
        parent: name of the module that holds it, if that is a layer too.
        spec: `params` and `matrices`, with their shapes, and `activation`.
    """

    name: str
    kind: str
    depth: int
    n_params: int
    parent: str | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
