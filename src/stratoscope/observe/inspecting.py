"""Measure weights alone: one checkpoint, or several along a training. Needs no data, and runs nothing in a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stratoscope.capture.views import Capture
from stratoscope.errors import Cancelled, SettingError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import Instrument, Judge
from stratoscope.instruments.registry import settings_of
from stratoscope.observe.contrast import contrast
from stratoscope.observe.diagnosing import Chosen, conclude
from stratoscope.observe.entries import group_of, labels_of
from stratoscope.observe.examine import finished, run_meta
from stratoscope.observe.resume import Begun, begin, earlier, identity_of
from stratoscope.observe.round import Progress, Round, in_order, needs_of
from stratoscope.observe.settings import Settings, load_settings
from stratoscope.observe.targets import Target, Targets, Weights, targets_of
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter


@dataclass(frozen=True)
class _Plan:
    """How an inspection is done."""

    chosen: Chosen
    settings: Settings
    patterns: tuple[str, ...] = ()
    deadline: float | None = None
    progress: Progress | None = None

    @property
    def instruments(self) -> list[Instrument]:
        return self.chosen.instruments

    def capture(self, target: Target) -> Capture:
        return Capture(target.make(), needs_of(self.instruments), patterns=self.patterns, deadline=self.deadline)

    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def part(self, number: int, of: int, name: str) -> Progress | None:
        """Progress of one of several equal parts."""
        tell = self.progress
        if tell is None or of == 1:
            return tell
        return lambda what, done, total: tell(f"{name}: {what}", number * total + done, of * total)


def inspect(
    *weights: Weights,
    to: str | Path | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    instruments: Sequence[Judge] | None = None,
    layers: Sequence[str] = (),
    compare: str | Path | None = None,
    heads: bool | int = False,
    view: str | None = None,
    seed: int | None = None,
    seconds: float | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    notify: Callable[[str], None] | None = None,
    name: str = "",
) -> Record:
    """Measure weights alone: a file, a sharded folder, a state dict, a live module, or checkpoints along a training.

    Several paths, a pattern such as `"runs/*.pt"`, or a folder of checkpoints become one record along `step`.

    ```python
    inspect("model.safetensors")["weights"]["stable_rank"]
    inspect("runs/checkpoint-100", "runs/checkpoint-200", to="runs/spectra")
    ```

    Args:
        *weights: what to look at; files are opened lazily and nothing in them is run.
        to: a folder for the record; in memory where it is left out. Called again with the same files, settings and
            folder after an interruption, it goes on where it stopped; if there is nothing left to do, the record is read.
        only: keys of the instruments and diagnoses to run; all by default. A diagnosis brings what it reads.
        skip: keys of those to leave out.
        instruments: instruments and diagnoses with their settings, instead of `only`, `skip` and the settings file.
        layers: patterns of layers, params or matrices, such as `"layer1.*"`; all by default.
        compare: another checkpoint; the record's metadata then hold how far each matrix is from the one there.
        heads: whether to look at the products of each attention head, too; a number says how many heads there are,
            where the checkpoint does not say.
        view: how convolutions are seen: `"matrix"`, `"slices"` or `"operator"`.
        seed: of everything random.
        seconds: after so many seconds what is left is skipped, with that reason.
        settings: thresholds and muted codes; those of `stratoscope.toml` in the working directory by default.
        progress: told `(what, done, total)`.
        notify: told, in a sentence, what the reader of the result should know: what an earlier call with the same folder
            had done already, or what could not be had.
        name: of the run, for people.

    Raises:
        StratoscopeError: if the weights cannot be opened or a setting cannot be used; one sentence says why.
        Cancelled: on Ctrl-C; its `record` holds what was measured until then.
    """
    tell = notify or (lambda sentence: None)
    if seconds is not None and not seconds > 0:
        raise SettingError(f"A time of {seconds} s measures nothing; give more than 0 seconds, or no limit.")
    settings = settings if settings is not None else load_settings()
    chosen = Chosen.of(instruments, only, skip, settings).without_training()
    chosen = replace(chosen, instruments=configured(chosen.instruments, view, seed))
    deadline = None if seconds is None else time.monotonic() + seconds
    patterns = (layers,) if isinstance(layers, str) else tuple(layers)
    plan = _Plan(chosen, settings, patterns, deadline, progress)
    targets = targets_of(weights, name, heads=heads, seed=seed or 0)
    other = None if compare is None else targets_of([compare], heads=heads, seed=seed or 0)
    _check(plan, targets, other)
    for note in targets.catalogue.notes:
        tell(note)
    identity = _identity(plan, targets, other, heads)
    folder = None if to is None else Path(to)
    if folder is not None and (kept := _finished(folder, identity)) is not None:
        tell(f"{folder} holds this inspection already, of {kept.meta.get('ended', '')[:16]}; it is not done again.")
        return kept
    begun = begin(folder, _meta(plan, targets), identity)
    if begun.said:
        tell(begun.said)
    return _measure(plan, targets, other, begun, folder)


def configured(instruments: Sequence[Instrument], view: str | None, seed: int | None) -> list[Instrument]:
    """The same instruments, with the view of convolutions and the seed where they have such a setting.

    Raises:
        SettingError: if there is none, or a view is asked for and no instrument has one.
    """
    if not instruments:
        raise SettingError("None of these instruments measures a network that is not in training; see watch.")
    given = {name: value for name, value in (("view", view), ("seed", seed)) if value is not None}
    done, viewed = [], view is None
    for instrument in instruments:
        own = settings_of(instrument)
        viewed |= "view" in own
        fitting = {name: value for name, value in given.items() if name in own}
        done.append(replace(instrument, **fitting) if fitting else instrument)
    if not viewed:
        keys = ", ".join(instrument.key for instrument in instruments)
        raise SettingError(f"view={view!r}: of {keys}, none sees convolutions in more than one way.")
    return done


def _check(plan: _Plan, targets: Targets, other: Targets | None) -> None:
    """Refuse patterns that fit nothing, and comparisons of more than two."""
    if other is not None and (targets.series is not None or other.series is not None):
        raise SettingError("Two single checkpoints can be compared, not a series along a training; name one file each.")
    wanted = plan.capture(targets.readable[-1]).wanted
    known = list(targets.catalogue.layers)
    if not any(map(wanted, known)):
        raise SettingError(f"No layer is called {' or '.join(plan.patterns)}; there are {', '.join(known[:12])}.")


def _identity(plan: _Plan, targets: Targets, other: Targets | None, heads: bool | int) -> dict[str, Any] | None:
    """What this inspection is of; `None` where the weights are in memory."""
    if not targets.paths:
        return None
    labels = labels_of(plan.chosen.judges)
    how = {
        "instruments": {group_of(instrument, label): settings_of(instrument) for instrument, label in labels.items()},
        "layers": list(plan.patterns),
        "heads": heads,
        "compare": None if other is None else [str(path.resolve()) for path in other.paths],
    }
    return identity_of([*targets.paths, *(other.paths if other is not None else [])], how)


def _finished(folder: Path, identity: dict[str, Any] | None) -> Record | None:
    """The record of an earlier call that came to its end."""
    kept = None if identity is None else earlier(folder, identity)
    if kept is not None and kept.meta.get("status") == "finished":
        return kept
    if kept is not None:
        kept.close()
    return None


def _meta(plan: _Plan, targets: Targets) -> dict[str, Any]:
    subject = targets.readable[-1].make()
    about = run_meta(subject, plan.chosen) | {"name": targets.name}
    if targets.series is not None:
        about["series"] = targets.about()
    elif targets.paths:
        about["opened"] = subject.source.about  # which part of a file was taken, and what was left out
    if targets.catalogue.notes:
        about["notes"] = list(targets.catalogue.notes)
    return about


def _measure(plan: _Plan, targets: Targets, other: Targets | None, begun: Begun, folder: Path | None) -> Record:
    writer = begun.writer
    try:
        complete = _rounds(plan, targets, begun)
        if other is not None:
            complete &= _compare(plan, targets.readable[0], other.readable[0], writer)
        return _end(plan, writer, folder, "" if complete else "the time was up")
    except KeyboardInterrupt:
        raise Cancelled(_end(plan, writer, folder, "cancelled")) from None
    except BaseException:
        writer.close("failed")
        raise


def _rounds(plan: _Plan, targets: Targets, begun: Begun) -> bool:
    """A round for each checkpoint, at its step; whether all of them came to their end."""
    every, known, complete = targets.every, in_order(list(targets.catalogue.layers.values())), True
    said = {finding.says for finding in Record.from_writer(begun.writer).findings}
    for finding in _problems(targets):
        if finding.says not in said:
            begun.writer.commit(finding.step or every[0].step, [], findings=[finding], cost_ms=0.0)
    for number, target in enumerate(every):
        done = begun.parts.get(target.step, 0)
        if target.problem or (done and done >= len(target.catalogue)):
            continue
        tell = plan.part(number, len(every), target.name)
        among = known if targets.series is not None else None
        one = Round(
            plan.capture(target), plan.instruments, begun.writer, target.step, deadline=plan.deadline, progress=tell,
            done=done, among=among,
        )  # fmt: skip
        one.run()
        complete &= one.complete
    return complete


def _problems(targets: Targets) -> list[Finding]:
    """What keeps the checkpoints of a series from being measured alike."""
    found = [
        Finding("ST000", "inspect", None, target.step, Outcome.FAILED, f"{target.name} cannot be opened: {target.problem}",
                "copy or download it again, or leave it out")
        for target in targets.every
        if target.problem
    ]  # fmt: skip
    if differences := targets.differences():
        found.append(Finding("ST000", "inspect", None, None, Outcome.NOT_APPLICABLE, differences))
    return found


def _compare(plan: _Plan, first: Target, second: Target, writer: RecordWriter) -> bool:
    """Measure the other checkpoint as well, and keep the comparison with the record."""
    if plan.late():
        return False
    with RecordWriter.create(None) as scratch:
        one = Round(
            plan.capture(second), plan.instruments, scratch, deadline=plan.deadline,
            progress=plan.part(0, 1, second.name),
        )  # fmt: skip
        one.run()
        records = Record.from_writer(writer), Record.from_writer(scratch)
        a, b = first.make(), second.make()
        rows = contrast(a, b, *records, plan.capture(first).wanted, plan.progress)
    writer.write_meta("comparison", {"before": str(first.path), "after": str(second.path), "layers": rows})
    return one.complete


def _end(plan: _Plan, writer: RecordWriter, folder: Path | None, stopped: str) -> Record:
    """Judge what is there, and close the record."""
    writer.write_meta("stopped", stopped)
    conclude(writer, plan.chosen, plan.settings)
    return finished(writer, folder, "interrupted" if stopped else "finished")
