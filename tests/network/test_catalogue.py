"""Every tensor of every kind of network is found once, and every matrix is what the layer computes with."""

import copy
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from stratoscope.errors import SubjectError
from stratoscope.network.catalogue import catalogue_of
from stratoscope.network.layers import ROOT
from stratoscope.network.naming import catalogue_of_weights
from stratoscope.network.unwrap import unwrap
from stratoscope.network.weights import ModuleWeights, StateDict


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x):
        return x + self.body(x)


class Bare(nn.Module):
    """Parameters of every rank, in lists and dicts, and buffers of both kinds."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.pos_embed = nn.Parameter(torch.randn(1, 7, 5))
        self.experts = nn.Parameter(torch.randn(4, 3, 2))
        self.several = nn.ParameterList([torch.randn(2, 3), torch.randn(5)])
        self.named = nn.ParameterDict({"left": torch.randn(3, 4), "right": torch.randn(2, 2, 2)})
        self.register_buffer("mask", torch.ones(4, 4).tril())
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("cache", torch.zeros(9, 9), persistent=False)
        self.inner = nn.Linear(3, 4)


class Conv1D(nn.Module):
    """The linear layer of GPT-2 in Transformers: the weight is stored as (in, out)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


class Attention(nn.Module):
    """Fused projections of three families."""

    def __init__(self, **sizes):
        super().__init__()
        self.num_heads, self.head_dim = 2, 4
        for name, value in sizes.items():
            setattr(self, name, value)
        self.c_attn = Conv1D(24, 8)
        self.qkv = nn.Linear(8, 24)
        self.query_key_value = nn.Linear(8, 24)


class PeftLinear(nn.Module):
    """The nesting in which PEFT keeps a low-rank pair."""

    def __init__(self):
        super().__init__()
        self.base_layer = nn.Linear(6, 5)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(6, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 5, bias=False)})
        self.lora_dropout = nn.ModuleDict({"default": nn.Identity()})


class FlatLora(nn.Linear):
    def __init__(self):
        super().__init__(6, 5)
        self.lora_A = nn.Parameter(torch.randn(2, 6))
        self.lora_B = nn.Parameter(torch.randn(5, 2))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight


class Shared(nn.Module):
    """One block under two names, one of them deeper."""

    def __init__(self):
        super().__init__()
        self.first = Residual()
        self.again = nn.ModuleDict({"here": self.first, "other": nn.Linear(2, 2)})


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).mT


def old_style(module, name="weight", spectral=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (nn.utils.spectral_norm if spectral else nn.utils.weight_norm)(module, name)


def parametrized():
    both = nn.Linear(4, 4)
    parametrize.register_parametrization(both, "weight", Symmetric())
    parametrize.register_parametrization(both, "bias", nn.Softplus(), unsafe=True)
    return nn.Sequential(
        weight_norm(nn.Conv2d(3, 4, 3)), spectral_norm(nn.Linear(5, 4)), orthogonal(nn.Linear(4, 4)), both
    )


def pruned():
    module = nn.Linear(6, 5)
    prune.l1_unstructured(module, "weight", amount=0.4)
    return module


ZOO = {
    "empty": nn.Sequential,
    "leaf": lambda: nn.Linear(3, 2),
    "mlp": lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 2)),
    "conv1d": lambda: nn.Sequential(nn.Conv1d(3, 4, 5), nn.MaxPool1d(2), nn.ConvTranspose1d(4, 2, 3)),
    "conv2d": lambda: nn.Sequential(nn.Conv2d(4, 8, (3, 5), groups=2), nn.ConvTranspose2d(8, 6, 3, groups=2)),
    "conv3d": lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.ConvTranspose3d(3, 2, 2), nn.AdaptiveAvgPool3d(1)),
    "depthwise": lambda: nn.Conv2d(6, 6, 3, groups=6, bias=False),
    "norms": lambda: nn.Sequential(
        nn.BatchNorm1d(4), nn.LayerNorm((3, 4)), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.InstanceNorm2d(4, affine=True)
    ),
    "residual": lambda: nn.Sequential(Residual(), Residual(), nn.Flatten(), nn.Linear(16, 2)),
    "lstm": lambda: nn.LSTM(4, 6, num_layers=2, bidirectional=True, proj_size=3),
    "gru": lambda: nn.GRU(4, 6, num_layers=2, bias=False),
    "rnn": lambda: nn.ModuleList([nn.RNN(4, 6), nn.RNNCell(3, 5), nn.LSTMCell(3, 5), nn.GRUCell(3, 5)]),
    "mha": lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True),
    "mha_separate": lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=5),
    "encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False),
    "decoder": lambda: nn.TransformerDecoderLayer(8, 2, 16),
    "fused": Attention,
    "embeddings": lambda: nn.ModuleDict({"wte": nn.Embedding(9, 4), "bag_embed": nn.EmbeddingBag(5, 3)}),
    "bilinear": lambda: nn.Bilinear(3, 4, 5),
    "tied": Tied,
    "shared": Shared,
    "parametrized": parametrized,
    "weight_norm_hook": lambda: nn.Sequential(
        old_style(nn.Linear(4, 3)), old_style(nn.LSTM(4, 6), "weight_hh_l0"), old_style(nn.Linear(5, 1))
    ),
    "spectral_norm_hook": lambda: nn.Sequential(
        old_style(nn.Linear(4, 3), spectral=True), old_style(nn.ConvTranspose2d(4, 2, 3), spectral=True)
    ),
    "pruned": pruned,
    "lora": lambda: nn.ModuleDict({"peft": PeftLinear(), "flat": FlatLora()}),
    "bare": Bare,
    "half": lambda: nn.Sequential(nn.Linear(4, 4), weight_norm(nn.Linear(4, 4))).to(torch.bfloat16),
    "frozen": lambda: nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 3)),
}


