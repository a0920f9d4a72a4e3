"""One forward pass serves every need; gradients; the memory and time budgets; what goes wrong."""

import time
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from stratoscope.capture.activations import Activations
from stratoscope.capture.gradients import Gradients
from stratoscope.capture.needs import Reducer, Streamed
from stratoscope.capture.predictions import Predictions
from stratoscope.capture.unit_counts import UnitCounts
from stratoscope.capture.views import Capture
from stratoscope.errors import CaptureError, NotApplicable
from stratoscope.network.subject import Subject
from stratoscope.testing import SUBJECTS
from stratoscope.testing.subjects import blobs, seeded
from stratoscope.testing.trial import changed, state_of, unsettled

EVERYTHING = frozenset(
    {Activations(), Activations(pooling="flatten"), Activations(site="input"), UnitCounts(), Predictions(), Gradients()}
)


@dataclass(frozen=True)
class Rows(Streamed):
    """Every value at a site, as the reducer was shown it."""

    site: str = "output"
    split: str | None = None
    fails: bool = False

    def reducer(self, site):
        return KeepRows(self.fails)


class KeepRows(Reducer):
    def __init__(self, fails):
        self.fails, self.rows, self.made = fails, [], 1

    def update(self, batch):
        if self.fails and batch.site.name == "2":
            raise ValueError("a reducer with a fault\nand more")
        scale = batch.loss_n if batch.loss is not None else 1
        self.rows.append(batch.flat.clone() * scale)

    def merge(self, other):
        self.rows += other.rows

    def result(self):
        return torch.cat(self.rows)


def capture_of(subject, *needs, **more):
    return Capture(subject, frozenset(needs), **more)


