"""Saving numbers, to let an instrument judge them."""

import pytest

from stratoscope.record import Entry, Record, RecordWriter


@pytest.fixture
def saved():
    """A function that saves `{(step, split): {name: quantity}}` and gives the group, read back."""
    writers = []

    def save(key, measured):
        writer = RecordWriter.create(None)
        writers.append(writer)
        for (step, split), found in sorted(measured.items()):
            writer.commit(step, [Entry(key, name, value, split=split) for name, value in found.items()])
        return Record.from_writer(writer)[key]

    yield save
    for writer in writers:
        writer.close()
