import io

from rich.console import Console

from stratoscope import Record
from stratoscope.record import Entry, RecordWriter
from stratoscope.record.quantity import quantity
from stratoscope.report.terminal import print_report


def printed(record):
    out = io.StringIO()
    print_report(record, Console(file=out, width=100))
    return " ".join(out.getvalue().split())


def test_a_run_that_has_not_ended_well_says_so(tmp_path):
    writer = RecordWriter.create(tmp_path / "run", {"name": "mlp"})
    writer.append(1_200, [Entry("logged", "x", quantity(1.0, units="1", long_name="x"))])
    writer.flush()
    assert "Status running (or was killed); the last step is 1,200" in printed(Record.open(tmp_path / "run"))
    writer.close("interrupted")
    assert "Status interrupted; the last step is 1,200" in printed(Record.open(tmp_path / "run"))


def test_a_finished_run_does_not_say_it(tmp_path):
    with RecordWriter.create(tmp_path / "run", {"name": "mlp"}) as writer:
        writer.close("finished")
    assert "Status" not in printed(Record.open(tmp_path / "run"))


def test_of_weights_alone_the_status_says_why_and_names_no_step():
    import torch

    from stratoscope import inspect

    record = inspect({f"l{n}.weight": torch.randn(40, 40) for n in range(3)}, seconds=1e-9)
    assert "Status interrupted (the time was up)" in printed(record)
    assert "last step" not in printed(record)
