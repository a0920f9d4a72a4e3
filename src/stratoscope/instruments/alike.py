"""Which layers can be compared with which, and tables of comparisons as quantities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stratoscope.errors import NotApplicable
from stratoscope.numerics.hsic import FEW, Centred
from stratoscope.numerics.matrices import not_finite
from stratoscope.numerics.similarity import Alignment, linear_cka, procrustes
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from torch import Tensor

    from stratoscope.capture.activations import Sample

STATUS = ("compared", "not_finite", "constant", "other_examples", "beyond_max_layers")
"""What became of a layer; the numbers in the record are places in this list."""


@dataclass(frozen=True)
class Comparable:
    """Layers that were seen on the same examples.

    Attributes:
        names: every layer that takes part, in order of depth.
        rows: for each of them, which of `samples` is its own; layers that give the same share one.
        samples: each different one once, in order of depth.
        status: for every layer that was seen, a place in `STATUS`.
        ids: the examples.
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]
    samples: tuple[Sample, ...]
    status: Mapping[str, int]
    ids: Tensor

    @property
    def n(self) -> int:
        """Examples."""
        return len(self.ids)

    @property
    def features(self) -> list[Tensor]:
        """What is compared."""
        return [sample.features for sample in self.samples]

    def along(self, values: Sequence[float] | NDArray[Any], missing: float = float("nan")) -> NDArray[Any]:
        """A value of each different sample, for each layer that takes part."""
        return np.asarray([values[row] if row < len(values) else missing for row in self.rows])

    def within(self, found: Alignment, others: Comparable) -> Callable[[Sample, Sample], Alignment]:
        """Looks up a pair in a map of these layers and others."""
        rows = {id(sample): row for row, sample in enumerate(self.samples)}
        columns = {id(sample): column for column, sample in enumerate(others.samples)}
        return lambda one, other: found.at(rows[id(one)], columns[id(other)])


def comparable(samples: Mapping[str, Sample], most: int, least: int = 2) -> Comparable:
    """Choose the layers that can be compared with each other.

    Args:
        samples: of each layer, in order of depth.
        most: at most so many different ones: evenly spaced along depth, the first and the last among them.
        least: at least so many different ones.

    Raises:
        NotApplicable: if less are left, or there are less than 4 examples.
    """
    ids = Counter(sample.ids.numpy().tobytes() for sample in samples.values()).most_common(1)[0][0]
    usual = next(sample.ids for sample in samples.values() if sample.ids.numpy().tobytes() == ids)
    if len(usual) != len(torch.unique(usual)):
        raise NotApplicable("several rows of one example depend on each other; ask for pooling='gap' or 'flatten'")
    if len(usual) < FEW:
        raise NotApplicable(f"{len(usual)} examples are too few; unbiased sums divide by n - 3, so {FEW} are needed")
    found: dict[int, int] = {}
    for sample in samples.values():
        if id(sample) not in found:
            found[id(sample)] = 3 if sample.ids.numpy().tobytes() != ids else _usable(sample)
    distinct = [key for key, status in found.items() if status == 0]
    chosen = _spaced(distinct, most)
    found |= {key: 4 for key in distinct if key not in chosen}
    if len(chosen) < least:
        raise NotApplicable(_why(found))
    names = tuple(name for name, sample in samples.items() if id(sample) in chosen)
    by_id = {id(sample): sample for sample in samples.values()}
    places = {key: place for place, key in enumerate(chosen)}
    return Comparable(
        names,
        tuple(places[id(samples[name])] for name in names),
        tuple(by_id[key] for key in chosen),
        {name: found[id(sample)] for name, sample in samples.items()},
        usual,
    )


def _usable(sample: Sample) -> int:
    def look() -> int:
        if not_finite(sample.features):
            return 1
        return 2 if Centred(sample.features).constant else 0

    return sample.worked_out.once("whether it can be compared", look)


def _spaced(keys: list[int], most: int) -> list[int]:
    if len(keys) <= most:
        return keys
    return [keys[round(place)] for place in np.linspace(0, len(keys) - 1, max(2, most))]


def _why(found: Mapping[int, int]) -> str:
    counts = Counter(STATUS[status].replace("_", " ") for status in found.values())
    said = ", ".join(f"{count} {what}" for what, count in counts.items())
    return f"there are too few different layers to compare: of {len(found)}, {said}"


