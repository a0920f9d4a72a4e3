"""A measured quantity: an array whose axes and unit are named."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stratoscope.errors import RecordError

if TYPE_CHECKING:
    import xarray as xr

DIMS = (
    "step", "split", "layer", "param", "matrix", "unit", "class", "eigen", "bin", "quantile", "head",
    "token", "example", "pair", "estimator", "seed", "theory",
)  # fmt: skip
"""The dimensions that every instrument may use; an instrument may declare further ones of its own."""


@dataclass(frozen=True)
class Quantity:
    """Numbers with named axes, the labels along them, and what they mean.

    Attributes:
        values: the numbers.
        dims: a name for each axis; `step`, `split` and, within a layer, `layer` are added by the record.
        coords: labels along a dim; a dim without labels counts 0, 1, 2, ...
        attrs: `units` and `long_name` always; `source` is added from the instrument.
    """

    values: NDArray[Any]
    dims: tuple[str, ...] = ()
    coords: Mapping[str, tuple[Hashable, ...]] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def labels(self, dim: str) -> tuple[Hashable, ...]:
        """The labels along a dim, counted from 0 where none were given."""
        if dim in self.coords:
            return self.coords[dim]
        return tuple(range(self.values.shape[self.dims.index(dim)]))

    def to_xarray(self) -> xr.DataArray:
        """The same as a labelled array."""
        import xarray as xr

        return xr.DataArray(
            self.values, dims=self.dims, coords={k: list(v) for k, v in self.coords.items()}, attrs=dict(self.attrs)
        )


def quantity(
    values: ArrayLike,
    *,
    units: str,
    long_name: str,
    dims: Sequence[str] | str = (),
    coords: Mapping[str, Sequence[Hashable]] | None = None,
    **attrs: Any,
) -> Quantity:
    """Name the axes and the unit of some numbers.

    Args:
        values: a number, an array or a tensor (moved to the CPU); bfloat16 becomes float32.
        units: SI or UDUNITS style; `"1"` for a pure number.
        long_name: what it is, for axes and tables.
        dims: one name for each axis.
        coords: labels along dims.
        **attrs: anything else that belongs to the variable, such as `valid_min`, `flag_meanings`, `n`.

    Raises:
        RecordError: if the dims do not fit the values, or a label is missing or said twice.

    >>> quantity([1.0, 2.0], units="1", long_name="share", dims="class").labels("class")
    (0, 1)
    """
    array = _as_numpy(values)
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    if len(names) != array.ndim or len(set(names)) != len(names):
        raise RecordError(f"{long_name}: {array.ndim} axes of shape {array.shape} cannot carry the dims {names}.")
    labels = {dim: tuple(along) for dim, along in (coords or {}).items()}
    for dim, along in labels.items():
        size = array.shape[names.index(dim)] if dim in names else -1
        if size != len(along) or len(set(along)) != size:
            raise RecordError(f"{long_name}: {len(along)} labels along {dim!r}, which has {size} places.")
    return Quantity(array, names, labels, {"units": units, "long_name": long_name, **attrs})


def _as_numpy(values: Any) -> NDArray[Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.dtype.is_floating_point and values.dtype.itemsize < 4:
            values = values.float()
        values = values.numpy()
    return np.asarray(values)
