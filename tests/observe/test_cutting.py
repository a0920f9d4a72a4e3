"""Cutting for real: what is known of the network comes out of the comparison."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import stratoscope
from stratoscope import Subject
from stratoscope.cli.output import clean
from stratoscope.diagnoses.depth import Depth
from stratoscope.errors import SettingError, SubjectError
from stratoscope.instruments.performance import Performance
from stratoscope.instruments.separation import Separation
from stratoscope.observe.cutting import advised, cut
from stratoscope.observe.examine import examine
from stratoscope.observe.settings import Settings
from stratoscope.report.cutting import print_cut
from stratoscope.testing.trial import changed, state_of

WIDTH = 8


def blobs(n, seed):
    draw = torch.Generator().manual_seed(seed)
    centres = 2.5 * torch.randn(3, 6, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % 3
    return centres[labels] + torch.randn(n, 6, generator=draw), labels


DATA = {"train": blobs(300, 0), "test": blobs(300, 1)}


def square(kind):
    """A layer that keeps everything, turns it, or gives one value for all."""
    layer = nn.Linear(WIDTH, WIDTH)
    with torch.no_grad():
        layer.bias.zero_()
        if kind == "identity":
            layer.weight.copy_(torch.eye(WIDTH))
        elif kind == "rotation":
            turn = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(7))
            layer.weight.copy_(torch.linalg.qr(turn)[0])
        else:
            layer.weight.zero_()
            layer.bias.fill_(1.0)
    return layer


@pytest.fixture(scope="module")
def body():
    """A trained network of one hidden layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    inputs, labels = DATA["train"]
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model


def with_tail(body, kind, n=3):
    """The same network with further layers before its output layer, which takes back a rotation."""
    tail = [square(kind) for _ in range(n)]
    head = nn.Linear(WIDTH, 3)
    with torch.no_grad():
        together = torch.linalg.multi_dot([layer.weight for layer in reversed(tail)]) if n > 1 else tail[0].weight
        back = together.mT if kind == "rotation" else torch.eye(WIDTH)
        head.weight.copy_(body[2].weight @ back)
        head.bias.copy_(body[2].bias)
    return nn.Sequential(body[0], body[1], *tail, head)


@pytest.mark.parametrize("kind", ["identity", "rotation"])
def test_layers_that_add_nothing_cost_nothing_to_cut(body, kind):
    found = cut(with_tail(body, kind), DATA, "1")
    assert not found.worse
    assert found.difference.low <= 0 <= found.difference.high
    assert found.whole.accuracy > 0.9
    assert found.layers_run == ("(root)", "0", "1")
    assert found.layers_saved == ("2", "3", "4", "5")
    assert found.params_saved == 3 * (WIDTH * WIDTH + WIDTH) + WIDTH * 3 + 3
    assert found.params == found.params_saved + 6 * WIDTH + WIDTH
    assert found.params_probe == (WIDTH + 1) * 3


def test_what_the_probe_costs_is_told_apart_from_what_the_depth_costs(body):
    """At the last layer before the output both are the same; identical layers change nothing, constant ones everything."""
    for model in (body, with_tail(body, "identity")):
        found = cut(model, DATA, "1")
        assert found.probed == found.cut
        assert found.depth.difference == 0
        assert found.depth.p_value == 1.0
    found = cut(with_tail(body, "constant"), DATA, "1")
    assert found.probed.accuracy < 0.5
    assert found.depth.low > 0.4
    assert "cutting off the layers between makes a difference of +" in found.says


def test_a_layer_that_destroys_the_classes_is_better_cut_off(body):
    model = with_tail(body, "constant")
    found = cut(model, DATA, "1")
    assert found.difference.low > 0.4
    after = cut(model, DATA, "2")
    assert after.cut.accuracy < 0.5


