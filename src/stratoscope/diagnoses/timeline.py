r"""Phase timeline: which phase each theory of learning puts every layer in, at every step, side by side.

Several theories say that learning goes in phases, and mean different things: what a layer tells about its input, how well
the input can be rebuilt from it, how far its weights have left noise behind, whether its gradient is more signal than
noise. Each has a file of its own in `stratoscope.diagnoses.theories`, and reads one instrument.

| theory | reads | phases | its turn, where the second phase begins |
|---|---|---|---|
| `information` | $H(\text{bin } T)$ along training, and $I(\text{bin } T; Y)$ | fitting: either rises; compression: the first falls later | from fitting to compression |
| `reconstruction` | error of rebuilding the input, over the mean image's | flat, falling, rising | from falling to rising |
| `spectrum` | the phase of each weight matrix | random-like, bleeding-out, bulk+spikes, bulk-decay, heavy-tailed; rank-collapse | when noise is left behind for good |
| `gradient` | signal and noise of the gradient, over windows | drift, where the log of their ratio is above 0; diffusion, where it is below | the crossing |

| quantity | definition |
|---|---|
| `phase` | of each layer by each theory, at each step at which any of them was measured (blocks of gradients make columns only where the others have few); NaN where it says nothing |
| `answer` | whether a second phase was found, was looked for and not found, is the only one seen, or nothing is said |
| `turn`, `turn_low`, `turn_high` | step at which the second phase begins, and its 95 % interval |
| `turn_p` | p-value of the turn, or of the first one that was refused |
| `points` | steps (of the gradient: blocks) at which a phase is named |
| `reason` | why there is no second phase, or why nothing is said; else what the turn rests on |

**How phases are found.** Along curves by change-points over $\log_2(1 + \text{step})$ (`numerics.phases`): a curve is straight
until a bend is shown that noise, which may be correlated from one step to the next, gives in at most `level` of cases, and it
rises or falls where the 95 % interval of its slope leaves out 0. Less than 8 measured steps give no phase. A turn's interval
reaches half the way to the neighbouring measurements at least. Of a spectrum, what is seen at a single measurement is held
back until the next confirms it; its turn lies between the last measurement at which the matrix could be noise and the next.
Gradients are gathered in blocks of at least 4 windows; a block is in drift or in diffusion where the 95 % interval of its mean
leaves out 0; a block that alone is in another phase counts only where an interval of 99.75 % leaves out 0 as well. Between its
measurements a theory's phase is held.

Information and reconstruction are read on one split: the first that is not training data, unless `split` names another;
the attribute `looked_at` says which.

**What it means.** Each row of the timeline says what one theory sees there. Where the 95 % intervals of two turns do not meet,
or one theory finds a second phase and another, measured beyond it, finds none, they disagree: then a sentence such as "the
network is in its compression phase" is true of one theory only, and has to name it. That is no fault of the network.

**When it misleads.** "No second phase found" is said of the steps that were measured: few points, or a training that ended
before, find none. A fall of the bins' entropy may come from saturation and from bins that widen
(see the instrument `information`). Rebuilding depends on the decoder. A gradient's ratio depends on the batch size. Spectra of
matrices with fewer than 100 rows get no phase. The interval of a spectrum's turn is the distance of two measurements, not of
repetitions. One run is one sample: another seed may turn elsewhere.

**What to do.** Name the theory when you speak of a phase; measure more often (`every=` of `watch`) around a turn that matters;
repeat the training with other seeds before drawing conclusions from where theories differ.

**TL001.** The 95 % intervals of two turns of a layer do not meet, by more than `apart` doublings of the step. It is told for
the layer where they are furthest apart, with what every other theory says there; where intervals meet, that is told as
passed. **When it misleads.** Theories may each be right about what they look at: weights usually leave noise long before
activations move. A turn's interval that is too narrow, as after few steps, makes a disagreement of chance. **What to do.** Name
the theory when you speak of a phase; measure more often around the turns, and repeat the training with other seeds.

**TL002.** One theory finds the second phase of a layer, and another, measured at `after` steps or more beyond that turn, finds
none; layers of TL001 are not told again. **When it misleads.** Not to have found a bend in a few noisy points is no proof that
there is none: `turn_p` says how clear it would have been. **What to do.** As for TL001; train on, if the phase may still come.

**TL003.** A theory looked for a second phase and found none, at the layers named, with the reason at most of them. It is an
answer and no complaint. **When it misleads.** After a training that ended early, or with few measured steps, it says little.
**What to do.** Nothing, unless you expected one: then measure more often, or train on.

**TL004.** A theory looked at layers and says nothing of them: its estimate is at its ceiling, matrices are too small, or
less than 8 steps were measured. **When it misleads.** Silence is neither agreement nor disagreement. **What to do.** Read the
reason: measure at more steps, take fewer bins or more examples, or leave that theory out.

Source: Shwartz-Ziv and Tishby, arXiv:1703.00810; Schneider and Prabhushankar, arXiv:2312.06887; Martin and Mahoney,
arXiv:1810.01075.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stratoscope.diagnoses.base import Diagnosis
from stratoscope.diagnoses.theories.agreement import Agreement
from stratoscope.diagnoses.theories.base import FEWEST, Answer, Asked, Theory, Told, in_order, owners_of, weights_of
from stratoscope.diagnoses.theories.registry import table, theories
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Finding
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.record.group import Group
    from stratoscope.record.record import Record

Setting = str | float | int | bool

_TURNS = {
    "turn": "step at which the second phase begins",
    "turn_low": "step at which the second phase begins, lower end of the 95 % interval",
    "turn_high": "step at which the second phase begins, upper end of the 95 % interval",
}


@dataclass(frozen=True)
class Timeline(Diagnosis):
    """Which phase each theory puts every layer in at every step, and where theories disagree.

    Attributes:
        level: share of curves without a second phase in which one may be found.
        resamples: draws of each test and interval along a curve.
        seed: of these draws.
        split: data to look at; by default the first split that is not training data.
        apart: doublings of the step by which the intervals of two turns have to be apart to be told.
        after: steps after a turn at which another theory has to be measured before its finding none counts.
        theories: settings of theories: each its key, the setting and the value, as `[["reconstruction", "least", 0.02]]`.
    """

    key: ClassVar[str] = "timeline"
    title: ClassVar[str] = "Phase timeline"
    source: ClassVar[str] = "arXiv:1703.00810"
    codes: ClassVar[Mapping[str, str]] = {
        "TL001": "theories put the turn of a layer at different steps",
        "TL002": "one theory finds a second phase of a layer where another finds none",
        "TL003": "a theory finds no second phase",
        "TL004": "a theory says nothing of layers that it looked at",
    }
    reads: ClassVar[frozenset[str]] = frozenset(cls.reads for cls in theories().values())
    optional: ClassVar[frozenset[str]] = reads
    any_of: ClassVar[frozenset[str]] = reads

    level: float = 0.05
    resamples: int = 400
    seed: int = 0
    split: str | None = None
    apart: float = 0.0
    after: int = 3
    theories: tuple[tuple[str, str, Setting], ...] = ()

    def __post_init__(self) -> None:
        # from a settings file or a record they come as lists
        object.__setattr__(self, "theories", tuple(tuple(one) for one in self.theories))
        if not 0 < self.level < 1 or (self.resamples + 1) * self.level < 1:
            raise SettingError(
                f"Timeline(level={self.level}, resamples={self.resamples}): give a level between 0 and 1, and 1 / level "
                "resamples or more."
            )
        self.chosen()

    def chosen(self) -> list[Theory]:
        """The theories, with their settings.

        Raises:
            SettingError: if a theory or a setting does not exist.
        """
        known = theories()
        own: dict[str, dict[str, Setting]] = {}
        for one in self.theories:
            cls = known.get(str(one[0]))
            if cls is None or len(one) != 3:
                raise SettingError(
                    f"Timeline: {one!r} is no (theory, setting, value); theories are {', '.join(known)}."
                )
            fields = [field.name for field in dataclasses.fields(cls)]
            if one[1] not in fields:
                raise SettingError(
                    f"The theory {one[0]!r} has no setting {one[1]!r}; it has {', '.join(fields) or 'none'}."
                )
            own.setdefault(cls.key, {})[one[1]] = one[2]
        return [cls(**own.get(key, {})) for key, cls in known.items()]

    def derive(self, record: Record) -> Mapping[str, Quantity]:
        """The phase of each layer by each theory, at all steps; turns, and what stands against one."""
        groups = self.groups(record)
        owners, weights = owners_of(record), weights_of(record)
        told: dict[str, dict[str, Told]] = {}
        looked: dict[str, str] = {}
        for theory in self.chosen():
            if theory.reads in groups:
                asked = Asked(
                    groups[theory.reads], owners, weights, self.split, self.level, self.resamples, self.seed
                )  # fmt: skip
                told[theory.key] = theory.tell(asked)
                looked[theory.key] = theory.looked_at(asked)
        told = {key: layers for key, layers in told.items() if layers}
        if not told:
            raise NotApplicable("what was measured says nothing of phases")
        steps = _steps(told)
        if len(steps) < 2:
            raise NotApplicable("there is one measured step only, and phases follow each other in time")
        layers = in_order(record, [layer for own in told.values() for layer in own])
        return _quantities(told, steps, layers, {key: split for key, split in looked.items() if split})

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Where theories agree and disagree, and what none of them finds."""
        yield from Agreement.of(self, measured).findings(self)