@pytest.fixture(params=sorted(ZOO))
def module(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ZOO[request.param]()


def read(matrix, source):
    return matrix.view(*(source.load(name) for name in matrix.params))


def check(module):
    """What holds of the catalogue of any module."""
    catalogue = catalogue_of(module)
    keys = [param.name for layer in catalogue.layers.values() for param in layer.params]
    assert sorted(keys) == sorted(module.state_dict())
    assert [layer.depth for layer in catalogue.layers.values()] == list(range(len(catalogue)))
    assert next(iter(catalogue.layers)) == ROOT
    assert catalogue[ROOT].module is module
    names = [matrix.name for layer in catalogue.layers.values() for matrix in layer.matrices]
    assert len(names) == len(set(names))
    modules = [id(layer.module) for layer in catalogue.layers.values()]
    assert len(modules) == len(set(modules))
    for name, layer in catalogue.layers.items():
        assert layer.name == name
        assert all(item.layer == name for item in (*layer.params, *layer.matrices))
    source = ModuleWeights(module)
    for matrix in catalogue.matrices.values():
        value = read(matrix, source)
        assert tuple(value.shape) == matrix.shape
        assert not value.requires_grad
        assert set(matrix.params) <= set(catalogue.params)
    return catalogue


def test_every_tensor_is_there_once_and_every_matrix_has_its_shape(module):
    check(module)


def test_every_learned_tensor_of_two_dimensions_is_in_a_matrix(module):
    catalogue = check(module)
    norms = {p.name for layer in catalogue.layers.values() if layer.kind == "norm" for p in layer.params}
    for name, parameter in module.named_parameters():
        vector = max(parameter.shape, default=1) == parameter.numel()
        assert (name in catalogue.no_matrix) <= (vector or name in norms)


def test_numbers_are_neither_lost_nor_doubled(module):
    catalogue, source = catalogue_of(module), ModuleWeights(module)
    for name, param in catalogue.params.items():
        parts = [m for m in catalogue.matrices.values() if m.params == (name,) and m.name.partition(":")[0] == name]
        if parts:
            seen = torch.cat([read(m, source).flatten() for m in parts])
            assert torch.equal(seen.sort().values, source.load(param.name).flatten().sort().values)


def test_looking_changes_nothing(module):
    before, modes = copy.deepcopy(module.state_dict()), [child.training for child in module.modules()]
    generator, hooks = torch.random.get_rng_state(), [len(m._forward_hooks) for m in module.modules()]
    check(module)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert modes == [child.training for child in module.modules()]
    assert hooks == [len(m._forward_hooks) for m in module.modules()]
    assert torch.equal(generator, torch.random.get_rng_state())


NOT_TOLD_BY_NAMES = {"conv2d", "fused", "rnn", "gru", "parametrized", "leaf", "bilinear", "shared", "mha_separate"}


@pytest.mark.parametrize("name", sorted(ZOO.keys() - NOT_TOLD_BY_NAMES))
def test_a_state_dict_alone_gives_the_same_matrices(name):
    module = ZOO[name]()
    live, alone = catalogue_of(module), catalogue_of_weights(StateDict(module.state_dict()))
    assert live.params.keys() == alone.params.keys()
    assert live.matrices.keys() == alone.matrices.keys()
    for key, matrix in live.matrices.items():
        torch.testing.assert_close(
            read(alone.matrices[key], StateDict(module.state_dict())),
            read(matrix, ModuleWeights(module)),
            check_dtype=False,
        )


LEAVES = st.sampled_from(["linear", "conv", "norm", "relu", "lstm", "bare", "weight_norm", "embedding", "residual"])


def build(kind):
    made = {
        "linear": lambda: nn.Linear(3, 4),
        "conv": lambda: nn.ConvTranspose2d(4, 2, 3),
        "norm": lambda: nn.BatchNorm1d(3),
        "relu": nn.ReLU,
        "lstm": lambda: nn.LSTM(2, 3),
        "bare": Bare,
        "weight_norm": lambda: weight_norm(nn.Linear(3, 4)),
        "embedding": lambda: nn.Embedding(4, 3),
        "residual": Residual,
    }
    return made[kind]()


TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=6)


