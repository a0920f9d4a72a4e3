r"""The information-bottleneck bound: what a layer could know of the labels at most, for what it keeps of the input.

Where $p(y|x)$ is known, the bound $F(R) = \max\{I(T;Y) : I(X;T) \le R\}$ is a curve that no layer crosses
(see `stratoscope.numerics.bottleneck`). This draws it, places each layer in its plane, and says how far below it lies.
$p(y|x)$ is never known from labels alone: it comes from a rule that made the data, from several people who labelled each
example, or from a simulator. Everything is in bits.

| quantity | definition | range |
|---|---|---|
| `information_x` | $H(\text{bin } T)$: entropy of cells, `bins` of one width over `bin_range`; all that bins keep of X | 0 to its ceiling |
| `information_y` | $I(\text{bin } T; Y)$ from $p(y \mid x)$ of the examples in each cell | 0 to $I(X;Y)$ |
| `information_x_ceiling` | entropy of the examples: every one in a cell of its own | |
| `information_y_null`, `_null_sd` | `information_y` if $p(y \mid x)$ were dealt to other examples: chance | |
| `missing` | $F(\text{information\_x}) - \text{information\_y}$ | $\ge 0$ |
| `surplus` | `information_x` less the smallest rate at which that `information_y` is possible | $\ge 0$ |
| `curve_x`, `curve_y`, `curve_beta` | the bound: codes that reach it, and one over its slope there | concave, rising |
| `deterministic_x`, `deterministic_y` | corners of what codes without noise reach, as layers are; for up to 100 distinct $p(y \mid x)$ | on or below |
| `bound_accuracy` | by how much the curve may be off | bits |
| `label_information`, `label_entropy` | $I(X;Y)$, $H(Y)$ | bits |
| `sufficient_x` | entropy of the distinct $p(y \mid x)$: what a code that keeps all of $I(X;Y)$ needs | bits |
| `degenerate` | 1 where the bound is a straight line because labels are a function of the input; 2 where they do not depend on it | 0, 1, 2 |
| `uninformative` | 1 where `information_x` is within `within` bits of its ceiling: any layer would read the same | 0, 1 |

**What it means.** The layers of a network that keep what matters and drop the rest lie on the bound, the later the further
down its slope. Bound and layers are of the same examples, each with its probability, so a layer never lies above it:
bins are a code of these examples, and theirs is the distribution.

**When it misleads.** `information_x` is set by the bins: with narrower ones every layer moves right and `surplus` grows
(see the instrument `information` for a sweep, and for noise). A layer at its ceiling knows everything, misses nothing, and
says nothing; so do few examples in many units. With labels that are a function of the input the bound is
$\min(R, H(Y))$: all its points are reached by diluting the label, and lying near it is no achievement (Kolchinsky,
Tracey and Van Kuyk, arXiv:1808.07593). The same holds nearly where $I(X;Y)$ is close to $H(Y)$.

**What to do.** A degenerate bound: look at the distance of layers from each other, not from the bound; or take labels that
are given with their probability. A layer at its ceiling: probe more examples, or take fewer bins.

**The joint distribution.** `joint` is the path of an `.npz` file with `p_y_given_x`, one row for each example of the split
in the order of its data and one column for each class, and maybe `p_x`; or the rows themselves as a tuple of tuples.
Without it nothing is measured. Examples that were not drawn are left out, and `p_x` is scaled to those that were.

Source: Tishby, Pereira and Bialek, arXiv:physics/0004057; deterministic codes, arXiv:1604.00268.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stratoscope.capture.activations import Activations
from stratoscope.capture.data_rows import DataRows
from stratoscope.capture.needs import Need
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.reading import At, last_of, passed_if_silent, together
from stratoscope.numerics.bottleneck import BottleneckCurve, bottleneck_curve
from stratoscope.numerics.bottleneck_codes import SAME, Code
from stratoscope.numerics.bottleneck_deterministic import deterministic_curve, hard_information
from stratoscope.numerics.entropy import Cells, EqualWidth, cells_of
from stratoscope.numerics.matrices import not_finite
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.capture.activations import Sample
    from stratoscope.capture.views import LayerView
    from stratoscope.record.group import Group

Array = NDArray[np.float64]

DEGENERATE = ("proper", "labels_are_a_function_of_the_input", "labels_do_not_depend_on_the_input")
"""What `degenerate` means."""
DISTINCT = 100
"""Distinct p(y|x) up to which deterministic codes are drawn."""

_JUDGED = (
    "information_x",
    "information_x_ceiling",
    "uninformative",
    "degenerate",
    "label_information",
    "label_entropy",
    "n",
)


@dataclass(frozen=True)
class Bottleneck(LayerInstrument):
    """How far each layer lies below the information-bottleneck bound, where p(y|x) is known.

    Attributes:
        joint: path of an `.npz` file with `p_y_given_x` and maybe `p_x`, or the rows of p(y|x); see above.
        split: the split that `joint` is about; any if it is left out.
        n: examples kept at most.
        pooling: `"gap"`, the mean over positions, or `"flatten"`.
        width: units kept at most; wider activations are projected.
        bins: how many bins of one width.
        bin_range: `"step"`, from the least to the largest number of the layer at that step, or a pair `(low, high)`.
        accuracy: of the bound, in bits.
        permutations: how often p(y|x) is dealt to other examples for the null.
        seed: of that.
        within: bits from the ceiling within which bins say nothing.
    """

    key: ClassVar[str] = "bottleneck"
    title: ClassVar[str] = "Information-bottleneck bound"
    source: ClassVar[str] = "arXiv:physics/0004057"
    codes: ClassVar[Mapping[str, str]] = {
        "IB001": "the bound is degenerate, so that distances from it say nothing of its kind",
        "IB002": "a layer stands at the ceiling of its estimator, so that its distance from the bound says nothing",
    }
    dims: ClassVar[Mapping[str, str]] = {
        "point": "a point of the bound, by ascending I(X;T)",
        "corner": "a deterministic code on the hull of those, by ascending I(X;T)",
    }

    joint: str | tuple[tuple[float, ...], ...] = ""
    split: str = ""
    n: int = 1000
    pooling: str = "gap"
    width: int = 4096
    bins: int = 30
    bin_range: str | tuple[float, float] = "step"
    accuracy: float = 0.01
    permutations: int = 20
    seed: int = 0
    within: float = 0.05

    def __post_init__(self) -> None:
        pair = isinstance(self.bin_range, tuple) and len(self.bin_range) == 2 and self.bin_range[0] < self.bin_range[1]
        if not pair and self.bin_range != "step":
            raise SettingError(f"Bottleneck(bin_range={self.bin_range!r}): choose 'step' or a pair (low, high).")
        if self.bins < 2 or not self.accuracy > 0 or self.permutations < 0 or self.pooling == "spatial":
            raise SettingError(
                f"Bottleneck(bins={self.bins}, accuracy={self.accuracy}, permutations={self.permutations}, "
                f"pooling={self.pooling!r}): give 2 bins or more, an accuracy above 0, 0 or more permutations, and 'gap' or "
                "'flatten'."
            )

    @property
    def requires(self) -> set[Need]:
        """A sample of the layer's activations, and which rows of the data it is."""
        return {self._need, DataRows()}

    @property
    def _need(self) -> Activations:
        return Activations(n=self.n, width=self.width, pooling=self.pooling)

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """One layer's place in the plane, and the bound of the examples that were looked at."""
        if not self.joint:
            raise NotApplicable("p(y|x) is not known; give the instrument `joint`, the path of a file that holds it")
        if self.split and view.split != self.split:
            raise NotApplicable(f"p(y|x) is given for the split {self.split!r} alone")
        sample: Sample = view[self._need]
        if bad := not_finite(sample.features):
            raise NotApplicable(f"{bad:,} of {sample.features.numel():,} numbers that it gives are NaN or infinite")
        p_x, rows = self._joint_of(view[DataRows()][sample.ids].numpy())
        return sample.worked_out.once((self, "layer"), lambda: self._quantities(sample, p_x, rows))

    def _joint_of(self, places: NDArray[np.int64]) -> tuple[Array, Array]:
        """p(x) and p(y|x) of some rows of the data."""
        p_x, rows = _loaded(self.joint)
        if len(places) == 0 or places.max() >= len(rows):
            raise NotApplicable(
                f"p(y|x) has {len(rows):,} rows, and row {places.max(initial=-1):,} of the data was looked at; it needs one "
                "for each example of the split"
            )
        chosen = p_x[places]
        if not chosen.sum() > 0:
            raise NotApplicable("p(x) is zero for all examples that were looked at")
        return chosen / chosen.sum(), rows[places]

    def _quantities(self, sample: Sample, p_x: Array, rows: Array) -> dict[str, Quantity]:
        curve, codes = _bound(p_x.tobytes(), rows.tobytes(), rows.shape[1], self.accuracy)
        features = sample.features.numpy()
        low, high = (features.min(), features.max()) if isinstance(self.bin_range, str) else self.bin_range
        cells = cells_of(features, EqualWidth(float(low), float(high), self.bins))
        rate, relevance = hard_information(cells.index, p_x, rows)
        ceiling = hard_information(np.arange(len(rows)), p_x, rows)[0]
        mean, deviation = self._null(cells, p_x, rows)
        bits: dict[str, tuple[float, str, dict[str, Any]]] = {
            "information_x": (rate, "H(bin T) (clustering)", {"headline": 3}),
            "information_x_ceiling": (ceiling, "entropy of the examples", {"chart": "none"}),
            "information_y": (relevance, "I(bin T; Y)", {}),
            "information_y_null": (mean, "mean I(bin T; Y) where p(y|x) is dealt anew", {"chart": "none"}),
            "information_y_null_sd": (deviation, "standard deviation of that", {"chart": "none"}),
            "missing": (float(curve.missing(rate, relevance)), "I(T;Y) that the bound has more at that I(X;T)", {"headline": 1}),
            "surplus": (float(curve.surplus(rate, relevance)), "I(X;T) beyond what that I(T;Y) needs", {"headline": 2}),
        }  # fmt: skip
        note = f"{self.bins} bins of one width; {sample.note}"
        found = {
            name: quantity(value, units="bit", long_name=what, note=note, **more)
            for name, (value, what, more) in bits.items()
        }
        silent = int(rate >= ceiling - self.within)
        found["uninformative"] = quantity(
            silent, units="1", long_name="any layer would read the same", chart="none", flag_values=[0, 1],
            flag_meanings="informative uninformative",
        )  # fmt: skip
        found["n"] = quantity(len(rows), units="1", long_name="examples", chart="none")
        return found | _bound_quantities(curve, codes)

    def _null(self, cells: Cells, p_x: Array, rows: Array) -> tuple[float, float]:
        draw = np.random.default_rng(self.seed)
        bits = [hard_information(cells.index, p_x, draw.permutation(rows))[1] for _ in range(self.permutations)]
        deviation = float(np.std(bits, ddof=1)) if len(bits) > 1 else float("nan")
        return (float(np.mean(bits)) if bits else float("nan")), deviation

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Where the bound is degenerate, and which layers stand at the ceiling; at the last step that was measured."""
        checked = self.codes if any(True for _ in last_of(measured, *_JUDGED)) else ()
        yield from passed_if_silent(self, self._judge(measured), checked, measured)

    def _judge(self, measured: Group) -> Iterator[Finding]:
        for _, places in groupby(last_of(measured, *_JUDGED), key=lambda at: at.split):
            layers = list(places)
            yield from self._degenerate(layers[0])
            silent = [at for at in layers if at["uninformative"] == 1]
            yield from together(
                self, "IB002", silent, lambda at: at["information_x"], len(layers),
                "has a cell for about every example", lambda at: f"{at['information_x']:.2f} of "
                f"{at['information_x_ceiling']:.2f} bits (n = {at['n']:.0f})",
                do="probe more examples, or take fewer bins",
                evidence=lambda at: {
                    "information_x": at["information_x"], "ceiling": at["information_x_ceiling"], "limit": self.within,
                    "n": int(at["n"]),
                },
            )  # fmt: skip

    def _degenerate(self, at: At) -> Iterator[Finding]:
        kind = int(at["degenerate"])
        if kind == 0:
            return
        why = {
            1: "Labels are a function of the input, so the bound is the line I(T;Y) = I(X;T) up to H(Y), reached everywhere "
            "by diluting the label",
            2: "Labels do not depend on the input, so no layer can know anything of them",
        }[kind]
        yield self.finding(
            "IB001", Outcome.NOT_APPLICABLE, why, step=at.step, split=at.split, label_information=at["label_information"],
            label_entropy=at["label_entropy"], degenerate=DEGENERATE[kind], limit=0,
        )  # fmt: skip


def _bound_quantities(curve: BottleneckCurve, codes: list[Code]) -> dict[str, Quantity]:
    """The bound itself: the same at every layer."""
    joint = curve.joint
    along: dict[str, Any] = {"dims": "point", "coords": {"point": range(len(curve.beta))}, "chart": "none"}
    kind = 0 if not curve.degenerate else 2 if joint.information <= SAME else 1
    numbers = {
        "bound_accuracy": (curve.accuracy, "by how much the bound may be too high"),
        "label_information": (joint.information, "I(X;Y)"),
        "label_entropy": (joint.entropy_y, "H(Y)"),
        "sufficient_x": (joint.entropy_x, "entropy of the distinct p(y|x)"),
    }
    found = {
        name: quantity(value, units="bit", long_name=what, chart="none") for name, (value, what) in numbers.items()
    }
    found["curve_x"] = quantity(curve.rate, units="bit", long_name="I(X;T) of the bound", **along)
    found["curve_y"] = quantity(curve.relevance, units="bit", long_name="I(T;Y) of the bound", **along)
    found["curve_beta"] = quantity(curve.beta, units="1", long_name="one over the slope of the bound", **along)
    found["degenerate"] = quantity(
        kind, units="1", long_name="whether the bound has a shape of its own", chart="none", flag_values=[0, 1, 2],
        flag_meanings=" ".join(DEGENERATE),
    )  # fmt: skip
    if codes:
        corners: dict[str, Any] = {
            "dims": "corner",
            "coords": {"corner": range(len(codes))},
            "chart": "none",
            "units": "bit",
        }
        what = "of the best codes without noise"
        found["deterministic_x"] = quantity([code.rate for code in codes], long_name=f"I(X;T) {what}", **corners)
        found["deterministic_y"] = quantity([code.relevance for code in codes], long_name=f"I(T;Y) {what}", **corners)
    return found


@lru_cache(maxsize=8)
def _bound(p_x: bytes, rows: bytes, classes: int, accuracy: float) -> tuple[BottleneckCurve, list[Code]]:
    """The bound, which is that of the examples, and deterministic codes: worked out once for all layers and steps."""
    curve = bottleneck_curve(np.frombuffer(p_x), np.frombuffer(rows).reshape(-1, classes), accuracy=accuracy)
    return curve, deterministic_curve(curve.joint) if len(curve.joint.p_x) <= DISTINCT else []


def _loaded(joint: str | tuple[tuple[float, ...], ...]) -> tuple[Array, Array]:
    if isinstance(joint, tuple):
        return _checked(None, np.asarray(joint, dtype=np.float64), "joint")
    path = Path(joint)
    try:
        return _read(str(path), path.stat().st_mtime_ns)
    except OSError as error:
        raise SettingError(
            f"Bottleneck(joint={joint!r}) cannot be read: {error}; give the path of an .npz file."
        ) from error


@lru_cache(maxsize=4)
def _read(path: str, _: int) -> tuple[Array, Array]:
    try:
        with np.load(path, allow_pickle=False) as held:
            names = {name: held[name] for name in ("p_x", "p_y_given_x") if name in held}
    except (ValueError, TypeError, AttributeError) as error:
        raise SettingError(f"Bottleneck(joint={path!r}) is no .npz file of arrays: {error}.") from error
    if "p_y_given_x" not in names:
        raise SettingError(f"Bottleneck(joint={path!r}) has no array p_y_given_x; write one row for each example.")
    return _checked(names.get("p_x"), names["p_y_given_x"], path)


def _checked(p_x: Any, rows: Any, what: str) -> tuple[Array, Array]:
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    weights = np.full(len(rows), 1 / max(1, len(rows))) if p_x is None else np.asarray(p_x, dtype=np.float64)
    sums = rows.sum(1) if rows.ndim == 2 else np.array([np.nan])
    if (
        weights.shape != rows.shape[:1]
        or not np.allclose(sums, 1, atol=1e-6)
        or not (rows >= 0).all()
        or not (weights >= 0).all()
    ):
        raise SettingError(
            f"Bottleneck: {what} holds no p(y|x) with a row for each p(x): {rows.shape} and {weights.shape}, rows that sum "
            f"to {np.nanmin(sums, initial=np.inf):g} to {np.nanmax(sums, initial=-np.inf):g}; they are at least 0 and sum to 1."
        )
    return weights, rows
