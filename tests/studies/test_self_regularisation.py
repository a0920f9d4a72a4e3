"""The study of self-regularisation: its networks start as the authors' did, and its claims read what they say."""

import math

import numpy as np
import pytest
import torch

from stratoscope.errors import NotApplicable
from stratoscope.studies.claim import decide
from stratoscope.studies.registry import study
from stratoscope.studies.running import run_study
from stratoscope.studies.self_regularisation import claims, pictures, pretrained
from stratoscope.studies.self_regularisation.networks import TRUNCATED, build, glorot_normal, start_sigma
from stratoscope.studies.self_regularisation.study import tasks


def test_the_truncated_normal_has_the_deviation_of_its_closed_form():
    phi, mass = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    assert math.sqrt(1 - 4 * phi / mass) == pytest.approx(TRUNCATED, abs=1e-12)


@pytest.mark.parametrize(("net", "layer", "printed"), [("MiniAlexNet", "fc1", 1.2036), ("MiniAlexNet", "fc2", 1.0126)])
def test_sigma_at_the_start_is_the_printed_one_within_two_per_cent(net, layer, printed):
    weight = build(net, seed=5).get_submodule(layer).weight.detach()
    sigma = float(weight.std()) * math.sqrt(max(weight.shape))
    assert sigma == pytest.approx(start_sigma(net, layer), rel=0.01)
    assert sigma == pytest.approx(printed, rel=0.02)


def test_glorot_normal_cuts_at_two_deviations():
    weight = torch.empty(300, 500)
    glorot_normal(weight, torch.Generator().manual_seed(0))
    s = math.sqrt(2 / 800)
    assert float(weight.abs().max()) <= 2 * s
    assert float(weight.std()) == pytest.approx(TRUNCATED * s, rel=0.01)


@pytest.mark.parametrize(("net", "channels", "shape"), [("MiniAlexNet", 3, (384, 4096)), ("LeNet5", 1, (500, 2450)), ("MLP3", 3, (512, 2352))])  # fmt: skip
def test_the_first_connected_layer_has_the_papers_size(net, channels, shape):
    model = build(net, seed=0)
    assert tuple(model.get_submodule("fc1").weight.shape) == shape
    assert model(torch.zeros(2, channels, 28, 28)).shape == (2, 10)


def test_a_seed_gives_the_same_network_and_another_seed_another():
    one, two, three = (build("MLP3", seed).state_dict()["fc2.weight"] for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_pictures_are_standardised_and_say_when_they_are_not_there(monkeypatch, tmp_path):
    images, labels = pictures.pictures("generated", 20)
    assert images.shape == (20, 3, 28, 28)
    assert torch.allclose(images.flatten(1).mean(1), torch.zeros(20), atol=1e-5)
    assert torch.allclose(images.flatten(1).std(1), torch.ones(20), atol=1e-4)
    assert labels.min() >= 0
    monkeypatch.setenv("STRATOSCOPE_DATA", str(tmp_path))
    monkeypatch.setenv("STRATOSCOPE_CACHE", str(tmp_path))
    with pytest.raises(NotApplicable, match="cifar10 is not on this machine"):
        pictures.pictures("cifar10", 20)


def test_the_sheets_are_the_first_training_pictures(monkeypatch, data_folder):
    monkeypatch.setenv("STRATOSCOPE_DATA", str(data_folder))
    images, labels = pictures.pictures("cifar10", 30)
    assert images.shape == (30, 3, 28, 28)
    assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]  # of CIFAR-10's first training batch
    smooth = (images[..., 1:] - images[..., :-1]).square().mean()
    assert smooth < 0.5  # neighbours of scrambled pixels would differ by 2 on average


def test_pretrained_weights_are_found_where_they_lie_but_not_retrained_ones(monkeypatch, tmp_path):
    monkeypatch.setenv("STRATOSCOPE_DATA", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth").touch()
    assert pretrained.weights_of("resnet50") is None
    wanted = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    wanted.touch()
    assert pretrained.weights_of("resnet50") == wanted
    assert pretrained.weights_of("vgg11") is None  # not the file of vgg11_bn
    (tmp_path / "hub" / "checkpoints" / "vgg11_bn-6002323d.pth").touch()
    assert pretrained.weights_of("vgg11") is None


def test_budgets_have_the_tasks_that_the_claims_read():
    for budget in ("smoke", "analogue", "full"):
        specs = tasks(budget, 2)
        parts = {spec["part"] for spec in specs}
        assert {"batch size", "equal steps", "weight decay", "LeNet5", "MLP3"} <= parts
        assert len([s for s in specs if s["part"] == "weight decay"]) == 2
    assert {"part": "pretrained", "net": "vgg16"} in tasks("full", 1)


class Written:
    """A run whose numbers are written down."""

    def __init__(self, seed, batch, **numbers):
        self.spec, self.numbers = {"part": "batch size", "seed": seed, "batch": batch, "most_steps": 0}, numbers

    def number(self, key, variable, step=None, **labels):
        return {"train_accuracy": 1.0, **self.numbers}[variable]


def runs(rise):
    return claims.StudyRuns(
        [Written(seed, batch, mp_softrank=0.1 * place * rise + 0.001 * seed * place)
         for seed in range(3) for place, batch in enumerate((4, 16, 64))]
    )  # fmt: skip


def test_a_soft_rank_that_rises_with_the_batch_holds_and_one_that_falls_does_not():
    assert decide(claims.soft_rank_rises(runs(1))).result == "held"
    assert decide(claims.soft_rank_rises(runs(-1))).result == "did not hold"


def test_the_spike_share_is_counted_as_the_authors_count_it():
    assert claims._spike_share(Written(0, 4, num_spikes=25.0, M=500.0)) == pytest.approx(0.0526, abs=1e-4)


@pytest.mark.slow
def test_a_smoke_run_measures_every_claim_and_decides_none(monkeypatch, tmp_path):
    monkeypatch.setenv("STRATOSCOPE_LEDGER", str(tmp_path / "ledger.json"))
    rows = run_study(study("self-regularisation"), "smoke", to=tmp_path / "runs", engine="serial").rows
    assert {row.result for row in rows} == {"undecided"}
    assert not [row.reason for row in rows if "failed" in row.reason]
    assert np.isfinite(next(row for row in rows if "soft rank falls" in row.claim).numbers["mean"])
