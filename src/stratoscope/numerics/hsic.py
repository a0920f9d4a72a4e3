"""Inner products of the centred kernels of representations: what every similarity of kernels is made of.

A representation is a matrix of `n` examples by `D` units; its linear kernel is `K = X X'`. For two of them the sum
`sum_ij K_ij L_ij` of centred kernels is `|X'Y|^2`, so no `n x n` matrix is needed where the units are few, and no `D x D`
one where the examples are. `kernel_products` takes the cheaper way and holds neither whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from stratoscope.numerics.matrices import largest_entry, not_finite, power_of_two

HELD = 3 * 2**23
"""Bytes up to which centred copies of the representations are held; larger ones are centred as they are read."""

BLOCK = 2**24
"""Bytes that one block of products may take."""

WITNESSES = 1024
"""Examples of whose influence the standard error is made where the sums themselves do not need each example's."""

CONSTANT = 8
"""A representation is constant if its spread is at most so many roundings of its largest entry."""

FEW = 4
"""Fewer examples than this have no unbiased estimate: it divides by `n - 3`."""


@dataclass(frozen=True)
class KernelProducts:
    """Sums over examples of the products of two sets of centred kernels, `p` in the first set and `q` in the second.

    Attributes:
        n: examples.
        inner: `sum_ij K_ij L_ij`.
        first: the same of each kernel of the first set with itself.
        second: the same of the second set.
        diagonal: `sum_i K_ii L_ii`.
        first_diagonal: the same of each kernel of the first set with itself.
        second_diagonal: the same of the second set.
        first_trace: `sum_i K_ii`.
        second_trace: the same of the second set.
        influence: sums over examples of the six products of `g_KL`, `g_KK`, `g_LL`, in the order `KL KL`, `KL KK`,
            `KL LL`, `KK KK`, `KK LL`, `LL LL`, where `g_KL` is an example's own part of the unbiased sum of `K` and `L`;
            `None` where they were not asked for.
    """

    n: int
    inner: Float[Tensor, "p q"]
    first: Float[Tensor, " p"]
    second: Float[Tensor, " q"]
    diagonal: Float[Tensor, "p q"]
    first_diagonal: Float[Tensor, " p"]
    second_diagonal: Float[Tensor, " q"]
    first_trace: Float[Tensor, " p"]
    second_trace: Float[Tensor, " q"]
    influence: Float[Tensor, "6 p q"] | None = None


