"""A model run only as far as a layer: what comes after it is not computed, and no trace is left."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stratoscope.capture.restore import untouched
from stratoscope.capture.truncated import Truncated
from stratoscope.errors import SubjectError
from stratoscope.network.subject import Subject
from stratoscope.testing import SUBJECTS
from stratoscope.testing.trial import changed, state_of


class Counts(nn.Module):
    """Gives on what it is given, and counts how often."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x


class Functional(nn.Module):
    """A reused module and functions, as people write them."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.relu, self.after = (
            nn.Linear(4, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 3),
            nn.ReLU(),
            Counts(),
        )

    def forward(self, x):
        first = self.relu(self.a(x))
        second = self.relu(self.b(first))
        return self.after(self.c(F.gelu(second)))


def data(n=10):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=draw), torch.arange(n) % 3


def reached(model, name, n=10):
    subject = Subject(model, data(n))
    short = Truncated(model, subject.catalogue, name)
    batch = subject.probe_set("data").batches[0]
    with untouched(model), torch.no_grad():
        called = short.survey(batch)
        with short.stopping():
            found = short.run(batch)
    return found, called, batch


@pytest.mark.parametrize(
    ("name", "upto"),
    [
        ("a", lambda m, x: m.a(x)),
        ("relu", lambda m, x: m.a(x).relu()),
        ("relu@2", lambda m, x: m.b(m.a(x).relu()).relu()),
        (":gelu", lambda m, x: F.gelu(m.b(m.a(x).relu()).relu())),
    ],
)
def test_it_gives_what_the_layer_gives(name, upto):
    torch.manual_seed(0)
    model = Functional()
    found, _, batch = reached(model, name)
    torch.testing.assert_close(found.pooled, upto(model, batch.args[0]).detach())


def test_what_comes_after_is_not_called():
    model = nn.Sequential(nn.Linear(4, 6), Counts(), nn.ReLU(), Counts(), nn.Linear(6, 3))
    subject = Subject(model, data())
    short = Truncated(model, subject.catalogue, "2")
    batch = subject.probe_set("data").batches[0]
    with untouched(model), torch.no_grad():
        whole, called = short.survey(batch)
        before, after = model[1].calls, model[3].calls
        with short.stopping():
            for _ in range(5):
                short.run(batch)
    assert (model[1].calls - before, model[3].calls - after) == (5, 0)
    assert called == ["(root)", "0", "1", "2"]
    assert whole == ["(root)", "0", "1", "2", "3", "4"]


def test_no_trace_is_left():
    torch.manual_seed(0)
    model = Functional()
    before = state_of(model)
    for name in ("a", "relu@2", ":gelu"):
        reached(model, name)
    assert [name for name in changed(before, state_of(model)) if "calls" not in name] == []
    assert model(data()[0]).shape == (10, 3)


def test_no_trace_is_left_when_the_model_fails():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    subject = Subject(model, data())
    short = Truncated(model, subject.catalogue, "1")
    batch = subject.probe_set("data").batches[0]
    before = state_of(model)
    with untouched(model), torch.no_grad():
        short.survey(batch)
        wrong = Subject(model, (torch.randn(5, 7), torch.zeros(5).long())).probe_set("data").batches[0]
        with pytest.raises(RuntimeError), short.stopping():
            short.run(wrong)
    assert changed(before, state_of(model)) == []


def test_a_model_that_catches_every_error_is_stopped_all_the_same():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x):
            try:
                x = self.a(x)
            except Exception:  # as broad as a user's own code can be
                x = torch.zeros(len(x), 5)
            return self.b(x)

    found, called, _ = reached(Stubborn(), "a")
    assert found.pooled.shape == (10, 5)
    assert "b" not in called[1]


def test_a_layer_that_is_not_called_is_named():
    with pytest.raises(SubjectError, match=r"cannot be cut after 'nowhere', which is not called; .*\ba\b"):
        reached(Functional(), "nowhere")


def test_it_wants_a_survey_first():
    model = Functional()
    short = Truncated(model, Subject(model, data()).catalogue, "a")
    with pytest.raises(SubjectError, match="Survey a batch"), short.stopping():
        pass


@pytest.mark.parametrize("name", ["cnn", "transformer", "lstm_packed", "rnn", "residual", "repeated"])
def test_rows_are_those_of_the_instruments(name):
    """At every layer, the cut network's pooled rows are what a whole pass keeps there."""
    from stratoscope.capture.activations import Activations
    from stratoscope.capture.views import Capture
    from stratoscope.errors import NotApplicable

    subject = SUBJECTS[name]()
    split = next(iter(subject.splits))
    need = Activations()
    capture = Capture(subject, frozenset({need}))
    capture.run(split)
    compared = 0
    for layer in capture.layers():
        short = Truncated(subject.module, subject.catalogue, layer.name)
        with untouched(subject.module), torch.no_grad():
            batches = [batch.to("cpu") for batch in subject.probe_set(split).batches]
            try:
                short.survey(batches[0])
                kept = capture.value(need, layer, split).features
            except (SubjectError, NotApplicable):
                continue
            with short.stopping():
                rows = torch.cat([short.run(batch).pooled for batch in batches])
        torch.testing.assert_close(rows.to(kept), kept, rtol=1e-5, atol=1e-6)
        compared += 1
    assert compared >= 3