def counted(model):
    """How often a model's forward is called."""
    calls = []
    original = model.forward

    def forward(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    model.forward = forward
    return calls


# -- one pass ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("needs", [frozenset({Predictions()}), EVERYTHING])
def test_the_model_is_called_once_a_batch_whatever_is_asked(needs):
    subject = replace(SUBJECTS["cnn"](), batch_size=8, _probes={})
    calls = counted(subject.model)
    capture = Capture(subject, needs)
    for layer in subject.catalogue.layers.values():
        for need in needs:
            try:
                capture.value(need, layer, "data")
            except NotApplicable:
                continue
    assert len(calls) == 5 == capture.run("data").forward_calls


def test_equal_needs_are_gathered_once():
    made = []

    @dataclass(frozen=True)
    class Counted(Rows):
        def reducer(self, site):
            made.append(site.name)
            return super().reducer(site)

    subject = SUBJECTS["mlp"]()
    capture_of(subject, Counted(), Counted(split=None), Activations(), Activations(n=2000)).run("train")
    assert sorted(made) == sorted(set(made))


def test_a_split_is_passed_over_only_if_a_need_wants_it():
    capture = capture_of(SUBJECTS["mlp"](), Activations(split="test"))
    assert capture.run("train") is None
    assert capture.run("test").n == 40
    assert capture.run("test") is capture.run("test")


def test_only_the_layers_that_were_asked_for_are_gathered_but_the_output_always():
    capture = capture_of(SUBJECTS["cnn"](), Activations(), Predictions(), patterns=("4",))
    reducers = capture.run("data").reducers
    assert set(reducers[Activations()]) == {"4", "(root)"}
    assert set(reducers[Predictions()]) == {"(root)"}


def test_labels_that_a_model_does_not_take_are_kept_from_it():
    subject = SUBJECTS["transformer"]()
    assert "labels" in subject.probe_set("data").batches[0].kwargs
    assert capture_of(subject, Predictions()).value(Predictions(), subject.catalogue["(root)"], "data").n == 40


def test_a_checkpointed_block_is_seen_once_though_it_runs_twice():
    subject = SUBJECTS["checkpointed"]()
    result = capture_of(subject, UnitCounts(), Gradients()).run("data")
    assert result.reducers[UnitCounts()]["body.1"].result().n == 40
    assert "body.1@2" not in result.sites


def test_many_calls_are_said_in_a_note():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Linear(3, 3)

        def forward(self, x):
            for _ in range(20):
                x = self.step(x)
            return x

    result = capture_of(Subject(Loop(), torch.zeros(4, 3)), Activations()).run("data")
    assert result.notes == ["step: 4 calls beyond the first 16 of a pass were not looked at"]


# -- gradients -----------------------------------------------------------------------------------------------------------

GRADED = sorted(set(SUBJECTS) - {"float16", "bfloat16"})


def full_gradient(subject, split):
    """The gradient of the mean loss on all examples at once, by plain autograd in float64."""
    model = subject.model.double().eval()
    batch = replace(subject, batch_size=100, _probes={}).probe_set(split).batches[0].to("cpu", torch.float64)
    kwargs = {k: v for k, v in batch.kwargs.items() if k != "labels"}
    output = model(*batch.args, **kwargs)
    scores = output["logits"] if isinstance(output, dict) else getattr(output, "logits", output)
    if batch.labels.is_floating_point():
        loss = F.mse_loss(scores, batch.labels)
    elif scores.ndim == 3:
        loss = F.cross_entropy(scores.flatten(0, 1), batch.labels.flatten())
    else:
        loss = F.cross_entropy(scores, batch.labels)
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    return {name: g for name, g in zip(params, found, strict=True) if g is not None}


@pytest.mark.parametrize("batch_size", [8, 40, 7])
@pytest.mark.parametrize("name", GRADED)
def test_param_gradients_are_those_of_the_whole_set(name, batch_size):
    subject = replace(SUBJECTS[name](), batch_size=batch_size, _probes={})
    subject.model.double()
    split = next(iter(subject.splits))
    capture = capture_of(subject, Gradients())
    found = {}
    for layer in subject.catalogue.layers.values():
        try:
            found |= capture.value(Gradients(), layer, split)
        except NotApplicable:
            continue
    expected = full_gradient(subject, split)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert_close(found[key], value, rtol=1e-9, atol=1e-12)


def test_gradients_leave_no_trace():
    subject = unsettled(SUBJECTS["cnn"]())
    before = state_of(subject.module)
    capture_of(subject, Gradients(), Rows("output_gradient")).run("data")
    assert changed(before, state_of(subject.module)) == []


def test_output_gradients_are_those_before_an_activation_in_place():
    with seeded(0) as generator:
        model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 4)).double()
        inputs, labels = blobs(5, generator=generator)
    subject = Subject(model, (inputs.double(), labels), batch_size=8)
    need = Rows("output_gradient")
    found = capture_of(subject, need).value(need, subject.catalogue["0"], "data") / 40
    batch = replace(subject, batch_size=40, _probes={}).probe_set("data").batches[0]
    hidden = model[0](batch.args[0]).detach().requires_grad_()
    loss = F.cross_entropy(model[2](hidden.relu()), batch.labels)
    assert_close(found, torch.autograd.grad(loss, hidden)[0])


def test_a_view_that_is_changed_in_place_is_refused_rather_than_wrong():
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(12, 4))
    with seeded(0) as generator:
        data = blobs(2, 4, generator=generator)
    subject, need = Subject(model, data), Rows("output_gradient")
    capture = capture_of(subject, need)
    with pytest.raises(NotApplicable, match="1 gives is a view that is changed in place"):
        capture.value(need, subject.catalogue["1"], "data")
    assert capture.value(need, subject.catalogue["2"], "data").shape == (40, 12)


