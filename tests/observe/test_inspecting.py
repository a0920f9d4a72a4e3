"""Inspections: series in one record, going on after an interruption, and what is kept of one."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stratoscope import inspect
from stratoscope.capture.weights import Weights
from stratoscope.errors import Cancelled, OpenError, RecordError, SettingError, SubjectError
from stratoscope.findings import Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.weights import WeightMatrices
from stratoscope.network.stores import SafetensorsFile
from stratoscope.network.weights import StateDict
from stratoscope.record.quantity import quantity
from stratoscope.record.record import Record
from stratoscope.report.rows import rows_of

LAYERS = 5


def weights(scale=1.0, layers=LAYERS):
    generator = torch.Generator().manual_seed(0)
    return {f"fc{n}.weight": scale * torch.randn(8, 6, generator=generator) for n in range(layers)}


@dataclass(frozen=True)
class Norms(LayerInstrument):
    """The norm of each layer; it can be told to stop at one.

    Attributes:
        stop_at: layer at which it is interrupted; a setting that `stops` hides from the identity.
    """

    key: ClassVar[str] = "norms"
    title: ClassVar[str] = "Norms"
    source: ClassVar[str] = "arXiv:1501.01571"
    codes: ClassVar[dict] = {"NO001": "nothing"}
    stops: ClassVar[dict] = {}
    seen: ClassVar[list] = []

    factor: float = 1.0

    @property
    def requires(self):
        return {Weights()}

    def measure_layer(self, view):
        norm = sum(float(tensor.norm()) for tensor in view[Weights()].values())
        if view.layer.name in self.stops:
            raise self.stops[view.layer.name]
        self.seen.append(view.layer.name)
        return {"norm": quantity(self.factor * norm, units="1", long_name="norm")}

    def judge(self, measured):
        yield from ()


@pytest.fixture
def stops():
    """Layers at which `Norms` raises, and the layers that it has seen."""
    Norms.stops.clear()
    Norms.seen.clear()
    yield Norms.stops
    Norms.stops.clear()
    Norms.seen.clear()


@pytest.fixture
def loads(monkeypatch):
    """Every tensor that is read from a safetensors file."""
    found = []
    load = SafetensorsFile.load
    monkeypatch.setattr(SafetensorsFile, "load", lambda self, name: found.append(name) or load(self, name))
    return found


@pytest.fixture
def path(tmp_path):
    save_file(weights(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


# -- series --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for step in (1, 2, 10):
        save_file(weights(float(step)), folder / f"step_{step}.safetensors")
    return folder


def test_a_series_is_one_record_along_step(series):
    record = inspect(series, only="weights")
    norms = record["weights"]["frobenius_norm"].sel(matrix="fc0.weight")
    assert record.steps == (1, 2, 10)
    assert norms.sel(step=10).item() == pytest.approx(10 * norms.sel(step=1).item(), rel=1e-6)
    assert [one["step"] for one in record.meta["series"]["checkpoints"]] == [1, 2, 10]
    assert "step_" in record.meta["series"]["step"]


def test_each_step_of_a_series_is_the_same_as_that_checkpoint_alone(series):
    together = inspect(*sorted(series.iterdir()), only="weights")["weights"]["stable_rank"].sel(step=2)
    alone = inspect(series / "step_2.safetensors", only="weights")["weights"]["stable_rank"].isel(step=0)
    np.testing.assert_array_equal(together.values, alone.values)


def test_one_that_cannot_be_read_is_a_finding_and_the_rest_go_on(series):
    (series / "step_5.safetensors").write_bytes(b"cut off")
    record = inspect(series, only="weights")
    assert record["weights"].steps == (1, 2, 10)
    (failed,) = [f for f in record.findings if f.outcome is Outcome.FAILED]
    assert failed.code == "ST000"
    assert failed.step == 5
    assert "step_5.safetensors cannot be opened" in failed.says


def test_a_series_of_which_nothing_can_be_read_is_an_error(tmp_path):
    for step in (1, 2):
        (tmp_path / f"step_{step}.pt").write_bytes(b"nothing")
    with pytest.raises(SubjectError, match="None of the 2 checkpoints"):
        inspect(tmp_path)


def test_tensors_that_come_and_go_have_a_reason(tmp_path):
    save_file(weights(2.0, 9), tmp_path / "step_10.safetensors")
    save_file(weights(3.0, 8) | {"late.weight": torch.eye(3)}, tmp_path / "step_20.safetensors")
    record = inspect(tmp_path, only="weights")
    (said,) = [f for f in record.findings if f.outcome is Outcome.NOT_APPLICABLE]
    assert "2 tensors are not in every checkpoint: fc8.weight, late.weight" in said.says
    gone = {row.param: (row.status, row.reason) for row in record.coverage(20)}["fc8.weight"]
    assert gone == ("not_applicable", "not in this checkpoint")
    rows = {row["name"]: row for row in rows_of(record)}
    assert rows["fc8.weight"]["status"] == "measured"  # at earlier steps
    assert rows["late.weight"]["status"] == "measured"
    assert set(rows) == {*(f"fc{n}.weight" for n in range(9)), "late.weight"}


def test_checkpoints_of_different_networks_are_no_series(series):
    save_file({"other.weight": torch.eye(4)}, series / "step_30.safetensors")
    with pytest.raises(SubjectError, match=r"no checkpoints of one network .*only 0 of 6 tensors"):
        inspect(series)


def test_a_file_in_a_series_that_shrank_is_another_network(tmp_path):
    save_file({"fc.weight": torch.ones(4, 4)}, tmp_path / "net_4.safetensors")
    save_file({"fc.weight": torch.ones(8, 8)}, tmp_path / "net_8.safetensors")
    with pytest.raises(SubjectError, match="no checkpoints of one network"):
        inspect(tmp_path)


def test_several_in_memory_are_refused():
    with pytest.raises(SettingError, match="given as paths"):
        inspect(weights(), weights())
    with pytest.raises(SettingError, match="Nothing was given"):
        inspect()


# -- names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("lenet/model.safetensors", "lenet"),
        ("lenet/pytorch_model.bin", "lenet"),
        ("lenet/weights.safetensors", "lenet"),
        ("lenet/step_3.safetensors", "step_3"),
        ("llama-3.1/model.safetensors", "llama-3.1"),
    ],
)
def test_a_run_is_called_after_the_file_or_the_folder_where_the_file_says_nothing(file, name, tmp_path):
    (tmp_path / file).parent.mkdir()
    if file.endswith("bin"):
        torch.save(weights(), tmp_path / file)
    else:
        save_file(weights(), tmp_path / file)
    assert inspect(tmp_path / file, only="weights").meta["name"] == name
    assert inspect((tmp_path / file).parent, only="weights").meta["name"] == (tmp_path / file).parent.name


# -- going on ------------------------------------------------------------------------------------------------------------


def test_an_interruption_keeps_what_was_measured_and_says_so(path, stops):
    stops["fc2"] = KeyboardInterrupt()
    with pytest.raises(Cancelled) as stopped:
        inspect(path, instruments=[Norms()])
    record = stopped.value.record
    assert record.meta["status"] == "interrupted"
    assert record.meta["stopped"] == "cancelled"
    assert record["norms"]["norm"].coords["layer"].values.tolist() == ["fc0", "fc1"]
    rows = {row["name"]: (row["status"], row["reason"]) for row in rows_of(record)}
    assert rows["fc1.weight"] == ("measured", None)
    assert rows["fc2.weight"] == ("skipped", "cancelled before it was measured")
    assert len(rows) == LAYERS


def test_an_interrupted_inspection_goes_on_and_measures_nothing_twice(path, stops, loads, tmp_path):
    stops["fc3"] = KeyboardInterrupt()
    with pytest.raises(Cancelled) as stopped:
        inspect(path, instruments=[Norms()], to=tmp_path / "out")
    stopped.value.record.close()
    stops.clear()
    loads.clear()
    said = []
    record = inspect(path, instruments=[Norms()], to=tmp_path / "out", notify=said.append)
    assert loads == ["fc3.weight", "fc4.weight"]
    assert Norms.seen == [f"fc{n}" for n in range(LAYERS)]
    assert said == [f"Going on with the inspection in {tmp_path / 'out'}: 3 layers are there already."]
    whole = inspect(path, instruments=[Norms()])
    np.testing.assert_array_equal(record["norms"]["norm"].values, whole["norms"]["norm"].values)
    assert record.meta["status"] == "finished"
    assert not record.meta["stopped"]
    assert {row["status"] for row in rows_of(record)} == {"measured"}


def test_a_series_goes_on_where_it_stopped(series, stops, loads, tmp_path):
    seen = []

    class Interrupting(dict):
        def __contains__(self, name):
            seen.append(name)
            return len(seen) == LAYERS + 3

        def __getitem__(self, name):
            return KeyboardInterrupt()

    Norms.stops, old = Interrupting(), Norms.stops
    try:
        with pytest.raises(Cancelled):
            inspect(series, instruments=[Norms()], to=tmp_path / "out")
    finally:
        Norms.stops = old
    loads.clear()
    record = inspect(series, instruments=[Norms()], to=tmp_path / "out")
    assert len(loads) == 3 * LAYERS - (LAYERS + 2)
    assert record["norms"].steps == (1, 2, 10)
    assert np.isfinite(record["norms"]["norm"].values).all()


def test_what_was_opened_is_kept(tmp_path):
    torch.save({"epoch": 3, "model": weights()}, tmp_path / "m.pt")
    record = inspect(tmp_path / "m.pt", instruments=[Norms()])
    assert record.meta["opened"] == f"5 tensors in {tmp_path / 'm.pt'}, under 'model' (left out: epoch)"
    assert "opened" not in inspect(weights(), instruments=[Norms()]).meta


def test_a_finished_inspection_is_read_and_not_redone(path, stops, loads, tmp_path):
    inspect(path, instruments=[Norms()], to=tmp_path / "out").close()
    loads.clear()
    said = []
    record = inspect(path, instruments=[Norms()], to=tmp_path / "out", notify=said.append)
    assert loads == []
    assert record["norms"]["norm"].sizes["layer"] == LAYERS
    assert "not done again" in said[0]


KILLED = """
import os, signal, sys
from stratoscope import inspect
from stratoscope.capture.views import Capture
drop, dropped = Capture.drop, []
def until(self, layer):
    dropped.append(layer.name)
    if len(dropped) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    drop(self, layer)
