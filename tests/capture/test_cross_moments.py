"""CrossMoments: which layers are paired, and that the pairs hold what the layers gave."""

import pytest
import torch
from torch import nn

from stratoscope.capture.activations import Activations
from stratoscope.capture.cross_moments import CrossMoments
from stratoscope.capture.views import Capture, Seen
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.network.subject import Subject
from stratoscope.numerics.similarity import linear_cka


class Blocks(nn.Module):
    """A block that hands on what its last layer gave, and one that changes it in place."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(5, 8), nn.Tanh())
        self.out = nn.Linear(8, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.out(self.block(x)))


def capture(need, batch_size=8, n=40, model=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model or Blocks()
    data = torch.randn(n, 5, generator=torch.Generator().manual_seed(1))
    subject = Subject(model.double(), data.double(), batch_size=batch_size, probe=n)
    needs = {need, Activations(n=n, width=512, pooling=need.pooling)}
    return Seen("data", Capture(subject, frozenset(needs))), Activations(n=n, width=512, pooling=need.pooling)


def test_neighbours_are_layers_that_give_something_else():
    need = CrossMoments()
    seen, _ = capture(need)
    pairs = {later: list(partners) for later, partners in seen[need].items()}
    assert pairs == {"block.1": ["block.0"], "out": ["block.1"], "relu": ["out"]}


def test_a_pair_holds_what_its_layers_gave():
    need = CrossMoments(pairs=(("relu", "block.0"), ("block.0", "out")))
    seen, sample = capture(need)
    found, kept = seen[need], seen[sample]
    assert {later: list(partners) for later, partners in found.items()} == {"out": ["block.0"], "relu": ["block.0"]}
    for later in found:
        scatter, (x, y) = found[later]["block.0"], (kept[name].features for name in ("block.0", later))
        assert scatter.n == 40
        torch.testing.assert_close(scatter.means[1], y.mean(0))
        assert float(scatter.cka().debiased) == pytest.approx(float(linear_cka(x, y).debiased), abs=1e-9)


def test_batches_change_nothing():
    need = CrossMoments()
    one, other = (capture(need, batch_size=size)[0][need] for size in (40, 7))
    for later, partners in one.items():
        for earlier, scatter in partners.items():
            torch.testing.assert_close(scatter.cross_covariance, other[later][earlier].cross_covariance)


def test_what_an_inplace_layer_overwrites_was_kept():
    need = CrossMoments(pairs=(("out", "relu"),))
    scatter = capture(need)[0][need]["relu"]["out"]
    before, after = scatter.means
    assert bool((after > before).any())  # equal, if the rows of `out` had been those of the changed tensor


def test_wide_layers_are_projected():
    need = CrossMoments(width=4)
    seen, _ = capture(need)
    assert tuple(seen[need]["out"]["block.1"].cross_covariance.shape) == (4, 3)


def test_two_reducers_merge():
    need = CrossMoments()
    whole = capture(need)[0][need]["out"]["block.1"]
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(40, 5, generator=generator).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Blocks().double()
    reducers = []
    for part in (data[:13], data[13:]):
        held = Capture(Subject(model, part, batch_size=4), frozenset({need}))
        reducers.append(held.run("data").reducers[need]["out"])
    reducers[0].merge(reducers[1])
    merged = reducers[0].result()["block.1"]
    torch.testing.assert_close(merged.cross_covariance, whole.cross_covariance, rtol=1e-9, atol=1e-12)
    assert float(merged.cka().debiased) == pytest.approx(float(whole.cka().debiased), abs=1e-9)


def test_layers_without_a_pair_have_none():
    need = CrossMoments(pairs=(("block.0", "nowhere"),))
    seen, _ = capture(need)
    with pytest.raises(NotApplicable):
        seen[need]


@pytest.mark.parametrize(
    "settings", [{"pairs": "all"}, {"pairs": (("a", "a"),)}, {"width": 0}, {"pooling": "max"}, {"pairs": (("a",),)}]
)
def test_odd_settings_are_refused(settings):
    with pytest.raises(SettingError):
        CrossMoments(**settings)
