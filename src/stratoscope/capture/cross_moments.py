"""How the activations of two layers scatter together, streamed over the whole probe set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from torch import Tensor

from stratoscope.capture.batch import Memo, SiteBatch
from stratoscope.capture.needs import Reducer, Site, Streamed
from stratoscope.capture.pooling import check_pooling, rows_of
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.numerics.cross_scatter import CrossScatter
from stratoscope.numerics.sketch import count_sketch

NEIGHBOURS = "neighbours"


@dataclass(frozen=True)
class CrossMoments(Streamed):
    """First and second moments of pairs of layers over all examples, and the sums that debiased CKA needs.

    The value at a layer is a mapping from the name of an earlier layer to the `CrossScatter` of the two, the earlier one
    first; a layer that ends no pair has none. Memory does not grow with the data: eight bytes for each pair of columns of
    the two layers together.

    Attributes:
        pairs: `"neighbours"`, each layer with the one that gave its output just before, or pairs of layer names, in
            either order. A layer that hands on what another gave, as a block does, is no neighbour of it.
        width: at most so many columns; wider activations are projected by a seeded count sketch.
        pooling: `"gap"`, the mean over positions, `"flatten"`, or `"spatial"`, for layers with the same positions.
        split: a named split, or `None` for the one being measured.
        site: `"output"` or `"input"`.
        seed: of the projection, and of the choice of positions.
        positions: with `"spatial"`, so many positions of each example at most.
    """

    pairs: str | tuple[tuple[str, str], ...] = NEIGHBOURS
    width: int = 512
    pooling: str = "gap"
    split: str | None = None
    site: str = "output"
    seed: int = 0
    positions: int = 16

    def __post_init__(self) -> None:
        check_pooling("CrossMoments", self.pooling, self.positions)
        if self.width < 1:
            raise SettingError(f"CrossMoments(width={self.width}): it must be at least 1.")
        if self.pairs == NEIGHBOURS:
            return
        if isinstance(self.pairs, str) or any(len(set(pair)) != 2 or len(pair) != 2 for pair in self.pairs):
            raise SettingError(
                f"CrossMoments(pairs={self.pairs!r}): give {NEIGHBOURS!r}, or pairs of two different layers."
            )

    def reducer(self, site: Site) -> CrossReducer | None:
        """Moments for a layer that is part of a pair."""
        if isinstance(self.pairs, str):
            return CrossReducer(self, None)
        partners = frozenset(name for pair in self.pairs for name in pair if site.name in pair and name != site.name)
        return CrossReducer(self, partners) if partners else None


@dataclass
class _Board:
    """What the layers have given so far in this batch: rows by name, and what tells the last one's tensor."""

    rows: dict[str, Tensor] = field(default_factory=dict)
    last: Memo | None = None


class CrossReducer(Reducer):
    """Puts its own rows up for later layers, and takes in those of earlier ones beside its own."""

    def __init__(self, need: CrossMoments, partners: frozenset[str] | None) -> None:
        self._need = need
        self._partners = partners
        self._pairs: dict[str, CrossScatter] = {}

    def update(self, batch: SiteBatch) -> None:
        """Take in one batch."""
        need = self._need
        board: _Board = batch.of_batch.once((need, "board"), _Board)
        rows = batch.of_value.once((need, "rows"), lambda: self._rows(batch))
        if self._partners is None:
            if board.last is batch.of_value:
                return
            earlier, board.rows, board.last = board.rows, {batch.site.name: rows}, batch.of_value
        else:
            earlier = {name: other for name, other in board.rows.items() if name in self._partners}
            board.rows[batch.site.name] = rows
        for name, other in earlier.items():
            self._take(name, other, rows, batch)

    def _rows(self, batch: SiteBatch) -> Tensor:
        need = self._need
        values = rows_of(batch, need.pooling, need.positions, need.seed).values
        # the network's own tensor may be changed by a later layer before its pair is complete
        return count_sketch(values, need.width, seed=need.seed) if values.shape[1] > need.width else values.clone()

    def _take(self, name: str, other: Tensor, rows: Tensor, batch: SiteBatch) -> None:
        if len(other) != len(rows):
            raise NotApplicable(
                f"{name} gives {len(other)} rows and {batch.site.name} {len(rows)} for the same examples; "
                "ask for pooling='gap'"
            )
        try:
            self._pairs.setdefault(name, CrossScatter()).update(other, rows)
        except ValueError as error:
            raise NotApplicable(f"{error} Ask for pooling='gap'") from error

    def merge(self, other: Self) -> None:
        """Take in what another reducer has seen."""
        for name, scatter in other._pairs.items():
            self._pairs.setdefault(name, CrossScatter()).merge(scatter)

    def result(self) -> dict[str, CrossScatter]:
        """The scatter of each pair that ends here."""
        if not self._pairs:
            raise NotApplicable("no other layer of its pairs gave an output before it")
        return dict(self._pairs)
