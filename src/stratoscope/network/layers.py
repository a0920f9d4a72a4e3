"""The nouns of a network: layers (module paths), params (exact tensor keys), matrices (views of params)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from stratoscope.errors import SubjectError

ROOT = "(root)"
"""Name of the layer that stands for the whole module."""


@dataclass(frozen=True)
class Param:
    """One stored tensor.

    Attributes:
        name: its exact key in the state dict or file.
        layer: name of the layer that owns it.
        shape: its sizes.
        role: `"weight"`, `"bias"`, `"gain"` (a norm's scale), `"statistic"` (a running mean or
            count: never trained), `"embedding"`, `"adapter"`, or `"other"`.
        trainable: whether it learns; `None` where nobody says.
        same_as: name of the param that holds the same tensor, if it is tied.
        reason: why it cannot be read; empty if it can.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    role: str = "weight"
    trainable: bool | None = None
    same_as: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Matrix:
    """One weight matrix: a param, or a part or a product of params, seen in two dimensions.

    Attributes:
        name: unique; the param's name, with `:part` added where a param holds several.
        layer: name of the layer that owns it.
        params: exact keys of the params that it is made from; the first is its home.
        kind: `"linear"`, `"conv"`, `"embedding"`, `"recurrent"`, `"attention"`, `"adapter"`, `"other"`.
        shape: rows (outputs) and columns (inputs x kernel).
        view: turns the params' tensors, in the order of `params`, into the matrix.
    """

    name: str
    layer: str
    params: tuple[str, ...]
    kind: str
    shape: tuple[int, int]
    view: Callable[..., Tensor] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Layer:
    """One module that computes or owns parameters.

    Attributes:
        name: module path; the root module is `"(root)"`; a function's place within a module is `path:relu`.
        kind: `"linear"`, `"conv"`, `"recurrent"`, `"attention"`, `"embedding"`, `"norm"`, `"activation"`,
            `"pool"`, `"dropout"`, `"block"`, `"other"`.
        depth: position in module or file order, from 0.
        params: its own params, not those of its children.
        matrices: its weight matrices.
        channel_dim: where units lie in its output: `1` for convolutional feature maps, `-1` otherwise.
        activation: the nonlinearity's name (`"relu"`, `"gelu"`, ...) for activation layers, else `None`.
        module: the live module, if there is one.
    """

    name: str
    kind: str
    depth: int
    params: tuple[Param, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    channel_dim: int = -1
    activation: str | None = None
    module: nn.Module | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Catalogue:
    """Every layer of a network by name, in order."""

    layers: Mapping[str, Layer]

    @property
    def params(self) -> dict[str, Param]:
        """Every param by its exact key."""
        return {param.name: param for layer in self.layers.values() for param in layer.params}

    @property
    def matrices(self) -> dict[str, Matrix]:
        """Every matrix by its unique name."""
        return {matrix.name: matrix for layer in self.layers.values() for matrix in layer.matrices}

    @property
    def no_matrix(self) -> dict[str, str]:
        """Every param that no matrix is made from, and why: one sentence part each."""
        used = {name for matrix in self.matrices.values() for name in matrix.params}
        return {name: _why_no_matrix(param) for name, param in self.params.items() if name not in used}

    def __getitem__(self, name: str) -> Layer:
        if name not in self.layers:
            near = ", ".join(list(self.layers)[:8])
            raise SubjectError(f"There is no layer {name!r}; this network has {near}, ...")
        return self.layers[name]

    def __len__(self) -> int:
        return len(self.layers)


def _why_no_matrix(param: Param) -> str:
    if param.reason:
        return param.reason
    if param.same_as is not None:
        return f"the same tensor as {param.same_as}, which is measured once"
    if param.role == "statistic":
        return "a running statistic, which is not learned"
    if param.role == "gain":
        return "a norm's scale, which multiplies each unit alone"
    if param.role == "bias":
        return "a bias, which is added to each unit alone"
    if len(param.shape) < 2:
        return "a vector or a number, not a matrix"
    return "a buffer or table, which is not learned"
