"""Training: what every optimizer step does, per parameter.

At every step: the loss that the loop handed over, the learning rate (where an optimizer has several groups of params, or
there are several optimizers, also `group_rate` of each), the share by which weight decay alone shrinks weights
(`decay_rate`, rate times decay over 1 - momentum, of the group where it is largest), and for each param the norm of the mini-batch
gradient (`gradient_norm`) and the **update-to-weight ratio** `|w_after - w_before| / |w_before|`. Over windows of
`window` steps, with g the mini-batch gradient: `gradient_mean` = |E g|, `gradient_deviation` = sqrt(E|g - E g|^2), and
their ratio, the **signal-to-noise ratio** `gradient_snr`. The square of |E g| is estimated without bias, so pure noise
gives a ratio near 0 and not 1/sqrt(window); weights move within the window, which counts as noise.

A ratio of about 1e-3 per step is a common rule of thumb for plain SGD, not a theorem: far below 1e-6 a layer hardly
trains, above 1e-1 it is rewritten every few steps. Large signal-to-noise is called the drift phase, small the diffusion
phase.

**When it misleads.** Adaptive optimizers set the update size themselves, so a steady ratio says little about gradients.
Layers before a normalisation can take larger ratios. A frozen param has no gradient and no row.

**TR001.** The loss of a mini-batch, or the norm of a param's gradient, was NaN or infinite; the finding names the first step.
From then on the weights usually are, too. **When it misleads.** With a loss scaler (mixed precision) single steps
with infinite gradients are skipped and harmless: look at how many steps there are. **What to do.** Go back to the step named;
lower the learning rate or warm it up, clip gradients, look for logarithms and divisions of zero and for NaN in that batch.

**TR002.** Over some `stretch` steps in a row, half of the updates of a weight were larger than `high_ratio` of the weight itself,
so that it was rewritten in a handful of steps. **When it misleads.** Right after a start from tiny weights, and before a batch
norm, which takes scale away, a large ratio can be harmless for a short while. Biases, and weights that start at zero, are not
judged. **What to do.** Divide the learning rate by three to ten, or warm it up; if it happened at single steps, clip gradients.

**TR003.** The median update of a weight over the whole run stayed below `low_ratio` of the weight. **When it misleads.**
In a network that was trained before, small steps are what one wants. **What to do.** Raise the learning rate of that layer, see
whether the gradient that reaches it is small as well, and whether the layer is to be frozen.

**TR004.** The median gradient norm of a param over the last `recent` steps is more than `explode` times that over the first
ones. **When it misleads.** A start at which gradients hardly pass (saturated units, a zero output layer) makes any
later gradient look large. **What to do.** Clip gradients by their norm, lower the learning rate, put a norm before the
layer; in a recurrent network look at how far back gradients go.

**TR005.** A param got a gradient of exactly zero in each of the last `recent` steps, so nothing but weight decay moves it.
**When it misleads.** A branch that these data do not reach, such as rows of an embedding or an expert that is not chosen, has
none for good reason. **What to do.** Look for dead units behind it (UN001), for `detach` and `no_grad`, for a mask, for a loss
that does not depend on it.

**TR006.** The mean loss over the last `recent` steps lies more than `rise` standard errors above that over the first ones.
**When it misleads.** A loss whose weights change on purpose (a penalty that is phased in, a curriculum, adversarial
training) may rise and be fine. **What to do.** Lower the learning rate; check the sign of the loss, and whether labels and inputs
belong together.

Source: Shwartz-Ziv and Tishby, arXiv:1703.00810 (drift and diffusion).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
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
from stratoscope.instruments.reading import passed_if_silent, some
from stratoscope.numerics.noise import gradient_noise
from stratoscope.record.quantity import Quantity

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.record.group import Group

FloatArray = NDArray[np.float64]

_NAMES = {
    "loss": "loss of the mini-batch",
    "learning_rate": "learning rate of the first group",
    "group_rate": "learning rate of each group",
    "decay_rate": "share by which weight decay alone shrinks weights a step",
    "gradient_norm": "norm of the mini-batch gradient",
    "update_ratio": "norm of the update over norm of the weights",
    "gradient_mean": "norm of the mean gradient over a window",
    "gradient_deviation": "root mean squared distance of gradients from their mean over a window",
    "gradient_snr": "signal-to-noise ratio of the gradient over a window",
}
_ATTRS: dict[str, dict[str, Any]] = {
    name: {
        "units": "1",
        "long_name": text,
        **({"scale": "log"} if name not in ("loss", "learning_rate", "group_rate", "decay_rate") else {}),
    }
    for name, text in _NAMES.items()
}
_ATTRS["update_ratio"]["headline"], _ATTRS["gradient_snr"]["headline"] = 1, 2


@dataclass(frozen=True)
class Training(NetworkInstrument):
    """What every optimizer step does, per parameter.

    Attributes:
        window: mini-batches over which the mean gradient is formed.
        high_ratio: update-to-weight ratio above which, as the median of any `stretch` steps in a row, it is an issue.
        low_ratio: ratio below which, as the median over the whole run, it is a tip.
        stretch: recorded steps in a row for `high_ratio`.
        explode: factor by which the median gradient norm must have grown over the run for an issue.
        recent: steps at the end that are judged.
        rise: standard errors by which the loss must end above its beginning for an issue.
    """

    key: ClassVar[str] = "training"
    title: ClassVar[str] = "Training steps"
    source: ClassVar[str] = "arXiv:1703.00810"
    every_step: ClassVar[bool] = True
    dims: ClassVar[Mapping[str, str]] = {
        "group": "group of params of an optimizer: its name or place; of several optimizers with theirs before it"
    }
    codes: ClassVar[Mapping[str, str]] = {
        "TR001": "the loss or a gradient is NaN or infinite",
        "TR002": "updates are large against the weights: the learning rate is too high",
        "TR003": "updates are tiny against the weights: a layer hardly trains",
        "TR004": "gradients have grown by a large factor",
        "TR005": "a parameter gets no gradient at all",
        "TR006": "the loss ends higher than it began",
    }

    window: int = 32
    high_ratio: float = 0.2
    low_ratio: float = 1e-6
    stretch: int = 5
    explode: float = 1e3
    recent: int = 50
    rise: float = 4.0

    @property
    def requires(self) -> set[Need]:
        """Nothing that every training has: what is there is recorded."""
        return set()

    @property
    def uses(self) -> set[Need]:
        """The live mini-batch's gradients, the optimizer's rate and the loss."""
        return {TrainingGradients(self.window), Optimizer(), TrainingLoss()}

    def measure(self, seen: Seen) -> Mapping[str, Quantity]:
        """One step's numbers; those over a window only when it is full."""
        step, loss = seen.get(TrainingGradients(self.window)), seen.get(TrainingLoss())
        optimizer = seen.get(Optimizer())
        found = self._of_gradients(step) if isinstance(step, StepStatistics) and step.params else {}
        if loss is not None:
            found["loss"] = _scalar("loss", loss)
        if isinstance(optimizer, OptimizerState) and optimizer.learning_rate:
            found["learning_rate"] = _scalar("learning_rate", optimizer.learning_rate[0])
            found["decay_rate"] = _scalar("decay_rate", optimizer.decay_rate)
            if len(optimizer.learning_rate) > 1 and len(optimizer.groups) == len(optimizer.learning_rate):
                rates = np.array(optimizer.learning_rate)
                found["group_rate"] = Quantity(rates, ("group",), {"group": optimizer.groups}, _ATTRS["group_rate"])
        if not found:
            raise NotApplicable("this is measured in a training: there is no optimizer and no loss")
        return found

    def _of_gradients(self, step: StepStatistics) -> dict[str, Quantity]:
        found = {"gradient_norm": _of_params(step.params, "gradient_norm", step.norm)}
        with np.errstate(divide="ignore", invalid="ignore"):
            found["update_ratio"] = _of_params(step.params, "update_ratio", step.update_norm / step.weight_norm)
            if step.window >= self.window and step.full.any():
                found |= _of_window(step)
        return found

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Steps too large, too small, growing, or not finite."""
        yield from passed_if_silent(self, self._judge(measured), self._checked(measured), measured)

    def _checked(self, measured: Group) -> list[str]:
        """Codes for which enough was recorded to look; of the others nothing is said."""
        norms = measured["gradient_norm"].values if "gradient_norm" in measured else np.empty((0, 0))
        ratios = measured.get("update_ratio")
        moved = 0 if ratios is None else _recorded(ratios.values[:, _judged_by_ratio(ratios)])
        losses = _recorded(measured["loss"].values[:, None]) if "loss" in measured else 0
        lately = _recorded(norms[-self.recent :]) > 0
        enough = {
            "TR001": losses > 0 or _recorded(norms) > 0,
            "TR002": moved >= self.stretch,
            "TR003": moved >= self.recent,
            "TR004": lately and _recorded(norms) >= 2 * self.recent,
            "TR005": lately,
            "TR006": losses >= 2 * self.recent,
        }
        return [code for code, looked in enough.items() if looked]

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
        names, steps = [str(name) for name in norm.coords["param"].values], norm.coords["step"].values
        ratios, norms = ratio.values, norm.values[-self.recent :]
        silent = [name for name, column in zip(names, norms.T, strict=True) if len(column) and not column.any()]
        if silent:
            yield self.finding(
                "TR005", Outcome.ISSUE,
                f"{some(silent)} got a gradient of exactly zero in the last {len(norms)} steps",
                do="look for dead units behind it, a detached graph or a mask",
                layer=silent[0] if len(silent) == 1 else None, step=steps[-1],
                params=len(silent), steps=len(norms), limit=0.0,
            )  # fmt: skip
        kept = _judged_by_ratio(ratio)
        yield from self._large([names[i] for i in kept], ratios[:, kept], steps)
        kept = [i for i in kept if names[i] not in silent]
        yield from self._tiny([names[i] for i in kept], ratios[:, kept], steps)

    def _large(self, names: list[str], ratios: FloatArray, steps: NDArray[np.int64]) -> Iterator[Finding]:
        """The worst stretch of the run: a network that has been thrown far out moves little afterwards."""
        if not names or len(ratios) < self.stretch:
            return
        stretches = np.lib.stride_tricks.sliding_window_view(ratios, self.stretch, axis=0)
        typical = np.median(stretches, axis=-1)
        typical[~np.isfinite(typical)] = 0.0
        row, column = np.unravel_index(int(typical.argmax()), typical.shape)
        worst, over = (
            float(typical[row, column]),
            [n for n, top in zip(names, typical.max(0), strict=True) if top > self.high_ratio],
        )
        if over:
            step = int(steps[row])
            yield self.finding(
                "TR002", Outcome.ISSUE,
                f"{names[column]} changed by {worst:.0%} of its norm a step around step {step}"
                + (f", and {len(over) - 1} more by over {self.high_ratio:.0%}" if len(over) > 1 else ""),
                do="lower the learning rate, warm it up, or clip gradients", layer=names[column], step=steps[-1],
                update_ratio=worst, limit=self.high_ratio, at_step=step, params=len(over), stretch=self.stretch,
            )  # fmt: skip

    def _tiny(self, names: list[str], ratios: FloatArray, steps: NDArray[np.int64]) -> Iterator[Finding]:
        """Over the whole run, since a network that has converged hardly moves either."""
        if len(ratios) < self.recent:
            return
        medians = {
            name: float(np.median(_finite(column)))
            for name, column in zip(names, ratios.T, strict=True)
            if np.isfinite(column).any()
        }
        still = [name for name, median in medians.items() if median < self.low_ratio]
        if still:
            yield self.finding(
                "TR003", Outcome.TIP, f"{some(still)} changed by less than {self.low_ratio:.0e} of its norm a step all along",
                do="raise the learning rate for it, or look at the gradients that reach it",
                layer=still[0] if len(still) == 1 else None, step=steps[-1],
                params=len(still), update_ratio=min(medians[name] for name in still), limit=self.low_ratio,
            )  # fmt: skip

    def _growth(self, norm: xr.DataArray) -> Iterator[Finding]:
        if norm.sizes["step"] < 2 * self.recent:
            return
        growth = {}
        for name, curve in zip(norm.coords["param"].values, norm.values.T, strict=True):
            early, late = (_finite(part) for part in (curve[: self.recent], curve[-self.recent :]))
            if len(early) and len(late) and np.median(early) > 0:
                growth[str(name)] = float(np.median(late) / np.median(early))
        over = [name for name, factor in growth.items() if factor > self.explode]
        if over:
            worst = max(over, key=lambda name: growth[name])
            yield self.finding(
                "TR004", Outcome.ISSUE, f"The gradient of {worst} has grown {growth[worst]:.0f}-fold",
                do="clip gradients, lower the learning rate, or add a norm", layer=worst,
                step=norm.coords["step"].values[-1], growth=growth[worst], limit=self.explode, params=len(over),
            )  # fmt: skip

    def _loss(self, loss: xr.DataArray) -> Iterator[Finding]:
        values = _finite(loss.values)
        if len(values) < 2 * self.recent:
            return
        first, last = values[: self.recent], values[-self.recent :]
        # so that a flat noisy loss is not called rising
        margin = self.rise * float(np.hypot(first.std(), last.std())) / len(first) ** 0.5
        if last.mean() > first.mean() + margin:
            yield self.finding(
                "TR006", Outcome.ISSUE, f"The loss ends at {last.mean():.3g} and began at {first.mean():.3g}",
                do="lower the learning rate", first=float(first.mean()), last=float(last.mean()),
                limit=float(first.mean() + margin), step=int(loss.coords["step"].values[-1]),
            )  # fmt: skip


def _of_window(step: StepStatistics) -> dict[str, Quantity]:
    """Signal and noise of those params whose window is full; of several optimizers, each has its own."""
    of_sum, energy = (torch.from_numpy(values[step.full]) for values in (step.sum_norm**2, step.square_sum))
    params = tuple(name for name, full in zip(step.params, step.full, strict=True) if full)
    noise = gradient_noise(of_sum, energy, step.window)
    named = {"gradient_mean": noise.signal, "gradient_deviation": noise.deviation, "gradient_snr": noise.snr}
    return {name: _of_params(params, name, values.numpy()) for name, values in named.items()}


def _of_params(params: tuple[str, ...], name: str, values: FloatArray) -> Quantity:
    return Quantity(values, ("param",), {"param": params}, _ATTRS[name])


def _scalar(name: str, value: float) -> Quantity:
    return Quantity(np.asarray(value, dtype=np.float64), (), {}, _ATTRS[name])


def _judged_by_ratio(ratio: xr.DataArray) -> list[int]:
    """A bias starts at zero, and so do some weights: their ratio says nothing about the learning rate."""
    names, first = [str(name) for name in ratio.coords["param"].values], ratio.values[0]
    biases = [name.endswith("bias") or name.rpartition(".")[2].startswith("bias") for name in names]
    return [i for i, bias in enumerate(biases) if not bias and not np.isinf(first[i])]


def _recorded(rows: FloatArray) -> int:
    """Steps at which there is a finite number."""
    return int(np.isfinite(rows).any(1).sum())


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _first_bad(array: xr.DataArray, bad: NDArray[np.bool_], step: np.intp) -> str:
    return str(array.coords["param"].values[int(np.flatnonzero(bad[step])[0])])
