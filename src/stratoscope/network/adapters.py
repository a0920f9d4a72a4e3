"""Low-rank pairs (LoRA, arXiv:2106.09685): their product is the update that was learned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from math import prod

from stratoscope.network.layers import Layer, Matrix, Param
from stratoscope.network.views import Adapter

_FIRST = re.compile(r"(?<![A-Za-z0-9])lora(?:_linear_layer)?[._](A|down|embedding_A)(?![A-Za-z0-9])")
_SECOND = {"A": "B", "down": "up", "embedding_A": "embedding_B"}

ADAPTER = re.compile(r"(?<![A-Za-z0-9])lora(?:_linear_layer)?[._](A|B|down|up|embedding_A|embedding_B)(?![A-Za-z0-9])")
"""Part of the name of a tensor that belongs to a low-rank pair."""


def with_adapters(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """Add the matrix `B A` of every low-rank pair to the layer that owns `B`.

    The pair may be nested (`q.lora_A.default.weight`) or flat (`q.lora_A`); the scale `alpha / r` is not in it.
    """
    params = {param.name: param for layer in layers.values() for param in layer.params}
    found = dict(layers)
    for name, a in params.items():
        match = _FIRST.search(name)
        if match is None:
            continue
        b = params.get(f"{name[: match.start(1)]}{_SECOND[match[1]]}{name[match.end(1) :]}")
        matrix = None if b is None else _product(b, a)
        if matrix is not None:
            home = found[matrix.layer]
            found[matrix.layer] = replace(home, matrices=(*home.matrices, matrix))
    return found


def _product(b: Param, a: Param) -> Matrix | None:
    if b.reason or a.reason or (b.same_as and a.same_as) or min(len(b.shape), len(a.shape)) < 2:
        return None
    (rows, rank), (other, columns) = ((param.shape[0], prod(param.shape[1:])) for param in (b, a))
    if rank == other:
        view, shape, inner = Adapter(), (rows, columns), rank
    elif rows == columns:  # stored as (in, rank) and (rank, out)
        view, shape, inner = Adapter(columns_first=True), (rank, other), rows
    else:
        return None
    most = inner if inner < min(shape) else None
    return Matrix(f"{b.name}:BA", b.layer, (b.name, a.name), "adapter", shape, view, most, "product")
