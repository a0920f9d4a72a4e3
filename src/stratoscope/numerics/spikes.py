"""Spikes in a noisy curve: how far each value lies above those just before it, in units of their own noise."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

MAD_TO_DEVIATION = 1.482602218505602
"""The standard deviation of a Gaussian over its median absolute deviation from the median."""

_AT_ONCE = 10_000
"""Windows that are held in memory at once."""

FLOOR = 1e-3
"""A curve that does not vary at all is taken to vary by this share of its size."""

LEAST = 20
"""Values before a place that are needed to tell their noise."""


class Spikes(NamedTuple):
    """What stands out of a curve at each place.

    Attributes:
        height: deviations above what the places before lead to; NaN where there are too few of them.
        expected: what they lead to.
        undone: the rise over all that the curve had fallen since its beginning (1 is back where it began), where that is
            more than its noise and than half of its size.
    """

    height: Float[np.ndarray, " T"]
    expected: Float[np.ndarray, " T"]
    undone: Float[np.ndarray, " T"]


def spikes(curve: Float[np.ndarray, " T"], window: int = 50, least: int = LEAST) -> Spikes:
    """Compare each value with where the `window` values before it lead to, in their deviations from a robust line through them.

    They lead to the end of that line or, if that is higher, to the median of their later half, since curves level off. Where every value is positive this is done on logarithms: the noise of a loss goes with its size, and near zero its
    raw values have such heavy tails that every long run would have a spike. Neither a trend nor a step of the noise
    makes a spike; after a lasting jump the window catches up. `height` is unchanged by scaling a positive curve, and by
    shifting and scaling one that is not.

    Args:
        curve: values in order of time; those that are not finite are left out of windows and are no spikes.
        window: values before each that it is compared with.
        least: of those, how many must be finite.

    Returns:
        Three arrays as long as the curve.

    >>> curve = 1 + 0.1 * np.sin(np.arange(100.0))
    >>> curve[70] = 9.0
    >>> int(np.nanargmax(spikes(curve).height))
    70
    """
    values = np.where(np.isfinite(curve), curve, np.nan).astype(float)
    unknown = np.full(len(values), np.nan)
    if np.isfinite(values).sum() <= least:
        return Spikes(unknown, unknown.copy(), unknown.copy())
    positive = bool((values[np.isfinite(values)] > 0).all())
    told = np.log(values) if positive else values
    middle, deviation = _before(told, window, least)
    raw = np.exp(middle) if positive else middle
    scale = 1.0 if positive else np.maximum(np.abs(middle), np.finfo(float).tiny)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        height = (told - middle) / np.maximum(deviation, FLOOR * scale)
        fallen = np.median(values[np.isfinite(values)][:least]) - raw
        noise = raw * np.expm1(np.minimum(deviation, 50.0)) if positive else deviation
        undone = (values - raw) / np.maximum(np.maximum(fallen, 3 * noise), 0.5 * np.abs(raw))
    return Spikes(height, raw, undone)


def _before(values: np.ndarray, window: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the values before each place lead, and their robust deviation from that line.

    The slope is that between the medians of both halves, so that a steep fall is not taken for noise.
    """
    padded = np.concatenate([np.full(window, np.nan), values[:-1]])
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)
    enough = np.isfinite(windows).sum(1) >= least
    middle, deviation = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for rows in np.array_split(np.flatnonzero(enough), len(values) // _AT_ONCE + 1):
        if len(rows):
            middle[rows], deviation[rows] = _line(windows[rows])
    return middle, deviation


def _line(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The end of a robust line through each window, or where its later half lies if that is higher; the deviation from the line."""
    window = windows.shape[1]
    half = window // 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a half of which nothing is known
        one, two = np.nanmedian(windows[:, :half], axis=1), np.nanmedian(windows[:, window - half :], axis=1)
    slope = np.nan_to_num((two - one) / (window - half))
    level = windows - slope[:, None] * np.arange(-window, 0)
    end = np.nanmedian(level, axis=1)
    deviation = MAD_TO_DEVIATION * np.nanmedian(np.abs(level - end[:, None]), axis=1)
    # a fall that is levelling off leads higher than its line
    return np.fmax(end, two), deviation
