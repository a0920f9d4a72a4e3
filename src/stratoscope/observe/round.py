"""One round of measurement: every instrument over a subject, into a record, and what came of each param."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from stratoscope.capture.needs import Need, Operator, Streamed, innermost
from stratoscope.capture.views import Capture, LayerView, Seen
from stratoscope.errors import NotApplicable, StratoscopeError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import Instrument, LayerInstrument, NetworkInstrument
from stratoscope.instruments.registry import prefix_of
from stratoscope.network.layers import Catalogue, Layer, Param
from stratoscope.network.subject import TRANSFER
from stratoscope.observe.effort import Effort
from stratoscope.observe.entries import entries_of, group_of, labels_of, quantities_of
from stratoscope.record.assemble import assemble
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import Quantity
from stratoscope.record.rows import NOTHING_SAID, Coverage, Passed
from stratoscope.record.writer import RecordWriter

_LOG = logging.getLogger(__name__)

CANCELLED = "cancelled before it was measured"
ABSENT = "not in this checkpoint"

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much is done, and how much there is."""


def needs_of(instruments: Iterable[Instrument]) -> frozenset[Need]:
    """Everything that any of them asks for."""
    return frozenset(need for instrument in instruments for need in instrument.requires | instrument.uses)


def foreign_of(instruments: Iterable[Instrument]) -> frozenset[Need]:
    """What is asked for on data of another task."""
    return needs_of(instrument for instrument in instruments if instrument.transfers)


def wants_data(instrument: Instrument) -> bool:
    """Whether it is measured once for each split."""
    inner = innermost(instrument.requires | instrument.uses)
    return any(isinstance(need, (Streamed, Operator)) and getattr(need, "split", None) is None for need in inner)


def _must_have_data(instrument: Instrument) -> bool:
    return any(isinstance(need, (Streamed, Operator)) for need in innermost(instrument.requires))


