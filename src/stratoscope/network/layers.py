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
        rank: the largest rank that the way it is made allows, where that is below both sizes; else `None`.
        law: what its spectrum is where nothing was learned. `"entries"`: that of independent entries, the law of
            Marchenko and Pastur; `"product"`: that of a product of two such matrices; `"parametrized"`: what a
            parametrization, such as an orthogonal one, makes of them. The last two are not Marchenko-Pastur.
        kernel: sizes of a convolution's kernel; empty for what is no convolution.
        groups: of a convolution. Rows of different groups see different inputs; the columns are those of a row's own.
        kernel_view: turns the params' tensors into `(outputs, inputs / groups, *kernel)`; `None` for what is no
            convolution. A transposed convolution is already turned, so that outputs come first.
    """

    name: str
    layer: str
    params: tuple[str, ...]
    kind: str
    shape: tuple[int, int]
    view: Callable[..., Tensor] = field(repr=False, compare=False)
    rank: int | None = None
    law: str = "entries"
    kernel: tuple[int, ...] = ()
    groups: int = 1
    kernel_view: Callable[..., Tensor] | None = field(default=None, repr=False, compare=False)

    @property
    def factors(self) -> Callable[..., tuple[Tensor, Tensor]] | None:
        """Turns the params' tensors into `(left, right)` whose product is the matrix; `None` for what is no product.

        The inner size is `rank` or, if that is `None`, not below the smaller of `shape`.
        """
        found: Callable[..., tuple[Tensor, Tensor]] | None = getattr(self.view, "factors", None)
        return found


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
    """Every layer of a network by name, in order.

    Attributes:
        layers: by name.
        notes: sentences about what was asked for and could not be had, such as heads whose number nobody says.
    """

    layers: Mapping[str, Layer]
    notes: tuple[str, ...] = ()

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
