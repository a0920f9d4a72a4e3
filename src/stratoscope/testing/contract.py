"""The rules that every instrument keeps, as one check.

```python
from stratoscope.testing import check_instrument

def test_contract():
    check_instrument(MyInstrument)
```
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from stratoscope.capture.needs import Need
from stratoscope.capture.running import dtype_of
from stratoscope.findings import Finding
from stratoscope.instruments.base import Instrument, LayerInstrument, NetworkInstrument
from stratoscope.network.subject import Subject
from stratoscope.observe.examine import examine
from stratoscope.observe.settings import Settings
from stratoscope.record.quantity import DIMS
from stratoscope.record.record import Record
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
from stratoscope.testing.trial import (
    Trial,
    breaking,
    changed,
    difference,
    needs_training,
    noting,
    state_of,
    train,
    tried,
    unsettled,
)

BATCHES = {torch.float64: 1e-9, torch.float32: 1e-5}
"""How much may depend on whether 40 examples come at once or by eights."""
PRECISION = 1e-3
"""How much may depend on whether the network computes in float32 or float64."""
USUAL = ("mlp", "cnn", "transformer")
"""Subjects that are tried unless others are named."""


def check_instrument(instrument: Instrument | type[Instrument], subjects: Iterable[str | Subject] = USUAL) -> None:
    """Hold an instrument to the rules that every instrument keeps.

    It is default-constructible, a frozen dataclass, documented, and names its source; its codes have a prefix of their
    own; every variable has known dims, units and a long name; the same seed gives the same bytes; float32 and
    float64 agree; five batches of 8 give what one of 40 gives; no hook is left, after success or failure; the model and
    the global random states are bit for bit what they were; and it judges from saved numbers, with codes that it
    declares, plain evidence, a limit beside each, and something to do where it complains.

    Args:
        instrument: an instrument, or its class, which is made with its default settings.
        subjects: names in `stratoscope.testing.SUBJECTS`, or subjects of your own with 40 examples a split. It has to
            measure something on at least one.

    Raises:
        AssertionError: one sentence that names the rule that was broken.

    >>> from stratoscope.instruments.units import Units
    >>> check_instrument(Units, subjects=["mlp"])
    """
    made = made_of(instrument, (LayerInstrument, NetworkInstrument))
    check_identity(made)
    check_codes(made)
    _check_needs(made)
    measured = False
    for chosen in subjects:
        subject = SUBJECTS[chosen]() if isinstance(chosen, str) else chosen
        measured |= _Rules(made, subject, f"{made.key} on {subject.name or 'the subject'}").check()
    rule(measured, f"{made.key} measures nothing on these subjects; name one on which it does")


# -- what can be seen without measuring ----------------------------------------------------------------------------------


def _check_needs(made: Instrument) -> None:
    for name in ("requires", "uses"):
        needs = getattr(made, name)
        good = isinstance(needs, Set) and all(isinstance(need, Need) for need in needs)
        rule(good, f"{made.key}.{name} must be a set of needs")
        rule(
            needs == getattr(copy.copy(made), name),
            f"{made.key}.{name} must be the same, by value, each time it is asked",
        )
    rule(made.requires or made.uses, f"{made.key} asks for nothing: say in requires what must be there")


# -- what shows when it measures -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Rules:
    """One instrument on one subject."""

    made: Instrument
    subject: Subject
    name: str

    def check(self) -> bool:
        """Hold it to every rule; returns whether it measured anything."""
        trial = tried(self.made, self._at(40), then=self._judges_alike)
        self._check_failures(trial)
        self._check_untouched()
        self._check_weights_alone()
        if not trial.numbers:
            return False
        self._check_quantities(trial)
        check_findings(self.made, self.name, trial.findings)
        then, now = (sorted(map(text_of, findings)) for findings in (trial.said, trial.findings))
        rule(then == now, f"{self.name} must judge from saved numbers alone: read back, they say something else")
        self._check_precision(trial)
        self._check_failures_leave_no_trace()
        return True

    def _at(self, batch_size: int, dtype: torch.dtype | None = None) -> Subject:
        """The subject with other batches and another type; its own model stays as it is."""
        model = copy.deepcopy(self.subject.model)
        assert model is not None
        return replace(self.subject, model=model.to(dtype), batch_size=batch_size, _probes={})

    def _check_failures(self, trial: Trial) -> None:
        failed = [row.reason for row in trial.coverage if row.status == "failed"] or trial.failed
        rule(not failed, f"{self.name} must measure, or raise NotApplicable with the reason: {'; '.join(failed[:1])}")

    def _check_quantities(self, trial: Trial) -> None:
        known = {*DIMS, *self.made.dims}
        for where, found in trial.returned:
            for name, (dims, attrs) in found.items():
                at = f"{self.name}, at {where}"
                for dim in dims:
                    parts = {dim} if dim in known else set(dim.split("_"))
                    rule(parts <= known, f"{at}: the dim {dim!r} of {name} is not known; declare it in dims")
                for attribute in ("units", "long_name"):
                    value = attrs.get(attribute)
                    rule(isinstance(value, str) and value.strip(), f"{at}: {name} must have {attribute}")

    def _check_precision(self, trial: Trial) -> None:
        """The same again is the same; what batches and types do to the numbers is rounding."""
        assert self.subject.module is not None
        own = dtype_of(self.subject.module)
        found = {(40, own): tried(self.made, self._at(40)).numbers}
        far = difference(trial.numbers, found[40, own], 0.0)
        rule(not far, f"{self.name} must give the same bytes under the same seed: {far}")
        for n, dtype in ((40, torch.float64), (8, torch.float64), (40, torch.float32), (8, torch.float32)):
            if (n, dtype) not in found:
                found[n, dtype] = tried(self.made, self._at(n, dtype)).numbers
        for dtype, tolerance in BATCHES.items():
            far = difference(found[40, dtype], found[8, dtype], tolerance)
            rule(not far, f"{self.name} must not depend on how the data are cut into batches ({dtype}): {far}")
        far = difference(found[40, torch.float64], found[40, torch.float32], PRECISION)
        rule(not far, f"{self.name} must give in float32 what it gives in float64: {far}")

    # -- traces -------------------------------------------------------------------------------------------------------

    def _check_untouched(self) -> None:
        subject = unsettled(self._at(8))
        model = subject.module
        assert model is not None
        before = state_of(model)
        if needs_training(self.made):
            self._check_training_untouched(subject)
        else:
            tried(self.made, subject)
        traces = changed(before, state_of(model))
        rule(not traces, f"{self.name} must leave the model as it came: {', '.join(traces[:3])} changed")

    def _check_training_untouched(self, subject: Subject) -> None:
        """A watched training ends, bit for bit, where an unwatched one does."""
        states = []
        for instruments in (None, [self.made]):
            twin = replace(subject, model=copy.deepcopy(subject.model), _probes={})
            assert twin.module is not None
            with tempfile.TemporaryDirectory() as folder:
                train(twin, instruments, Path(folder) / "run")
            states.append(state_of(twin.module, identity=False))
        traces = changed(*states)
        rule(not traces, f"{self.name} must leave a training as it would be without it: {', '.join(traces[:3])} differ")

    def _check_failures_leave_no_trace(self) -> None:
        for place in (1, 2):
            failing = noting(self.made, [], fail_at=place)
            self._fails("measure raises", lambda subject, failing=failing: tried(failing, subject))  # type: ignore[misc]

        def broken(subject: Subject) -> None:
            assert subject.module is not None
            with breaking(subject.module, after=2):
                tried(self.made, subject)

        self._fails("the forward pass raises", broken)

    def _fails(self, when: str, run: Callable[[Subject], object]) -> None:
        subject = unsettled(self._at(8))
        assert subject.module is not None
        # a training changes the numbers before it breaks
        numbers = not needs_training(self.made)
        before = state_of(subject.module, numbers=numbers)
        with warnings.catch_warnings(), suppress(Exception):
            warnings.simplefilter("ignore")
            run(subject)
        traces = changed(before, state_of(subject.module, numbers=numbers))
        rule(not traces, f"{self.name} must leave no trace when {when}: {', '.join(traces[:3])} changed")

    def _check_weights_alone(self) -> None:
        assert self.subject.module is not None
        if needs_training(self.made):
            return
        weights = {name: t for name, t in self.subject.module.state_dict().items() if isinstance(t, torch.Tensor)}
        record = examine(subject=Subject(weights=weights), instruments=[self.made], settings=Settings())
        failed = [f"{row.layer}: {row.reason}" for row in record.coverage() if row.status == "failed"]
        rule(not failed, f"{self.name}, given weights alone, must raise NotApplicable: {'; '.join(failed[:1])}")

    # -- judgement ----------------------------------------------------------------------------------------------------

    def _judges_alike(self, record: Record) -> None:
        """From a file it says the same each time, and nothing that its codes do not hold, whatever the thresholds."""
        if self.made.key not in record:
            return
        group = record[self.made.key]
        once, twice = ([text_of(finding) for finding in self.made.judge(group)] for _ in range(2))
        rule(once == twice, f"{self.name} must judge the same numbers the same way each time")
        for other in other_thresholds(self.made):
            findings: list[Finding] = []
            with suppress(Exception):
                findings = list(other.judge(group))
            check_findings(self.made, self.name, findings)
