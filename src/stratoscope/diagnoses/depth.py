r"""Depth: after which layer is nothing gained any more for telling the classes apart, on the training data and beyond?

Reads what `separation` (distances), `probe` (what a linear map can read) and `collapse` (within-class scatter) measured
at every layer, whichever of them are there, and `performance`. With $m_l$ a layer's measure (the share of the possible
GDV, the probe's accuracy) and layers in the order in which they give their output,

$$\mathrm{left}_l = \max_{l' > l} \; m_{l'} - m_l$$

is the most that any later layer has more. Its interval takes both layers' own 95 % intervals together as if they were
independent; they come from the same examples, so it is too wide rather than too narrow. Walking back from the output
layer, a layer is **enough** as long as the upper end of `left` stays below `margin`; the first that is not ends the walk.
So layers are said to add nothing only where they can be shown to add less than the margin, and not where the examples
are merely too few to see.

Compared are the places at which the network could be cut: what a residual block gives, not the branches inside it. The
output layer (the last one with weights) is left out, since whoever cuts the network needs one of that kind anyway.

| quantity | definition |
|---|---|
| `separation_left`, `probe_left` | as above, with `_low` and `_high` |
| `separation_best`, `probe_best`, `collapse_best` | the layer before the output with the largest share, accuracy; the least NC1 |
| `separation_enough`, `probe_enough` | the earliest layer that is enough (the last place before the next layer with weights) |
| `separation_lost`, `probe_lost` | the layer from which on the measure is that of noise, by `margin` below the best one's interval |
| `..._at_best`, `..._at_enough`, `..._at_lost` | the measure there |
| `separation_gap`, `probe_gap` | value on the training data less that on held-out data, with `_low` and `_high` |
| `enough` | that of the measure that decides (`decided_by`): the probe where it was measured, else separation |
| `beyond`, `params_beyond` | layers with weights between that layer and the output layer; their share of all trainable numbers |
| `informative` | 1 where that layer tells more of the classes than noise would |
| `skill` | the network's own accuracy (lower end) above that of always saying the commonest class, over the best that was readable |

**What it means.** A layer that is enough holds all that the later ones hold, as far as this measure sees. A probe asks
what a linear classifier could read, separation what distances show; where they disagree, both are told. NC1 falls along
depth in every trained network, since that is what its layers do to the training data; it is no evidence that they help.

**When it misleads.** Where the network has learned nothing, its layers add nothing either: no advice is given unless the
network's own accuracy shows that it makes use of what its layers hold (`skill`). A pooled map tells less than the map
itself; later layers may be needed to put in the channels what an early one has in places. Classes are not all that a
network is for: layers that add nothing for these classes may matter for others, for calibration, or for robustness.

**What to do.** Check the advice by really cutting there: `stratoscope cut MODEL --data ... --at LAYER`, or
`stratoscope.cut(model, data, layer)`, runs the network only so far, trains a probe on it, and compares both on the same
held-out examples. Then train a network of that depth: one that is trained so may do better, or worse, than one cut.

Source: Schilling, Maier, Gerum, Metzner and Krauss, arXiv:1811.01753.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from stratoscope.diagnoses.base import Diagnosis
from stratoscope.diagnoses.path import Path
from stratoscope.diagnoses.profile import MEASURES, TRAIN, Profile
from stratoscope.errors import NotApplicable
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.reading import At, last_of, passed_if_silent

if TYPE_CHECKING:
    from stratoscope.record.group import Group
    from stratoscope.record.quantity import Quantity
    from stratoscope.record.record import Record

_SCALARS = ("enough", "params_beyond", "informative", "skill", "decided_by")

WORDS = {
    "probe": "a linear probe's accuracy",
    "separation": "the separation of the classes (as a share of the possible)",
}


@dataclass(frozen=True)
class Depth(Diagnosis):
    """After which layer nothing is gained any more for telling the classes apart.

    Attributes:
        margin: less than this, in accuracy or in the share of the possible separation, counts as nothing.
        gap: difference between training and held-out data from which a layer is said to be overfitted.
        skill: share of what can be read from its layers that the network itself has to make use of, or it is taken for
            untrained and no advice is given.
    """

    key: ClassVar[str] = "depth"
    title: ClassVar[str] = "Depth"
    source: ClassVar[str] = "arXiv:1811.01753"
    codes: ClassVar[Mapping[str, str]] = {
        "DP001": "layers before the output add nothing for telling the classes apart",
        "DP002": "what one layer tells of the classes is lost in later ones",
        "DP003": "a gap between training and held-out data opens along depth",
    }
    reads: ClassVar[frozenset[str]] = frozenset({"separation", "probe", "collapse", "performance"})
    optional: ClassVar[frozenset[str]] = reads
    any_of: ClassVar[frozenset[str]] = frozenset({"separation", "probe", "collapse"})

    margin: float = 0.05
    gap: float = 0.1
    skill: float = 0.5

    def derive(self, record: Record) -> Mapping[str, Quantity]:
        """Along the path: what is left to gain after each layer, the best one, the first that is enough, the gap."""
        path = Path.of(record.layers)
        if path.before < 2:
            raise NotApplicable("there are no two layers before the output layer to compare")
        found = Profile(self.groups(record), path, self.margin).quantities()
        if not found:
            raise NotApplicable(
                "no layer was measured by how it tells classes apart; the data have no labels of two classes"
            )
        return found

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Whether layers add nothing, lose something, or overfit; at the last step that was measured."""
        yield from passed_if_silent(self, self._judge(measured), self._checked(measured), measured)

    def _checked(self, measured: Group) -> list[str]:
        gaps = any(f"{measure}_gap" in measured for measure in MEASURES)
        return [*(["DP001", "DP002"] if "beyond" in measured else []), *(["DP003"] if gaps else [])]

    def _judge(self, measured: Group) -> Iterator[Finding]:
        splits = {at.split: at for at in last_of(measured, "beyond", *_SCALARS, dim=None)}
        held_out = [split for split in splits if split != TRAIN] or list(splits)
        for split in held_out:
            told = _Told(measured, splits[split])
            lost = list(self._lost(told))
            yield from lost
            yield from self._beyond(told, splits.get(TRAIN) if split != TRAIN else None, bool(lost))
            yield from self._gap(told)

    def _beyond(self, told: _Told, train: At | None, lost: bool) -> Iterator[Finding]:
        """The advice, where something is beyond, the measure is no noise, and the network has learned something."""
        at = told.at
        if not at["beyond"] >= 1 or at["informative"] != 1:
            return
        if not at["skill"] >= self.skill:
            if not lost:
                yield self._untrained(told)
            return
        layer, left, high = told.enough, told.along("left", told.enough), told.along("left_high", told.enough)
        says = (
            f"Nothing between {layer} and the output layer adds to {WORDS[told.measure]} on {at.split}: "
            f"{_layers(at['beyond'])} with weights ({at['params_beyond']:.0%} of the parameters) "
            f"{'gives' if at['beyond'] == 1 else 'give'} "
            f"{left:+.3f} at best, and not more than {high:.3f} by the 95 % interval"
        )
        also = told.others(layer, self.margin, train)
        yield self.finding(
            "DP001", Outcome.TIP, "; ".join([says, *also]),
            do=f"check it by really cutting there: stratoscope cut MODEL --data DATA --at '{layer}'; then train a "
            "network of that depth, or take features from there",
            layer=layer, step=at.step, split=at.split, measure=told.measure, beyond=int(at["beyond"]),
            params_beyond=at["params_beyond"], left=left, left_high=high, limit=self.margin, skill=at["skill"],
            value=told.scalar("at_enough"), best_layer=told.named("best"), best=told.scalar("at_best"),
        )  # fmt: skip

    def _untrained(self, told: _Told) -> Finding:
        at = told.at
        if math.isnan(at["skill"]):
            why, do = "whether the network has learned anything was not measured", "measure performance as well"
        else:
            why = f"the network makes use of {max(at['skill'], 0.0):.0%} of what can be read from its layers"
            do = "train it first: in a network that has not learned, later layers add nothing as a matter of course"
        return self.finding(
            "DP001", Outcome.SKIPPED, f"No advice on depth from {at.split}: {why}", do=do, step=at.step, split=at.split,
            skill=at["skill"], limit=self.skill, layer_enough=told.enough,
        )  # fmt: skip

    def _lost(self, told: _Told) -> Iterator[Finding]:
        for measure in MEASURES:
            lost, at = told.named("lost", measure), told.at
            best, last = told.scalar("at_best", measure), told.scalar("at_lost", measure)
            if lost is None or not best - last >= self.margin:
                continue
            layer = told.named("best", measure)
            yield self.finding(
                "DP002", Outcome.TIP,
                f"{layer} tells the classes of {at.split} apart ({WORDS[measure]} is {best:.2f}); from {lost} on that is "
                f"lost, down to {last:.2f}, which shuffled labels would give, too",
                do=f"look at what {lost} gives: one value for all, dead or saturated units, weights that are zero or were never "
                "trained; a probe would rather stand before it",
                layer=lost, step=at.step, split=at.split, measure=measure, best_layer=layer, best=best, lost=last,
                limit=self.margin,
            )  # fmt: skip
            return

    def _gap(self, told: _Told) -> Iterator[Finding]:
        gaps = told.gaps()
        large = [name for name, gap, low in gaps if gap >= self.gap and low > 0]
        opened = next((place for place in range(len(gaps)) if all(g[0] in large for g in gaps[place:])), None)
        if not opened or gaps[0][1] >= self.gap:
            return
        (first, before, _), (layer, gap, _), (last, end, _) = gaps[0], gaps[opened], gaps[-1]
        yield self.finding(
            "DP003", Outcome.TIP,
            f"Between {TRAIN} and {told.at.split}, {WORDS[told.measure]} differs by {before:.2f} at {first} and by "
            f"{gap:.2f} at {layer}; at {last}, the last layer before the output, it is {end:.2f}",
            do=f"regularise or narrow the layers from {layer} on; for other tasks take features from before it",
            layer=layer, step=told.at.step, split=told.at.split, measure=told.measure, gap=gap, limit=self.gap,
            first_layer=first, first_gap=before, last_layer=last, last_gap=end,
        )  # fmt: skip


