r"""Reconstruction: how well the network's inputs can be rebuilt from each layer, and which classes can be read there.

The kept examples are dealt out to folds, stratified by class and seeded; each fold's inputs are predicted from a layer's
activations by a decoder that was fitted to the others (or all of them by one that was fitted to the split `fit_on`),
features standardised by the fitted examples alone. The decoder is ridge regression in closed form, its strength chosen on
the fitted examples by generalised cross-validation,

$$\mathrm{GCV}(\lambda) = \frac{\| Y - A_\lambda Y \|^2 / n}{(\mathrm{tr}(I - A_\lambda) / n)^2}$$

where $A_\lambda = X (X^T X + \lambda I)^{-1} X^T$, with the mean fitted beside it. All positions of a layer count, in one
row, projected at random to `width` numbers. One decomposition of the features serves inputs and classes.

| quantity | definition | range |
|---|---|---|
| `r2` | share of the held-out variance of the inputs that is rebuilt | up to 1 |
| `r2_se` | its standard error over the examples; the fits are taken as they are | $\ge 0$ |
| `error` | mean squared error of an input number, held out | $\ge 0$ |
| `error_floor` | the same when the mean input of the fitted examples is predicted for all | $\ge 0$ |
| `fitted_r2` | share of the variance that is rebuilt of the fitted examples themselves | up to 1 |
| `degrees`, `strength` | effective degrees of freedom, the mean's 1 included, and $\lambda / n$ that was chosen | |
| `n`, `n_fitted` | examples predicted; rows that a fold is fitted to | |
| `class_accuracy` | share of held-out examples whose class has the largest of the predicted one-hot values | 0 to 1 |
| `class_accuracy_low`, `class_accuracy_high` | exact 95 % interval (Clopper and Pearson) | |
| `class_accuracy_floor` | always saying the commonest class | |
| `uninformative` | 1 where the 95 % interval of `r2` does not lie above 0 | 0, 1 |

**Decoders trained by gradients**, as in the paper, are settings: `decoder="linear"`, one linear layer, and
`"convolution"`, transposed convolutions that double a feature map until it has the picture's size (it sees the whole map and
the whole picture). Both are trained by Adam on the fitted examples only, features standardised (each channel of a map over
its positions), pictures less their mean and over their overall deviation. What they reach depends on `epochs`, `rate`,
`decay` and `batch`, which stand beside each number; two more quantities say whether it was enough:

| quantity | definition |
|---|---|
| `late_progress` | share of all by which the error on the fitted examples fell that it fell in the later half of the epochs |
| `unfinished` | 1 where that is more than `late`: the decoder is under-trained, and its error no loss of information |

Of a decoder that goes on as at its start `late_progress` is about a half, of one that has levelled off near 0.

**Data of another task.** Where they are given (`transfer=`), the same is measured on them as the split `transfer`; the
decoder and the probe are then fitted to these data, and `class_accuracy` is what a new linear head on the frozen network
would reach: the transfer probe.

**What it means.** What a layer has thrown away cannot be rebuilt. Schneider and Prabhushankar saw the error along
training first stay, then fall while the layer learns features that tell pictures apart, then rise while it learns to
leave out what the classes do not need; networks stopped near the least error transferred better to another task than at
the end. What the curve says of a training is the matter of the diagnoses `timeline` and `transfer`.

**When it misleads.**

* *the decoder, not the layer*: only what is linearly there is rebuilt; information may be there in another form;
* *budget*: each fold is fitted to `n_fitted` examples; a wide layer is limited by examples before it is by what it
  knows: `fitted_r2` far above `r2` says so. Compare at one `n`;
* *learnt by heart*: a decoder trained by gradients is hardly regularised; of few examples it learns these by heart, and
  what is held out it then rebuilds worse than the mean does (`fitted_r2` near 1, `r2` low);
* *scale*: units are standardised, so the scale of activations does not matter. With `standardise=False` features are only
  centred, and a trained decoder of smaller activations then learns less within the same epochs;
* *mode*: the network is in evaluation mode, with the running statistics of its batch norms; where these lag, as early in
  training, the decoder sees other features than the training does;
* *the floor*: the mean picture already explains part of any picture; only what is above it counts, and `r2` is 0 there;
* *projection*: of layers wider than `width` only a random projection is seen, and inputs of more than `input_width`
  numbers are projected too, which keeps errors right on average;
* *units that move too little* to be told from rounding count for nothing.

Of layers that are noise 3 % are called informative (4,000 draws of 40 to 500 examples and 10 to 300 units; 0.5 to 6.5 % by
their sizes), a little more than the interval promises, for it takes the fits as they are.

Inputs that are tokens are not rebuilt; classes are read all the same. Rows of one picture (`"spatial"`) stay in one fold.

**What to do.** If no layer rebuilds the inputs better than the mean, look whether examples and layers belong together,
whether activations are constant, and take more examples.

**RC001.** At none of the layers does the interval of `r2`, at a level shared among the layers (Bonferroni), lie above `least`: the
network shows nothing of its inputs that a linear map could read. **When it misleads.** With few examples, as many as there are
layers' dimensions, a decoder finds little in anything; inputs that look like noise cannot be rebuilt from few units.
**What to do.** Take more examples; check that activations are not constant (`units`), and that examples are not all alike.

**RC002.** No probe on the data of the other task is surely better than always saying their commonest class, so these data say
nothing of how well the network transfers. **When it misleads.** Rare classes: the commonest one is then hard to beat; a small
sample has wide intervals. **What to do.** Check their labels; take more examples; do not go by `transfer_best` with these data.

**RC003.** More than `late` of a trained decoder's progress came in the later half of its epochs: it had not come near what it can
reach. Its error is that of its budget, and layers and steps differ in how fast they are decoded. **When it misleads.** At a layer
from which nothing can be read the little progress there is may come late. **What to do.** Raise `epochs` or `rate`, or take the
closed form, `decoder="ridge"`.

Source: Schneider and Prabhushankar, arXiv:2312.06887; Golub, Heath and Wahba, doi:10.1080/00401706.1979.10489751.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import chain
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

from stratoscope.capture.activations import Activations
from stratoscope.capture.inputs import Inputs
from stratoscope.capture.needs import Need
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.probe_rows import ProbeRows, check_sample, fitted_sample, without_classes
from stratoscope.instruments.reading import At, by_split, passed_if_silent, together
from stratoscope.network.subject import TRANSFER
from stratoscope.numerics.decoders import (
    Budget,
    convolution_decoder,
    linear_decoder,
    standardised_maps,
    trained_reconstruction,
)
from stratoscope.numerics.linear_probe import class_probe, reconstruction
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from torch import Tensor

    from stratoscope.capture.activations import Sample
    from stratoscope.capture.inputs import GivenSample
    from stratoscope.capture.views import LayerView
    from stratoscope.numerics.linear_probe import Fold, Sought
    from stratoscope.numerics.linear_probe import Reconstruction as Rebuilt
    from stratoscope.record.group import Group

DECODERS = ("ridge", "linear", "convolution")
EVERYTHING = 2**31 - 1
"""A width that projects nothing."""

Z = 1.959964
"""Standard errors on either side of a 95 % interval."""


@dataclass(frozen=True)
class Reconstruction(LayerInstrument):
    """How well the network's inputs can be rebuilt from each layer, held out and fitted, and what classes are read there.

    Attributes:
        n: examples kept at most.
        width: numbers of an activation kept at most; wider ones are projected.
        pooling: `"flatten"`, all positions in one row, `"gap"`, their mean, or `"spatial"`: positions are rows of their own.
        input_width: numbers of an input that are rebuilt at most; larger inputs are projected.
        folds: parts of the sample, each predicted from the others.
        fit_on: name of a split that is fitted to instead, such as `"train"`, wherever another one is measured; it is
            passed over where the data do not have it, and for data of another task.
        standardise: whether each unit is divided by its standard deviation over the fitted examples.
        decoder: `"ridge"` in closed form, or trained by gradients: `"linear"` or `"convolution"`.
        epochs: of a trained decoder.
        rate: learning rate of its Adam.
        decay: its weight decay.
        batch: examples a step.
        late: share of its progress that may come in the later half of its epochs.
        least: share of the variance that some layer should surely rebuild.
        seed: of the folds, and of a trained decoder.
    """

    key: ClassVar[str] = "reconstruction"
    title: ClassVar[str] = "Reconstruction"
    source: ClassVar[str] = "arXiv:2312.06887"
    codes: ClassVar[Mapping[str, str]] = {
        "RC001": "the inputs cannot be rebuilt from any layer better than by their mean",
        "RC002": "the classes of the other task cannot be read from any layer better than by always saying the commonest",
        "RC003": "a trained decoder was still learning when its epochs ended",
    }
    transfers: ClassVar[bool] = True

    n: int = 1000
    width: int = 1024
    pooling: str = "flatten"
    input_width: int = 512
    folds: int = 2
    fit_on: str = ""
    standardise: bool = True
    decoder: str = "ridge"
    epochs: int = 20
    rate: float = 3e-4
    decay: float = 1e-5
    batch: int = 128
    late: float = 0.05
    least: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise SettingError(f"Reconstruction(folds={self.folds}): at least 2, one to fit and one to predict.")
        if self.decoder not in DECODERS:
            raise SettingError(f"Reconstruction(decoder={self.decoder!r}): choose one of {', '.join(DECODERS)}.")
        if self._whole and self.pooling != "flatten":
            raise SettingError(
                f"Reconstruction(decoder='convolution', pooling={self.pooling!r}): a map is needed whole, with 'flatten'."
            )
        try:
            _ = self._budget
        except ValueError as why:
            raise SettingError(f"Reconstruction: {why}") from why

    @property
    def requires(self) -> set[Need]:
        """A sample of the layer's activations."""
        return {self._need}

    @property
    def uses(self) -> set[Need]:
        """The network's inputs, and both samples of another split that is fitted to."""
        return {self._inputs, *(self._other if self.fit_on else ())}

    @property
    def _need(self) -> Activations:
        return Activations(n=self.n, width=EVERYTHING if self._whole else self.width, pooling=self.pooling)

    @property
    def _inputs(self) -> Inputs:
        return Inputs(n=self.n, width=EVERYTHING if self._whole else self.input_width)

    @property
    def _other(self) -> tuple[Activations, Inputs]:
        split = self.fit_on or None
        return replace(self._need, split=split), replace(self._inputs, split=split)

    @property
    def _whole(self) -> bool:
        return self.decoder == "convolution"

    @property
    def _budget(self) -> Budget:
        return Budget(self.epochs, self.rate, self.decay, self.batch)

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """Decode the inputs and the classes from one layer's sample."""
        sample: Sample = view[self._need]
        check_sample(sample, self.folds)
        return sample.worked_out.once((Reconstruction, astuple(self)), lambda: self._measured(view, sample))

    def _measured(self, view: LayerView, sample: Sample) -> dict[str, Quantity]:
        fitted = fitted_sample(view, self._other[0])
        rows = ProbeRows.of(
            sample, fitted, folds=self.folds, seed=self.seed, width=self.width, standardise=self.standardise
        )
        note = f"{sample.note}; {rows.note}"
        found: dict[str, Quantity] = {}
        try:
            given: GivenSample = view[self._inputs]
            sought = rows.sought(given, sample.ids, None if fitted is None else (view[self._other[1]], fitted.ids))
            rebuilt = self._rebuilt(rows, sought, given, sample.positions)
            found = self._told(rebuilt, f"{note}; {given.note}; {self._in_words}")
        except NotApplicable as why:
            if not rows.names:
                raise NotApplicable(f"{why}, and {without_classes(sample)}") from why
            note = f"{note}; inputs not rebuilt: {why}"
        if rows.names:
            found |= _classes(rows, note)
        return found | _counted(rows, note)

    def _rebuilt(
        self, rows: ProbeRows, sought: list[Sought], given: GivenSample, positions: tuple[int, ...]
    ) -> Rebuilt:
        if not any(float(targets.floor.sum()) > 0 for targets in sought):
            raise NotApplicable("the inputs are all the same")
        if self.decoder == "ridge":
            return reconstruction(rows.folds, sought, rows.group, numbers=given.numbers)
        if self._whole and (len(positions) != 2 or len(given.shape) != 3):
            raise NotApplicable(
                f"a decoder of convolutions goes from a map to a picture; the layer's positions are {positions}, and an "
                f"input is of shape {given.shape}"
            )
        tested = [fold.test for fold in rows.folds]
        try:
            if not self._whole:
                return trained_reconstruction(
                    partial(linear_decoder, budget=self._budget, seed=self.seed),
                    [_standardised(rows, fold) for fold in rows.folds],
                    tested, sought, rows.group, numbers=given.numbers,
                )  # fmt: skip
            maps = rows.features.unflatten(1, (*positions, -1)).movedim(-1, 1)
            return trained_reconstruction(
                partial(convolution_decoder, budget=self._budget, seed=self.seed),
                [standardised_maps(maps[fold.train], maps[fold.test], divide=self.standardise) for fold in rows.folds],
                tested, sought, rows.group, shape=given.shape,
            )  # fmt: skip
        except ValueError as why:
            raise NotApplicable(str(why)) from why

    @property
    def _in_words(self) -> str:
        own = "" if self.standardise else ", of features that keep their scales"
        if self.decoder == "ridge":
            return f"ridge regression{own}"
        return (
            f"{self.decoder} decoder{own}: {self.epochs} epochs of Adam, rate {self.rate:g}, decay {self.decay:g}, "
            f"batches of {self.batch}"
        )

    def _told(self, found: Rebuilt, note: str) -> dict[str, Quantity]:
        hidden = {"chart": "none"}
        numbers: dict[str, tuple[float, str, dict[str, Any]]] = {
            "r2": (found.r2, "share of the inputs' variance that can be rebuilt", {"headline": 1, "valid_max": 1.0}),
            "r2_se": (found.standard_error, "standard error of the share that can be rebuilt", {}),
            "error": (found.error, "mean squared error of rebuilt inputs", {"valid_min": 0.0}),
            "error_floor": (found.floor, "mean squared error of the mean input", {}),
            "fitted_r2": (found.fitted_r2, "share that is rebuilt of the examples fitted to", hidden),
            "degrees": (found.degrees, "effective degrees of freedom of the decoder", hidden),
            "strength": (found.strength, "ridge strength of the decoder over the number of examples", hidden),
            "late_progress": (
                found.late_progress,
                "share of the decoder's progress that came in the later half of its epochs",
                hidden,
            ),
        }
        told = {
            name: quantity(value, units="1", long_name=what, note=note, decoder=self.decoder, **shown)
            for name, (value, what, shown) in numbers.items()
            if math.isfinite(value)
        }
        told["uninformative"] = _flag(
            not found.r2 > Z * found.standard_error, "informative uninformative", "the mean input may do as well"
        )
        if math.isfinite(found.late_progress):
            told["unfinished"] = _flag(
                found.late_progress > self.late,
                "finished unfinished",
                "the decoder was still learning when its epochs ended",
            )
        return told

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Whether anything is rebuilt, and read, at all; at the last step that was measured."""
        names = ("r2", "r2_se", "error", "error_floor", "fitted_r2", "late_progress", "n")
        rebuilt = list(by_split(measured, *names))
        # what an unfinished decoder does not rebuild may be there
        judged = [layers for layers in rebuilt if not self._still_learning(layers)]
        trained = any(math.isfinite(at["late_progress"]) for layers in rebuilt for at in layers)
        read = [
            layers
            for layers in by_split(measured, "class_accuracy", "class_accuracy_low", "class_accuracy_floor", "n")
            if layers[0].split == TRANSFER
        ]
        looked = {"RC001": judged, "RC002": read, "RC003": trained}
        found = [
            *chain.from_iterable(map(self._nothing_rebuilt, judged)),
            *chain.from_iterable(map(self._nothing_read, read)),
            *chain.from_iterable(map(self._unfinished_layers, rebuilt)),
        ]
        yield from passed_if_silent(self, found, [code for code, there in looked.items() if there], measured)

    def _still_learning(self, layers: list[At]) -> list[At]:
        return [at for at in layers if at["late_progress"] > self.late]

    def _unfinished_layers(self, layers: list[At]) -> Iterator[Finding]:
        yield from together(
            self, "RC003", self._still_learning(layers), lambda at: at["late_progress"], len(layers),
            "has a decoder that was still learning when its epochs ended",
            lambda at: f"{at['late_progress']:.0%} of its progress came in the later half of them; of the examples it was "
            f"fitted to it rebuilds {at['fitted_r2']:.0%}",
            do="give the decoder more epochs or a higher rate before layers or steps are compared, or take "
            'decoder="ridge", which needs no training',
            evidence=lambda at: {
                "late_progress": at["late_progress"], "limit": self.late, "fitted_r2": at["fitted_r2"], "n": int(at["n"])
            },
        )  # fmt: skip

    def _nothing_rebuilt(self, layers: list[At]) -> Iterator[Finding]:
        """Of many layers one is above zero by chance: the level is shared among them (Bonferroni)."""
        z = NormalDist().inv_cdf(1 - 0.025 / len(layers))
        best = max(layers, key=lambda at: at["r2"] - z * at["r2_se"])
        low = best["r2"] - z * best["r2_se"]
        if low <= self.least:
            yield self.finding(
                "RC001", Outcome.TIP,
                f"From none of {len(layers)} layers can the inputs be rebuilt surely better than by their mean: at "
                f"{best.layer}, where it goes best, {best['r2']:.1%} of their variance, surely {low:.1%} "
                f"(n = {best['n']:.0f})",
                do="check that activations are not constant and that examples are not all alike; take more examples",
                best_layer=best.layer, r2=best["r2"], standard_error=best["r2_se"], low=low, limit=self.least,
                error=best["error"], floor=best["error_floor"], of=len(layers), n=int(best["n"]),
                step=best.step, split=best.split,
            )  # fmt: skip

    def _nothing_read(self, layers: list[At]) -> Iterator[Finding]:
        best = max(layers, key=lambda at: at["class_accuracy_low"])
        if best["class_accuracy_low"] <= best["class_accuracy_floor"]:
            yield self.finding(
                "RC002", Outcome.TIP,
                f"From none of {len(layers)} layers can the classes of the other task be read surely better than by always "
                f"saying the commonest, {best['class_accuracy_floor']:.1%}: at best {best['class_accuracy']:.1%}, "
                f"at {best.layer} (n = {best['n']:.0f})",
                do="check the labels of the data for transfer; take more of them, or do not go by their probe",
                best_layer=best.layer, accuracy=best["class_accuracy"], low=best["class_accuracy_low"],
                limit=best["class_accuracy_floor"], of=len(layers), n=int(best["n"]), step=best.step, split=best.split,
            )  # fmt: skip


def _standardised(rows: ProbeRows, fold: Fold) -> tuple[Tensor, Tensor]:
    """Features of the rows that a fold fits and of those that it predicts, in the type that they came in."""
    return fold.basis.rows.to(rows.features), fold.basis.standardised(rows.features[fold.test]).to(rows.features)


def _flag(raised: bool, meanings: str, what: str) -> Quantity:
    return quantity(int(raised), units="1", long_name=what, chart="none", flag_values=[0, 1], flag_meanings=meanings)


def _classes(rows: ProbeRows, note: str) -> dict[str, Quantity]:
    found = class_probe(rows.folds, rows.labels, rows.group, permutations=0).accuracy
    numbers: dict[str, tuple[float, str, dict[str, Any]]] = {
        "class_accuracy": (found.share, "accuracy of a linear class probe", {"headline": 2}),
        "class_accuracy_low": (found.low, "accuracy of a linear class probe, lower end of the exact 95 % interval", {}),
        "class_accuracy_high": (found.high, "accuracy of a linear class probe, upper end of the exact 95 % interval", {}),
        "class_accuracy_floor": (found.majority, "accuracy of always saying the commonest class", {}),
    }  # fmt: skip
    return {
        name: quantity(value, units="1", long_name=what, note=note, valid_min=0.0, valid_max=1.0, **shown)
        for name, (value, what, shown) in numbers.items()
    }


def _counted(rows: ProbeRows, note: str) -> dict[str, Quantity]:
    tested = sum(len(rows.group[fold.test].unique()) for fold in rows.folds)
    fitted = sum(len(fold.train) for fold in rows.folds) / len(rows.folds)
    return {
        "n": quantity(tested, units="1", long_name="examples predicted", note=note, chart="none"),
        "n_fitted": quantity(fitted, units="1", long_name="rows that a fold is fitted to", note=note, chart="none"),
    }
