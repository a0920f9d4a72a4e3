import os
import stat
import threading

import pytest

from stratoscope.errors import RecordError
from stratoscope.report.html import write_html


def test_a_pipe_stays_a_pipe(synthetic, tmp_path):
    # a rename would put a file in the place of a device: fatal for /dev/null where one may write there
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_html(synthetic.record_of(), pipe)
    reader.join(10)
    assert got[0].startswith(b"<!doctype html>")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_link_stays_a_link(synthetic, tmp_path):
    target, link = tmp_path / "there.html", tmp_path / "link.html"
    target.write_text("old, and longer than nothing")
    link.symlink_to(target)
    write_html(synthetic.record_of(), link)
    assert link.is_symlink()
    assert target.read_bytes().startswith(b"<!doctype html>")


@pytest.mark.parametrize("place", [".", "taken/report.html"])
def test_a_place_that_cannot_be_written_is_named(synthetic, tmp_path, place):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RecordError, match="cannot be written"):
        write_html(synthetic.record_of(), tmp_path / place)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["taken"]
