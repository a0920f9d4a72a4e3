r"""Class separation: the generalized discrimination value (GDV) of each layer, beside its floor and its null.

Each unit's activation $s$ is standardised over all $n$ kept examples, $z = (s - \bar s) / (2 \sigma)$, with the
population deviation; constant units become 0 and still count among the $D$ units. With $d$ the Euclidean distance,

$$\mathrm{GDV} = D^{-1/2} \Big[ \operatorname{mean}_c\, \overline{d}_{cc} \;-\; \operatorname{mean}_{c < c'}\,
\overline{d}_{cc'} \Big]$$

where $\overline d_{cc}$ is the mean over pairs of different members of class $c$ and $\overline d_{cc'}$ that over
pairs across two classes. Classes weigh the same, whatever their sizes. A pure number: 0 where labels say nothing about
distances, negative where classes are apart.

| quantity | definition | range |
|---|---|---|
| `gdv` | as above | `gdv_floor` to about 0 |
| `standard_error` | of `gdv`, for fresh examples of the same classes; rather too large than too small | $\ge 0$ |
| `gdv_floor` | the value if every class were one point: $-\sqrt{C / (2(C-1))}$ for $C$ classes of one size | below 0 |
| `gdv_fraction` | `gdv` / `gdv_floor` | about 0 to 1 |
| `null_mean`, `null_sd` | mean and deviation of `gdv` under shuffled labels | |
| `z` | $(\text{gdv} - \text{null mean}) / (\text{null sd} \sqrt{1 + 1/P})$ for $P$ shuffles | below -3: separated |
| `p_value` | (1 + shuffles with a value as low) / ($P$ + 1) | $1/(P+1)$ to 1 |
| `uninformative` | 1 where `z` does not reach `-noise_z`: shuffled labels would read the same | 0, 1 |
| `intra` | for each class, $\overline d_{cc} / \sqrt D$, measured around the class's own mean | $\ge 0$ |
| `n`, `width`, `skipped_classes` | examples, units, and classes left out because they have one example | |

**What it means.** Invariant to shifting and scaling each unit, to the order of units and to duplicating all of them, so
layers of different kind and width can be compared. The usual picture in a trained classifier: near 0 at the input,
falling with depth. **-1 is the best value for two classes of equal size only**; ten classes reach -0.745 at best, two
classes of 30 % and 70 % -1.091. Compare `gdv_fraction`, which has 1 at the best in each case.

**When it misleads.** It is not invariant to rotation: a linear map that loses nothing can change it. It speaks of
distances, not of what a classifier could find: classes may be perfectly separable along one direction among
thousands and still give about 0. A layer can be far from the null (`z` very negative) and separate little
(`gdv_fraction` 0.02): with many units even tiny effects are certain. With one or two units the null is skewed, and
`p_value` is the one to trust. The examples are a sample, pooled and maybe projected as the `note` says; a random
projection mixes units and so changes the value.

**What to do.** If no layer separates, the labels, their order, or the training are to be looked at first. If the
separation is best well before the end, features for transfer or retrieval may be better taken there, and the network
may be deeper than its task needs.

Source: Schilling, Maier, Gerum, Metzner and Krauss, arXiv:1811.01753.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

from stratoscope.capture.activations import Activations
from stratoscope.capture.needs import Need
from stratoscope.capture.pairs import ClassDistances
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.reading import At, last_of, passed_if_silent, some
from stratoscope.network.layers import ROOT
from stratoscope.numerics.separation import ClassSeparation
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.capture.views import LayerView
    from stratoscope.record.group import Group

_SHOWN: dict[str, dict[str, int]] = {"gdv_fraction": {"headline": 1}, "gdv": {"headline": 2}, "z": {}}
"""What a report draws; the other numbers bound these."""


@dataclass(frozen=True)
class Separation(LayerInstrument):
    """How far apart the classes lie in each layer's activations.

    Attributes:
        n: examples kept at most.
        pooling: `"gap"`, the mean over positions, `"flatten"`, or `"spatial"`: positions are rows of their own.
        width: units kept at most; wider activations are projected.
        permutations: shuffles of the labels for the null; without at least 2 nothing is judged against noise.
        seed: of the shuffles.
        noise_z: how many deviations below shuffled labels count as separated.
        worse: loss of `gdv_fraction` after the best layer from which a tip is given.
    """

    key: ClassVar[str] = "separation"
    title: ClassVar[str] = "Class separation"
    source: ClassVar[str] = "arXiv:1811.01753"
    codes: ClassVar[Mapping[str, str]] = {
        "SP001": "a layer's distances cannot tell the classes from shuffled labels",
        "SP002": "the separation of classes gets worse after its best layer",
        "SP003": "classes with a single example were left out",
    }

    n: int = 1000
    pooling: str = "gap"
    width: int = 4096
    permutations: int = 20
    seed: int = 0
    noise_z: float = 3.0
    worse: float = 0.1

    @property
    def requires(self) -> set[Need]:
        """A sample of the layer's activations with labels, and the distances in it."""
        return {self._need, self._distances}

    @property
    def _need(self) -> Activations:
        return Activations(n=self.n, width=self.width, pooling=self.pooling)

    @property
    def _distances(self) -> ClassDistances:
        return ClassDistances(self._need, permutations=self.permutations, seed=self.seed)

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """GDV of one layer's sample, its floor, its null, and each class's own spread."""
        return self._quantities(view[self._distances], view[self._need].note)

    def _quantities(self, result: ClassSeparation, note: str) -> dict[str, Quantity]:
        numbers: dict[str, tuple[float, str]] = {
            "gdv": (result.gdv, "generalized discrimination value"),
            "standard_error": (result.standard_error, "standard error of the generalized discrimination value"),
            "gdv_floor": (result.floor, "the value if every class were one point"),
            "gdv_fraction": (result.fraction, "generalized discrimination value over its floor"),
            "null_mean": (result.null_mean, "mean value under shuffled labels"),
            "null_sd": (result.null_sd, "standard deviation under shuffled labels"),
            "z": (result.z, "deviations from shuffled labels"),
            "p_value": (result.p_value, "how often shuffled labels give as low a value"),
            "n": (result.n, "examples counted"),
            "width": (result.units, "units counted"),
            "skipped_classes": (len(result.skipped), "classes with a single example, left out"),
        }
        found = {
            name: quantity(value, units="1", long_name=what, note=note, **_SHOWN.get(name, {"chart": "none"}))
            for name, (value, what) in numbers.items()
        }
        found["uninformative"] = quantity(
            int(not result.z <= -self.noise_z), units="1", long_name="shuffled labels would read the same", chart="none",
            flag_values=[0, 1], flag_meanings="informative uninformative",
        )  # fmt: skip
        found["intra"] = quantity(
            result.intra, units="1", dims="class", coords={"class": result.classes}, note=note,
            long_name="mean distance within the class, around its own mean, over the root of the width",
        )  # fmt: skip
        return found

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Layers that do not separate, and depth that undoes separation; at the last step that was measured."""
        yield from passed_if_silent(self, self._judge(measured), self._checked(measured), measured)

    def _checked(self, measured: Group) -> list[str]:
        """Codes for which there was a null to compare with, and a second layer where depth is judged."""
        splits = list(_by_split(measured))
        against_noise = any(math.isfinite(at["null_sd"]) for layers in splits for at in layers)
        in_depth = any(_comparable(layers) for layers in splits)
        return [*(["SP001"] if against_noise else []), *(["SP002"] if in_depth else [])]

    def _judge(self, measured: Group) -> Iterator[Finding]:
        for in_order in _by_split(measured):
            yield from self._about_the_sample(in_order[0])
            # a layer of constants has no spread under shuffles either: its z is NaN, and it tells nothing
            noise = [at for at in in_order if math.isfinite(at["null_sd"]) and not at["z"] <= -self.noise_z]
            constant = [at for at in noise if math.isnan(at["z"])]
            yield from self._like_noise(constant, len(in_order), "the same output for every example")
            noise = [at for at in noise if not math.isnan(at["z"])]
            yield from self._like_noise(
                noise, len(in_order), "distances that cannot tell the classes from shuffled labels"
            )
            yield from self._worse_with_depth(_comparable(in_order))

    def _about_the_sample(self, at: At) -> Iterator[Finding]:
        if at["skipped_classes"] > 0:
            yield self.finding(
                "SP003", Outcome.SKIPPED, f"{at['skipped_classes']:.0f} classes of one example each were left out",
                step=at.step, split=at.split, do="probe more examples",
                skipped_classes=int(at["skipped_classes"]), limit=0, n=int(at["n"]),
            )  # fmt: skip
        if math.isnan(at["null_sd"]):
            yield self.finding(
                "SP001", Outcome.SKIPPED, "Without shuffled labels nothing says what noise would read",
                step=at.step, split=at.split, do="set permutations to 2 or more", limit=-self.noise_z, n=int(at["n"]),
            )  # fmt: skip

    def _like_noise(self, layers: list[At], of: int, what: str) -> Iterator[Finding]:
        """One finding for one layer, and one for many: an untrained network is one fact and not one a layer."""
        if not layers:
            return
        best = min(layers, key=lambda at: at["z"])
        numbers = "" if math.isnan(best["z"]) else f" (z = {best['z']:.1f}, n = {best['n']:.0f})"
        do = "check that labels and examples belong together; probe more examples, or train longer"
        numbered: dict[str, Any] = {
            "gdv": best["gdv"], "z": best["z"], "p_value": best["p_value"], "limit": -self.noise_z, "n": int(best["n"])
        }  # fmt: skip
        if len(layers) == 1:
            says = f"{best.layer} gives {what}{numbers}"
            yield self.finding("SP001", Outcome.TIP, says, do=do, **numbered, **best.place)
            return
        names = [str(at.layer) for at in layers]
        says = f"{len(names)} of {of} layers give {what}: {some(names)}"
        if numbers:
            says += f"; {best.layer} comes closest{numbers}"
        yield self.finding(
            "SP001", Outcome.TIP, says, do=do, step=best.step, split=best.split,
            layers=", ".join(names), count=len(names), of=of, closest=best.layer, **numbered,
        )  # fmt: skip

    def _worse_with_depth(self, layers: list[At]) -> Iterator[Finding]:
        """Compares the best layer with the last one; both must be known well enough for the loss to be real."""
        if not layers:
            return
        best, last = max(layers, key=_fraction), layers[-1]
        loss = best["gdv_fraction"] - last["gdv_fraction"]
        error = math.hypot(*(at["standard_error"] / at["gdv_floor"] for at in (best, last)))
        if loss >= self.worse and loss > self.noise_z * error and best["z"] <= -self.noise_z:
            yield self.finding(
                "SP002", Outcome.TIP,
                f"{best.layer} separates the classes best, with {best['gdv_fraction']:.2f} of what is possible; "
                f"{last.layer}, the last layer, is down to {last['gdv_fraction']:.2f}",
                do=f"take features for transfer or retrieval from {best.layer}; try fewer layers after it",
                best_layer=best.layer, best=best["gdv_fraction"], last_layer=last.layer, last=last["gdv_fraction"],
                loss=loss, standard_error=error, limit=self.worse, n=int(best["n"]), **best.place,
            )  # fmt: skip


def _by_split(measured: Group) -> Iterator[list[At]]:
    """The layers of each split in order, without the network where it gives what a layer gives."""
    names = ("gdv", "gdv_fraction", "gdv_floor", "standard_error", "null_sd", "z", "p_value", "n", "skipped_classes")
    for _, layers in groupby(last_of(measured, *names), key=lambda at: at.split):
        in_order = list(layers)
        own = {(at["gdv"], at["null_sd"]) for at in in_order if at.layer != ROOT}
        yield [at for at in in_order if at.layer != ROOT or (at["gdv"], at["null_sd"]) not in own]


def _comparable(layers: list[At]) -> list[At]:
    """Those measured at the last step, if there are two of them and the best has a null; none otherwise."""
    last_step = max(at.step for at in layers)
    known = [at for at in layers if at.step == last_step and math.isfinite(at["gdv_fraction"])]
    return known if len(known) > 1 and not math.isnan(max(known, key=_fraction)["z"]) else []


def _fraction(at: At) -> float:
    return at["gdv_fraction"]
