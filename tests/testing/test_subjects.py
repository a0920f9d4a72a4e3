"""The tiny subjects are what they say they are."""

import pytest
import torch
from torch import nn

from stratoscope.instruments.performance import Performance
from stratoscope.testing import SUBJECTS
from stratoscope.testing.subjects import N, seeded
from stratoscope.testing.trial import changed, difference, state_of, tried


@pytest.mark.parametrize("name", sorted(SUBJECTS))
def test_every_subject_is_seeded_small_and_has_five_times_eight_examples(name):
    random_state = torch.get_rng_state()
    one, two = SUBJECTS[name](), SUBJECTS[name]()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert one.name == name
    assert sum(p.numel() for p in one.model.parameters()) < 5000
    for split in one.splits:
        probe = one.probe_set(split)
        assert probe.n == N
        assert probe.digest == two.probe_set(split).digest
        assert probe.batches[0].labels is not None
    pairs = zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(SUBJECTS[name](1).model.parameters()), next(one.model.parameters()))


def test_the_kinds_are_the_kinds():
    made = {name: make() for name, make in SUBJECTS.items()}
    assert made["tied"].model.head.weight is made["tied"].model.embed.weight
    assert not made["frozen"].model[0].weight.requires_grad
    assert next(made["bfloat16"].model.parameters()).dtype == torch.bfloat16
    assert "0.parametrizations.weight.original0" in made["weight_normed"].model.state_dict()
    assert made["lstm_packed"].data["lengths"].unique().numel() > 1
    assert int((made["transformer"].data["attention_mask"] == 0).sum()) > 0
    assert int((made["tied"].data["labels"] == -100).sum()) > 0
    assert any(isinstance(m, nn.BatchNorm2d) and m.running_mean.abs().sum() > 0 for m in made["cnn"].model.modules())


def test_seeded_puts_the_random_state_back_after_an_error_too():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(0):
        torch.rand(3)
        _ = 1 / 0
    assert torch.equal(torch.get_rng_state(), before)


# -- what the contract compares with -------------------------------------------------------------------------------------


def test_a_state_names_what_changed():
    model = SUBJECTS["cnn"]().model
    before = state_of(model)
    with torch.no_grad():
        model[1].running_mean.add_(1)
        model[0].weight[0, 0, 0, 0] += 1
    model[2].train(not model[2].training)
    handle = model[3].register_full_backward_hook(lambda *_: None)
    found = changed(before, state_of(model))
    assert set(found) == {"buffer 1.running_mean", "param 0.weight", "mode of 2", "hooks of 3"}
    handle.remove()


def test_a_difference_is_told_with_its_place():
    numbers = tried(Performance(), SUBJECTS["mlp"]()).numbers
    assert difference(numbers, numbers, 0.0) == ""
    dims, labels, values = numbers["loss"]
    other = {**numbers, "loss": (dims, labels, values + 1e-3)}
    assert difference(numbers, other, 1e-2) == ""
    assert difference(numbers, other, 1e-5).startswith("loss at (0, train) is")
    assert difference(numbers, {**numbers, "loss": (dims, (), values)}, 1.0) == "loss has other labels"
    assert difference(numbers, {}, 1.0).endswith("is in one of them only")