class _Told:
    """What was derived at one step and split, by names."""

    def __init__(self, measured: Group, at: At) -> None:
        self._measured, self.at = measured, at
        self.measure = MEASURES[int(at["decided_by"])]

    @property
    def enough(self) -> str:
        """The earliest layer that is enough."""
        return str(self.named("enough"))

    def scalar(self, name: str, measure: str | None = None) -> float:
        """A number of one measure."""
        return float(self._read(f"{measure or self.measure}_{name}"))

    def named(self, name: str, measure: str | None = None) -> str | None:
        """A layer that one measure names."""
        place = self.scalar(name, measure)
        if math.isnan(place):
            return None
        return str(self._measured[f"{measure or self.measure}_{name}"].attrs["flag_meanings"][int(place)])

    def along(self, name: str, layer: str, measure: str | None = None, split: str | None = None) -> float:
        """A number of one measure at one layer."""
        return float(self._read(f"{measure or self.measure}_{name}", split, layer=layer))

    def others(self, layer: str, margin: float, train: At | None) -> list[str]:
        """What the other measure says of a layer, and what the training data say."""
        found = []
        for measure in MEASURES:
            left, low = (self.along(name, layer, measure) for name in ("left", "left_low"))
            if measure != self.measure and not math.isnan(left):
                more = f"{WORDS[measure]} still grows after it, by {left:.2f}, which that probe does not need"
                found.append(more if low > 0 and left >= margin else f"{WORDS[measure]} does not grow after it either")
        if train is not None:
            left = self.along("left", layer, split=TRAIN)
            if not math.isnan(left):
                found.append(
                    f"on {TRAIN} later layers still add {left:.2f}" if left >= margin else f"so it is on {TRAIN}"
                )
        return found

    def gaps(self) -> list[tuple[str, float, float]]:
        """Layers with their gap between training and held-out data, and the lower end of its interval."""
        name = f"{self.measure}_gap"
        if name not in self._measured:
            return []
        layers = [str(layer) for layer in self._measured[name].coords["layer"].values]
        found = [(layer, self.along("gap", layer), self.along("gap_low", layer)) for layer in layers]
        return [row for row in found if not math.isnan(row[1])]

    def _read(self, name: str, split: str | None = None, **where: Any) -> Any:
        """One number; NaN where it is not known."""
        if name not in self._measured:
            return math.nan
        array = self._measured[name]
        at = {"step": self.at.step, "split": split or self.at.split, **where}
        at = {dim: label for dim, label in at.items() if dim in array.dims}
        known = all(label in array.coords[dim].values for dim, label in at.items())
        return array.sel(at) if known else math.nan


def _layers(count: float) -> str:
    return f"{count:.0f} layer{'' if count == 1 else 's'}"
