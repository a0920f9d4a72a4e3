import pytest
import torch
from torch import nn

from stratoscope.errors import NotApplicable
from stratoscope.network.catalogue import catalogue_of
from stratoscope.network.conv_norm import conv_operator_norm


def dense_norm(module, channels, size):
    """The layer as a matrix, column by column, and its largest singular value."""
    basis = torch.eye(channels * size**2, dtype=torch.float64).reshape(-1, channels, size, size)
    with torch.no_grad():
        zero = module(torch.zeros(1, channels, size, size, dtype=torch.float64))
        columns = (module(basis) - zero).flatten(1)
    return float(torch.linalg.matrix_norm(columns.T, 2))


def layer_of(module):
    return catalogue_of(nn.Sequential(module)).layers["0"]


@pytest.mark.parametrize(
    ("kind", "options", "exact"),
    [
        (nn.Conv2d, {"padding": 1, "padding_mode": "circular"}, True),
        (nn.Conv2d, {"padding": "same", "padding_mode": "circular", "dilation": 2}, True),
        (nn.Conv2d, {"padding": 1, "padding_mode": "circular", "stride": 2}, False),
        (nn.Conv2d, {"padding": 2, "padding_mode": "circular"}, False),
        (nn.Conv2d, {"padding": 1}, False),
        (nn.Conv2d, {"groups": 2, "stride": 2}, False),
        (nn.Conv2d, {"padding": 1, "padding_mode": "reflect"}, False),
        (nn.ConvTranspose2d, {"stride": 2, "output_padding": 1}, False),
    ],
)
def test_it_is_the_norm_of_the_layer_as_a_matrix(kind, options, exact):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = kind(4, 6, 3, **options).double()
    norm, error = conv_operator_norm(layer_of(module), 6)
    assert norm == pytest.approx(dense_norm(module, 4, 6), rel=1e-4)
    assert (error == 0) == exact


def test_other_weights_of_the_same_layer():
    module = nn.Conv2d(2, 2, 3, padding=1)
    assert conv_operator_norm(layer_of(module), 5, weight=torch.zeros(2, 2, 3, 3))[0] == 0


def test_what_is_no_convolution_says_so():
    with pytest.raises(NotApplicable, match="it is a Linear"):
        conv_operator_norm(layer_of(nn.Linear(2, 2)), 5)