def test_output_gradients_of_packed_sequences_are_unpacked():
    class Packs(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRU(2, 3, batch_first=True)

        def forward(self, x, lengths):
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(self.cell(packed)[0], batch_first=True)
            return states.sum(1)

    with seeded(0) as generator:
        model, lengths = Packs(), torch.tensor([3, 1, 2, 3])
        inputs = torch.randn(4, 3, 2, generator=generator)
    data = {"x": inputs, "lengths": lengths, "labels": torch.tensor([0, 1, 2, 0])}
    subject, need = Subject(model, data), Rows("output_gradient")
    rows = capture_of(subject, need).value(need, subject.catalogue["cell"], "data").reshape(4, 3, 3)
    batch = subject.probe_set("data").batches[0]
    with torch.no_grad():
        scores = model(**{name: value for name, value in batch.kwargs.items() if name != "labels"})
    # the scores are the sum over the real steps, so each of them has the gradient of the scores
    by_hand = scores.softmax(1) - F.one_hot(batch.labels, 3)
    real = torch.arange(3)[None] < batch.kwargs["lengths"][:, None]
    assert_close(rows, by_hand[:, None] * real[..., None])


def test_gradients_without_labels_do_not_take_the_others_with_them():
    made = SUBJECTS["mlp"]()
    subject = Subject(made.model, torch.randn(12, 6, generator=torch.Generator().manual_seed(0)))
    capture = capture_of(subject, Gradients(), Activations())
    with pytest.raises(NotApplicable, match="no labels"):
        capture.value(Gradients(), subject.catalogue["0"], "data")
    assert len(capture.value(Activations(), subject.catalogue["0"], "data").features) == 12


def test_gradients_of_a_model_that_is_all_frozen_are_not_applicable():
    subject = SUBJECTS["frozen"]()
    subject.model.requires_grad_(False)
    capture = capture_of(subject, Gradients(), Rows("output_gradient"))
    for need in (Gradients(), Rows("output_gradient")):
        with pytest.raises(NotApplicable, match=r"no param that is trained|no gradient flows"):
            capture.value(need, subject.catalogue["2"], "data")


def test_layers_without_a_gradient_say_why():
    subject = SUBJECTS["unused"]()
    capture = capture_of(subject, Gradients())
    with pytest.raises(NotApplicable, match="no gradient reaches its params"):
        capture.value(Gradients(), subject.catalogue["never"], "data")
    with pytest.raises(NotApplicable, match="owns no params"):
        capture.value(Gradients(), subject.catalogue["(root)"], "data")


def test_a_backward_pass_that_fails_is_said_and_the_rest_is_kept():
    class NoWayBack(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("there is no way back")

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(6, 4)

        def forward(self, x):
            return NoWayBack.apply(self.part(x))

    subject = Subject(Model(), SUBJECTS["frozen"]().data)
    capture = capture_of(subject, Gradients(), Activations())
    with pytest.raises(CaptureError, match="backward pass failed: RuntimeError: there is no way back"):
        capture.value(Gradients(), subject.catalogue["part"], "data")
    assert len(capture.value(Activations(), subject.catalogue["part"], "data").features) == 40


class Sometimes(nn.Module):
    """Uses one of its layers for some batches only."""

    def __init__(self):
        super().__init__()
        self.always, self.now_and_then, self.never = nn.Linear(5, 3), nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x):
        return self.always(x) + (self.now_and_then(x) if x[0, 0] > 0 else 0)


def test_a_batch_whose_loss_does_not_depend_on_a_layer_counts_as_zero_in_its_mean_gradient():
    with seeded(0) as rng:
        x, y = torch.randn(64, 5, generator=rng), torch.randint(0, 3, (64,), generator=rng)
        model = Sometimes()
    subject = Subject(model, (x, y), batch_size=4)
    capture = capture_of(subject, Gradients())
    found = capture.value(Gradients(), subject.catalogue["now_and_then"], "data")["now_and_then.weight"]
    total, used = torch.zeros(3, 5), []
    for batch in subject.probe_set("data").batches:
        loss = F.cross_entropy(model(batch.args[0]), batch.labels, reduction="sum")
        (part,) = torch.autograd.grad(loss, model.now_and_then.weight, allow_unused=True)
        used.append(part is not None)
        total += 0 if part is None else part
    assert 0 < sum(used) < len(used)
    assert_close(found.float(), total / 64)
    with pytest.raises(NotApplicable, match="no gradient reaches its params"):
        capture.value(Gradients(), subject.catalogue["never"], "data")


@dataclass(frozen=True)
class NoReducer(Streamed):
    site: str = "output"

    def reducer(self, site):
        raise ValueError("no reducer today")


def test_a_need_whose_reducer_cannot_be_made_does_not_take_the_others_with_it():
    subject = SUBJECTS["mlp"]()
    capture = capture_of(subject, NoReducer(), Activations())
    assert len(capture.value(Activations(), subject.catalogue["0"], "train").features) > 0
    with pytest.raises(CaptureError, match=r"NoReducer.* failed at 0: ValueError: no reducer today"):
        capture.value(NoReducer(), subject.catalogue["0"], "train")


# -- memory --------------------------------------------------------------------------------------------------------------


def test_kept_samples_stay_in_the_budget_and_say_so():
    subject = replace(SUBJECTS["mlp"](), batch_size=8, _probes={})
    need = Activations(n=40)
    width = sum((10, 10, 8, 8, 4, 4))
    budget = 40 * 4 * width // 2
    capture = capture_of(subject, need, memory=budget)
    samples = [
        capture.value(need, layer, split) for split in ("train", "test") for layer in subject.catalogue.layers.values()
    ]
    assert {len(sample.features) for sample in samples} == {10}
    assert sum(sample.features.nbytes for sample in samples) <= budget
    assert samples[0].ids.tolist() == list(range(10))
    assert "cut from 40 examples to stay within the memory budget" in samples[0].note
    assert "25.0% of what was asked" in capture.run("train").notes[0]


def test_a_sample_that_asks_for_more_than_there_is_is_not_cut():
    subject = SUBJECTS["mlp"]()
    capture = capture_of(subject, Activations(n=10**9))
    assert capture.run("train").notes == []
    assert "cut" not in capture.value(Activations(n=10**9), subject.catalogue["0"], "train").note


class Late(nn.Module):
    """Leaves one of its layers out the first time."""

    def __init__(self):
        super().__init__()
        self.always, self.later, self.calls = nn.Linear(5, 4, bias=False), nn.Linear(4, 4, bias=False), 0

    def forward(self, x):
        self.calls += 1
        x = self.always(x)
        return self.later(x) if self.calls > 1 else x


@pytest.mark.parametrize(("share", "rows"), [(1.0, 40), (0.8, 32), (0.5, 20)])
def test_a_layer_that_is_first_called_in_a_later_batch_is_in_the_budget_too(share, rows):
    with seeded(0) as rng:
        x, model = torch.randn(40, 5, generator=rng), Late()
    subject = Subject(model, x, batch_size=8)
    bytes_of_all = 40 * 3 * 4 * 4  # always, later and the root, four numbers of four bytes each
    capture = capture_of(subject, Activations(), memory=int(share * bytes_of_all))
    result = capture.run("data")
    samples = {name: reducer.result() for name, reducer in result.reducers[Activations()].items()}
    ids = {name: sample.ids.tolist() for name, sample in samples.items()}
    assert ids == {"always": list(range(rows)), "(root)": list(range(rows)), "later": list(range(8, rows))}
    assert sum(sample.features.nbytes for sample in samples.values()) <= share * bytes_of_all
    assert [note.split(" of what")[0] for note in result.notes] == (
        [] if share == 1 else [f"kept samples were cut to {share:.1%}"]
    )


# -- time -------------------------------------------------------------------------------------------------------------


def test_progress_is_told_once_a_batch():
    told = []
    subject = replace(SUBJECTS["mlp"](), batch_size=8, _probes={})
    capture = capture_of(subject, Activations(), progress=lambda *what: told.append(what))
    assert capture.run("train").n == 40
    assert told == [("train", done, 5) for done in range(1, 6)]


def test_a_pass_whose_time_is_up_keeps_what_it_has_and_says_so(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    subject, told = replace(SUBJECTS["mlp"](), batch_size=8, _probes={}), []
    # the clock says 0 after the first batch, 1 after the second, 2 after the third
    capture = capture_of(
        subject, Activations(), UnitCounts(), Gradients(), deadline=1.5, progress=lambda *what: told.append(what)
    )
    result = capture.run("train")
    assert (result.n, result.forward_calls, told[-1]) == (24, 3, ("train", 3, 5))
    assert result.notes == ["stopped after 3 of 5 batches: the time budget was spent"]
    layer = subject.catalogue["1"]
    sample = capture.value(Activations(), layer, "train")
    assert sample.ids.tolist() == list(range(24))
    assert capture.value(UnitCounts(), layer, "train").active.tolist() == (sample.features > 0).sum(0).tolist()


@pytest.mark.parametrize(("deadline", "n"), [(-1.0, 40), (float("inf"), 40), (-1.0, 8)])
def test_the_first_batch_is_always_passed_and_a_pass_that_was_at_its_end_was_not_stopped(deadline, n):
    subject = replace(SUBJECTS["mlp"](), batch_size=40 if n == 40 else 8, _probes={})
    result = capture_of(subject, Activations(), deadline=deadline).run("train")
    assert result.n == n
    assert bool(result.notes) is (n < 40)


# -- what goes wrong -----------------------------------------------------------------------------------------------------


def test_a_model_that_cannot_take_the_data_is_one_sentence():
    subject = Subject(nn.Linear(6, 4), torch.zeros(10, 5))
    capture = capture_of(subject, Activations())
    message = r"The model failed on batch 0 of split 'data' \(inputs \(10, 5\)\): RuntimeError: mat1 and mat2.*\. Check"
    for _ in range(2):
        with pytest.raises(CaptureError, match=message):
            capture.run("data")


def test_a_model_that_fails_later_says_on_which_batch():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.calls = nn.Linear(3, 3), 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 3:
                raise ValueError("the third is too much\nsecond line")
            return self.part(x)

    model = Fails()
    with pytest.raises(CaptureError, match=r"batch 2 .*ValueError: the third is too much\. Check"):
        capture_of(Subject(model, torch.zeros(12, 3), batch_size=3), Activations()).run("data")
    assert not model.part._forward_hooks


def test_a_need_that_fails_does_not_take_the_others_with_it():
    subject = SUBJECTS["frozen"]()
    bad = Rows(fails=True)
    capture = capture_of(subject, bad, Activations())
    with pytest.raises(CaptureError, match=r"Rows\(.*\) failed at 2: ValueError: a reducer with a fault\."):
        capture.value(bad, subject.catalogue["2"], "data")
    assert len(capture.value(bad, subject.catalogue["0"], "data")) == 40
    assert len(capture.value(Activations(), subject.catalogue["2"], "data").features) == 40


def test_what_nobody_asked_for_is_an_error_that_lists_what_is_there():
    subject = SUBJECTS["mlp"]()
    capture = capture_of(subject, Predictions())
    with pytest.raises(
        CaptureError, match=r"Activations\(.*\) was not captured; this capture holds Predictions\(.*Add it"
    ):
        capture.value(Activations(), subject.catalogue["0"], "train")


@pytest.mark.parametrize(
    ("need", "layer", "reason"),
    [
        (UnitCounts(), "used", "UnitCounts does not look at layers of kind linear"),
        (Activations(), "never", "the layer is not called in the forward pass"),
        (Activations(split="test"), "used", "the data have no split 'test'; they have data"),
    ],
)
def test_what_is_not_there_says_why(need, layer, reason):
    subject = SUBJECTS["unused"]()
    with pytest.raises(NotApplicable, match=reason):
        capture_of(subject, need).value(need, subject.catalogue[layer], "data")


def test_weights_alone_have_no_activations():
    subject = Subject(weights=SUBJECTS["mlp"]().model.state_dict())
    with pytest.raises(NotApplicable, match="a model and data; there are weights alone"):
        capture_of(subject, Activations()).value(Activations(), next(iter(subject.catalogue.layers.values())), None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", sorted(SUBJECTS))
def test_a_gpu_gives_what_the_processor_gives(name):
    here, there = SUBJECTS[name](), SUBJECTS[name]()
    there.model.cuda()
    split = next(iter(here.splits))
    loose = 2e-2 if "float16" in name else 1e-4
    for need in (Activations(), Gradients()):
        one, other = (capture_of(subject, need) for subject in (here, there))
        for layer in here.catalogue.layers.values():
            try:
                expected = one.value(need, layer, split)
            except NotApplicable:
                continue
            found = other.value(need, there.catalogue[layer.name], split)
            if isinstance(need, Activations):
                assert_close(found.features, expected.features, rtol=loose, atol=loose)
            else:
                for key, value in expected.items():
                    assert_close(found[key].cpu(), value, rtol=loose, atol=loose)


@pytest.mark.parametrize("name", ["mlp", "tied"])
def test_merging_gradients_is_one_pass(name):
    subject = replace(SUBJECTS[name](), batch_size=8, _probes={})
    split = next(iter(subject.splits))
    probe, layer = subject.probe_set(split), list(subject.catalogue.layers)[1]
    parts = []
    for batches in (probe.batches[:2], probe.batches[2:]):
        half = replace(subject, _probes={split: replace(probe, batches=batches)})
        parts.append(capture_of(half, Gradients()).run(split).reducers[Gradients()][layer])
    parts[0].merge(parts[1])
    whole = capture_of(subject, Gradients()).value(Gradients(), subject.catalogue[layer], split)
    for key, value in parts[0].result().items():
        assert_close(value, whole[key])
