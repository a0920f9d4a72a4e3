r"""Probes: which classes can be read from each layer's activations by a linear map and by nearest neighbours.

The kept examples are dealt out to folds, stratified by class and seeded; each fold is predicted by a regression that was
fitted to the others (or all of them by one that was fitted to the split `fit_on`), features standardised by the fitted
examples alone. It is ridge regression in closed form, its strength chosen on the fitted examples by generalised
cross-validation,

$$\mathrm{GCV}(\lambda) = \frac{\| Y - A_\lambda Y \|^2 / n}{(\mathrm{tr}(I - A_\lambda) / n)^2}$$

where $A_\lambda = X (X^T X + \lambda I)^{-1} X^T$, with the mean fitted beside it. One eigendecomposition of the
features serves classes and shuffled classes.

| quantity | definition | range |
|---|---|---|
| `accuracy` | share of held-out examples whose class has the largest of the predicted one-hot values | 0 to 1 |
| `accuracy_low`, `accuracy_high` | exact 95 % interval (Clopper and Pearson), of as many trials as there are examples | |
| `accuracy_floor` | always saying the commonest class | |
| `accuracy_null`, `accuracy_null_sd` | mean and deviation under shuffled labels, each fitted anew | |
| `balanced_accuracy` | mean over classes of the share that is right within the class; its floor is one over their number | 0 to 1 |
| `r2` | share of the held-out variance of the one-hot classes that is predicted | up to 1 |
| `degrees`, `strength` | effective degrees of freedom, the mean's 1 included, and $\lambda / n$ that was chosen | |
| `knn_accuracy` | the same for the vote of 20 nearest neighbours (Euclidean), the example itself left out | 0 to 1 |
| `knn1_accuracy` | the same for the nearest neighbour alone | 0 to 1 |
| `n`, `n_train`, `skipped_classes` | examples predicted; examples each fold is fitted to; classes with one example | |
| `uninformative` | 1 where the interval of `accuracy` does not lie above its floor | 0, 1 |

**What it means.** Classes that are linearly readable are what the rest of the network, or a new head, could use at once;
the usual picture in a trained classifier is a rise with depth. Neighbours see clusters of any shape, and are hurt by
directions that have nothing to do with the classes. How well the inputs can be rebuilt is the instrument
`reconstruction`.

**When it misleads.** A probe shows what *can* be read, not what the network uses. What is confounded with depth:

* *scale*: units are standardised, so the probes do not change with the scale of a unit; neighbours do;
* *budget*: each fold is fitted to `n_train` examples, so in a wide layer the probe is limited by examples before the layer
  is; compare layers at one `n`, and read `degrees` beside it;
* *pooling*: the mean over positions cannot say where something is; `"flatten"` keeps places;
* *mode*: the network is in evaluation mode, with the running statistics of its batch norms; where these lag, the probe
  sees other features than the training does;
* *examples the network was trained on*: on a training split a layer may hold the labels by heart, and the probe finds
  them.

Rows of one picture (`"spatial"`) stay in one fold, and do not vote for each other.

**What to do.** If the classes are read best well before the end, take features for transfer there, and try fewer layers.
If no layer is above the floor, look at the labels and at the training first.

Source: Alain and Bengio, arXiv:1610.01644; Golub, Heath and Wahba, doi:10.1080/00401706.1979.10489751.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

from stratoscope.capture.activations import Activations
from stratoscope.capture.needs import Need
from stratoscope.capture.pairs import Neighbours
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.probe_rows import ProbeRows, check_sample, fitted_sample, without_classes
from stratoscope.instruments.reading import At, last_of, passed_if_silent, some
from stratoscope.network.layers import ROOT
from stratoscope.numerics.linear_probe import class_probe
from stratoscope.numerics.nearest_neighbour_probe import neighbour_probe
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.capture.activations import Sample
    from stratoscope.capture.views import LayerView
    from stratoscope.numerics.class_accuracy import ClassAccuracy
    from stratoscope.record.group import Group


@dataclass(frozen=True)
class Probe(LayerInstrument):
    """Which classes a linear map and nearest neighbours can read from each layer.

    Attributes:
        n: examples kept at most.
        pooling: `"gap"`, the mean over positions, `"flatten"`, or `"spatial"`: positions are rows of their own.
        width: units kept at most; wider activations are projected.
        folds: parts of the sample, each predicted from the others.
        fit_on: name of a split that the linear probes are fitted to instead, such as `"train"`, wherever another one is
            measured; it is passed over where the data do not have it.
        k: neighbours that vote.
        permutations: shuffles of the labels for the null.
        seed: of folds and shuffles.
        worse: loss of accuracy after the best layer from which a tip is given.
        nearer: gain of neighbours over the linear probe from which a tip is given.
    """

    key: ClassVar[str] = "probe"
    title: ClassVar[str] = "Probes"
    source: ClassVar[str] = "arXiv:1610.01644"
    codes: ClassVar[Mapping[str, str]] = {
        "PB001": "classes are linearly more readable before the end than at the end",
        "PB002": "a linear probe of a layer is no better than always saying the commonest class",
        "PB003": "classes with a single example were left out",
        "PB004": "nearest neighbours read the classes much better than a linear map does",
    }

    n: int = 1000
    pooling: str = "gap"
    width: int = 4096
    folds: int = 2
    fit_on: str = ""
    k: int = 20
    permutations: int = 10
    seed: int = 0
    worse: float = 0.05
    nearer: float = 0.1

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise SettingError(f"Probe(folds={self.folds}): at least 2, one to fit and one to predict.")

    @property
    def requires(self) -> set[Need]:
        """A sample of the layer's activations."""
        return {self._need}

    @property
    def uses(self) -> set[Need]:
        """Its nearest neighbours, and the sample of another split that is fitted to."""
        return {self._neighbours, *([self._other] if self.fit_on else [])}

    @property
    def _need(self) -> Activations:
        return Activations(n=self.n, width=self.width, pooling=self.pooling)

    @property
    def _neighbours(self) -> Neighbours:
        return Neighbours(self._need, k=self.k)

    @property
    def _other(self) -> Activations:
        return replace(self._need, split=self.fit_on or None)

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """Probes of one layer's sample."""
        sample: Sample = view[self._need]
        check_sample(sample, self.folds)
        settings = (self.folds, self.fit_on, self.k, self.permutations, self.seed)
        return sample.worked_out.once((Probe, settings), lambda: self._probed(view, sample))

    def _probed(self, view: LayerView, sample: Sample) -> dict[str, Quantity]:
        rows = ProbeRows.of(sample, fitted_sample(view, self._other), folds=self.folds, seed=self.seed)
        if not rows.names:
            raise NotApplicable(without_classes(sample))
        return self._linear(rows, sample.note) | self._votes(view, rows, sample.note)

    def _linear(self, rows: ProbeRows, note: str) -> dict[str, Quantity]:
        probe = class_probe(rows.folds, rows.labels, rows.group, permutations=self.permutations, seed=self.seed)
        note = f"{note}; {rows.note}"
        found = _accuracy("accuracy", probe.accuracy, "linear probe", note, headline=1)
        for name, value, what in (
            ("r2", probe.r2, "share of the variance of the one-hot classes that a linear probe predicts"),
            ("degrees", probe.degrees, "effective degrees of freedom of the linear probe"),
            ("strength", probe.strength, "ridge strength over the number of examples"),
            ("n", probe.accuracy.examples, "examples predicted"),
            ("n_train", probe.n_train, "rows that a fold is fitted to"),
            ("skipped_classes", rows.skipped, "classes with a single example, left out"),
        ):
            found[name] = quantity(value, units="1", long_name=what, note=note, chart="none")
        found["class_accuracy"] = quantity(
            probe.accuracy.by_class, units="1", dims="class", coords={"class": rows.names}, note=note, chart="none",
            long_name="accuracy of the linear probe within a class", valid_min=0.0, valid_max=1.0,
        )  # fmt: skip
        found["uninformative"] = quantity(
            int(not probe.accuracy.low > probe.accuracy.majority), units="1", chart="none", flag_values=[0, 1],
            flag_meanings="informative uninformative",
            long_name="always saying the commonest class may be as good as the linear probe",
        )  # fmt: skip
        return found

    def _votes(self, view: LayerView, rows: ProbeRows, note: str) -> dict[str, Quantity]:
        index, own = view[self._neighbours].index, slice(rows.predicted)
        found: dict[str, Quantity] = {}
        for name, k, shown in (("knn_accuracy", min(self.k, index.shape[1]), 2), ("knn1_accuracy", 1, None)):
            shuffles = self.permutations if shown else 0
            votes = neighbour_probe(
                index, rows.labels[own], k=k, group=rows.group[own], permutations=shuffles, seed=self.seed
            )
            found |= _accuracy(name, votes, f"vote of {k} nearest neighbour{'s' if k > 1 else ''}", note, shown)
        return found

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Where classes are read best, and where they are not read at all; at the last step that was measured."""
        yield from passed_if_silent(self, self._judge(measured), self._checked(measured), measured)

    def _checked(self, measured: Group) -> list[str]:
        """Codes for which there were classes, and a second layer where depth is judged."""
        splits = list(_by_split(measured))
        return [
            *(["PB001"] if any(len(layers) > 1 for layers in splits) else []),
            *(["PB002", "PB004"] if splits else []),
        ]

    def _judge(self, measured: Group) -> Iterator[Finding]:
        for layers in _by_split(measured):
            at = layers[0]
            if at["skipped_classes"] > 0:
                yield self.finding(
                    "PB003", Outcome.SKIPPED, f"{at['skipped_classes']:.0f} classes of one example each were left out",
                    step=at.step, split=at.split, do="probe more examples",
                    skipped_classes=int(at["skipped_classes"]), limit=0, n=int(at["n"]),
                )  # fmt: skip
            yield from self._no_better([at for at in layers if at["accuracy_low"] <= at["accuracy_floor"]], len(layers))
            yield from self._worse_with_depth(layers)
            yield from self._nearer(layers)

    def _no_better(self, layers: list[At], of: int) -> Iterator[Finding]:
        """One finding for one layer, and one for many: an untrained network is one fact and not one a layer."""
        if not layers:
            return
        best, names = max(layers, key=_accuracy_of), [str(at.layer) for at in layers]
        where = names[0] if len(names) == 1 else f"{len(names)} of {of} layers ({some(names)})"
        which = "it" if len(names) == 1 else f"the best, of {best.layer},"
        yield self.finding(
            "PB002", Outcome.TIP,
            f"A linear probe of {where} is not surely better than always saying the commonest class, {best['accuracy_floor']:.1%}: "
            f"{which} is right in {best['accuracy']:.1%}, surely in {best['accuracy_low']:.1%} only (n = {best['n']:.0f})",
            do="check that labels and examples belong together; probe more examples, or train longer",
            accuracy=best["accuracy"], low=best["accuracy_low"], limit=best["accuracy_floor"],
            null=best["accuracy_null"], layers=", ".join(names), count=len(names), of=of, n=int(best["n"]),
            step=best.step, split=best.split, layer=names[0] if len(names) == 1 else None,
        )  # fmt: skip

    def _worse_with_depth(self, layers: list[At]) -> Iterator[Finding]:
        """Compares the best layer with the last one; their intervals must not meet."""
        last_step = max(at.step for at in layers)
        best, last = max(layers, key=_accuracy_of), layers[-1]
        loss = best["accuracy"] - last["accuracy"]
        if last.step == last_step and loss >= self.worse and best["accuracy_low"] > last["accuracy_high"]:
            yield self.finding(
                "PB001", Outcome.TIP,
                f"A linear probe reads the classes best at {best.layer}, {best['accuracy']:.1%}; at {last.layer}, the last "
                f"layer, {last['accuracy']:.1%}",
                do=f"take features for transfer from {best.layer}; try fewer layers after it",
                best_layer=best.layer, best=best["accuracy"], best_low=best["accuracy_low"], last_layer=last.layer,
                last=last["accuracy"], last_high=last["accuracy_high"], loss=loss, limit=self.worse, n=int(best["n"]),
                **best.place,
            )  # fmt: skip

    def _nearer(self, layers: list[At]) -> Iterator[Finding]:
        found = [at for at in layers if _gain(at) >= self.nearer and at["knn_accuracy_low"] > at["accuracy_high"]]
        if found:
            best, names = max(found, key=_gain), [str(at.layer) for at in found]
            yield self.finding(
                "PB004", Outcome.TIP,
                f"In {some(names)} nearest neighbours read the classes better than a linear map: in {best.layer} "
                f"{best['knn_accuracy']:.1%} against {best['accuracy']:.1%}",
                do="the classes form clusters that no hyperplane parts: try a wider or non-linear head there, or more "
                "examples for the probe",
                gain=_gain(best), limit=self.nearer, knn_low=best["knn_accuracy_low"], high=best["accuracy_high"],
                layers=", ".join(names), count=len(names), of=len(layers), n=int(best["n"]), **best.place,
            )  # fmt: skip


def _accuracy(name: str, found: ClassAccuracy, who: str, note: str, headline: int | None = None) -> dict[str, Quantity]:
    """An accuracy with its interval, floor and null, and the balanced one with its floor."""
    balanced = f"{name.removesuffix('accuracy')}balanced_accuracy"
    hidden = {"chart": "none"}
    numbers: dict[str, tuple[float, str, dict[str, Any]]] = {
        name: (found.share, f"accuracy of the {who}", {"headline": headline} if headline else {}),
        f"{name}_low": (found.low, f"accuracy of the {who}, lower end of the exact 95 % interval", {}),
        f"{name}_high": (found.high, f"accuracy of the {who}, upper end of the exact 95 % interval", {}),
        f"{name}_floor": (found.majority, "accuracy of always saying the commonest class", {}),
        f"{name}_null": (found.null_mean, f"mean accuracy of the {who} under shuffled labels", {}),
        f"{name}_null_sd": (found.null_sd, f"standard deviation of the {who} under shuffled labels", hidden),
        balanced: (found.balanced, f"mean over classes of the accuracy of the {who}", hidden),
        f"{balanced}_floor": (found.chance, "one over the number of classes", hidden),
    }
    return {
        key: quantity(value, units="1", long_name=what, note=note, valid_min=0.0, valid_max=1.0, **shown)
        for key, (value, what, shown) in numbers.items()
        if math.isfinite(value)
    }


def _by_split(measured: Group) -> Iterator[list[At]]:
    """The layers of each split in order, without the network where it gives what a layer gives."""
    names = (
        "accuracy", "accuracy_low", "accuracy_high", "accuracy_floor", "accuracy_null", "knn_accuracy",
        "knn_accuracy_low", "r2", "n", "skipped_classes",
    )  # fmt: skip
    for _, layers in groupby(last_of(measured, *names), key=lambda at: at.split):
        in_order = list(layers)
        own = {(at["accuracy"], at["r2"]) for at in in_order if at.layer != ROOT}
        yield [at for at in in_order if at.layer != ROOT or (at["accuracy"], at["r2"]) not in own]


def _accuracy_of(at: At) -> float:
    return at["accuracy"]


def _gain(at: At) -> float:
    return at["knn_accuracy"] - at["accuracy"]
