"""Performance: loss and accuracy on every split.

`loss` is the mean over labelled positions of the user's loss, of the model's own, or of the usual one of the task
(cross entropy in nats, mean squared error). `loss_se` is its standard error over positions, where the loss of each is
known. `accuracy` is the share of positions at which the highest score is the label, with the exact two-sided 95 %
interval (Clopper and Pearson). `majority` is the accuracy of always saying the commonest class: no skill at all.

**When it misleads.** The probe set is a sample: read the interval. On unbalanced classes accuracy flatters; look at
`class_accuracy`. The model is in evaluation mode: a batch norm whose running statistics lag makes it look worse.

**PF001.** The mean loss on a split is NaN or infinite. **When it misleads.** One example can do it: a label that the network
gives a probability of zero, or an input that is NaN. **What to do.** If the training loss is finite, look for such an example;
else lower the learning rate and clip gradients.

**PF002.** The exact interval of the accuracy reaches down to what always saying the commonest class would give, so no skill is
shown. **When it misleads.** With few examples a skilled network cannot be told from chance: look at `n` and the interval. On very
unbalanced classes the commonest class is hard to beat: look at `class_accuracy`. **What to do.** Train longer, change the learning
rate, check that labels belong to their inputs and that inputs are scaled as in training.

**PF003.** Accuracy on the training data is higher than on held-out data by at least `gap`, and their intervals are apart.
**When it misleads.** A gap alone is no fault: networks that fit their training data perfectly may be the best on new data,
too. Held-out data from another source differ for other reasons. **What to do.** Compare runs by the held-out accuracy; more
data, augmentation, weight decay, or an earlier stop.

**PF004.** The loss of a split ends at more than `fall` times its lowest value, beyond the standard errors of both. **When it
misleads.** On held-out data the loss may rise while accuracy still does, since errors are made with more confidence. **What to
do.** Keep the weights of the step named, lower the learning rate, stop earlier; calibrate if accuracy has not fallen.

Source: Clopper and Pearson, doi:10.1093/biomet/26.4.404.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stratoscope.capture.needs import Need
from stratoscope.capture.predictions import Predictions, Tally
from stratoscope.capture.views import Seen
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import NetworkInstrument
from stratoscope.instruments.reading import At, last_of, passed_if_silent
from stratoscope.network.layers import ROOT
from stratoscope.numerics.intervals import clopper_pearson
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.record.group import Group


@dataclass(frozen=True)
class Performance(NetworkInstrument):
    """Loss and accuracy on every split.

    Attributes:
        gap: difference in accuracy between `train` and a held-out split from which a tip is given.
        fall: factor by which a split's loss must have risen above its lowest for a tip, and by more than two standard
            errors of both.
        min_n: labelled positions below which an accuracy is not called chance.
    """

    key: ClassVar[str] = "performance"
    title: ClassVar[str] = "Performance"
    source: ClassVar[str] = "doi:10.1093/biomet/26.4.404"
    codes: ClassVar[Mapping[str, str]] = {
        "PF001": "the loss is NaN or infinite",
        "PF002": "the network is no better than always saying the commonest class",
        "PF003": "the network is much better on the training data than on held-out data",
        "PF004": "the loss has risen well above its lowest value",
    }

    gap: float = 0.1
    fall: float = 1.2
    min_n: int = 30

    @property
    def requires(self) -> set[Need]:
        """Loss and hits at the network's output."""
        return {Predictions()}

    def measure(self, seen: Seen) -> Mapping[str, Quantity]:
        """Loss and accuracy of the split that is being measured."""
        tally: Tally = seen[Predictions()][ROOT]
        return {**_loss(tally), **(_accuracy(tally) if tally.correct is not None else {})}

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Whether it learns, and whether what it learns holds outside the training data."""
        yield from passed_if_silent(self, self._judge(measured), self._checked(measured), measured)

    def _checked(self, measured: Group) -> list[str]:
        """Codes for which there was something to look at: classes, a split to compare with, a curve."""
        last = _last(measured)
        scored = {split for split, at in last.items() if math.isfinite(at["accuracy"])}
        enough = {
            "PF001": bool(last),
            "PF002": any(math.isfinite(at["majority"]) for at in last.values()),
            "PF003": "train" in scored and len(scored) > 1,
            "PF004": any(True for _ in _curves(measured)),
        }
        return [code for code, looked in enough.items() if looked]

    def _judge(self, measured: Group) -> Iterator[Finding]:
        last = _last(measured)
        for at in last.values():
            if not math.isfinite(at["loss"]):
                yield self.finding(
                    "PF001", Outcome.ISSUE, f"The loss on {at.split} is {at['loss']}",
                    do="lower the learning rate, clip gradients, or check the inputs and labels for NaN",
                    loss=str(at["loss"]), limit="finite", **at.place,
                )  # fmt: skip
            # the exact interval does not lie above what needs no skill
            if at["accuracy_low"] <= at["majority"]:
                yield self._like_chance(at)
        if "train" in last:
            yield from self._gap(last["train"], [at for split, at in last.items() if split != "train"])
        yield from self._risen(measured)

    def _like_chance(self, at: At) -> Finding:
        accuracy, majority, n = at["accuracy"], at["majority"], int(at["n"])
        outcome, do = Outcome.SKIPPED, f"probe at least {self.min_n} examples, of two classes or more"
        if majority == 1:
            says = f"All {n} labels of {at.split} are of one class, so accuracy tells nothing"
        elif n < self.min_n:
            says = f"{n} labels of {at.split} are too few to tell an accuracy of {accuracy:.1%} from chance"
        else:
            outcome, do = (
                Outcome.TIP,
                "train longer, check that labels belong to their inputs, change the learning rate",
            )
            low = f" (by the {n} examples as low as {at['accuracy_low']:.1%})" if accuracy > majority else ""
            says = (
                f"Accuracy on {at.split} is {accuracy:.1%}{low}; always saying the commonest class gives {majority:.1%}"
            )
        return self.finding(
            "PF002", outcome, says, do=do, accuracy=accuracy, low=at["accuracy_low"], high=at["accuracy_high"],
            limit=majority, n=n, **at.place,
        )  # fmt: skip

    def _gap(self, train: At, others: list[At]) -> Iterator[Finding]:
        for held in others:
            gap = train["accuracy"] - held["accuracy"]
            if gap >= self.gap and train["accuracy_low"] > held["accuracy_high"]:
                yield self.finding(
                    "PF003", Outcome.TIP,
                    f"Accuracy is {train['accuracy']:.1%} on train and {held['accuracy']:.1%} on {held.split}",
                    do="more data, augmentation, weight decay, or an earlier stop",
                    gap=gap, limit=self.gap, train=train["accuracy"], held_out=held["accuracy"], **held.place,
                )  # fmt: skip

    def _risen(self, measured: Group) -> Iterator[Finding]:
        for split, curve, error in _curves(measured):
            place = int(curve.values.argmin())
            lowest, end, at = float(curve[place]), float(curve[-1]), int(curve.coords["step"].values[place])
            if math.isfinite(end) and end > max(self.fall * lowest, lowest + 2 * math.hypot(error[place], error[-1])):
                yield self.finding(
                    "PF004", Outcome.TIP, f"The loss on {split} is {end / lowest:.2f} times its lowest, at step {at}",
                    do="keep the weights of that step, lower the learning rate, or stop earlier",
                    ratio=end / lowest, limit=self.fall, lowest=lowest, lowest_step=at,
                    standard_error=math.hypot(error[place], error[-1]),
                    step=int(curve.coords["step"].values[-1]), split=split,
                )  # fmt: skip


def _last(measured: Group) -> dict[str | None, At]:
    names = ("n", "loss", "accuracy", "accuracy_low", "accuracy_high", "majority")
    return {at.split: at for at in last_of(measured, *names, dim=None)}


def _curves(measured: Group) -> Iterator[tuple[str | None, xr.DataArray, np.ndarray]]:
    """The loss of each split over the steps, where it was measured often enough to have risen, and its standard errors.

    Where the loss of each position is not known, neither is the error: 0.
    """
    loss = measured["loss"]
    splits = [str(s) for s in loss.coords["split"].values] if "split" in loss.dims else [None]
    for split in splits:
        curve = (loss if split is None else loss.sel(split=split)).dropna("step")
        if curve.sizes["step"] >= 4 and float(curve.min()) > 0:
            errors = measured["loss_se"] if "loss_se" in measured else curve * 0.0
            errors = errors if split is None or "split" not in errors.dims else errors.sel(split=split)
            yield split, curve, np.nan_to_num(errors.reindex(step=curve.coords["step"].values).values.astype(float))


def _loss(tally: Tally) -> dict[str, Quantity]:
    error = math.sqrt(tally.loss_variance / tally.n)
    return {
        "loss": quantity(tally.loss, units="1", long_name=f"mean loss ({tally.kind})", kind=tally.kind),
        "loss_se": quantity(error, units="1", long_name="standard error of the mean loss"),
        "n": quantity(tally.n, units="1", long_name="labelled positions"),
        "not_finite": quantity(tally.not_finite, units="1", long_name="positions whose scores are NaN or infinite"),
    }


def _accuracy(tally: Tally) -> dict[str, Quantity]:
    assert tally.correct is not None
    low, high = clopper_pearson(tally.correct, tally.n)
    share: dict[str, Any] = {"units": "1", "valid_min": 0.0, "valid_max": 1.0}
    found = {
        "accuracy": quantity(tally.correct / tally.n, long_name="accuracy", **share),
        "accuracy_low": quantity(float(low), long_name="accuracy, lower end of the exact 95 % interval", **share),
        "accuracy_high": quantity(float(high), long_name="accuracy, upper end of the exact 95 % interval", **share),
    }
    if tally.confusion is not None:
        of_class = tally.confusion.sum(1).double()
        found["majority"] = quantity(
            float(of_class.max() / tally.n), long_name="accuracy of always saying the commonest class", **share
        )
        found["class_accuracy"] = quantity(
            tally.confusion.diagonal().double() / of_class, dims="class", long_name="accuracy within a class", **share
        )
        found["class_share"] = quantity(of_class / tally.n, dims="class", long_name="share of the class", **share)
    return found
