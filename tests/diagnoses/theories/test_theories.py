"""Theories are found by name; a new one is a new file, and no diagnosis."""

from dataclasses import dataclass

import pytest

from stratoscope.diagnoses.registry import available, is_diagnosis
from stratoscope.diagnoses.theories.base import Answer, Phase, Theory, Told
from stratoscope.diagnoses.theories.registry import _add, is_theory, table, theories
from stratoscope.diagnoses.timeline import Timeline
from stratoscope.errors import SettingError
from stratoscope.instruments import registry as instruments
from stratoscope.observe.diagnosing import diagnose
from stratoscope.observe.settings import Settings
from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity
from stratoscope.testing.rules import SOURCE


@dataclass(frozen=True)
class Grokking(Theory):
    """A theory of somebody else: first it is memorised, then understood."""

    key = "grokking"
    title = "grokking"
    source = "arXiv:2201.02177"
    reads = "performance"
    stated = (Phase("memorising", "m", "train before test"), Phase("understanding", "u", "test follows"))
    turning = "the network begins to understand"

    late: int = 3

    def tell(self, asked):
        steps = asked.group.steps
        phases = tuple("memorising" if step < self.late else "understanding" for step in steps)
        return {"(root)": Told(steps, phases, Answer.ONE_PHASE, "made up")}


def test_ours_are_found_by_walking_and_are_no_diagnoses():
    assert list(theories()) == ["information", "reconstruction", "spectrum", "gradient"]
    assert not set(theories()) & set(available())
    assert not any(is_diagnosis(cls) for cls in theories().values())
    assert all(is_theory(cls) for cls in theories().values())
    assert not is_theory(Theory)


def test_each_says_who_it_is():
    for key, cls in theories().items():
        assert cls.key == key
        assert SOURCE.match(cls.source)
        assert cls.__doc__
        assert cls.reads in Timeline.reads
        assert cls().tell.__doc__
        assert len({phase.name for phase in cls.stated}) == len(cls.stated)


def test_every_phase_has_one_code_and_one_letter():
    assert [phase.name for phase in table()] == [
        "fitting", "compression", "flat", "falling", "rising", "flatter-than-noise", "random-like", "bleeding-out",
        "bulk+spikes", "bulk-decay", "heavy-tailed", "rank-collapse", "drift", "diffusion",
    ]  # fmt: skip
    letters = [phase.letter for phase in table()]
    assert len(set(letters)) == len(letters)
    assert all(len(letter) == 1 and letter.isascii() for letter in letters)


def test_clashes_are_refused():
    with pytest.raises(SettingError, match="both have a theory with the key 'grokking'"):
        _add({"grokking": Grokking}, Grokking)

    class Other(Grokking):
        key = "other"
        stated = (Phase("memorising", "M", "the same, called otherwise"),)

    with pytest.raises(SettingError, match="calls the phase 'memorising' 'M', and others 'm'"):
        _add({"grokking": Grokking}, Other)


@pytest.fixture
def installed(monkeypatch):
    """A package that brings a theory."""

    def install(loaded):
        class Point:
            name, value = "odd", "somewhere:odd"

            @staticmethod
            def load():
                return loaded

        monkeypatch.setattr(
            instruments, "entry_points", lambda group: [Point] if group == "stratoscope.theories" else []
        )
        theories.cache_clear()

    yield install
    monkeypatch.undo()
    theories.cache_clear()


def test_a_package_brings_another_theory_and_nothing_else_changes(installed, monkeypatch):
    installed(Grokking)
    # a class knows what it reads from when it is made, as in a process of its own
    monkeypatch.setattr(Timeline, "reads", Timeline.reads | {"performance"})
    monkeypatch.setattr(Timeline, "any_of", Timeline.reads)
    assert list(theories())[-1] == "grokking"
    with RecordWriter.create(None) as writer:
        for step in range(6):
            writer.commit(step, [Entry("performance", "accuracy", quantity(0.5, units="1", long_name="accuracy"))])
        made = Timeline(theories=(("grokking", "late", 2),))
        group = diagnose(Record.from_writer(writer), [made], Settings())["timeline"]
        phase = group["phase"].sel(layer="(root)", theory="grokking")
        letters = "".join(phase.attrs["letters"][int(code)] for code in phase.values)
        assert letters == "mmuuuu"
        assert [finding.code for finding in made.judge(group)] == ["TL003"]


def test_what_is_no_theory_is_refused(installed):
    installed(dict)
    with pytest.raises(SettingError, match=r"'odd' \(somewhere:odd\) is no theory class"):
        theories()
