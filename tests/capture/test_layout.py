"""Which axis counts examples and which counts units."""

import pytest
import torch
from torch import nn

from stratoscope.capture.activations import Activations
from stratoscope.capture.layout import Layout
from stratoscope.capture.unit_counts import UnitCounts
from stratoscope.capture.views import Capture
from stratoscope.network.layers import Layer
from stratoscope.network.subject import Subject
from stratoscope.testing.subjects import seeded


def layer(kind, channel_dim=-1, name="layer"):
    return Layer(name, kind, 0, channel_dim=channel_dim)


def kept(model, inputs, batch_size, pooling="gap", **more):
    need = Activations(pooling=pooling)
    subject = Subject(model, inputs, batch_size=batch_size, **more)
    capture = Capture(subject, frozenset({need}))
    capture.run("data")
    return {at.name: capture.value(need, at, "data").features for at in capture.layers() if at.kind != "block"}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.LSTM(2, 3), ("",)),
        (nn.LSTM(2, 3, batch_first=True), ()),
        (nn.Sequential(nn.GRU(2, 3), nn.Linear(3, 3)), ("0",)),
        (nn.MultiheadAttention(4, 2), ("",)),
        (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), ()),
    ],
)
def test_modules_that_want_time_first_are_found(module, expected):
    assert Layout.of(module).sequence_first == expected


def test_the_parts_of_a_time_first_transformer_are_time_first():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2, enable_nested_tensor=False)
    layout = Layout.of(model)
    square = torch.zeros(5, 5, 4)
    assert layout.batch_dim(layer("linear", name="layers.1.linear1"), square, 5, packed=False) == 1


def test_a_module_of_the_users_may_have_the_same_attribute():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.batch_first = False
            self.cell = nn.LSTM(2, 3)

        def forward(self, x):
            return self.cell(x.transpose(0, 1))[0].transpose(0, 1)

    assert Layout.of(Reader()).sequence_first == ("cell",)


@pytest.mark.parametrize(("shape", "n", "expected"), [((8, 5, 3), 8, 0), ((5, 8, 3), 8, 1), ((5, 3), 8, None)])
def test_the_axis_of_the_right_length_counts_examples(shape, n, expected):
    assert Layout().batch_dim(layer("linear"), torch.zeros(shape), n, packed=False) == expected


def test_time_first_decides_where_both_axes_fit():
    layout, square = Layout(sequence_first=("cell",)), torch.zeros(8, 8, 3)
    assert layout.batch_dim(layer("recurrent", name="cell"), square, 8, packed=False) == 1
    assert layout.batch_dim(layer("linear", name="cell.part"), square, 8, packed=False) == 1
    assert layout.batch_dim(layer("linear", name="cells"), square, 8, packed=False) == 0


@pytest.mark.parametrize("steps", [5, 8])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_recurrent_layer_pools_over_time_whatever_comes_first(steps, batch_first):
    with seeded(0) as generator:
        cell = nn.LSTM(3, 4, batch_first=batch_first)
        inputs = torch.randn(16, steps, 3, generator=generator)

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = cell

        def forward(self, x):
            states = self.cell(x if batch_first else x.transpose(0, 1))[0]
            return states if batch_first else states.transpose(0, 1)

    with torch.no_grad():
        states = Reader()(inputs)
    subject = Subject(Reader(), inputs, batch_size=8)
    order = subject.probe_set("data").ids
    need = Activations()
    capture = Capture(subject, frozenset({need}))
    found = capture.value(need, subject.catalogue["cell"], "data").features
    torch.testing.assert_close(found, states.mean(1)[order])


def test_what_follows_a_convolution_has_its_channels():
    layout, maps = Layout(), torch.zeros(4, 6, 5)
    assert layout.channel_dim(layer("activation"), maps) == -1
    layout.channel_dim(layer("conv", 1), maps)
    assert layout.channel_dim(layer("activation"), maps) == 1
    layout.channel_dim(layer("linear"), maps)
    assert layout.channel_dim(layer("activation"), maps) == -1


def test_four_axes_nobody_knows_are_maps():
    assert Layout().channel_dim(layer("activation"), torch.zeros(4, 6, 5, 5)) == 1


def test_a_layer_norm_over_a_map_keeps_the_channels():
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.LayerNorm((6, 4, 4)), nn.ReLU())
    subject = Subject(model, torch.zeros(10, 1, 6, 6), batch_size=5)
    capture = Capture(subject, frozenset({UnitCounts()}))
    tally = capture.value(UnitCounts(), subject.catalogue["2"], "data")
    assert (tally.n, tally.positions, len(tally.active)) == (10, 160, 6)


def test_channels_last_blocks_are_read_by_their_last_axis():
    model = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 5), nn.GELU())
    subject = Subject(model, torch.zeros(10, 4, 4, 3), batch_size=5)
    capture = Capture(subject, frozenset({UnitCounts()}))
    assert len(capture.value(UnitCounts(), subject.catalogue["2"], "data").active) == 5


def test_what_has_no_axis_for_examples_is_refused_with_its_shape():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(3, 3)
            self.total = nn.Identity()

        def forward(self, x):
            x = self.part(x)
            self.total(x.sum(0))
            return x

    subject = Subject(Sums(), torch.zeros(8, 3))
    capture = Capture(subject, frozenset({Activations()}))
    with pytest.raises(Exception, match=r"total gives shape \(3,\), in which no axis counts 8 examples"):
        capture.value(Activations(), subject.catalogue["total"], "data")
