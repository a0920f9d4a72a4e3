import json
import logging
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stratoscope import Finding, Outcome, quantity
from stratoscope.cli import output
from stratoscope.cli.instruments import cost_of
from stratoscope.cli.main import main
from stratoscope.instruments.training import Training
from stratoscope.instruments.weights import WeightMatrices
from stratoscope.record.entry import Entry
from stratoscope.record.writer import RecordWriter

MODEL = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
def dead():
    model = build()
    model[0].bias.data.fill_(-100.0)
    return model
def number():
    return 3
def broken():
    raise ValueError("no weights today")
"""


def cli(*arguments, folder, **environment):
    return subprocess.run(
        [sys.executable, "-m", "stratoscope.cli.main", *map(str, arguments)],
        check=False,
        cwd=folder,
        env={**os.environ, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model file, data and weights."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "model.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype("float32")
    np.savez(folder / "data.npz", x=x, y=(x[:, 0] > 0).astype("int64"))
    np.savez(folder / "nan.npz", x=np.full((8, 4), np.nan, "float32"), y=np.zeros(8, "int64"))
    np.savez(folder / "wrong.npz", x=x[:, :3], y=np.zeros(60, "int64"))
    weights = {
        "0.weight": torch.eye(8)[:, :4],
        "0.bias": torch.zeros(8),
        "2.weight": torch.ones(3, 8),
        "2.bias": torch.ones(3),
    }
    weights = {name: t.contiguous() for name, t in weights.items()}
    save_file(weights, folder / "w.safetensors")
    save_file({"other": torch.ones(2, 2)}, folder / "other.safetensors")
    save_file({"a.weight": torch.tensor([[1.0, float("nan")]]), "b.weight": torch.eye(3)}, folder / "bad.safetensors")
    return folder


def test_help_names_every_command_and_gives_an_example(place):
    top = cli("--help", folder=place)
    assert top.returncode == 0
    for name in ("demo", "inspect", "examine", "compare", "report", "instruments"):
        assert name in top.stdout
        assert "Example:" in cli(name, "--help", folder=place).stdout


def test_inspect_gives_a_row_for_every_tensor(place):
    done = cli("inspect", "w.safetensors", "--json", folder=place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {row["name"]: row for row in found["layers"]}
    assert {row["tensor"] for row in rows.values()} >= {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert rows["0.weight"]["stable_rank"] == pytest.approx(4.0)
    assert rows["2.weight"]["stable_rank"] == pytest.approx(1.0)
    assert rows["0.weight"]["kind"] == "linear"
    assert rows["0.weight"]["shape"] == [8, 4]
    assert {"name", "layer", "tensor", "kind", "shape", "status", "reason"} <= set(rows["0.bias"])
    assert {"code", "outcome", "says", "do", "evidence", "source", "layer", "step"} <= set(found["findings"][0])


def test_nan_in_one_tensor_is_null_with_a_reason_and_strict_says_so(place):
    done = cli("inspect", "bad.safetensors", "--json", "--strict", folder=place)
    assert done.returncode == 1, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["layers"]}
    assert rows["a.weight"]["stable_rank"] is None
    assert rows["b.weight"]["stable_rank"] == pytest.approx(3.0)
    assert any("reason" in key and value for key, value in rows["a.weight"].items())


def test_examine_with_weights_data_and_report(place):
    done = cli(
        "examine", "model.py:build", "--weights", "w.safetensors", "--data", "data.npz", "--to", "run", "--html", "r.html",
        "--json", folder=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["layers"]}
    assert "gdv" in rows["0.weight"]
    assert "dead_share" in rows["1"]
    again = cli("report", "run", "--json", folder=place)
    assert json.loads(again.stdout)["layers"] == json.loads(done.stdout)["layers"]
    assert "<svg" in (place / "r.html").read_text()


def test_strict_leaves_with_one_when_an_issue_is_found(place):
    done = cli("examine", "model.py:dead", "--data", "data.npz", "--only", "units", "--strict", folder=place)
    assert done.returncode == 1, done.stderr
    assert "UN001" in done.stdout


def test_thresholds_and_muting_come_from_the_settings_file(place, tmp_path):
    (tmp_path / "stratoscope.toml").write_text('mute = ["UN001"]\n')
    done = cli(
        "examine", place / "model.py:dead", "--data", place / "data.npz", "--only", "units", "--json", "--strict",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {f["outcome"] for f in json.loads(done.stdout)["findings"] if f["code"] == "UN001"} == {"muted"}


def test_compare_two_runs(place):
    for name, spec in (("one", "build"), ("two", "dead")):
        assert (
            cli("examine", f"model.py:{spec}", "--data", "data.npz", "--to", f"cmp-{name}", folder=place).returncode
            == 0
        )
    done = cli("compare", "cmp-one", "cmp-two", "--json", folder=place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["differences"]
    shown = cli("compare", "cmp-one", "cmp-two", folder=place)
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["inspect", "nothing.safetensors"], "nothing.safetensors"),
        (["inspect", "model.py"], "model.py"),
        (["examine", "model.py:nothing"], "build"),
        (["examine", "model.py:number"], "not a torch.nn.Module"),
        (["examine", "model.py:broken"], "failed when it was called: ValueError: no weights today"),
        (["examine", "nowhere.py:build"], "nowhere.py"),
        (["examine", "model.py:build", "--weights", "other.safetensors"], "do not fit"),
        (["examine", "model.py:build", "--data", "nan.npz"], "NaN"),
        (["examine", "model.py:build", "--data", "wrong.npz", "--to", "nothing"], "batch 0 of split"),
        (["examine", "model.py:build", "--only", "nonsense"], "There is no instrument"),
        (["examine", "model.py:build", "--device", "cuda:9"], "cuda:9"),
        (["examine", "model.py:build", "--memory", "lots"], "lots"),
        (["report", "nowhere"], "nowhere"),
        (["compare", "nowhere", "nothing"], "nowhere"),
        (["inspect"], "'path'"),
        (["inspect", "w.safetensors", "--time", "0"], "more than 0 seconds"),
        (["inspect", "w.safetensors", "--colour"], "--colour"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_two(place, arguments, says):
    done = cli(*arguments, folder=place)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_debug_shows_the_traceback(place):
    done = cli("--debug", "inspect", "nothing.safetensors", folder=place)
    assert "Traceback" in done.stderr
    assert done.returncode == 2


def test_debug_shows_the_traceback_of_an_instrument_that_failed(tmp_path, monkeypatch, caplog):
    def fails(self, view):
        raise ValueError("a fault of this instrument")

    save_file({"a.weight": torch.eye(3)}, tmp_path / "a.safetensors")
    monkeypatch.setattr(WeightMatrices, "measure_layer", fails)
    monkeypatch.setattr(sys, "argv", ["stratoscope", "--debug", "inspect", str(tmp_path / "a.safetensors")])
    monkeypatch.setenv("STRATOSCOPE_DEBUG", "")
    caplog.set_level(logging.NOTSET, "stratoscope")
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "in fails" in caplog.text


def test_what_an_instrument_costs_counts_what_it_uses():
    assert cost_of(Training()) == "at every step of a watched training"
    assert cost_of(WeightMatrices()) == "weights alone"


def test_a_killed_run_in_which_an_instrument_had_failed_is_judged(tmp_path):
    failed = Finding("UN000", "units", None, 0, Outcome.FAILED, "Unit census failed")
    writer = RecordWriter.create(tmp_path / "run", {"instruments": {"weights": {"settings": {}}}})
    values = {"not_finite": 2.0, "param_not_finite": 2.0}
    entries = [
        Entry("weights", name, quantity([value], units="1", long_name=name, dims=dim, coords={dim: ["a.weight"]}))
        for (name, value), dim in zip(values.items(), ("matrix", "param"), strict=True)
    ]
    writer.commit(0, entries, findings=[failed])
    done = cli("report", "run", "--json", folder=tmp_path)
    writer.close()
    assert done.returncode == 0, done.stderr
    assert {f["code"] for f in json.loads(done.stdout)["findings"]} >= {"UN000", "WT001"}


def test_what_goes_on_for_more_than_a_second_is_shown(monkeypatch):
    monkeypatch.setattr(output, "PATIENCE", 0.05)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    shown = []
    monkeypatch.setattr("rich.progress.Progress.update", lambda self, task, **what: shown.append(what))
    with output.progress() as tell:
        tell("passing over train", 0, 1)
        assert not any(what.get("visible") for what in shown)
        time.sleep(0.3)
        assert any(what.get("visible") for what in shown)


def test_data_that_do_not_fit_leave_no_half_made_record(place):
    assert cli("examine", "model.py:build", "--data", "wrong.npz", "--to", "half", folder=place).returncode == 2
    assert not (place / "half").exists()


def test_time_that_is_up_is_a_reason(place):
    done = cli("inspect", "w.safetensors", "--time", "1e-9", "--json", folder=place)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["layers"]
    assert {row["status"] for row in rows} == {"skipped"}
    assert all("time budget" in row["reason"] for row in rows)


def test_layers_that_were_not_asked_for_are_skipped_with_that_reason(place):
    done = cli("inspect", "w.safetensors", "--layers", "2", "--json", folder=place)
    rows = {row["name"]: row for row in json.loads(done.stdout)["layers"]}
    assert rows["2.weight"]["status"] == "measured"
    assert rows["0.weight"]["status"] == "skipped"
    assert "asked for" in rows["0.weight"]["reason"]


def test_every_real_checkpoint_has_a_row_for_every_tensor(data_folder, tmp_path):
    from safetensors import safe_open

    for name in ("llama_stories260k", "silero_vad_lstm", "imagenet_squeezenet_dc", "gpt_nano_sort"):
        path = data_folder / name / "model.safetensors"
        done = cli("inspect", path, "--json", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)["layers"]
        with safe_open(path, "pt") as opened:
            tensors = set(opened.keys())
        assert {row["tensor"] for row in rows if row["tensor"]} == tensors
        assert len({row["name"] for row in rows}) == len(rows)
        for row in rows:
            assert row["status"] == "measured" or row["reason"]


def test_demo_trains_and_writes_record_and_report(tmp_path):
    done = cli("demo", "--out", "d", "--epochs", "2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d" / "report.html").exists()
    assert "test accuracy" in done.stdout


@pytest.mark.slow
def test_the_broken_demo_names_its_faults_and_the_healthy_one_has_none(tmp_path):
    healthy = cli("demo", "--out", "h", "--json", folder=tmp_path)
    issues = [f for f in json.loads(healthy.stdout)["findings"] if f["outcome"] in ("issue", "failed")]
    assert issues == []
    broken = cli("demo", "--broken", "--out", "b", "--json", folder=tmp_path)
    codes = {(f["code"], f["layer"]) for f in json.loads(broken.stdout)["findings"] if f["outcome"] == "issue"}
    assert ("UN001", "block.relu") in codes
    assert any(code in ("TR002", "TR006", "TR001") for code, _ in codes)
