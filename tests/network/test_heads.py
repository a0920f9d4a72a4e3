"""What each attention head computes with: the products agree with what the modules do."""

import json
import pickle

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from stratoscope.errors import SubjectError
from stratoscope.network.catalogue import catalogue_of
from stratoscope.network.heads import Heads, config_beside, heads_in_config, heads_of
from stratoscope.network.naming import catalogue_of_weights
from stratoscope.network.subject import Subject
from stratoscope.network.weights import ModuleWeights, StateDict

TOKENS, WIDTH, HEADS = 5, 12, 3


class Conv1D(nn.Module):
    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


class Fused(nn.Module):
    """nanoGPT, GPT-2 and timm: one projection for all queries, then all keys, then all values."""

    def __init__(self, make, fused="c_attn", out="c_proj"):
        super().__init__()
        self.n_head, self.fused, self.out = HEADS, fused, out
        setattr(self, fused, make(WIDTH, 3 * WIDTH))
        setattr(self, out, make(WIDTH, WIDTH))

    def heads(self, x):
        parts = getattr(self, self.fused)(x).split(WIDTH, -1)
        return [part.unflatten(-1, (HEADS, -1)).transpose(-2, -3) for part in parts]

    def forward(self, x):
        q, k, v = self.heads(x)
        weights = (q @ k.mT / (WIDTH // HEADS) ** 0.5).softmax(-1)
        return getattr(self, self.out)((weights @ v).transpose(-2, -3).flatten(-2))


class ByHead(Fused):
    """GPT-NeoX and BLOOM: query, key and value of each head together."""

    def __init__(self):
        super().__init__(lambda a, b: nn.Linear(a, b, bias=False), "query_key_value", "dense")

    def heads(self, x):
        parts = self.query_key_value(x).unflatten(-1, (HEADS, -1)).chunk(3, -1)
        return [part.transpose(-2, -3) for part in parts]


class Grouped(nn.Module):
    """Llama and its kin: fewer keys than queries; and a head that is not the width over the number of heads."""

    def __init__(self, queries=6, keys=2, width=4, names=("q_proj", "k_proj", "v_proj", "o_proj")):
        super().__init__()
        self.num_heads, self.num_key_value_heads, self.head_dim, self.names = queries, keys, width, names
        for name, rows in zip(names, (queries, keys, keys), strict=False):
            setattr(self, name, nn.Linear(WIDTH, rows * width, bias=False))
        setattr(self, names[3], nn.Linear(queries * width, WIDTH, bias=False))

    def heads(self, x):
        q, k, v = (
            getattr(self, name)(x).unflatten(-1, (-1, self.head_dim)).transpose(-2, -3) for name in self.names[:3]
        )
        group = self.num_heads // self.num_key_value_heads
        return q, k.repeat_interleave(group, -3), v.repeat_interleave(group, -3)

    def forward(self, x):
        q, k, v = self.heads(x)
        made = F.scaled_dot_product_attention(q, k, v)
        return getattr(self, self.names[3])(made.transpose(-2, -3).flatten(-2))


class FusedGrouped(Grouped):
    """Phi-3: one projection with fewer keys than queries."""

    def __init__(self):
        super().__init__()
        weights = [getattr(self, name).weight for name in self.names[:3]]
        self.qkv_proj = nn.Linear(WIDTH, sum(len(weight) for weight in weights), bias=False)
        self.qkv_proj.weight = nn.Parameter(torch.cat(weights).detach())
        del self.q_proj, self.k_proj, self.v_proj

    def heads(self, x):
        q, k, v = self.qkv_proj(x).split([24, 8, 8], -1)
        q, k, v = (part.unflatten(-1, (-1, 4)).transpose(-2, -3) for part in (q, k, v))
        return q, k.repeat_interleave(3, -3), v.repeat_interleave(3, -3)


class Bert(nn.Module):
    """BERT: the projections lie one level deeper than the output's."""

    def __init__(self):
        super().__init__()
        self.self = Grouped(HEADS, HEADS, 4, ("query", "key", "value", "unused"))
        del self.self.unused
        self.output = nn.ModuleDict({"dense": nn.Linear(WIDTH, WIDTH, bias=False)})

    def heads(self, x):
        return self.self.heads(x)

    def forward(self, x):
        q, k, v = self.heads(x)
        return self.output["dense"](F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2))


def linear(a, b):
    return nn.Linear(a, b, bias=False)


KINDS = {
    "nanogpt": lambda: Fused(linear),
    "gpt2": lambda: Fused(lambda a, b: Conv1D(b, a)),
    "timm": lambda: Fused(linear, "qkv", "proj"),
    "neox": ByHead,
    "llama": Grouped,
    "one_key": lambda: Grouped(4, 1, 3),
    "llama_of_meta": lambda: Grouped(names=("wq", "wk", "wv", "wo")),
    "bart": lambda: Grouped(HEADS, HEADS, 4, ("q_proj", "k_proj", "v_proj", "out_proj")),
    "distilbert": lambda: Grouped(HEADS, HEADS, 4, ("q_lin", "k_lin", "v_lin", "out_lin")),
    "t5": lambda: Grouped(HEADS, HEADS, 5, ("q", "k", "v", "o")),
    "diffusers": lambda: Grouped(HEADS, HEADS, 4, ("to_q", "to_k", "to_v", "to_out")),
    "phi3": FusedGrouped,
    "bert": Bert,
}


@pytest.fixture(params=sorted(KINDS))
def kind(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield request.param


def made(matrix, source):
    return matrix.view(*(source.load(name) for name in matrix.params))


def by_part(catalogue, part):
    found = {m.name.rpartition(":")[2]: m for m in catalogue.matrices.values() if f":{part}[" in m.name}
    return [found[f"{part}[{head}]"] for head in range(len(found))]


def check_products(module, catalogue, source):
    """The scores and outputs of the module are those of the products."""
    x = torch.randn(TOKENS, WIDTH)
    q, k, _ = module.heads(x)
    forms = [made(matrix, source) for matrix in by_part(catalogue, "qk")]
    torch.testing.assert_close(torch.stack([x @ form @ x.T for form in forms]), q @ k.mT, rtol=1e-5, atol=1e-5)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    maps = [made(matrix, source) for matrix in by_part(catalogue, "ov")]
    output = sum(weight @ x @ each.T for weight, each in zip(weights, maps, strict=True))
    torch.testing.assert_close(output, module(x), rtol=1e-5, atol=1e-5)


def test_the_products_make_the_scores_and_the_output(kind):
    module = KINDS[kind]()
    catalogue = catalogue_of(module, heads=True)
    assert catalogue.notes == ()
    check_products(module, catalogue, ModuleWeights(module))


def test_weights_alone_with_their_config_give_the_same(kind):
    module = KINDS[kind]()
    inner = getattr(module, "self", module)
    config = {"num_attention_heads": heads_of(inner).queries, "num_key_value_heads": heads_of(inner).keys}
    stored = StateDict({f"layers.0.attn.{name}": value for name, value in module.state_dict().items()})
    alone = catalogue_of_weights(stored, heads=True, config=config)
    assert alone.notes == ()
    check_products(module, alone, stored)
    live = catalogue_of(nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"attn": module})])}), heads=True)
    assert {m.name: m.shape for m in alone.matrices.values()} == {m.name: m.shape for m in live.matrices.values()}
    products = {name: m for name, m in live.matrices.items() if m.law == "product"}
    assert {name: (m.params, m.layer, m.rank) for name, m in products.items()} == {
        name: (m.params, m.layer, m.rank) for name, m in alone.matrices.items() if m.law == "product"
    }