def as_map(
    name: str, found: Alignment, first: Comparable, second: Comparable, what: str, note: str, noise_z: float
) -> dict[str, Quantity]:
    """A table of layers against layers, with its error, its biased form, that one's null, and what says nothing.

    Args:
        name: of the debiased values; the others' names begin with it.
        found: one row for each of `first.samples` and a column for each of `second.samples`.
        first: layers along the rows.
        second: layers along the columns.
        what: is compared with what, in words.
        note: how the samples were made.
        noise_z: deviations above shuffled examples from which a value says something.
    """
    coords = {"layer": first.names, "other": second.names}

    def table(values: Tensor, long_name: str, **attrs: Any) -> Quantity:
        expanded = values[list(first.rows)][:, list(second.rows)]
        return quantity(
            expanded,
            units="1",
            dims=("layer", "other"),
            coords=coords,
            long_name=f"{long_name} {what}".strip(),
            note=note,
            n=found.n,
            **attrs,
        )

    hidden = {"chart": "none"}
    return {
        name: table(found.debiased, "debiased linear CKA", valid_min=-1.0, valid_max=1.0, null_sd=found.null_sd),
        f"{name}_se": table(found.standard_error, "standard error of the debiased linear CKA", **hidden),
        f"{name}_biased": table(found.biased, "biased linear CKA", valid_min=0.0, valid_max=1.0, **hidden),
        f"{name}_biased_null": table(found.null_biased, "mean biased linear CKA of shuffled examples", **hidden),
        f"{name}_uninformative": table(
            (found.z < noise_z).to(torch.int8), "shuffled examples would read the same", **hidden, flag_values=[0, 1],
            flag_meanings="informative uninformative",
        ),
    }  # fmt: skip


def pairwise(
    name: str,
    pairs: Mapping[str, tuple[Sample, Sample]],
    what: str,
    note: str,
    widest: int,
    headline: int = 0,
    in_map: Callable[[Sample, Sample], Alignment] | None = None,
) -> dict[str, Quantity]:
    """For each of some layers one comparison: debiased CKA and Procrustes distance, with error and null.

    Args:
        name: such as `"before"`: the variables are `cka_before`, `procrustes_before` and what bounds them.
        pairs: for each layer the two samples; equal ones are compared once.
        what: is compared with what, in words.
        note: how the samples were made.
        widest: narrower side above which the Procrustes distance, whose time goes with its cube, is left out.
        headline: place in the table of a report; 0 for none.
        in_map: gives the CKA of a pair where it is known already.
    """
    known: dict[tuple[int, int], tuple[float, ...]] = {}
    for one, other in pairs.values():
        if (id(one), id(other)) not in known:
            cka = linear_cka(one.features, other.features) if in_map is None else in_map(one, other)
            known[id(one), id(other)] = _compared(one, other, cka, widest)
    rows = np.asarray([known[id(one), id(other)] for one, other in pairs.values()]).reshape(len(pairs), 4)
    shown = {"headline": headline} if headline else {}
    texts = {
        f"cka_{name}": (f"debiased linear CKA {what}", {"valid_min": -1.0, "valid_max": 1.0, **shown}),
        f"cka_{name}_se": (f"standard error of the debiased linear CKA {what}", {}),
        f"procrustes_{name}": (f"Procrustes distance {what}", {"valid_min": 0.0, "valid_max": 2**0.5}),
        f"procrustes_{name}_null": (f"least Procrustes distance of shuffled examples {what}", {}),
    }
    found = {}
    for column, (key, (long_name, attrs)) in enumerate(texts.items()):
        there = ~np.isnan(rows[:, column])
        if there.any():
            layers = tuple(layer for layer, is_there in zip(pairs, there, strict=True) if is_there)
            found[key] = quantity(
                rows[there, column],
                units="1",
                dims="layer",
                coords={"layer": layers},
                long_name=long_name,
                note=note,
                **attrs,
            )
    return found


def _compared(one: Sample, other: Sample, cka: Alignment, widest: int) -> tuple[float, ...]:
    found = float(cka.debiased), float(cka.standard_error)
    if min(one.features.shape[1], other.features.shape[1], len(one.ids)) > widest:
        return (*found, float("nan"), float("nan"))
    distance = procrustes(one.features, other.features)
    return (*found, distance.distance, distance.null)
