"""The need `Spectra`: eigenvalues, shuffles, views, sketches; and what all needs of weights may hold in memory."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from stratoscope.capture import weights as needs
from stratoscope.capture.spectra import Spectra
from stratoscope.capture.weights import Decompositions, Matrices, SingularValues, Weights
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.instruments.weights import WeightMatrices, matrix_numbers
from stratoscope.network.catalogue import catalogue_of
from stratoscope.network.layers import Layer, Matrix, Param
from stratoscope.network.views import Flat, Product, Taken, Turned
from stratoscope.numerics import matrices as numerics


class Source:
    """Derives needs of one layer from named tensors, each once."""

    def __init__(self, layer, tensors):
        self.layer, self.tensors, self.values, self.read = layer, tensors, {}, []

    def load(self, name):
        self.read.append(name)
        return self.tensors[name]

    def ask(self, need):
        if need not in self.values:
            self.values[need] = need.derive(self.layer, self.ask, self.load)
        return self.values[need]

    def __getitem__(self, need):
        return self.ask(need)


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def one(tensor, view=None):
    made = Matrix("w", "fc", ("w",), "linear", tuple(tensor.shape), view or Flat())
    return Source(Layer("fc", "linear", 0, (Param("w", "fc", tuple(tensor.shape)),), (made,)), {"w": tensor})


def of_module(module, name="0"):
    """The named layer of a live module, from its catalogue."""
    layer = catalogue_of(nn.Sequential(module))[name]
    return Source(layer, {f"0.{key}": value.detach() for key, value in module.named_parameters()})


def eigenvalues(matrix):
    return np.linalg.svd(matrix.double().numpy(), compute_uv=False) ** 2


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (1, 7), (5, 1)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_eigenvalues_are_squared_singular_values(shape, dtype):
    matrix = gaussian(*shape, dtype=dtype)
    spectrum = one(matrix).ask(Spectra())["w"]
    np.testing.assert_allclose(spectrum.eigenvalues, eigenvalues(matrix), rtol=1e-9, atol=1e-9)
    assert (spectrum.rows, spectrum.columns, spectrum.copies, spectrum.count) == (min(shape), max(shape), 1, min(shape))
    assert (spectrum.law, spectrum.rank, spectrum.how, spectrum.error) == ("entries", None, "exact", 0.0)
    assert spectrum.trace == pytest.approx(float(matrix.double().square().sum()))
    assert (spectrum.nodes, spectrum.node_weights, spectrum.shuffled) == (None, None, ())


def test_both_needs_and_any_number_of_shuffles_share_one_decomposition(monkeypatch):
    calls = []

    def counted(matrix):
        calls.append(matrix.shape)
        return numerics.singular_values(matrix)

    monkeypatch.setattr(needs, "singular_values", counted)
    source = one(gaussian(8, 12))
    for need in (SingularValues(), Spectra(), Spectra(shuffles=2), Spectra(seed=4, shuffles=1)):
        source.ask(need)
    assert calls == [(8, 12)]
    assert source.read == ["w"]


def test_shuffles_keep_the_trace_and_are_decided_by_seed_name_and_shape():
    matrix = gaussian(20, 40, seed=1)
    first = one(matrix).ask(Spectra(shuffles=2))["w"]
    again = one(matrix.clone()).ask(Spectra(shuffles=2))["w"]
    other = one(matrix).ask(Spectra(shuffles=2, seed=1))["w"]
    assert len(first.shuffled) == 2
    for values in (*first.shuffled, *other.shuffled):
        assert values.shape == (20,)
        assert (np.diff(values) <= 0).all()
        assert values.sum() == pytest.approx(first.trace)
    np.testing.assert_array_equal(first.shuffled, again.shuffled)
    assert not np.allclose(first.shuffled[0], first.shuffled[1])
    assert not np.allclose(first.shuffled[0], other.shuffled[0])
    more = one(matrix).ask(Spectra(shuffles=3))["w"]
    np.testing.assert_array_equal(more.shuffled[:2], first.shuffled)  # one more shuffle changes none


def test_a_shuffle_destroys_structure_and_leaves_a_giant_entry():
    matrix = torch.outer(torch.ones(60), torch.linspace(1, 2, 90)).double()
    spectrum = one(matrix).ask(Spectra(shuffles=1))["w"]
    assert spectrum.eigenvalues[0] == pytest.approx(spectrum.trace)
    assert spectrum.shuffled[0][1] > 1e-3 * spectrum.trace / 60
    spiked = gaussian(60, 90)
    spiked[3, 4] = 500.0
    assert one(spiked).ask(Spectra(shuffles=1))["w"].shuffled[0][0] == pytest.approx(500.0**2, rel=1e-2)


def test_nan_empty_zero_and_constant_matrices():
    bad = gaussian(3, 4)
    bad[0, 0] = math.nan
    spectrum = one(bad).ask(Spectra(shuffles=1))["w"]
    assert np.isnan(spectrum.eigenvalues).all()
    assert (len(spectrum.eigenvalues), spectrum.shuffled) == (3, ())
    assert math.isnan(spectrum.trace)
    empty = one(torch.zeros(0, 4), view=lambda w: w).ask(Spectra(shuffles=1))["w"]
    assert (len(empty.eigenvalues), empty.rows, empty.columns, empty.shuffled) == (0, 0, 4, ())
    zero = one(torch.zeros(3, 4)).ask(Spectra(shuffles=1))["w"]
    assert (zero.eigenvalues.tolist(), zero.trace, zero.shuffled[0].tolist()) == ([0.0] * 3, 0.0, [0.0] * 3)
    constant = one(torch.full((3, 4), 2.0)).ask(Spectra(shuffles=1))["w"]
    np.testing.assert_allclose(constant.eigenvalues, [48, 0, 0], atol=1e-12)
    np.testing.assert_allclose(constant.shuffled[0], [48, 0, 0], atol=1e-12)


def test_a_layer_without_matrices_and_settings_out_of_range():
    with pytest.raises(NotApplicable, match="no weight matrix"):
        Source(Layer("n", "norm", 0, (Param("g", "n", (3,), "gain"),)), {"g": torch.ones(3)}).ask(Spectra())
    with pytest.raises(SettingError, match=r"Spectra\(view='round'\): choose one of matrix, slices, operator"):
        Spectra(view="round")
    with pytest.raises(SettingError, match=r"shuffles=-1"):
        Spectra(shuffles=-1)
    with pytest.raises(SettingError, match=r"exact_up_to=0"):
        Spectra(exact_up_to=0)


# -- convolutions -----------------------------------------------------------------------------------------------------


def test_slices_pool_the_spectra_of_the_kernels_places():
    conv = nn.Conv2d(6, 10, (3, 2))
    spectrum = of_module(conv).ask(Spectra(view="slices", shuffles=1))["0.weight"]
    kernel = conv.weight.detach()
    naive = np.concatenate([eigenvalues(kernel[:, :, i, j]) for i in range(3) for j in range(2)])
    np.testing.assert_allclose(spectrum.eigenvalues, np.sort(naive)[::-1], rtol=1e-6)
    assert (spectrum.rows, spectrum.columns, spectrum.copies, spectrum.count) == (6, 10, 6, 36)
    assert spectrum.law == "entries"
    assert spectrum.trace == pytest.approx(float(kernel.double().square().sum()))
    assert spectrum.shuffled[0].shape == (36,)
    assert spectrum.shuffled[0].sum() == pytest.approx(spectrum.trace)


def test_large_slices_are_the_same_as_small_ones(monkeypatch):
    stack = gaussian(3, 70, 60)
    batched = torch.linalg.svdvals(stack).flatten().sort(descending=True).values
    torch.testing.assert_close(numerics.slice_singular_values(stack), batched, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_groups_are_matrices_of_their_own(groups):
    conv = nn.Conv1d(6, 12, 3, groups=groups)
    spectrum = of_module(conv).ask(Spectra(view="slices"))["0.weight"]
    kernel = conv.weight.detach()
    parts = kernel.reshape(groups, 12 // groups, 6 // groups, 3)
    naive = np.concatenate([eigenvalues(parts[g, :, :, i]) for g in range(groups) for i in range(3)])
    np.testing.assert_allclose(spectrum.eigenvalues, np.sort(naive)[::-1], rtol=1e-6, atol=1e-12)
    assert spectrum.copies == 3 * groups


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_operator_is_the_map_on_images_that_wrap_around(groups, transposed):
    """The spectrum of the matrix whose columns are the images that unit images become."""
    make = nn.ConvTranspose1d if transposed else partial(nn.Conv1d, padding_mode="circular", padding="same")
    conv = make(3, 6, 3, groups=groups, bias=False)
    spectrum = of_module(conv).ask(Spectra(view="operator"))["0.weight"]
    size = 6
    units = torch.eye(3 * size).reshape(3 * size, 3, size)
    with torch.no_grad():
        images = conv(units)
    if transposed:  # fold what runs over the end back to the start
        images = torch.cat([images[..., : images.shape[-1] - size] + images[..., size:], images[..., 2:size]], -1)
    dense = images.flatten(1)
    np.testing.assert_allclose(
        np.sort(spectrum.eigenvalues), np.sort(eigenvalues(dense))[-len(spectrum.eigenvalues) :], rtol=1e-5, atol=1e-6
    )
    assert (spectrum.law, spectrum.copies, spectrum.shuffled) == ("operator", size * groups, ())
    assert spectrum.trace == pytest.approx(size * float(conv.weight.detach().double().square().sum()), rel=1e-6)


def test_operator_keeps_the_moments_of_an_endless_image():
    """Twice the kernel's length is enough for the trace and the trace of the square, per pixel."""
    conv = nn.Conv2d(4, 5, 3)
    small = of_module(conv).ask(Spectra(view="operator"))["0.weight"]
    large = numerics_of(conv.weight.detach(), 16)
    for power in (1, 2):
        assert (small.eigenvalues**power).sum() / 36 == pytest.approx((large**power).sum() / 256, rel=1e-9)


