"""`study` and `ledger` on a study of another package, with its own small truth."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from stratoscope.cli.main import main
from stratoscope.studies import registry

STUDY = """
import os
import time

from stratoscope import quantity
from stratoscope.record.entry import Entry
from stratoscope.record.writer import RecordWriter
from stratoscope.studies import Claim, Evidence, Study


def tasks(budget, seeds):
    return [{"seed": seed} for seed in range(seeds)]


def work(spec, folder):
    with open("calls", "a") as file:
        file.write(f"{spec['seed']}\\n")
    while spec["seed"] == 2 and os.path.exists("wait"):
        time.sleep(0.05)
    if os.path.exists("broken"):
        raise ValueError("no luck")
    with RecordWriter.create(folder) as writer:
        writer.commit(0, [Entry("toy", "gain", quantity(1 + spec["seed"] / 10, units="m", long_name="gain"))])


def gain(runs):
    return Evidence(runs.per_seed(lambda same: same.only.number("toy", "gain")), "gain", units="m")


def loss(runs):
    return Evidence({seed: -value for seed, value in gain(runs).effect.items()}, "loss", units="m")


CLAIMS = Claim("There is a gain", "Figure 1", gain), Claim("There is a loss", "Figure 2", loss)
STUDY = Study("small-gain", "Gain", "doi:10.5555/12345678", "Is there a gain?", tasks, work, CLAIMS)
"""


@pytest.fixture
def place(tmp_path):
    """A folder with a `site` in which the study is installed."""
    info = tmp_path / "site" / "gains-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "gains.py").write_text(STUDY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gains\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stratoscope.studies]\ngains = gains:STUDY\n")
    return tmp_path


MAIN = """
import signal
from stratoscope.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell tells what runs in its background to ignore it
main()
"""


def begin(place, *arguments):
    command = [sys.executable, "-W", "error", "-c", MAIN, *arguments]
    # a group of its own, as a terminal makes one: Ctrl-C goes to all of it
    environment = {
        **os.environ,
        "PYTHONPATH": str(place / "site"),
        "STRATOSCOPE_LEDGER": str(place / "ledger.json"),
        "COLUMNS": "100",
    }
    return subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def cli(place, *arguments):
    process = begin(place, *arguments)
    out, err = process.communicate(timeout=170)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def here(place, monkeypatch, capsys):
    """The same in this process, which has loaded everything already."""
    monkeypatch.syspath_prepend(place / "site")
    monkeypatch.chdir(place)
    monkeypatch.setenv("STRATOSCOPE_LEDGER", str(place / "ledger.json"))
    monkeypatch.setenv("COLUMNS", "100")
    import gains

    monkeypatch.setattr(registry, "available", lambda: {"small-gain": gains.STUDY})

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["stratoscope", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, left.value.code, shown.out, shown.err)

    yield run
    del sys.modules["gains"]


def calls(place):
    return (place / "calls").read_text().split() if (place / "calls").exists() else []


def test_a_study_is_run_and_stands_in_the_ledger(place, here):
    done = here("study", "run", "small-gain", "--engine", "serial", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [task["state"] for task in found["tasks"]] == ["finished"] * 3
    assert [claim["result"] for claim in found["claims"]] == ["held", "did not hold"]
    assert found["folder"] == str(place / "runs" / "studies" / "small-gain")
    assert found["ledger"] == str(place / "ledger.json")

    listed = here("ledger", "--study", "small-gain", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)
    assert rows == found["claims"]
    assert {"study", "claim", "where", "result", "expected", "numbers", "seeds", "budget"} <= set(rows[0])
    assert (rows[0]["study"], rows[0]["seeds"], rows[0]["budget"]) == ("small-gain", 3, "analogue")
    assert rows[0]["numbers"]["mean"] == pytest.approx(1.1)

    shown = here("study", "run", "small-gain", "--engine", "serial")
    assert shown.returncode == 0, shown.stderr
    text = " ".join(shown.stdout.split())
    assert (
        "held There is a gain (Figure 1) gain 1.1 ± 0.1 m over 3 seeds, 95 % interval 0.852 to 1.35, margin 0" in text
    )
    assert "against expectation: expected to hold" in text
    assert "3 of 3 finished" in text
    assert len(calls(place)) == 3


def test_studies_and_claims_that_were_not_run_are_listed(here):
    rows = json.loads(here("study", "list", "--json").stdout)
    (mine,) = (row for row in rows if row["name"] == "small-gain")
    assert mine["claims"][0] == {"claim": "There is a gain", "where": "Figure 1", "expected": True}
    text = " ".join(here("study", "list").stdout.split())
    assert "small-gain Gain doi:10.5555/12345678 asks Is there a gain?" in text
    rows = json.loads(here("ledger", "--study", "small-gain", "--budget", "full", "--json").stdout)
    assert {(row["result"], row["reason"], row["budget"]) for row in rows} == {
        ("undecided", "not run at this budget", "full")
    }


def test_a_task_that_failed_is_shown_and_with_strict_is_an_exit_code(place, here):
    (place / "broken").write_text("")
    command = ("study", "run", "small-gain", "--budget", "smoke", "--engine", "serial")
    done = here(*command)
    assert done.returncode == 0, done.stderr
    assert "ValueError: no luck" in " ".join(done.stdout.split())
    assert "Traceback" in next((place / "runs").rglob("error.txt")).read_text()
    assert here(*command, "--strict").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["study", "run", "smal-gain"], "Did you mean 'small-gain'?"),
        (["study", "run", "small-gain", "--budget", "huge"], "smoke, analogue, full"),
        (["study", "run", "small-gain", "--engine", "cloud"], "serial, local"),
        (["study", "run", "small-gain", "--seeds", "0"], "--seeds"),
        (["study", "run"], "'name'"),
        (["ledger", "--study", "nothing"], "There is no study 'nothing'"),
        (["ledger", "--budget", "huge"], "smoke, analogue, full"),
    ],
)
def test_what_is_not_there_gets_one_sentence_and_exit_code_two(here, arguments, says):
    done = here(*arguments)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_damaged_ledger_is_said_before_anything_is_run(place, here):
    (place / "ledger.json").write_text("{")
    done = here("study", "run", "small-gain", "--budget", "smoke")
    assert done.returncode == 2
    assert "is damaged" in done.stderr
    assert calls(place) == []
    assert (place / "ledger.json").read_text() == "{"


@pytest.mark.slow
def test_a_study_of_another_package_is_found_and_run_in_other_processes(place):
    done = cli(place, "study", "run", "small-gain", "--engine", "local:2", "--json")
    assert done.returncode == 0, done.stderr
    assert [claim["result"] for claim in json.loads(done.stdout)["claims"]] == ["held", "did not hold"]
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "how"), [("serial", signal.SIGINT), ("local:2", signal.SIGINT), ("local:2", signal.SIGKILL)]
)
def test_what_is_stopped_keeps_what_is_done_and_goes_on(place, engine, how):
    (place / "wait").write_text("")
    process = begin(place, "study", "run", "small-gain", "--engine", engine)
    until = time.monotonic() + 120
    while len(calls(place)) < 3 and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)  # the first two are finished by now
    if how == signal.SIGKILL:
        process.kill()  # this process alone: the others find out
    else:
        os.killpg(process.pid, how)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -9)
    if how == signal.SIGINT:
        assert "Cancelled" in err
        assert "Traceback" not in err
    (place / "wait").unlink()
    assert sorted(calls(place)) == ["0", "1", "2"]
    done = cli(place, "study", "run", "small-gain", "--engine", engine, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["claims"][0]["result"] == "held"
    assert sorted(calls(place)) == ["0", "1", "2", "2"]