class Centred:
    """A representation around its mean and near 1 in size, read in blocks of rows.

    Neither shift nor scale changes a similarity. The mean is taken off in two parts, itself and the mean of what is left,
    which keeps the digits of a small spread around a large mean.
    """

    def __init__(self, features: Shaped[Tensor, "n D"], *, held: bool = False) -> None:
        """Find its mean and its size.

        Args:
            features: one example a row.
            held: keep a centred copy; otherwise rows are centred each time that they are read.

        Raises:
            ValueError: if it is no matrix of real numbers with a unit, has less than 4 examples, or is not finite.
        """
        if features.ndim != 2 or features.shape[1] == 0 or features.is_complex():
            raise ValueError(f"Real features of shape (n, D) are needed; there was {tuple(features.shape)}.")
        if len(features) < FEW:
            raise ValueError(
                f"At least {FEW} examples are needed, as unbiased sums divide by n - 3; n = {len(features)}."
            )
        self._values = features.detach()
        largest = largest_entry(self._values)
        if not math.isfinite(largest):
            bad = not_finite(self._values)
            raise ValueError(f"Finite features are needed; {bad:,} of {features.numel():,} are NaN or infinite.")
        self._scale = min(1 / power_of_two(largest), torch.finfo(self.dtype).max ** 0.9)
        self._shifts: list[Tensor] = []
        self._held: Tensor | None = None
        if held:
            self._held = self.block(slice(None))
        for _ in range(2):
            total = torch.zeros(self.width, dtype=self.dtype, device=self.device)
            for rows in slices(len(self), self.rows):
                total += self.block(rows).sum(0)
            self._shift(total / len(self))
        self.lengths = torch.cat([self.block(rows).square().sum(1).double() for rows in slices(len(self), self.rows)])
        rounding = CONSTANT * torch.finfo(features.dtype if features.is_floating_point() else self.dtype).eps
        self.constant = float(self.lengths.mean()) <= rounding**2 * self.width
        if self.constant:
            self._scale, self._shifts, self._held, self.lengths = 0.0, [], None, torch.zeros_like(self.lengths)

    def _shift(self, mean: Tensor) -> None:
        if self._held is None:
            self._shifts.append(mean)
        else:
            self._held -= mean

    def __len__(self) -> int:
        return len(self._values)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self._values.device

    @property
    def width(self) -> int:
        """How many units."""
        return self._values.shape[1]

    @property
    def rows(self) -> int:
        """How many rows to read at once."""
        return max(64, 2**20 // self.width)

    @property
    def dtype(self) -> torch.dtype:
        """In which products are computed: float64 for float64 and on accelerators, whose float32 may be TF32."""
        double = self._values.dtype == torch.float64 or self._values.device.type not in ("cpu", "mps")
        return torch.float64 if double else torch.float32

    def block(self, rows: slice) -> Float[Tensor, "rows D"]:
        """Some of the rows. Must not be written to."""
        if self._held is not None:
            return self._held[rows]
        found: Tensor = self._values[rows].to(self.dtype) * self._scale
        for shift in self._shifts:
            found -= shift
        return found


def centred(some: Sequence[Shaped[Tensor, "n D"]]) -> list[Centred]:
    """Representations around their means; copies of them are held if they take at most 24 MB together.

    Raises:
        ValueError: as `Centred` does.
    """
    size = sum(features.numel() * max(4, features.element_size()) for features in some)
    return [Centred(features, held=size <= HELD) for features in some]


def slices(n: int, size: int) -> Iterator[slice]:
    """Cuts `n` rows into blocks of at most `size`."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def kernel_products(
    first: Sequence[Centred], second: Sequence[Centred] | None = None, *, influence: bool = True
) -> KernelProducts:
    """All products of the kernels of one set of representations with those of another, or among themselves.

    For `p` and `q` representations of `D` units: with few units, `2 n D^2 p q` multiplications (as many again for the
    influence of at most 1,024 examples); with many, `2 n^2 (D (p + q) + p q)`. Beside the features at most about 64 MB.

    Args:
        first: representations of the same examples.
        second: others of the same examples; `None` for `first` again.
        influence: whether to sum what a standard error is made of.

    Raises:
        ValueError: if they are not of the same examples.
    """
    every = list(dict.fromkeys([*first, *(second or [])]))
    if len({len(one) for one in every}) > 1:
        raise ValueError(
            f"Representations of the same examples are needed; there were {[len(one) for one in every]} rows."
        )
    dtype = torch.float64 if any(one.dtype == torch.float64 for one in every) else torch.float32
    lengths = [
        torch.stack([one.lengths for one in some], 1) for some in ([first] if second is None else [first, second])
    ]
    way = _by_units if _units_are_cheaper(first, second, influence) else _by_examples
    inner, own, other, sums = way(_Job(first, second, lengths[0], lengths[-1], dtype, influence))
    return KernelProducts(
        len(first[0]), inner, own, other,
        lengths[0].T @ lengths[-1], lengths[0].square().sum(0), lengths[-1].square().sum(0),
        lengths[0].sum(0), lengths[-1].sum(0), sums,
    )  # fmt: skip


@dataclass(frozen=True)
class _Job:
    """What is multiplied with what; lengths are one example a row and one representation a column."""

    first: Sequence[Centred]
    second: Sequence[Centred] | None
    lengths: Tensor
    others: Tensor
    dtype: torch.dtype
    influence: bool

    @property
    def right(self) -> Sequence[Centred]:
        return self.first if self.second is None else self.second

    @property
    def n(self) -> int:
        return len(self.lengths)

    def influences(self, cross: Tensor, first: Tensor, second: Tensor, rows: slice, p: slice, q: slice) -> Tensor:
        """The six sums over some examples, from their parts of the biased sums.

        Args:
            cross: parts of the sums of each pair, examples x p x q.
            first: parts of the first set's sums with themselves, examples x p.
            second: the same of the second set.
            rows: which examples.
            p: which of the first set.
            q: which of the second.
        """
        own, other = self.lengths[rows, p], self.others[rows, q]
        traces, other_traces = self.lengths[:, p].sum(0), self.others[:, q].sum(0)
        kl = _unbiased(cross, own[:, :, None] * other[:, None], traces[:, None] * other_traces, self.n)
        kk = _unbiased(first, own.square(), traces.square(), self.n)
        ll = _unbiased(second, other.square(), other_traces.square(), self.n)
        shape = cross.shape[1:]
        return torch.stack([
            kl.square().sum(0), torch.einsum("ipq,ip->pq", kl, kk), torch.einsum("ipq,iq->pq", kl, ll),
            kk.square().sum(0)[:, None].expand(shape), kk.T @ ll, ll.square().sum(0).expand(shape),
        ])  # fmt: skip


def _unbiased(parts: Tensor, diagonal: Tensor, traces: Tensor, n: int) -> Tensor:
    """Each example's part of the unbiased sum, from its part of the biased one: exact in the sum over examples."""
    return parts - diagonal * (n / (n - 2)) + traces / (n * (n - 1) * (n - 2))


_Found = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Products of pairs, of the first set and of the second set with themselves, and the influences."""


def _units_are_cheaper(first: Sequence[Centred], second: Sequence[Centred] | None, influence: bool) -> bool:
    """Compares multiplications, with what a small matrix product costs beside them."""
    n, one = len(first[0]), float(sum(r.width for r in first))
    right = first if second is None else second
    other = float(sum(r.width for r in right))
    share = 0.5 if second is None else 1.0
    extra = sum(r.width**2 for r in right) + (0 if second is None else sum(r.width**2 for r in first))
    by_units = (n + (min(n, WITNESSES) if influence else 0)) * (share * one * other + 0.5 * extra)
    by_units += 3e6 * share * len(first) * len(right)
    by_examples = float(n) ** 2 * (one + (0.0 if second is None else other) + 2 * len(first) * len(right))
    return by_units <= by_examples


# -- few examples: block by block of the kernels ------------------------------------------------------------------------


def _by_examples(job: _Job) -> _Found:
    p, q = len(job.first), len(job.right)
    new = job.lengths.new_zeros
    inner, own, other = new(p, q), new(p), new(q)
    sums = new(6, p, q) if job.influence else None
    size = min(256, max(8, BLOCK // (16 * p * q)))
    for rows in slices(job.n, size):
        count = rows.stop - rows.start
        cross, first, second = new(count, p, q), new(count, p), new(count, q)
        across = min(1024, max(32, BLOCK // (job.dtype.itemsize * count * (p + q))))
        for columns in slices(job.n, across):
            one = _kernels(job.first, rows, columns, job.dtype)
            two = one if job.second is None else _kernels(job.second, rows, columns, job.dtype)
            cross += torch.bmm(one, two.mT)
            if job.second is not None:
                first += one.square().sum(2)
                second += two.square().sum(2)
        if job.second is None:
            first = second = cross.diagonal(dim1=1, dim2=2)
        inner, own, other = inner + cross.sum(0), own + first.sum(0), other + second.sum(0)
        if sums is not None:
            sums += job.influences(cross, first, second, rows, slice(None), slice(None))
    return inner, own, other, sums


def _kernels(
    some: Sequence[Centred], rows: slice, columns: slice, dtype: torch.dtype
) -> Float[Tensor, "rows p columns"]:
    """A block of each of the kernels."""
    shape = rows.stop - rows.start, len(some), columns.stop - columns.start
    found = torch.empty(shape, dtype=dtype, device=some[0].device)
    for place, one in enumerate(some):
        torch.mm(one.block(rows).to(dtype), one.block(columns).to(dtype).T, out=found[:, place])
    return found


# -- few units: products of units ---------------------------------------------------------------------------------------


def _by_units(job: _Job) -> _Found:
    witnesses = slice(0, job.n, -(-job.n // WITNESSES)) if job.influence else None
    own, first = _with_themselves(job.first, witnesses, job.dtype)
    other, second = (own, first) if job.second is None else _with_themselves(job.second, witnesses, job.dtype)
    inner = own.new_zeros(len(own), len(other))
    sums = own.new_zeros(6, *inner.shape) if job.influence else None
    for p, one in enumerate(job.first):
        partners = slice(p if job.second is None else 0, len(other))
        found = [_product(one, two, witnesses, job.dtype) for two in job.right[partners]]
        inner[p, partners] = torch.stack([product for product, _ in found])
        if witnesses is not None and sums is not None:
            parts = torch.stack([parts for _, parts in found], 1)[:, None]
            row = slice(p, p + 1)
            part = job.influences(parts, first[:, row], second[:, partners], witnesses, row, partners)
            sums[:, p, partners] = part[:, 0] * (job.n / len(parts))
    if job.second is None:
        below = torch.tril_indices(len(own), len(own), -1)
        inner[below[0], below[1]] = inner.T[below[0], below[1]]
        if sums is not None:  # seen from the other one: KK and LL change places
            sums[:, below[0], below[1]] = sums[[0, 2, 1, 5, 4, 3]].mT[:, below[0], below[1]]
    return inner, own, other, sums


def _with_themselves(some: Sequence[Centred], witnesses: slice | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The product of each kernel with itself, and the witnesses' parts of it."""
    found = [_product(one, one, witnesses, dtype) for one in some]
    return torch.stack([inner for inner, _ in found]), torch.stack([parts for _, parts in found], 1)


def _product(one: Centred, two: Centred, witnesses: slice | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`|X'Y|^2`, and each witness' part `x_i' X'Y y_i` of it; of a representation with itself half of the work."""
    same = one is two
    kept = range(*(witnesses or slice(0)).indices(len(one)))
    inner = torch.zeros((), dtype=torch.float64, device=one.device)
    parts = inner.new_zeros(len(kept))
    size = min(two.width, 128 if same else max(64, BLOCK // (8 * one.width)))
    at_once = min(one.rows, two.rows)
    for columns in slices(two.width, size):
        left = slice(columns.start if same else 0, one.width)
        product = torch.zeros(left.stop - left.start, columns.stop - columns.start, dtype=dtype, device=one.device)
        for rows in slices(len(one), at_once):
            product.addmm_(one.block(rows)[:, left].to(dtype).T, two.block(rows)[:, columns].to(dtype))
        squares = product.double().square().sum(1)
        # off the diagonal block each entry stands for the one across it, too
        twice = slice(size, None) if same else slice(0)
        squares[twice] *= 2
        product[twice] *= 2
        inner += squares.sum()
        for some in slices(len(kept), at_once):
            rows = slice(kept[some][0], kept[some][-1] + 1, kept.step)
            mapped = one.block(rows)[:, left].to(dtype) @ product
            parts[some] += mapped.mul_(two.block(rows)[:, columns].to(dtype)).sum(1)
    return inner, parts
