"""Loss and hits, against the plain formulas."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stratoscope.capture.loss import loss_of
from stratoscope.capture.predictions import MAX_CLASSES, Predictions
from stratoscope.capture.views import Capture
from stratoscope.errors import CaptureError, NotApplicable
from stratoscope.network.sources import Batch
from stratoscope.network.subject import Subject
from stratoscope.testing import SUBJECTS
from stratoscope.testing.strategies import subjects


def tally_of(subject, split="data"):
    need = Predictions()
    return Capture(subject, frozenset({need})).value(need, subject.catalogue["(root)"], split)


def loss(output, labels, given=None, model=None):
    return loss_of(
        given, output, Batch(labels=labels, n=len(labels) if labels is not None else 1), model or nn.Identity()
    )


def scores(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=20)
@given(subjects())
def test_cross_entropy_and_hits(subject):
    subject.model.double()
    tally = tally_of(subject)
    inputs, labels = subject.data
    with torch.no_grad():
        output = subject.model(inputs.double())
    each = F.cross_entropy(output, labels, reduction="none")
    assert tally.kind == "cross entropy"
    assert tally.loss == pytest.approx(float(each.mean()), rel=1e-12)
    assert tally.loss_variance == pytest.approx(float(each.var()), rel=1e-9)
    assert tally.correct == int((output.argmax(1) == labels).sum())
    naive = torch.zeros(3, 3, dtype=torch.int64)
    for true, said in zip(labels.tolist(), output.argmax(1).tolist(), strict=True):
        naive[true, said] += 1
    assert torch.equal(tally.confusion, naive)


@pytest.mark.parametrize("batch_size", [1, 7, 8, 13])
@pytest.mark.parametrize("name", ["mlp", "regression", "segmentation", "tied", "transformer"])
def test_batches_change_nothing(name, batch_size):
    subject = SUBJECTS[name]()
    subject.model.double()
    split = next(iter(subject.splits))
    whole, parts = tally_of(subject, split), tally_of(replace(subject, batch_size=batch_size, _probes={}), split)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-12)
    assert parts.loss_variance == pytest.approx(whole.loss_variance, rel=1e-9)
    assert (parts.n, parts.correct, parts.not_finite) == (whole.n, whole.correct, whole.not_finite)


def test_regression_is_the_mean_squared_error():
    subject = SUBJECTS["regression"]()
    inputs, targets = subject.data
    tally = tally_of(subject)
    assert tally.kind == "mean squared error"
    assert tally.loss == pytest.approx(float(F.mse_loss(subject.model(inputs).detach(), targets)), rel=1e-6)
    assert tally.correct is None
    assert tally.confusion is None


def test_one_output_and_flat_targets_are_a_regression():
    output, labels = scores(6, 1), scores(6, seed=1)
    assert float(loss(output, labels).mean) == pytest.approx(float(F.mse_loss(output[:, 0], labels)))


def test_tokens_without_a_label_do_not_count():
    subject = SUBJECTS["tied"]()
    labels = subject.data["labels"]
    tally = tally_of(subject)
    with torch.no_grad():
        output = subject.model(subject.data["input_ids"])["logits"]
    assert tally.n == int((labels != -100).sum())
    assert tally.loss == pytest.approx(float(F.cross_entropy(output.flatten(0, 1), labels.flatten())), rel=1e-6)


def test_every_labelled_pixel_counts():
    subject = SUBJECTS["segmentation"]()
    inputs, labels = subject.data
    tally = tally_of(subject)
    with torch.no_grad():
        output = subject.model(inputs)
    assert tally.n == int((labels != -100).sum())
    assert tally.loss == pytest.approx(float(F.cross_entropy(output, labels)), rel=1e-6)
    assert tally.correct == int((output.argmax(1) == labels).sum())


def test_a_batch_without_any_label_is_passed_over():
    labels = torch.full((12,), -100)
    labels[:5] = torch.arange(5) % 3
    subject = Subject(nn.Linear(4, 3), (scores(12, 4).float(), labels), batch_size=2)
    assert tally_of(subject).n == 5


class HuggingFaceLike(nn.Module):
    """Gives an object with the loss that it made of the labels, as Transformers does."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(12, 6), nn.Linear(6, 3)

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.head(self.embed(input_ids).mean(1))
        found = {"logits": logits}
        if labels is not None:
            found = {"loss": F.cross_entropy(logits, labels, label_smoothing=0.1), **found}
        return found


def test_a_model_s_own_loss_is_used():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(12, (10, 5), generator=generator)
    data = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(10) % 3}
    model = HuggingFaceLike()
    tally = tally_of(Subject(model, data, batch_size=5))
    with torch.no_grad():
        expected = model(**data)["loss"]
    assert tally.kind == "the model's own"
    assert tally.loss == pytest.approx(float(expected), rel=1e-6)
    assert tally.loss_variance != tally.loss_variance
    assert tally.correct is not None


class SomethingForCausalLM(nn.Module):
    """A name by which Transformers' language models are known: their labels are the inputs, shifted by nobody."""


