"""A curve in one line of text, or as a path as small as a word."""

from __future__ import annotations

import numpy as np

from stratoscope.charts.values import FloatArray

BLOCKS = "▁▂▃▄▅▆▇█"
BROKEN = "\N{MULTIPLICATION SIGN}"


def sparkline(values: FloatArray, width: int = 12, *, log: bool = False) -> str:
    """A trend as block characters, at most `width` of them.

    Longer curves are averaged in buckets; a bucket that holds a value that is not finite shows `×`. The lowest block is the
    smallest value of this curve and the highest its largest, so that two sparklines do not share a scale.

    >>> sparkline(np.array([0.0, 1.0, 2.0, float("nan"), 7.0]))
    '▁▂▃×█'
    """
    if len(values) == 0:
        return ""
    if log and np.nanmin(np.where(np.isfinite(values), values, np.nan), initial=np.inf) > 0:
        values = np.log10(np.where(np.isfinite(values), values, np.nan))
    chunks = np.array_split(values, min(width, len(values)))
    means = np.array([float(chunk.mean()) if np.isfinite(chunk).all() else np.nan for chunk in chunks])
    finite = means[np.isfinite(means)]
    low, span = (finite.min(), finite.max() - finite.min()) if len(finite) else (0.0, 0.0)

    def block(value: float) -> str:
        if not np.isfinite(value):
            return BROKEN
        share = (value - low) / span if span > 0 else 0.0
        return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]

    return "".join(block(value) for value in means)


def spark_path(values: FloatArray, width: int = 56, height: int = 14, points: int = 16, *, log: bool = False) -> str:
    """The same as the `d` of an SVG path; where a value is not finite there is a gap.

    >>> spark_path(np.array([0.0, 1.0]))
    'M1 13L55 1'
    """
    values = np.where(np.isfinite(values), values, np.nan)
    if log and np.nanmin(values, initial=np.inf) > 0:
        values = np.log10(values)
    chunks = np.array_split(values, min(max(len(values), 1), points))
    means = np.array([float(chunk.mean()) if len(chunk) else np.nan for chunk in chunks])
    finite = means[np.isfinite(means)]
    if len(finite) < 2:
        return ""
    low, span = float(finite.min()), float(finite.max() - finite.min())
    if not np.isfinite(span) or span == 0:
        low, span = low - 0.5, 1.0
    x = np.linspace(1, width - 1, len(means))
    y = height - 1 - (means - low) / span * (height - 2)
    parts, pen = [], False
    for across, down in zip(x, y, strict=True):
        if np.isfinite(down):
            parts.append(f"{'L' if pen else 'M'}{across:.0f} {round(float(down), 1):g}")
        pen = bool(np.isfinite(down))
    return "".join(parts)
