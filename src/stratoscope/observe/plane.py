"""The information plane of a series of checkpoints, with bins over the range that each layer has in the whole run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.capture.activations import Activations, Sample
from stratoscope.capture.restore import on_host
from stratoscope.capture.views import MEMORY, Capture
from stratoscope.errors import NotApplicable, SettingError, StratoscopeError, SubjectError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import Instrument, Judge
from stratoscope.instruments.information import Information
from stratoscope.network.subject import Subject
from stratoscope.network.weights import WeightSource
from stratoscope.observe.diagnosing import Chosen
from stratoscope.observe.examine import data_meta, recorded, run_meta
from stratoscope.observe.round import Progress, Round, needs_of
from stratoscope.observe.series import Series, find_series
from stratoscope.observe.settings import Settings, load_settings
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter

Weights = WeightSource | Mapping[str, Tensor] | str | Path
Ranges = tuple[tuple[str, float, float], ...]


@on_host()
def information_plane(
    model: nn.Module | Subject,
    data: Any = None,
    checkpoints: Sequence[str | Path] | str | Path | Mapping[int, Weights] = (),
    *,
    instruments: Sequence[Judge] | None = None,
    labels: Any = None,
    loss: Callable[..., Any] | None = None,
    layers: Sequence[str] | str = (),
    to: str | Path | None = None,
    probe: int = 2000,
    batch_size: int = 128,
    seed: int = 0,
    memory: int = MEMORY,
    settings: Settings | None = None,
    progress: Progress | None = None,
    name: str = "",
) -> Record:
    """Measure what each layer tells about inputs and labels at every checkpoint of a training.

    The checkpoints are gone through twice: first for the range of each layer over the whole run and all splits, then to
    measure, with these ranges cut into bins. So a bin is the same at every step, and what grows does not look as if it
    were compressed. An `Information` that has `bin_range="activation"` keeps a nonlinearity's own bounds.

    ```python
    plane = information_plane(model, (inputs, labels), "runs/*.pt", to="runs/plane")
    plane["information"]["information_x"].sel(layer="tanh4")
    ```

    Args:
        model: the module, of which any weights may be in place; it leaves as it came. Or a subject with its data.
        data: as in `examine`.
        checkpoints: a folder, patterns or paths, ordered as `inspect` orders them; or for each step a state dict or path.
        instruments: who measures; `Information()` alone by default. Others are measured in the same second pass.
        labels: labels of `data`, where it does not hold them.
        loss: `loss(output, labels)`; the usual one of the task otherwise.
        layers: a pattern such as `"tanh*"`, or several; all layers by default.
        to: a folder for the record; in memory where it is left out.
        probe: examples drawn from each split, the same at each step.
        batch_size: examples a forward pass.
        seed: of the drawing.
        memory: bytes that kept samples may take together.
        settings: thresholds and muted codes; those of `stratoscope.toml` in the working directory by default.
        progress: told `(what, done, total)`.
        name: of the run, for people.

    Raises:
        StratoscopeError: if there are no checkpoints, none of them fits the model, or the data cannot be used.
        Cancelled: on Ctrl-C; its `record` holds the steps that were measured until then.
    """
    settings = settings if settings is not None else load_settings()
    if isinstance(model, Subject):
        subject = model if data is None else replace(model, data=data, labels=labels, _probes={})
    else:
        subject = Subject(model, data, loss, labels, None, None, name or type(model).__name__, probe, batch_size, seed)
    if subject.module is None or not subject.splits:
        raise SubjectError("An information plane needs a model and data; checkpoints alone have no activations.")
    chosen = Chosen.of([Information()] if instruments is None else instruments).without_training()
    if not any(isinstance(one, Information) for one in chosen.instruments):
        raise SettingError("None of these instruments is Information; examine or inspect measures the others.")
    patterns = (layers,) if isinstance(layers, str) else tuple(layers)
    series = _Series.of(checkpoints, subject)
    run = _Run(series, chosen.instruments, patterns, memory, progress)
    ranges = run.ranges()
    chosen = replace(chosen, instruments=[_within(one, ranges) for one in chosen.instruments])
    about = run_meta(subject, chosen) | {"series": series.about()}
    return recorded(to, about, chosen, settings, replace(run, instruments=chosen.instruments).measure)


def _within(instrument: Instrument, ranges: Ranges) -> Instrument:
    """An `Information` with these ranges, unless it has its own."""
    if isinstance(instrument, Information) and not instrument.ranges:
        return replace(instrument, ranges=ranges)
    return instrument


@dataclass(frozen=True)
class _Series:
    """The subject at each step, what `step` is, and which checkpoints cannot be used."""

    subjects: dict[int, Subject]
    names: dict[int, str]
    axis: str
    left_out: tuple[str, ...] = ()
    problems: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Sequence[str | Path] | str | Path | Mapping[int, Weights], subject: Subject) -> _Series:
        left_out: tuple[str, ...] = ()
        if isinstance(given, Mapping):
            weights = {int(step): given[step] for step in sorted(given)}
            names, axis = {step: f"step {step}" for step in weights}, "as given"
        else:
            found = find_series([given] if isinstance(given, str | Path) else list(given))
            if not isinstance(found, Series):
                raise SettingError(f"{found} is one checkpoint; a plane is of several. For one, use examine.")
            weights = {one.step: one.path for one in found.checkpoints}
            names, axis = {one.step: one.name for one in found.checkpoints}, found.axis
            left_out = found.left_out
        if not weights:
            raise SettingError("There are no checkpoints; give a folder, a pattern, or weights by step.")
        # the probe set is drawn once for all of them
        return cls({step: replace(subject, weights=one) for step, one in weights.items()}, names, axis, left_out)

    def about(self) -> dict[str, Any]:
        """What the record says of it."""
        every = [
            {"step": step, "name": name, "problem": self.problems.get(step, "")} for step, name in self.names.items()
        ]
        return {"step": self.axis, "checkpoints": every, "left_out": list(self.left_out)}


@dataclass(frozen=True)
class _Run:
    """Going through the series."""

    series: _Series
    instruments: list[Instrument]
    patterns: tuple[str, ...]
    memory: int
    progress: Progress | None

    def ranges(self) -> Ranges:
        """The least and largest number of each layer over all steps and splits, of the samples that are binned.

        Raises:
            StratoscopeError: if no checkpoint can be used; the first one's reason.
        """
        needs = {
            Activations(n=one.n, width=one.width, pooling=one.pooling)
            for one in self.instruments
            if isinstance(one, Information) and not one.ranges
        }
        found: dict[str, tuple[float, float]] = {}
        problems: list[StratoscopeError] = []
        for number, (step, subject) in enumerate(self.series.subjects.items()):
            self._tell(f"{self.series.names[step]}: ranges", number)
            try:
                self._extend(found, Capture(subject, frozenset(needs), self.memory, patterns=self.patterns))
            except StratoscopeError as error:
                problems.append(error)
                self.series.problems[step] = str(error)
        if len(problems) == len(self.series.subjects):
            raise problems[0]
        if needs and not found:
            raise SettingError(f"No layer called {' or '.join(self.patterns) or 'anything'} gives activations.")
        return tuple((layer, low, high) for layer, (low, high) in found.items())

    def _extend(self, found: dict[str, tuple[float, float]], capture: Capture) -> None:
        for split in capture.subject.splits:
            capture.run(split)
        for layer in capture.layers():
            for split in capture.subject.splits if capture.wanted(layer.name) else ():
                for need in capture.needs:
                    low, high = _ends(capture, need, layer, split)
                    if low <= high:
                        before = found.get(layer.name, (math.inf, -math.inf))
                        found[layer.name] = min(before[0], low), max(before[1], high)
            capture.drop(layer)

    def measure(self, writer: RecordWriter) -> None:
        """A round for each checkpoint that can be used, at its step; a finding for each of the others."""
        steps = len(self.series.subjects)
        for number, (step, subject) in enumerate(self.series.subjects.items()):
            name = self.series.names[step]
            self._tell(name, steps + number)
            capture = Capture(subject, needs_of(self.instruments), self.memory, patterns=self.patterns)
            problem = self.series.problems.get(step, "")
            try:
                if not problem:
                    Round(capture, self.instruments, writer, step, by_layer=False).run()
                    writer.write_meta("data", data_meta(subject, capture))
            except StratoscopeError as error:
                problem = str(error)
            if problem:
                says = f"{name} cannot be measured: {problem}"
                failed = Finding("ST000", "capture", None, step, Outcome.FAILED, says, "check it, or leave it out")
                writer.commit(step, [], findings=[failed], cost_ms=0.0)
        self._tell("done", 2 * steps)

    def _tell(self, what: str, done: int) -> None:
        if self.progress is not None:
            self.progress(what, done, 2 * len(self.series.subjects))


def _ends(capture: Capture, need: Any, layer: Any, split: str) -> tuple[float, float]:
    """The least and largest finite number of a sample; infinity and its negative where there is none."""
    try:
        sample: Sample = capture.value(need, layer, split)
    except NotApplicable:
        return math.inf, -math.inf
    finite = sample.features[torch.isfinite(sample.features)]
    return (float(finite.min()), float(finite.max())) if finite.numel() else (math.inf, -math.inf)