def test_language_models_of_transformers_predict_the_next_token():
    output, labels = scores(2, 5, 7), torch.randint(7, (2, 5), generator=torch.Generator().manual_seed(1))
    found = loss(output, labels, model=SomethingForCausalLM())
    expected = F.cross_entropy(output[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert float(found.mean) == pytest.approx(float(expected))
    assert found.n == 8


# -- the user's own loss -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_a_loss_of_the_users_own(reduction, batch_size):
    subject = SUBJECTS["frozen"]()
    subject.model.double()
    own = nn.CrossEntropyLoss(reduction=reduction, label_smoothing=0.2)
    tally = tally_of(replace(subject, loss=own, batch_size=batch_size, _probes={}))
    inputs, labels = subject.data
    with torch.no_grad():
        each = F.cross_entropy(subject.model(inputs.double()), labels, reduction="none", label_smoothing=0.2)
    assert tally.kind == "given"
    assert tally.loss == pytest.approx(float(each.mean()), rel=1e-12)
    assert tally.correct is not None
    known = reduction == "none"
    assert tally.loss_variance == pytest.approx(float(each.var()) if known else float("nan"), rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_given_loss_over_tokens_counts_those_with_a_label(reduction):
    subject = SUBJECTS["segmentation"]()
    own = nn.CrossEntropyLoss(reduction=reduction)
    usual = tally_of(subject)
    for batch_size in (8, 40):
        tally = tally_of(replace(subject, loss=own, batch_size=batch_size, _probes={}))
        assert tally.n == usual.n
        assert tally.loss == pytest.approx(usual.loss, rel=1e-6)


def test_a_given_loss_may_use_labels_that_are_no_classes():
    output, labels = scores(6, 1), torch.tensor([0, 1, 1, 0, 1, 1])

    def own(raw, targets):
        return F.binary_cross_entropy_with_logits(raw[:, 0], targets.to(raw))

    found = loss(output, labels, own)
    assert (found.kind, found.n, found.logits) == ("given", 6, None)


def test_a_given_loss_gets_the_output_as_it_is():
    def own(raw, targets):
        assert set(raw) == {"logits", "hidden"}
        return F.cross_entropy(raw["logits"].flatten(0, 1), targets.flatten())

    subject = SUBJECTS["tied"]()
    assert tally_of(replace(subject, loss=own)).loss == pytest.approx(tally_of(subject).loss, rel=1e-6)


# -- reasons -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "labels", "given", "reason"),
    [
        (scores(4, 3), None, None, "no labels, so there is no loss"),
        (scores(4, 3), None, F.mse_loss, "a loss was given, but the data have no labels"),
        (scores(4, 3), torch.tensor([0, 1, 2, 7]), None, "labels from 0 to 7 do not fit 3 outputs; give loss="),
        (scores(4, 3), torch.tensor([0, 1, 2, -1]), None, "labels from -1 to 2 do not fit 3 outputs"),
        (scores(4, 3), scores(4, 2), None, r"outputs of shape \(4, 3\) and labels of shape \(4, 2\) fit no usual loss"),
        (scores(4, 3), scores(4, 3) > 0, None, "neither classes nor floating targets; give loss="),
        (scores(4, 3), torch.arange(4) % 3, lambda *_: 0.5, "the loss gave float, not a floating tensor"),
        ("text", torch.arange(4), None, "the model gives str, in which there are no scores; give loss="),
    ],
)
def test_what_fits_no_loss_says_why(output, labels, given, reason):
    with pytest.raises(NotApplicable, match=reason):
        loss(output, labels, given)


def test_half_precision_is_summed_in_float32():
    output = scores(4000, 3).half()
    found = loss(output, torch.arange(4000) % 3)
    assert found.each.dtype == torch.float32
    expected = F.cross_entropy(output.double(), torch.arange(4000) % 3)
    assert float(found.mean) == pytest.approx(float(expected), rel=1e-5)


def test_scores_that_are_not_finite_are_counted():
    class Fixed(nn.Module):
        def forward(self, x):
            return torch.where(x[:, :1] > 0, torch.nan, 0.0).expand(-1, 3)

    inputs = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]])
    tally = tally_of(Subject(Fixed(), (inputs, torch.zeros(4, dtype=torch.int64))))
    assert tally.not_finite == 2
    assert tally.loss != tally.loss


def test_many_classes_have_no_confusion_table():
    inputs, labels = torch.zeros(3, MAX_CLASSES + 1), torch.tensor([0, 1, 2])
    tally = tally_of(Subject(nn.Sequential(nn.Identity()), (inputs, labels)))
    assert tally.confusion is None
    assert tally.correct == 1


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 11), st.booleans())
def test_merging_is_one_pass(cut, own):
    inputs, labels = scores(12, 3), torch.arange(12) % 3
    criterion = nn.CrossEntropyLoss() if own else None
    whole = tally_of(Subject(nn.Sequential(nn.Identity()), (inputs, labels), criterion))
    tallies = []
    for part in (slice(cut), slice(cut, None)):
        subject = Subject(nn.Sequential(nn.Identity()), (inputs[part], labels[part]), criterion)
        tallies.append(Capture(subject, frozenset({Predictions()})).run("data").reducers[Predictions()]["(root)"])
    tallies[0].merge(tallies[1])
    merged = tallies[0].result()
    assert merged.loss == pytest.approx(whole.loss)
    assert merged.loss_variance == pytest.approx(whole.loss_variance, nan_ok=True)
    assert (merged.n, merged.correct, merged.kind) == (whole.n, whole.correct, whole.kind)
    assert torch.equal(merged.confusion, whole.confusion)


def test_a_loss_that_fails_is_named_with_what_it_was_given():
    def fails(output, labels):
        raise KeyError("weight")

    given = (torch.randn(5, 3), torch.arange(5) % 2)
    with pytest.raises(CaptureError, match=r"failed on outputs \(5, 2\) and labels \(5,\), torch.int64: KeyError"):
        tally_of(Subject(nn.Linear(3, 2), given, fails))
