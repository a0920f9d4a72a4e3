"""Seeded shuffles of a matrix's entries, in blocks of rows, without a copy of the matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

AT_ONCE = 2**20
"""Entries up to which the whole order is drawn; beyond, it is computed place by place."""

_ROUNDS = 2
_BLOCK = 2**22
_CHUNK = 2**17  # what fits a processor's cache is several times as fast


def shuffled_rows(
    entries: Shaped[Tensor, " n"], columns: int, *, generator: torch.Generator, at_once: int = AT_ONCE
) -> Iterator[Shaped[Tensor, "rows columns"]]:
    """The same entries in a random order, as a matrix of `columns` columns, a block of rows at a time.

    Every entry comes exactly once. Up to `at_once` entries the order is uniform over all orders. Beyond, it is a random
    Feistel network over rows and columns: by turns, rows are moved by a random amount that their column decides, and
    columns by one that their row decides, twice each (after Luby and Rackoff, doi:10.1137/0217022). It needs
    memory for a few numbers a row alone.

    Args:
        entries: in any order, `n` a multiple of `columns`.
        columns: of the shuffled matrix.
        generator: on the CPU; draws the order.
        at_once: entries up to which the whole order is drawn.

    Raises:
        ValueError: if the entries do not fill the last row.

    >>> blocks = shuffled_rows(torch.arange(6), 2, generator=torch.Generator().manual_seed(0))
    >>> sorted(torch.cat(list(blocks)).flatten().tolist())
    [0, 1, 2, 3, 4, 5]
    """
    n = len(entries)
    if columns < 1 or n % columns:
        raise ValueError(f"{n} entries do not fill rows of {columns}.")
    order = torch.randperm(n, generator=generator) if n <= at_once else None
    network = [] if order is not None else _network(n // columns, columns, generator)
    step = columns * max(1, _BLOCK // columns)
    for start in range(0, n, step):
        stop = min(n, start + step)
        if order is not None:
            yield entries[order[start:stop].to(entries.device)].view(-1, columns)
            continue
        places = torch.arange(start, stop, dtype=torch.int32 if n < 2**31 else torch.int64)
        chunks = [
            entries.take(moved(chunk, columns, network).long().to(entries.device)) for chunk in places.split(_CHUNK)
        ]
        yield torch.cat(chunks).view(-1, columns)


def _network(rows: int, columns: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """For each round, how far each column's entries move along the rows, and each row's along the columns."""
    kind = torch.int32 if rows * columns < 2**31 else torch.int64
    return [
        (
            torch.randint(rows, (columns,), generator=generator, dtype=kind),
            torch.randint(columns, (rows,), generator=generator, dtype=kind),
        )
        for _ in range(_ROUNDS)
    ]


def moved(places: Int[Tensor, " k"], columns: int, network: list[tuple[Tensor, Tensor]]) -> Int[Tensor, " k"]:
    """Where a network sends places, counted row by row."""
    row, column = places // columns, places % columns
    for along_rows, along_columns in network:
        row = row + along_rows.index_select(0, column)
        row = torch.where(row >= len(along_columns), row - len(along_columns), row)
        column = column + along_columns.index_select(0, row)
        column = torch.where(column >= columns, column - columns, column)
    return row * columns + column
