"""What each attention head computes with: `W_q^T W_k`, the form of its scores, and `W_o W_v`, what it writes.

The score of head `h` between two positions is `x_i^T W_q,h^T W_k,h x_j / sqrt(width)` but for biases; `ov[h]` is the map
from what is at a position to what the head adds to the output (Elhage and others, "A mathematical framework for
transformer circuits", 2021). Only these products are defined by the function that is computed: a head's query and key
may be turned against each other without changing it.

Rotary positions turn queries and keys between the two matrices of `qk[h]`, which is then the form at distance zero. A
norm on queries and keys, or one before the layer, is not in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from stratoscope.network.heads import KnownHeads
from stratoscope.network.layers import Layer, Matrix
from stratoscope.network.parts import BY_HEAD, CONTIGUOUS
from stratoscope.network.views import Chain, Columns, Product, Rows, Taken, Turned, View

_AFFIX = r"(_?proj|_?lin|_?linear|_?layer|_?dense|_?attn|s)?(_weight)?"
_ROLES = {
    role: re.compile(rf"^(attn_|attention_)?(to_|w_?|linear_|fc_)?({word}){_AFFIX}$", re.IGNORECASE)
    for role, word in {"q": "q|query|querie", "k": "k|key", "v": "v|value"}.items()
}
_OUTPUT = re.compile(
    rf"^(attn_|attention_)?(to_|w_?|linear_|fc_)?(o|out|output){_AFFIX}$|^(c_proj|proj|dense|proj_out|resid_proj)$",
    re.IGNORECASE,
)
_OUTSIDE = "output outside"  # one that counts only if the attention has none of its own
_WHOLE = "fused"  # a projection of queries, keys and values that could not be split
_WEIGHT = re.compile(r"[./](weight|kernel|W|w)$")
_WRAPPED = re.compile(r"[./](base_layer|_orig_mod|module)$")  # what adapters and compilers put between


@dataclass
class _Attention:
    """The projections of one attention layer; more than one for a role means that names do not tell them apart."""

    found: dict[str, list[Matrix]] = field(default_factory=dict)

    def only(self, role: str) -> Matrix | None:
        """The projection for a role, if there is exactly one."""
        matrices = self.found.get(role) or self.found.get(_OUTSIDE if role == "o" else role, [])
        return matrices[0] if len(matrices) == 1 else None


@dataclass(frozen=True)
class _Sizes:
    """Heads of queries, heads of keys and values, rows of a key head, rows of a value head."""

    queries: int
    keys: int
    width: int
    value_width: int


def with_heads(layers: Mapping[str, Layer], known: KnownHeads) -> tuple[dict[str, Layer], tuple[str, ...]]:
    """Add `:qk[h]` and `:ov[h]` for each head `h` of each attention layer whose projections and heads are known.

    With grouped queries, query head `h` uses the key and value head `h // group`, as torch and Transformers store them.

    Args:
        layers: the layers of a network, with their matrices.
        known: the heads of the attention layer at a path.

    Returns:
        The layers with the products, each in the layer of its first factor; and a sentence for each reason why there
        are none for a layer.
    """
    all_layers, missing = dict(layers), dict[str, list[str]]()
    attentions = _attentions(layers)
    for path, attention in attentions.items():
        made, reason = _products(path, attention, known)
        if reason:
            missing.setdefault(reason, []).append(path or "(root)")
        for matrix in made:
            home = all_layers[matrix.layer]
            all_layers[matrix.layer] = replace(home, matrices=(*home.matrices, matrix))
    notes = [f"Products of heads are missing for {_listed(paths)}: {reason}." for reason, paths in missing.items()]
    if not attentions:
        notes = ["Products of heads are missing: no layer has a query projection that can be told by name."]
    return all_layers, tuple(notes)


def _attentions(layers: Mapping[str, Layer]) -> dict[str, _Attention]:
    """Every place that has a query, or a fused projection that could not be split."""
    found: dict[str, _Attention] = {}
    for layer in layers.values():
        for matrix in layer.matrices:
            for path, role in _roles(matrix):
                found.setdefault(path, _Attention()).found.setdefault(role, []).append(matrix)
    return {path: attention for path, attention in found.items() if attention.found.keys() & {"q", _WHOLE}}


def _roles(matrix: Matrix) -> Iterator[tuple[str, str]]:
    """Where a matrix may belong, and as what; nothing for most."""
    if matrix.kind not in ("linear", "attention"):
        return
    name, _, part = matrix.name.partition(":")
    scope, last = _split(_WRAPPED.sub("", _WEIGHT.sub("", name)))
    if part:
        if part in _ROLES:
            yield scope, part
        return
    if matrix.kind == "attention" and last in CONTIGUOUS | BY_HEAD:
        yield scope, _WHOLE
    for role, pattern in _ROLES.items():
        if pattern.match(last):
            yield scope, role
            return
    if last.isdigit():  # `to_out.0`
        scope, last = _split(scope)
    if _OUTPUT.match(last):
        yield scope, "o"
    around, inner = _split(scope)
    if last == "dense" and inner == "output":  # BERT: `attention.self.query`, `attention.output.dense`
        yield from ((f"{around}.{name}".lstrip("."), _OUTSIDE) for name in ("self", "attention"))


def _split(path: str) -> tuple[str, str]:
    cut = max(path.rfind("."), path.rfind("/"))
    return path[: max(cut, 0)], path[cut + 1 :]


def _products(path: str, attention: _Attention, known: KnownHeads) -> tuple[list[Matrix], str]:
    """The products, and why some or all are missing."""
    query, key = attention.only("q"), attention.only("k")
    if not attention.found.keys() & {"q", "k"}:
        return [], "its fused projection could not be split; put the model's config.json beside the weights"
    if query is None or key is None:
        return [], "names do not tell one projection of the queries and one of the keys"
    sizes = _sizes(path, attention, known)
    if isinstance(sizes, str):
        return [], sizes
    heads = range(sizes.queries)
    scores = [_query_key(query, key, head, sizes) for head in heads]
    value, output = attention.only("v"), attention.only("o")
    if value is None or output is None:
        return scores, "names do not tell one projection of the values and one of the output"
    return [*scores, *(_output_value(output, value, head, sizes) for head in heads)], ""


def _sizes(path: str, attention: _Attention, known: KnownHeads) -> _Sizes | str:
    """The sizes of the heads, or why they do not fit."""
    heads = known(path)
    if heads is None:
        return "the number of heads is not known; give it as heads=N, or put the model's config.json beside the weights"
    rows = {role: matrix.shape[0] for role in "qkv" if (matrix := attention.only(role)) is not None}
    no_fit = f"{heads.queries} heads do not fit projections of {', '.join(map(str, rows.values()))} rows"
    width = rows["q"] // heads.queries
    keys = rows["k"] // width if width else 0
    if width * heads.queries != rows["q"] or keys * width != rows["k"] or keys == 0 or heads.queries % keys:
        return no_fit
    if heads.width not in (None, width) or heads.keys not in (None, keys):
        return f"{no_fit}, with {heads.keys or heads.queries} heads of keys and {heads.width or width} rows a head"
    value_width = rows.get("v", rows["k"]) // keys
    output = attention.only("o")
    if value_width * keys != rows.get("v", rows["k"]) or (
        output is not None and output.shape[1] != value_width * heads.queries
    ):
        return no_fit
    return _Sizes(heads.queries, keys, width, value_width)


def _query_key(query: Matrix, key: Matrix, head: int, sizes: _Sizes) -> Matrix:
    group = head // (sizes.queries // sizes.keys)
    queries = Rows(head * sizes.width, (head + 1) * sizes.width)
    keys = Rows(group * sizes.width, (group + 1) * sizes.width)
    return _product(f"qk[{head}]", query, Chain(queries, Turned()), key, keys, sizes.width)


def _output_value(output: Matrix, value: Matrix, head: int, sizes: _Sizes) -> Matrix:
    group, width = head // (sizes.queries // sizes.keys), sizes.value_width
    columns, rows = Columns(head * width, (head + 1) * width), Rows(group * width, (group + 1) * width)
    return _product(f"ov[{head}]", output, columns, value, rows, width)


def _product(suffix: str, left: Matrix, left_part: View, right: Matrix, right_part: View, inner: int) -> Matrix:
    params = tuple(dict.fromkeys((*left.params, *right.params)))

    def view(matrix: Matrix, part: View) -> View:
        return Chain(Taken(tuple(params.index(name) for name in matrix.params), matrix.view), part)

    rows = left.shape[1] if suffix.startswith("qk") else left.shape[0]
    shape = (rows, right.shape[1])
    return Matrix(
        name=f"{left.name.partition(':')[0]}:{suffix}",
        layer=left.layer,
        params=params,
        kind="attention",
        shape=shape,
        view=Product(view(left, left_part), view(right, right_part)),
        rank=inner if inner < min(shape) else None,
        law="product",
    )


def _listed(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
