"""How a stored tensor is seen as a matrix of outputs by inputs. Values that are called, so that they compare and pickle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

View = Callable[..., Tensor]


@dataclass(frozen=True)
class Flat:
    """`(first, rest)`: an embedding, a linear weight or a convolution's kernel.

    >>> Flat()(torch.zeros(8, 3, 5, 5)).shape
    torch.Size([8, 75])
    """

    def __call__(self, weight: Tensor) -> Tensor:
        """Shape `(first, product of the others)`."""
        return weight.reshape(weight.shape[0], -1)


@dataclass(frozen=True)
class Bare:
    """`(first, rest)` of a parameter that no layer type explains; leading axes of length one say nothing and go.

    >>> Bare()(torch.zeros(1, 197, 768)).shape
    torch.Size([197, 768])
    """

    def __call__(self, weight: Tensor) -> Tensor:
        """Two dimensions."""
        return weight.reshape(bare_shape(tuple(weight.shape)))


def bare_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """The two sizes that `Bare` gives a tensor of at least two dimensions.

    >>> bare_shape((1, 1, 768)), bare_shape((4, 6, 2))
    ((1, 768), (4, 12))
    """
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    return shape[0], prod(shape[1:])


@dataclass(frozen=True)
class OutLast:
    """Weights stored with the outputs in the last axis: `Conv1D` of Transformers, TensorFlow and Flax kernels.

    >>> OutLast()(torch.zeros(3, 3, 16, 32)).shape
    torch.Size([32, 144])
    """

    def __call__(self, weight: Tensor) -> Tensor:
        """Shape `(last, product of the others)`."""
        return weight.movedim(-1, 0).reshape(weight.shape[-1], -1)


@dataclass(frozen=True)
class OutputAxes:
    """`(outputs, rest)` where it is known which axes count outputs, such as `(2, 3)` of a depthwise `(h, w, in, mult)`.

    The rest keep their order, but for the axes `kernel`, which come last.

    >>> OutputAxes((2, 3), kernel=(0, 1))(torch.zeros(3, 3, 16, 2)).shape
    torch.Size([32, 9])
    """

    axes: tuple[int, ...]
    kernel: tuple[int, ...] = ()

    def __call__(self, weight: Tensor) -> Tensor:
        """Shape `(product of the output axes, product of the others)`."""
        inputs = [axis for axis in range(weight.ndim) if axis not in self.axes + self.kernel]
        rows = prod(weight.shape[axis] for axis in self.axes)
        return weight.permute(*self.axes, *inputs, *self.kernel).reshape(rows, -1)


@dataclass(frozen=True)
class TransposedConv:
    """A transposed convolution's weight `(in, out / groups, *kernel)` as `(out, in / groups * kernel)`.

    >>> TransposedConv(groups=2)(torch.zeros(4, 3, 5)).shape
    torch.Size([6, 10])
    """

    groups: int = 1

    def __call__(self, weight: Tensor) -> Tensor:
        """Shape `(out, in / groups * kernel)`."""
        grouped = weight.reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], -1)
        return grouped.transpose(1, 2).reshape(self.groups * weight.shape[1], -1)


@dataclass(frozen=True)
class Rows:
    """Rows `start` to `stop` of a matrix: one gate, or one of query, key and value.

    >>> Rows(2, 4)(torch.arange(6.0).reshape(6, 1)).flatten().tolist()
    [2.0, 3.0]
    """

    start: int
    stop: int

    def __call__(self, matrix: Tensor) -> Tensor:
        """Shape `(stop - start, columns)`."""
        return matrix[self.start : self.stop]


@dataclass(frozen=True)
class HeadRows:
    """One of query, key and value where each head's three blocks of rows lie together.

    >>> HeadRows(1, heads=2)(torch.arange(12.0).reshape(12, 1)).flatten().tolist()
    [2.0, 3.0, 8.0, 9.0]
    """

    part: int
    heads: int
    parts: int = 3

    def __call__(self, matrix: Tensor) -> Tensor:
        """Shape `(rows / parts, columns)`, heads in order."""
        by_head = matrix.reshape(self.heads, self.parts, -1, matrix.shape[-1])
        return by_head[:, self.part].reshape(-1, matrix.shape[-1])


@dataclass(frozen=True)
class Chosen:
    """One matrix of a stack of them, turned if it is stored as `(in, out)`.

    >>> Chosen(1, turned=True)(torch.arange(12.0).reshape(2, 2, 3)).tolist()
    [[6.0, 9.0], [7.0, 10.0], [8.0, 11.0]]
    """

    index: int
    turned: bool = False

    def __call__(self, stack: Tensor) -> Tensor:
        """Shape `(out, in)`."""
        return stack[self.index].T if self.turned else stack[self.index]


@dataclass(frozen=True)
class Chain:
    """One view after another; the first may take several tensors."""

    first: View
    then: View

    def __call__(self, *tensors: Tensor) -> Tensor:
        """What `then` makes of what `first` makes."""
        return self.then(self.first(*tensors))


@dataclass(frozen=True)
class Columns:
    """Columns `start` to `stop` of a matrix: what an output projection does with one head.

    >>> Columns(1, 2)(torch.arange(4.0).reshape(2, 2)).flatten().tolist()
    [1.0, 3.0]
    """

    start: int
    stop: int

    def __call__(self, matrix: Tensor) -> Tensor:
        """Shape `(rows, stop - start)`."""
        return matrix[:, self.start : self.stop]


@dataclass(frozen=True)
class Turned:
    """The transpose of a matrix."""

    def __call__(self, matrix: Tensor) -> Tensor:
        """Shape `(columns, rows)`."""
        return matrix.T


@dataclass(frozen=True)
class Taken:
    """A view of some of the tensors that are handed over: those at the places `at`.

    >>> Taken((1,), Flat())(torch.zeros(2, 2), torch.ones(3, 1)).shape
    torch.Size([3, 1])
    """

    at: tuple[int, ...]
    view: View

    def __call__(self, *tensors: Tensor) -> Tensor:
        """What the view makes of them."""
        return self.view(*(tensors[place] for place in self.at))


@dataclass(frozen=True)
class Kernel:
    """A convolution's matrix with its inputs and its kernel apart again.

    `inputs_last` says that the columns count kernel places first and inputs within them, as TensorFlow stores them.

    >>> Kernel((5, 5))(torch.zeros(8, 75)).shape
    torch.Size([8, 3, 5, 5])
    """

    sizes: tuple[int, ...]
    inputs_last: bool = False

    def __call__(self, matrix: Tensor) -> Tensor:
        """Shape `(out, in / groups, *kernel)`."""
        inputs = matrix.shape[1] // prod(self.sizes)
        if self.inputs_last:
            return matrix.reshape(matrix.shape[0], *self.sizes, inputs).movedim(-1, 1)
        return matrix.reshape(matrix.shape[0], inputs, *self.sizes)


@dataclass(frozen=True)
class Product:
    """The product of two views of the same tensors; at least float32.

    >>> both = Product(Taken((0,), Turned()), Taken((1,), Flat()))
    >>> both(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])).tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """

    left: View
    right: View

    def factors(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Two matrices whose product this is: shapes `(rows, inner)` and `(inner, columns)`."""
        return _at_least_float32(self.left(*tensors)), _at_least_float32(self.right(*tensors))

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Shape `(rows, columns)`."""
        left, right = self.factors(*tensors)
        return left @ right


@dataclass(frozen=True)
class Adapter:
    """The update `B A` that a low-rank pair adds to a weight, without its scale; at least float32.

    `columns_first` says that the pair is stored as `(in, rank)` and `(rank, out)`.

    >>> Adapter()(torch.ones(4, 2), torch.ones(2, 3))[0, 0].item()
    2.0
    """

    columns_first: bool = False

    def factors(self, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Two matrices whose product this is: shapes `(out, rank)` and `(rank, in)`, or `(rank, in * kernel)`."""
        left, right = _at_least_float32(b).flatten(1), _at_least_float32(a).flatten(1)
        return (left.T, right.T) if self.columns_first else (left, right)

    def __call__(self, b: Tensor, a: Tensor) -> Tensor:
        """Shape `(out, in)`; of convolutions `(out, in * kernel)`."""
        left, right = self.factors(b, a)
        return left @ right


