"""The needs that weights alone fill."""

import math

import pytest
import torch

from stratoscope.capture.tensors import Tensors
from stratoscope.capture.weights import Matrices, SingularValues, Weights
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.network.layers import Layer, Matrix, Param


class Source:
    """Derives needs of one layer from named tensors, each once, and counts what was read."""

    def __init__(self, layer, tensors):
        self.layer, self.tensors, self.values, self.read = layer, tensors, {}, []

    def load(self, name):
        self.read.append(name)
        return self.tensors[name]

    def ask(self, need):
        if need not in self.values:
            self.values[need] = need.derive(self.layer, self.ask, self.load)
        return self.values[need]


def rows(start, stop):
    return lambda tensor: tensor[start:stop]


def gaussian(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer(params, matrices=()):
    return Layer("fc", "linear", 0, tuple(params), tuple(matrices))


def test_weights_are_the_params_widened_with_the_type_they_are_stored_in():
    tensors = {
        "w": gaussian(3, 4, dtype=torch.bfloat16),
        "b": gaussian(3),
        "n": torch.ones(3),
        "i": torch.ones(2, 2).char(),
    }
    source = Source(
        layer(
            [
                Param("w", "fc", (3, 4)),
                Param("b", "fc", (3,), "bias"),
                Param("n", "fc", (3,), "statistic"),
                Param("q", "fc", (9,), reason="4-bit codes"),
                Param("i", "fc", (2, 2), "other"),
            ]
        ),
        tensors,
    )
    weights = source.ask(Weights())
    assert list(weights) == ["w", "b", "i"]
    assert len(weights) == 3
    assert {name: tensor.dtype for name, tensor in weights.items()} == dict.fromkeys("wbi", torch.float32)
    assert weights.stored == {"w": torch.bfloat16, "b": torch.float32, "i": torch.int8}
    assert torch.equal(weights["w"], tensors["w"].float())
    assert weights["b"] is tensors["b"]  # nothing is copied that need not be


def test_float64_stays():
    source = Source(layer([Param("w", "fc", (2, 2))]), {"w": gaussian(2, 2).double()})
    assert source.ask(Weights())["w"].dtype == torch.float64


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ([], "no weights of its own"),
        ([Param("n", "fc", (3,), "statistic")], "no weights of its own"),
        ([Param("q", "fc", (9,), reason="4-bit codes")], "4-bit codes"),
    ],
)
def test_a_layer_without_readable_weights_is_not_applicable(params, words):
    with pytest.raises(NotApplicable, match=words):
        Source(layer(params), {}).ask(Weights())


def two_views():
    matrices = [
        Matrix("w:q", "fc", ("w",), "linear", (2, 5), rows(0, 2)),
        Matrix("w:k", "fc", ("w",), "linear", (4, 5), rows(2, 6)),
    ]
    return Source(layer([Param("w", "fc", (6, 5))], matrices), {"w": gaussian(6, 5, dtype=torch.float16)})


def test_singular_values_of_each_view_and_each_param_read_once():
    source = two_views()
    spectra = source.ask(SingularValues())
    assert source.read == ["w"]
    assert list(spectra) == ["w:q", "w:k"]
    for name, part in (("w:q", slice(0, 2)), ("w:k", slice(2, 6))):
        truth = torch.linalg.svdvals(source.tensors["w"][part].double())
        torch.testing.assert_close(spectra[name], truth, rtol=1e-9, atol=1e-9)
    assert source.ask(Matrices()).stored == {"w:q": torch.float16, "w:k": torch.float16}


def test_a_product_with_a_param_of_another_layer_counts_as_float32():
    pair = Matrix("b:BA", "fc", ("b", "a"), "adapter", (4, 5), lambda b, a: b @ a)
    tensors = {"b": gaussian(4, 2, dtype=torch.bfloat16), "a": gaussian(2, 5, seed=1, dtype=torch.bfloat16)}
    source = Source(layer([Param("b", "fc", (4, 2), "adapter")], [pair]), tensors)
    matrices = source.ask(Matrices())
    assert isinstance(matrices, Tensors)
    torch.testing.assert_close(matrices["b:BA"], tensors["b"].float() @ tensors["a"].float())
    assert matrices.stored["b:BA"] == torch.float32
    assert (source.ask(SingularValues())["b:BA"] > 1e-5).sum() == 2


def test_a_matrix_that_is_not_finite_or_empty_does_not_stop_the_others():
    source = two_views()
    source.tensors["w"][0, 0] = math.inf
    empty = Matrix("none", "fc", ("w",), "linear", (0, 5), rows(0, 0))
    source.layer = layer(source.layer.params, [*source.layer.matrices, empty])
    spectra = source.ask(SingularValues())
    assert torch.isnan(spectra["w:q"]).all()
    assert len(spectra["w:q"]) == 2
    assert torch.isfinite(spectra["w:k"]).all()
    assert len(spectra["none"]) == 0


def test_no_matrices_and_unknown_views():
    with pytest.raises(NotApplicable, match="no weight matrix"):
        Source(layer([Param("b", "fc", (3,))]), {"b": torch.ones(3)}).ask(SingularValues())
    for need in (Matrices, SingularValues):
        with pytest.raises(SettingError, match=rf"{need.__name__}\(view='spiral'\): choose one of matrix"):
            need(view="spiral")


def test_equal_needs_are_one():
    assert len({SingularValues(), SingularValues(view="matrix"), Weights(), Weights(), Matrices()}) == 3
