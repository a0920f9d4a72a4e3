"""`stratoscope inspect` as people run it."""

import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from stratoscope.cli.main import main

FAST = ("--only", "weights")


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run the command line in this process: its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("STRATOSCOPE_DEBUG", "")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["stratoscope", "inspect", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


def weights(seed=0, spike=0.0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(100, 120, generator=generator)
    strong = torch.randn(100, 1, generator=generator) @ torch.randn(1, 120, generator=generator)
    return {
        "fc.weight": noise + spike * strong,
        "fc.bias": torch.zeros(100),
        "out.weight": torch.randn(10, 100, generator=generator),
        "norm.running_mean": torch.zeros(10),
    }


@pytest.fixture
def place(tmp_path):
    """One checkpoint, another one, and a folder with a series."""
    save_file(weights(), tmp_path / "one.safetensors")
    save_file(weights(spike=0.5), tmp_path / "two.safetensors")
    (tmp_path / "stratoscope.toml").write_text("[instruments.spectrum]\nbootstrap = 0\nalternatives = false\n")
    (tmp_path / "run").mkdir()
    for step in (100, 200, 300):
        torch.save(weights(spike=step / 500), tmp_path / "run" / f"ckpt_{step}.pt")
    return tmp_path


# -- what is printed -----------------------------------------------------------------------------------------------------


def test_the_table_has_a_verdict_and_a_line_for_each_matrix(cli, place):
    code, out, _ = cli("two.safetensors")
    assert code == 0
    text = " ".join(out.split())
    assert "2 weight matrices: 1 undecided, 1 trained" in text
    assert "10 rows, too few for a phase" in text
    assert "bulk+spikes: 1 direction stands above noise" in text
    assert "fc.bias" not in text
    code, out, _ = cli("two.safetensors", "--all")
    assert "fc.bias" in out


def test_json_has_verdict_and_meaning_beside_every_column(cli, place):
    code, out, _ = cli("one.safetensors", "--json")
    found = json.loads(out)
    rows = {row["name"]: row for row in found["layers"]}
    assert code == 0
    assert found["status"] == "finished"
    assert rows["fc.weight"]["verdict"] == "untrained"
    assert "indistinguishable from noise" in rows["fc.weight"]["meaning"]
    assert rows["fc.weight"]["phase"] == "random-like"
    assert rows["fc.weight"]["alpha"] is None
    assert rows["fc.weight"]["alpha_reason"]
    assert rows["norm.running_mean"]["verdict"] == "not applicable"
    assert {"comparison", "series"}.isdisjoint(found)


def test_a_series_is_shown_along_its_steps(cli, place):
    code, out, _ = cli("run", "--html", "r.html")
    assert code == 0
    assert "Over steps" in out
    assert "3 checkpoints" in out
    page = (place / "r.html").read_text()
    assert "3 checkpoints; a step is the number after" in page
    code, out, _ = cli("run/ckpt_*.pt", "--json", *FAST)
    found = json.loads(out)
    assert [one["step"] for one in found["series"]["checkpoints"]] == [100, 200, 300]
    code, out, _ = cli("run/ckpt_100.pt", "run/ckpt_300.pt", "--json", *FAST)
    assert [one["step"] for one in json.loads(out)["series"]["checkpoints"]] == [100, 300]


def test_a_comparison_is_in_the_terminal_the_page_and_json(cli, place):
    code, out, _ = cli("one.safetensors", "--compare", "two.safetensors", "--html", "c.html")
    assert code == 0
    assert "Change" in out
    assert "random-like to bulk+spikes" in out
    assert "random-like to bulk+spikes" in (place / "c.html").read_text()
    code, out, _ = cli("one.safetensors", "--compare", "two.safetensors", "--json", *FAST)
    found = json.loads(out)["comparison"]
    assert (found["before"], found["after"]) == ("one.safetensors", "two.safetensors")
    assert found["layers"][0]["name"] == "fc.weight"
    assert found["layers"][0]["relative_change"] == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_comparison_fits(place, width, monkeypatch):
    import io

    from rich.console import Console

    from stratoscope import inspect
    from stratoscope.report.terminal import print_report

    file = io.StringIO()
    record = inspect(place / "one.safetensors", compare=place / "two.safetensors", only="weights")
    print_report(record, Console(file=file, width=width, highlight=False))
    assert max(map(len, file.getvalue().splitlines())) <= width


# -- options -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def attention(tmp_path):
    names = [f"blocks.0.attn.{part}_proj.weight" for part in ("q", "k", "v", "o")]
    generator = torch.Generator().manual_seed(0)
    save_file({name: torch.randn(16, 16, generator=generator) for name in names}, tmp_path / "attn.safetensors")
    return tmp_path


def test_heads_are_counted_where_their_number_is_given(cli, attention):
    _, out, _ = cli("attn.safetensors", "--json", *FAST)
    plain = {row["name"] for row in json.loads(out)["layers"]}
    for arguments in (("attn.safetensors", "--heads", "4"), ("--heads", "4", "attn.safetensors"), ("--heads=4", "attn.safetensors")):  # fmt: skip
        code, out, err = cli(*arguments, "--json", *FAST)
        assert code == 0, err
        more = {row["name"] for row in json.loads(out)["layers"]} - plain
        assert len([name for name in more if ":qk[" in name]) == 4


def test_heads_alone_take_the_number_from_the_checkpoint_and_say_where_there_is_none(cli, attention):
    code, out, err = cli("--heads", "attn.safetensors", "--json", *FAST)
    assert code == 0
    assert "heads" in err
    assert json.loads(out)["notes"]
    (attention / "config.json").write_text(json.dumps({"num_attention_heads": 2}))
    code, out, err = cli("attn.safetensors", "--heads", "--json", *FAST)
    assert any(":ov[1]" in row["name"] for row in json.loads(out)["layers"])


@pytest.mark.parametrize("view", ["matrix", "slices", "operator"])
def test_convolutions_are_seen_as_asked(cli, tmp_path, view):
    save_file({"conv.weight": torch.randn(8, 4, 3, 3)}, tmp_path / "conv.safetensors")
    code, out, err = cli("conv.safetensors", "--view", view, "--only", "spectrum", "--json")
    assert code == 0, err
    (row,) = json.loads(out)["layers"]
    assert row["status"] == "measured"
    assert (row["rf"] == 1) == (view == "matrix")
    assert (row["M"], row["N"]) == {"matrix": (8, 36), "slices": (4, 8), "operator": (4, 8)}[view]


def test_the_seed_is_handed_on(cli, place):
    seen = []
    for seed in (1, 1, 2):
        _, out, _ = cli("one.safetensors", "--seed", seed, "--json", "--only", "spectrum")
        seen.append(next(r["max_rand_eval"] for r in json.loads(out)["layers"] if r["name"] == "fc.weight"))
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.pt"], "There is no file or folder 'nowhere.pt'"),
        (["*.nothing"], "Nothing fits the pattern '*.nothing'"),
        (["empty"], "holds no weights that can be opened here (nothing)"),
        (["mixed"], "holds no weights that can be opened here (notes.txt, table.csv)"),
        (["one.safetensors", "--compare", "other.safetensors"], "no tensor of the same name"),
        (["one.safetensors", "--compare", "nowhere.pt"], "nowhere.pt"),
        (["run", "--compare", "one.safetensors"], "not a series"),
        (["one.safetensors", "other.safetensors"], "no checkpoints of one network"),
        (["one.safetensors", "--time", "0"], "more than 0 seconds"),
        (["one.safetensors", "--time", "-3"], "more than 0 seconds"),
        (["one.safetensors", "--heads", "0"], "--heads 0 is no number of heads"),
        (["one.safetensors", "--view", "sideways"], "sideways"),
        (["one.safetensors", "--layers", "conv*"], "No layer is called conv*"),
        (["one.safetensors", "--only", "nonsense"], "There is no instrument 'nonsense'"),
        (["one.safetensors", "--to", "done"], "of other files"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(cli, place, arguments, says):
    (place / "empty").mkdir()
    (place / "mixed").mkdir()
    (place / "mixed" / "notes.txt").write_text("x")
    (place / "mixed" / "table.csv").write_text("x")
    save_file({"other.weight": torch.eye(3)}, place / "other.safetensors")
    if "--to" in arguments:
        assert cli("other.safetensors", "--to", "done", *FAST)[0] == 0
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_strict_tells_a_broken_layer_and_an_unreadable_checkpoint_is_named(cli, place):
    save_file({"fc.weight": torch.full((3, 3), float("nan"))}, place / "nan.safetensors")
    assert cli("nan.safetensors", "--strict", *FAST)[0] == 1
    (place / "run" / "ckpt_250.pt").write_bytes(b"PK cut off")
    code, out, _ = cli("run", *FAST)
    assert code == 0
    assert "ckpt_250.pt cannot be opened" in " ".join(out.split())


# -- going on ------------------------------------------------------------------------------------------------------------


def test_a_second_call_says_that_there_is_nothing_left_to_do(cli, place):
    code, out, err = cli("one.safetensors", "--to", "record", *FAST)
    assert (code, err) == (0, "")
    code, again, err = cli("one.safetensors", "--to", "record", *FAST)
    assert code == 0
    assert "record holds this inspection already" in err
    assert again == out


def test_files_are_as_readable_as_the_umask_says(cli, place):
    from stratoscope.network.snapshot import save_snapshot

    old = os.umask(0o027)
    try:
        save_snapshot({"a": torch.zeros(2)}, place / "snapshot.safetensors")
        assert cli("one.safetensors", "--html", "h.html", "--to", "record", *FAST)[0] == 0
    finally:
        os.umask(old)
    for name in ("snapshot.safetensors", "h.html", "record/run.db"):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o640, name


SLOW = """
import signal, sys, time
from stratoscope.capture.views import Capture
from stratoscope.cli.main import main
drop = Capture.drop
def slowly(self, layer):
    drop(self, layer)
    print("layer", layer.name, file=sys.stderr, flush=True)
    time.sleep(0.4)
Capture.drop = slowly
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell tells what runs in its background to ignore it
main()
"""


@pytest.fixture
def many(tmp_path):
    save_file({f"fc{n}.weight": torch.randn(8, 8) for n in range(30)}, tmp_path / "many.safetensors")
    return tmp_path


def started(folder, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, "inspect", *arguments, *FAST], cwd=folder, text=True,
        env={**os.environ, "COLUMNS": "100"}, **options,
    )  # fmt: skip


def interrupted(folder, *arguments):
    """Ctrl-C after the third layer: the exit code, standard output and the other messages."""
    process = started(folder, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        seen = ""
        while seen.count("layer") < 3:
            seen += process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, seen + err


def test_ctrl_c_prints_what_was_measured_and_leaves_with_130(many):
    code, out, err = interrupted(many, "many.safetensors")
    assert code == 130, err
    assert "Partial: cancelled after" in out
    assert "fc0.weight" in out
    assert "Traceback" not in err


def test_ctrl_c_with_a_folder_goes_on_with_the_next_call(many):
    code, out, err = interrupted(many, "many.safetensors", "--to", "record", "--json")
    assert code == 130, err
    partial = json.loads(out)
    assert partial["status"] == "interrupted"
    measured = sum(row["status"] == "measured" for row in partial["layers"])
    assert 2 <= measured < 30
    command = [sys.executable, "-m", "stratoscope.cli.main", "inspect", "many.safetensors", "--to", "record", "--json"]
    done = subprocess.run([*command, *FAST], cwd=many, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{measured} layers are there already" in done.stderr
    assert {row["status"] for row in json.loads(done.stdout)["layers"]} == {"measured"}


def test_a_bar_in_a_terminal_says_what_and_how_long(many):
    mine, other = pty.openpty()
    process = started(many, "many.safetensors", stdout=subprocess.DEVNULL, stderr=other)
    os.close(other)
    seen, until = "", time.monotonic() + 60
    try:
        while time.monotonic() < until and not ("left" in seen and "%" in seen and ".weight" in seen):
            if select.select([mine], [], [], 1)[0]:
                seen += os.read(mine, 4096).decode("utf-8", "replace")
    finally:
        process.kill()
        process.wait()
        os.close(mine)
    assert "left" in seen
    assert "%" in seen