@dataclass(frozen=True)
class WeightNorm:
    """The weight `g v / |v|` (arXiv:1602.07868), the norm over the axes in which `g` has length one; at least float32.

    >>> WeightNorm()(torch.tensor([[10.0]]), torch.tensor([[3.0, 4.0]])).tolist()
    [[6.0, 8.0]]
    """

    def __call__(self, g: Tensor, v: Tensor) -> Tensor:
        """The shape of `v`."""
        g, v = _at_least_float32(g), _at_least_float32(v)
        axes = tuple(axis for axis in range(v.ndim) if g.ndim == 0 or g.shape[axis] == 1)
        normed: Tensor = v * (g / torch.linalg.vector_norm(v, dim=axes, keepdim=True))
        return normed


@dataclass(frozen=True)
class SpectralNorm:
    """The weight over its stored spectral norm `u W v` (arXiv:1802.05957); `dim` counts outputs; at least float32.

    >>> SpectralNorm()(2 * torch.eye(2), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    dim: int = 0

    def __call__(self, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The shape of `weight`."""
        weight, u, v = (_at_least_float32(tensor) for tensor in (weight, u, v))
        matrix = weight.movedim(self.dim, 0).flatten(1)
        return weight / torch.dot(u.flatten(), matrix @ v.flatten())


@dataclass(frozen=True)
class Masked:
    """A pruned weight: the stored one times its mask of zeros and ones."""

    def __call__(self, weight: Tensor, mask: Tensor) -> Tensor:
        """The shape of `weight`."""
        return weight * mask.to(weight.dtype)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor
