"""Training: what every optimizer step does, per parameter.

At every step: the loss that the loop handed over, the learning rate, and for each param the norm of the mini-batch
gradient (`gradient_norm`) and the **update-to-weight ratio** `|w_after - w_before| / |w_before|`. Over windows of
`window` steps, with g the mini-batch gradient: `gradient_mean` = |E g|, `gradient_deviation` = sqrt(E|g - E g|^2), and
their ratio, the **signal-to-noise ratio** `gradient_snr`. The square of |E g| is estimated without bias, so pure noise
gives a ratio near 0 and not 1/sqrt(window); weights move within the window, which counts as noise.

A ratio of about 1e-3 per step is a common rule of thumb for plain SGD, not a theorem: far below 1e-6 a layer hardly
trains, above 1e-1 it is rewritten every few steps. Large signal-to-noise is called the drift phase, small the diffusion
phase.

**When it misleads.** Adaptive optimizers set the update size themselves, so a steady ratio says little about gradients.
Layers before a normalisation can take larger ratios. A frozen param has no gradient and no row.

Source: Shwartz-Ziv and Tishby, arXiv:1703.00810 (drift and diffusion).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from stratoscope.capture.gradients import (
    Optimizer,
    OptimizerState,
    StepStatistics,
    TrainingGradients,
    TrainingLoss,
)
from stratoscope.capture.needs import Need
from stratoscope.capture.views import Seen
from stratoscope.errors import NotApplicable
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import NetworkInstrument
from stratoscope.instruments.reading import passed_if_silent
from stratoscope.record.quantity import Quantity

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.record.group import Group

FloatArray = NDArray[np.float64]

_NAMES = {
    "loss": "loss of the mini-batch",
    "learning_rate": "learning rate of the first group",
    "gradient_norm": "norm of the mini-batch gradient",
    "update_ratio": "norm of the update over norm of the weights",
    "gradient_mean": "norm of the mean gradient over a window",
    "gradient_deviation": "root mean squared distance of gradients from their mean over a window",
    "gradient_snr": "signal-to-noise ratio of the gradient over a window",
}
_ATTRS = {
    name: {"units": "1", "long_name": text, **({"scale": "log"} if name not in ("loss", "learning_rate") else {})}
    for name, text in _NAMES.items()
}


@dataclass(frozen=True)
class Training(NetworkInstrument):
    """What every optimizer step does, per parameter.

    Attributes:
        window: mini-batches over which the mean gradient is formed.
        high_ratio: update-to-weight ratio above which, as a median over the last steps, it is an issue.
        low_ratio: the same below which it is a tip.
        explode: factor by which the median gradient norm must have grown over the run for an issue.
        recent: steps at the end that are judged.
    """

    key: ClassVar[str] = "training"
    title: ClassVar[str] = "Training steps"
    source: ClassVar[str] = "arXiv:1703.00810"
    every_step: ClassVar[bool] = True
    codes: ClassVar[Mapping[str, str]] = {
        "TR001": "the loss or a gradient is NaN or infinite",
        "TR002": "updates are large against the weights: the learning rate is too high",
        "TR003": "updates are tiny against the weights: a layer hardly trains",
        "TR004": "gradients have grown by a large factor",
        "TR005": "a parameter gets no gradient at all",
        "TR006": "the loss ends higher than it began",
    }

    window: int = 32
    high_ratio: float = 0.1
    low_ratio: float = 1e-6
    explode: float = 1e3
    recent: int = 50

    @property
    def requires(self) -> set[Need]:
        """The live mini-batch's gradients."""
        return {TrainingGradients(self.window)}

    @property
    def uses(self) -> set[Need]:
        """The optimizer's rate and the loss."""
        return {Optimizer(), TrainingLoss()}

    def measure(self, seen: Seen) -> Mapping[str, Quantity]:
        """One step's numbers; those over a window only when it is full."""
        step: StepStatistics = seen[TrainingGradients(self.window)]
        if not step.params:
            raise NotApplicable("no parameter has a gradient")
        found = {"gradient_norm": _of_params(step, "gradient_norm", step.norm)}
        with np.errstate(divide="ignore", invalid="ignore"):
            found["update_ratio"] = _of_params(step, "update_ratio", step.update_norm / step.weight_norm)
            if step.window >= self.window:
                mean, deviation = signal_and_noise(step.sum_norm, step.square_sum, step.window)
                found["gradient_mean"] = _of_params(step, "gradient_mean", mean)
                found["gradient_deviation"] = _of_params(step, "gradient_deviation", deviation)
                found["gradient_snr"] = _of_params(step, "gradient_snr", mean / deviation)
        loss, optimizer = seen.get(TrainingLoss()), seen.get(Optimizer())
        if loss is not None:
            found["loss"] = _scalar("loss", loss)
        if isinstance(optimizer, OptimizerState) and optimizer.learning_rate:
            found["learning_rate"] = _scalar("learning_rate", optimizer.learning_rate[0])
        return found

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Steps too large, too small, growing, or not finite."""
        yield from passed_if_silent(self, self._judge(measured), self.codes, measured)

    def _judge(self, measured: Group) -> Iterator[Finding]:
        yield from self._not_finite(measured)
        if "update_ratio" in measured:
            yield from self._ratios(measured["update_ratio"], measured["gradient_norm"])
            yield from self._growth(measured["gradient_norm"])
        if "loss" in measured:
            yield from self._loss(measured["loss"])

    def _not_finite(self, measured: Group) -> Iterator[Finding]:
        for name in ("loss", "gradient_norm"):
            if name not in measured:
                continue
            array = measured[name]
            bad = ~np.isfinite(array.values) & measured.measured(name).values
            steps = np.flatnonzero(bad.reshape(len(bad), -1).any(1))
            if len(steps):
                step = int(array.coords["step"].values[steps[0]])
                what = "The loss" if name == "loss" else f"The gradient of {_first_bad(array, bad, steps[0])}"
                yield self.finding(
                    "TR001", Outcome.ISSUE, f"{what} is not finite from step {step} on",
                    do="lower the learning rate, clip gradients, or train in higher precision",
                    first_step=step, steps=len(steps), limit=0, step=step,
                )  # fmt: skip
                return

    def _ratios(self, ratio: xr.DataArray, norm: xr.DataArray) -> Iterator[Finding]:
        last = int(ratio.coords["step"].values[-1])
        for name in ratio.coords["param"].values:
            values, norms = (_finite(array.sel(param=name).values[-self.recent :]) for array in (ratio, norm))
            if len(norms) and norms.max() == 0:
                yield self.finding(
                    "TR005", Outcome.ISSUE, f"{name} got a gradient of exactly zero in the last {len(norms)} steps",
                    do="look for dead units behind it, a detached graph or a mask", layer=str(name), step=last,
                    steps=len(norms), limit=0.0,
                )  # fmt: skip
                continue
            median = float(np.median(values)) if len(values) else float("nan")
            # a bias starts at zero, so its ratio says nothing about the learning rate
            if str(name).endswith("bias"):
                continue
            if median > self.high_ratio:
                yield self.finding(
                    "TR002", Outcome.ISSUE, f"{name} changes by {median:.0%} of its norm in a step",
                    do="lower the learning rate or clip gradients", layer=str(name), step=last,
                    update_ratio=median, limit=self.high_ratio, steps=len(values),
                )  # fmt: skip
            elif median < self.low_ratio:
                yield self.finding(
                    "TR003", Outcome.TIP, f"{name} changes by {median:.1e} of its norm in a step",
                    do="raise the learning rate for this layer or look at the gradients that reach it", layer=str(name),
                    step=last, update_ratio=median, limit=self.low_ratio, steps=len(values),
                )  # fmt: skip

    def _growth(self, norm: xr.DataArray) -> Iterator[Finding]:
        if norm.sizes["step"] < 2 * self.recent:
            return
        for name in norm.coords["param"].values:
            curve = norm.sel(param=name).values
            early, late = (_finite(part) for part in (curve[: self.recent], curve[-self.recent :]))
            if len(early) and len(late) and np.median(early) > 0:
                factor = float(np.median(late) / np.median(early))
                if factor > self.explode:
                    yield self.finding(
                        "TR004", Outcome.ISSUE, f"The gradient of {name} has grown {factor:.0f}-fold",
                        do="clip gradients, lower the learning rate, or add a norm", layer=str(name),
                        step=int(norm.coords["step"].values[-1]), growth=factor, limit=self.explode,
                    )  # fmt: skip

    def _loss(self, loss: xr.DataArray) -> Iterator[Finding]:
        values = _finite(loss.values)
        if len(values) < 2 * self.recent:
            return
        first, last = values[: self.recent], values[-self.recent :]
        # two standard errors, so that a flat noisy loss is not called rising
        margin = 2 * float(np.hypot(first.std(), last.std())) / len(first) ** 0.5
        if last.mean() > first.mean() + margin:
            yield self.finding(
                "TR006", Outcome.ISSUE, f"The loss ends at {last.mean():.3g} and began at {first.mean():.3g}",
                do="lower the learning rate", first=float(first.mean()), last=float(last.mean()),
                limit=float(first.mean() + margin), step=int(loss.coords["step"].values[-1]),
            )  # fmt: skip


def signal_and_noise(sum_norm: FloatArray, square_sum: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    """|E g| and sqrt(E|g - E g|^2) of n gradients, from the norm of their sum and the sum of their squared norms.

    Both squares are unbiased; a negative estimate of |E g|^2, which pure noise gives half the time, becomes zero.

    >>> mean, deviation = signal_and_noise(np.array([6.0]), np.array([12.0]), 3)
    >>> float(mean[0]), float(deviation[0])
    (2.0, 0.0)
    """
    mean_square = square_sum / n
    of_mean = (sum_norm / n) ** 2
    signal = np.clip((n * of_mean - mean_square) / (n - 1), 0, None)
    noise = np.clip((mean_square - of_mean) * n / (n - 1), 0, None)
    return np.sqrt(signal), np.sqrt(noise)


def _of_params(step: StepStatistics, name: str, values: FloatArray) -> Quantity:
    return Quantity(values, ("param",), {"param": step.params}, _ATTRS[name])


def _scalar(name: str, value: float) -> Quantity:
    return Quantity(np.asarray(value, dtype=np.float64), (), {}, _ATTRS[name])


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _first_bad(array: xr.DataArray, bad: NDArray[np.bool_], step: np.intp) -> str:
    return str(array.coords["param"].values[int(np.flatnonzero(bad[step])[0])])