@settings(deadline=None, max_examples=25)
@given(tree=TREES, share=st.booleans(), as_dict=st.booleans())
def test_any_nesting_is_listed_whole(tree, share, as_dict):
    def grow(node):
        if isinstance(node, str):
            return build(node)
        children = [grow(child) for child in node]
        children += children[:1] if share else []
        return nn.ModuleDict({f"at{i}": c for i, c in enumerate(children)}) if as_dict else nn.Sequential(*children)

    check(nn.Sequential(grow(tree)))


# what the matrices mean


def test_a_convolution_is_its_matrix_times_patches():
    conv = nn.Conv2d(4, 6, 3, groups=2, bias=False)
    x = torch.randn(2, 4, 7, 7)
    weight = read(catalogue_of(conv).matrices["weight"], ModuleWeights(conv))
    patches = F.unfold(x, 3).reshape(2, 2, 2 * 9, -1)  # batch, group, inputs x kernel, places
    made = torch.einsum("goi,bgil->bgol", weight.reshape(2, 3, 18), patches).reshape(2, 6, 5, 5)
    torch.testing.assert_close(made, conv(x))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_has_a_row_for_each_output(groups):
    conv = nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False)
    x = torch.randn(1, 4, 1, 1)
    weight = read(catalogue_of(conv).matrices["weight"], ModuleWeights(conv))
    rows = weight.reshape(groups, 6 // groups, 4 // groups, 9)
    made = torch.einsum("goik,gi->gok", rows, x.reshape(groups, -1)).reshape(1, 6, 3, 3)
    torch.testing.assert_close(made, conv(x))


def test_lstm_gates_carry_their_right_names():
    cell = nn.LSTMCell(3, 5, bias=False)
    matrices, source = catalogue_of(cell).matrices, ModuleWeights(cell)
    x, h, c = torch.randn(2, 3), torch.randn(2, 5), torch.randn(2, 5)
    gate = {
        name: x @ read(matrices[f"weight_ih:{name}"], source).T + h @ read(matrices[f"weight_hh:{name}"], source).T
        for name in ("input", "forget", "cell", "output")
    }
    new_c = gate["forget"].sigmoid() * c + gate["input"].sigmoid() * gate["cell"].tanh()
    torch.testing.assert_close((gate["output"].sigmoid() * new_c.tanh(), new_c), cell(x, (h, c)))


def test_gru_gates_carry_their_right_names():
    cell = nn.GRUCell(3, 5, bias=False)
    matrices, source = catalogue_of(cell).matrices, ModuleWeights(cell)
    x, h = torch.randn(2, 3), torch.randn(2, 5)

    def part(name):
        return x @ read(matrices[f"weight_ih:{name}"], source).T, h @ read(matrices[f"weight_hh:{name}"], source).T

    reset, update = (sum(part(name)).sigmoid() for name in ("reset", "update"))
    new = (part("new")[0] + reset * part("new")[1]).tanh()
    torch.testing.assert_close((1 - update) * new + update * h, cell(x, h))


def test_the_projection_of_an_lstm_is_not_cut_into_gates():
    matrices = catalogue_of(nn.LSTM(4, 6, proj_size=3)).matrices
    assert matrices["weight_hr_l0"].shape == (3, 6)
    assert matrices["weight_hh_l0:forget"].shape == (6, 3)


def test_attention_with_the_value_part_alone():
    attention = nn.MultiheadAttention(8, 2, bias=False)
    matrices, source = catalogue_of(attention).matrices, ModuleWeights(attention)
    x = torch.randn(1, 3, 8)  # one token: attention passes its value on
    value, out = (read(matrices[name], source) for name in ("in_proj_weight:v", "out_proj.weight"))
    torch.testing.assert_close(x @ value.T @ out.T, attention(x, x, x)[0])


def test_fused_projections_are_split_as_each_family_stores_them():
    block = Attention()
    matrices, source = catalogue_of(block).matrices, ModuleWeights(block)
    x = torch.randn(3, 8)
    for name, parts in {
        "c_attn": (block.c_attn(x) - block.c_attn.bias).chunk(3, -1),
        "qkv": (block.qkv(x) - block.qkv.bias).chunk(3, -1),
        # GPT-NeoX: (token, head, three times the head's width)
        "query_key_value": (block.query_key_value(x) - block.query_key_value.bias).reshape(3, 2, 12).chunk(3, -1),
    }.items():
        for part, expected in zip("qkv", parts, strict=True):
            made = x @ read(matrices[f"{name}.weight:{part}"], source).T
            torch.testing.assert_close(made, expected.reshape(3, 8))
    assert {matrix.kind for matrix in matrices.values()} == {"attention"}


def test_grouped_queries_are_split_only_where_the_sizes_are_known():
    class Grouped(nn.Module):
        def __init__(self, **known):
            super().__init__()
            self.qkv_proj = nn.Linear(16, 16 + 2 * 8)
            for name, value in known.items():
                setattr(self, name, value)

    known = catalogue_of(Grouped(num_heads=4, num_key_value_heads=2, head_dim=4)).matrices
    assert [matrix.shape for matrix in known.values()] == [(16, 16), (8, 16), (8, 16)]
    assert list(catalogue_of(Grouped()).matrices) == ["qkv_proj.weight"]
    alone = catalogue_of_weights(StateDict(Grouped().state_dict()))
    assert list(alone.matrices) == ["qkv_proj.weight"]


def test_a_projection_stored_head_by_head_stays_whole_where_no_one_knows_the_heads():
    alone = catalogue_of_weights(StateDict({"h.0.query_key_value.weight": torch.zeros(24, 8)}))
    assert [(m.name, m.kind) for m in alone.matrices.values()] == [("h.0.query_key_value.weight", "attention")]


def test_in_proj_is_attention_only_inside_attention():
    mamba = nn.ModuleDict({"mixer": nn.ModuleDict({"in_proj": nn.Linear(4, 12)})})
    assert list(catalogue_of(mamba).matrices) == ["mixer.in_proj.weight"]


def test_low_rank_pairs_also_give_their_product():
    module = ZOO["lora"]()
    catalogue, source = catalogue_of(module), ModuleWeights(module)
    for b, a in (
        ("peft.lora_B.default.weight", "peft.lora_A.default.weight"),
        ("flat.lora_B", "flat.lora_A"),
    ):
        matrix = catalogue.matrices[f"{b}:BA"]
        assert (matrix.kind, matrix.shape, matrix.params) == ("adapter", (5, 6), (b, a))
        torch.testing.assert_close(read(matrix, source), source.load(b) @ source.load(a))
        assert catalogue.params[b].role == catalogue.params[a].role == "adapter"
    stored = {"x.lora_B.weight": torch.randn(5, 2), "x.lora_A.weight": torch.randn(2, 6)}
    assert "x.lora_B.weight:BA" in catalogue_of_weights(StateDict(stored)).matrices
    turned = {"x.lora_A": torch.randn(6, 2), "x.lora_B": torch.randn(2, 5)}
    update = catalogue_of_weights(StateDict(turned)).matrices["x.lora_B:BA"]
    torch.testing.assert_close(read(update, StateDict(turned)), (turned["x.lora_A"] @ turned["x.lora_B"]).T)


@pytest.mark.parametrize("name", ["parametrized", "weight_norm_hook", "spectral_norm_hook", "pruned"])
def test_the_effective_weight_is_what_the_module_uses(name):
    module = ZOO[name]().eval()
    catalogue, source = catalogue_of(module), ModuleWeights(module)
    plain = {m.name: m for m in catalogue.matrices.values() if ":" not in m.name and len(m.params) > 1}
    plain |= {m.name: m for m in catalogue.matrices.values() if "parametrizations" in m.params[0]}
    assert plain
    for key, matrix in plain.items():
        owner = module.get_submodule(key.rpartition(".")[0])
        for hook in owner._forward_pre_hooks.values():
            hook(owner, ())  # old-style hooks write the weight before each forward
        weight = owner.weight
        weight = weight.transpose(0, 1) if isinstance(owner, nn.ConvTranspose2d) else weight
        torch.testing.assert_close(read(matrix, source), weight.flatten(1).detach())
        assert all(not name.endswith("matrix") for name in catalogue.no_matrix)


def test_an_effective_weight_can_be_made_from_other_tensors_than_the_live_ones():
    module = nn.Sequential(spectral_norm(nn.Linear(5, 4)))  # in training mode, in which a forward changes u and v
    matrix = catalogue_of(module).matrices["0.weight"]
    weight, u, v = torch.randn(4, 5), torch.ones(4) / 2, torch.ones(5) / 5**0.5
    before = copy.deepcopy(module.state_dict())
    scale = torch.tensor(3.0)  # u' W v: far from zero, where float32 would lose its digits
    weight += (scale - u @ weight @ v) * torch.outer(u, v)  # u and v have length 1
    torch.testing.assert_close(matrix.view(weight, u, v), weight / scale)  # no power iteration
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_parametrization_that_writes_to_its_buffers_writes_to_copies():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, weight):
            self.calls += 1
            return weight

    module = nn.Linear(3, 3)
    parametrize.register_parametrization(module, "weight", Counts())
    before = int(module.parametrizations.weight[0].calls)
    matrix = catalogue_of(module).matrices["weight"]
    tensors = [ModuleWeights(module).load(name) for name in matrix.params]
    matrix.view(*tensors)
    assert int(tensors[1]) == int(module.parametrizations.weight[0].calls) == before


