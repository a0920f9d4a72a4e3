r"""Weight matrices: norms, singular-value extremes, ranks and zeros, from the weights alone.

Every linear, convolutional, recurrent, attention and embedding weight is seen as a matrix $W$ of $n$ outputs by $m$
inputs (a convolution's inputs are input channels x kernel), with singular values $s_1 \ge \dots \ge s_k$,
$k = \min(n, m)$, computed in float64. Of a product through $r < k$ dimensions, such as a low-rank pair or a head's
$W_q^T W_k$, the others are zero by construction and $k$ stands for $r$.

| quantity | definition | range |
|---|---|---|
| `frobenius_norm` | $\lVert W\rVert_F = (\sum_i s_i^2)^{1/2}$ | $\ge 0$ |
| `spectral_norm`, `sv_min` | $s_1$, the most by which $W$ stretches a vector; $s_k$ | $\ge 0$ |
| `sv_median` | the median of $s_1 \dots s_k$: what a usual direction is stretched by | $\ge 0$ |
| `stable_rank` | $\lVert W\rVert_F^2 / s_1^2$ | $[1, k]$; NaN for $W = 0$ |
| `effective_rank` | $\exp H(s / \sum_i s_i)$, $H$ the entropy in nats | $[1, k]$; NaN for $W = 0$ |
| `numerical_rank` | count of $s_i > \max(n, m) \varepsilon s_1$, $\varepsilon$: precision as stored | $0 \dots k$ |
| `rank_share` | `numerical_rank` $/ k$ | $[0, 1]$ |
| `zero_share` | share of entries that are exactly zero | $[0, 1]$ |
| `entry_std` | standard deviation over the entries; NaN for a single entry | $\ge 0$ |
| `not_finite` | entries that are NaN or infinite | $0 \dots nm$ |

Each stored tensor that is trained, vectors too, has its `param_norm`, `param_mean`, `param_std`, `param_zero_share`
and `param_not_finite`. All are pure numbers. A matrix with an entry that is not finite has NaN everywhere but in its
count.

**What it means.** One over the stable rank is the share of the squared weight that the strongest direction holds. A
stable rank far below $k$ means learned structure, a large mean, or a layer wider than its task. The effective rank also
counts weak directions; the numerical rank counts all that are not rounding. `sv_min` near zero says that some input (or
output) direction is lost. Over the 220 matrices of 19 small trained networks the stable rank was 27 % of $k$ at the
median, and under the default limit of 2 % in three.

**When it misleads.** A Gaussian matrix has a stable rank of only about $nm / (\sqrt n + \sqrt m)^2$, a quarter of
$k$ if it is square. One large mean component, usual in embeddings, pulls the stable rank towards 1 whatever the rest
does. Before a normalisation layer the scale of $W$ means nothing. The spectral norm of a convolution's matrix is not
the operator norm of the convolution, which depends on stride, padding and image size. In half precision, singular
values below $\varepsilon \lVert W\rVert_F / 2$ are rounding, and the numerical rank does not count them. Of a matrix
whose shorter side is beyond 8192 only the largest singular values are computed: its norms and its stable rank are there,
and `sv_min` and the other ranks are NaN. Nothing
here knows the data: a small rank is a fault only if the task needs more.

**What to do.** Not finite: go back to an earlier checkpoint, lower the learning rate, train that part in float32. Few
directions dominate: see whether it is a common mean; if the effective rank is low too, try a narrower or factorised
layer and compare the loss. Mostly zeros: store the matrix sparse, or prune whole units. Constant or all zero: check
the initialisation, and whether a gradient reaches it.

Source: stable rank, Tropp, arXiv:1501.01571, and Rudelson and Vershynin, arXiv:math/0503442; effective rank, Roy and
Vetterli, EUSIPCO 2007.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from stratoscope.capture.needs import Need
from stratoscope.capture.tensors import Tensors
from stratoscope.capture.weights import Matrices, SingularValues, Weights
from stratoscope.errors import NotApplicable
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.reading import last_of, passed_if_silent
from stratoscope.numerics.matrices import (
    effective_rank,
    entry_blocks,
    not_finite,
    numerical_rank,
    stable_rank,
    zero_share,
)
from stratoscope.numerics.moments import Moments
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.capture.views import LayerView
    from stratoscope.record.group import Group

MATRIX_NAMES = {
    "frobenius_norm": "Frobenius norm",
    "spectral_norm": "largest singular value",
    "sv_min": "smallest singular value",
    "sv_median": "median singular value",
    "stable_rank": "squared Frobenius over squared spectral norm",
    "effective_rank": "exponential of the entropy of the singular values",
    "numerical_rank": "singular values above the rounding of the stored type",
    "rank_share": "numerical rank over full rank",
    "full_rank": "the largest rank that sizes and making allow",
    "zero_share": "share of entries that are exactly zero",
    "entry_std": "standard deviation over the entries",
    "not_finite": "entries that are NaN or infinite",
}
PARAM_NAMES = {
    "param_norm": "Euclidean norm of the tensor",
    "param_mean": "mean over the entries",
    "param_std": "standard deviation over the entries",
    "param_zero_share": "share of entries that are exactly zero",
    "param_not_finite": "entries that are NaN or infinite",
}

_HEADLINES = ("stable_rank", "spectral_norm", "rank_share")
"""What a short report shows first."""


@dataclass(frozen=True)
class WeightMatrices(LayerInstrument):
    """Norms, singular-value extremes, ranks and zeros of every weight matrix, and the size of every param.

    Attributes:
        low_rank: stable rank over full rank below which few directions are said to dominate.
        mostly_zero: share of zeros from which a tip is given.
    """

    key: ClassVar[str] = "weights"
    title: ClassVar[str] = "Weight matrices"
    source: ClassVar[str] = "arXiv:1501.01571"
    codes: ClassVar[Mapping[str, str]] = {
        "WT001": "weights are NaN or infinite",
        "WT002": "few directions dominate a weight matrix",
        "WT003": "a weight matrix is mostly zeros",
        "WT004": "a weight matrix is all zero, or one and the same number",
    }

    low_rank: float = 0.02
    mostly_zero: float = 0.5

    @property
    def requires(self) -> set[Need]:
        """The layer's params."""
        return {Weights()}

    @property
    def uses(self) -> set[Need]:
        """Its matrices and their singular values, where it has any."""
        return {Matrices(), SingularValues()}

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """Measure every matrix and every param of one layer; a tied param is measured where it is first met."""
        weights: Tensors = view[Weights()]
        tied = {param.name for param in view.layer.params if param.same_as}
        params = {name: param_numbers(weights.as_stored(name)) for name in weights if name not in tied}
        if not params and not view.layer.matrices:
            raise NotApplicable("every param of the layer is measured under another name")
        measured = _columns("param", params, PARAM_NAMES)
        if view.layer.matrices:
            matrices, spectra = view[Matrices()], view[SingularValues()]
            ranks = {matrix.name: matrix.rank for matrix in view.layer.matrices}
            rows = {
                name: matrix_numbers(matrices.as_stored(name), spectra[name], matrices.stored[name], ranks[name])
                for name in matrices
            }
            measured |= _columns("matrix", rows, MATRIX_NAMES)
        return measured

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Matrices that are broken, empty, or narrower than they look; at the last step that was measured."""
        yield from passed_if_silent(self, self._judge(measured), self._checked(measured), measured)

    def _checked(self, measured: Group) -> list[str]:
        """Codes for which there was a tensor to look at: most of them speak of finite matrices only."""
        matrices = [
            at for at in last_of(measured, "not_finite", *MATRIX_NAMES, dim="matrix") if math.isfinite(at["zero_share"])
        ]
        uneven = any(at["entry_std"] != 0 for at in matrices)
        several = any(math.isfinite(at["entry_std"]) for at in matrices)
        return ["WT001", *(["WT002", "WT003"] if uneven else []), *(["WT004"] if several else [])]

    def _judge(self, measured: Group) -> Iterator[Finding]:
        broken: set[str] = set()
        for at in last_of(measured, "param_not_finite", dim="param"):
            if at["param_not_finite"] > 0:
                broken.add(str(at.layer))
                yield self._not_finite(str(at.layer), at["param_not_finite"], at.step)
        # the count comes first: it alone is a number wherever a matrix was measured
        for at in last_of(measured, "not_finite", *MATRIX_NAMES, dim="matrix"):
            name = str(at.layer)
            if at["not_finite"] > 0 and name.partition(":")[0] not in broken:
                yield self._not_finite(name, at["not_finite"], at.step)
            elif at["not_finite"] == 0:
                yield from self._judge_matrix(name, at.values, at.step)

    def _judge_matrix(self, name: str, at: Mapping[str, float], step: int) -> Iterator[Finding]:
        if at["entry_std"] == 0:
            what = "is all zero" if at["zero_share"] == 1 else "holds one and the same number everywhere"
            yield self.finding(
                "WT004", Outcome.ISSUE, f"{name} {what}", layer=name, step=step,
                do="check its initialisation and whether a gradient reaches it, unless it is meant to start so "
                "(a fresh low-rank adapter, a residual branch that starts at zero)",
                entry_std=0.0, zero_share=at["zero_share"], limit=0.0,
            )  # fmt: skip
            return
        if at["zero_share"] >= self.mostly_zero:
            yield self.finding(
                "WT003", Outcome.TIP, f"{name}: {at['zero_share']:.0%} of the entries are exactly zero",
                layer=name, step=step, do="store it sparse, or prune whole units",
                zero_share=at["zero_share"], limit=self.mostly_zero,
            )  # fmt: skip
        share = at["stable_rank"] / at["full_rank"]
        if share < self.low_rank:
            yield self.finding(
                "WT002", Outcome.TIP,
                f"{name}: a stable rank of {at['stable_rank']:.1f} out of {at['full_rank']:.0f}; the strongest "
                f"direction holds {1 / at['stable_rank']:.0%} of the squared weight",
                layer=name, step=step,
                do="see whether it is a common mean; if the effective rank is low too, try a narrower layer",
                stable_rank=at["stable_rank"], full_rank=int(at["full_rank"]), share=share, limit=self.low_rank,
                effective_rank=at["effective_rank"],
            )  # fmt: skip

    def _not_finite(self, name: str, count: float, step: int) -> Finding:
        return self.finding(
            "WT001", Outcome.ISSUE,
            f"{name}: {count:,.0f} {'entry is' if count == 1 else 'entries are'} NaN or infinite", layer=name, step=step,
            do="go back to an earlier checkpoint, lower the learning rate, or train this part in float32",
            not_finite=int(count), limit=0,
        )  # fmt: skip


def matrix_numbers(matrix: Tensor, s: Tensor, stored: torch.dtype, rank: int | None = None) -> dict[str, float]:
    """One matrix's row; NaN but for sizes and counts where an entry is not finite.

    Args:
        matrix: the matrix.
        s: its singular values, descending; NaN if an entry is not finite. Of a sketch only the largest.
        stored: type of the stored tensor.
        rank: the largest rank that its making allows, if that is below both sizes.

    >>> matrix_numbers(torch.diag(torch.tensor([2.0, 1.0])), torch.tensor([2.0, 1.0]), torch.float32)["stable_rank"]
    1.25
    """
    numbers = dict.fromkeys(MATRIX_NAMES, math.nan)
    full = min(matrix.shape) if rank is None else rank
    numbers |= {"full_rank": full, "not_finite": not_finite(matrix)}
    if numbers["not_finite"] or matrix.numel() == 0:
        return numbers
    mean, std = _mean_and_std(matrix)
    numbers |= {"spectral_norm": float(s[0]), "zero_share": zero_share(matrix)}
    if matrix.numel() > 1:
        numbers["entry_std"] = std
    if len(s) < min(matrix.shape):  # of a sketch the largest alone are known
        norm = math.sqrt(matrix.numel()) * math.hypot(mean, std)
        return numbers | {"frobenius_norm": norm, "stable_rank": (norm / float(s[0])) ** 2 if s[0] > 0 else math.nan}
    found = min(numerical_rank(s, (matrix.shape[0], matrix.shape[1]), stored), full)
    return numbers | {
        "frobenius_norm": float(torch.linalg.vector_norm(s)),
        "sv_min": float(s[full - 1]),
        "sv_median": float((s[(full - 1) // 2] + s[full // 2]) / 2),
        "stable_rank": float(stable_rank(s)),
        "effective_rank": float(effective_rank(s)),
        "numerical_rank": float(found),
        "rank_share": found / full,
    }


def param_numbers(tensor: Tensor) -> dict[str, float]:
    """One param's row; NaN but for the count where an entry is not finite, or where there are none.

    >>> round(param_numbers(torch.tensor([3.0, 4.0]))["param_norm"], 6)
    5.0
    """
    numbers = dict.fromkeys(PARAM_NAMES, math.nan) | {"param_not_finite": not_finite(tensor)}
    if numbers["param_not_finite"] or tensor.numel() == 0:
        return numbers
    mean, std = _mean_and_std(tensor)
    return numbers | {
        "param_norm": math.sqrt(tensor.numel()) * math.hypot(mean, std),
        "param_mean": mean,
        "param_std": std,
        "param_zero_share": zero_share(tensor),
    }


def _mean_and_std(tensor: Tensor) -> tuple[float, float]:
    """Over all entries, the population deviation, in float64; exactly 0 where they are all the same."""
    moments, first, same = Moments(), None, True
    for block in entry_blocks(tensor):
        first = block[0] if first is None else first
        same = same and bool((block == first).all())
        moments.update(block[:, None])
    # the mean of equal numbers is rounded, so that their deviation from it need not be zero
    if same and first is not None:
        return float(first), 0.0
    return float(moments.mean), float(moments.variance()) ** 0.5


def _columns(dim: str, rows: Mapping[str, Mapping[str, float]], long_names: Mapping[str, str]) -> dict[str, Quantity]:
    if not rows:
        return {}
    coords = {dim: tuple(rows)}
    return {
        name: quantity(
            [row[name] for row in rows.values()],
            units="1",
            long_name=meaning,
            dims=dim,
            coords=coords,
            **({"headline": _HEADLINES.index(name)} if name in _HEADLINES else {}),
        )
        for name, meaning in long_names.items()
    }
