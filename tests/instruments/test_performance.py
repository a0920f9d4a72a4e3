"""The instrument `performance`: loss, accuracy and what they say."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stratoscope import examine
from stratoscope.findings import Outcome
from stratoscope.instruments.performance import Performance
from stratoscope.numerics.intervals import clopper_pearson
from stratoscope.record.quantity import quantity
from stratoscope.testing import SUBJECTS


class Scores(nn.Module):
    """Gives its inputs back as scores."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.gain * x


def measured(scores, labels, **more):
    record = examine(Scores(), (scores, labels), instruments=[Performance()], **more)
    return {name: record["performance"][name].isel(step=0, split=0) for name in record["performance"]}, record


def said(group, **thresholds):
    return {f.code: f for f in Performance(**thresholds).judge(group) if f.outcome is not Outcome.PASSED}


def numbers(**values):
    return {name: quantity(float(value), units="1", long_name=name) for name, value in values.items()}


def skill(accuracy, n=1000, majority=0.1, loss=0.5):
    low, high = clopper_pearson(round(accuracy * n), n)
    return numbers(
        accuracy=accuracy, accuracy_low=low, accuracy_high=high, majority=majority, n=n, loss=loss, loss_se=0.01
    )


def test_the_numbers_of_a_known_answer():
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(60, 3, generator=generator), torch.tensor([0, 0, 1, 2, 0, 1] * 10)
    found, _ = measured(scores, labels)
    each = F.cross_entropy(scores, labels, reduction="none").double()
    hits = (scores.argmax(1) == labels).numpy()
    assert found["loss"].item() == pytest.approx(float(each.mean()), rel=1e-6)
    assert found["loss_se"].item() == pytest.approx(float(each.std()) / math.sqrt(60), rel=1e-6)
    assert found["accuracy"].item() == pytest.approx(hits.mean())
    low, high = clopper_pearson(int(hits.sum()), 60)
    assert found["accuracy_low"].item() == pytest.approx(float(low))
    assert found["accuracy_high"].item() == pytest.approx(float(high))
    assert found["majority"].item() == 0.5
    assert found["class_share"].values.tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    by_class = [hits[labels.numpy() == c].mean() for c in range(3)]
    assert found["class_accuracy"].values.tolist() == pytest.approx(by_class)
    assert found["loss"].attrs["kind"] == "cross entropy"


def test_the_same_loss_for_all_has_no_error():
    found, _ = measured(torch.zeros(50, 10), torch.arange(50) % 10)
    assert found["loss"].item() == pytest.approx(math.log(10))
    assert found["loss_se"].item() == 0


def test_a_class_without_examples_has_no_accuracy():
    found, _ = measured(torch.eye(4)[:3], torch.arange(3))
    assert np.isnan(found["class_accuracy"].values).tolist() == [False, False, False, True]


def test_the_user_s_loss_is_the_one_that_counts():
    scores, labels = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    found, _ = measured(scores, labels, loss=lambda output, target: 7 * F.cross_entropy(output, target))
    assert found["loss"].item() == pytest.approx(7 * float(F.cross_entropy(scores, labels)), rel=1e-6)
    assert np.isnan(found["loss_se"].item())
    assert "given" in found["loss"].attrs["long_name"]


def test_a_regression_has_a_loss_and_no_accuracy():
    record = examine(subject=SUBJECTS["regression"](), instruments=[Performance()])
    assert "accuracy" not in record["performance"]
    assert {f.code for f in record.findings} == {"PF001"}


def test_without_labels_it_is_not_applicable():
    record = examine(Scores(), torch.zeros(10, 3), instruments=[Performance()])
    assert {(row.status, row.reason) for row in record.coverage()} == {
        ("not_applicable", "the data have no labels, so there is no loss")
    }


def test_on_noise_it_is_no_better_than_the_commonest_class():
    """Scores that know nothing: the tip comes in about 97.5 % of all draws, and never with confidence of skill."""
    silent = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        scores, labels = torch.randn(200, 4, generator=generator), torch.randint(4, (200,), generator=generator)
        _, record = measured(scores, labels)
        silent += "PF002" not in said(record["performance"])
    assert silent <= 3


def test_skill_is_not_called_chance():
    _, record = measured(5 * torch.eye(4).repeat(25, 1), torch.arange(100) % 4)
    assert said(record["performance"]) == {}
    # one split at one step: there is no held-out accuracy to compare with, and no curve
    assert {f.code for f in record.findings} == {"PF001", "PF002"}


