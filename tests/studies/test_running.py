"""A study whose truth is known: held, did not hold, undecided, failed, skipped; done once, and again when it changes."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from stratoscope.errors import RecordError, SettingError
from stratoscope.record.folder import LOCK, Lock
from stratoscope.studies import Claim, Evidence
from stratoscope.studies.running import run_study

EXPECTED = {
    "The gain rises with the size": "held",
    "The gain falls with the size": "did not hold",
    "The gain falls at last": "did not hold",
    "The noise has a sign": "undecided",
    "The check is sound": "undecided",
    "It applies": "undecided",
    "The broken part works": "undecided",
    "The absent part works": "undecided",
    "A part that nobody runs works": "undecided",
}


def results(outcome):
    return {row.claim: row.result for row in outcome.rows}


def reasons(outcome):
    return {row.claim: row.reason for row in outcome.rows}


def go(study, folder, budget="analogue", **options):
    return run_study(study, budget, engine="serial", to=folder / "runs", **options)


def test_the_truth_comes_out(toy, tmp_path):
    outcome = go(toy, tmp_path)
    assert results(outcome) == EXPECTED
    reason = reasons(outcome)
    assert "NotRecordedError" in reason["The check is sound"]
    assert reason["It applies"] == "not applicable: no unit can be dead"
    assert "part-broken-size-4-seed-0" in reason["The broken part works"]
    assert "failed: ValueError: it fell apart (3 of 9 tasks)" in reason["The broken part works"]
    assert "skipped: the data set is not on this machine" in reason["The absent part works"]
    assert reason["A part that nobody runs works"] == "no task of the analogue budget measures it"
    assert len(outcome.failed) == 4  # three tasks and one check
    assert len(outcome.runs) == 9 + 6


def test_a_row_says_all_that_the_ledger_needs(toy, tmp_path):
    row = go(toy, tmp_path).rows[0]
    assert (row.study, row.paper, row.where, row.note) == ("toy-study", toy.paper, "Figure 1", "with a ruler")
    assert (row.measure, row.units, row.budget, row.seeds) == ("rise of the gain", "m", "analogue", 3)
    assert set(row.numbers) == {"mean", "low", "high", "margin", "largest"}
    # the noise of a seed is the same for every size, so 6 + seed / 100 is left
    assert row.per_seed == pytest.approx({"0": 6.0, "1": 6.01, "2": 6.02})
    assert (row.numbers["mean"], row.spread) == pytest.approx((6.01, 0.01))
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert (row.numbers["low"], row.numbers["high"]) == pytest.approx((6.01 - half, 6.01 + half))
    assert row.tasks == {"finished": 9, "skipped": 0, "failed": 0}
    assert row.digest == toy.digest
    assert row.as_expected is True


def test_as_expected_is_not_the_same_as_held(toy, tmp_path):
    rows = {row.claim: row.as_expected for row in go(toy, tmp_path).rows}
    assert rows["The gain falls with the size"] is True
    assert rows["The gain falls at last"] is False
    assert rows["The noise has a sign"] is None


def test_a_smoke_run_decides_nothing(toy, tmp_path):
    outcome = go(toy, tmp_path, "smoke", seeds=6)
    assert set(results(outcome).values()) == {"undecided"}
    assert "proves that the code runs" in outcome.rows[0].reason
    assert outcome.rows[0].numbers["mean"] == pytest.approx(2.025)
    assert "check failed" in reasons(outcome)["The check is sound"]


def test_two_seeds_decide_nothing(toy, tmp_path):
    assert set(results(go(toy, tmp_path, seeds=2)).values()) == {"undecided"}


def test_nothing_is_done_twice(toy, tmp_path, calls):
    go(toy, tmp_path)
    assert len(calls()) == 27
    go(toy, tmp_path)
    again = calls()[27:]
    assert sorted(again) == sorted(
        [f"broken-4-{seed}" for seed in range(3)] + [f"absent-{size}-{seed}" for size in (2, 4, 8) for seed in range(3)]
    )
    go(toy, tmp_path, "full", seeds=4)  # shares the specs of three seeds
    assert sorted(calls()[39:]) == ["good-2-3", "good-4-3", "good-8-3"]


def test_what_was_cancelled_goes_on(toy, tmp_path, calls, monkeypatch):
    def cancel(what, done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(toy, tmp_path, "full", progress=cancel)
    assert len(calls()) == 4
    assert not (tmp_path / "runs" / "toy-study" / LOCK).exists()
    assert results(go(toy, tmp_path, "full"))["The gain rises with the size"] == "held"
    assert len(calls()) == len(set(calls())) == 18


def test_new_claims_are_checked_without_new_tasks_and_new_work_is_done(toy, package, tmp_path, calls):
    go(toy, tmp_path, "full")
    before, done = toy.digest, len(calls())
    claims = package / "claims.py"
    claims.write_text(claims.read_text() + "\n# a remark\n")
    assert toy.digest != before
    go(toy, tmp_path, "full")
    assert len(calls()) == done
    source = package / "study.py"
    source.write_text(source.read_text() + "\n# a remark\n")
    go(toy, tmp_path, "full")
    assert len(calls()) == 2 * done


def test_line_ends_of_another_system_change_nothing(toy, package):
    before = toy.digest
    source = package / "study.py"
    source.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    assert toy.digest == before


def test_records_are_combined_along_their_columns(toy, tmp_path):
    runs = go(toy, tmp_path, "full", seeds=2).runs
    gain = runs.array("toy", "gain").isel(step=-1).set_index(run=["seed", "size"]).unstack("run")
    assert dict(gain.sizes) == {"seed": 2, "size": 3}
    assert gain.sel(seed=1, size=8).item() == runs.where(seed=1, size=8).only.number("toy", "gain")
    assert runs.combined["toy"].attrs is not None
    runs.close()


def test_numbers_of_a_run_say_what_is_missing(toy, tmp_path):
    runs = go(toy, tmp_path, "full").runs
    one = runs[0]
    assert one.number("toy", "gain", step=0) == 0.0
    assert one.number("toy", "curve", bin=1) == 2.0
    with pytest.raises(SettingError, match="no single number"):
        one.number("toy", "curve")
    with pytest.raises(SettingError, match="has no"):
        one.number("toy", "curve", bin=7)
    with pytest.raises(SettingError, match="has no"):
        one.number("toy", "gain", step=77)
    with pytest.raises(RecordError, match="gain"):
        one.number("toy", "loss")
    with pytest.raises(SettingError, match="not one run but 18"):
        _ = runs.only
    with pytest.raises(SettingError, match="no column 'width'"):
        runs.values("width")
    assert runs.where(width=1).per_seed(len) == {}
    assert [run.spec["size"] for run in runs.where(seed=0).sorted("size")] == [2, 4, 8]
    assert len(runs[1:3]) == 2
    runs.close()


def test_two_processes_cannot_run_one_study_in_one_place(toy, tmp_path):
    home = tmp_path / "runs" / "toy-study"
    home.mkdir(parents=True)
    lock = Lock.take(home)
    with pytest.raises(RecordError, match="is being written by process"):
        go(toy, tmp_path)
    lock.release()
    assert results(go(toy, tmp_path)) == EXPECTED


def test_a_place_that_is_a_file_is_said(toy, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RecordError, match="cannot be written"):
        go(toy, tmp_path)


@pytest.mark.parametrize(("budget", "seeds"), [("huge", 1), ("smoke", 0), ("smoke", -1)])
def test_budgets_and_seeds_that_cannot_be_are_refused(toy, tmp_path, budget, seeds):
    with pytest.raises(SettingError, match=r"There is no budget|at least 1"):
        go(toy, tmp_path, budget, seeds=seeds)


def test_equal_tasks_and_specs_without_a_form_are_refused(toy, tmp_path):
    with pytest.raises(SettingError, match="same task twice"):
        go(replace(toy, tasks=lambda budget, seeds: [{"a": 1}, {"a": 1}]), tmp_path)
    with pytest.raises(RecordError, match="cannot be kept"):
        go(replace(toy, tasks=lambda budget, seeds: [{"a": object()}]), tmp_path)


def test_a_study_without_tasks_decides_nothing(toy, tmp_path):
    outcome = go(replace(toy, tasks=lambda budget, seeds: []), tmp_path)
    assert set(results(outcome).values()) == {"undecided"}


def test_names_and_claims_are_checked(toy):
    for name in ("", "Toy", "toy_study", "-toy", "toy study", "../toy"):
        with pytest.raises(SettingError, match="no name for a study"):
            replace(toy, name=name)
    with pytest.raises(SettingError, match="each said once"):
        replace(toy, claims=())
    with pytest.raises(SettingError, match="each said once"):
        replace(toy, claims=toy.claims[:1] * 2)


def test_evidence_that_is_none_leaves_a_claim_undecided(toy, tmp_path):
    claims = (
        Claim("a", "here", lambda runs: None, of={"part": "good"}),
        Claim("b", "here", lambda runs: Evidence({0: "yes"}, "answer"), of={"part": "good"}),
        Claim("c", "here", lambda runs: Evidence({0: 1.0}, "x", numbers={"big": math.inf}), of={"part": "good"}),
    )
    outcome = go(replace(toy, claims=claims), tmp_path)
    assert set(results(outcome).values()) == {"undecided"}
    assert [row.failed for row in outcome.rows] == [True, True, False]
    assert outcome.rows[2].numbers == {"mean": 1.0, "margin": 0.0}


def test_a_study_of_one_file_consists_of_that_file(toy, package, monkeypatch):
    module = __import__("sys").modules["toy.study"]
    assert [path.name for path in toy.sources] == ["__init__.py", "claims.py", "study.py"]
    monkeypatch.setattr(module, "__name__", "study")
    assert toy.sources == (Path(module.__file__),)
