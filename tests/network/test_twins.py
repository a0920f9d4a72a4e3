import torch
from torch import nn

from stratoscope import examine
from stratoscope.network.weights import StateDict, WithTwins


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(self.table(tokens).mean(1))


def test_a_file_without_the_tied_name_fits_the_model_either_way():
    tokens, labels = torch.arange(12).reshape(6, 2) % 7, torch.arange(6)
    weight = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    want = (torch.nn.functional.embedding(tokens, weight).mean(1) @ weight.T).argmax(1)
    for name in ("table.weight", "head.weight"):
        record = examine(Tied(), {"test": (tokens, labels)}, weights={name: weight})
        accuracy = float(record["performance"]["accuracy"].values.squeeze())
        assert accuracy == float((want == labels).float().mean())
        reasons = {c.param: c.reason for c in record.coverage() if c.instrument == "weights"}
        assert set(reasons) - {""} == {"table.weight", "head.weight"}


def test_what_is_there_is_left_as_it_is():
    both = {"table.weight": torch.zeros(7, 4), "head.weight": torch.ones(7, 4)}
    source = WithTwins(StateDict(both), Tied())
    assert torch.equal(source.load("head.weight"), torch.ones(7, 4))
    assert list(source.describe()) == list(both)