@pytest.mark.parametrize(
    ("splits", "steps", "codes"),
    [
        (("train", "test"), 4, {"PF001", "PF002", "PF003", "PF004"}),
        (("train", "test"), 3, {"PF001", "PF002", "PF003"}),
        (("train",), 4, {"PF001", "PF002", "PF004"}),
        (("data", "test"), 1, {"PF001", "PF002"}),
    ],
)
def test_only_what_was_looked_at_is_passed(saved, splits, steps, codes):
    group = saved("performance", {(step, split): skill(0.9) for step in range(steps) for split in splits})
    assert {f.code: f.outcome for f in Performance().judge(group)} == dict.fromkeys(codes, Outcome.PASSED)


def test_without_known_classes_chance_is_not_called_beaten(saved):
    found = skill(0.9)
    del found["majority"]
    findings = Performance().judge(saved("performance", {(0, "train"): found, (0, "test"): found}))
    assert {f.code for f in findings} == {"PF001", "PF003"}


def test_few_labels_or_one_class_are_not_called_chance():
    _, record = measured(torch.eye(3), torch.arange(3))
    (found,) = (f for f in record.findings if f.code == "PF002")
    assert found.outcome is Outcome.SKIPPED
    assert "3 labels of data are too few to tell an accuracy of 100.0% from chance" in found.says
    _, record = measured(torch.zeros(50, 3), torch.zeros(50, dtype=torch.int64))
    (found,) = (f for f in record.findings if f.code == "PF002")
    assert found.outcome is Outcome.SKIPPED
    assert "one class" in found.says


def test_the_interval_is_said_where_the_accuracy_alone_looks_better_than_chance(saved):
    found = said(saved("performance", {(0, "test"): skill(0.52, n=100, majority=0.5)}))["PF002"]
    assert found.outcome is Outcome.TIP
    assert f"as low as {float(clopper_pearson(52, 100)[0]):.1%}" in found.says


def test_a_loss_that_is_not_finite(saved):
    finding = said(saved("performance", {(5, "train"): skill(0.9, loss=float("nan"))}))["PF001"]
    assert finding.outcome is Outcome.ISSUE
    assert finding.evidence == {"loss": "nan", "limit": "finite"}
    assert (finding.step, finding.split) == (5, "train")


@pytest.mark.parametrize(("test", "n", "speaks"), [(0.95, 1000, False), (0.85, 1000, True), (0.85, 20, False)])
def test_a_gap_to_the_training_data(saved, test, n, speaks):
    found = said(saved("performance", {(1, "train"): skill(0.99, n), (1, "test"): skill(test, n)}))
    assert ("PF003" in found) is speaks
    if speaks:
        assert found["PF003"].split == "test"
        assert found["PF003"].evidence["gap"] == pytest.approx(0.14)
        assert found["PF003"].evidence["limit"] == 0.1


@pytest.mark.parametrize(
    ("curve", "speaks"),
    [([1, 0.5, 0.4, 0.35], False), ([1, 0.5, 0.4, 0.47], False), ([1, 0.4, 0.5, 0.6], True), ([0.1, 0.9, 0.9], False)],
)
def test_a_loss_that_has_risen_again(saved, curve, speaks):
    found = said(saved("performance", {(s, "test"): skill(0.9, loss=loss) for s, loss in enumerate(curve)}))
    assert ("PF004" in found) is speaks
    if speaks:
        assert found["PF004"].evidence["lowest_step"] == 1
        assert found["PF004"].evidence["ratio"] == pytest.approx(1.5)


def test_a_rise_within_the_standard_errors_is_none(saved):
    curve = [0.02, 0.01, 0.01, 0.02]  # each with an error of 0.01
    assert "PF004" not in said(saved("performance", {(s, "test"): skill(0.9, loss=v) for s, v in enumerate(curve)}))
    curve = [0.2, 0.1, 0.1, 0.2]
    assert "PF004" in said(saved("performance", {(s, "test"): skill(0.9, loss=v) for s, v in enumerate(curve)}))


def test_splits_that_are_measured_at_other_steps_are_judged_too(saved):
    found = said(saved("performance", {(1, "train"): skill(0.9), (2, "test"): skill(0.05, majority=0.2)}))
    assert found["PF002"].split == "test"
    assert found["PF002"].step == 2