def test_parts_of_one_storage_are_not_tied():
    whole = torch.randn(6, 3)
    stored = dict(zip(("q.weight", "k.weight"), whole.chunk(2), strict=True))
    assert all(param.same_as is None for param in catalogue_of_weights(StateDict(stored)).params.values())


def test_a_parametrization_that_fails_is_a_reason():
    class Fails(nn.Module):
        def forward(self, weight):
            if not getattr(self, "ready", False):
                return weight
            raise RuntimeError("no")

    module, broken = nn.Linear(3, 3), Fails()
    parametrize.register_parametrization(module, "weight", broken)
    broken.ready = True
    param = catalogue_of(module).params["parametrizations.weight.original"]
    assert "cannot be evaluated" in param.reason


def test_parametrizations_are_no_layers_of_their_own():
    assert list(catalogue_of(parametrized()).layers) == [ROOT, "0", "1", "2", "3"]


def test_tied_tensors_are_measured_once():
    catalogue = catalogue_of(Tied())
    assert catalogue.params["head.weight"].same_as == "embed.weight"
    assert list(catalogue.matrices) == ["embed.weight", "body.weight"]
    assert "same tensor as embed.weight" in catalogue.no_matrix["head.weight"]
    alone = catalogue_of_weights(StateDict(Tied().state_dict()))
    assert alone.params["head.weight"].same_as == "embed.weight"


