"""Drift and diffusion: the gradient's mean is larger than its noise at first, and smaller later.

Every full window of mini-batches gives a layer's signal and noise. Windows are gathered in blocks that grow as steps do
on a logarithmic axis, and a block is in **drift** where its log ratio is shown to be above 0, in **diffusion** where it
is shown to be below. Windows that go together with their neighbours count for fewer.

Measured on 400 draws each, 16 to 300 windows whose log ratio scatters by 0.2 or by 1 with a correlation of 0, 0.3 or 0.6:
around a ratio of 1 that stays, at most 1.5 % get a turn. A crossing after a quarter of the steps, where the ratio falls by 0.5
a doubling in its logarithm, is found in 86 % or more of 300 windows and in 15 % to all of 64, the less the more they scatter
and go together, and in less than 10 % of 16; of those found from 64 on, 91 % or more lie in their interval.

Source: Shwartz-Ziv and Tishby, arXiv:1703.00810.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from stratoscope.diagnoses.theories.along import few, place_of, step_of
from stratoscope.diagnoses.theories.base import FEWEST, Answer, Asked, Phase, Theory, Told, Turn

DRIFT = Phase("drift", "D", "the mean of the gradient is larger than its noise")
DIFFUSION = Phase("diffusion", "~", "the noise of the gradient is larger than its mean")
MOST_CORRELATION = 0.9
"""Correlation of neighbouring windows that is assumed at most."""
BY_SIGN = {1: DRIFT, -1: DIFFUSION}


@dataclass(frozen=True)
class Windows:
    """Full windows of one layer, in order of time.

    Attributes:
        begin: the last step before each.
        end: its last step.
        signal: `tanh(ln SNR)`, which has the sign of the log ratio and is finite where signal or noise is 0.
    """

    begin: Float[np.ndarray, " windows"]
    end: Float[np.ndarray, " windows"]
    signal: Float[np.ndarray, " windows"]


@dataclass(frozen=True)
class Block:
    """Windows that lie together on the logarithmic axis of steps.

    Attributes:
        begin: the last step before it.
        end: its last step.
        place: its middle.
        mean: of the windows' signal.
        sign: 1 where the mean is shown to be above 0, -1 where below, else 0.
        alone: whether that is as sure as of two blocks, each at `level`.
    """

    begin: float
    end: float
    place: float
    mean: float
    sign: int
    alone: bool


@dataclass(frozen=True)
class Gradient(Theory):
    """Drift and diffusion of the gradient of a layer's weights.

    Attributes:
        windows: that a block has at least.
        growth: factor by which the step grows within a block at least.
    """

    key: ClassVar[str] = "gradient"
    title: ClassVar[str] = "the gradient"
    source: ClassVar[str] = "arXiv:1703.00810"
    reads: ClassVar[str] = "training"
    stated: ClassVar[tuple[Phase, ...]] = (DRIFT, DIFFUSION)
    turning: ClassVar[str] = "the gradient crosses from drift into diffusion"
    order: ClassVar[int] = 40
    dense: ClassVar[bool] = True

    windows: int = 4
    growth: float = 1.25

    def tell(self, asked: Asked) -> dict[str, Told]:
        """Drift and diffusion of each layer with weights."""
        if "gradient_mean" not in asked.group or "gradient_deviation" not in asked.group:
            return {}
        return {layer: self._told(windows, asked.level) for layer, windows in _windows(asked).items()}

    def _told(self, windows: Windows, level: float) -> Told:
        if len(windows.signal) < FEWEST:
            steps = tuple(int(end) for end in windows.end)
            return Told(steps, ("",) * len(steps), Answer.SILENT, few(len(steps), "full window"))
        blocks = self._blocks(windows, level)
        signs = _held(blocks)
        # of step 0 nothing is known: a window begins with the step after it
        steps = tuple(int(block.begin) + 1 for block in blocks)
        names = tuple(BY_SIGN[sign].name if sign else "" for sign in signs)
        until = int(windows.end[-1] + (windows.end[-1] - windows.begin[-1]))
        answer, reason, turn = _answer(blocks, signs)
        columns = tuple(int(block.end) for block in blocks)
        return Told(steps, names, answer, reason, turn, until=until, columns=columns)

    def _blocks(self, windows: Windows, level: float) -> list[Block]:
        """Consecutive windows, at least so many and growing so much; what is left at the end joins the last block."""
        starts, count = [0], len(windows.signal)
        for window in range(1, count):
            enough = window - starts[-1] >= self.windows
            if enough and 1 + windows.end[window - 1] >= self.growth * (1 + windows.begin[starts[-1]]):
                starts.append(window)
        if len(starts) > 1 and count - starts[-1] < self.windows:
            starts.pop()
        correlation = _correlation(windows)
        return [
            _block(Windows(windows.begin[a:b], windows.end[a:b], windows.signal[a:b]), correlation, level)
            for a, b in zip(starts, [*starts[1:], count], strict=True)
        ]


def _windows(asked: Asked) -> dict[str, Windows]:
    """The full windows of each layer: over all of its weights, of which signal and noise are the parts of one vector."""
    mean = asked.group["gradient_mean"].transpose("step", "param")
    params = [str(name) for name in mean.coords["param"].values]
    deviation = asked.group["gradient_deviation"].reindex(step=mean.coords["step"], param=params)
    steps = mean.coords["step"].values.astype(np.float64)
    signal, noise = mean.values**2, deviation.transpose("step", "param").values ** 2
    layers: dict[str, list[int]] = {}
    for place, name in enumerate(params):
        if name in asked.weights or (not asked.weights and not name.endswith("bias")):
            layers.setdefault(asked.owner(name), []).append(place)
    return {layer: _window_of(steps, signal[:, own], noise[:, own]) for layer, own in layers.items()}


def _window_of(
    steps: Float[np.ndarray, " steps"],
    signal: Float[np.ndarray, "steps params"],
    noise: Float[np.ndarray, "steps params"],
) -> Windows:
    known = np.isfinite(signal) & np.isfinite(noise)
    total = [np.where(known, part, 0.0).sum(1) for part in (signal, noise)]
    full = known.any(1) & (total[0] + total[1] > 0)
    end = steps[full]
    before = np.concatenate([[0.0], steps[:-1]])[full]
    first = end - float(np.median(np.diff(end))) if len(end) > 1 else before
    before = np.maximum(before, np.maximum(first, 0.0)) if len(end) else before
    above, below = total[0][full], total[1][full]
    return Windows(before, end, (above - below) / (above + below))


def _correlation(windows: Windows) -> float:
    """Correlation of one window's signal with the next, around a curve through all; 0 at least.

    The curve takes correlation away, about `(1 + rho) / n` for each of its numbers, which is put back.
    """
    count = len(windows.signal)
    degree = min(3, count // 8)
    place = place_of((windows.begin + windows.end) / 2)
    basis = np.vander((place - place[0]) / max(float(np.ptp(place)), 1e-9), degree + 1)
    left = windows.signal - basis @ np.linalg.lstsq(basis, windows.signal, rcond=None)[0]
    energy = float(left @ left)
    seen = float(left[1:] @ left[:-1]) / energy if energy > 1e-20 * count else 0.0
    return float(np.clip(seen + (degree + 1) * (1 + seen) / count, 0.0, MOST_CORRELATION))


def _block(windows: Windows, correlation: float, level: float) -> Block:
    from scipy.special import stdtrit

    mean, count = float(windows.signal.mean()), len(windows.signal)
    # windows that go together tell less than so many
    fewer = (1 + correlation) / (1 - correlation)
    freedom = max((count - 1) / fewer, 1.0)
    error = float(windows.signal.std(ddof=1)) * (fewer / count) ** 0.5
    once, twice = (abs(mean) > float(stdtrit(freedom, 1 - at / 2)) * error for at in (level, level**2))
    place = float(place_of((windows.begin + windows.end) / 2).mean())
    sign = int(np.sign(mean)) if once else 0
    return Block(float(windows.begin[0]), float(windows.end[-1]), place, mean, sign, twice)


def _held(blocks: list[Block]) -> list[int]:
    """Signs without wiggles: the first is where things stand, and a later lone block counts only if it is sure alone."""
    shown = [place for place, block in enumerate(blocks) if block.sign]
    found, held = [block.sign for block in blocks], 0
    for sign, run in groupby(shown, key=lambda place: blocks[place].sign):
        places = list(run)
        held = sign if not held or len(places) > 1 or blocks[places[0]].alone else held
        for place in places:
            found[place] = held
    return found


def _answer(blocks: list[Block], signs: list[int]) -> tuple[Answer, str, Turn | None]:
    """Whether drift ends in diffusion, and where."""
    shown = [place for place, sign in enumerate(signs) if sign]
    if not shown:
        return Answer.SILENT, "signal and noise are about as large, so neither phase is shown", None
    if signs[shown[-1]] > 0:
        return Answer.ONE_PHASE, "the mean is the larger one to the end", None
    drifts = [place for place in shown if signs[place] > 0]
    if not drifts:
        return (
            Answer.ONLY_SECOND,
            f"the noise is shown to be larger from step {blocks[shown[0]].begin + 1:.0f} on",
            None,
        )
    last = drifts[-1]
    first = next(place for place in shown if place > last)
    turn = Turn(*(step_of(place) for place in _crossing(blocks[last : first + 1])))
    before, after = blocks[last], blocks[first]
    reason = f"the mean is larger until step {before.end:.0f}, the noise from step {after.begin + 1:.0f} on"
    return Answer.TURNS, reason, turn


def _crossing(blocks: list[Block]) -> tuple[float, float, float]:
    """Where the mean crosses 0 between a block that is shown to be above and one that is shown to be below."""
    place = np.array([block.place for block in blocks])
    mean = np.array([block.mean for block in blocks])
    after = int(np.flatnonzero(mean < 0)[0]) if (mean[1:] < 0).any() else len(mean) - 1
    after = max(after, 1)
    share = mean[after - 1] / (mean[after - 1] - mean[after]) if mean[after - 1] > mean[after] else 0.5
    at = place[after - 1] + float(np.clip(share, 0.0, 1.0)) * (place[after] - place[after - 1])
    return float(at), float(place[0]), float(place[-1])
