"""Really cut a network after a layer, train a linear probe there, and compare both on the same held-out examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.capture.loss import IGNORED_LABEL, loss_of
from stratoscope.capture.pooling import IN_WORDS, rows_of
from stratoscope.capture.restore import on_host, untouched
from stratoscope.capture.running import call, dtype_of
from stratoscope.capture.truncated import OutputInput, Truncated, own_params
from stratoscope.errors import NotApplicable, SettingError, SubjectError
from stratoscope.findings import Outcome
from stratoscope.network.sources import Batch, ProbeSet
from stratoscope.network.subject import Subject
from stratoscope.network.weights import WeightSource
from stratoscope.numerics.matrices import not_finite
from stratoscope.numerics.paired import PairedDifference, paired_difference
from stratoscope.numerics.ridge import Basis, ridge
from stratoscope.numerics.sketch import count_sketch
from stratoscope.observe.cut_network import Cut, Share
from stratoscope.observe.examine import examine
from stratoscope.observe.settings import Settings
from stratoscope.record.record import Record

ADVICE = "DP001"
"""The finding of the depth diagnosis that names a layer to cut after."""

WIDTH = 4096
"""Numbers an example that a probe is fitted on at most; wider ones are projected, as for every instrument."""


@on_host()
def cut(
    model: nn.Module | None = None,
    data: Any = None,
    layer: str | None = None,
    *,
    record: Record | None = None,
    labels: Any = None,
    weights: WeightSource | Mapping[str, Tensor] | str | Path | None = None,
    subject: Subject | None = None,
    fit: str | None = None,
    score: str | None = None,
    pooling: str = "gap",
    probe: int = 2000,
    batch_size: int = 128,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Cut:
    """Run a network only up to a layer, fit a linear probe there, and compare it with the whole network.

    ```python
    print(cut(model, {"train": (x, y), "test": (u, v)}, "layer3").says)
    ```

    What comes after the layer is not computed; the model is not changed. The probe is a ridge regression on one-hot
    classes, its strength chosen by generalised cross-validation on the examples that it is fitted to.

    Args:
        model: the module; it leaves as it came.
        data: as for `examine`, with class labels; two named splits, or one that is cut in halves.
        layer: after which to cut: a layer's name, a further call of it (`relu@2`), or a function's place (`:relu`). By
            default the layer that the depth diagnosis advises.
        record: a record of this network, to take that advice from; otherwise it is measured.
        labels: labels of `data`, where it does not hold them.
        weights: other weights to run the model with.
        subject: all of the above in one value instead.
        fit: split to fit the probe on; `train` or the first one by default.
        score: split to compare on; the first other one by default.
        pooling: `"gap"`, the mean over the positions of a map or sequence, or `"flatten"`.
        probe: examples drawn from each split.
        batch_size: examples a forward pass.
        seed: of the drawing, of halves and of projections.
        settings: thresholds of the diagnosis; those of `stratoscope.toml` by default.
        progress: told `(what, done, total)`.

    Raises:
        SubjectError: if there are no classes, no such layer, or nothing to fit a probe to.
        SettingError: if a split or a pooling does not exist, or no layer was named and none is advised.
    """
    if subject is None:
        if model is None:
            raise SubjectError("A network is cut while it runs; give a model with data.")
        name = type(model).__name__
        subject = Subject(model, data, None, labels, weights, None, name, probe, batch_size, seed)
    if subject.module is None or not subject.splits:
        raise SubjectError("A network is cut while it runs; give a model with data.")
    if pooling not in IN_WORDS:
        raise SettingError(f"pooling={pooling!r}: a cut network is probed with {' or '.join(map(repr, IN_WORDS))}.")
    splits = _splits(subject, fit, score)
    if layer is None:
        layer = advised(record if record is not None else _examined(subject, settings, progress))
    return _Cutting(subject, subject.module, layer, pooling, seed, progress).run(*splits)


def advised(record: Record) -> str:
    """The layer after which the depth diagnosis advises to cut.

    Raises:
        SettingError: if it gives no advice; says what it found instead.
    """
    found = [finding for finding in record.findings if finding.code == ADVICE]
    for finding in found:
        if finding.outcome is Outcome.TIP and finding.layer is not None:
            return finding.layer
    why = found[0].says if found else "depth was not diagnosed"
    raise SettingError(
        f"No layer to cut after was named, and none is advised ({why}); name one, as a layer of the network."
    )


def _examined(subject: Subject, settings: Settings | None, progress: Callable[[str, int, int], None] | None) -> Record:
    return examine(subject=subject, only=["depth"], settings=settings, progress=progress)


def _splits(subject: Subject, fit: str | None, score: str | None) -> tuple[str, str]:
    """The splits to fit and to score on; the same one twice where there is no other."""
    names = list(subject.splits)
    for name in (fit, score):
        if name is not None and name not in names:
            raise SettingError(f"There is no split {name!r}; the data have {', '.join(names)}.")
    others = [name for name in names if name != score]
    fit = fit or ("train" if "train" in others else (others or names)[0])
    return fit, score or next((name for name in names if name != fit), fit)


@dataclass
class _Seen:
    """What one split gave: features at the cut and before the output, classes, what the whole network gets right."""

    features: Tensor
    last: Tensor | None
    labels: Tensor
    right: Tensor

    def labelled(self) -> _Seen:
        """Without the examples whose label is the one that losses leave out."""
        there = self.labels != IGNORED_LABEL
        if bool(there.all()):
            return self
        if not bool(there.any()):
            raise SubjectError(
                f"A probe is fitted to classes; all {len(there)} labels are {IGNORED_LABEL}, which is none."
            )
        last = None if self.last is None else self.last[there]
        return _Seen(
            self.features[there], last, self.labels[there], self.right[there] if len(self.right) else self.right
        )


@dataclass
class _Cutting:
    """One network, cut after one layer."""

    subject: Subject
    model: nn.Module
    layer: str
    pooling: str
    seed: int
    progress: Callable[[str, int, int], None] | None

    def __post_init__(self) -> None:
        self._weights = self.subject.override()
        self._short = Truncated(self.model, self.subject.catalogue, self.layer, self._weights)
        self._seconds: tuple[list[float], list[float]] = ([], [])
        self._width_from = 0

    def run(self, fit: str, score: str) -> Cut:
        """Look at both splits, fit, compare."""
        with untouched(self.model), torch.no_grad():
            first = next(iter(self._batches(self.subject.probe_set(fit))))
            called = self._short.survey(first)
            self._output = OutputInput.of(self.subject.catalogue, called[0])
            fitted = self._see(fit, compare=fit == score)
            scored = fitted if fit == score else self._see(score, compare=True)
        parts = _halves(len(fitted.labels), self.seed) if fit == score else None
        guesses, strength, n_fitted = _guessed(fitted.features, fitted.labels, scored.features, parts)
        last = None
        if fitted.last is not None and scored.last is not None:
            last = _guessed(fitted.last, fitted.labels, scored.last, parts)[0] == scored.labels
        return self._told((fit, score), n_fitted, guesses == scored.labels, last, scored, called, strength)

    def _batches(self, probe: ProbeSet) -> Iterator[Batch]:
        for batch in probe.batches:
            yield batch.to(self.subject.device, dtype=dtype_of(self.model))

    def _see(self, split: str, compare: bool) -> _Seen:
        """Pass over a split through the cut network, and through the whole one where both are compared."""
        probe = self.subject.probe_set(split)
        features, last, labels, right = [], [], [], []
        for number, batch in enumerate(self._batches(probe)):
            if self.progress is not None:
                self.progress(f"cut after {self.layer}: {split}", number, len(probe.batches))
            labels.append(_classes(batch))
            with self._output.watched():
                output = self._whole(probe.batches[number])
            last.append(self._before_output(batch))
            if compare:
                right.append(self._right(output, batch))
            with self._short.stopping():
                start = self._clock()
                reached = self._short.run(batch)
                self._seconds[1].append((self._clock() - start) / batch.n)
            features.append(self._rows(reached))
        found = torch.cat(features)
        if bad := not_finite(found):
            raise SubjectError(f"{bad:,} of {found.numel():,} numbers that {self.layer} gives are NaN or infinite.")
        known = [rows for rows in last if rows is not None]
        whole = torch.cat(known) if len(known) == len(last) else None
        if whole is not None and not_finite(whole):
            whole = None
        return _Seen(found, whole, torch.cat(labels), torch.cat(right) if right else torch.empty(0)).labelled()

    def _whole(self, stored: Batch) -> Any:
        """What the whole network gives; timed."""
        batch = stored.to(self.subject.device, dtype=dtype_of(self.model))
        start = self._clock()
        output = call(self.model, batch, self._weights)
        self._seconds[0].append((self._clock() - start) / batch.n)
        return output

    def _before_output(self, batch: Batch) -> Tensor | None:
        """What the output layer was given, as rows; `None` where it is none."""
        try:
            site = self._output.taken(batch)
            return None if site is None else self._projected(rows_of(site, self.pooling, 1, self.seed).values)
        except NotApplicable:
            return None

    def _right(self, output: Any, batch: Batch) -> Tensor:
        """Whether the whole network is right on each example."""
        labels = _classes(batch)
        there = labels != IGNORED_LABEL
        if not there.any():
            return torch.zeros(batch.n, dtype=torch.bool)
        try:
            loss = loss_of(None, output, replace(batch, labels=labels.to(self.subject.device)), self.model)
        except NotApplicable as why:
            raise SubjectError(f"The network's own accuracy is not known: {why}.") from why
        if loss.logits is None or loss.labels is None or len(loss.labels) != int(there.sum()):
            raise SubjectError("The network gives no scores of classes, one row an example; only a classifier is cut.")
        right = torch.zeros(batch.n, dtype=torch.bool)
        right[there] = (loss.logits.argmax(1) == loss.labels).cpu()
        return right

    def _rows(self, reached: Any) -> Tensor:
        try:
            rows = rows_of(reached, self.pooling, 1, self.seed).values
        except NotApplicable as why:
            raise SubjectError(f"The network cannot be cut after {self.layer}: {why}.") from why
        self._width_from = rows.shape[1]
        return self._projected(rows)

    def _projected(self, rows: Tensor) -> Tensor:
        return (count_sketch(rows, WIDTH, seed=self.seed) if rows.shape[1] > WIDTH else rows).cpu()

    def _clock(self) -> float:
        if self.subject.device.type != "cpu":
            torch.accelerator.synchronize(self.subject.device)
        return time.perf_counter()

    def _told(
        self,
        splits: tuple[str, str],
        n_fitted: int,
        right: Tensor,
        last: Tensor | None,
        scored: _Seen,
        called: tuple[Sequence[str], Sequence[str]],
        strength: float,
    ) -> Cut:
        whole, short = called
        saved = [name for name in whole if name not in short]
        layers, width = self.subject.catalogue.layers, scored.features.shape[1]
        run, every = own_params(layers, list(short)), own_params(layers, list(whole))
        n = len(right)
        note = IN_WORDS[self.pooling]
        if self._width_from > width:
            note += f", projected from {self._width_from} to {width} numbers"
        return Cut(
            layer=self.layer, fitted_on=splits[0], scored_on=splits[1], n_fitted=n_fitted,
            cut=Share.of(int(right.sum()), n), whole=Share.of(int(scored.right.sum()), n),
            difference=_paired(right, scored.right),
            probed=None if last is None else Share.of(int(last.sum()), n),
            depth=None if last is None else _paired(right, last),
            layers_run=tuple(short), layers_saved=tuple(saved),
            params=sum(param.numel() for param in every.values()),
            params_saved=sum(param.numel() for one, param in every.items() if one not in run),
            params_probe=(width + 1) * len(torch.unique(scored.labels)),
            seconds=median(self._seconds[0]), seconds_cut=median(self._seconds[1]),
            width=width, strength=strength, note=note,
        )  # fmt: skip


def _classes(batch: Batch) -> Tensor:
    labels = batch.labels
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels is None or labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise SubjectError("A probe is fitted to classes: one integer label an example is needed.")
    return labels.long().cpu()


def _halves(n: int, seed: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[: n // 2], order[n // 2 :]


def _paired(one: Tensor, other: Tensor) -> PairedDifference:
    """Two networks that are right or not on the same examples."""
    both, first, second = (int((a & b).sum()) for a, b in ((one, other), (one, ~other), (~one, other)))
    return paired_difference(both, first, second, len(one) - both - first - second)


def _guessed(
    features: Tensor, labels: Tensor, others: Tensor, halves: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, float, int]:
    """The probe's guesses, its strength, and how many examples it was fitted to."""
    if halves is None:
        guesses, strength = _probed(features, labels, others)
        return guesses, strength, len(labels)
    guesses, strengths = torch.empty_like(labels), []
    for train, test in (halves, halves[::-1]):
        guesses[test], strength = _probed(features[train], labels[train], features[test])
        strengths.append(strength)
    return guesses, (strengths[0] * strengths[1]) ** 0.5, len(halves[0])


def _probed(features: Tensor, labels: Tensor, others: Tensor) -> tuple[Tensor, float]:
    """Classes of other examples, by a ridge regression on one-hot classes."""
    names, places = torch.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise SubjectError(f"{len(names)} class in {len(labels)} examples; a probe is fitted to two or more.")
    one_hot = torch.nn.functional.one_hot(places, len(names)).double()
    fit = ridge(Basis.of(features), one_hot)
    return names[fit.predict(others).argmax(1)], float(fit.strengths[0])
