r"""Transfer: at which step should a training stop whose network is meant for other tasks?

While a network trains, a linear decoder rebuilds its inputs from a late layer first better and then worse: what does not
serve the classes is thrown away, and another task may have needed it. The classifier goes on to improve meanwhile. So a
network that is to be transferred should stop well before its classifier is best. This reads the held-out error of
`reconstruction` at one layer, the judged one, and the accuracy on held-out data: the network's own, of `performance`,
where there is such a split, else that of the class probe that `reconstruction` or `probe` fits to the layer.

| quantity | definition |
|---|---|
| `reconstruction_best` | step of the least error so far; `_low` and `_high`: where the valley's bottom lies, 95 % |
| `classifier_best` | step of the highest accuracy so far |
| `stop` | the measured step nearest to the geometric mean of both, from `stop_low` to `stop_high`, which they are |
| `state` | whether there is such advice, and if not, why not |
| `error_ratio` | error now over that at the stop |
| `transfer_best` | step of the highest accuracy of a probe for another task; `_low` and `_high`: the first and the last step not shown to be worse |
| `transfer_gain` | its accuracy there above that of now, with `_low` and `_high` |
| `stop_gain`, `stop_short` | its accuracy at the stop above that of now, and below the best |

All are given along `step` as they were known at that step: from the measurements until then and nothing later. The end of
a run so says what the run itself could have said, and how the advice came about.

**The rule.** The paper shows that the best stop lies between the two steps and well before the second; the geometric mean
(of `1 + step`) is our choice. Advice is given only if the error is shown to fall and to rise again (`phases`, over the
logarithm of the step), by more than `rise` of the error of always saying the mean input, and if the least error comes
before the best classifier. Otherwise there is none, and the reason is the answer: where the error has not risen, training
on has cost nothing yet. It is asked at the eighth measurement and then whenever `1 + step` has grown by a tenth; in between
the last answer stands. A measurement at which the decoder failed (a lone spike, six deviations of the noise above both
neighbours) is taken for that. Measured on curves of 44 measurements: of 200 of noise without a valley none showed one at
the end, be the noise white, correlated by 0.5, or on a falling line; at any of the looks of a run, 0, 2 and 0 of 50 did. A
planted valley 7, 14 and 46 deviations of the noise deep, with each tenth value a spike, was found in 32, 39 and 45 of 50
curves.

**The step never moves back.** The step of the least error so far, and that of the highest accuracy so far, change only to
the present step: neither moves back, so nor does their geometric mean $g$. Steps that are measured later are farther from
$g$ than the later of both, so the nearest measured step is also the nearest of all that there will be; and of one set of
steps, the nearest to $g$ does not move back as $g$ grows. Advice may be withdrawn, and comes back at the same step or a
later one. Weights of earlier steps need not be kept.

**With data of another task** (`transfer=`), a probe for it is fitted to the judged layer's frozen output at each
measurement. That is the question itself and not a sign of it, so it stands beside the advice, and where both disagree the
probe is to be believed. Two accuracies differ where the interval of their difference says so, as if their examples were
different ones (they are the same, so it is too wide rather than too narrow). The best of many measurements is best by luck,
too: what is compared with the best has the intervals of as many comparisons as there are measurements (Bonferroni), and
the value of `transfer_gain` is too high.

**The judged layer** is by default the last before the output layer that gives a map: what the last convolution, or block
with convolutions, gives, with the norms and activations that follow it; without convolutions the last layer before the
output layer. `layer` names another one.

**When it misleads.** Inputs that cannot be rebuilt are a sign of what was thrown away, not of what the other task needs: a
task that needs the same classes loses nothing by training on. A decoder that is fitted to few examples underfits wide
layers, at every step alike. One run
tells of one run: the steps of another seed differ by what `stop_low` and `stop_high` do not know of.

**Running statistics.** A network with batch norms is measured as it would be used, with its running statistics. At torch's
usual momentum these forget their initial values over about 30 steps, and until then show another network: in the study
`learning-phases` they hid the three phases, which statistics of the present weights showed, and drew the advised step too
early. So where there are running statistics, the errors of the first `settle` steps are left out.

**What to do.** Take the weights of the step (`watch(..., best_transfer=True)` keeps them), and measure: give some data of
the other task as `transfer=`, and believe the probe.

**TA001.** For transfer to another task the training should have stopped at the step named, between the least error of
rebuilding the inputs and the best accuracy; the error has risen by more than `rise` since. As *skipped* or *passed* it says why
there is no such advice. **When it misleads.** It knows nothing of the other task: one that needs the same classes loses
nothing by training on. It rests on one run, and on one layer. **What to do.** If the network is meant for transfer, take the weights
of that step (`best_transfer=True` keeps them), and give some data of the other task as `transfer=` to check it. If it is meant for
its own task, do nothing.

**TA002.** A probe for the other task is surely worse at the advised step than at its own best step. **When it misleads.** The
best of many measurements is best by luck, too. **What to do.** Believe the probe, which is the question itself: take the weights of
its best step.

**TA003.** A probe for the other task was surely better at an earlier step than at the end. **When it misleads.** The gain is that of
the best of many measurements, so it is too high; its interval allows for that. **What to do.** Take the weights of that step; train
with `transfer=` and `best_transfer=True`, which keeps them.

Source: Schneider and Prabhushankar, arXiv:2312.06887.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from stratoscope.diagnoses.base import Diagnosis
from stratoscope.diagnoses.stopping import Course
from stratoscope.diagnoses.stopping_answers import ADVICE, FEW, FIRST, FLAT, NAMES, NO_CLASSES, RISES, Answers
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.reading import At
from stratoscope.numerics.phases import PLACES

if TYPE_CHECKING:
    from stratoscope.record.group import Group
    from stratoscope.record.quantity import Quantity
    from stratoscope.record.record import Record


_NEXT = (
    "take the weights of that step for other tasks: watch(..., best_transfer=True) keeps them, a new run can stop there; "
    "check it with data of the other task: transfer=..."
)


@dataclass(frozen=True)
class Transfer(Diagnosis):
    """At which step to stop a training whose network is meant for other tasks.

    Attributes:
        layer: whose output the inputs are rebuilt from; by default the last before the head that gives a map.
        rise: a change of the reconstruction error by less than this share of its floor does not count.
        level: share of curves without a valley in which one may be seen.
        settle: steps at the beginning that are left out where the network has running statistics, which lag there.
    """

    key: ClassVar[str] = "transfer"
    title: ClassVar[str] = "Transfer"
    source: ClassVar[str] = "arXiv:2312.06887"
    codes: ClassVar[Mapping[str, str]] = {
        "TA001": "for transfer the training should have stopped earlier",
        "TA002": "the advice and a real transfer probe disagree",
        "TA003": "a real transfer probe was better at an earlier step",
    }
    reads: ClassVar[frozenset[str]] = frozenset({"reconstruction", "performance", "probe"})
    optional: ClassVar[frozenset[str]] = frozenset({"performance", "probe"})
    any_of: ClassVar[frozenset[str]] = frozenset({"reconstruction"})

    layer: str = ""
    rise: float = 0.01
    level: float = 0.05
    settle: int = 30

    def derive(self, record: Record) -> Mapping[str, Quantity]:
        """The advice and what it rests on, as it was known at each step."""
        return Answers(self.course(record), self.rise, self.level).quantities()

    def course(self, record: Record) -> Course:
        """What was measured, along the steps.

        Raises:
            NotApplicable: if the inputs were not rebuilt from any layer.
            SettingError: if they were not rebuilt from the layer that the setting names.
        """
        return Course.of(self.groups(record), record.layers, self.layer, self.settle)

    def judge(self, measured: Group) -> Iterator[Finding]:
        """When to stop, and whether a real probe agrees; at the last step that was measured."""
        at = told_at_last(measured)
        if at is None:
            return
        about = measured["state"].attrs
        yield self._advice(at, about)
        if math.isfinite(at["transfer_best"]):
            yield from self._beside(at)
            yield self._probe(at, str(about.get("judged_layer", "")))

    def _advice(self, at: At, about: Mapping[str, Any]) -> Finding:
        state, layer = int(at["state"]), str(about.get("judged_layer", ""))
        if state != ADVICE:
            return self._none(at, state, about)
        stop, low, high = (f"{at[name]:,.0f}" for name in ("stop", "stop_low", "stop_high"))
        return self.finding(
            "TA001", Outcome.TIP,
            f"For transfer, stop at step {stop} (between {low} and {high}): from {layer} the inputs were rebuilt best at "
            f"step {low}, {about.get('classifier') or 'the accuracy'} was best at step {high}; by now the error is "
            f"{at['error_ratio']:.2f} times that at step {stop}{self._measured_gain(at)}",
            do=_NEXT, step=at.step, stop=at["stop"], low=at["stop_low"], high=at["stop_high"],
            valley_low=_known(at["reconstruction_best_low"]), valley_high=_known(at["reconstruction_best_high"]),
            error_ratio=at["error_ratio"], transfer_gain=_known(at["stop_gain"]), limit=self.rise, layer_judged=layer,
            split_judged=str(about.get("judged_split", "")),
        )  # fmt: skip

    def _measured_gain(self, at: At) -> str:
        gain, low, high = (at[f"stop_gain{end}"] for end in ("", "_low", "_high"))
        if math.isnan(gain):
            return ""
        return f", and a probe for the other task {gain:+.3f} more accurate there than now ({low:+.3f} to {high:+.3f})"

    def _none(self, at: At, state: int, about: Mapping[str, Any]) -> Finding:
        layer, least, best = about.get("judged_layer", ""), at["reconstruction_best"], at["classifier_best"]
        outcome, why, do = {
            FEW: (
                Outcome.SKIPPED, f"there were fewer than {PLACES} measurements of how well the inputs are rebuilt",
                f"measure at least {PLACES} times: a longer training, a larger budget=, or every=",
            ),
            FLAT: (
                Outcome.PASSED, f"the reconstruction error at {layer} has not risen; training on has cost nothing yet", "",
            ),
            RISES: (
                Outcome.NOT_APPLICABLE,
                f"the reconstruction error at {layer} rose from the beginning: no training at all rebuilds the inputs best",
                "",
            ),
            FIRST: (
                Outcome.PASSED,
                f"the classifier was best at step {best:,.0f}, no later than the reconstruction (step {least:,.0f}); "
                "stop where the classifier is best",
                "",
            ),
            NO_CLASSES: (
                Outcome.NOT_APPLICABLE, "nothing says when the classifier is best, which needs labels of two classes", "",
            ),
        }[state]  # fmt: skip
        return self.finding(
            "TA001", outcome, f"No advice: {why}", do=do, step=at.step, reconstruction_best=_known(least),
            classifier_best=_known(best), limit=self.rise, layer_judged=str(layer),
        )  # fmt: skip

    def _beside(self, at: At) -> Iterator[Finding]:
        """Whether the probe for the other task is as good at the advised step as at its best."""
        if math.isnan(at["stop_short"]):
            return
        stop, best = (f"{at[name]:,.0f}" for name in ("stop", "transfer_best"))
        short, low, high = (at[f"stop_short{end}"] for end in ("", "_low", "_high"))
        numbers: dict[str, Any] = {"short": short, "low": low, "high": high, "limit": 0.0}
        about = f"{short:.3f} below its best at step {best} ({low:+.3f} to {high:+.3f})"
        if low > 0:
            yield self.finding(
                "TA002", Outcome.TIP, f"The advice is step {stop}, where a probe for the other task is {about}",
                do="believe the probe, which is the question itself: take the weights of its best step",
                step=at.step, stop=at["stop"], transfer_best=at["transfer_best"], **numbers,
            )  # fmt: skip
        else:
            says = f"A probe for the other task agrees with the advice: at step {stop} it is {about}, so not shown to be worse"
            yield self.finding("TA002", Outcome.PASSED, says, step=at.step, **numbers)

    def _probe(self, at: At, layer: str) -> Finding:
        best, low, high = (f"{at[f'transfer_best{end}']:,.0f}" for end in ("", "_low", "_high"))
        gain = {end: at[f"transfer_gain{end}"] for end in ("", "_low", "_high")}
        numbers: dict[str, Any] = {
            "transfer_best": at["transfer_best"], "first": at["transfer_best_low"], "last": at["transfer_best_high"],
            "gain": gain[""], "low": gain["_low"], "high": gain["_high"], "limit": 0.0,
        }  # fmt: skip
        about = (
            f"a probe for the other task at {layer} was best at step {best} (none from {low} to {high} is shown to be "
            f"worse), {gain['']:.3f} more accurate than now ({gain['_low']:+.3f} to {gain['_high']:+.3f})"
        )
        if gain["_low"] > 0:
            do = f"take the weights of step {best}: watch(..., transfer=..., best_transfer=True) keeps them"
            return self.finding("TA003", Outcome.TIP, about[0].upper() + about[1:], do=do, step=at.step, **numbers)
        says = f"Training on has not been shown to cost: {about}"
        return self.finding("TA003", Outcome.PASSED, says, step=at.step, **numbers)


def told_at_last(measured: Group) -> At | None:
    """What was known at the last step; `None` where nothing was.

    Args:
        measured: the group `transfer` of a record.
    """
    if "state" not in measured:
        return None
    step = int(measured["state"].coords["step"].values[-1])

    def value(name: str) -> float:
        array = measured.get(name)
        there = array is not None and step in array.coords["step"].values
        return float(array.sel(step=step)) if array is not None and there else math.nan

    return At(None, step, None, {name: value(name) for name in ("state", *NAMES)})


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