Capture.drop = until
inspect(sys.argv[1], only="weights", to=sys.argv[2])
"""


def test_after_kill_9_it_goes_on_too(path, loads, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(tmp_path / "out")], capture_output=True, timeout=100, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    loads.clear()
    record = inspect(path, only="weights", to=tmp_path / "out")
    assert set(loads) == {"fc3.weight", "fc4.weight"}
    assert record["weights"]["stable_rank"].sizes["matrix"] == LAYERS
    assert record.meta["status"] == "finished"


@pytest.mark.parametrize(
    ("change", "match"),
    [("settings", r"other settings \(instruments\)"), ("file", "before it changed"), ("other", "of other files")],
)
def test_what_differs_is_not_gone_on_with(change, match, path, stops, tmp_path):
    inspect(path, instruments=[Norms()], to=tmp_path / "out").close()
    factor = 1.0
    if change == "settings":
        factor = 2.0
    elif change == "file":
        save_file(weights(2.0), path)
        os.utime(path, ns=(10**18, 10**18))
    else:
        path = path.rename(path.with_name("renamed.safetensors"))
    with pytest.raises(RecordError, match=match):
        inspect(path, instruments=[Norms(factor)], to=tmp_path / "out")


def test_the_record_of_something_else_is_left_alone(path, tmp_path):
    inspect(StateDict(weights()), only="weights", to=tmp_path / "out").close()
    with pytest.raises(RecordError, match="not of an inspection"):
        inspect(path, only="weights", to=tmp_path / "out")
    with pytest.raises(RecordError, match="holds a record already"):
        inspect(weights(), only="weights", to=tmp_path / "out")


def test_when_time_is_up_a_later_call_goes_on(path, tmp_path, loads):
    record = inspect(path, only="weights", to=tmp_path / "out", seconds=1e-9)
    assert record.meta["status"] == "interrupted"
    assert {row["status"] for row in rows_of(record)} == {"skipped"}
    record.close()
    record = inspect(path, only="weights", to=tmp_path / "out")
    assert record.meta["status"] == "finished"
    assert {row["status"] for row in rows_of(record)} == {"measured"}


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_that_measures_nothing_is_refused(path, seconds):
    with pytest.raises(SettingError, match="more than 0 seconds"):
        inspect(path, seconds=seconds)


def test_a_missing_file_leaves_no_record(tmp_path):
    with pytest.raises(OpenError, match="nowhere"):
        inspect(tmp_path / "nowhere.pt", to=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- layers, views, progress ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["fc1", "fc1.weight", "*1.weight", "f?1"])
def test_a_pattern_may_name_a_layer_or_a_tensor(path, pattern):
    record = inspect(path, only="weights", layers=pattern)
    assert record["weights"]["stable_rank"].coords["matrix"].values.tolist() == ["fc1.weight"]


def test_a_pattern_that_fits_nothing_is_an_error(path):
    with pytest.raises(SettingError, match="No layer is called conv"):
        inspect(path, layers="conv*")


def test_a_pattern_includes_further_calls_of_a_layer():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.act = torch.nn.ReLU()

        def forward(self, x):
            return self.act(self.act(x) - 1)

    from stratoscope import examine

    record = examine(Twice(), torch.randn(40, 6), layers="act", only="units")
    assert record["units"]["dead_share"].coords["layer"].values.tolist() == ["act", "act@2"]


def test_a_view_that_no_instrument_has_is_an_error(path):
    with pytest.raises(SettingError, match="none sees convolutions"):
        inspect(path, only="weights", view="slices")


def test_progress_says_which_tensor_and_how_much(path):
    told = []
    inspect(path, instruments=[WeightMatrices()], progress=lambda *args: told.append(args))
    assert [what.split(",")[0] for what, _, _ in told] == [f"fc{n}.weight" for n in range(LAYERS)] + ["done"]
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert told[-1][1] == told[-1][2]


def test_progress_of_a_series_goes_through_all_of_it(series):
    told = []
    inspect(series, only="weights", progress=lambda *args: told.append(args))
    done = [done / total for _, done, total in told]
    assert done == sorted(done)
    assert done[-1] == 1
    assert told[0][0].startswith("step_1.safetensors: fc0.weight")


def test_a_cancelled_record_can_be_opened_again(path, stops, tmp_path):
    stops["fc1"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        inspect(path, instruments=[Norms()], to=tmp_path / "out")
    assert Record.open(tmp_path / "out").meta["stopped"] == "cancelled"
