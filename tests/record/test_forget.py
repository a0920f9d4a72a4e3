"""What is derived is written anew: the old numbers of one group go, and nothing else does."""

import numpy as np
import pytest

from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity
from stratoscope.record.rows import Passed


def layers(*names, value=1.0):
    return quantity([value] * len(names), units="1", long_name="x", dims="layer", coords={"layer": names})


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_group_is_forgotten_and_written_anew(tmp_path, on_disk):
    with RecordWriter.create(tmp_path / "run" if on_disk else None) as writer:
        for step in (0, 1):
            writer.commit(step, [Entry("a", "x", layers("p", "q")), Entry("a", "x", layers("p"), "n=2")])
        writer.append(1, [Entry("b", "x", layers("p"))])
        writer.forget("a")
        record = Record.from_writer(writer)
        assert list(record) == ["a:n=2", "b"]
        # other dims, too
        writer.commit(0, [Entry("a", "x", quantity(3.0, units="1", long_name="x"))])
        found = record.refresh()["a"]["x"]
        assert found.dims == ("step",)
        assert found.values.tolist() == [3.0]
        np.testing.assert_array_equal(record["a:n=2"]["x"].values, [[1.0], [1.0]])
        writer.forget("never written")


def test_epochs_and_tokens_of_a_step_are_those_that_were_given():
    with RecordWriter.create(None) as writer:
        entry = [Entry("a", "x", layers("p"))]
        writer.commit(0, entry)
        writer.commit(1, entry, epoch=0.5, tokens=3)
        writer.append(2, entry, epoch=0.75)
        found = [writer.passed_at(step) for step in (0, 1, 2, 3)]
    assert found == [Passed(), Passed(0.5, 3), Passed(0.75), Passed()]


def test_after_its_end_nothing_is_known_of_a_step():
    writer = RecordWriter.create(None)
    writer.commit(0, [Entry("a", "x", layers("p"))], epoch=0.5, tokens=3)
    writer.commit(0, [Entry("a", "y", layers("p"))], tokens=5)
    assert writer.passed_at(0) == Passed(0.5, 5)
    writer.broken = "the disk is full"
    assert writer.passed_at(0) == Passed()
    writer.broken = None
    writer.close()
    assert writer.passed_at(0) == Passed()