def test_the_number_of_heads_is_enough_where_the_projections_are_apart(kind):
    module = KINDS[kind]()
    stored = StateDict(module.state_dict())
    count = heads_of(getattr(module, "self", module)).queries
    catalogue = catalogue_of_weights(stored, heads=count)
    if kind == "phi3":  # where its keys begin cannot be told from the number of queries
        assert "could not be split" in catalogue.notes[0]
    else:
        check_products(module, catalogue, stored)


def test_factors_multiply_to_the_matrix_and_bound_its_rank(kind):
    module = KINDS[kind]()
    source = ModuleWeights(module)
    for matrix in catalogue_of(module, heads=True).matrices.values():
        if matrix.law != "product":
            assert (matrix.rank, matrix.factors) == (None, None)
            continue
        left, right = matrix.factors(*(source.load(name) for name in matrix.params))
        assert (left.shape[0], right.shape[1]) == matrix.shape
        assert left.shape[1] == right.shape[0] == matrix.rank
        assert torch.equal(left @ right, made(matrix, source))
        assert torch.linalg.matrix_rank(left @ right) == matrix.rank
        copied = pickle.loads(pickle.dumps(matrix))
        assert copied == matrix
        assert torch.equal(made(copied, source), made(matrix, source))


@pytest.mark.parametrize("sizes", [{}, {"kdim": 7, "vdim": 9}, {"batch_first": True, "bias": False}])
def test_torch_attention(sizes):
    attention = nn.MultiheadAttention(WIDTH, HEADS, **sizes, dtype=torch.float64)
    nn.init.zeros_(attention.out_proj.weight)
    with torch.no_grad():
        attention.out_proj.weight.copy_(torch.randn(WIDTH, WIDTH))
    catalogue, source = catalogue_of(attention, heads=True), ModuleWeights(attention)
    x = torch.randn(TOKENS, WIDTH, dtype=torch.float64)
    keys = torch.randn(TOKENS, sizes.get("kdim", WIDTH), dtype=torch.float64) if sizes.get("kdim") else x
    values = torch.randn(TOKENS, sizes.get("vdim", WIDTH), dtype=torch.float64) if sizes.get("vdim") else x
    scores = torch.stack([x @ made(matrix, source) @ keys.T for matrix in by_part(catalogue, "qk")])
    weights = (scores / (WIDTH // HEADS) ** 0.5).softmax(-1)
    output, seen = attention(x, keys, values, average_attn_weights=False)
    torch.testing.assert_close(weights, seen, rtol=1e-6, atol=1e-6)
    maps = [made(matrix, source) for matrix in by_part(catalogue, "ov")]
    written = sum(weight @ values @ each.T for weight, each in zip(weights, maps, strict=True))
    torch.testing.assert_close(written, output, rtol=1e-6, atol=1e-6)


def test_the_products_stand_in_the_layer_of_their_first_factor():
    encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, 16)
    catalogue = catalogue_of(encoder, heads=True)
    scores = catalogue.matrices["self_attn.in_proj_weight:qk[2]"]
    assert (scores.layer, scores.params, scores.kind) == ("self_attn", ("self_attn.in_proj_weight",), "attention")
    written = catalogue.matrices["self_attn.out_proj.weight:ov[0]"]
    assert written.layer == "self_attn.out_proj"
    assert written.params == ("self_attn.out_proj.weight", "self_attn.in_proj_weight")
    assert written in catalogue["self_attn.out_proj"].matrices


def test_the_products_are_an_option():
    encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, 16)
    with_products, without = catalogue_of(encoder, heads=True), catalogue_of(encoder)
    assert len(with_products.matrices) == len(without.matrices) + 2 * HEADS
    assert with_products.no_matrix == without.no_matrix


