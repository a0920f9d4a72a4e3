"""The instrument `bottleneck`: the bound is that of the examples, layers never lie above it, and it says when it is degenerate."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from stratoscope import examine
from stratoscope.capture.data_rows import DataRows
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Outcome
from stratoscope.instruments.bottleneck import DEGENERATE, Bottleneck
from stratoscope.numerics.bottleneck import bottleneck_curve
from stratoscope.testing import check_instrument
from stratoscope.testing.views import SampleView


class View(SampleView):
    """A sample whose examples lie in the data in some order."""

    def __init__(self, features, order=None, split="data"):
        super().__init__(features)
        self.split = split
        self._order = torch.arange(len(features)) if order is None else torch.as_tensor(order)

    def __getitem__(self, need):
        return self._order if isinstance(need, DataRows) else super().__getitem__(need)


def drawn(n=60, distinct=6, classes=2, seed=0):
    draw = np.random.default_rng(seed)
    return draw.dirichlet(np.ones(classes), distinct)[draw.integers(0, distinct, n)]


def saved(tmp_path, **arrays):
    path = tmp_path / "joint.npz"
    np.savez(path, **arrays)
    return str(path)


def numbers(found):
    return {name: float(value.values) for name, value in found.items() if value.values.ndim == 0}


def test_a_layer_that_tells_inputs_apart_knows_everything_and_stands_at_the_ceiling(tmp_path):
    rows = drawn()
    features = torch.arange(60.0)[:, None]
    found = Bottleneck(joint=saved(tmp_path, p_y_given_x=rows), bins=60).measure_layer(View(features))
    read = numbers(found)
    curve = bottleneck_curve(None, rows, accuracy=0.01)
    assert read["information_x"] == pytest.approx(math.log2(60))
    assert read["information_x_ceiling"] == pytest.approx(math.log2(60))
    assert read["information_y"] == pytest.approx(curve.joint.information)
    assert read["information_y_null"] == pytest.approx(curve.joint.information)
    assert read["missing"] == pytest.approx(0, abs=1e-9)
    assert read["surplus"] == pytest.approx(
        math.log2(60) - float(curve.rate_at(curve.joint.information - 1e-12)), abs=1e-6
    )
    assert read["uninformative"] == 1
    assert read["degenerate"] == 0
    assert found["curve_y"].values == pytest.approx(curve.relevance)
    assert found["curve_x"].values == pytest.approx(curve.rate)


def test_a_constant_layer_knows_nothing_and_misses_nothing(tmp_path):
    read = numbers(Bottleneck(joint=saved(tmp_path, p_y_given_x=drawn())).measure_layer(View(torch.zeros(60, 3))))
    for name in ("information_x", "information_y", "missing", "surplus", "uninformative"):
        assert read[name] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_no_layer_lies_above_the_bound_of_its_examples(tmp_path, seed):
    rows = drawn(distinct=20, classes=3, seed=seed)
    joint = saved(tmp_path, p_y_given_x=rows, p_x=np.random.default_rng(seed).dirichlet(np.ones(60)))
    draw = torch.Generator().manual_seed(seed)
    for bins in (2, 3, 8):
        read = numbers(Bottleneck(joint=joint, bins=bins).measure_layer(View(torch.randn(60, 2, generator=draw))))
        assert read["missing"] >= -1e-9
        assert read["surplus"] >= -1e-9
        assert 0 <= read["information_y"] <= read["label_information"] + 1e-9


def test_a_layer_that_keeps_the_labels_alone_reaches_the_deterministic_codes(tmp_path):
    rows = np.repeat([[0.9, 0.1], [0.2, 0.8]], 30, axis=0)
    layer = torch.repeat_interleave(torch.tensor([[0.0], [1.0]]), 30, dim=0)
    found = Bottleneck(joint=saved(tmp_path, p_y_given_x=rows)).measure_layer(View(layer))
    read = numbers(found)
    assert read["missing"] == pytest.approx(0, abs=1e-9)
    assert read["sufficient_x"] == pytest.approx(1)
    assert found["deterministic_x"].values == pytest.approx([0, 1])
    assert found["deterministic_y"].values == pytest.approx([0, read["label_information"]])


def test_rows_are_those_of_the_data_in_whatever_order_they_were_drawn(tmp_path):
    rows, features = drawn(), torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    order = np.random.default_rng(1).permutation(60)[:40]
    joint = saved(tmp_path, p_y_given_x=rows)
    shuffled = numbers(Bottleneck(joint=joint, bins=4).measure_layer(View(features[order], order)))
    plain = numbers(
        Bottleneck(joint=saved(tmp_path, p_y_given_x=rows[order]), bins=4).measure_layer(View(features[order]))
    )
    names = [name for name in plain if "null" not in name]
    assert [shuffled[name] for name in names] == pytest.approx([plain[name] for name in names], abs=1e-9)


def test_chance_reads_as_chance(tmp_path):
    rows = np.random.default_rng(0).dirichlet([1, 1], 400)
    joint = saved(tmp_path, p_y_given_x=rows)
    noise = torch.randn(400, 1, generator=torch.Generator().manual_seed(3))
    read = numbers(Bottleneck(joint=joint, bins=8).measure_layer(View(noise)))
    assert abs(read["information_y"] - read["information_y_null"]) < 5 * read["information_y_null_sd"]
    told = torch.from_numpy(rows[:, :1]).float()
    read = numbers(Bottleneck(joint=joint, bins=8).measure_layer(View(told)))
    assert read["information_y"] > read["information_y_null"] + 20 * read["information_y_null_sd"]


@pytest.mark.parametrize(
    ("rows", "kind"), [(np.eye(2)[[0, 1, 1, 0] * 10], 1), (np.full((40, 2), 0.5), 2), (drawn(40), 0)]
)
def test_a_degenerate_bound_is_said(rows, kind):
    record = examined(Bottleneck(joint=tuple(map(tuple, rows.tolist()))))
    assert set(np.unique(record["bottleneck"]["degenerate"].values)) == {kind}
    said = [f for f in record.findings if f.code == "IB001"]
    assert len(said) == 1
    assert said[0].outcome is (Outcome.NOT_APPLICABLE if kind else Outcome.PASSED)
    if kind:
        assert said[0].evidence["degenerate"] == DEGENERATE[kind]


def examined(instrument):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    inputs = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    return examine(model, {"train": (inputs, torch.arange(40) % 2)}, instruments=[instrument])


def test_layers_at_the_ceiling_are_told_together():
    record = examined(Bottleneck(joint=tuple(map(tuple, drawn(40).tolist())), bins=300))
    said = [f for f in record.findings if f.code == "IB002"]
    assert [f.outcome for f in said] == [Outcome.TIP]
    assert said[0].evidence["ceiling"] == pytest.approx(math.log2(40))
    record = examined(Bottleneck(joint=tuple(map(tuple, drawn(40).tolist())), bins=2))
    assert record["bottleneck"]["missing"].min() >= -1e-9


def test_without_a_joint_it_does_not_apply_and_says_what_to_give():
    record = examined(Bottleneck())
    reasons = {row.reason for row in record.coverage() if row.instrument == "bottleneck"}
    assert any("p(y|x) is not known" in reason and "joint" in reason for reason in reasons)


def test_another_split_too_few_rows_and_numbers_that_are_none_do_not_apply(tmp_path):
    joint = saved(tmp_path, p_y_given_x=drawn(30))
    with pytest.raises(NotApplicable, match="'train' alone"):
        Bottleneck(joint=joint, split="train").measure_layer(View(torch.zeros(30, 1), split="test"))
    with pytest.raises(NotApplicable, match="30 rows"):
        Bottleneck(joint=joint).measure_layer(View(torch.zeros(60, 1)))
    with pytest.raises(NotApplicable, match="NaN or infinite"):
        Bottleneck(joint=joint).measure_layer(View(torch.full((30, 1), math.nan)))
    joint = saved(tmp_path, p_y_given_x=drawn(30), p_x=np.eye(30)[0])
    with pytest.raises(NotApplicable, match="zero for all"):
        Bottleneck(joint=joint).measure_layer(View(torch.zeros(20, 1), order=range(10, 30)))


def test_files_that_hold_no_distribution_are_refused(tmp_path):
    view = View(torch.zeros(4, 1))
    for arrays in ({"p_y_given_x": np.ones((4, 2))}, {"p_y_given_x": drawn(4), "p_x": np.ones(3)}, {"other": drawn(4)}):
        with pytest.raises(SettingError, match="joint"):
            Bottleneck(joint=saved(tmp_path, **arrays)).measure_layer(view)
    for name in ("missing.npz", "text.npz"):
        if name == "text.npz":
            (tmp_path / name).write_text("nothing")
        with pytest.raises(SettingError, match="joint"):
            Bottleneck(joint=str(tmp_path / name)).measure_layer(view)
    with pytest.raises(SettingError, match="joint"):
        Bottleneck(joint=((0.5, math.nan),)).measure_layer(view)


@pytest.mark.parametrize(
    "settings",
    [{"bins": 1}, {"accuracy": 0.0}, {"permutations": -1}, {"pooling": "spatial"}, {"bin_range": (1.0, 0.0)}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError, match="Bottleneck"):
        Bottleneck(**settings)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_a_given_range_is_taken(tmp_path, precision):
    joint = saved(tmp_path, p_y_given_x=drawn(10))
    features = torch.linspace(0, 1, 10, dtype=precision)[:, None]
    wide = numbers(Bottleneck(joint=joint, bins=4, bin_range=(-100.0, 100.0)).measure_layer(View(features)))
    assert wide["information_x"] == pytest.approx(0, abs=1e-12)
    assert numbers(Bottleneck(joint=joint, bins=4).measure_layer(View(features)))["information_x"] > 1.5


@pytest.mark.slow
def test_it_keeps_the_rules(tmp_path):
    check_instrument(Bottleneck(joint=saved(tmp_path, p_y_given_x=drawn(80, classes=4))))