@dataclass
class Round:
    """One round over a subject.

    Attributes:
        capture: what is gathered.
        instruments: who measures.
        writer: where it goes.
        step: the training step.
        by_layer: commit and drop each layer as it is done (bounded memory, nothing lost on a cancel); otherwise the
            whole round is one transaction.
        deadline: clock time (`time.monotonic`) after which what is left is skipped.
        progress: told how far it is.
        passed: how much the training has seen so far.
        done: layers, from the first on, that an earlier attempt has committed at this step; not measured again.
        among: the layers of the whole record, where this subject is one of several; those that it lacks are not
            applicable, with that reason.
        labels: what tells instruments of one key apart, where others take part in other rounds of the record.
        structure: write the layers and what flows between them, too.
        seconds: what each instrument took, by its group in the record; known after `run`, as is `passing`.
        passing: seconds of the passes over the network.
    """

    capture: Capture
    instruments: list[Instrument]
    writer: RecordWriter
    step: int = 0
    by_layer: bool = True
    deadline: float | None = None
    progress: Progress | None = None
    passed: Passed = NOTHING_SAID
    done: int = 0
    among: Catalogue | None = None
    labels: Mapping[Instrument, str] | None = None
    structure: bool = True
    seconds: dict[str, float] = field(default_factory=dict)
    passing: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    _entries: list[Entry] = field(default_factory=list)
    _coverage: list[Coverage] = field(default_factory=list)
    _told: int = 0

    def __post_init__(self) -> None:
        self._labels = labels_of(self.instruments) if self.labels is None else self.labels
        self.instruments = list(dict.fromkeys(self.instruments))
        self.seconds = {group_of(one, self._labels[one]): 0.0 for one in self.instruments}
        self._at = 0
        self._finished = False

    def run(self) -> int:
        """Measure everything; returns the sequence number of the last commit.

        A failing instrument becomes a `failed` finding, and the others go on.
        """
        started = time.perf_counter()
        splits = list(self.capture.subject.sources) if self.capture.subject.module is not None else []
        for number, name in enumerate(splits):
            self._tell(f"passing over {name}", number, len(splits))
            try:
                self.capture.run(name)
            except StratoscopeError as error:
                self._fail_pass(name, str(error))
        self.passing = time.perf_counter() - started
        layers = self.capture.layers()
        if self.structure:
            self.writer.write_layers(in_order(layers) if self.among is None else self.among)
            self.writer.write_edges(self._edges())
        if not self.done:  # what crosses layers is committed with the first of them
            for instrument in self.instruments:
                if isinstance(instrument, NetworkInstrument):
                    for split in self._splits(instrument, splits):
                        self._network(instrument, split)
        try:
            self._layers([i for i in self.instruments if isinstance(i, LayerInstrument)], layers, splits)
        except KeyboardInterrupt:
            if self.by_layer:
                self._end_early(layers)
            raise
        self._cover_absent()
        return self._commit(cost_ms=1000 * (time.perf_counter() - started))

    @property
    def complete(self) -> bool:
        """Whether every layer was looked at, so that going on would measure nothing more."""
        return self._finished

    def _end_early(self, layers: list[Layer]) -> None:
        """Say of every layer that is left why it was not measured."""
        self._entries, self._coverage = [], []
        self.findings = self.findings[: self._told]
        for layer in layers[self._at :]:
            for instrument in self.instruments:
                self._cover_layer(instrument, layer, None, "skipped", CANCELLED)
        self._commit(cost_ms=0.0)

    def _cover_absent(self) -> None:
        """Params that other subjects of the record have and this one has not."""
        if self.among is None:
            return
        own = self.capture.subject.catalogue.params
        for name, param in self.among.params.items():
            if name not in own:
                for instrument in self.instruments:
                    self._cover(instrument, param.layer, name, None, "not_applicable", ABSENT)

    def _edges(self) -> list[tuple[str, str, str]]:
        passes = self.capture.passes.values()
        data = dict.fromkeys(edge for result in passes for edge in result.edges)
        tied = [
            (param.layer, self.capture.subject.catalogue.params[param.same_as].layer)
            for param in self.capture.subject.catalogue.params.values()
            if param.same_as in self.capture.subject.catalogue.params
        ]
        return [(a, b, "data") for a, b in data] + [(a, b, "tied weights") for a, b in dict.fromkeys(tied)]

    def _splits(self, instrument: Instrument, splits: list[str]) -> list[str | None]:
        own = [split for split in splits if split != TRANSFER or instrument.transfers]
        if not wants_data(instrument) or not own:
            return [None]
        there: list[str | None] = [split for split in own if split not in self.capture.failures]
        # what only looks at data where there are some is measured without them, too
        return there or ([] if _must_have_data(instrument) else [None])

    def _network(self, instrument: NetworkInstrument, split: str | None) -> None:
        if self._late():
            self._cover_all(instrument, split, "skipped", "the time budget was spent")
            return
        found = self._guard(
            instrument, None, split, lambda: quantities_of(instrument.measure(Seen(split, self.capture)))
        )
        if found is None:
            return
        self._entries += entries_of(instrument, found, split, self._labels[instrument])
        rows = {label for q in found.values() if "param" in q.dims for label in q.labels("param")}
        for param in self.capture.subject.catalogue.params.values():
            status, reason = status_of(param, rows, "not looked at")
            if not self.capture.wanted(param.layer) and param.name not in rows:
                status, reason = "skipped", "not among the layers that were asked for"
            self._cover(instrument, param.layer, param.name, split, status, reason)

    def _layers(self, instruments: list[LayerInstrument], layers: list[Layer], splits: list[str]) -> None:
        results: dict[tuple[LayerInstrument, str | None], dict[str, Mapping[str, Quantity]]] = {}
        effort = None if self.progress is None else Effort.of(layers, self.capture.subject.source.describe())
        for number, layer in enumerate(layers):
            self._at = number
            if number < self.done:
                continue
            if self._late() and self.by_layer:
                self._skip_rest(layers[number:], splits)
                break
            if effort is not None:
                self._tell(*effort.before(number))
            for instrument in instruments:
                for split in self._splits(instrument, splits):
                    found = self._layer(instrument, layer, split)
                    if found:
                        results.setdefault((instrument, split), {})[layer.name] = found
            self.capture.drop(layer)
            if self.by_layer:
                self._assemble(results)
                self._commit()
                results.clear()
                self._at = number + 1
        else:
            self._finished = True
        self._assemble(results)
        if effort is not None:
            self._tell("done", effort.total, effort.total)

    def _skip_rest(self, layers: list[Layer], splits: list[str]) -> None:
        """What the time was not enough for; said in one commit, so that a later call knows where to go on."""
        for layer in layers:
            for instrument in self.instruments:
                if isinstance(instrument, LayerInstrument):
                    for split in self._splits(instrument, splits):
                        self._layer(instrument, layer, split)

    def _layer(self, instrument: LayerInstrument, layer: Layer, split: str | None) -> Mapping[str, Quantity] | None:
        if not self.capture.wanted(layer.name):
            self._cover_layer(instrument, layer, split, "skipped", "not among the layers that were asked for")
            return None
        if self._late():
            self._cover_layer(instrument, layer, split, "skipped", "the time budget was spent")
            return None
        view = LayerView(layer, split, self.capture)

        def measure() -> Mapping[str, Quantity]:
            for need in instrument.requires:
                view[need]
            return quantities_of(instrument.measure_layer(view))

        found = self._guard(instrument, layer, split, measure)
        if found is None:
            return None
        self._cover_layer(instrument, layer, split, "measured", "", found)
        return dict(found)

    def _guard(
        self,
        instrument: Instrument,
        layer: Layer | None,
        split: str | None,
        measure: Callable[[], Mapping[str, Quantity]],
    ) -> Mapping[str, Quantity] | None:
        """The measurement; `None` where there is none, and why is noted."""
        began = time.perf_counter()
        try:
            return measure()
        except NotApplicable as why:
            status, reason = "not_applicable", str(why)
            if layer is None and split is not None:
                says = f"{instrument.title} is not measured on {split}: {reason}"
                self.findings.append(
                    instrument.finding(
                        f"{prefix_of(instrument)}000", Outcome.NOT_APPLICABLE, says, step=self.step, split=split
                    )
                )
        except Exception as error:  # other people's instruments may raise anything; the others go on
            known = isinstance(error, StratoscopeError)
            status, reason = "failed", str(error) if known else f"{type(error).__name__}: {error}"
            where = f" at {layer.name}" if layer else ""
            _LOG.debug("%s failed%s", instrument.title, where, exc_info=True)
            self.findings.append(
                instrument.finding(
                    f"{prefix_of(instrument)}000", Outcome.FAILED, f"{instrument.title} failed{where}: {reason}",
                    layer=layer.name if layer else None, step=self.step, split=split,
                    do="run with --debug for the traceback, or skip this instrument",
                )
            )  # fmt: skip
        finally:
            self.seconds[group_of(instrument, self._labels[instrument])] += time.perf_counter() - began
        if layer is None:
            self._cover_all(instrument, split, status, reason)
        else:
            self._cover_layer(instrument, layer, split, status, reason)
        return None

    def _assemble(
        self, results: Mapping[tuple[LayerInstrument, str | None], dict[str, Mapping[str, Quantity]]]
    ) -> None:
        for (instrument, split), per_layer in results.items():
            self._entries += entries_of(instrument, assemble(per_layer), split, self._labels[instrument])

    def _commit(self, cost_ms: float | None = None) -> int:
        findings = self.findings[self._told :]
        sequence = self.writer.commit(
            self.step,
            self._entries,
            findings=findings,
            coverage=self._coverage,
            epoch=self.passed.epoch,
            tokens=self.passed.tokens,
            cost_ms=cost_ms,
        )
        self._told = len(self.findings)
        self._entries, self._coverage = [], []
        return sequence

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)

    def _fail_pass(self, split: str, reason: str) -> None:
        for instrument in self.instruments:
            if _must_have_data(instrument) and (split != TRANSFER or instrument.transfers):
                self._cover_all(instrument, split, "failed", reason)
        self.findings.append(
            Finding("ST000", "capture", None, self.step, Outcome.FAILED, reason, "check the data", {}, "", split)
        )

    def _cover_all(self, instrument: Instrument, split: str | None, status: str, reason: str) -> None:
        for layer in self.capture.subject.catalogue.layers.values():
            if layer.params:
                self._cover_layer(instrument, layer, split, status, reason)

    def _cover_layer(
        self,
        instrument: Instrument,
        layer: Layer,
        split: str | None,
        status: str,
        reason: str,
        found: Mapping[str, Quantity] | None = None,
    ) -> None:
        named = {label for q in (found or {}).values() if "param" in q.dims for label in q.labels("param")}
        for param in layer.params:
            why = unmeasured(param)
            if why:
                self._cover(instrument, layer.name, param.name, split, "not_applicable", why)
            elif named and param.name not in named:
                self._cover(instrument, layer.name, param.name, split, "not_applicable", "not looked at")
            else:
                self._cover(instrument, layer.name, param.name, split, status, reason)
        if not layer.params:
            self._cover(instrument, layer.name, None, split, status, reason)

    def _cover(
        self, instrument: Instrument, layer: str, param: str | None, split: str | None, status: str, reason: str
    ) -> None:
        label = self._labels[instrument]
        self._coverage.append(
            Coverage(instrument.key, label, layer, param or "", split or "", self.step, status, reason)
        )


def in_order(layers: list[Layer]) -> Catalogue:
    """Layers with their place in this order as their depth."""
    return Catalogue({layer.name: replace(layer, depth=place) for place, layer in enumerate(layers)})


def status_of(param: Param, rows: Collection[Hashable], why_not: str) -> tuple[str, str]:
    """Whether a param was measured, given those that have a row of their own (none if there are no such rows)."""
    reason = unmeasured(param) or (why_not if rows and param.name not in rows else "")
    return ("not_applicable" if reason else "measured"), reason


def unmeasured(param: Param) -> str:
    """Why no instrument of weights looks at a param; empty if they do."""
    if param.reason:
        return param.reason
    if param.same_as:
        return f"the same tensor as {param.same_as}"
    return "a running statistic, not a trained weight" if param.role == "statistic" else ""