def test_what_a_later_layer_is_needed_for_is_lost_by_the_cut():
    """Classes that lie inside and outside of a circle: a linear probe of the inputs cannot read them, the network can."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(600, 2, generator=draw)
    labels = (inputs.norm(dim=1) > 1.18).long()
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    with torch.no_grad():
        angle = torch.arange(32) * 2 * torch.pi / 32
        model[1].weight.copy_(torch.stack([angle.cos(), angle.sin()], 1))
        model[1].bias.zero_()
        model[3].weight.copy_(torch.tensor([[0.0], [1.0]]).expand(2, 32) * torch.pi / 32)
        model[3].bias.copy_(torch.tensor([1.18, 0.0]))
    data = {"train": (inputs[:300], labels[:300]), "test": (inputs[300:], labels[300:])}
    found = cut(model, data, "0")
    assert found.whole.accuracy > 0.95
    assert found.worse


def test_the_numbers_are_those_of_a_plain_loop(body):
    """The whole network's hits, and those of a regression on the same features, counted by hand."""
    found = cut(body, DATA, "1")
    with torch.no_grad():
        train, test = (body[1](body[0](inputs)) for inputs, _ in (DATA["train"], DATA["test"]))
        right = (body(DATA["test"][0]).argmax(1) == DATA["test"][1]).numpy()
    assert found.whole.accuracy == pytest.approx(right.mean())
    x = train.double().numpy()
    mean, scale = x.mean(0), x.std(0)
    scale[scale < 1e-9] = np.inf
    x, u = (x - mean) / scale, (test.double().numpy() - mean) / scale
    y = np.eye(3)[DATA["train"][1].numpy()]
    weights = np.linalg.solve(x.T @ x + found.strength * len(x) * np.eye(WIDTH), x.T @ (y - y.mean(0)))
    guess = (u @ weights + y.mean(0)).argmax(1)
    truth = DATA["test"][1].numpy()
    # which examples are drawn is the subject's business, but with 300 of 300 it is all of them
    assert found.cut.accuracy == pytest.approx((guess == truth).mean())
    one, other = guess == truth, right
    assert found.difference.difference == pytest.approx(((one & ~other).sum() - (other & ~one).sum()) / 300)


def test_examples_with_the_ignored_label_are_left_out(body):
    ignored = torch.arange(300) % 7 == 2
    masked = {split: (inputs, labels.masked_fill(ignored, -100)) for split, (inputs, labels) in DATA.items()}
    alone = {split: (inputs[~ignored], labels[~ignored]) for split, (inputs, labels) in DATA.items()}
    one, other = cut(body, masked, "1"), cut(body, alone, "1")
    assert (one.whole, one.difference.n, one.n_fitted) == (other.whole, other.difference.n, other.n_fitted)
    assert one.params_probe == other.params_probe
    assert one.cut.accuracy == pytest.approx(other.cut.accuracy, abs=0.01)
    none = (DATA["train"][0], torch.full((300,), -100))
    with pytest.raises(SubjectError, match="all 300 labels are -100"):
        cut(body, none, "1")


def test_one_split_is_cut_in_halves(body):
    found = cut(body, DATA["test"], "1")
    assert (found.fitted_on, found.scored_on, found.n_fitted) == ("data", "data", 150)
    assert found.difference.n == 300
    assert found.cut.accuracy > 0.85


def test_splits_can_be_named(body):
    found = cut(body, {"a": DATA["train"], "b": DATA["test"], "c": DATA["test"]}, "1", fit="b", score="c")
    assert (found.fitted_on, found.scored_on) == ("b", "c")
    found = cut(body, {"val": DATA["test"], "train": DATA["train"]}, "1")
    assert (found.fitted_on, found.scored_on) == ("train", "val")
    found = cut(body, {"val": DATA["test"], "train": DATA["train"]}, "1", score="train")
    assert (found.fitted_on, found.scored_on) == ("val", "train")
    with pytest.raises(SettingError, match="There is no split 'other'; the data have train, test"):
        cut(body, DATA, "1", fit="other")


def test_the_model_is_left_as_it_came(body):
    model = with_tail(body, "identity").train()
    before = state_of(model)
    cut(model, DATA, "1")
    assert changed(before, state_of(model)) == []


