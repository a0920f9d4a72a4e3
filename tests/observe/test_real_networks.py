"""Every trained network of the data folder through `inspect`: what its file holds is in the record, and its report."""

import json
import math
from collections import defaultdict

import numpy as np
import pytest
from safetensors import safe_open

from stratoscope import inspect
from stratoscope.instruments.spectrum import EigenvalueSpectrum
from stratoscope.instruments.weights import WeightMatrices
from stratoscope.numerics.spectral_phase import PHASES
from stratoscope.report.html import to_html
from stratoscope.report.rows import rows_of

NETWORKS = [
    "cifar10_lenet/model",
    "cifar10_resnet_a/resnet20",
    "cifar10_resnet_a/resnet32",
    "control_policies/ppo_Acrobot-v1",
    "control_policies/ppo_CartPole-v1",
    "control_policies/ppo_LunarLander-v2",
    "control_policies/ppo_MountainCar-v0",
    "control_policies/ppo_Pendulum-v1",
    "gpt_nano_sort/model",
    "imagenet_squeezenet_dc/model",
    "keyword_spotting/DNN_L",
    "keyword_spotting/DNN_M",
    "keyword_spotting/DNN_S",
    "keyword_spotting/GRU_S",
    "llama_stories260k/model",
    "mnist_lenet5/model",
    "pilotnet/model",
    "silero_vad_lstm/model",
    "tiny_vgg/model",
]


def inspected(path):
    """Without the samples behind p-values and intervals, which take most of the time."""
    return inspect(path, instruments=[EigenvalueSpectrum(bootstrap=0, alternatives=False), WeightMatrices()])


def test_none_is_forgotten(data_folder):
    there = {str(path.relative_to(data_folder).with_suffix("")) for path in data_folder.glob("*/*.safetensors")}
    assert there == set(NETWORKS)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_a_row_for_every_param(network, data_folder):
    path = data_folder / f"{network}.safetensors"
    with safe_open(path, "np") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    record = inspected(path)
    rows = defaultdict(list)
    for row in rows_of(record):
        rows[row["tensor"]].append(row)
    assert set(shapes) == set(rows) - {None}
    for name, shape in shapes.items():
        for row in rows[name]:
            assert row["status"] == "measured" or row["reason"], row
            assert row["status"] in ("measured", "not_applicable"), row
        if len(shape) > 1:
            checked = [check_matrix(row) for row in rows[name]]
            assert sum(checked) == math.prod(shape), name  # the parts of a fused tensor are all of it
    assert not [finding for finding in record.findings if finding.outcome.value == "failed"]
    for text in (to_html(record), json.dumps(rows_of(record), allow_nan=False)):
        assert "Traceback" not in text


def check_matrix(row):
    """What must hold of any matrix, whatever it has learned; the number of its entries."""
    short, long = sorted(row["shape"])
    assert (row["M"], row["N"]) == (short, long)
    assert row["phase"] in PHASES
    assert (row["phase"] == "too-small") == (short < 100)
    assert row["stable_rank"] * (1 + 1e-9) >= 1
    assert row["stable_rank"] <= row["norm"] / row["lambda_max"] * (1 + 1e-9) <= short * (1 + 1e-8)
    assert (row["alpha"] is None) == (row["D"] is None)
    assert row["alpha"] is not None or row["alpha_reason"]
    if row["num_spikes"] == 0 or short < 32:
        assert row["alpha"] is None
    return short * long


@pytest.mark.slow
def test_a_fourier_transform_is_flat_and_a_pruned_network_is_not_collapsed(data_folder):
    """Known answers: the first convolution of silero is a fixed orthogonal basis; zeros among entries are no zeros among
    eigenvalues."""
    silero = {row["name"]: row for row in rows_of(inspected(data_folder / "silero_vad_lstm" / "model.safetensors"))}
    assert silero["stft_conv.weight"]["phase"] == "flat"
    pruned = [row for row in rows_of(inspected(data_folder / "imagenet_squeezenet_dc" / "model.safetensors"))]
    zeros = {row["name"]: row["zero_share"] for row in pruned if "phase" in row}
    assert np.mean([share > 0.4 for share in zeros.values()]) > 0.4
    assert not [row["name"] for row in pruned if row.get("phase") == "rank-collapse"]
