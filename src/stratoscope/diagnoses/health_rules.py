"""The rules of `health`: each reads derived numbers alone, and says nothing where they are missing.

**HE001.** Over the later half of the run the gradient of the first weights is less than `vanish` of that of the last ones,
and falls along the weights between, so the first layers hardly learn. **When it misleads.** A network that has nearly
converged, or whose first layers were trained before, has small gradients there for good reason; and an optimizer that
divides by the gradient's size (Adam) moves those weights all the same: compare `relative_speed`. **What to do.** Use a
rectifier instead of a saturating function, a norm before it, residual connections, or an initialisation that keeps the
size of gradients.

**HE002.** At some step the gradient of the first weights was more than `explode` times that of the last ones (one such step
can ruin them), or, three times in a stretch of steps, a gradient was more than `explode` times what it had been. **When it
misleads.** Where the last weights in depth are those of a head that is hardly used, its small gradients make the others look
large. A batch of other data (another length, another scale) bursts as well. **What to do.** Clip gradients by their norm, lower the learning rate, start recurrent
weights orthogonal; look at what the batches of the steps named have in common.

**HE003.** At the step named the loss stood out of the noise of the steps before it by at least `spike` deviations, and undid
at least `undone` of all that it had fallen. **When it misleads.** A learning rate that is raised on purpose (restarts,
cycles), or a change of the data, makes such jumps and is no fault; small batches make heavy tails. **What to do.** Look at the
batches of that step; clip gradients; lower the learning rate or warm it up; with Adam, raise its epsilon or lower beta2.

**HE004.** No weight that has a gradient can have come further than `short_path` of its norm in all steps together, and the loss
fell by less than `hardly_fell` of its beginning. **When it misleads.** In fine-tuning, and in a run that was watched for a few
steps only, little movement is what one expects. A loss that is near its floor from the start cannot fall. **What to do.** Raise
the learning rate, tenfold at a time, until the loss falls in earnest or TR002 speaks; or train longer.

**HE005.** A param was never updated in the whole run. It is an issue where the param asks for a gradient, and a tip
where it is frozen. **When it misleads.** In fine-tuning layers are frozen on purpose, so that is no issue; it is told since
nothing else would tell a layer that was forgotten there. Parts that this training does not use (a pooler, a second head) ask for
a gradient in vain. **What to do.** If it is meant, set `requires_grad` to False, or mute it; else give the param to the
optimizer, and look for `detach` and `no_grad`.

**HE006.** Over the later half of the run a weight moved at less than `stalled` of the median speed of all weights (update over
weight), though its gradient is not zero. **When it misleads.** Weights that are large by design (gains, an embedding) move
little against their norm, and what was trained before has less to learn. **What to do.** Look at the layer's own learning rate,
at what its output is multiplied by, and at its gradient; freeze it if it is not needed.

**HE007.** Of a weight less than `shrunk` of its largest norm is left, weight decay took a good part of it (`explained`), and the
loss is still above `useless` of its beginning. Weights whose gradient was zero before have died of something else and are left
out. **When it misleads.** Before a
norm the scale of weights means nothing, and decay there acts as a larger learning rate. Pruning by decay is meant to
shrink weights. **What to do.** Lower the weight decay tenfold at a time, and leave biases and gains of norms out of it.

**HE008.** The effective rank of a matrix that still gets gradients has fallen below `rank_left` of its largest, and a usual
direction of it (the median singular value) below `usual_left`, so directions were lost and not only one grown. **When it misleads.** A
head with few classes needs few directions; low rank may be what a penalty asks for. **What to do.** Lower the weight decay or
the learning rate of this layer; look for units behind it that died; see RM002 for directions that are zero.

**HE009.** Accuracy on held-out data has fallen by at least `accuracy_fall` from its best, beyond its interval, while that on the
training data went on rising: the rest is learned by heart, as wrong labels are. **When it misleads.** The best of many
measurements is best by luck, too; a probe set that is small moves by itself. **What to do.** Look for wrong labels among
examples that were learned last; keep the weights of the best step; stop earlier or regularise.

**HE010.** Fewer than `min_steps` steps were recorded, so nothing is said of health; it is not a pass. **When it misleads.** A run
can be broken within these steps, too: see TR001 and PF001. **What to do.** Watch more steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.reading import some

if TYPE_CHECKING:
    from stratoscope.diagnoses.health import Health
    from stratoscope.record.group import Group


MOST_NAMES = 8
"""Weights that a finding names at most."""


def of(settings: Health, measured: Group) -> tuple[list[Finding], list[str]]:
    """The findings, and the codes for which there was enough to look at."""
    read = Read(measured)
    recorded = read.number("steps_recorded")
    if math.isnan(recorded):
        return [], []
    if recorded < settings.min_steps:
        return [_too_few(settings, int(recorded), read.last_step)], []
    found: list[Finding] = []
    looked: list[str] = []
    told = Told(settings, read)
    for code, needs, rule in RULES:
        if all(name in measured for name in needs):
            looked.append(code)
            found += list(rule(told))
    return found, looked


@dataclass(frozen=True)
class Read:
    """What was derived, as plain arrays."""

    measured: Group

    def table(self, name: str, dim: str = "param") -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names along a dim, the steps at which anything is known, and values (steps x names)."""
        variable = self.measured.variable(name)
        values = np.where(variable.measured, variable.values, np.nan).astype(float)
        labels = {dim: list(axis.labels()) for dim, axis in zip(variable.dims, variable.axes, strict=True)}
        if dim not in labels:
            labels[dim], values = [""], values[..., None]
        rows = values.reshape(len(labels["step"]), -1)
        known = ~np.isnan(rows).all(1)
        return [str(label) for label in labels[dim]], np.asarray(labels["step"])[known], rows[known]

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a number that changes with time."""
        _, steps, values = self.table(name, "")
        return steps, values[:, 0]

    def number(self, name: str) -> float:
        """The last value of a number; NaN where it is not there."""
        values = self.curve(name)[1] if name in self.measured else np.empty(0)
        return float(values[-1]) if len(values) else math.nan

    def last(self, name: str, dim: str = "param") -> dict[str, float]:
        """The last known row, by name."""
        names, _, values = self.table(name, dim)
        return dict(zip(names, values[-1].tolist(), strict=True)) if len(values) else {}

    @property
    def last_step(self) -> int:
        """The last step of all."""
        return max((max(self.measured.steps_of(name), default=0) for name in self.measured), default=0)


@dataclass(frozen=True)
class Told:
    """The settings, the numbers, and of which weights each code has spoken so far."""

    settings: Health
    read: Read
    spoken: dict[str, set[str]] = field(default_factory=dict)

    def said(self, code: str) -> set[str]:
        """The names of which a code has spoken."""
        return self.spoken.get(code, set())

    def driven(self) -> set[str]:
        """Weights whose gradient is not zero over the later half of the run."""
        names, _, level = self.read.table("gradient_level")
        return {name for name, norm in zip(names, _median_of_columns(_later(level)), strict=True) if norm > 0}

    def about(self, code: str, outcome: Outcome, names: Sequence[str], says: str, do: str, **evidence: Any) -> Finding:
        """One finding of one param or of several; the first is the one whose numbers are told."""
        self.spoken.setdefault(code, set()).update(names)
        more: dict[str, Any] = {}
        if len(names) > 1:
            more = {"names": some(names, MOST_NAMES), "count": len(names)}
        return self.settings.finding(
            code, outcome, says, layer=names[0] if len(names) == 1 else None, do=do,
            step=self.read.last_step, split=None, **(evidence | more),
        )  # fmt: skip


def _too_few(settings: Health, recorded: int, step: int) -> Finding:
    return settings.finding(
        "HE010", Outcome.SKIPPED, f"{recorded} recorded steps are too few to judge a training",
        do=f"train for at least {settings.min_steps} steps", step=step, steps=recorded, limit=settings.min_steps,
    )  # fmt: skip


# -- gradients -----------------------------------------------------------------------------------------------------------


def vanishing(told: Told) -> Iterator[Finding]:
    """Over the later half of the run, since some networks find a way out of it; not where weights have decayed away."""
    if told.said("HE007"):
        return
    _, ratio = told.read.curve("gradient_along_depth")
    typical = _median(_later(ratio))
    plain = _median(_later(told.read.curve("gradient_first_over_last")[1]))
    limit = told.settings.vanish
    if typical < limit and plain < limit:
        yield told.about(
            "HE001", Outcome.ISSUE, _first_names(told),
            f"The gradient of the first weights is {plain:.1e} times that of the last ones, and falls along all between",
            "use a rectifier instead of a saturating nonlinearity, a norm before it, residual connections, or an "
            "initialisation that keeps the gradient's size",
            ratio=typical, first_over_last=plain, limit=limit, at_the_beginning=float(ratio[0]),
        )  # fmt: skip


def _first_names(told: Told) -> list[str]:
    """The weights whose gradient is below the limit against the largest, over the later half."""
    names, _, level = told.read.table("gradient_level")
    typical = _median_of_columns(_later(level))
    small = [
        name for name, norm in zip(names, typical, strict=True) if norm < told.settings.vanish * np.nanmax(typical)
    ]
    return small or names[:1]


def exploding(told: Told) -> Iterator[Finding]:
    """Towards the first weights at any step, since one such step is enough to ruin them; or in bursts of three and more."""
    limit = told.settings.explode
    steps, ratio = told.read.curve("gradient_along_depth_most")
    if np.isfinite(ratio).any() and (worst := float(np.nanmax(ratio))) > limit:
        at = int(steps[np.nanargmax(ratio)])
        yield told.about(
            "HE002", Outcome.ISSUE, told.read.table("gradient_level")[0][:1],
            f"The gradient of the first weights is {worst:.1e} times that of the last ones before step {at}",
            "clip gradients, and take an initialisation (orthogonal for a recurrent layer) or a norm that keeps their size",
            ratio=worst, limit=limit, at_step=at,
        )  # fmt: skip
        return
    names, steps, burst = told.read.table("burst")
    tops = np.array([np.nanmax(column) if np.isfinite(column).any() else math.nan for column in burst.T])
    over = [(top, name) for top, name in zip(tops, names, strict=True) if top > limit]
    if over:
        worst, name = max(over)
        at = int(steps[np.nanargmax(burst[:, names.index(name)])])
        yield told.about(
            "HE002", Outcome.ISSUE, [one for _, one in sorted(over, reverse=True)],
            f"The gradient of {name} is {worst:.1e} times what it was, three times or more before step {at}",
            "clip gradients, lower the learning rate, and take an initialisation or a norm that keeps their size",
            burst=float(worst), limit=limit, at_step=at,
        )  # fmt: skip


# -- loss and rate -------------------------------------------------------------------------------------------------------


def spiking(told: Told) -> Iterator[Finding]:
    """The highest loss that stands out of the noise before it and undoes much of what was learned."""
    steps, height = told.read.curve("spike_height")
    undone, loss, before, at = (
        _at(told, name, steps) for name in ("spike_undone", "spike_loss", "spike_before", "spike_step")
    )
    limit = told.settings.spike
    spikes = np.flatnonzero((height >= limit) & (undone >= told.settings.undone))
    if not len(spikes):
        return
    worst = spikes[np.argmax(height[spikes])]
    again = f" and in {len(spikes) - 1} more stretches" if len(spikes) > 1 else ""
    yield told.settings.finding(
        "HE003", Outcome.ISSUE,
        f"At step {at[worst]:.0f}{again} the loss jumped from {before[worst]:.3g} to {loss[worst]:.3g}, "
        f"{height[worst]:.0f} deviations of its noise",
        do="look at the batches of that step and at the learning rate; clip gradients, or leave such batches out",
        step=int(at[worst]), height=float(height[worst]), limit=limit, undone=float(undone[worst]),
        undone_limit=told.settings.undone, loss=float(loss[worst]), before=float(before[worst]), stretches=len(spikes),
    )  # fmt: skip


def too_slow(told: Told) -> Iterator[Finding]:
    """No weight that has a gradient could come far, and the loss hardly fell."""
    driven = told.driven()
    paths = np.array([path for name, path in told.read.last("path").items() if name in driven])
    _, loss = told.read.curve("loss_level")
    if len(paths) < 1 or len(loss) < 4:
        return
    begin, end, longest = float(np.median(loss[:2])), float(np.median(loss[-2:])), float(paths.max())
    fell = (begin - end) / abs(begin) if begin else math.nan
    if longest < told.settings.short_path and fell < told.settings.hardly_fell:
        yield told.settings.finding(
            "HE004", Outcome.TIP,
            f"No weight could come further than {longest:.1%} of its norm, and the loss went from {begin:.3g} to {end:.3g}",
            do="raise the learning rate, tenfold at a time, until the loss falls in earnest; or train longer",
            step=told.read.last_step, path=longest, limit=told.settings.short_path, fell=fell,
            fell_limit=told.settings.hardly_fell,
        )  # fmt: skip


# -- layers --------------------------------------------------------------------------------------------------------------


def never_updated(told: Told) -> Iterator[Finding]:
    """Those that are frozen on purpose, and those that ask for a gradient in vain."""
    never, asks = (
        told.read.last("never_updated"),
        told.read.last("trainable") if "trainable" in told.read.measured else {},
    )
    still = [(name, asks.get(name, math.nan)) for name, value in never.items() if value == 1]
    vain = [name for name, wants in still if wants == 1]
    frozen = [name for name, wants in still if wants != 1]
    of = len(never)
    if vain:
        yield told.about(
            "HE005", Outcome.ISSUE, vain,
            f"{some(vain)} {'asks' if len(vain) == 1 else 'ask'} for a gradient and {_is(vain)} never updated",
            "give it to the optimizer, look for a detached graph, or set requires_grad to False if it is meant so",
            never=len(vain), of=of, limit=0,
        )  # fmt: skip
    if frozen:
        yield told.about(
            "HE005", Outcome.TIP, frozen, f"{some(frozen)} {_is(frozen)} frozen: it was never updated" if len(frozen) == 1
            else f"{some(frozen)} are frozen: they were never updated",
            "nothing, if it is meant so, as in fine-tuning; else set requires_grad and give it to the optimizer",
            never=len(frozen), of=of, limit=0,
        )  # fmt: skip


def stalling(told: Told) -> Iterator[Finding]:
    """Slow against the others over the later half, and not because its gradient vanishes along depth."""
    names, _, speed = told.read.table("relative_speed")
    typical = _median_of_columns(_later(speed))
    known = told.said("HE001")
    slow = sorted(
        (float(v), name)
        for v, name in zip(typical, names, strict=True)
        if 0 < v < told.settings.stalled and name not in known
    )
    if slow and len(slow) < len(names):
        least = slow[0][0]
        yield told.about(
            "HE006", Outcome.TIP, [name for _, name in slow],
            f"{some([name for _, name in slow])} moved at {least:.1e} of the speed of the other weights",
            "look at its learning rate and at what its output is multiplied by; freeze it if it is not needed",
            speed=least, limit=told.settings.stalled,
        )  # fmt: skip


def decaying(told: Told) -> Iterator[Finding]:
    """Most weights have shrunk, decay is at work, and the loss is bad."""
    names, steps, left = told.read.table("norm_left")
    _, loss = told.read.curve("loss_level")
    alone = told.read.number("decay_alone")
    silent = _silent_since(told)
    # whose gradient was zero before has died of something else: decay only buries it
    gone = sorted(
        (float(column[-1]), name)
        for name, column in zip(names, left.T, strict=True)
        if column[-1] < told.settings.shrunk and steps[column < told.settings.shrunk][0] <= silent.get(name, math.inf)
    )
    ratio = float(np.median(loss[-2:]) / loss[0]) if len(loss) and loss[0] > 0 else math.nan
    if gone and alone < 1 - told.settings.shrunk and (ratio > told.settings.useless):
        least = gone[0][0]
        explained = min(math.log(max(alone, 1e-300)) / math.log(max(least, 1e-300)), 1.0)
        yield told.about(
            "HE007", Outcome.ISSUE, [name for _, name in gone],
            f"{some([name for _, name in gone])}: of the norm {least:.1%} is left, {explained:.0%} of which weight decay "
            f"explains by itself, and the loss is at {ratio:.0%} of its beginning",
            "lower the weight decay, tenfold at a time; leave biases and norms out of it",
            norm_left=least, limit=told.settings.shrunk, decay_alone=alone, explained=explained, loss_left=ratio,
            loss_limit=told.settings.useless,
        )  # fmt: skip


def _silent_since(told: Told) -> dict[str, float]:
    """For each weight whose gradient became zero for good, the step since when."""
    names, steps, level = told.read.table("gradient_level")
    found = {}
    for name, column in zip(names, level.T, strict=True):
        alive = np.flatnonzero(column > 0)
        last = int(alive[-1]) if len(alive) else -1
        if last < len(steps) - 1:
            found[name] = float(steps[last]) if last >= 0 else -1.0
    return found


def collapsing(told: Told) -> Iterator[Finding]:
    """The rank of weights that still learn and have not decayed as a whole.

    Where one direction has grown, the others are still there: a usual direction must have been lost as well.
    """
    names, _, left = told.read.table("rank_left", "matrix")
    _, _, most = told.read.table("rank_most", "matrix")
    _, _, usual = told.read.table("usual_left", "matrix")
    known = told.said("HE007")
    driven = told.driven() if "gradient_level" in told.read.measured else None
    fell = sorted(
        (float(now), name, float(full))
        for name, now, full, middle in zip(names, left[-1], most[-1], usual[-1], strict=True)
        if now < told.settings.rank_left
        and full >= told.settings.min_rank
        and middle < told.settings.usual_left
        and (home := name.partition(":")[0]) not in known
        and (driven is None or home in driven)
    )
    if fell:
        least, name, full = fell[0]
        yield told.about(
            "HE008", Outcome.TIP, [name for _, name, _ in fell],
            f"{name}: the effective rank fell from {full:.1f} to {least * full:.1f}"
            + (f", and that of {len(fell) - 1} more" if len(fell) > 1 else ""),
            "lower the weight decay or a penalty on the rank; look whether the layers behind need so few directions",
            rank_left=least, limit=told.settings.rank_left, most=full,
        )  # fmt: skip


# -- what it learns ------------------------------------------------------------------------------------------------------


def memorising(told: Told) -> Iterator[Finding]:
    """A held-out accuracy that is surely below its best, while that of the training data went on rising."""
    names = ("fall", "fall_low", "train_gain", "best", "best_step")
    last = {name: told.read.last(f"accuracy_{name}", "split") for name in names}
    for split in last["fall"]:
        at: dict[str, Any] = {name: values.get(split, math.nan) for name, values in last.items()}
        if at["fall"] >= told.settings.accuracy_fall and at["fall_low"] > 0 and at["train_gain"] > 0:
            yield told.settings.finding(
                "HE009", Outcome.ISSUE,
                f"Accuracy on {split} fell by {at['fall']:.1%} from its best, {at['best']:.1%} at step {at['best_step']:.0f}, "
                f"while that on the training data rose by {at['train_gain']:.1%}",
                do="look for wrong labels, which are learned by heart after the right ones; keep the weights of that step, "
                "stop earlier, or regularise",
                step=told.read.last_step, split=split,
                **{"fall": at["fall"], "limit": told.settings.accuracy_fall} | at,
            )  # fmt: skip


Rule = Callable[[Told], Iterator[Finding]]

RULES: tuple[tuple[str, tuple[str, ...], Rule], ...] = (
    ("HE007", ("norm_left", "decay_alone", "loss_level", "gradient_level"), decaying),
    ("HE001", ("gradient_along_depth", "gradient_level"), vanishing),
    ("HE002", ("gradient_along_depth_most", "burst", "gradient_level"), exploding),
    ("HE003", ("spike_height",), spiking),
    ("HE004", ("path", "loss_level", "gradient_level"), too_slow),
    ("HE005", ("never_updated",), never_updated),
    ("HE006", ("relative_speed",), stalling),
    ("HE008", ("rank_left", "rank_most", "usual_left"), collapsing),
    ("HE009", ("accuracy_fall",), memorising),
)
"""Each code, the numbers that it needs, and its rule; later rules leave out what earlier ones said."""


def _later(rows: np.ndarray) -> np.ndarray:
    return rows[len(rows) // 2 :]


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def _median_of_columns(rows: np.ndarray) -> np.ndarray:
    return np.array([_median(column) for column in rows.T])


def _at(told: Told, name: str, steps: np.ndarray) -> np.ndarray:
    values = dict(zip(*told.read.curve(name), strict=True))
    return np.array([values.get(step, math.nan) for step in steps])


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
