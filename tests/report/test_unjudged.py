import io

import torch
from rich.console import Console
from torch import nn

from stratoscope import examine
from stratoscope.findings import Finding, Outcome
from stratoscope.report.html import to_html
from stratoscope.report.terminal import print_report


def printed(record):
    out = io.StringIO()
    print_report(record, Console(file=out, width=100))
    return " ".join(out.getvalue().split())


def test_what_could_not_be_judged_is_said_once_for_each_code(synthetic):
    found = [
        Finding("UN005", "units", f"r{i}", 0, Outcome.SKIPPED, f"r{i}: 3 examples are too few to judge units")
        for i in range(18)
    ]
    text = printed(synthetic.record_of(findings=found))
    assert "UN005 r0: 3 examples are too few to judge units, and 17 more" in text
    assert "r1:" not in text


def test_labels_that_fit_no_loss_are_noticed():
    inputs, labels = torch.randn(40, 6), torch.arange(40) % 3 + 10
    record = examine(nn.Sequential(nn.Linear(6, 3)), (inputs, labels))
    (found,) = (f for f in record.findings if f.instrument == "performance")
    assert (found.code, found.split, found.outcome) == ("PF000", "data", Outcome.NOT_APPLICABLE)
    assert found.says == ("Performance is not measured on data: labels from 10 to 12 do not fit 3 outputs; give loss=")
    assert found.says in printed(record)
    assert "do not fit 3 outputs" in to_html(record)
    weights_alone = examine(nn.Sequential(nn.Linear(6, 3)))
    assert not [f for f in weights_alone.findings if f.instrument == "performance"]


def test_that_one_step_has_no_course_is_counted_and_not_told(synthetic):
    found = [
        Finding("TL000", "timeline", None, 0, Outcome.NOT_APPLICABLE, "there is one measured step only"),
        Finding("PF000", "performance", None, 0, Outcome.NOT_APPLICABLE, "labels do not fit"),
    ]
    text = printed(synthetic.record_of(findings=found))
    assert "2 checks not applicable" in text
    assert "labels do not fit" in text
    assert "one measured step" not in text
    assert "one measured step" in to_html(synthetic.record_of(findings=found))
    assert "one measured step" in printed(synthetic.record_of([(0, []), (9, [])], findings=found))
