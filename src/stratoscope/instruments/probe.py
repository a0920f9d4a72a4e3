r"""Probes: what can be read from each layer's activations by a linear map and by nearest neighbours: classes, and the inputs.

The kept examples are dealt out to folds, stratified by class and seeded; each fold is predicted by a regression that was
fitted to the others (or all of them by one that was fitted to the split `fit_on`), features standardised by the fitted
examples alone. It is ridge regression in closed form, its strength chosen on the fitted examples by generalised
cross-validation,

$$\mathrm{GCV}(\lambda) = \frac{\| Y - A_\lambda Y \|^2 / n}{(\mathrm{tr}(I - A_\lambda) / n)^2}$$

where $A_\lambda = X (X^T X + \lambda I)^{-1} X^T$, with the mean fitted beside it. One eigendecomposition of the
features serves classes, shuffled classes and inputs.

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
| `reconstruction_r2` | share of the held-out variance of the network's inputs that a ridge decoder predicts | up to 1 |
| `reconstruction_error` | mean squared error of an input number; its floor is that of predicting the mean input | $\ge 0$ |
| `n`, `n_train`, `skipped_classes` | examples predicted; examples each fold is fitted to; classes with one example | |
| `uninformative` | 1 where the interval of `accuracy` does not lie above its floor | 0, 1 |

**What it means.** Classes that are linearly readable are what the rest of the network, or a new head, could use at once;
the usual picture in a trained classifier is a rise with depth. Inputs that can be decoded from a layer have not been
thrown away yet; the usual picture is a fall with depth, and over training a rise at first and a fall later. Neighbours
see clusters of any shape, and are hurt by directions that have nothing to do with the classes.

**When it misleads.** A probe shows what *can* be read, not what the network uses. What is confounded with depth:

* *scale*: units are standardised, so the probes do not change with the scale of a unit; neighbours do;
* *budget*: each fold is fitted to `n_train` examples, so in a wide layer the probe is limited by examples before the layer
  is; compare layers at one `n`, and read `degrees` beside it;
* *pooling*: the mean over positions cannot say where something is, so inputs are decoded badly from maps for this
  reason alone; `"flatten"` keeps places;
* *mode*: the network is in evaluation mode, with the running statistics of its batch norms; where these lag, the probe
  sees other features than the training does;
* *the floor*: the mean input already explains part of any picture; only what is above it counts, and `reconstruction_r2`
  is 0 there;
* *examples the network was trained on*: on a training split a layer may hold the labels by heart, and the probe finds
  them.

Inputs of more than `input_width` numbers are projected at random, which keeps the error right on average (of pictures of
3,072 numbers, shares decoded from 512 lay within 0.01 of those from all). Inputs that are tokens are not decoded. Rows of
one picture (`"spatial"`) stay in one fold, and do not vote for each other.

**What to do.** If the classes are read best well before the end, take features for transfer there, and try fewer layers.
If no layer is above the floor, look at the labels and at the training first.

Source: Alain and Bengio, arXiv:1610.01644; Golub, Heath and Wahba, doi:10.1080/00401706.1979.10489751; reconstruction over
training: Schneider and Prabhushankar, arXiv:2312.06887.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

from stratoscope.capture.activations import Activations
from stratoscope.capture.inputs import Inputs
from stratoscope.capture.needs import Need
from stratoscope.capture.pairs import Neighbours
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.probe_rows import ProbeRows
from stratoscope.instruments.reading import At, last_of, passed_if_silent, some
from stratoscope.network.layers import ROOT
from stratoscope.numerics.linear_probe import class_probe, reconstruction
from stratoscope.numerics.matrices import not_finite
from stratoscope.numerics.nearest_neighbour_probe import neighbour_probe
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.capture.activations import Sample
    from stratoscope.capture.inputs import GivenSample
    from stratoscope.capture.views import LayerView
    from stratoscope.numerics.class_accuracy import ClassAccuracy
    from stratoscope.numerics.linear_probe import Sought
    from stratoscope.record.group import Group

LEAST = 20
"""Fewer examples than this are not probed."""


@dataclass(frozen=True)
class Probe(LayerInstrument):
    """What a linear map and nearest neighbours can read from each layer: classes, and the inputs.

    Attributes:
        n: examples kept at most.
        pooling: `"gap"`, the mean over positions, `"flatten"`, or `"spatial"`: positions are rows of their own.
        width: units kept at most; wider activations are projected.
        folds: parts of the sample, each predicted from the others.
        fit_on: name of a split that the linear probes are fitted to instead, such as `"train"`, wherever another one is
            measured; it is passed over where the data do not have it.
        k: neighbours that vote.
        input_width: numbers of an input that are decoded at most; larger inputs are projected.
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
    input_width: int = 512
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
        """Its nearest neighbours, the network's inputs, and both samples of another split that is fitted to."""
        return {self._neighbours, self._inputs, *(self._other if self.fit_on else ())}

    @property
    def _need(self) -> Activations:
        return Activations(n=self.n, width=self.width, pooling=self.pooling)

    @property
    def _neighbours(self) -> Neighbours:
        return Neighbours(self._need, k=self.k)

    @property
    def _inputs(self) -> Inputs:
        return Inputs(n=self.n, width=self.input_width)

    @property
    def _other(self) -> tuple[Activations, Inputs]:
        return replace(self._need, split=self.fit_on), replace(self._inputs, split=self.fit_on)

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """Probes of one layer's sample."""
        sample: Sample = view[self._need]
        if bad := not_finite(sample.features):
            raise NotApplicable(f"{bad:,} of {sample.features.numel():,} numbers that it gives are NaN or infinite")
        if len(sample.ids.unique()) < max(LEAST, self.folds):
            raise NotApplicable(f"{len(sample.ids.unique())} examples are too few for a probe; {LEAST} are needed")
        settings = (self.folds, self.fit_on, self.k, self.input_width, self.permutations, self.seed)
        return sample.worked_out.once((Probe, settings), lambda: self._probed(view, sample))

    def _probed(self, view: LayerView, sample: Sample) -> dict[str, Quantity]:
        fitted: Sample | None = view.get(self._other[0]) if self.fit_on and view.split != self.fit_on else None
        if fitted is not None and not_finite(fitted.features):
            raise NotApplicable(f"on the split {self.fit_on!r} it gives numbers that are NaN or infinite")
        rows = ProbeRows.of(sample, fitted, folds=self.folds, seed=self.seed)
        found: dict[str, Quantity] = {}
        if rows.names:
            found |= self._linear(rows, sample.note) | self._votes(view, rows, sample.note)
        try:
            given: GivenSample = view[self._inputs]
            other = None if fitted is None else (view[self._other[1]], fitted.ids)
            found |= _decoder(rows, rows.sought(given, sample.ids, other), given, f"{sample.note}; {rows.note}")
        except NotApplicable as why:
            if not found:
                raise NotApplicable(f"{_without_classes(sample)}, and {why}") from why
        return found

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