def test_a_shared_module_is_one_layer_with_the_keys_of_both_paths():
    catalogue = catalogue_of(Shared())
    assert list(catalogue.layers) == [ROOT, "first", "first.body.0", "first.body.1", "first.body.2", "again.other"]
    assert [p.name for p in catalogue["first.body.0"].params] == [
        "first.body.0.weight", "first.body.0.bias", "again.here.body.0.weight", "again.here.body.0.bias",
    ]  # fmt: skip
    assert catalogue.params["again.here.body.0.weight"].same_as == "first.body.0.weight"


def test_blocks_containers_and_bare_parameters():
    catalogue = catalogue_of(nn.Sequential(nn.Sequential(Residual()), Bare()))
    kinds = {name: layer.kind for name, layer in catalogue.layers.items()}
    assert kinds[ROOT] == kinds["0.0"] == kinds["1"] == "block"
    assert not {"0", "0.0.body"} & kinds.keys()
    shapes = {matrix.name: (matrix.shape, matrix.kind) for matrix in catalogue["1"].matrices}
    experts = {f"1.experts:expert[{i}]": ((2, 3), "linear") for i in range(4)}
    assert shapes == {"1.pos_embed": ((7, 5), "embedding"), **experts}
    assert catalogue.params["1.mask"].role == "other"
    assert catalogue.params["1.scale"].role == "weight"
    assert "1.cache" not in catalogue.params


@pytest.mark.parametrize(
    ("made", "kind", "channel_dim", "activation"),
    [
        (nn.Conv1d(1, 1, 1), "conv", 1, None),
        (nn.ConvTranspose3d(1, 1, 1), "conv", 1, None),
        (nn.LazyConv2d(3, 1), "conv", 1, None),
        (nn.BatchNorm2d(1), "norm", 1, None),
        (nn.GroupNorm(1, 1), "norm", 1, None),
        (nn.LayerNorm(1), "norm", -1, None),
        (nn.RMSNorm(1), "norm", -1, None),
        (nn.AdaptiveMaxPool2d(1), "pool", 1, None),
        (nn.Dropout2d(), "dropout", 1, None),
        (nn.Dropout(), "dropout", -1, None),
        (nn.Bilinear(1, 1, 1), "linear", -1, None),
        (nn.Embedding(1, 1), "embedding", -1, None),
        (nn.GRUCell(1, 1), "recurrent", -1, None),
        (nn.MultiheadAttention(2, 1), "attention", -1, None),
        (nn.Flatten(), "other", -1, None),
        (nn.Identity(), "other", -1, None),
        (nn.ReLU6(), "activation", -1, "relu6"),
        (nn.PReLU(3), "activation", 1, "prelu"),
        (nn.PReLU(), "activation", -1, "prelu"),
        (nn.Softmax2d(), "activation", 1, "softmax"),
        (nn.GLU(), "activation", -1, "glu"),
    ],
)
def test_kinds(made, kind, channel_dim, activation):
    layer = catalogue_of(nn.Sequential(made))["0"]
    assert (layer.kind, layer.channel_dim, layer.activation) == (kind, channel_dim, activation)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("NewGELUActivation", "gelu"),
        ("GELUTanh", "gelu"),
        ("SiLUActivation", "silu"),
        ("MemoryEfficientSwish", "silu"),
        ("HardSwish", "hardswish"),
        ("SigmoidFocalLoss", None),
        ("Transpose", None),
    ],
)
def test_activations_of_other_libraries_go_by_their_names(name, activation):
    layer = catalogue_of(nn.Sequential(type(name, (nn.Module,), {})()))["0"]
    assert layer.activation == activation
    assert layer.kind == ("activation" if activation else "other")


