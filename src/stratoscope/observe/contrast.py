"""Two checkpoints side by side: how far each weight matrix has moved, and what its spectrum was before and after."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from stratoscope.errors import OpenError, SubjectError
from stratoscope.numerics.change import Change, change

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.network.layers import Catalogue
    from stratoscope.network.subject import Subject
    from stratoscope.record.record import Record

COLUMNS = ("phase", "alpha", "stable_rank", "num_spikes")
"""What is told of each matrix before and after, where it was measured."""


@dataclass(frozen=True)
class Part:
    """A weight matrix, or a param that no matrix is made from.

    Attributes:
        name: unique in the network.
        layer: name of the layer that owns it.
        params: exact keys of the tensors that it is made from.
        kind: of the matrix; the role of a param.
        shape: its sizes.
        view: turns the tensors into it.
        reason: why it is not looked at; empty if it is.
    """

    name: str
    layer: str
    params: tuple[str, ...]
    kind: str
    shape: tuple[int, ...]
    view: Callable[..., Tensor]
    reason: str = ""


def contrast(
    first: Subject,
    second: Subject,
    before: Record,
    after: Record,
    wanted: Callable[[str], bool],
    tell: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """A row for each weight matrix and each other tensor of either checkpoint, the largest change first.

    One tensor of each is in memory at a time (the params of one matrix, where it is made of several).

    Args:
        first: the checkpoint before.
        second: the checkpoint after.
        before: what was measured of the first.
        after: what was measured of the second.
        wanted: whether a layer was asked for, by its name.
        tell: told `(name, done, total)`.

    Returns:
        Rows with `name`, `layer`, `tensor`, `kind`, `shape`, `status` (`measured`, `not_applicable`, `skipped` or
        `failed`), `reason` (empty where there is none), `relative_change` and `cosine` (`None` where not measured), and
        `before` and `after`: what is known of `COLUMNS` there.

    Raises:
        SubjectError: if the checkpoints have no tensor in common.
    """
    one, two = _parts(first.catalogue), _parts(second.catalogue)
    if not set(one) & set(two):
        some = ", ".join(list(two)[:3])
        raise SubjectError(
            f"{first.name} and {second.name} have no tensor of the same name; the second has {some}, ..."
        )
    known = [_known(record) for record in (before, after)]
    names = [name for name in dict.fromkeys([*one, *two]) if wanted((one.get(name) or two[name]).layer)]
    rows = []
    for number, name in enumerate(names):
        if tell is not None:
            tell(f"comparing {name}", number, len(names))
        row = _row(one.get(name), two.get(name), first, second)
        rows.append(row | {"before": known[0].get(name, {}), "after": known[1].get(name, {})})
    return sorted(rows, key=_largest_first)


def _parts(catalogue: Catalogue) -> dict[str, Part]:
    """The matrices, and the params that no matrix is made from, in order."""
    found: dict[str, Part] = {}
    params = catalogue.params
    used = {key for matrix in catalogue.matrices.values() for key in matrix.params}
    for layer in catalogue.layers.values():
        for m in layer.matrices:
            why = next((params[key].reason for key in m.params if key in params and params[key].reason), "")
            found[m.name] = Part(m.name, m.layer, m.params, m.kind, m.shape, m.view, why)
        for p in layer.params:
            if p.name not in used:
                why = p.reason or (f"the same tensor as {p.same_as}" if p.same_as else "")
                why = why or ("a running statistic, not a trained weight" if p.role == "statistic" else "")
                found[p.name] = Part(p.name, p.layer, (p.name,), p.role, p.shape, lambda tensor: tensor, why)
    return found


def _row(a: Part | None, b: Part | None, first: Subject, second: Subject) -> dict[str, Any]:
    part = a or b
    assert part is not None
    status, reason, found = _compared(a, b, first, second)
    return {
        "name": part.name,
        "layer": part.layer,
        "tensor": part.params[0],
        "kind": part.kind,
        "shape": list(part.shape),
        "status": status,
        "reason": reason,
        "relative_change": None if found is None else found.relative,
        "cosine": None if found is None else found.cosine,
    }


def _compared(a: Part | None, b: Part | None, first: Subject, second: Subject) -> tuple[str, str, Change | None]:
    if a is None or b is None:
        return "not_applicable", f"only in {(first if b is None else second).name}", None
    if a.reason or b.reason:
        return "not_applicable", a.reason or b.reason, None
    if a.shape != b.shape:
        sizes = " and ".join(" x ".join(map(str, part.shape)) for part in (a, b))
        return "not_applicable", f"of another shape: {sizes}", None
    try:
        found = change(*(part.view(*map(of.source.load, part.params)) for part, of in ((a, first), (b, second))))
    except (OpenError, RuntimeError, TypeError) as error:
        return "failed", " ".join(str(error).split())[:300], None
    return "measured", _why_no_number(found), found


def _why_no_number(found: Change) -> str:
    if math.isinf(found.relative):
        return "all zero before, so that there is nothing to relate the change to"
    if math.isnan(found.relative):
        return "an entry is NaN or infinite"
    return "all zero in one of them, so that there is no angle" if math.isnan(found.cosine) else ""


def _known(record: Record) -> dict[str, dict[str, Any]]:
    """What is known of each matrix, by its name."""
    found: dict[str, dict[str, Any]] = {}
    for column in COLUMNS:
        for group in record.values():
            if column in group and "matrix" in group[column].dims:
                for name, value in _values(group[column]):
                    found.setdefault(name, {}).setdefault(column, value)
    return found


def _values(array: xr.DataArray) -> list[tuple[str, Any]]:
    """The last value at each matrix; a category by its name."""
    last = array.isel(step=-1)
    meanings = str(array.attrs.get("flag_meanings", "")).split()
    flags = [int(flag) for flag in array.attrs.get("flag_values", range(len(meanings)))]
    names = dict(zip(flags, meanings, strict=False))
    found = []
    for name, value in zip(last.coords["matrix"].values, last.values.tolist(), strict=True):
        if meanings:
            text = names.get(int(value))
            found.append((str(name), text.replace("_", " ") if text else None))
        else:
            found.append((str(name), value if math.isfinite(value) else None))
    return found


def _largest_first(row: dict[str, Any]) -> tuple[int, float]:
    """Broken and new ones first, then by size of the change; what could not be compared last."""
    value = row["relative_change"]
    if value is None:
        return (2 if row["status"] == "not_applicable" else 1), 0.0
    return 0, -math.inf if math.isnan(value) else -value
