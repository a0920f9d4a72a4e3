"""The depth diagnosis on real measurements: what is true of a network is said, noise gets no advice."""

import pytest
import torch
from torch import nn

from stratoscope import examine
from stratoscope.diagnoses.depth import Depth
from stratoscope.findings import Outcome
from stratoscope.instruments.performance import Performance
from stratoscope.instruments.probe import Probe
from stratoscope.instruments.separation import Separation
from stratoscope.observe.cutting import cut
from stratoscope.observe.settings import Settings

WIDTH = 16
MEASURES = [Separation(permutations=6), Probe(permutations=2), Performance()]


def blobs(n, classes, seed, far=2.5):
    draw = torch.Generator().manual_seed(seed)
    centres = far * torch.randn(classes, 8, generator=torch.Generator().manual_seed(1000 + seed // 10))
    labels = torch.arange(n) % classes
    return centres[labels] + torch.randn(n, 8, generator=draw), labels


def network(classes, layers, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden = [nn.Linear(8, WIDTH), nn.ReLU()]
        for _ in range(layers - 1):
            hidden += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
        return nn.Sequential(*hidden, nn.Linear(WIDTH, classes))


def trained(model, inputs, labels, steps=60):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model


def tips(model, data, measures=MEASURES):
    record = examine(model, data, instruments=[*measures, Depth()], settings=Settings())
    return {
        finding.code: finding for finding in record.findings if finding.code.startswith("DP") and finding.wants_action
    }


@pytest.mark.parametrize("classes", [2, 6])
def test_untrained_networks_get_no_advice(classes):
    for seed in range(4):
        data = {"train": blobs(240, classes, 10 * seed), "test": blobs(240, classes, 10 * seed + 1)}
        assert tips(network(classes, 4, seed), data, MEASURES if seed % 2 else MEASURES[::2]) == {}


def test_labels_at_random_get_no_advice():
    for seed in range(4):
        data = {"train": blobs(240, 4, 10 * seed), "test": blobs(240, 4, 10 * seed + 1)}
        draw = torch.Generator().manual_seed(seed)
        data = {name: (x, y[torch.randperm(len(y), generator=draw)]) for name, (x, y) in data.items()}
        # that it knows the training labels by heart is true, and may be said
        assert set(tips(trained(network(4, 3, seed), *data["train"]), data)) <= {"DP003"}


@pytest.mark.parametrize("kind", ["identity", "rotation"])
def test_layers_that_keep_everything_add_nothing_and_cutting_there_costs_nothing(kind):
    data = {"train": blobs(600, 4, 0), "test": blobs(600, 4, 1)}
    body = trained(network(4, 1, 0), *data["train"])
    tail, together = [], torch.eye(WIDTH)
    for number in range(3):
        layer = nn.Linear(WIDTH, WIDTH)
        turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(number)))[0]
        with torch.no_grad():
            layer.weight.copy_(torch.eye(WIDTH) if kind == "identity" else turn)
            layer.bias.zero_()
            together = layer.weight @ together
        tail.append(layer)
    head = nn.Linear(WIDTH, 4)
    with torch.no_grad():
        head.weight.copy_(body[2].weight @ together.mT)
        head.bias.copy_(body[2].bias)
    model = nn.Sequential(body[0], body[1], *tail, head)
    finding = tips(model, data)["DP001"]
    assert finding.outcome is Outcome.TIP
    assert finding.layer == "1"
    assert finding.evidence["beyond"] == 3
    found = cut(model, data, finding.layer, probe=600)
    assert not found.worse
    assert abs(found.depth.difference) < 0.01


def test_a_constant_layer_is_told_and_gives_no_advice_to_cut():
    data = {"train": blobs(300, 4, 0), "test": blobs(300, 4, 1)}
    body = trained(network(4, 1, 0), *data["train"])
    constant = nn.Linear(WIDTH, WIDTH)
    with torch.no_grad():
        constant.weight.zero_()
    found = tips(nn.Sequential(body[0], body[1], constant, nn.ReLU(), body[2]), data)
    assert set(found) == {"DP002"}
    assert found["DP002"].layer == "2"
    assert found["DP002"].evidence["best_layer"] in ("0", "1")
