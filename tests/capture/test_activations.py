"""A seeded sample of what a layer says."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from stratoscope.capture.activations import Activations
from stratoscope.capture.views import Capture
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.network.layers import ROOT
from stratoscope.network.subject import Subject
from stratoscope.numerics.sketch import count_sketch
from stratoscope.testing import SUBJECTS
from stratoscope.testing.strategies import subjects


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def sample(subject, need, layer, split="data"):
    return Capture(subject, frozenset({need})).value(need, subject.catalogue[layer], split)


def test_the_sample_is_the_layer_s_output_in_the_order_of_the_probe_set():
    subject = replace(SUBJECTS["frozen"](), batch_size=7, _probes={})
    found = sample(subject, Activations(), "0")
    inputs, labels = subject.data
    ids = subject.probe_set("data").ids
    with torch.no_grad():
        assert_close(found.features, subject.model[0](inputs)[ids])
    assert found.labels.tolist() == labels[ids].tolist()
    assert found.ids.tolist() == list(range(40))
    assert found.note == "40 examples, mean over positions"


@pytest.mark.parametrize("n", [1, 5, 8, 13])
def test_a_smaller_sample_is_a_beginning(n):
    subject = replace(SUBJECTS["frozen"](), batch_size=8, _probes={})
    whole, part = sample(subject, Activations(), "2"), sample(subject, Activations(n=n), "2")
    assert_close(part.features, whole.features[:n])
    assert part.labels.tolist() == whole.labels[:n].tolist()


@pytest.mark.parametrize("pooling", ["gap", "flatten"])
def test_maps_are_pooled_or_flattened(pooling):
    subject = SUBJECTS["cnn"]()
    found = sample(subject, Activations(pooling=pooling), "3")
    with torch.no_grad():
        maps = subject.model.eval()[:4](subject.data[0])[subject.probe_set("data").ids]
    expected = maps.mean((2, 3)) if pooling == "gap" else maps.movedim(1, -1).flatten(1)
    assert_close(found.features, expected)
    assert found.positions == tuple(maps.shape[2:])
    if pooling == "flatten":
        assert_close(found.features.unflatten(1, (*found.positions, -1)).movedim(-1, 1), maps)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("width", [7, 4096])
def test_a_flattened_map_is_the_same_however_it_lies_in_memory(memory, dtype, width):
    maps = torch.randn(12, 3, 4, 5, generator=seeded(1)).to(dtype)
    model = nn.Sequential(nn.Identity())
    found = sample(Subject(model.to(memory_format=memory), (maps.to(memory_format=memory),)), Activations(
        width=width, pooling="flatten", seed=2
    ), "0")  # fmt: skip
    subject = Subject(model, (maps,))
    rows = maps[subject.probe_set("data").ids].movedim(1, -1).flatten(1).to(torch.promote_types(dtype, torch.float32))
    assert_close(found.features, count_sketch(rows, width, seed=2))
    assert (found.width_from, found.positions) == (60, (4, 5))


@pytest.mark.parametrize("time_first", [False, True])
def test_a_vector_has_no_positions_and_a_sequence_its_length(time_first):
    subject = SUBJECTS["lstm_time_first" if time_first else "lstm"]()
    length = subject.probe_set("data").batches[0].args[0].shape[1]
    assert sample(subject, Activations(), "cell").positions == (length,)
    assert sample(subject, Activations(), "head").positions == ()


@settings(deadline=None, max_examples=20)
@given(subjects(), st.integers(1, 24))
def test_batches_change_nothing(subject, batch_size):
    subject.model.double()
    other = replace(subject, batch_size=batch_size, _probes={})
    for layer in subject.catalogue.layers:
        one, two = (sample(s, Activations(width=3), layer) for s in (subject, other))
        assert one.features.dtype == torch.float64
        assert_close(one.features, two.features, rtol=1e-12, atol=1e-12)
        assert one.labels.tolist() == two.labels.tolist()


def test_wide_layers_are_projected_and_distances_are_kept_on_average():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 3000, generator=generator)
    subject = Subject(nn.Sequential(nn.Identity()), inputs, batch_size=5)
    exact = sample(subject, Activations(width=3000), "0").features
    ratios = []
    for seed in range(8):
        found = sample(subject, Activations(width=256, seed=seed), "0")
        assert found.features.shape == (12, 256)
        assert found.note.endswith("projected from 3000 to 256 numbers")
        assert found.width_from == 3000
        ratios.append((torch.pdist(found.features) / torch.pdist(exact)).square())
    # a squared distance has a relative deviation of sqrt(2 / 256) in one projection
    assert abs(torch.stack(ratios).mean() - 1) < 4 * (2 / 256) ** 0.5 / (8 * 12) ** 0.5
    assert_close(found.features, sample(subject, Activations(width=256, seed=7), "0").features)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_is_kept_as_float32(name):
    subject = SUBJECTS[name]()
    found = sample(subject, Activations(), "2")
    assert found.features.dtype == torch.float32
    assert found.features.isfinite().all()


def test_a_sample_is_a_copy_that_later_layers_do_not_change():
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    inputs = torch.tensor([[-1.0], [2.0]])
    subject = Subject(model, inputs)
    assert sorted(sample(subject, Activations(), "0").features.flatten().tolist()) == [-1, 2]
    assert inputs.tolist() == [[-1], [2]]


def test_labels_for_each_token_are_not_classes_of_examples():
    assert sample(SUBJECTS["tied"](), Activations(), "mix").labels is None


@pytest.mark.parametrize("pooling", ["gap", "spatial"])
def test_examples_with_the_ignored_label_are_no_class_of_their_own(pooling):
    inputs = torch.randn(40, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 4
    labels[labels == 3] = -100
    found = sample(Subject(nn.Sequential(nn.Conv2d(3, 2, 3)), (inputs, labels)), Activations(pooling=pooling), "0")
    assert found.labels.unique().tolist() == [0, 1, 2]
    assert len(found.features) == len(found.ids) == len(found.labels)
    assert len(found.ids.unique()) == 30
    assert "10 without a label (-100) left out" in found.note


def test_where_all_labels_are_ignored_the_sample_has_none():
    inputs = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    found = sample(Subject(nn.Sequential(nn.Linear(3, 2)), (inputs, torch.full((9,), -100))), Activations(), "0")
    assert found.labels is None
    assert len(found.features) == 9


def test_sentences_of_different_length_cannot_be_laid_flat():
    batches = [(torch.zeros(4, steps, 3), torch.zeros(4, dtype=torch.int64)) for steps in (5, 6)]
    subject = Subject(nn.Sequential(nn.Linear(3, 2)), batches)
    assert len(sample(subject, Activations(), "0").features) == 8
    with pytest.raises(NotApplicable, match=r"0 gives \d+ numbers for some examples and \d+ for others; .*gap"):
        sample(subject, Activations(pooling="flatten"), "0")


def test_a_layer_that_only_later_examples_reach_has_no_sample():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.late, self.calls = nn.Linear(2, 2), nn.Linear(2, 2), 0

        def forward(self, x):
            self.calls += 1
            return self.late(x) if self.calls > 1 else self.first(x)

    subject = Subject(Gate(), torch.zeros(8, 2), batch_size=4)
    with pytest.raises(NotApplicable, match="not called on any example of the sample"):
        sample(subject, Activations(n=4), "late")


@pytest.mark.parametrize(
    ("bad", "said"), [({"pooling": "max"}, "choose one of gap, flatten, spatial"), ({"n": 0}, "at least 1")]
)
def test_settings_out_of_range_are_refused(bad, said):
    with pytest.raises(SettingError, match=said):
        Activations(**bad)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 5), st.integers(1, 14), st.booleans())
def test_merging_parts_in_any_order_is_one_pass(cut, n, backwards):
    """As two processes would do it, each with some of the batches."""
    subject = replace(SUBJECTS["frozen"](), batch_size=8, _probes={})
    need, probe = Activations(n=n), subject.probe_set("data")
    halves = []
    for batches in (probe.batches[:cut], probe.batches[cut:]):
        part = replace(subject, _probes={"data": replace(probe, batches=batches)})
        reducers = Capture(part, frozenset({need})).run("data").reducers[need]
        halves.append(reducers.get("2") or need.reducer(None))
    first, second = reversed(halves) if backwards else halves
    first.merge(second)
    merged, whole = first.result(), sample(subject, need, "2")
    assert_close(merged.features, whole.features)
    assert (merged.ids.tolist(), merged.labels.tolist()) == (whole.ids.tolist(), whole.labels.tolist())
    assert merged.note == whole.note


class Block(nn.Module):
    def __init__(self, *inner):
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x):
        return self.inner(x)


def test_layers_that_give_the_same_tensor_share_one_sample():
    model = nn.Sequential(Block(Block(nn.Linear(3, 4), nn.ReLU())), nn.ReLU())
    subject = Subject(model, torch.randn(20, 3, generator=seeded(0)), batch_size=8)
    capture = Capture(subject, frozenset({Activations()}))
    found = {name: capture.value(Activations(), layer, "data") for name, layer in subject.catalogue.layers.items()}
    assert found["0"] is found["0.inner.0"] is found["0.inner.0.inner.1"]
    assert found["1"] is not found["0"]  # equal numbers, but another tensor
    assert found[ROOT] is found["1"]
    assert torch.equal(found["0"].features, found["0.inner.0.inner.0"].features.relu())


class Fickle(nn.Module):
    """Gives on what its layer gave, but not for every batch; and changes it in place for some."""

    def __init__(self):
        super().__init__()
        self.inner, self.calls = nn.Identity(), 0

    def forward(self, x):
        self.calls += 1
        y = self.inner(x * 1)
        return y if self.calls % 3 == 1 else y + 1 if self.calls % 3 == 2 else y.mul_(2)


def test_a_tensor_that_is_only_sometimes_the_same_is_not_shared():
    inputs = torch.randn(12, 5, generator=seeded(1))
    subject = Subject(nn.Sequential(Fickle()), inputs, batch_size=4)
    capture = Capture(subject, frozenset({Activations()}))
    inner, outer = (capture.value(Activations(), subject.catalogue[name], "data").features for name in ("0.inner", "0"))
    assert torch.equal(inner, inputs[subject.probe_set("data").ids])
    assert torch.equal(outer, torch.cat([inner[:4], inner[4:8] + 1, inner[8:] * 2]))


def test_a_shared_sample_that_is_cut_or_merged_stays_right():
    model, inputs = nn.Sequential(Block(nn.Identity())), torch.randn(30, 5, generator=seeded(2))
    subject = Subject(model, inputs, batch_size=10)
    tight = Capture(subject, frozenset({Activations()}), memory=2 * 7 * 5 * 4)
    rows = inputs[subject.probe_set("data").ids]
    for name in ("0", "0.inner.0"):
        found = tight.value(Activations(), subject.catalogue[name], "data")
        assert torch.equal(found.features, rows[: len(found.features)])
        assert 1 <= len(found.features) < 30
        assert found.ids.tolist() == list(range(len(found.features)))
