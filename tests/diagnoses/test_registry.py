"""Diagnoses are found by name, and say what they need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest

from stratoscope.diagnoses import registry
from stratoscope.diagnoses.base import Diagnosis
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity


@dataclass(frozen=True)
class Sums(Diagnosis):
    """Adds what two instruments measured."""

    key: ClassVar[str] = "sums"
    title: ClassVar[str] = "Sums"
    source: ClassVar[str] = "arXiv:1234.56789"
    codes: ClassVar[Mapping[str, str]] = {"SM001": "a sum is large"}
    reads: ClassVar[frozenset[str]] = frozenset({"one", "two", "three"})
    optional: ClassVar[frozenset[str]] = frozenset({"three"})

    limit: float = 1.0

    def derive(self, record):
        return {}

    def judge(self, measured):
        yield from ()


class Either(Sums):
    """Needs one of two."""

    optional: ClassVar[frozenset[str]] = frozenset({"one", "two", "three"})
    any_of: ClassVar[frozenset[str]] = frozenset({"one", "two"})


@pytest.fixture
def recorded():
    writers = []

    def make(*groups):
        writer = RecordWriter.create(None)
        writers.append(writer)
        entries = []
        for group in groups:
            key, _, label = group.partition(":")
            entries.append(Entry(key, "x", quantity(1.0, units="1", long_name="x"), label))
        if entries:
            writer.commit(0, entries)
        return Record.from_writer(writer)

    yield make
    for writer in writers:
        writer.close()


@pytest.mark.parametrize(
    ("there", "cls", "reason"),
    [
        ((), Sums, "it needs one and two, which were not measured"),
        (("one",), Sums, "it needs two, which was not measured"),
        (("three",), Either, "it needs one or two, none of which was measured"),
    ],
)
def test_what_is_missing_is_named(recorded, there, cls, reason):
    with pytest.raises(NotApplicable, match=f"^{reason}$"):
        cls().groups(recorded(*there))


def test_what_may_be_missing_may_be_missing(recorded):
    assert set(Sums().groups(recorded("one", "two", "four"))) == {"one", "two"}
    assert set(Either().groups(recorded("two", "three"))) == {"two", "three"}


def test_of_several_settings_of_an_instrument_the_first_is_read(recorded):
    groups = Sums().groups(recorded("one:n=5", "two", "one:n=9"))
    assert {key: group.key for key, group in groups.items()} == {"one": "one:n=5", "two": "two"}


def test_ours_are_found_by_walking():
    assert "depth" in registry.available()
    assert [type(one).key for one in registry.choose()] == list(registry.available())


def test_keys_are_unique_among_diagnoses_and_instruments():
    with pytest.raises(SettingError, match=r"has a diagnosis with the key 'sums', and .* a diagnosis"):
        registry._add({"sums": Sums}, Sums)

    class Clash(Sums):
        key: ClassVar[str] = "units"

    with pytest.raises(SettingError, match=r"has a diagnosis with the key 'units', and .* an instrument"):
        registry._add({}, Clash)


def test_one_that_is_abstract_is_none():
    assert registry.is_diagnosis(Sums)
    assert not registry.is_diagnosis(Diagnosis)
    assert not registry.is_diagnosis(Sums())


@pytest.fixture
def installed(monkeypatch):
    """Entry points of other packages."""
    from stratoscope.instruments import registry as instruments

    def install(loaded):
        class Point:
            name, value = "odd", "somewhere:odd"

            @staticmethod
            def load():
                return loaded

        monkeypatch.setattr(
            instruments, "entry_points", lambda group: [Point] if group == "stratoscope.diagnoses" else []
        )
        registry.available.cache_clear()

    yield install
    monkeypatch.undo()
    registry.available.cache_clear()


def test_entry_points_bring_more_of_them(installed):
    installed(Sums)
    assert registry.available()["sums"] is Sums
    assert [type(one) for one in registry.choose(["sums"], settings={"sums": {"limit": 2}})] == [Sums]


def test_an_entry_point_that_is_no_diagnosis_is_refused(installed):
    installed(dict)
    with pytest.raises(SettingError, match=r"'odd' \(somewhere:odd\) is no diagnosis class"):
        registry.available()


def test_choosing_checks_names_and_settings():
    with pytest.raises(SettingError, match=r"There is no diagnosis 'width'; there are .*depth"):
        registry.choose(["width"])
    with pytest.raises(SettingError, match="depth has no setting 'deep'; it has margin"):
        registry.choose(settings={"depth": {"deep": 1}})
    assert registry.choose([]) == []
    assert registry.choose(skip=list(registry.available())) == []
