"""The places at which a network could be cut."""

from torch import nn

from stratoscope.diagnoses.path import Path
from stratoscope.record.rows import LayerRow


def row(name, kind="linear", params=0):
    spec = {"matrices": [{"name": f"{name}.weight"}]} if params and kind != "norm" else {}
    return LayerRow(name, kind, 0, params, None, spec)


def test_a_plain_network_is_its_own_path():
    rows = [
        row("a", params=10),
        row("b", "activation"),
        row("c", params=20),
        row("d", "activation"),
        row("e", params=5),
    ]
    path = Path.of([*rows, row("(root)", "block")])
    assert path.names == ("a", "b", "c", "d", "e")
    assert path.before == 4
    assert path.weights == (1, 1, 0, 0, 0)
    assert path.params == (20, 20, 0, 0, 0)
    assert path.total == 35


def test_the_output_layer_and_what_follows_it_come_last():
    path = Path.of([row("a", params=10), row("b", params=10), row("softmax", "activation"), row("(root)", "block")])
    assert path.names == ("a", "b", "softmax")
    assert path.before == 1


def test_a_residual_block_is_one_place():
    rows = [
        row("stem", "conv", 10), row("1.a", "conv", 20), row("1.n", "norm", 4), row("1.b", "conv", 20), row("1:relu"),
        row("1", "block"), row("2.a", "conv", 30), row("2.b", "conv", 30), row("2", "block"), row("fc", params=5),
        row("(root)", "block"),
    ]  # fmt: skip
    path = Path.of(rows)
    assert path.names == ("stem", "1", "2", "fc")
    assert path.before == 3
    assert path.weights == (4, 2, 0, 0)
    assert path.params == (104, 60, 0, 0)


def test_a_block_around_the_whole_network_is_looked_into():
    rows = [
        row("net.a", params=10),
        row("net.b", params=10),
        row("net", "block"),
        row("head", params=3),
        row("(root)", "block"),
    ]
    path = Path.of(rows)
    assert path.names == ("net.a", "net.b", "net", "head")
    assert path.before == 3


def test_a_block_that_holds_the_output_layer_gives_the_output():
    rows = [
        row("a", params=10), row("b", params=10), row("c", params=10), row("head.one", params=5), row("head", "block"),
        row("(root)", "block"),
    ]  # fmt: skip
    path = Path.of(rows)
    assert path.names == ("a", "b", "c", "head")
    assert path.before == 3


def test_names_that_begin_alike_are_not_inside():
    rows = [row("l1.a", params=5), row("l1", "block"), row("l10", params=5), row("l2", params=5), row("fc", params=5)]
    assert Path.of(rows).names == ("l1", "l10", "l2", "fc")


def test_nothing_with_weights_has_no_output_layer():
    path = Path.of([row("a", "activation"), row("b", "pool")])
    assert (path.names, path.before, path.total) == (("a", "b"), 2, 0)
    assert Path.of([]).names == ()


def test_layers_of_a_real_network_are_on_it():
    import torch

    from stratoscope import examine

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            return torch.relu(x + self.b(torch.relu(self.a(x))))

    draw = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Block(), Block(), nn.Linear(6, 3))
    record = examine(model, (torch.randn(40, 4, generator=draw), torch.arange(40) % 3), only="performance")
    path = Path.of(record.layers)
    assert path.names == ("0", "1", "2", "3", "4")
    assert path.weights == (4, 4, 2, 0, 0)
