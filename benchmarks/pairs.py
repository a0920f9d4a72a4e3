"""A B A B: two callables in turn, medians of each round, and the ratio round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def alternate(
    plain: Callable[[], object], ours: Callable[[], object], *, rounds: int = 9, repeats: int = 30
) -> tuple[float, float, float]:
    """Median seconds of `plain`, of `ours`, and the median over rounds of their ratio (ours over plain)."""
    firsts, seconds, ratios = [], [], []
    for call in (plain, ours):
        call()
    for _ in range(rounds):
        a, b = _median(plain, repeats), _median(ours, repeats)
        firsts.append(a)
        seconds.append(b)
        ratios.append(b / a)
    return statistics.median(firsts), statistics.median(seconds), statistics.median(ratios)


def _median(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