def _steps(told: Mapping[str, Mapping[str, Told]]) -> tuple[int, ...]:
    """The columns of the timeline: those of theories that look seldom, and where these are few, those of all."""
    dense = {key for key, cls in theories().items() if cls.dense}
    sparse, every = (
        {step for key in keys for one in told[key].values() for step in one.columns or one.steps}
        for keys in (told.keys() - dense, told.keys())
    )
    return tuple(sorted(sparse if len(sparse) >= FEWEST else every))


def _quantities(
    told: Mapping[str, Mapping[str, Told]], steps: tuple[int, ...], layers: list[str], looked: Mapping[str, str]
) -> dict[str, Quantity]:
    phases, names = table(), list(told)
    codes = {phase.name: code for code, phase in enumerate(phases)}
    shape = (len(layers), len(names))
    phase, turns = np.full((len(steps), *shape), np.nan), np.full((3, *shape), np.nan)
    p_value, points = np.full(shape, np.nan), np.zeros(shape, np.int64)
    answer, reason = np.full(shape, np.nan), np.full(shape, np.nan)
    reasons: dict[str, int] = {}
    for where in np.ndindex(shape):
        one = told[names[where[1]]].get(layers[where[0]])
        if one is None:
            continue
        phase[(slice(None), *where)] = [codes[name] if name else np.nan for name in one.at(steps)]
        turns[(slice(None), *where)] = one.turn or np.nan
        p_value[where], points[where], answer[where] = one.p_value, one.points, one.answer
        reason[where] = reasons.setdefault(one.reason, len(reasons))
    place: dict[str, Any] = {"dims": ("layer", "theory"), "coords": {"layer": layers, "theory": names}, "chart": "none"}
    found = {"phase": _phase(phase, steps, layers, names, looked)}
    for (name, what), values in zip(_TURNS.items(), turns, strict=True):
        found[name] = quantity(values, units="step", long_name=what, **place)
    found["turn_p"] = quantity(
        p_value, units="1", long_name="p-value of the turn, or of the first that was refused", **place
    )
    found["points"] = quantity(points, units="1", long_name="steps at which a phase is named", **place)
    found["answer"] = quantity(
        answer, units="1", long_name="whether there is a second phase", flag_values=[int(one) for one in Answer],
        flag_meanings=[one.meaning for one in Answer], looked_at=dict(looked), **place,
    )  # fmt: skip
    found["reason"] = quantity(
        reason, units="1", long_name="why there is a second phase or none", flag_values=list(reasons.values()),
        flag_meanings=list(reasons), **place,
    )  # fmt: skip
    return found


def _phase(
    values: np.ndarray, steps: tuple[int, ...], layers: list[str], names: list[str], looked: Mapping[str, str]
) -> Quantity:
    phases = table()
    return quantity(
        values,
        units="1",
        long_name="phase that each theory puts the layer in",
        dims=("step", "layer", "theory"),
        coords={"step": steps, "layer": layers, "theory": names},
        chart="timeline",
        flag_values=list(range(len(phases))),
        flag_meanings=[phase.name for phase in phases],
        letters=[phase.letter for phase in phases],
        told_by=[[key for key, cls in theories().items() if phase in cls.stated] for phase in phases],
        looked_at=dict(looked),
    )