def test_kinds_of_other_peoples_classes():
    class LlamaRMSNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

    class MyReLU(nn.ReLU):
        pass

    class DropPath(nn.Module):
        pass

    class QuantLinear(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_features, self.out_features = 3, 4
            self.weight = nn.Parameter(torch.randn(4, 3))

    found = catalogue_of(nn.Sequential(LlamaRMSNorm(), MyReLU(), DropPath(), QuantLinear()))
    layers = list(found.layers.values())[1:]
    assert [layer.kind for layer in layers] == ["norm", "activation", "dropout", "linear"]
    assert layers[1].activation == "relu"
    assert found.params["0.weight"].role == "gain"


# what cannot be read says why


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: nn.LazyLinear(3), "lazy"),
        (lambda: nn.Linear(3, 4, device="meta"), "meta"),
        (lambda: nn.Linear(3, 4, dtype=torch.complex64), "complex"),
        (lambda: nn.Linear(3, 0), "no elements"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_what_is_no_matrix_of_real_numbers_has_a_reason(made, reason):
    catalogue = catalogue_of(made())
    assert reason in catalogue.params["weight"].reason
    assert not catalogue.matrices


def test_integer_weights_have_a_reason_and_counts_have_none():
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(4, 3, dtype=torch.int8), requires_grad=False)
    module.register_buffer("num_batches_tracked", torch.tensor(0))
    catalogue = catalogue_of(module)
    assert "torch.int8" in catalogue.params["weight"].reason
    assert catalogue.params["num_batches_tracked"].reason == ""


def test_frozen_parameters_are_marked():
    params = catalogue_of(ZOO["frozen"]()).params
    assert [params[f"{i}.weight"].trainable for i in (0, 1)] == [False, True]


# wrappers


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.compile(nn.Linear(3, 3), backend="eager")


def test_wrappers_are_looked_through():
    net = ZOO["mlp"]()
    for wrapped in (
        torch.compile(net, backend="eager"),
        nn.DataParallel(net),
        torch.compile(nn.DataParallel(net), backend="eager"),
    ):
        assert unwrap(wrapped) is net
        assert catalogue_of(wrapped).layers.keys() == catalogue_of(net).layers.keys()
        assert ModuleWeights(wrapped).describe().keys() == net.state_dict().keys()


def test_wrappers_inside_keep_exact_keys_and_clean_layer_names():
    net = Sum()
    catalogue = check(net)
    assert list(catalogue.layers) == [ROOT, "inner"]
    assert catalogue["inner"].module is net.inner._orig_mod
    assert [p.name for p in catalogue["inner"].params] == ["inner._orig_mod.weight", "inner._orig_mod.bias"]


def test_checkpoint_wrappers_keep_the_keys_of_the_state_dict():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    net = nn.Sequential(checkpoint_wrapper(nn.Linear(3, 3)), nn.BatchNorm1d(3))
    assert list(check(net).layers) == [ROOT, "0", "1"]


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused_at_the_top_and_weights_alone_inside():
    scripted = torch.jit.script(nn.Linear(3, 2))
    with pytest.raises(SubjectError, match="TorchScript"):
        catalogue_of(scripted)
    inside = catalogue_of(nn.Sequential(scripted, nn.ReLU()))
    assert inside["0"].module is None
    assert set(inside.params) == {"0.weight", "0.bias"}


def test_what_is_no_module_is_refused():
    with pytest.raises(SubjectError, match="dict"):
        catalogue_of({"weight": torch.zeros(2)})


# names alone


def test_real_checkpoints_by_names_alone(data_folder):
    from stratoscope.network.opening import open_weights

    for path in sorted(data_folder.glob("*/*.safetensors")):
        source = open_weights(path)
        catalogue = catalogue_of_weights(source)
        keys = [param.name for layer in catalogue.layers.values() for param in layer.params]
        assert sorted(keys) == sorted(source.describe())
        for matrix in catalogue.matrices.values():
            assert tuple(read(matrix, source).shape) == matrix.shape
        large = [name for name, info in source.describe().items() if len(info.shape) > 1]
        assert not set(large) & catalogue.no_matrix.keys()


