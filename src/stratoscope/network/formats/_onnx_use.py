"""How the nodes of an ONNX graph use its tensors: which axes count outputs, and what a nameless tensor may be called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

from stratoscope.network.formats._onnx_graph import Graph, Node
from stratoscope.network.weights import NOT_TOLD, Use

_MADE_UP = re.compile(r"^(onnx::|val_\d|_v_\d|\d+$|const)")
"""Names that exporters make up for tensors that they folded or transposed."""

_GATES = {"LSTM": ("input", "output", "forget", "cell"), "GRU": ("update", "reset", "new"), "RNN": ("",)}
_DIRECTIONS = {1: ("",), 2: ("forward_", "backward_")}
_NORMS = frozenset({"BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization"})
_SAME = frozenset({"Identity", "Cast"})
_LEAVES = {
    **{op: {1: "weight", 2: "bias"} for op in ("Conv", "ConvTranspose", "Gemm", "MatMul")},
    **{op: {1: "W", 2: "R", 3: "B"} for op in _GATES},
}


@dataclass(frozen=True)
class _Alias:
    """A tensor of the graph under the name of a value, perhaps transposed."""

    name: str
    turned: bool = False


@dataclass(frozen=True)
class Usage:
    """What the graph tells of one tensor: its use, and a name where its own is made up."""

    use: Use = NOT_TOLD
    name: str = ""


def usages(graph: Graph) -> dict[str, Usage]:
    """How each tensor is used, by its name in the file, in the order of first use; unused ones are absent."""
    aliases = {name: _Alias(name) for name in graph.tensors}
    found: dict[str, Usage] = {}
    biases = dict(_biases(graph))
    for node in graph.nodes:
        _follow(node, aliases, graph)
        for place, value in enumerate(node.inputs):
            alias = aliases.get(value)
            if alias is None or node.op in _SAME or node.op == "Transpose":
                continue
            sizes = graph.tensors[alias.name].sizes
            use = _use(node, place, sizes[::-1] if alias.turned else sizes)
            if alias.turned and use.outputs:
                use = replace(use, outputs=tuple(len(sizes) - 1 - axis for axis in use.outputs))
            name = _name(node, place, biases) if _MADE_UP.match(alias.name) else ""
            before = found.get(alias.name)
            found[alias.name] = Usage(use, name) if before is None else _both(before, Usage(use, name))
    return {name: replace(usage, use=_cut(usage.name or name, usage.use, graph, name)) for name, usage in found.items()}


def is_made_up(name: str) -> bool:
    """Whether an exporter made up a name.

    >>> is_made_up("onnx::MatMul_123"), is_made_up("fc1.weight")
    (True, False)
    """
    return _MADE_UP.match(name) is not None


def _follow(node: Node, aliases: dict[str, _Alias], graph: Graph) -> None:
    """Values that are a tensor unchanged or transposed."""
    alias = aliases.get(node.inputs[0]) if node.inputs else None
    if alias is None or not node.outputs:
        return
    if node.op in _SAME:
        aliases[node.outputs[0]] = alias
    sizes = graph.tensors[alias.name].sizes
    if node.op == "Transpose" and len(sizes) == 2:
        turned = node.numbers.get("perm", (1, 0)) == (1, 0)
        aliases[node.outputs[0]] = replace(alias, turned=alias.turned != turned)


def _both(first: Usage, second: Usage) -> Usage:
    """Two uses of one tensor: what they agree on."""
    use = first.use if first.use.outputs else second.use
    if first.use.outputs and second.use.outputs and first.use.outputs != second.use.outputs:
        use = NOT_TOLD
    return Usage(use, first.name or second.name)


def _use(node: Node, place: int, sizes: tuple[int, ...]) -> Use:
    if node.op in ("MatMul", "Gemm"):
        return _dense(node, place, sizes)
    if node.op in ("Conv", "ConvTranspose"):
        if place != 1 or len(sizes) < 3:
            return Use(role="bias") if place == 2 else NOT_TOLD
        outputs = (0,) if node.op == "Conv" else (1,)
        return Use("conv", "weight", outputs, tuple(range(2, len(sizes))), max(node.number("group", 1), 1))
    if node.op in _GATES:
        return _recurrent(node, place, sizes)
    if node.op == "Gather" and place == 0 and len(sizes) == 2 and node.number("axis", 0) == 0:
        return Use("embedding", "embedding", (0,))
    if node.op in _NORMS:
        return Use("norm", {1: "gain", 2: "bias"}.get(place, "statistic")) if place else NOT_TOLD
    return NOT_TOLD


def _dense(node: Node, place: int, sizes: tuple[int, ...]) -> Use:
    if place == 2:
        return Use(role="bias")
    if len(sizes) != 2:
        return NOT_TOLD
    turned = node.op == "Gemm" and node.number("transB" if place else "transA", 0) == 1
    first = turned if place == 1 else not turned
    return Use("linear", "weight", (0,) if first else (1,))


def _recurrent(node: Node, place: int, sizes: tuple[int, ...]) -> Use:
    if place > 3:
        return Use(role="other")  # states to begin with, and peepholes
    if place == 3:
        return Use("recurrent", "bias")
    if place == 0 or len(sizes) != 3:
        return NOT_TOLD
    parts = tuple(f"{way}{gate}".rstrip("_") for way in _DIRECTIONS.get(sizes[0], ()) for gate in _GATES[node.op])
    return Use("recurrent", "weight", (0, 1), parts=() if parts == ("",) else parts)


def _cut(name: str, use: Use, graph: Graph, stored: str) -> Use:
    """Query, key and value of torch's attention lie in one weight."""
    sizes = graph.tensors[stored].sizes
    if name.endswith("in_proj_weight") and use.kind == "linear":
        rows = prod(sizes[axis] for axis in use.outputs)
        if rows * rows == 3 * prod(sizes):
            return replace(use, kind="attention", parts=("q", "k", "v"))
    return use


def _biases(graph: Graph) -> Iterator[tuple[str, str]]:
    """For each value that a named bias is added to, the name of that bias."""
    for node in graph.nodes:
        if node.op == "Add" and len(node.inputs) == 2:
            for value, bias in (node.inputs, node.inputs[::-1]):
                if bias in graph.tensors and bias.endswith("bias") and not is_made_up(bias):
                    yield value, bias


def _name(node: Node, place: int, biases: Mapping[str, str]) -> str:
    """A name for a tensor whose own is made up: that of its bias, or of the module that the node comes from."""
    leaf = _LEAVES.get(node.op, {}).get(place)
    if leaf is None:
        return ""
    bias = next((biases[value] for value in node.outputs if value in biases), "")
    if bias and leaf == "weight":
        return bias.removesuffix("bias") + "weight"
    scope = _scope(node)
    return f"{scope}.{leaf}" if scope else ""


def _scope(node: Node) -> str:
    """The path of the module that a node comes from, as torch's exporters write it.

    >>> _scope(Node(name="/encoder/layers/layers.0/fc/MatMul")), _scope(Node(scopes="['', 'fc', 'linear']"))
    ('encoder.layers.0.fc', 'fc')
    """
    scopes = re.findall(r"'([^']*)'", node.scopes)
    if len(scopes) > 1:
        return str(scopes[-2])
    path: list[str] = []
    for part in node.name.strip("/").split("/")[:-1] if node.name.startswith("/") else ():
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path)
