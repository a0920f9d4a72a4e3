"""The phase timeline of real trainings: a layer that learns leaves noise behind, and one that is frozen does not."""

import pytest
import torch
from torch import nn

from stratoscope import watch
from stratoscope.charts.strips import timeline_of
from stratoscope.diagnoses.timeline import Timeline
from stratoscope.instruments.information import Information
from stratoscope.instruments.spectrum import EigenvalueSpectrum
from stratoscope.instruments.training import Training
from stratoscope.observe.settings import Settings

WIDTH, CLASSES, STEPS = 128, 8, 320
MEASURES = [
    Information(variances=(), sweep=(10, 30), permutations=2, distances=False),
    EigenvalueSpectrum(shuffles=0, bootstrap=0, alternatives=False),
    Training(window=16),
    Timeline(resamples=100),
]


def timeline(batch, frozen=()):
    """Train a perceptron on blobs, and look at its timeline by layer and theory."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, WIDTH, generator=draw)
    labels = torch.arange(800) % CLASSES
    inputs = centres[labels] + 2.0 * torch.randn(800, WIDTH, generator=draw)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES)
        )
    for name, param in model.named_parameters():
        param.requires_grad_(name.partition(".")[0] not in frozen)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.2)
    splits = {"train": (inputs[:400], labels[:400]), "test": (inputs[400:], labels[400:])}
    with watch(model, splits, optimizer=optimizer, instruments=MEASURES, budget=1e9, settings=Settings()) as w:
        for step in range(1, STEPS + 1):
            rows = torch.randint(0, 400, (batch,), generator=draw) if batch < 400 else slice(0, 400)
            loss = nn.functional.cross_entropy(model(inputs[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(step, loss=loss)
    record = w.record
    return {(row.layer, row.theory): row for row in timeline_of(record).rows()}, record


@pytest.fixture(scope="module")
def noisy():
    return timeline(batch=8, frozen=["2"])


@pytest.mark.slow
def test_what_learns_leaves_noise_and_what_is_frozen_stays(noisy):
    rows, record = noisy
    assert rows["0", "spectrum"].answer == "second phase found"
    assert 0 < rows["0", "spectrum"].turn <= STEPS
    assert set(rows["2", "spectrum"].letters) == {"R"}
    assert rows["2", "spectrum"].answer == "no second phase found"
    assert ("2", "gradient") not in rows  # it has none
    assert ("1", "spectrum") not in rows  # it has no weights
    assert rows["4", "spectrum"].reason == "the matrix is too small for a phase"
    assert record["timeline"]["phase"].attrs["looked_at"]["information"] == "test"
    assert not [finding for finding in record.findings if finding.code.startswith("TL") and finding.outcome == "issue"]


@pytest.mark.slow
def test_small_batches_diffuse_and_the_whole_data_drift(noisy):
    rows, _ = noisy
    assert rows["0", "gradient"].letters.endswith("~")
    whole, _ = timeline(batch=400)
    assert {whole[layer, "gradient"].letters.strip("·") for layer in ("0", "2", "4")} <= {"D" * n for n in range(1, 60)}
