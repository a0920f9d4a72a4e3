r"""Neural collapse: how near each class's examples are to one point, and the classes to a simplex, in each layer.

From the moments of the whole probe set, with $\mu_c$ the means of $C$ classes, $\mu$ the mean of these, $V_c$ the
mean squared distance of a class's examples from its own mean, $\Sigma_W$ the pooled covariance within classes and
$\Sigma_B = \frac{1}{C}\sum_c (\mu_c - \mu)(\mu_c - \mu)^\top$:

| quantity | definition | at collapse |
|---|---|---|
| `nc1` | $\operatorname{Tr}(\Sigma_W \Sigma_B^+) / C$ | 0 |
| `cdnv` | mean over pairs of classes of $(V_a + V_b) / (2 \Vert \mu_a - \mu_b\Vert ^2)$ | 0 |
| `class_cdnv` | for each class, the mean of that over its pairs | 0 |
| `nc2_equinorm` | deviation over mean of $\Vert \mu_c - \mu\Vert$ | 0 |
| `nc2_equiangular` | mean over pairs of $\vert \cos + \frac{1}{C-1}\vert$, angles at $\mu$ | 0 |
| `nc3` | $\Vert W^\top/\Vert W\Vert _F - M/\Vert M\Vert _F\Vert _F$, $M$ the class means around $\mu$, $W$ the head | 0 |
| `nc4` | share of examples for which the classifier and the nearest class mean disagree | 0 |
| `..._null` | what shuffled labels read: median of draws; for `nc3` $\sqrt{2}$, for `nc4` independent decisions | |
| `nc2_equiangular_floor` | $\frac{1}{D} - \frac{1}{C-1}$, below which too few units keep it; or 0 | |
| `nc1_z`, `cdnv_z` | deviations of the logarithm from shuffled labels, as a $t$ of (draws - 1) degrees | |
| `uninformative` | 1 where neither reaches `-noise_z`: shuffled labels would read the same | |

Classes weigh the same in $\mu$ and $\Sigma_B$, whatever their sizes; in $\Sigma_W$ examples do. The pseudo-inverse
leaves out directions along which the class means extend by less than $\max(C, D)\,\varepsilon$ (float32) of the
largest; `directions` are left. NC2 is empty for two classes, which always lie opposite each other: NaN. Classes of
one example are left out.

**NC3 and NC4** stand at the classifier head, and there alone: the linear layer with one weight matrix that is given
one vector an example, gives as many numbers as there are classes (labelled 0 to $C - 1$), and after which nothing
learns. They speak of what the head is given, from the kept sample: it is compared with the head's weight, and the
decision with the head's own output. Inputs of more than 4096 units
are left out.

**Under shuffled labels** the class means are Gaussian around one point, so the null is drawn from the layer's own
covariance, without further passes. With `m` examples a class, `nc1` is about $m (C-1)/(D-C)$ for white activations
and $D > C$ and larger for others, and $m D/(C-D-2)$ for any and $D < C - 2$; `cdnv` is about $m/2$ where the width is
large. So both grow with the number of examples where there is no structure: compare layers and steps at equal `n`.

**What it means.** On the training set of a classifier trained well past the point of no error, all of it goes to 0 in
the last layers. Along depth `cdnv` falls. Invariant to rotation; NC1, CDNV and NC2 to scaling and shifts.

**When it misleads.** Collapse on the training set says nothing of other examples: measure both splits. NC1 looks
along the few directions of the class means alone, and sums over them: one along which no class differs hides the
others. CDNV counts all spread, also where no class differs, and two classes that lie together can be all of it.
Unequal classes shift NC2. With `"spatial"` pooling rows of one example are not independent, and the null is too high.
`nc3` compares with the weight as it is, so a common part of all rows, which changes no decision, counts. Projected
widths (see `note`) keep these numbers right on average, being made of inner products.

**What to do.** Where classes have collapsed well before the head, the layers between add little on these data: see
whether held-out data agree before cutting. For transfer, features before the collapse keep more of what distinguishes
examples of a class.

Source: Papyan, Han and Donoho, arXiv:2008.08186; CDNV, Galanti, György and Hutter, arXiv:2112.15121; minority
collapse, Fang et al., arXiv:2101.12699.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from stratoscope.capture.activations import Activations
from stratoscope.capture.class_moments import ClassMoments
from stratoscope.capture.linear_inputs import LinearInputs
from stratoscope.capture.needs import Need
from stratoscope.capture.weights import Matrices
from stratoscope.errors import NotApplicable
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.reading import At, by_split, passed_if_silent
from stratoscope.numerics.collapse import Collapse, CollapseNull, collapse, collapse_null, nearest_means, self_duality
from stratoscope.numerics.intervals import clopper_pearson
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.capture.activations import Sample
    from stratoscope.capture.class_moments import LayerMoments
    from stratoscope.capture.views import LayerView
    from stratoscope.record.group import Group

READ = (
    "cdnv", "cdnv_null", "nc1", "nc1_null", "cdnv_z", "nc2_equiangular", "nc2_equiangular_floor",
    "nc2_equiangular_null", "nc2_equinorm", "classes", "n", "skipped_classes", "nc3", "nc4", "nc4_low", "nc4_n",
)  # fmt: skip
"""What judgements read; the first is there wherever anything is."""

_SHOWN: dict[str, dict[str, Any]] = {
    "cdnv": {"headline": 1, "scale": "log"}, "nc1": {"headline": 2, "scale": "log"}, "nc2_equiangular": {"headline": 3}, "nc2_equinorm": {}, "nc3": {},
    "nc4": {},
}  # fmt: skip
"""What a report draws; the other numbers bound these."""


@dataclass(frozen=True)
class NeuralCollapse(LayerInstrument):
    """How near each class's examples are to one point, and the classes to a simplex.

    Attributes:
        width: units at most; wider activations are projected.
        pooling: `"gap"`, the mean over positions, `"flatten"`, or `"spatial"`: positions are rows of their own.
        n: examples kept at most for NC3 and NC4 at the head.
        draws: of shuffled labels for the null, at most; fewer where there are many classes.
        seed: of these draws.
        noise_z: how many deviations below shuffled labels count as class structure.
        collapsed: CDNV up to which classes count as collapsed: 0.05 is a spread of 22 % of the distance of two means.
        early: share of the layers that must come after the first collapsed one for a tip.
        equiangular: distance from a simplex's angles from which collapsed classes are told to be unequally placed.
        disagreement: share of examples from which the head is told to decide otherwise than by the nearest mean.
    """

    key: ClassVar[str] = "collapse"
    title: ClassVar[str] = "Neural collapse"
    source: ClassVar[str] = "arXiv:2008.08186"
    codes: ClassVar[Mapping[str, str]] = {
        "NC001": "the classes have collapsed well before the last layer",
        "NC002": "the classes have collapsed, but their means are not equiangular",
        "NC003": "the classes have collapsed, but the head does not decide by the nearest class mean",
        "NC004": "no classifier head was recognised, so NC3 and NC4 were not measured",
        "NC005": "classes with a single example were left out",
    }

    width: int = 1024
    pooling: str = "gap"
    n: int = 1000
    draws: int = 20
    seed: int = 0
    noise_z: float = 3.0
    collapsed: float = 0.05
    early: float = 0.25
    equiangular: float = 0.2
    disagreement: float = 0.05

    @property
    def requires(self) -> set[Need]:
        """Moments within and between classes."""
        return {self._moments}

    @property
    def uses(self) -> set[Need]:
        """At the classifier head its inputs, outputs and weight."""
        return {self._inputs, self._outputs, Matrices()}

    @property
    def _moments(self) -> ClassMoments:
        return ClassMoments(width=self.width, pooling=self.pooling)

    @property
    def _inputs(self) -> LinearInputs:
        return LinearInputs(n=self.n)

    @property
    def _outputs(self) -> Activations:
        return Activations(n=self.n, pooling=self.pooling)

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """NC1, NC2 and CDNV of one layer; at the classifier head NC3 and NC4 of what it is given."""
        moments: LayerMoments = view[self._moments]
        scatter = moments.scatter
        if not scatter.classes:
            raise NotApplicable("the data have no class labels, one integer an example")
        if not math.isfinite(float(scatter.within.sum() + scatter.means.sum())):
            raise NotApplicable("some of the numbers that it gives are NaN or infinite")
        if int((scatter.counts > 1).sum()) < 2:
            raise NotApplicable(f"{len(scatter.classes)} classes in {scatter.n} examples, and two of two are needed")
        found, null = moments.worked_out.once(
            (collapse, self.draws, self.seed),
            lambda: (collapse(scatter), collapse_null(scatter, draws=self.draws, seed=self.seed)),
        )
        return {**self._quantities(found, null, moments), **self._at_the_head(view, scatter.classes)}

    def _quantities(self, found: Collapse, null: CollapseNull, moments: LayerMoments) -> dict[str, Quantity]:
        nc1_z, cdnv_z = _z(found.nc1, null.nc1), _z(found.cdnv, null.cdnv)
        numbers: dict[str, tuple[float, str]] = {
            "nc1": (found.nc1, "scatter within classes in units of that between them"),
            "nc1_null": (float(null.nc1.median()), "the same under shuffled labels"),
            "cdnv": (found.cdnv, "class-distance normalised variance"),
            "cdnv_null": (float(null.cdnv.median()), "the same under shuffled labels"),
            "nc2_equinorm": (found.equinorm, "how unequally far the class means are from their centre"),
            "nc2_equinorm_null": (float(null.equinorm.median()), "the same under shuffled labels"),
            "nc2_equiangular": (found.equiangular, "how far the class means' angles are from a simplex's"),
            "nc2_equiangular_null": (float(null.equiangular.median()), "the same under shuffled labels"),
            "nc2_equiangular_floor": (found.equiangular_floor, "the same for so few units at best"),
            "nc1_z": (nc1_z, "deviations of log NC1 from shuffled labels"),
            "cdnv_z": (cdnv_z, "deviations of log CDNV from shuffled labels"),
            "null_draws": (len(null.nc1), "draws of shuffled labels"),
            "directions": (found.directions, "directions along which the class means extend"),
            "classes": (len(found.classes), "classes counted"),
            "skipped_classes": (len(found.skipped), "classes with a single example, left out"),
            "fewest": (min(found.counts), "examples of the smallest class"),
            "n": (sum(found.counts), "examples counted"),
            "width": (found.width, "units counted"),
        }
        quantities = _quantities_of(numbers, moments.note)
        quantities["uninformative"] = quantity(
            int(not (nc1_z <= -self.noise_z or cdnv_z <= -self.noise_z)), units="1",
            long_name="shuffled labels would read the same", chart="none",
            flag_values=[0, 1], flag_meanings="informative uninformative",
        )  # fmt: skip
        quantities["class_cdnv"] = quantity(
            found.by_class, units="1", dims="class", coords={"class": found.classes}, note=moments.note,
            long_name="class-distance normalised variance, mean over the pairs of the class",
        )  # fmt: skip
        return quantities

    def _at_the_head(self, view: LayerView, classes: tuple[int, ...]) -> dict[str, Quantity]:
        """NC3 and NC4, if this layer is the classifier head and all of its classes have an example in the sample."""
        if not _may_be_head(view, classes):
            return {}
        inputs: Sample | None = view.get(self._inputs)
        outputs: Sample | None = view.get(self._outputs)
        matrices = view.get(Matrices())
        if inputs is None or outputs is None or matrices is None or inputs.labels is None:
            return {}
        weight, features = next(iter(matrices.values())).cpu(), inputs.features
        counts = torch.bincount(inputs.labels, minlength=len(classes))
        if features.shape[1] != weight.shape[1] or int(counts.min()) == 0 or not torch.equal(inputs.ids, outputs.ids):
            return {}
        wide = features.double()
        means = wide.new_zeros(len(classes), wide.shape[1]).index_add_(0, inputs.labels, wide) / counts[:, None]
        return self._head_quantities(weight, means, nearest_means(wide, means), outputs.features.argmax(1), inputs.note)

    def _head_quantities(
        self, weight: torch.Tensor, means: torch.Tensor, nearest: torch.Tensor, decided: torch.Tensor, note: str
    ) -> dict[str, Quantity]:
        n, different = len(nearest), int((nearest != decided).sum())
        low, high = clopper_pearson(different, n)
        shares = [torch.bincount(one, minlength=len(means)).double() / n for one in (nearest, decided)]
        numbers: dict[str, tuple[float, str]] = {
            "nc3": (self_duality(weight, means), "distance of the head's weight from the class means it is given"),
            "nc3_null": (math.sqrt(2), "the same for a weight that has nothing to do with them"),
            "nc4": (different / n, "share of examples that the head and the nearest class mean call differently"),
            "nc4_low": (float(low), "95 % interval, lower end"),
            "nc4_high": (float(high), "95 % interval, upper end"),
            "nc4_null": (1 - float(shares[0] @ shares[1]), "the same for independent decisions"),
            "nc4_n": (n, "examples that the head decided"),
        }
        return _quantities_of(numbers, f"what the head is given: {note}")

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Whether, where and how the classes have collapsed; at the last step that was measured."""
        yield from passed_if_silent(self, self._judge(measured), [], measured)

    def _judge(self, measured: Group) -> Iterator[Finding]:
        for layers in by_split(measured, *READ):
            last_step = max(at.step for at in layers)
            known = [at for at in layers if at.step == last_step and math.isfinite(at["cdnv"])]
            yield from self._about_the_sample(layers)
            if known:
                collapsed = [at for at in known if self._has_collapsed(at)]
                yield self._early(known, collapsed)
                # the head's own output is no representation
                yield from self._shape([at for at in collapsed if math.isnan(at["nc3"])][-1:])
                yield from self._decisions(collapsed)

    def _has_collapsed(self, at: At) -> bool:
        return at["cdnv"] <= self.collapsed and at["cdnv_z"] <= -self.noise_z

    def _about_the_sample(self, layers: list[At]) -> Iterator[Finding]:
        at = layers[0]
        if at["skipped_classes"] > 0:
            yield self.finding(
                "NC005", Outcome.SKIPPED, f"{at['skipped_classes']:.0f} classes of one example each were left out",
                step=at.step, split=at.split, do="probe more examples",
                skipped_classes=int(at["skipped_classes"]), limit=0, n=int(at["n"]),
            )  # fmt: skip
        if all(math.isnan(one["nc3"]) for one in layers):
            yield self.finding(
                "NC004", Outcome.NOT_APPLICABLE,
                f"NC3 and NC4 were not measured: no linear layer at the end was seen to give one number for each class, "
                f"counted from 0 ({at['classes'] + at['skipped_classes']:.0f} are in the data), from at most {self.width} "
                "finite inputs",
                step=at.step, split=at.split, classes=int(at["classes"]),
            )  # fmt: skip

    def _early(self, layers: list[At], collapsed: list[At]) -> Finding:
        """From which layer on the classes stay collapsed, and how much of the network comes after it."""
        place = len(layers)
        while place and layers[place - 1] in collapsed:
            place -= 1
        least = min(layers, key=lambda at: at["cdnv"])
        first = layers[min(place, len(layers) - 1)]
        after = max(0, len(layers) - 1 - place)
        told = least if place == len(layers) else first
        evidence: dict[str, Any] = {
            "cdnv": told["cdnv"], "null": told["cdnv_null"], "nc1": told["nc1"], "limit": self.collapsed,
            "layers_after": after, "of": len(layers), "share": after / len(layers), "share_limit": self.early,
            "n": int(told["n"]),
        }  # fmt: skip
        numbers = f"CDNV {told['cdnv']:.3g}, shuffled labels {told['cdnv_null']:.3g}"
        if place == len(layers):
            says = f"The classes have not collapsed at the end; they come nearest to it in {told.layer} ({numbers})"
        elif after < self.early * len(layers):
            says = f"The classes have collapsed towards the end, from {told.layer} on ({numbers})"
        else:
            return self.finding(
                "NC001", Outcome.TIP,
                f"The classes have collapsed from {told.layer} on, with {after} of {len(layers)} layers after it "
                f"({numbers})",
                do=f"see on held-out data whether the layers after {told.layer} add anything; "
                "for transfer, try features before it",
                **evidence, **told.place,
            )  # fmt: skip
        return self.finding("NC001", Outcome.PASSED, says, **evidence, **told.place)

    def _shape(self, last: list[At]) -> Iterator[Finding]:
        """What the means of collapsed classes look like, at the last layer at which they have."""
        for at in last:
            excess = at["nc2_equiangular"] - at["nc2_equiangular_floor"]
            if math.isnan(excess):
                continue
            evidence: dict[str, Any] = {
                "equiangular": at["nc2_equiangular"], "floor": at["nc2_equiangular_floor"],
                "null": at["nc2_equiangular_null"], "limit": self.equiangular, "equinorm": at["nc2_equinorm"],
                "classes": int(at["classes"]), "n": int(at["n"]),
            }  # fmt: skip
            numbers = f"{at['nc2_equiangular']:.2f} on average from a simplex's cosine"
            if excess > self.equiangular:
                yield self.finding(
                    "NC002", Outcome.TIP, f"{at.layer}: the classes have collapsed to unequal angles ({numbers})",
                    do="look for classes that resemble each other, and for rare ones: they are pushed together",
                    **evidence, **at.place,
                )  # fmt: skip
            else:
                yield self.finding(
                    "NC002", Outcome.PASSED, f"{at.layer}: the collapsed classes are about equiangular ({numbers})",
                    **evidence, **at.place,
                )  # fmt: skip

    def _decisions(self, collapsed: list[At]) -> Iterator[Finding]:
        for at in collapsed:
            if math.isnan(at["nc4"]):
                continue
            evidence: dict[str, Any] = {
                "nc4": at["nc4"], "low": at["nc4_low"], "nc3": at["nc3"], "limit": self.disagreement,
                "n": int(at["nc4_n"]),
            }  # fmt: skip
            share = f"{at['nc4']:.1%} of {at['nc4_n']:.0f} examples"
            if at["nc4_low"] > self.disagreement:
                yield self.finding(
                    "NC003", Outcome.TIP, f"{at.layer} and the nearest class mean call {share} differently",
                    do="look at the head's bias and weight: it does not follow the features' own classes",
                    **evidence, **at.place,
                )  # fmt: skip
            else:
                yield self.finding(
                    "NC003", Outcome.PASSED, f"{at.layer} decides by the nearest class mean but for {share}",
                    **evidence, **at.place,
                )  # fmt: skip


def _may_be_head(view: LayerView, classes: tuple[int, ...]) -> bool:
    """A linear layer of one row a class, after which nothing learns."""
    layer = view.layer
    if layer.kind != "linear" or len(layer.matrices) != 1 or layer.matrices[0].shape[0] != len(classes):
        return False
    return classes == tuple(range(len(classes))) and not any(after.params for after in view.after)


def _z(value: float, null: torch.Tensor) -> float:
    """Deviations of the logarithm below or above the null's, with the null's own uncertainty."""
    logs = null.log()
    if len(logs) < 2 or not bool(torch.isfinite(logs).all()) or math.isnan(value):
        return math.nan
    spread = float(logs.std()) * math.sqrt(1 + 1 / len(logs))
    if spread == 0:
        return math.nan
    return ((math.log(value) if value > 0 else -math.inf) - float(logs.mean())) / spread


def _quantities_of(numbers: Mapping[str, tuple[float, str]], note: str) -> dict[str, Quantity]:
    return {
        name: quantity(value, units="1", long_name=what, note=note, **_SHOWN.get(name, {"chart": "none"}))
        for name, (value, what) in numbers.items()
    }
