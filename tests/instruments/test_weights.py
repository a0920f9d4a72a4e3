"""The instrument `weights`: its numbers, its noise, its findings."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.errors import NotApplicable
from stratoscope.findings import Outcome
from stratoscope.instruments.weights import MATRIX_NAMES, PARAM_NAMES, WeightMatrices, matrix_numbers, param_numbers
from stratoscope.network.layers import Layer, Matrix, Param
from stratoscope.network.views import Adapter
from stratoscope.numerics.matrices import singular_values
from stratoscope.record import Entry, Record, RecordWriter


class View:
    """One layer with its tensors."""

    def __init__(self, layer, tensors):
        self.layer, self._tensors = layer, tensors

    def __getitem__(self, need):
        return need.derive(self.layer, self.__getitem__, self._tensors.__getitem__)


def view_of(tensors, **changes):
    """Every tensor of two dimensions is a matrix."""
    params = tuple(
        Param(name, "fc", tuple(t.shape), "weight" if t.ndim > 1 else "bias", **changes.get(name, {}))
        for name, t in tensors.items()
    )
    matrices = tuple(
        Matrix(p.name, "fc", (p.name,), "linear", p.shape, lambda w: w)
        for p in params
        if len(p.shape) == 2 and not p.same_as
    )
    return View(Layer("fc", "linear", 0, params, matrices), tensors)


def measure(tensors, **changes):
    return WeightMatrices().measure_layer(view_of(tensors, **changes))


def judged(*steps, instrument=None, names=range(100)):
    """What is said of several measurements when they are read back."""
    with RecordWriter.create(None) as writer:
        for step, measured in zip(names, steps, strict=False):
            writer.commit(step, [Entry("weights", name, value) for name, value in measured.items()])
        return list((instrument or WeightMatrices()).judge(Record.from_writer(writer)["weights"]))


def spoken(findings):
    return [(f.code, f.layer) for f in findings if f.outcome is not Outcome.PASSED]


def gaussian(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 8), columns=st.integers(1, 8))
@settings(deadline=None, max_examples=25)
def test_numbers_equal_their_naive_twins(seed, rows, columns):
    w = gaussian(rows, columns, seed=seed) * (gaussian(rows, columns, seed=seed + 1) > 0)
    numbers = matrix_numbers(w, singular_values(w), torch.float32)
    plain = w.double().numpy()
    s = np.linalg.svd(plain, compute_uv=False)
    assert numbers["frobenius_norm"] == pytest.approx(np.linalg.norm(plain), abs=1e-12)
    assert numbers["spectral_norm"] == pytest.approx(s[0], abs=1e-9)
    assert numbers["sv_min"] == pytest.approx(s[-1], abs=1e-9)
    assert numbers["sv_median"] == pytest.approx(np.median(s), abs=1e-9)
    assert numbers["numerical_rank"] == np.linalg.matrix_rank(w.numpy())
    assert numbers["rank_share"] == numbers["numerical_rank"] / min(rows, columns)
    assert numbers["zero_share"] == pytest.approx(np.mean(plain == 0))
    assert numbers["not_finite"] == 0
    if s[0] > 0:
        p = s[s > 0] / s.sum()
        assert numbers["stable_rank"] == pytest.approx((s**2).sum() / s[0] ** 2)
        assert numbers["effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
    else:
        assert math.isnan(numbers["stable_rank"])
    if w.numel() > 1:
        assert numbers["entry_std"] == pytest.approx(plain.std(), abs=1e-12)


@given(seed=st.integers(0, 2**31), offset=st.floats(-100, 100))
@settings(deadline=None, max_examples=25)
def test_params_of_any_shape(seed, offset):
    tensor = gaussian(3, 4, 2, seed=seed).double() + offset
    numbers = param_numbers(tensor)
    plain = tensor.numpy()
    assert numbers["param_norm"] == pytest.approx(np.linalg.norm(plain))
    assert numbers["param_mean"] == pytest.approx(plain.mean())
    assert numbers["param_std"] == pytest.approx(plain.std())


def test_every_variable_is_named_and_lies_along_its_dim():
    measured = measure({"w": gaussian(4, 6), "b": gaussian(4), "s": torch.tensor(2.0)})
    assert set(measured) == set(MATRIX_NAMES) | set(PARAM_NAMES)
    for name, value in measured.items():
        dim, labels = ("param", ("w", "b", "s")) if name in PARAM_NAMES else ("matrix", ("w",))
        assert value.dims == (dim,)
        assert value.labels(dim) == labels
        assert value.attrs["units"] == "1"
        assert value.attrs["long_name"]
    assert measured["param_norm"].values[2] == 2.0


def test_a_layer_of_vectors_has_params_only():
    assert set(measure({"gain": torch.ones(5)})) == set(PARAM_NAMES)


def test_tied_params_are_measured_once():
    tensors = {"w": gaussian(4, 6), "b": gaussian(4)}
    tied = measure(tensors, w={"same_as": "embed.weight"})
    assert tied["param_norm"].labels("param") == ("b",)
    assert "stable_rank" not in tied
    with pytest.raises(NotApplicable, match="under another name"):
        measure({"w": gaussian(4, 6)}, w={"same_as": "embed.weight"})


def test_a_nan_blanks_its_own_matrix_only():
    broken = gaussian(4, 6)
    broken[1, 2], broken[3, 3] = math.nan, math.inf
    measured = measure({"bad": broken, "good": gaussian(4, 6)})
    for name in set(MATRIX_NAMES) - {"full_rank", "not_finite"}:
        assert math.isnan(measured[name].values[0])
        assert math.isfinite(measured[name].values[1])
    assert measured["not_finite"].values.tolist() == [2, 0]
    kinds = {name: value.values.dtype.kind for name, value in measured.items()}
    assert kinds == {name: value.values.dtype.kind for name, value in measure({"good": gaussian(4, 6)}).items()}
    assert measured["param_not_finite"].values.tolist() == [2, 0]
    assert math.isnan(measured["param_norm"].values[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_stored_precision_changes_numbers_only_by_rounding(dtype):
    w = gaussian(64, 200)
    one, other = measure({"w": w.double()}), measure({"w": w.to(dtype)})
    for name in set(MATRIX_NAMES) | set(PARAM_NAMES):
        tolerance = 4 * torch.finfo(dtype).eps
        np.testing.assert_allclose(other[name].values, one[name].values, rtol=tolerance, atol=tolerance, err_msg=name)


@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-6, 1.0, 1e6]))
@settings(deadline=None, max_examples=10)
def test_ranks_ignore_the_order_of_units_and_the_scale(seed, scale):
    w = gaussian(6, 9, seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    one, other = measure({"w": w}), measure({"w": scale * w[order]})
    for name in ("stable_rank", "effective_rank", "numerical_rank", "rank_share"):
        np.testing.assert_allclose(other[name].values, one[name].values, rtol=1e-5)
    np.testing.assert_allclose(other["spectral_norm"].values, scale * one["spectral_norm"].values, rtol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (100, 400), (300, 30), (10, 10)])
def test_noise_reads_as_noise(shape):
    """A Gaussian matrix has the stable rank that theory gives, full rank, and no finding."""
    n, m = shape
    measured = measure({"w": gaussian(n, m)})
    assert measured["stable_rank"].values[0] == pytest.approx(n * m / (n**0.5 + m**0.5) ** 2, rel=0.35)
    assert measured["rank_share"].values[0] == 1
    assert spoken(judged(measured)) == []


def test_silence_is_a_pass_for_every_code():
    findings = judged(measure({"w": gaussian(4, 6), "b": torch.zeros(4)}))
    assert {f.code: f.outcome for f in findings} == dict.fromkeys(WeightMatrices.codes, Outcome.PASSED)


@pytest.mark.parametrize(
    ("tensors", "codes"),
    [
        ({"gain": torch.ones(5)}, {"WT001"}),
        ({"w": torch.tensor([[0.5]])}, {"WT001", "WT002", "WT003"}),
        ({"w": torch.zeros(4, 6)}, {"WT001"}),
        ({"w": torch.full((4, 6), math.nan)}, set()),
    ],
)
def test_only_what_was_looked_at_is_passed(tensors, codes):
    assert {f.code for f in judged(measure(tensors)) if f.outcome is Outcome.PASSED} == codes


def test_wt001_names_each_broken_tensor_once_and_carries_its_count():
    bad = gaussian(4, 6)
    bad[0] = math.nan
    (finding,) = [f for f in judged(measure({"w": bad, "b": torch.zeros(4)})) if f.outcome is Outcome.ISSUE]
    assert (finding.code, finding.layer, finding.step) == ("WT001", "w", 0)
    assert finding.evidence == {"not_finite": 6, "limit": 0}
    vector = judged(measure({"w": gaussian(4, 6), "b": torch.tensor([math.inf])}))
    assert spoken(vector) == [("WT001", "b")]


def test_wt001_speaks_of_a_matrix_that_is_broken_though_its_params_are_not():
    view = view_of({"g": torch.zeros(2, 2)})
    divided = Matrix("g:norm", "fc", ("g",), "linear", (2, 2), lambda g: g / g.norm())
    view.layer = Layer("fc", "linear", 0, view.layer.params, (divided,))
    assert spoken(judged(WeightMatrices().measure_layer(view))) == [("WT001", "g:norm")]


def test_wt002_a_dominant_direction():
    w = gaussian(200, 300) + 30 * gaussian(200, 1, seed=1) @ gaussian(1, 300, seed=2)
    findings = judged(measure({"w": w}))
    assert spoken(findings) == [("WT002", "w")]
    evidence = findings[0].evidence
    assert findings[0].outcome is Outcome.TIP
    assert evidence["share"] == evidence["stable_rank"] / evidence["full_rank"] < evidence["limit"] == 0.02
    assert spoken(judged(measure({"w": w}), instrument=WeightMatrices(low_rank=0.001))) == []


def test_wt002_judges_a_product_by_the_rank_that_it_can_have():
    """A low-rank pair of full rank is no matrix that few directions dominate."""
    b, a = gaussian(300, 4), gaussian(4, 300, seed=1)
    params = Param("b", "fc", (300, 4), "adapter"), Param("a", "fc", (4, 300), "adapter")
    pair = Matrix("b:BA", "fc", ("b", "a"), "adapter", (300, 300), Adapter(), rank=4, law="product")
    measured = WeightMatrices().measure_layer(
        View(Layer("fc", "linear", 0, params, (pair,)), {"b": b, "a": a}),
    )
    row = {name: float(measured[name].to_xarray().item()) for name in MATRIX_NAMES}
    assert (row["full_rank"], row["numerical_rank"], row["rank_share"]) == (4, 4, 1)
    expected = torch.linalg.svdvals((b @ a).double())
    assert row["sv_min"] == pytest.approx(expected[3].item(), rel=1e-5)
    assert spoken(judged(measured)) == []


def test_wt003_mostly_zeros():
    w = gaussian(20, 30) * (torch.arange(30) % 4 == 0)
    findings = judged(measure({"w": w}))
    assert spoken(findings) == [("WT003", "w")]
    assert findings[0].evidence == {"zero_share": pytest.approx(22 / 30), "limit": 0.5}
    assert spoken(judged(measure({"w": w}), instrument=WeightMatrices(mostly_zero=0.8))) == []


@pytest.mark.parametrize(("value", "words"), [(0.0, "is all zero"), (0.1, "one and the same number")])
def test_wt004_constant_matrices_but_not_vectors(value, words):
    findings = judged(measure({"w": torch.full((5, 7), value), "gain": torch.ones(5), "b": torch.zeros(5)}))
    assert spoken(findings) == [("WT004", "w")]
    assert findings[0].outcome is Outcome.ISSUE
    assert words in findings[0].says


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_wt004_a_constant_whose_mean_is_rounded(dtype):
    constant = torch.full((37, 113), 0.1, dtype=dtype)
    measured = measure({"w": constant, "b": torch.full((7,), 0.1, dtype=dtype)})
    assert measured["entry_std"].values.tolist() == [0.0]
    assert measured["param_std"].values.tolist() == [0.0, 0.0]
    assert spoken(judged(measured)) == [("WT004", "w")]
    constant[3, 4] = torch.nextafter(constant[3, 4], constant.new_tensor(1.0)) if dtype != torch.bfloat16 else 0.2
    assert ("WT004", "w") not in spoken(judged(measure({"w": constant})))


def test_a_single_entry_is_no_constant_matrix():
    assert spoken(judged(measure({"w": torch.tensor([[0.5]])}))) == []


def test_the_last_step_decides():
    steps = [measure({"w": torch.zeros(4, 6)}), measure({"w": gaussian(4, 6)})]
    assert spoken(judged(*steps)) == []
    (finding,) = [f for f in judged(*steps[::-1], names=[0, 70]) if f.outcome is Outcome.ISSUE]
    assert (finding.code, finding.step) == ("WT004", 70)