def test_a_normed_projection_counts_as_it_is_used():
    module = Grouped()
    weight_norm(module.q_proj)
    with torch.no_grad():
        module.q_proj.parametrizations.weight.original0.mul_(3)
    check_products(module, catalogue_of(module, heads=True), ModuleWeights(module))


def test_half_precision_is_multiplied_in_float32():
    module = Grouped().to(torch.bfloat16)
    source = ModuleWeights(module)
    scores = catalogue_of(module, heads=True).matrices["q_proj.weight:qk[0]"]
    expected = module.q_proj.weight[:4].float().T @ module.k_proj.weight[:4].float()
    assert torch.equal(made(scores, source), expected.detach())


# where something is not known


def test_heads_that_nobody_counts_are_a_note():
    stored = {f"h.{i}.attn.{name}.weight": torch.zeros(8, 8) for i in range(3) for name in ("q_proj", "k_proj")}
    catalogue = catalogue_of_weights(StateDict(stored), heads=True)
    assert len(catalogue.notes) == 1
    assert "h.0.attn and 2 more" in catalogue.notes[0]
    assert "heads=N" in catalogue.notes[0]
    assert not any(matrix.law == "product" for matrix in catalogue.matrices.values())


def test_heads_that_do_not_fit_are_a_note():
    module = Grouped()
    (note,) = catalogue_of_weights(StateDict(module.state_dict()), heads=7).notes
    assert "7 heads do not fit projections of 24, 8, 8 rows" in note
    module.num_key_value_heads = 3
    (note,) = catalogue_of(module, heads=True).notes
    assert "with 3 heads of keys" in note


