"""Fewer points that look the same: the extremes of every bucket and every gap stay."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stratoscope.charts.values import FloatArray


def kept_points(y: FloatArray, limit: int) -> NDArray[np.intp]:
    """Which points of a long curve to draw.

    The curve is cut into buckets of equal length; of each the smallest and the largest finite value are kept and, if it
    holds one, the first value that is not finite, so that spikes and gaps stay visible. First and last always stay.

    Args:
        y: values in order.
        limit: about how many points to keep; up to half as many again where there are gaps.

    Returns:
        Positions, ascending.

    >>> spike = np.zeros(10_000)
    >>> spike[4321] = 1.0
    >>> kept = kept_points(spike, 100)
    >>> len(kept) <= 102, 4321 in kept
    (True, True)
    """
    if len(y) <= limit:
        return np.arange(len(y))
    finite = np.isfinite(y)
    edges = np.linspace(0, len(y), max(limit // 2, 1) + 1).astype(int)
    kept = {0, len(y) - 1}
    for start, stop in pairwise(edges):
        inside = finite[start:stop]
        if inside.any():
            there = np.flatnonzero(inside) + start
            kept |= {int(there[np.argmin(y[there])]), int(there[np.argmax(y[there])])}
        if not inside.all():
            kept.add(int(start + np.argmin(inside)))
    return np.array(sorted(kept), dtype=np.intp)


def kept_columns(values: FloatArray, limit: int) -> tuple[FloatArray, NDArray[np.intp]]:
    """Fewer columns of a long heat map: of each row and bucket the value furthest from the row's middle.

    A bucket that holds a value that is not finite shows that value, so that it is not overlooked.

    Args:
        values: rows x columns.
        limit: at most so many columns.

    Returns:
        The grid, and for each of its columns the first of the columns that it stands for.
    """
    columns = values.shape[1]
    if columns <= limit:
        return values, np.arange(columns)
    edges = np.linspace(0, columns, limit + 1).astype(np.intp)
    finite = np.where(np.isfinite(values), values, np.nan)
    middle = np.array([[np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0] for row in finite])
    away = np.where(np.isfinite(values), np.abs(np.nan_to_num(values - middle)), np.inf)
    rows = np.arange(len(values))
    picked = [values[rows, start + np.argmax(away[:, start:stop], axis=1)] for start, stop in pairwise(edges)]
    return np.stack(picked, axis=1), edges[:-1]


def kept_evenly(count: int, limit: int) -> NDArray[np.intp]:
    """Which of many columns of names to keep: the first, the last, and others evenly between.

    >>> kept_evenly(10, 4).tolist(), kept_evenly(3, 4).tolist(), kept_evenly(5, 1).tolist()
    ([0, 3, 6, 9], [0, 1, 2], [4])
    """
    if count <= limit:
        return np.arange(count)
    return np.linspace(count - 1 if limit == 1 else 0, count - 1, limit).round().astype(np.intp)
