"""The layers that lie one after the other from the input to the output, and what comes after each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stratoscope.network.layers import ROOT
from stratoscope.record.rows import LayerRow

MOST = 0.5
"""A block that holds more than this share of all weight layers is the network itself, and is looked into."""


@dataclass(frozen=True)
class Path:
    """Places at which a network could be cut, in the order in which they give their output.

    The branches inside a block, such as a residual one, are no such places; what the block gives is one. The output
    layer is the last one that has weights, with all that follows it.

    Attributes:
        names: of the places, those of the output layer among them.
        before: how many of them come before the output layer.
        weights: for each place, how many layers with weights lie between it and the output layer.
        params: for each place, how many trainable numbers these layers hold.
        total: trainable numbers of the whole network.
    """

    names: tuple[str, ...]
    before: int
    weights: tuple[int, ...]
    params: tuple[int, ...]
    total: int

    @classmethod
    def of(cls, layers: Sequence[LayerRow]) -> Path:
        """The path of a record's layers.

        Args:
            layers: in the order in which they give their output.
        """
        rows = [row for row in layers if row.name != ROOT]
        weighty = [place for place, row in enumerate(rows) if row.spec.get("matrices")]
        output = weighty[-1] if weighty else len(rows)
        units = _units(rows, len(weighty))
        on_path = [place for place, row in enumerate(rows) if not _inside(row.name, units)]
        # a block that holds the output layer gives the output
        own = [unit for unit in units if output < len(rows) and _inside(rows[output].name, [unit])]
        end = min([output, *(place for place, row in enumerate(rows) if row.name in own)])
        places = [place for place in on_path if place < end or rows[place].name in own or place >= output]
        between = [(rows[p].n_params, bool(rows[p].spec.get("matrices"))) for p in range(output)]
        return cls(
            names=tuple(rows[place].name for place in places),
            before=sum(place < end for place in places),
            weights=tuple(sum(weight for _, weight in between[place + 1 :]) for place in places),
            params=tuple(sum(count for count, _ in between[place + 1 :]) for place in places),
            total=sum(row.n_params for row in layers),
        )


def _units(rows: Sequence[LayerRow], weighty: int) -> list[str]:
    """Blocks that are one place each; a block around most of the network is none."""
    units = []
    for row in rows:
        if row.kind == "block" and "@" not in row.name:
            held = sum(bool(other.spec.get("matrices")) and _within(other.name, row.name) for other in rows)
            if held <= MOST * weighty:
                units.append(row.name)
    return units


def _inside(name: str, units: Sequence[str]) -> bool:
    return any(_within(name, unit) for unit in units)


def _within(name: str, block: str) -> bool:
    """Whether a layer, or the place of a function, lies within a block; the block itself does not."""
    return name.startswith((f"{block}.", f"{block}:"))
