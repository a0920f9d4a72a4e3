"""How other libraries and kinds of layers lay their weights out: stacked experts, fused pairs, kernels, scales of codes."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from stratoscope.network.catalogue import catalogue_of
from stratoscope.network.naming import catalogue_of_weights
from stratoscope.network.weights import ModuleWeights, StateDict


def made(matrix, source):
    return matrix.view(*(source.load(name) for name in matrix.params))


def kernel(matrix, source):
    return matrix.kernel_view(*(source.load(name) for name in matrix.params))


def alone(stored, **options):
    return catalogue_of_weights(StateDict(stored), **options), StateDict(stored)


# convolutions


CONVS = {
    "1d": (nn.Conv1d(4, 6, 3), F.conv1d, (9,)),
    "2d": (nn.Conv2d(4, 6, (3, 2), groups=2), F.conv2d, (7, 8)),
    "3d": (nn.Conv3d(2, 3, (2, 1, 3)), F.conv3d, (5, 4, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), F.conv2d, (6, 6)),
    "weight_norm": (weight_norm(nn.Conv2d(4, 6, 3)), F.conv2d, (6, 6)),
}


@pytest.mark.parametrize("name", sorted(CONVS))
def test_a_convolution_gives_its_kernel(name):
    module, function, sizes = CONVS[name]
    matrix = catalogue_of(module).matrices["weight"]
    weight = kernel(matrix, ModuleWeights(module))
    assert (matrix.kernel, matrix.groups) == (module.kernel_size, module.groups)
    x = torch.randn(2, module.in_channels, *sizes)
    torch.testing.assert_close(function(x, weight, module.bias, groups=matrix.groups), module(x))
    assert torch.equal(made(matrix, ModuleWeights(module)), weight.flatten(1))
    assert torch.equal(kernel(pickle.loads(pickle.dumps(matrix)), ModuleWeights(module)), weight)


@pytest.mark.parametrize(
    ("groups", "kind"), [(1, nn.ConvTranspose1d), (2, nn.ConvTranspose2d), (4, nn.ConvTranspose3d)]
)
def test_a_transposed_convolution_is_one_with_its_kernel_turned_round(groups, kind):
    module = kind(4, 8, 3, groups=groups, bias=False)
    matrix = catalogue_of(module).matrices["weight"]
    weight = kernel(matrix, ModuleWeights(module))
    axes = tuple(range(2, weight.ndim))
    function = (F.conv1d, F.conv2d, F.conv3d)[len(axes) - 1]
    x = torch.randn(1, 4, *(5,) * len(axes))
    torch.testing.assert_close(function(x, weight.flip(axes), padding=2, groups=groups), module(x))


def test_what_is_no_convolution_has_no_kernel():
    matrices = catalogue_of(nn.ModuleList([nn.Linear(3, 3), nn.LSTM(3, 3), nn.Bilinear(2, 2, 2)])).matrices
    assert {(m.kernel, m.groups, m.kernel_view) for m in matrices.values()} == {((), 1, None)}


def test_kernels_of_keras():
    stored = {
        "conv/kernel": torch.randn(3, 2, 4, 6),
        "depth/depthwise_kernel": torch.randn(3, 3, 4, 2),
        "separable/pointwise_kernel": torch.randn(1, 1, 8, 5),
        "up/kernel": torch.randn(2, 2, 5, 4), "up/bias": torch.zeros(5),
        "up1/kernel": torch.randn(3, 5, 4), "up1/bias": torch.zeros(5),
    }  # fmt: skip
    catalogue, source = alone(stored)
    expected = {
        "conv/kernel": (stored["conv/kernel"].permute(3, 2, 0, 1), 1),
        "depth/depthwise_kernel": (stored["depth/depthwise_kernel"].permute(2, 3, 0, 1).reshape(8, 1, 3, 3), 4),
        "separable/pointwise_kernel": (stored["separable/pointwise_kernel"].permute(3, 2, 0, 1), 1),
        "up/kernel": (stored["up/kernel"].permute(2, 3, 0, 1), 1),
        "up1/kernel": (stored["up1/kernel"].permute(1, 2, 0), 1),
    }
    assert catalogue.matrices.keys() == expected.keys()
    for name, (weight, groups) in expected.items():
        matrix = catalogue.matrices[name]
        assert (matrix.kind, matrix.groups, matrix.kernel) == ("conv", groups, tuple(weight.shape[2:]))
        assert torch.equal(kernel(matrix, source), weight)
        assert matrix.shape == tuple(weight.flatten(1).shape) == tuple(made(matrix, source).shape)


def test_depthwise_convolutions_by_names_and_by_what_comes_before():
    mobile = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.Conv2d(1, 4, 3))
    catalogue, _ = alone(mobile.state_dict())
    assert [matrix.groups for matrix in catalogue.matrices.values()] == [1, 8, 1, 1]
    named, _ = alone({"stage.dwconv.weight": torch.randn(6, 1, 7, 7), "first.weight": torch.randn(6, 1, 5, 5)})
    assert [matrix.groups for matrix in named.matrices.values()] == [6, 1]


# experts


class Experts(nn.Module):
    def __init__(self, outputs_last, bias):
        super().__init__()
        into, out = ((2, 6, 16), (2, 8, 6)) if outputs_last else ((2, 16, 6), (2, 6, 8))
        self.gate_up_proj = nn.Parameter(torch.randn(into))
        self.down_proj = nn.Parameter(torch.randn(out))
        if bias:
            self.gate_up_proj_bias = nn.Parameter(torch.randn(2, 16))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("outputs_last", [False, True])
def test_each_expert_is_a_matrix_whichever_way_it_lies(outputs_last, bias):
    module = nn.ModuleDict({"experts": Experts(outputs_last, bias)})
    source = ModuleWeights(module)
    for catalogue in (catalogue_of(module), alone(module.state_dict())[0]):
        expected = {f"experts.{name}:expert[{i}]" for name in ("gate_up_proj", "down_proj") for i in (0, 1)}
        assert catalogue.matrices.keys() == expected
        matrix = catalogue.matrices["experts.gate_up_proj:expert[1]"]
        weight = module["experts"].gate_up_proj[1]
        assert (matrix.shape, matrix.kind) == ((16, 6), "linear")
        assert torch.equal(made(matrix, source), weight.T if outputs_last else weight)
        assert catalogue.matrices["experts.down_proj:expert[0]"].shape == (6, 8)
        assert all("bias" in reason for reason in catalogue.no_matrix.values())


def test_experts_go_by_their_names():
    three = torch.randn(2, 4, 6)
    stored = dict.fromkeys(
        ("blk.0.ffn_up_exps.weight", "0.block_sparse_moe.input_linear.weight", "experts.w1", "experts.0.conv.weight",
         "spline", "expertise.weight"), None,
    )  # fmt: skip
    catalogue, _ = alone({name: three.clone() for name in stored})
    shapes = {name: matrix.shape for name, matrix in catalogue.matrices.items()}
    assert shapes == {
        "blk.0.ffn_up_exps.weight:expert[0]": (4, 6), "blk.0.ffn_up_exps.weight:expert[1]": (4, 6),
        "0.block_sparse_moe.input_linear.weight:expert[0]": (4, 6),
        "0.block_sparse_moe.input_linear.weight:expert[1]": (4, 6),
        "experts.w1:expert[0]": (6, 4), "experts.w1:expert[1]": (6, 4),
        "experts.0.conv.weight": (2, 24), "spline": (2, 24), "expertise.weight": (2, 24),
    }  # fmt: skip


# fused pairs, and heads as an axis


FUSED = {
    "a.attn.kv.weight": ("kv", False),
    "a.mlp.gate_up_proj.weight": (("gate", "up"), False),
    "h.crossattention.c_attn.weight": ("kv", True),
}


@pytest.mark.parametrize("name", FUSED)
def test_keys_with_values_and_gates_with_what_they_multiply(name):
    suffixes, turned = FUSED[name]
    weight = torch.randn(16, 8)
    stored = {name: weight.T if turned else weight}
    if turned:  # as GPT-2 stores it, which the bias shows
        stored["h.crossattention.c_attn.bias"] = torch.zeros(16)
    catalogue, source = alone(stored)
    assert list(catalogue.matrices) == [f"{name}:{suffix}" for suffix in suffixes]
    for matrix, half in zip(catalogue.matrices.values(), weight.chunk(2), strict=True):
        assert torch.equal(made(matrix, source), half)


def test_attention_of_flax_has_an_axis_of_heads():
    stored = {
        **{f"attn/{name}/kernel": torch.randn(6, 2, 4) for name in ("query", "key", "value")},
        **{f"attn/{name}/bias": torch.zeros(2, 4) for name in ("query", "key", "value")},
        "attn/out/kernel": torch.randn(2, 4, 6), "attn/out/bias": torch.zeros(6),
    }  # fmt: skip
    catalogue, source = alone(stored, heads=2)
    assert catalogue.notes == ()
    assert {m.shape for m in catalogue.matrices.values()} == {(8, 6), (6, 8), (6, 6)}
    assert all("bias" in reason for reason in catalogue.no_matrix.values())
    x = torch.randn(5, 6)
    q, k, v = (torch.einsum("td,dhw->htw", x, stored[f"attn/{name}/kernel"]) for name in ("query", "key", "value"))
    for head in range(2):
        form = made(catalogue.matrices[f"attn/query/kernel:qk[{head}]"], source)
        torch.testing.assert_close(x @ form @ x.T, q[head] @ k[head].T, rtol=1e-5, atol=1e-5)
        written = made(catalogue.matrices[f"attn/out/kernel:ov[{head}]"], source)
        torch.testing.assert_close(x @ written.T, v[head] @ stored["attn/out/kernel"][head], rtol=1e-5, atol=1e-5)


# ranks, laws and factors


def test_low_rank_pairs_say_their_rank_and_their_factors():
    stored = {
        "x.lora_A.weight": torch.randn(2, 6), "x.lora_B.weight": torch.randn(5, 2),
        "y.lora.down.weight": torch.randn(3, 6), "y.lora.up.weight": torch.randn(5, 3),
        "full.lora_A.weight": torch.randn(4, 6), "full.lora_B.weight": torch.randn(4, 4),
        "turned.lora_A": torch.randn(6, 2), "turned.lora_B": torch.randn(2, 5),
    }  # fmt: skip
    catalogue, source = alone(stored)
    products = {name.partition(".")[0]: m for name, m in catalogue.matrices.items() if name.endswith(":BA")}
    assert {name: (m.rank, m.law) for name, m in products.items()} == {
        "x": (2, "product"), "y": (3, "product"), "full": (None, "product"), "turned": (2, "product"),
    }  # fmt: skip
    for matrix in products.values():
        left, right = matrix.factors(*(source.load(name) for name in matrix.params))
        torch.testing.assert_close(left @ right, made(matrix, source))
        assert tuple((left @ right).shape) == matrix.shape


def test_what_a_parametrization_makes_of_independent_entries():
    module = nn.Sequential(
        orthogonal(nn.Linear(4, 4)), weight_norm(nn.Linear(4, 4)), spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 4)
    )
    laws = [matrix.law for matrix in catalogue_of(module).matrices.values()]
    assert laws == ["parametrized", "entries", "entries", "entries"]


# quantised


def test_what_lies_beside_and_below_codes_belongs_to_them():
    codes = torch.zeros(8, 4, dtype=torch.uint8)
    stored = {
        "a.q_proj.weight": codes, "a.q_proj.weight.absmax": torch.ones(4), "a.q_proj.weight.nested_absmax": torch.ones(1),
        "b.q_proj.W_q": codes, "b.q_proj.meta.scale": torch.ones(8, 1), "b.q_proj.meta.zero": torch.ones(8, 1),
        "c.weight": codes.to(torch.int8), "c.SCB": torch.ones(8),
        "d.qweight": codes.int(), "d.qzeros": codes.int(), "d.scales": torch.ones(2, 4), "d.g_idx": torch.zeros(8).int(),
        "e.weight_packed": codes.int(), "e.weight_scale": torch.ones(8, 2), "e.weight_shape": torch.tensor([8, 32]),
        "table": torch.zeros(4, 4, dtype=torch.int64), "norm.scale": torch.ones(3), "f.weight": torch.randn(4, 4),
    }  # fmt: skip
    catalogue, _ = alone(stored)
    assert list(catalogue.matrices) == ["f.weight"]
    assert {name for name, param in catalogue.params.items() if not param.reason} == {"norm.scale", "f.weight"}
    assert "belongs to a quantised" in catalogue.params["b.q_proj.meta.scale"].reason


@pytest.mark.filterwarnings("ignore")
def test_weights_that_torch_packs_out_of_sight_are_a_note():
    if torch.backends.quantized.engine == "none":
        pytest.skip("this build of torch cannot quantise")
    module = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))
    (note,) = catalogue_of(module).notes
    assert "in 2 layers: 0, 2" in note
    assert catalogue_of(nn.Linear(2, 2)).notes == ()
