"""What may run along the horizontal axis beside steps."""

import math

import numpy as np
import pytest

from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity
from stratoscope.view.index import Contents


def axes_of(*said, **about):
    """The axes of a run whose steps said this."""
    with RecordWriter.create(None, about) as writer:
        for step, one in enumerate(said):
            writer.commit(10 * step, [Entry("a", "x", quantity(1.0, units="1", long_name="x"))], **one)
        index = Contents(Record.from_writer(writer), "run").index()
    assert index["clock"].tolist() == [10 * step for step in range(len(said))]
    return {name: None if index[name] is None else index[name].tolist() for name in ("epochs", "tokens", "seconds")}


def test_tokens_run_along_where_they_are_known():
    found = axes_of({}, {"tokens": 512, "epoch": 0.5}, {"epoch": 1.0}, {"tokens": 2048})
    np.testing.assert_array_equal(found["tokens"], [np.nan, 512, np.nan, 2048])
    np.testing.assert_array_equal(found["epochs"], [np.nan, 0.5, 1.0, np.nan])
    assert found["seconds"][0] == 0


@pytest.mark.parametrize("name", ["epoch", "tokens"])
@pytest.mark.parametrize(
    "values",
    [
        [None, None, None],
        [None, 5, None],
        [5, 5, 5],  # everything in one place
        [1, 3, 2],  # began anew: the axis would run backwards
        [],
    ],
)
def test_what_is_no_axis_is_not_offered(name, values):
    found = axes_of(*[{} if value is None else {name: value} for value in values])
    assert found["epochs"] is None
    assert found["tokens"] is None


def test_an_endless_epoch_is_not_known():
    found = axes_of({"epoch": 0.0}, {"epoch": math.inf}, {"epoch": 2.0})
    np.testing.assert_array_equal(found["epochs"], [0, np.nan, 2])


def test_equal_counts_are_an_axis_where_another_is_larger():
    assert axes_of({"tokens": 0}, {"tokens": 0}, {"tokens": 9})["tokens"] == [0, 0, 9]