def numerics_of(kernel, size):
    from stratoscope.numerics.convolution import circular_singular_values

    return circular_singular_values(kernel, size).square().numpy()


@pytest.mark.parametrize("view", ["slices", "operator"])
def test_what_is_no_convolution_is_one_matrix_in_every_view(view):
    matrix = gaussian(5, 8)
    spectrum = one(matrix).ask(Spectra(view=view, shuffles=1))["w"]
    np.testing.assert_allclose(spectrum.eigenvalues, eigenvalues(matrix))
    assert (spectrum.copies, spectrum.law, len(spectrum.shuffled)) == (1, "entries", 1)


@pytest.mark.parametrize("view", ["slices", "operator"])
def test_a_kernel_that_is_not_finite(view):
    conv = nn.Conv2d(2, 3, 2)
    conv.weight.data[0, 0, 0, 0] = math.inf
    spectrum = of_module(conv).ask(Spectra(view=view, shuffles=1))["0.weight"]
    assert np.isnan(spectrum.eigenvalues).all()
    assert len(spectrum.eigenvalues) == spectrum.count
    assert spectrum.shuffled == ()


# -- products ---------------------------------------------------------------------------------------------------------


def product(left, right, rank):
    shape = (left.shape[1], right.shape[1])
    view = Product(Taken((0,), Turned()), Taken((1,), Flat()))
    made = Matrix("a:qk", "a", ("a", "b"), "attention", shape, view, rank, "product")
    layer = Layer("a", "attention", 0, (Param("a", "a", tuple(left.shape)),), (made,))
    return Source(layer, {"a": left, "b": right})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_product_is_decomposed_by_its_factors(dtype, monkeypatch):
    left, right = gaussian(4, 30, dtype=dtype), gaussian(4, 25, seed=1, dtype=dtype)
    source = product(left, right, 4)
    spectrum = source.ask(Spectra(shuffles=2))["a:qk"]
    truth = eigenvalues(left.double().T @ right.double())
    np.testing.assert_allclose(spectrum.eigenvalues, truth[:4], rtol=1e-9)
    assert (spectrum.rows, spectrum.rank, spectrum.count, spectrum.law) == (25, 4, 4, "product")
    assert spectrum.shuffled == ()
    assert spectrum.trace == pytest.approx(truth.sum())
    values = source.ask(SingularValues())["a:qk"]
    assert len(values) == 25
    assert values[4:].count_nonzero() == 0
    formed = source.ask(Matrices())
    assert formed.stored["a:qk"] == torch.float32
    torch.testing.assert_close(formed["a:qk"], left.float().T @ right.float())