def test_other_weights_are_used_without_touching_the_models(body):
    blank = nn.Sequential(nn.Linear(6, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3))
    before = state_of(blank)
    found = cut(blank, DATA, "1", weights=body.state_dict())
    assert found.whole.accuracy == cut(body, DATA, "1").whole.accuracy
    assert changed(before, state_of(blank)) == []


def test_batches_do_not_matter(body):
    one, other = (cut(body, DATA, "1", batch_size=size) for size in (300, 7))
    assert one.difference == other.difference
    assert one.strength == pytest.approx(other.strength)


def test_maps_are_pooled_or_laid_flat():
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    data = {name: (torch.randn(60, 1, 8, 8, generator=draw), torch.arange(60) % 3) for name in ("train", "test")}
    assert cut(model, data, "1").width == 4
    found = cut(model, data, "1", pooling="flatten")
    assert found.width == 4 * 36
    with pytest.raises(SettingError, match="pooling='spatial'"):
        cut(model, data, "1", pooling="spatial")


def test_wide_features_are_projected_and_it_says_so(body, monkeypatch):
    monkeypatch.setattr("stratoscope.observe.cutting.WIDTH", 4)
    found = cut(body, DATA, "1")
    assert found.width == 4
    assert "projected from 8 to 4 numbers" in found.note


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"data": (DATA["train"][0], None), "layer": "1"}, "one integer label an example is needed"),
        ({"data": (DATA["train"][0], torch.zeros(300, dtype=torch.long)), "layer": "1"}, "1 class in 150 examples"),
        ({"data": (DATA["train"][0], torch.randn(300)), "layer": "1"}, "one integer label an example"),
        ({"data": DATA, "layer": "nope"}, "cannot be cut after 'nope'"),
        ({"layer": "1"}, "give a model with data"),
    ],
)
def test_what_cannot_be_cut_is_an_error_in_one_sentence(body, given, match):
    given = dict(given)
    if isinstance(given.get("data"), tuple) and given["data"][1] is None:
        given["data"] = given["data"][0]
    with pytest.raises(SubjectError, match=match):
        cut(body, **given)


def test_weights_alone_cannot_be_cut(body):
    with pytest.raises(SubjectError, match="give a model with data"):
        cut(subject=Subject(weights=body.state_dict()), layer="1")


def test_features_that_are_not_finite_are_an_error(body):
    broken = nn.Sequential(body[0], nn.ReLU(), nn.Linear(WIDTH, 3))
    broken[0] = nn.Linear(6, WIDTH)
    with torch.no_grad():
        broken[0].weight[0, 0] = torch.nan
    with pytest.raises(SubjectError, match="numbers that 1 gives are NaN or infinite"):
        cut(broken, DATA, "1")


def test_half_precision_can_be_cut(body):
    import copy

    found = cut(copy.deepcopy(body).to(torch.bfloat16), DATA, "1")
    assert found.cut.accuracy > 0.85


INSTRUMENTS = [Separation(permutations=4), Performance(), Depth(margin=0.3)]


def test_by_default_the_depth_diagnosis_says_where(body):
    model = with_tail(body, "identity")
    record = examine(model, DATA, instruments=INSTRUMENTS, settings=Settings())
    layer = advised(record)
    found = cut(model, DATA, record=record)
    assert found.layer == layer
    assert layer in ("1", "0")
    assert not found.worse


def test_without_advice_a_layer_has_to_be_named(body):
    record = examine(body, DATA, instruments=INSTRUMENTS, settings=Settings())
    with pytest.raises(SettingError, match="No layer to cut after was named, and none is advised"):
        cut(body, DATA, record=record)
    with pytest.raises(SettingError, match="depth was not diagnosed"):
        advised(examine(body, DATA, only="performance", settings=Settings()))


def test_it_is_a_public_name_and_prints_and_serialises(body, capsys):
    found = stratoscope.cut(body, DATA, "1")
    told = json.loads(json.dumps(clean(found.plain()), allow_nan=False))
    assert told["layer"] == "1"
    assert told["difference"]["n"] == 300
    assert told["worse"] is False
    print_cut(found)
    printed = capsys.readouterr().out
    assert "cut after 1" in printed
    assert f"{found.whole.accuracy:.1%}" in printed