def test_no_attention_is_a_note():
    assert "no layer has a query" in catalogue_of(nn.Linear(3, 3), heads=True).notes[0]


def test_an_attention_without_a_key_is_a_note():
    stored = {"a.q_proj.weight": torch.zeros(4, 4), "a.kv_a_proj_with_mqa.weight": torch.zeros(6, 4)}
    assert "one of the keys" in catalogue_of_weights(StateDict(stored), heads=2).notes[0]


def test_two_fused_projections_in_one_place_are_not_guessed_at():
    module = Fused(linear)
    module.qkv = nn.Linear(WIDTH, 3 * WIDTH)
    assert "names do not tell" in catalogue_of(module, heads=True).notes[0]


def test_an_attention_without_an_output_has_scores_alone():
    module = Grouped()
    del module.o_proj
    catalogue = catalogue_of(module, heads=True)
    assert "one projection of the values and one of the output" in catalogue.notes[0]
    products = [m.name for m in catalogue.matrices.values() if m.law == "product"]
    assert products == [f"q_proj.weight:qk[{head}]" for head in range(6)]


def test_a_negative_number_of_heads_is_refused():
    with pytest.raises(SubjectError, match="heads=-2"):
        catalogue_of(nn.Linear(2, 2), heads=-2)


# configs


def test_configs_of_several_networks_speak_of_their_paths():
    known = heads_in_config(
        {"text_config": {"num_attention_heads": 8}, "vision_config": {"num_attention_heads": 12, "head_dim": 64}}
    )
    assert known("model.language_model.layers.0.self_attn") == Heads(8)
    assert known("vision_tower.encoder.layers.3.self_attn") == Heads(12, None, 64)
    assert known("projector") is None


@pytest.mark.parametrize("content", ["", "[1]", '{"num_heads": true}', '{"config": 3}', '{"n_head": -1}', "\udcff"])
def test_a_config_that_says_nothing_is_empty(tmp_path, content):
    (tmp_path / "config.json").write_text(content, errors="surrogateescape")
    assert config_beside(tmp_path) == {}
    assert config_beside(tmp_path / "none" / "model.safetensors") == {}


def test_the_config_beside_a_checkpoint_is_found(tmp_path):
    module = Grouped()
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    assert "not known" in Subject.open(tmp_path / "model.safetensors", heads=True).catalogue.notes[0]
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 6, "num_key_value_heads": 2}))
    for place in (tmp_path / "model.safetensors", tmp_path):
        subjects = Subject.open(place, heads=True), Subject(weights=place, heads=True)
        for subject in subjects:
            assert len(by_part(subject.catalogue, "qk")) == 6
        check_products(module, subject.catalogue, subject.source)
        assert not any(m.law == "product" for m in Subject.open(place).catalogue.matrices.values())


def test_a_live_model_is_asked_itself():
    subject = Subject(model=Grouped(), heads=True)
    assert len(by_part(subject.catalogue, "ov")) == 6


def test_real_language_models(data_folder):
    llama = Subject.open(data_folder / "llama_stories260k" / "model.safetensors", heads=True)
    products = [matrix for matrix in llama.catalogue.matrices.values() if matrix.law == "product"]
    assert llama.catalogue.notes == ()
    assert len(products) == 5 * 2 * 8
    assert {(m.shape, m.rank) for m in products} == {((64, 64), 8)}
    last = llama.catalogue.matrices["layers.4.attention.wq.weight:qk[7]"]
    q, k = (llama.source.load(f"layers.4.attention.w{part}.weight") for part in "qk")
    torch.testing.assert_close(made(last, llama.source), q[56:].T @ k[24:])
    gpt = Subject.open(data_folder / "gpt_nano_sort" / "model.safetensors", heads=True)
    assert len([m for m in gpt.catalogue.matrices.values() if m.law == "product"]) == 3 * 2 * 3
    assert gpt.catalogue.notes == ()