def open_catalogue(path):
    from stratoscope.network.opening import open_weights

    return catalogue_of_weights(open_weights(path))


def test_real_gates_projections_and_kernels(data_folder):
    lstm = open_catalogue(data_folder / "silero_vad_lstm" / "model.safetensors")
    assert lstm.matrices["lstm_cell.weight_hh:forget"].shape == (128, 128)
    assert lstm["conv1"].kind == "conv"
    gpt = open_catalogue(data_folder / "gpt_nano_sort" / "model.safetensors")
    assert gpt.matrices["transformer.h.0.attn.c_attn.weight:k"].shape == (48, 48)
    order = list(gpt.layers)
    assert order[:2] == ["transformer.wpe", "transformer.wte"]
    assert order[-2:] == ["transformer.ln_f", "lm_head"]
    llama = open_catalogue(data_folder / "llama_stories260k" / "model.safetensors")
    kinds = {layer.kind for layer in llama.layers.values()}
    assert kinds == {"embedding", "linear", "norm"}
    dense = open_catalogue(data_folder / "keyword_spotting" / "DNN_S.safetensors")
    assert [dense.matrices[name].shape for name in ("fc1/W", "fc2/W", "final_fc")] == [
        (144, 250),
        (144, 144),
        (12, 144),
    ]
    gru = open_catalogue(data_folder / "keyword_spotting" / "GRU_S.safetensors")
    cell = "rnn/multi_rnn_cell/cell_0/gru_cell"
    assert gru.matrices[f"{cell}/gates/kernel:update"].shape == (154, 164)
    assert gru.matrices[f"{cell}/candidate/kernel"].kind == "recurrent"
    resnet = open_catalogue(data_folder / "cifar10_resnet_a" / "resnet20.safetensors")
    assert resnet["layer1.0.bn1"].kind == "norm"
    assert resnet.params["layer1.0.bn1.running_var"].role == "statistic"


def test_numbers_in_names_count_as_numbers():
    names = [f"h.{i}.weight" for i in range(12)]
    order = list(catalogue_of_weights(StateDict({name: torch.zeros(2, 2) for name in sorted(names)})).layers)
    assert order == [f"h.{i}" for i in range(12)]


def test_the_order_of_a_state_dict_is_kept():
    stored = {name: torch.zeros(2, 2) for name in ("z.weight", "a.weight", "m.weight")}
    assert list(catalogue_of_weights(StateDict(stored)).layers) == ["z", "a", "m"]


def test_biases_show_how_weights_lie():
    stored = {
        "h.c_fc.weight": torch.randn(4, 16), "h.c_fc.bias": torch.zeros(16),
        "h.c_proj.weight": torch.randn(4, 4), "h.c_proj.bias": torch.zeros(4),
        "h.c_attn.weight": torch.randn(4, 12), "h.c_attn.bias": torch.zeros(12),
        "up.weight": torch.randn(6, 3, 2, 2), "up.bias": torch.zeros(3),
    }  # fmt: skip
    catalogue, source = catalogue_of_weights(StateDict(stored)), StateDict(stored)
    for name in ("h.c_fc", "h.c_proj"):
        assert torch.equal(read(catalogue.matrices[f"{name}.weight"], source), stored[f"{name}.weight"].T)
    keys = stored["h.c_attn.weight"][:, 4:8].T
    assert torch.equal(read(catalogue.matrices["h.c_attn.weight:k"], source), keys)
    assert catalogue.matrices["up.weight"].shape == (3, 24)


def test_keras_and_tensorflow_recurrent_kernels():
    keras = {
        "lstm/kernel": torch.randn(3, 20),
        "lstm/recurrent_kernel": torch.randn(5, 20),
        "lstm/bias": torch.zeros(20),
    }
    catalogue = catalogue_of_weights(StateDict(keras))
    forget = read(catalogue.matrices["lstm/kernel:forget"], StateDict(keras))
    assert torch.equal(forget, keras["lstm/kernel"][:, 5:10].T)
    tf = {"rnn/basic_lstm_cell/kernel": torch.randn(8, 20), "rnn/basic_lstm_cell/bias": torch.zeros(20)}
    catalogue = catalogue_of_weights(StateDict(tf))
    forget = read(catalogue.matrices["rnn/basic_lstm_cell/kernel:forget"], StateDict(tf))
    assert torch.equal(forget, tf["rnn/basic_lstm_cell/kernel"][:, 10:15].T)  # input, cell, forget, output


def test_torch_parametrizations_by_names_alone():
    module = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), spectral_norm(nn.Linear(5, 4)))
    alone, source = catalogue_of_weights(StateDict(module.state_dict())), StateDict(module.state_dict())
    for key, matrix in catalogue_of(module).matrices.items():
        torch.testing.assert_close(read(alone.matrices[key], source), read(matrix, ModuleWeights(module)))
    assert list(alone.layers) == ["0", "1"]