def test_products_are_formed_when_asked_for_and_not_kept():
    source = product(gaussian(4, 30), gaussian(4, 25), 4)
    formed = source.ask(Matrices())
    assert formed["a:qk"] is not formed["a:qk"]
    kept = copy.deepcopy(formed)  # as `Previous` keeps it
    before = formed["a:qk"].clone()
    source.tensors["a"].zero_()
    torch.testing.assert_close(kept["a:qk"], before)
    assert formed["a:qk"].count_nonzero() == 0


def test_a_factor_that_is_not_finite():
    left = gaussian(4, 30)
    left[0, 0] = math.nan
    assert np.isnan(product(left, gaussian(4, 25), 4).ask(Spectra())["a:qk"].eigenvalues).all()


# -- sketches ---------------------------------------------------------------------------------------------------------


def test_a_matrix_beyond_the_limit_is_sketched():
    matrix = gaussian(900, 640)
    matrix += torch.outer(gaussian(900, seed=1), gaussian(640, seed=2)) * 0.5
    exact = one(matrix).ask(Spectra())["w"]
    spectrum = one(matrix).ask(Spectra(exact_up_to=200, shuffles=1))["w"]
    k = len(spectrum.eigenvalues)
    assert 1 <= k < 640
    assert (spectrum.how, spectrum.count, spectrum.shuffled) == ("sketch", 640, ())
    np.testing.assert_allclose(spectrum.eigenvalues, exact.eigenvalues[:k], rtol=1e-4)
    assert spectrum.trace == pytest.approx(exact.trace, rel=1e-12)
    assert spectrum.node_weights.sum() + k == pytest.approx(640)
    assert 0 < spectrum.error < 0.2
    rest = np.sort(exact.eigenvalues[k:])
    for share in (0.1, 0.5, 0.9):
        point = np.quantile(rest, share)
        ours = spectrum.node_weights[spectrum.nodes <= point].sum() / spectrum.node_weights.sum()
        assert abs(ours - share) < spectrum.error + 1 / len(rest)


