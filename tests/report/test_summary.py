from stratoscope.findings import Finding, Outcome
from stratoscope.network.layers import Layer, Param
from stratoscope.record import Coverage
from stratoscope.report.summary import by_instrument, coverage_sentence, sayings, verdict
from stratoscope.report.table import table_of


def finding(outcome, code="XX001", layer=None, split=None, do="do it", says="says"):
    return Finding(code, "x", layer, 0, outcome, says, do, {}, "", split)


def test_the_verdict_counts_every_outcome():
    found = [finding(Outcome.TIP), finding(Outcome.ISSUE), finding(Outcome.ISSUE), finding(Outcome.PASSED)]
    assert verdict(found) == "2 issues, 1 tip, 1 check passed."
    assert verdict([finding(Outcome.PASSED)]) == "No issues: 1 check passed."
    assert verdict([]) == "Nothing was judged."


def test_the_most_pressing_comes_first_and_advice_once():
    found = [finding(Outcome.TIP, "B"), finding(Outcome.ISSUE, "A", "a", "train"), finding(Outcome.ISSUE, "A", "b", "train"),
             finding(Outcome.ISSUE, "A", "a", "test"), finding(Outcome.PASSED)]  # fmt: skip
    first, second = sayings(found)
    assert (first.code, second.code) == ("A", "B")
    assert [(f.layer, also) for f, also in first.items] == [("a", ["test"]), ("b", [])]


def test_different_advice_stays_apart():
    assert len(sayings([finding(Outcome.TIP, do="x"), finding(Outcome.TIP, do="y")])) == 2


def test_nothing_said_is_lost():
    found = [finding(Outcome.ISSUE, says="one"), finding(Outcome.ISSUE, says="two"), finding(Outcome.ISSUE, says="two")]
    found += [finding(Outcome.ISSUE, layer="a", says="three"), finding(Outcome.ISSUE, layer="a", says="four")]
    said = {f.says for saying in sayings(found) for f, _ in saying.items}
    assert said == {"one", "two", "three", "four"}


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
