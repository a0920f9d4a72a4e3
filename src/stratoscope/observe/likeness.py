"""How alike two networks are, layer by layer, on the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from stratoscope.capture.activations import Activations
from stratoscope.capture.restore import on_host
from stratoscope.capture.views import MEMORY, Capture, Seen
from stratoscope.errors import NotApplicable, SettingError, StratoscopeError, SubjectError
from stratoscope.instruments.alike import STATUS, Comparable, comparable
from stratoscope.instruments.registry import configured
from stratoscope.instruments.similarity import Similarity, note_of
from stratoscope.network.subject import Subject
from stratoscope.observe.diagnosing import Chosen
from stratoscope.observe.entries import entries_of
from stratoscope.observe.examine import data_meta, finished, run_meta
from stratoscope.observe.judging import judge
from stratoscope.observe.round import Progress, in_order, status_of
from stratoscope.observe.settings import Settings, load_settings
from stratoscope.record.quantity import Quantity
from stratoscope.record.record import Record
from stratoscope.record.rows import Coverage
from stratoscope.record.writer import RecordWriter


@on_host()
def likeness(
    first: nn.Module | Subject,
    second: nn.Module | Subject,
    data: Any = None,
    *,
    to: str | Path | None = None,
    layers: Sequence[str] = (),
    n: int | None = None,
    similarity: Similarity | None = None,
    batch_size: int = 128,
    seed: int = 0,
    memory: int = MEMORY,
    settings: Settings | None = None,
    progress: Progress | None = None,
    name: str = "",
) -> Record:
    """Compare two networks, layer by layer, by what they say of the same examples.

    They may be two runs of one training, a model and its fine-tuned or pruned form, or of different architectures: layers are
    compared by their activations alone, so labels and widths do not matter. The record is the first network's: its
    group `similarity` holds, along `layer` (the first network) and `other` (the second one),

    * `cka_other`, the debiased CKA of every layer of one with every layer of the other, with `cka_other_se`, the biased form and
      its null;
    * `cka_same` and `procrustes_same` of layers of the same name; `cka_best` and `best_match` of each layer's closest one;

    and its findings say where the two part ways, and which layers are the same.

    ```python
    record = likeness(before, after, images)
    record["similarity"]["cka_other"].sel(layer="layer1.0")
    ```

    Args:
        first: a model, or a subject with data of its own.
        second: another one, on the same examples. As a subject it may have data of its own, such as the same images
            in another size, of which the same examples are drawn.
        data: as for `examine`; the subjects' own where it is left out.
        to: a folder for the record; in memory where it is left out.
        layers: a pattern such as `"layer1.*"`, or several, for both; all layers by default.
        n: examples at most; 1,000 where neither this nor `settings` say.
        similarity: the instrument with its settings, such as `pooling`, instead of `n` and those of `settings`.
        batch_size: examples a forward pass.
        seed: of the drawing of examples.
        memory: bytes that kept samples may take together.
        settings: thresholds and muted codes; those of `stratoscope.toml` in the working directory by default.
        progress: told `(what, done, total)`.
        name: of the comparison, for people.

    Raises:
        StratoscopeError: if there are no data, they do not fit a model, the examples differ, or no layers can be compared;
            one sentence says why.
    """
    settings = settings if settings is not None else load_settings()
    instrument = similarity or configured(
        Similarity, dict(settings.instruments.get(Similarity.key, {})) | ({} if n is None else {"n": n})
    )
    if instrument.streamed:
        raise SettingError("Two networks are compared on a sample; leave out streamed=True.")
    drawn = {"probe": instrument.n, "batch_size": batch_size, "seed": seed, "_probes": {}}
    one = _subject(first, data, drawn)
    # one drawing serves both, where they have the same data
    shared = one.data is (data if data is not None else getattr(second, "data", None))
    two = _subject(second, data, drawn if shared else drawn | {"_probes": {}})
    splits = _same_examples(one, two)
    need = Activations(n=instrument.n, width=instrument.width, pooling=instrument.pooling)
    patterns = (layers,) if isinstance(layers, str) else tuple(layers)
    captures = [_captured(subject, need, splits, memory // 2, patterns, progress) for subject in (one, two)]
    found = {split: _compared(instrument, need, captures, split) for split in splits}
    meta = run_meta(one, Chosen([instrument], [])) | {"name": name or f"{one.name} and {two.name}"}
    meta["likeness"] = {
        "first": one.name, "second": two.name, "second_layers": [layer.name for layer in captures[1].layers()]
    }  # fmt: skip
    writer = RecordWriter.create(Path(to) if to is not None else None, meta)
    try:
        _write(writer, instrument, captures[0], found)
        writer.replace_findings(judge(Record.from_writer(writer), [instrument], settings))
    except BaseException:
        writer.close("failed")
        raise
    return finished(writer, to)


def _subject(given: nn.Module | Subject, data: Any, drawn: Mapping[str, Any]) -> Subject:
    """A model with data, of which examples are drawn the same way for both."""
    if isinstance(given, Subject):
        subject = replace(given, data=given.data if data is None else data, **drawn)
        subject = replace(subject, labels=None) if data is not None else subject
    else:
        subject = Subject(given, data, **drawn)
    if subject.module is None or not subject.splits:
        missing = "model" if subject.module is None else "data"
        raise SubjectError(
            f"Likeness compares what two models say of data; there is no {missing} of {_called(subject)}."
        )
    return replace(subject, name=_called(subject))


def _called(subject: Subject) -> str:
    return subject.name or ("weights" if subject.module is None else type(subject.module).__name__)


def _same_examples(one: Subject, two: Subject) -> list[str]:
    """The splits that both have, of which the same examples were drawn."""
    splits = [split for split in one.splits if split in two.splits]
    if not splits:
        raise SubjectError(
            f"The two networks have no split in common: {', '.join(one.splits)} and {', '.join(two.splits)}; give "
            "both the same data."
        )
    for split in splits:
        first, second = one.probe_set(split), two.probe_set(split)
        if not first.ids.equal(second.ids):
            raise SubjectError(
                f"The two networks see other examples of split {split!r} ({first.n} and {second.n}); give data with the "
                "same examples in the same order."
            )
    return splits


def _captured(
    subject: Subject,
    need: Activations,
    splits: Sequence[str],
    memory: int,
    patterns: tuple[str, ...],
    progress: Progress | None,
) -> Capture:
    """What one network says of the examples."""

    def tell(split: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"passing {split} through {subject.name}", done, total)

    capture = Capture(subject, frozenset({need}), memory, patterns=patterns, progress=tell)
    for split in splits:
        try:
            capture.run(split)
        except StratoscopeError as error:
            raise type(error)(f"{subject.name}: {error}") from error
    names = [layer.name for layer in capture.layers()]
    if not any(map(capture.wanted, names)):
        raise SettingError(
            f"No layer of {subject.name} is called {' or '.join(patterns)}; there are {', '.join(names[:12])}."
        )
    return capture


def _compared(
    instrument: Similarity, need: Activations, captures: Sequence[Capture], split: str
) -> tuple[Comparable, dict[str, Quantity]]:
    """What is measured on one split."""
    sides = []
    for capture in captures:
        try:
            sides.append(comparable(Seen(split, capture)[need], instrument.max_layers, least=1))
        except NotApplicable as why:
            raise SubjectError(f"{capture.subject.name} cannot be compared on split {split!r}: {why}.") from why
    layers, others = sides
    try:
        found = instrument.against(layers, others, note_of(layers))
    except NotApplicable as why:
        raise SubjectError(f"The two networks cannot be compared on split {split!r}: {why}.") from why
    return layers, found | instrument.about(layers, Seen(split, captures[0]))


def _write(
    writer: RecordWriter,
    instrument: Similarity,
    capture: Capture,
    found: Mapping[str, tuple[Comparable, dict[str, Quantity]]],
) -> None:
    """Layers, edges and data of the first network, and all that was measured, in one commit."""
    writer.write_layers(in_order(capture.layers()))
    writer.write_edges([(a, b, "data") for result in capture.passes.values() for a, b in dict.fromkeys(result.edges)])
    writer.write_meta("data", data_meta(capture.subject, capture))
    entries, coverage = [], []
    for split, (layers, quantities) in found.items():
        entries += entries_of(instrument, quantities, split)
        for param in capture.subject.catalogue.params.values():
            place = layers.status.get(param.layer)
            status, reason = status_of(param, (), "")
            if status == "measured" and place != 0:
                status = "not_applicable" if place is not None else "skipped"
                reason = "the layer was not looked at" if place is None else STATUS[place].replace("_", " ")
            coverage.append(Coverage(instrument.key, "", param.layer, param.name, split, 0, status, reason))
    writer.commit(0, entries, coverage=coverage)