def test_a_sketch_that_finds_every_eigenvalue_is_none():
    matrix = gaussian(90, 60)
    spectrum = one(matrix).ask(Spectra(exact_up_to=20, shuffles=1))["w"]
    assert (spectrum.how, spectrum.nodes, len(spectrum.shuffled)) == ("exact", None, 1)
    np.testing.assert_allclose(spectrum.eigenvalues, eigenvalues(matrix), rtol=1e-9)


def test_a_sketch_scales_with_the_weights_and_is_the_same_every_time():
    matrix = gaussian(700, 600, dtype=torch.float32)
    need = Spectra(exact_up_to=100)
    plain, again, scaled = (one(w).ask(need)["w"] for w in (matrix, matrix.clone(), matrix * 2.0**-70))
    np.testing.assert_array_equal(plain.nodes, again.nodes)
    np.testing.assert_array_equal(plain.node_weights, again.node_weights)
    np.testing.assert_allclose(scaled.nodes, plain.nodes * 2.0**-140, rtol=1e-12)
    np.testing.assert_allclose(scaled.eigenvalues, plain.eigenvalues * 2.0**-140, rtol=1e-12)


def test_the_instrument_says_of_a_sketch_what_is_known():
    matrix = gaussian(600, 700, dtype=torch.float32)
    source = one(matrix)
    top = source.ask(Decompositions(exact_up_to=100))["w"].values
    row = matrix_numbers(matrix, top, torch.float32)
    full = matrix_numbers(matrix, source.ask(SingularValues())["w"], torch.float32)
    known = {"frobenius_norm", "spectral_norm", "stable_rank", "full_rank", "zero_share", "entry_std", "not_finite"}
    for name, value in row.items():
        if name in known:
            assert value == pytest.approx(full[name], rel=1e-4), name
        else:
            assert math.isnan(value), name


# -- memory -----------------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is newly made."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("shape", [(5000, 48), (48, 5000)])
@pytest.mark.parametrize("exact", [True, False])
def test_no_copy_of_a_matrix_is_made(shape, exact, monkeypatch):
    from stratoscope.numerics import shuffle

    monkeypatch.setattr(numerics, "BLOCK", 4000)
    monkeypatch.setattr(shuffle, "_BLOCK", 4000)
    monkeypatch.setattr(numerics.entry_blocks, "__defaults__", (4000,))
    source = one(gaussian(*shape, dtype=torch.float16))
    with Largest() as largest:
        source.ask(Spectra(exact_up_to=8192 if exact else 8))
        WeightMatrices().measure_layer(source)
    basis = 48 * 48 * 8
    assert largest.bytes <= max(4000 * 8, basis) * 1.2
    assert largest.bytes < source.tensors["w"].nbytes / 8


def test_weights_are_widened_when_they_are_asked_for():
    source = one(gaussian(3, 4, dtype=torch.bfloat16))
    for need in (Weights(), Matrices()):
        value = source.ask(need)
        assert value["w"].dtype == torch.float32
        assert value.as_stored("w").untyped_storage().data_ptr() == source.tensors["w"].untyped_storage().data_ptr()
        assert torch.equal(value["w"], source.tensors["w"].float())
