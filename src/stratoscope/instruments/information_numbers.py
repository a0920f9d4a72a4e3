"""From one sample of activations to the variables of the instrument `information`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stratoscope.numerics.binned_information import (
    Binned,
    Examples,
    binned_information,
    equal_count_rules,
    equal_width_rules,
    outside,
)
from stratoscope.numerics.entropy import Cells, FixedWidth, shuffled
from stratoscope.numerics.kernel_information import KernelInformation, kernel_information
from stratoscope.numerics.ksg import STATUS, neighbour_label_information
from stratoscope.numerics.noisy_information import NoisyInformation, noisy_information
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from torch import Tensor

    from stratoscope.capture.activations import Sample
    from stratoscope.capture.pairs import Kernels
    from stratoscope.instruments.information import Information

RANGES = ("step", "activation", "given", "run")
"""Where the range of the bins may come from."""
RULES = ("equal_width", "equal_count")
"""How bins are cut in the sweep."""

SHUFFLES = 8
"""Shuffles of the labels along the sweep, of which the mean alone is wanted."""
ROUNDED = 1e-4
"""Bits below which drawn numbers differ by rounding."""

Span = tuple[float, float, str]
"""The range of the bins, and which of `RANGES` it is."""


def numbers_of(made: Information, sample: Sample, kernels: Kernels | None, span: Span) -> dict[str, Quantity]:
    """Every variable that depends on the sample alone.

    Args:
        made: the instrument, for its settings.
        sample: two rows or more, finite.
        kernels: sums of kernels between its rows; `None` for no noise.
        span: of the bins.
    """
    return _Measured(made, sample, kernels, span).all()


@dataclass(frozen=True)
class _Measured:
    """One sample under all estimators."""

    made: Information
    sample: Sample
    kernels: Kernels | None
    span: Span

    @cached_property
    def features(self) -> NDArray[Any]:
        return self.sample.features.numpy()

    @cached_property
    def examples(self) -> Examples:
        """Labels from 0, their shuffles, and which rows came from one input."""
        ids, place = np.unique(self.sample.ids.numpy(), return_inverse=True)
        inputs = None if len(ids) == len(place) else place
        if self.sample.labels is None:
            return Examples(inputs=inputs)
        labels = np.unique(self.sample.labels.numpy(), return_inverse=True)[1]
        shuffles = shuffled(labels, self.made.permutations, self.made.seed, inputs) if self.made.permutations else None
        return Examples(labels, shuffles, inputs)

    def all(self) -> dict[str, Quantity]:
        """Every variable that depends on the sample alone."""
        found = self._swept()
        if self.kernels is not None:
            found |= self._through_noise(self.kernels)
        if self.examples.labels is not None:
            found |= self._from_neighbours(self.examples.labels)
        n, width = self.features.shape
        classes = 0 if self.examples.labels is None else int(self.examples.labels.max()) + 1
        low, high, kind = self.span
        aside = {
            "n": (n, "rows counted"),
            "width": (width, "units counted"),
            "classes": (classes, "classes among the labels"),
            "bin_low": (low, "lower end of the bins"),
            "bin_high": (high, "upper end of the bins"),
            "outside": (outside(self.features, low, high), "share of numbers outside the bins' range"),
        }
        if classes:
            aside["label_z"] = (_best_z(found), "deviations from shuffled labels of the estimator that sees most")
        found |= {name: quantity(v, units="1", long_name=what, chart="none") for name, (v, what) in aside.items()}
        found["bin_range"] = _flag(RANGES.index(kind), RANGES, "where the bins' range comes from")
        return found

    # -- bins ---------------------------------------------------------------------------------------------------------

    def _swept(self) -> dict[str, Quantity]:
        """The number of bins in front, its band, and the whole sweep by both rules."""
        low, high, _ = self.span
        numbers = sorted({*self.made.sweep, self.made.bins})
        rules = (equal_width_rules(low, high, numbers), equal_count_rules(self.features, numbers))
        place, shuffles = numbers.index(self.made.bins), self.examples.shuffles
        fewer = replace(self.examples, shuffles=None if shuffles is None else shuffles[:SHUFFLES])
        table = [
            [
                binned_information(self.features, r, self.examples if at == place else fewer)
                for at, r in enumerate(along)
            ]
            for along in rules
        ]
        found = self._in_front(table[0][place], table[0])
        coords = {"rule": RULES, "bins": numbers}
        for name, what, read in _SWEPT:
            values = [[read(one) for one in along] for along in table]
            if not np.isnan(values).all():
                found[name] = quantity(
                    values, units="1" if name == "sweep_singletons" else "bit", long_name=what, dims=("rule", "bins"),
                    coords=coords, chart="none",
                )  # fmt: skip
        found |= self._other("quantile", "bins of equal counts", table[1][place])
        return found | self._other("fixed", f"bins of width {self.made.bin_width:g}", self._fixed())

    def _in_front(self, one: Binned, band: list[Binned]) -> dict[str, Quantity]:
        x = {
            "": (one.x, "H(bin T) (clustering)"),
            "_low": (min(b.x for b in band), "least H(bin T) over numbers of bins"),
            "_high": (max(b.x for b in band), "most H(bin T) over numbers of bins"),
            "_ceiling": (one.ceiling, "the most that so many examples can read"),
            "_miller_madow": (one.x_miller_madow, "H(bin T), corrected for cells that were missed"),
        }
        found = {f"information_x{end}": self._bits(value, what) for end, (value, what) in x.items()}
        found["information_x"] = self._bits(one.x, x[""][1], note=self._note)
        if one.y is not None:
            found |= self._labels(one, band)
        found["singletons"] = quantity(
            one.singletons, units="1", long_name="share of occupied cells with one example", note=self._note,
            valid_min=0.0, valid_max=1.0,
        )  # fmt: skip
        found["cells"] = quantity(one.cells, units="1", long_name="occupied cells", chart="none")
        silent = int(one.uninformative(self.made.singletons, self.made.within))
        found["uninformative"] = _flag(silent, ("informative", "uninformative"), "any layer would read the same")
        return found

    def _labels(self, one: Binned, band: list[Binned]) -> dict[str, Quantity]:
        y = one.y
        assert y is not None
        told = [b.y.bits for b in band if b.y is not None]
        bits = {
            "_low": (min(told), "least I(bin T; Y) over numbers of bins"),
            "_high": (max(told), "most I(bin T; Y) over numbers of bins"),
            "_ceiling": (y.ceiling, "H(Y)"),
            "_null": (y.null_mean, "mean I(bin T; Y) under shuffled labels"),
            "_null_sd": (y.null_sd, "standard deviation of I(bin T; Y) under shuffled labels"),
            "_miller_madow": (y.miller_madow, "I(bin T; Y), corrected for cells that were missed"),
        }
        found = {
            "information_y": self._bits(
                y.bits, "I(bin T; Y)", note=self._note, across="information_x", plane="Information plane"
            )
        }
        found |= {f"information_y{end}": self._bits(value, what) for end, (value, what) in bits.items()}
        found["information_y_debiased"] = self._bits(
            y.debiased, "I(bin T; Y) less what shuffled labels read", note=self._note
        )
        for name, value, what in (
            ("z", y.z, "deviations of I(bin T; Y) from shuffled labels"),
            ("p", y.p_value, "how often shuffled labels read as much"),
        ):
            found[f"information_y_{name}"] = quantity(value, units="1", long_name=what, chart="none")
        return found

    def _fixed(self) -> Binned | None:
        """Bins of the stated width; `None` where the range is too wide for them."""
        try:
            rule = FixedWidth(self.made.bin_width, float(self.features.min()), float(self.features.max()))
        except ValueError:
            return None
        return binned_information(self.features, rule, self.examples)

    def _other(self, name: str, how: str, one: Binned | None) -> dict[str, Quantity]:
        found = {f"{name}_x": self._bits(math.nan if one is None else one.x, f"H(bin T) (clustering), {how}")}
        if self.examples.labels is not None:
            told = math.nan if one is None or one.y is None else one.y.debiased
            what = f"I(bin T; Y) less what shuffled labels read, {how}"
            found[f"{name}_y_debiased"] = self._bits(told, what)
        return found

    # -- noise --------------------------------------------------------------------------------------------------------

    def _through_noise(self, kernels: Kernels) -> dict[str, Quantity]:
        """Kernel bounds, and drawn noise between them."""
        labels, inputs = self.examples.labels, self.examples.inputs
        own, variances = kernels.own, kernels.variances
        bounds = kernel_information(
            variances.numpy(), kernels.sums.numpy(), None if own is None else own.numpy(), labels
        )
        if inputs is not None:  # rows of one input: the noise is not all that is left open by the input
            nothing = np.full(len(variances), math.nan)
            bounds = replace(bounds, x_low=nothing, x_high=nothing)
        drawn = self._drawn(variances)
        ceiling = bounds.ceiling if inputs is None else Cells(inputs, np.bincount(inputs)).entropy
        numbers = {
            "noisy_x": (drawn.x, f"I(X; T + N), {_NOISE}"),
            "noisy_x_low": (bounds.x_low, f"lower kernel bound of I(X; T + N), {_NOISE}"),
            "noisy_x_high": (bounds.x_high, f"upper kernel bound of I(X; T + N), {_NOISE}"),
            "noisy_x_ceiling": (np.full(len(variances), ceiling), "the most that so many examples can read"),
            "noisy_x_error": (drawn.x_error, "standard error of the drawn I(X; T + N)"),
        }
        if labels is not None:
            numbers |= _about_labels(bounds, drawn)
        found = {name: self._by_noise(values, what, "bit") for name, (values, what) in numbers.items()}
        found["noise_variance"] = self._by_noise(variances.numpy(), "variance of the noise on each unit", "1")
        # below the ceiling, where the noise joins points at all
        silent = ~(np.fmax(drawn.x.numpy(), bounds.x_low) < ceiling - self.made.within)
        found["noisy_uninformative"] = self._by_noise(
            silent.astype(int), "any layer would read the same", "1", **_SILENT
        )
        if labels is not None:
            found["noisy_y"] = self._by_noise(
                drawn.y,
                f"I(T + N; Y), {_NOISE}",
                "bit",
                across="noisy_x",
                plane="Noisy plane",
                chart="plane",
                headline=1,
            )
            found["noisy_y_z"] = self._by_noise(
                _deviations(drawn, self.made.permutations), "deviations of I(T + N; Y) from shuffled labels", "1"
            )
        return found

    def _drawn(self, variances: Tensor) -> NoisyInformation:
        if self.made.draws == 0:
            nothing = torch.full((len(variances),), math.nan, dtype=torch.float64)
            return NoisyInformation(*(nothing,) * 6, 0)
        inputs, shuffles = self.examples.inputs, self.examples.shuffles
        return noisy_information(
            self.sample.features, variances, _tensor(self.examples.labels), _tensor(inputs),
            shuffles=_tensor(shuffles), draws=self.made.draws,
            generator=torch.Generator().manual_seed(self.made.seed),
        )  # fmt: skip

    def _by_noise(self, values: Any, what: str, units: str, **more: Any) -> Quantity:
        labels = [f"{kind} {value:g}" for kind, value in self.made.variances]
        shown = {"chart": "none", **more}
        return quantity(values, units=units, long_name=what, dims="noise", coords={"noise": labels}, **shown)

    # -- neighbours ---------------------------------------------------------------------------------------------------

    def _from_neighbours(self, labels: NDArray[np.int64]) -> dict[str, Quantity]:
        """Nearest neighbours, for few units and rows that are independent."""
        if self.examples.inputs is not None:
            bits, status = math.nan, "rows_of_one_input"
        else:
            found = neighbour_label_information(self.features, labels, widest=self.made.widest)
            bits, status = found.bits, found.status
        meanings = (*STATUS, "rows_of_one_input")
        return {
            "neighbour_y": self._bits(bits, "I(T; Y) by nearest neighbours"),
            "neighbour_status": _flag(meanings.index(status), meanings, "whether nearest neighbours are valid here"),
        }

    @property
    def _note(self) -> str:
        """What the bins are, and of what."""
        low, high, kind = self.span
        ends = {
            "step": "this step's own range of the layer",
            "run": f"{low:.4g} to {high:.4g}, the layer's range over the run",
            "activation": f"{low:g} to {high:g}, the bounds of the nonlinearity",
            "given": f"{low:g} to {high:g}",
        }[kind]
        return f"{self.made.bins} bins of one width over {ends}; {self.sample.note}"

    def _bits(self, value: float, what: str, **more: Any) -> Quantity:
        shown = more if more else {"chart": "none"}
        return quantity(value, units="bit", long_name=what, **shown)


_NOISE = "Gaussian noise added to the activations"
_SILENT = {"flag_values": [0, 1], "flag_meanings": "informative uninformative"}


def _about_labels(bounds: KernelInformation, drawn: NoisyInformation) -> dict[str, tuple[Any, str]]:
    """What activations with noise tell about labels."""
    null = "under shuffled labels, with the same draws"
    return {
        "noisy_y": (drawn.y, f"I(T + N; Y), {_NOISE}"),
        "noisy_y_low": (bounds.y_low, f"lower kernel bound of I(T + N; Y), {_NOISE}"),
        "noisy_y_high": (bounds.y_high, f"upper kernel bound of I(T + N; Y), {_NOISE}"),
        "noisy_y_error": (drawn.y_error, "standard error of the drawn I(T + N; Y)"),
        "noisy_y_null": (drawn.y_null, f"mean of the drawn I(T + N; Y) {null}"),
        "noisy_y_null_sd": (drawn.y_null_sd, f"standard deviation of the drawn I(T + N; Y) {null}"),
        "kernel_y_upper": (bounds.y_upper, "difference of upper kernel bounds, itself no bound of I(T + N; Y)"),
        "kernel_y_lower": (bounds.y_lower, "difference of lower kernel bounds, itself no bound of I(T + N; Y)"),
    }


def _deviations(drawn: NoisyInformation, permutations: int) -> NDArray[np.float64]:
    """How far from shuffled labels; NaN where shuffles change no more than rounding does."""
    spread = drawn.y_null_sd.numpy() * math.sqrt(1 + 1 / max(permutations, 1))
    return np.asarray((drawn.y - drawn.y_null).numpy() / np.where(spread > ROUNDED, spread, math.nan))


def _best_z(found: dict[str, Quantity]) -> float:
    """The largest deviation from shuffled labels over bins and noise that could have read otherwise; NaN for none."""
    informative = [] if found["uninformative"].values else [float(found["information_y_z"].values)]
    if "noisy_y_z" in found:
        informative += found["noisy_y_z"].values[found["noisy_uninformative"].values == 0].tolist()
    return max((z for z in informative if math.isfinite(z)), default=math.nan)


def _tensor(values: NDArray[Any] | None) -> Tensor | None:
    return None if values is None else torch.from_numpy(values)


_SWEPT: tuple[tuple[str, str, Callable[[Binned], float]], ...] = (
    ("sweep_x", "H(bin T) (clustering)", lambda one: one.x),
    ("sweep_y", "I(bin T; Y)", lambda one: one.y.bits if one.y else math.nan),
    (
        "sweep_y_debiased",
        "I(bin T; Y) less what shuffled labels read",
        lambda one: one.y.debiased if one.y else math.nan,
    ),
    ("sweep_singletons", "share of occupied cells with one example", lambda one: one.singletons),
)


def _flag(place: int, meanings: tuple[str, ...], what: str) -> Quantity:
    return quantity(
        place, units="1", long_name=what, chart="none", flag_values=list(range(len(meanings))),
        flag_meanings=" ".join(meanings),
    )  # fmt: skip
