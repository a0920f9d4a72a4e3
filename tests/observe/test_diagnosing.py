"""Diagnoses in a measurement: derived after the instruments, kept as a group, judged, and able to fail alone."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from stratoscope import Record, diagnose, examine, inspect, watch
from stratoscope.diagnoses import registry
from stratoscope.diagnoses.base import Diagnosis
from stratoscope.errors import NotApplicable, RecordError, SettingError
from stratoscope.findings import Outcome
from stratoscope.instruments.performance import Performance
from stratoscope.instruments.units import Units
from stratoscope.instruments.weights import WeightMatrices
from stratoscope.observe.deriving import derive, write
from stratoscope.observe.diagnosing import Chosen
from stratoscope.observe.judging import rejudge, rejudged
from stratoscope.observe.settings import Settings, load_settings
from stratoscope.record import Entry, RecordWriter
from stratoscope.record.quantity import quantity
from stratoscope.report.html import to_html
from stratoscope.report.terminal import print_report


@dataclass(frozen=True)
class Doubled(Diagnosis):
    """Twice the loss of each step and split, and how many steps there are.

    Attributes:
        limit: loss from which a tip is given.
        factor: by which it is multiplied.
        fails: how it goes wrong.
    """

    key: ClassVar[str] = "doubled"
    title: ClassVar[str] = "Doubled loss"
    source: ClassVar[str] = "arXiv:1234.56789"
    codes: ClassVar[Mapping[str, str]] = {"DD001": "the doubled loss is large"}
    reads: ClassVar[frozenset[str]] = frozenset({"performance"})

    limit: float = 0.0
    factor: float = 2.0
    fails: str = ""

    def derive(self, record):
        if self.fails == "derive":
            raise RuntimeError("on purpose")
        if self.fails == "give":
            return {"bad": 3}
        if self.fails == "labels":
            return {"bad": quantity([1.0], units="1", long_name="bad", dims="step", coords={"step": ["first"]})}
        if self.fails == "refuse":
            raise NotApplicable("it does not want to")
        loss = self.groups(record)["performance"]["loss"]
        steps, splits = (tuple(loss.coords[dim].values.tolist()) for dim in ("step", "split"))
        return {
            "twice": quantity(
                self.factor * loss.values, units="1", long_name="twice the loss", dims=("step", "split"),
                coords={"step": steps, "split": splits},
            ),
            "steps": quantity(len(steps), units="1", long_name="steps measured"),
        }  # fmt: skip

    def judge(self, measured):
        if self.fails == "judge":
            raise RuntimeError("on purpose")
        last = measured["twice"].isel(step=-1)
        for split in last.coords["split"].values:
            value = float(last.sel(split=split))
            if value > self.limit:
                yield self.finding(
                    "DD001", Outcome.TIP, f"{value:.2f} on {split}", do="look", value=value, limit=self.limit,
                    step=int(last.coords["step"]), split=str(split),
                )  # fmt: skip


@dataclass(frozen=True)
class Other(Doubled):
    """The same under another name."""

    key: ClassVar[str] = "other"
    codes: ClassVar[Mapping[str, str]] = {"DO001": "the doubled loss is large"}

    def judge(self, measured):
        yield from ()


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """Both are there, as if another package had brought them."""
    both = {**registry.available(), "doubled": Doubled, "other": Other}
    for module in ("stratoscope.diagnoses.registry",):
        monkeypatch.setattr(f"{module}.available", lambda: both)
    for name in ("stratoscope.observe.judging.diagnoses", "stratoscope.observe.diagnosing.every_diagnosis"):
        monkeypatch.setattr(name, lambda: both)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def data():
    draw = torch.Generator().manual_seed(1)
    return {name: (torch.randn(40, 6, generator=draw), torch.arange(40) % 3) for name in ("train", "test")}


def codes(record):
    return [(finding.code, finding.outcome, finding.split) for finding in record.findings if finding.code[:2] in "DDDO"]


def examined(*diagnoses, **given):
    return examine(network(), data(), instruments=[Performance(), *diagnoses], settings=Settings(), **given)


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_derived_is_a_group_of_the_record(tmp_path, on_disk):
    record = examined(Doubled(), to=tmp_path / "run" if on_disk else None)
    loss, twice = record["performance"]["loss"], record["doubled"]["twice"]
    assert twice.dims == ("step", "split")
    np.testing.assert_array_equal(twice.values, 2 * loss.values)
    assert record["doubled"].title == "Doubled loss"
    assert record["doubled"].attrs["source"] == "arXiv:1234.56789"
    assert twice.attrs["reads"] == "performance"
    assert record["doubled"]["steps"].dims == ("step",)
    assert codes(record) == [("DD001", Outcome.TIP, "train"), ("DD001", Outcome.TIP, "test")]
    (row,) = (row for row in record.coverage() if row.instrument == "doubled")
    assert (row.status, row.layer, row.param) == ("measured", "", "")


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        ("derive", "Doubled loss failed: RuntimeError: on purpose"),
        ("give", "Doubled loss failed: it gave {'bad': 3}"),
        ("labels", "Doubled loss failed: bad has the step 'first'"),
    ],
)
def test_one_that_fails_takes_nothing_with_it(fails, says):
    record = examined(Doubled(fails=fails), Other())
    (finding,) = (finding for finding in record.findings if finding.outcome is Outcome.FAILED)
    assert finding.code == "DD000"
    assert finding.says.startswith(says)
    assert "doubled" not in record
    assert record["other"]["twice"].size == 2
    (row,) = (row for row in record.coverage() if row.instrument == "doubled")
    assert row.status == "failed"
    assert row.reason in finding.says


def test_a_judgement_that_fails_keeps_the_numbers():
    record = examined(Doubled(fails="judge"))
    (finding,) = (finding for finding in record.findings if finding.outcome is Outcome.FAILED)
    assert "its judgement failed: RuntimeError: on purpose" in finding.says
    assert record["doubled"]["twice"].size == 2


def test_one_that_does_not_apply_says_why():
    record = examined(Doubled(fails="refuse"))
    (finding,) = (finding for finding in record.findings if finding.instrument == "doubled")
    assert (finding.code, finding.outcome) == ("DD000", Outcome.NOT_APPLICABLE)
    assert finding.says == "Doubled loss does not apply: it does not want to"


def test_without_its_instruments_it_is_in_the_coverage_alone():
    record = inspect(network(), instruments=[WeightMatrices(), Doubled()], settings=Settings())
    (row,) = (row for row in record.coverage() if row.instrument == "doubled")
    assert (row.status, row.reason) == ("not_applicable", "it needs performance, which was not measured")
    assert not [finding for finding in record.findings if finding.instrument == "doubled"]
    assert "doubled" not in record


def test_two_settings_have_a_group_each():
    record = examined(Doubled(factor=2.0), Doubled(factor=3.0))
    assert {"doubled:factor=2.0", "doubled:factor=3.0"} < set(record)
    ratio = record["doubled:factor=3.0"]["twice"].values / record["doubled:factor=2.0"]["twice"].values
    np.testing.assert_allclose(ratio, 1.5)
    assert {finding.instrument for finding in record.findings if finding.code == "DD001"} == {
        "doubled:factor=2.0", "doubled:factor=3.0"
    }  # fmt: skip


def test_a_watched_training_derives_for_all_its_steps(tmp_path):
    model, splits = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(
        model, splits, optimizer=optimizer, to=tmp_path / "run", instruments=[Performance(), Doubled()], every=4,
        budget=1e9, settings=Settings(),
    ) as w:  # fmt: skip
        for step in range(1, 11):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(splits["train"][0]), splits["train"][1]).backward()
            optimizer.step()
            w.step(step)
            if step == 6:
                live = diagnose(w.record, [Doubled()])
                assert live["doubled"].steps == (0, 4)
                assert "doubled" not in w.record
    record = Record.open(tmp_path / "run")
    assert record["doubled"].steps == (0, 4, 8, 10)
    np.testing.assert_array_equal(record["doubled"]["twice"].values, 2 * record["performance"]["loss"].values)
    assert [finding.step for finding in record.findings if finding.code == "DD001"] == [10, 10]
    assert np.isfinite(record["doubled"]["steps"].values).sum() == 1


def test_a_resumed_training_derives_anew(tmp_path):
    model, splits = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def go(steps, factor, **more):
        with watch(
            model, splits, optimizer=optimizer, to=tmp_path / "run", every=2, budget=1e9, settings=Settings(),
            instruments=[Performance(), Doubled(factor=factor)], **more,
        ) as w:  # fmt: skip
            for step in steps:
                w.step(step)

    go(range(1, 5), 2.0)
    go(range(5, 7), 3.0, resume=True)
    record = Record.open(tmp_path / "run")
    assert record["doubled"].steps == record["performance"].steps
    assert record["doubled"].steps[-1] == 6
    np.testing.assert_array_equal(record["doubled"]["twice"].values, 3 * record["performance"]["loss"].values)
    assert record["doubled"]["steps"].dropna("step").values.tolist() == [len(record["performance"].steps)]


def test_any_record_can_be_diagnosed_later(tmp_path):
    examine(network(), data(), instruments=[Performance()], to=tmp_path / "run", settings=Settings()).close()
    record = Record.open(tmp_path / "run")
    before = record.seq
    found = diagnose(record, [Doubled(), Other()])
    assert list(found) == ["doubled", "other"]
    assert codes(found) == [("DD001", Outcome.TIP, "train"), ("DD001", Outcome.TIP, "test")]
    assert found.meta["status"] == "finished"
    assert record.refresh().seq == before


def test_findings_can_be_computed_again_with_other_settings(tmp_path):
    examined(Doubled(limit=0.0), to=tmp_path / "run").close()
    record = Record.open(tmp_path / "run")
    assert codes(record.with_findings(rejudge(record, Settings()))) == codes(record)
    calm = rejudge(record, Settings(diagnoses={"doubled": {"limit": 100}}))
    assert not [finding for finding in calm if finding.code == "DD001"]
    # a setting that changes what is derived, too
    small = rejudge(record, Settings(diagnoses={"doubled": {"factor": 1e-6, "limit": 1e-3}}))
    assert not [finding for finding in small if finding.code == "DD001"]
    muted = rejudge(record, Settings(mute=("DD*",)))
    assert {finding.outcome for finding in muted if finding.code == "DD001"} == {Outcome.MUTED}


def test_what_is_derived_again_stands_in_the_record_that_is_judged_again(tmp_path):
    examined(Doubled(), to=tmp_path / "run").close()
    record = Record.open(tmp_path / "run")
    tripled = rejudged(record, Settings(diagnoses={"doubled": {"factor": 3.0}}))
    loss = record["performance"]["loss"].values
    np.testing.assert_allclose(tripled["doubled"]["twice"].values, 3.0 * loss)
    np.testing.assert_allclose(record["doubled"]["twice"].values, 2.0 * loss)
    assert list(tripled) == list(record)
    assert tripled["performance"]["loss"].identical(record["performance"]["loss"])
    assert len(tripled.with_findings([])) == len(tripled)
    gone = rejudged(record, Settings(diagnoses={"doubled": {"fails": "derive"}}))
    assert "doubled" not in gone
    with pytest.raises(RecordError, match="No 'doubled' was recorded"):
        gone["doubled"]


def test_what_failed_once_is_not_said_when_it_works_again(tmp_path):
    examined(Doubled(fails="derive"), to=tmp_path / "run").close()
    record = Record.open(tmp_path / "run")
    again = rejudge(record, Settings(diagnoses={"doubled": {"fails": ""}}))
    assert not [finding for finding in again if finding.outcome is Outcome.FAILED]
    assert len([finding for finding in again if finding.code == "DD001"]) == 2


def test_a_record_says_which_diagnoses_it_was_made_with():
    assert examined(Doubled()).meta["diagnoses"] == ["doubled"]
    record = examined()
    assert record.meta["diagnoses"] == []
    assert not [finding for finding in rejudge(record, Settings()) if finding.code == "DD001"]


# -- who takes part ------------------------------------------------------------------------------------------------------


def keys(chosen):
    return [one.key for one in chosen.instruments], [one.key for one in chosen.diagnoses]


def test_everybody_takes_part_unless_said_otherwise():
    instruments, diagnoses = keys(Chosen.of())
    assert {"units", "performance"} < set(instruments)
    assert {"depth", "doubled", "other"} <= set(diagnoses)
    assert "doubled" not in keys(Chosen.of(skip="doubled"))[1]


def test_only_means_only():
    assert keys(Chosen.of(only="units")) == (["units"], [])
    assert keys(Chosen.of(only=["units", "doubled"])) == (["performance", "units"], ["doubled"])
    assert keys(Chosen.of(only="doubled")) == (["performance"], ["doubled"])


def test_given_ones_are_taken_as_they_are():
    chosen = Chosen.of([Units(), Doubled(limit=5.0)])
    assert (chosen.instruments, chosen.diagnoses) == ([Units()], [Doubled(limit=5.0)])
    with pytest.raises(SettingError, match="'units' is neither an instrument nor a diagnosis"):
        Chosen.of(["units"])


def test_names_that_do_not_exist_are_an_error():
    with pytest.raises(SettingError, match=r"There is no instrument 'nope', nor a diagnosis; there are .*depth"):
        Chosen.of(only=["units", "nope"])
    with pytest.raises(SettingError, match="There is no diagnosis 'nope'"):
        Chosen.of(settings=Settings(diagnoses={"nope": {}}))


def test_settings_of_diagnoses_come_from_the_file(tmp_path):
    (tmp_path / "stratoscope.toml").write_text("[diagnoses.doubled]\nlimit = 3\n")
    settings = load_settings(folder=tmp_path)
    (found,) = (one for one in Chosen.of(settings=settings).diagnoses if one.key == "doubled")
    assert found.limit == 3
    (tmp_path / "stratoscope.toml").write_text("diagnoses = 3\n")
    with pytest.raises(SettingError, match="'diagnoses' must hold one table for each diagnosis"):
        load_settings(folder=tmp_path)


# -- what is kept and shown ----------------------------------------------------------------------------------------------


def test_labels_along_layers_and_data_sets_are_kept():
    import xarray as xr

    class Along(Doubled):
        def derive(self, record):
            values = np.array([[1.0, np.nan], [np.nan, np.nan]])
            coords = {"step": [0, 5], "layer": ["a", "b"]}
            attrs = {"units": "1", "long_name": "along"}
            return xr.Dataset({"x": xr.DataArray(values, dims=("step", "layer"), coords=coords, attrs=attrs)})

    with RecordWriter.create(None) as writer:
        for step in (0, 5):
            writer.commit(step, [Entry("performance", "loss", quantity(1.0, units="1", long_name="loss"))])
        record = Record.from_writer(writer)
        write(writer, derive(record, [replace(Along())]), 5)
        found = record.refresh()["doubled"]["x"]
        assert found.dims == ("step", "layer")
        # a step at which nothing is known is not kept
        assert found.coords["step"].values.tolist() == [0]
        assert found.coords["layer"].values.tolist() == ["a", "b"]


def test_reports_show_them_as_they_show_instruments(capsys):
    record = examined(Doubled())
    page = to_html(record)
    assert "Doubled loss" in page
    assert "Twice the loss" in page
    assert "Derived from" in page
    print_report(record)
    printed = capsys.readouterr().out
    assert "DD001" in printed
    assert "doubled twice" in printed


def test_warnings_are_none_of_its_business():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examined(Doubled(), Other())
