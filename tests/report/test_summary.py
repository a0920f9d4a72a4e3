import math
import time

import pytest

from stratoscope.findings import Finding, Outcome
from stratoscope.network.layers import Layer, Param
from stratoscope.record import Coverage
from stratoscope.report.summary import beyond, by_instrument, coverage_sentence, sayings, verdict
from stratoscope.report.table import table_of


def finding(outcome, code="XX001", layer=None, split=None, do="do it", says="says", evidence=None):
    return Finding(code, "x", layer, 0, outcome, says, do, evidence or {}, "", split)


def test_the_verdict_counts_every_outcome():
    found = [finding(Outcome.TIP), finding(Outcome.ISSUE, "A"), finding(Outcome.ISSUE, "B"), finding(Outcome.PASSED)]
    assert verdict(found) == "2 issues, 1 tip, 1 check passed."
    found = [finding(Outcome.ISSUE, layer=layer, split=split) for layer in "abc" for split in ("train", "test")]
    assert verdict(found) == "1 issue."
    assert verdict([finding(Outcome.PASSED)]) == "No issues: 1 check passed."
    assert verdict([]) == "Nothing was judged."


def test_the_most_pressing_comes_first_and_what_repeats_is_said_once():
    found = [finding(Outcome.TIP, "B"), finding(Outcome.ISSUE, "A", "a", "train"), finding(Outcome.ISSUE, "A", "b", "train"),
             finding(Outcome.ISSUE, "A", "a", "test"), finding(Outcome.PASSED)]  # fmt: skip
    first, second = sayings(found)
    assert (first.code, second.code) == ("A", "B")
    assert len(first.items) == 3
    assert (first.layers, first.splits) == (["a", "b"], ["train", "test"])
    assert first.others == "the worst of 3: also b, on train and test"
    assert second.others == ""


@pytest.mark.parametrize("low", [True, False])
def test_the_worst_is_the_one_that_is_furthest_beyond_its_limit(low):
    shares = [0.4, 0.05, 0.2] if low else [0.6, 0.95, 0.8]
    found = [
        finding(Outcome.TIP, layer=name, evidence={"n": 500, "share": share, "limit": 0.5, "more": 9.0})
        for name, share in zip("abc", shares, strict=True)
    ]
    (said,) = sayings(found)
    assert said.worst.layer == "b"
    assert said.layers == ["b", "a", "c"]
    assert said.others == "the worst of 3: also a, c"


def test_what_is_not_finite_is_worst_and_what_has_no_limit_is_not():
    assert beyond(finding(Outcome.ISSUE, evidence={"loss": "nan", "limit": "finite"})) == math.inf
    assert beyond(finding(Outcome.ISSUE, evidence={"loss": math.nan, "limit": 1.0})) == math.inf
    assert beyond(finding(Outcome.ISSUE, evidence={"count": 3, "limit": 0})) == pytest.approx(3)
    for evidence in ({}, {"loss": 3.0}, {"limit": 3.0, "loss": 9.0}):
        assert beyond(finding(Outcome.ISSUE, evidence=evidence)) == 0
    same = [finding(Outcome.TIP, layer=name, evidence={"x": 1.0, "limit": 0.5}) for name in "ab"]
    assert sayings(same)[0].worst.layer == "a"


def test_different_advice_stays_apart():
    assert len(sayings([finding(Outcome.TIP, layer="a", do="x"), finding(Outcome.TIP, layer="b", do="y")])) == 2


def test_advice_that_differs_by_names_and_numbers_is_one():
    found = [
        finding(Outcome.TIP, layer=layer, split=split, do=f"cut {model} after {layer}, train it {epochs:,} epochs on {split}",
                evidence={"layers": f"x, {model}", "x": 1.0, "limit": 0.5})
        for layer, split, model, epochs in (("fc", "train", "net", 7), ("conv2", "test", "twin", 1200), ("fc", "test", "net", 8))
    ]  # fmt: skip
    (said,) = sayings(found)
    assert len(said.items) == 3
    assert said.do == found[0].do


def test_nothing_said_is_lost():
    found = [finding(Outcome.ISSUE, says="one"), finding(Outcome.ISSUE, says="two"), finding(Outcome.ISSUE, says="two")]
    found += [finding(Outcome.ISSUE, layer="a", says="three"), finding(Outcome.ISSUE, layer="a", says="four")]
    said = [f.says for saying in sayings(found) for f in saying.items]
    assert sorted(said) == ["four", "one", "three", "two"]


def test_failures_with_reasons_of_their_own_stay_apart():
    found = [finding(Outcome.FAILED, layer=name, says=f"failed at {name}: {why}") for name, why in
             (("a", "no memory"), ("b", "no memory"), ("c", "singular matrix"))]  # fmt: skip
    assert [len(saying.items) for saying in sayings(found)] == [2, 1]


def test_the_coverage_sentence_counts_tensors_once(synthetic):
    params = tuple(Param(name, "a", (2, 2)) for name in ("a.w", "a.b", "a.c"))
    cover = [
        Coverage("i", "", "a", "a.w", "", 0, "measured"),
        Coverage("j", "", "a", "a.w", "", 0, "failed", "broke"),
        Coverage("i", "", "a", "a.b", "", 0, "not_applicable", "a vector"),
        Coverage("i", "", "a", "a.c", "", 0, "not_applicable", "a vector"),
    ]
    record = synthetic.record_of(layers=[Layer("a", "linear", 0, params)], coverage=cover)
    assert coverage_sentence(table_of(record).rows) == "1 tensor measured; 2 not applicable: a vector."
    first, second = by_instrument(record.coverage())
    assert first.counts == {"measured": 1, "not_applicable": 2, "skipped": 0, "failed": 0}
    assert first.reasons == [("not_applicable", "a vector", 2)]
    assert second.reasons == [("failed", "broke", 1)]


def test_a_part_measured_on_one_split_counts_as_measured():
    cover = [
        Coverage("i", "", "a", "", split, 0, status, "why")
        for split, status in (("train", "measured"), ("test", "failed"))
    ]
    assert by_instrument(cover)[0].counts["measured"] == 1
    assert by_instrument(cover[::-1])[0].counts["measured"] == 1


def test_many_findings_are_sorted_out_quickly():
    found = [
        finding(Outcome.TIP, layer=f"blocks.{n}.attention", split=split, do=f"cut at 'blocks.{n}.attention'", says=f"{n} dead",
                evidence={"share": n / 5000, "limit": 0.5})
        for n in range(5000) for split in ("train", "test")
    ]  # fmt: skip
    begun = time.perf_counter()
    (said,) = sayings(found)
    assert time.perf_counter() - begun < 5
    assert len(said.items) == 10_000
    assert said.worst.layer == "blocks.0.attention"
