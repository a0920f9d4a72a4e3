"""What the page is told of a run before it asks for numbers, and the numbers it then gets."""

from __future__ import annotations

import numpy as np
import pytest

from stratoscope.network.layers import Catalogue, Layer
from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity
from stratoscope.record.variables import NotRecordedError
from stratoscope.view import index as index_module
from stratoscope.view.index import Contents, state_of


def per(values, layers=("a", "b")):
    return quantity(values, units="1", long_name="x", dims="layer", coords={"layer": list(layers)})


@pytest.fixture
def writer():
    writer = RecordWriter.create(None, {})
    yield writer
    writer.close()


def contents(writer):
    return Contents(Record.from_writer(writer), "run")


def test_what_was_not_measured_is_no_number(writer):
    writer.commit(0, [Entry("probe", "share", per([1.0], ["a"])), Entry("probe", "count", per([3], ["a"]))])
    writer.commit(1, [Entry("probe", "share", per([2.0, np.nan])), Entry("probe", "count", per([4, 5]))])
    for name, last in (("share", np.nan), ("count", 5)):
        found = contents(writer).variable("probe", name)
        assert found["labels"] == [["a", "b"]]
        assert found["measured"][:, 0].tolist() == [[True, False], [True, True]]
        np.testing.assert_array_equal(found["values"][:, 0, 1], [np.nan, last])


def test_a_run_is_live_until_it_ends(writer):
    assert contents(writer).index()["live"]
    writer.write_meta("status", "finished")
    assert not contents(writer).index()["live"]


def test_layers_say_what_they_are_part_of(writer):
    writer.write_layers(Catalogue({name: Layer(name, "linear", at) for at, name in enumerate(("block", "block.fc"))}))
    found = {layer["name"]: layer for layer in contents(writer).index()["layers"]}
    assert (found["block"]["parent"], found["block.fc"]["parent"]) == (None, "block")


def test_what_takes_long_is_done_once(writer, monkeypatch):
    writer.commit(0, [Entry("probe", "share", per([1.0, 2.0]))])
    calls, whole = [], index_module.charts_of
    monkeypatch.setattr(index_module, "charts_of", lambda *given: calls.append(given) or whole(*given))
    found = contents(writer)
    assert found.index() is found.index()
    for head in found.index()["charts"]:
        found.chart(head["id"])
    assert len(calls) == 1


def test_so_many_columns_are_shown_and_all_are_there(writer):
    names = [f"x{number:02}" for number in range(index_module.MOST_COLUMNS + 3)]
    writer.commit(0, [Entry("probe", name, per([1.0 + at, 2.0])) for at, name in enumerate(names)])
    table = contents(writer).index()["table"]
    assert [column["key"] for column in table["columns"]] == names
    assert len(table["shown"]) == index_module.MOST_COLUMNS
    assert set(table["shown"]) < set(names)


def test_heads_of_charts_hold_no_labels(writer):
    for step in range(3):
        writer.commit(step, [Entry("probe", "share", per(np.arange(20.0) * step, [f"l{at}" for at in range(20)]))])
    found = contents(writer)
    heads = found.index()["charts"]
    whole = [found.chart(head["id"]) for head in heads]
    assert any(chart["x"].labels or chart["y"].labels for chart in whole), [head["kind"] for head in heads]
    assert all(head["x"]["labels"] == head["y"]["labels"] == [] for head in heads)
    assert all("marks" in head and all(isinstance(mark, str) for mark in head["marks"]) for head in heads)


def test_what_is_not_there_is_named_shortly(writer):
    found = contents(writer)
    for ask in (lambda: found.chart("x" * 999), lambda: found.variable("x" * 999, "y" * 999)):
        with pytest.raises(NotRecordedError) as caught:
            ask()
        assert len(str(caught.value)) < 250


def test_a_run_in_the_place_of_another_is_another_state(tmp_path):
    def state(created):
        with RecordWriter.create(None, {"run_id": "one"}) as writer:
            writer.write_meta("created", created)
            return state_of(Record.from_writer(writer))

    assert state("today") != state("tomorrow")
    assert state("today") == state("today")


def test_a_chart_without_a_finite_number_says_so(writer):
    for step in range(2):
        nothing, one = np.full(2, np.nan), [np.nan, 1.0]
        floor = quantity(0.5, units="1", long_name="floor")
        writer.commit(
            step,
            [
                Entry("probe", "nothing", per(nothing)),
                Entry("probe", "one", per(one)),
                Entry("probe", "nothing_floor", floor),
            ],
        )
    heads = contents(writer).index()["charts"]
    empty = {head["variable"]: head["empty"] for head in heads if head["variable"] in ("nothing", "one")}
    assert empty == {"nothing": True, "one": False}