def test_quantised_tensors_and_what_belongs_to_them_have_reasons():
    stored = {
        "a.qweight": torch.zeros(4, 4, dtype=torch.int32), "a.scales": torch.ones(2, 4), "a.bias": torch.zeros(4),
        "b.weight": torch.zeros(8, 8).to(torch.float8_e4m3fn), "b.weight_scale_inv": torch.ones(2, 2),
        "c.weight": torch.zeros(8, 8).to(torch.float8_e4m3fn), "c.weight_scale": torch.tensor(0.5),
        "d.weight": torch.randn(4, 4),
    }  # fmt: skip
    catalogue = catalogue_of_weights(StateDict(stored))
    assert list(catalogue.matrices) == ["c.weight", "d.weight"]
    for name in ("a.qweight", "a.scales", "b.weight", "b.weight_scale_inv"):
        assert catalogue.params[name].reason


def test_masks_and_tables_in_a_checkpoint_are_no_weights():
    stored = {
        "h.0.attn.bias": torch.ones(1, 1, 8, 8).tril(), "rope.freqs_cos": torch.ones(8, 4), "bn.running_mean": torch.ones(3),
        "relative_position_bias_table": torch.randn(9, 2), "fc.weight": torch.randn(3, 3),
    }  # fmt: skip
    catalogue = catalogue_of_weights(StateDict(stored))
    assert set(catalogue.matrices) == {"relative_position_bias_table", "fc.weight"}
    assert all(catalogue.no_matrix.values())


def test_the_share_of_a_norm_in_its_weight():
    """Weight norm: each row of the effective weight is as long as its gain."""
    module = nn.Sequential(weight_norm(nn.Linear(7, 5)))
    with torch.no_grad():
        module[0].parametrizations.weight.original0.copy_(torch.arange(1.0, 6.0)[:, None])
    weight = read(catalogue_of(module).matrices["0.weight"], ModuleWeights(module))
    torch.testing.assert_close(weight.norm(dim=1), torch.arange(1.0, 6.0))
    assert math.isclose(weight.norm().item() ** 2, 55, rel_tol=1e-5)


def test_a_layer_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(SubjectError, match=r"no layer 'conv9'; this network has .root., 0"):
        catalogue_of(ZOO["mlp"]())["conv9"]


def test_low_rank_pairs_that_do_not_fit_stay_apart():
    stored = {
        "alone.lora_A.weight": torch.zeros(2, 6),
        "odd.lora_A.weight": torch.zeros(3, 6), "odd.lora_B.weight": torch.zeros(5, 2),
        "conv.lora_A.weight": torch.randn(2, 3, 3, 3), "conv.lora_B.weight": torch.randn(4, 2, 1, 1),
        "kohya.lora_down.weight": torch.randn(2, 6), "kohya.lora_up.weight": torch.randn(5, 2),
        "int.lora_A.weight": torch.zeros(2, 6, dtype=torch.int8), "int.lora_B.weight": torch.zeros(5, 2),
    }  # fmt: skip
    catalogue = catalogue_of_weights(StateDict(stored))
    pairs = {name: matrix.shape for name, matrix in catalogue.matrices.items() if matrix.kind == "adapter"}
    assert pairs == {"conv.lora_B.weight:BA": (4, 27), "kohya.lora_up.weight:BA": (5, 6)}
    update = read(catalogue.matrices["conv.lora_B.weight:BA"], StateDict(stored))
    x = torch.randn(1, 3, 3, 3)
    expected = F.conv2d(F.conv2d(x, stored["conv.lora_A.weight"]), stored["conv.lora_B.weight"])
    torch.testing.assert_close(update @ x.flatten(), expected.flatten())


def test_the_gates_of_a_keras_gru():
    stored = {"gru/kernel": torch.randn(3, 15), "gru/recurrent_kernel": torch.randn(5, 15)}
    catalogue = catalogue_of_weights(StateDict(stored))
    reset = read(catalogue.matrices["gru/recurrent_kernel:reset"], StateDict(stored))
    assert torch.equal(reset, stored["gru/recurrent_kernel"][:, 5:10].T)  # update, reset, new


@pytest.mark.parametrize("name", sorted(ZOO))
def test_matrices_compare_and_travel(name):
    import pickle

    module = ZOO[name]()
    for matrix in catalogue_of(module).matrices.values():
        tensors = [ModuleWeights(module).load(param) for param in matrix.params]
        copied = pickle.loads(pickle.dumps(matrix))
        assert copied == matrix
        assert torch.equal(copied.view(*tensors), matrix.view(*tensors))
