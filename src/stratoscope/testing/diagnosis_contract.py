"""The rules that every diagnosis keeps, as one check.

```python
from stratoscope.testing import check_diagnosis

def test_contract():
    check_diagnosis(MyDiagnosis)
```
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from stratoscope.diagnoses.base import Diagnosis
from stratoscope.errors import NotApplicable
from stratoscope.instruments.base import Instrument
from stratoscope.instruments.registry import available
from stratoscope.network.subject import Subject
from stratoscope.observe.diagnosing import diagnose
from stratoscope.observe.examine import examine
from stratoscope.observe.settings import Settings
from stratoscope.record.quantity import DIMS, Quantity
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter
from stratoscope.testing.rules import (
    check_codes,
    check_findings,
    check_identity,
    made_of,
    other_thresholds,
    rule,
    text_of,
)
from stratoscope.testing.subjects import SUBJECTS
from stratoscope.testing.trial import difference, numbers_of, train

USUAL = ("mlp", "cnn")
"""Subjects that are tried unless others are named."""


def check_diagnosis(
    diagnosis: Diagnosis | type[Diagnosis],
    subjects: Iterable[str | Subject] = USUAL,
    instruments: Sequence[Instrument] | None = None,
) -> None:
    """Hold a diagnosis to the rules that every diagnosis keeps.

    It is default-constructible, a frozen dataclass, documented, and names its source; its key and the prefix of its codes
    are its own; it says which instruments it reads, and without those that it needs it is not applicable; what it
    derives has known dims, units and a long name, and labels of the record along `step` and `split`; the same record
    gives the same, from memory, from disk, finished or going on; it writes nothing to the record; and it judges from
    saved numbers, with codes that it declares, plain evidence, a limit beside each, and something to do where it
    complains.

    Args:
        diagnosis: a diagnosis, or its class, which is made with its default settings.
        subjects: names in `stratoscope.testing.SUBJECTS`, or subjects of your own. Each is examined, and trained for a
            few steps that are watched. On at least one something has to follow.
        instruments: who measures; by default those that the diagnosis reads, with their default settings.

    Raises:
        AssertionError: one sentence that names the rule that was broken.
    """
    made = made_of(diagnosis, (Diagnosis,))
    check_identity(made)
    check_codes(made)
    _check_reads(made)
    _check_without(made)
    given = [cls() for key, cls in available().items() if key in made.reads] if instruments is None else instruments
    followed = False
    for chosen in subjects:
        subject = SUBJECTS[chosen]() if isinstance(chosen, str) else chosen
        with tempfile.TemporaryDirectory() as folder:
            for path in _measured(subject, list(given), Path(folder)):
                with Record.open(path) as record:
                    followed |= _check_on(made, record, f"{made.key} on {subject.name or 'the subject'} ({path.name})")
    rule(followed, f"From {made.key} nothing follows on these subjects; name one on which it does")


def _check_reads(made: Diagnosis) -> None:
    for name in ("reads", "optional", "any_of"):
        keys = getattr(made, name)
        good = isinstance(keys, frozenset) and all(isinstance(key, str) for key in keys)
        rule(good, f"{made.key}.{name} must be a frozenset of keys")
    rule(made.reads, f"{made.key} reads nothing: name the instruments whose groups it looks at in reads")
    rule(made.optional <= made.reads, f"{made.key}.optional must be among what it reads")
    rule(made.any_of <= made.reads, f"{made.key}.any_of must be among what it reads")


def _check_without(made: Diagnosis) -> None:
    """Of a record that holds nothing, nothing follows, and it says so."""
    with RecordWriter.create(None) as writer:
        try:
            made.groups(Record.from_writer(writer))
        except NotApplicable as why:
            rule(str(why).strip(), f"{made.key} must say why it is not applicable")
            return
    raise AssertionError(f"{made.key} must raise NotApplicable where nothing that it reads was measured.")


def _measured(subject: Subject, instruments: list[Instrument], folder: Path) -> list[Path]:
    """Records of the subject: examined once, and watched over a few steps."""
    fresh = replace(subject, model=copy.deepcopy(subject.model), _probes={})
    examine(subject=subject, instruments=instruments, to=folder / "examined", settings=Settings()).close()
    train(fresh, instruments, folder / "watched")
    return [folder / "examined", folder / "watched"]


def _check_on(made: Diagnosis, record: Record, name: str) -> bool:
    """Hold it to every rule on one record; whether anything followed."""
    before = record.seq, record.steps
    try:
        found = made.derive(record)
    except NotApplicable as why:
        rule(str(why).strip(), f"{name} must say why it is not applicable")
        return False
    except Exception as error:  # whatever it is, it is told as a broken rule
        raise AssertionError(f"{name} must derive, or raise NotApplicable: {type(error).__name__}: {error}.") from error
    _check_quantities(made, getattr(found, "data_vars", found), record, name)
    once, twice = (diagnose(record, [made], Settings()) for _ in range(2))
    failed = [row.reason for row in once.coverage() if row.status == "failed"]
    rule(not failed, f"{name} must derive what a record can keep: {'; '.join(failed)}")
    if made.key not in once:
        return False
    far = difference(numbers_of(once, made.key), numbers_of(twice, made.key), 0.0)
    rule(not far, f"{name} must derive the same from the same record: {far}")
    rule(before == (record.refresh().seq, record.steps), f"{name} must leave the record as it is")
    _check_judgement(made, once, name)
    return True


def _check_quantities(made: Diagnosis, found: Mapping[str, Quantity], record: Record, name: str) -> None:
    known, steps = {*DIMS, *made.dims}, set(record.steps)
    for variable, value in found.items():
        for dim in map(str, value.dims):
            parts = {dim} if dim in known else set(dim.split("_"))
            rule(parts <= known, f"{name}: the dim {dim!r} of {variable} is not known; declare it in dims")
        for attribute in ("units", "long_name"):
            text = value.attrs.get(attribute)
            rule(isinstance(text, str) and text.strip(), f"{name}: {variable} must have {attribute}")
        if "step" in value.dims:
            labels = [float(step) for step in np.ravel(np.asarray(value.coords.get("step", ())))]
            good = labels and all(math.isfinite(step) and step in steps for step in labels)
            rule(good, f"{name}: label the dim step of {variable} with steps of the record")


def _check_judgement(made: Diagnosis, record: Record, name: str) -> None:
    """The same each time, and nothing that its codes do not hold, whatever the thresholds."""
    group = record[made.key]
    once, twice = (sorted(map(text_of, made.judge(group))) for _ in range(2))
    rule(once == twice, f"{name} must judge the same numbers the same way each time")
    check_findings(made, name, list(made.judge(group)))
    for other in other_thresholds(made):
        findings = []
        with suppress(Exception):
            findings = list(other.judge(group))
        check_findings(made, name, findings)