def _decoder(rows: ProbeRows, sought: list[Sought], given: GivenSample, note: str) -> dict[str, Quantity]:
    found = reconstruction(rows.folds, sought, rows.group, numbers=given.numbers)
    if math.isnan(found.r2):
        raise NotApplicable("the inputs are all the same")
    hidden = {"chart": "none"}
    numbers: dict[str, tuple[float, str, dict[str, Any]]] = {
        "r2": (found.r2, "share of the inputs' variance that can be decoded", {"headline": 3}),
        "r2_se": (found.standard_error, "standard error of the share that can be decoded", {}),
        "error": (found.error, "mean squared error of decoded inputs", hidden),
        "error_floor": (found.floor, "mean squared error of the mean input", hidden),
        "degrees": (found.degrees, "effective degrees of freedom of the decoder", hidden),
        "strength": (found.strength, "ridge strength of the decoder over the number of examples", hidden),
    }
    return {
        f"reconstruction_{name}": quantity(value, units="1", long_name=what, note=f"{note}; {given.note}", **shown)
        for name, (value, what, shown) in numbers.items()
    }


def _without_classes(sample: Sample) -> str:
    if sample.labels is None:
        return "the data have no class labels, one integer an example"
    return f"{len(sample.labels.unique())} classes in {len(sample.ids.unique())} examples, and two of two are needed"


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
