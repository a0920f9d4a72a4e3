"""What is said of similarities: layers that say the same, layers that stand still, two networks that part ways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.reading import At, last_of, some, together
from stratoscope.network.layers import ROOT

if TYPE_CHECKING:
    from stratoscope.instruments.similarity import Similarity
    from stratoscope.record.group import Group

FloatArray = NDArray[np.float64]

READS_HIGH = 0.05
"""Biased CKA of shuffled examples from which few examples are worth a word."""


class Table(NamedTuple):
    """A map at the last step at which it was measured on a split."""

    names: list[str]
    step: int
    split: str | None
    values: FloatArray
    errors: FloatArray


def of(settings: Similarity, measured: Group) -> tuple[list[Finding], list[str]]:
    """The findings, and the codes for which there was something to look at."""
    tables = list(_tables(measured, "cka"))
    weighty = {(at.split, at.layer) for at in last_of(measured, "has_weights") if at["has_weights"] > 0}
    moved = [
        at
        for at in last_of(measured, "cka_initial", "cka_initial_se", "has_weights", "procrustes_initial")
        if at.step > 0 and at["has_weights"] > 0
    ]
    same = [list(rows) for _, rows in groupby(last_of(measured, "cka_same", "cka_same_se"), key=lambda at: at.split)]
    found: list[Finding] = []
    for table in tables:
        found += _blocks(settings, table, weighty, _n(measured, table.split))
    for split, rows in groupby(moved, key=lambda at: at.split):
        found += _still(settings, list(rows), _n(measured, split))
    found += _few_examples(settings, measured)
    for layers in same:
        found += _apart(settings, layers, _n(measured, layers[0].split))
    looked = {
        "CK001": any(len(run) > 1 for table in tables for run in _siblings(table.names)),
        "CK002": bool(moved), "CK003": "width" in measured, "CK004": bool(same), "CK005": bool(same),
    }  # fmt: skip
    return found, [code for code, is_so in looked.items() if is_so]


def _tables(measured: Group, name: str) -> Iterator[Table]:
    if name not in measured:
        return
    values, errors = measured[name], measured[f"{name}_se"]
    splits = [str(split) for split in values.coords["split"].values] if "split" in values.dims else [None]
    for split in splits:
        one, two = (array if split is None else array.sel(split=split) for array in (values, errors))
        one, two = one.transpose("step", "layer", "other"), two.transpose("step", "layer", "other")
        there = np.flatnonzero(np.isfinite(one.values).any(axis=(1, 2)))
        if len(there):
            at = int(there[-1])
            known = [str(label) for label in one.coords["layer"].values[np.isfinite(one.values[at]).any(axis=1)]]
            tables = [array.isel(step=at).sel(layer=known, other=known).values.astype(float) for array in (one, two)]
            yield Table(known, int(one.coords["step"].values[at]), split, tables[0], tables[1])


def _n(measured: Group, split: str | None) -> int:
    rows = [at["n"] for at in last_of(measured, "n", dim=None) if at.split == split]
    return int(rows[0]) if rows else 0


def _siblings(names: list[str]) -> list[list[int]]:
    """Places of the layers that stand side by side in one module, which see each other's output."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        if name != ROOT:
            found.setdefault(re.sub(r"(^|[.:])[^.:]*$", "", name), []).append(place)
    return list(found.values())


def _blocks(
    settings: Similarity, table: Table, weighty: set[tuple[str | None, str | None]], n: int
) -> Iterator[Finding]:
    """Runs of siblings of which any two are alike, and of which one after the first holds weights and can be skipped.

    The last layer cannot: its outputs are what the network is for.
    """
    output = max((place for place, name in enumerate(table.names) if name != ROOT), default=0)
    sure = table.values - settings.noise_z * table.errors
    for places in _siblings(table.names):
        start = 0
        while start < len(places) - 1:
            stop = start + 1
            while stop < len(places) and (sure[places[stop], places[start:stop]] >= settings.alike).all():
                stop += 1
            run = places[start:stop]
            if any((table.split, table.names[place]) in weighty for place in run[1:] if place != output):
                yield _block(settings, table, run, n)
            start = stop if len(run) > 1 else start + 1


def _block(settings: Similarity, table: Table, run: list[int], n: int) -> Finding:
    values, errors = table.values[np.ix_(run, run)], table.errors[np.ix_(run, run)]
    least = np.unravel_index(int(values.argmin()), values.shape)
    first, last = table.names[run[0]], table.names[run[-1]]
    joined = f"{first} and {last}" if len(run) == 2 else f"{len(run)} layers from {first} to {last}"
    lowest, error = float(values[least]), float(errors[least])
    return settings.finding(
        "CK001", Outcome.TIP,
        f"{joined} give nearly the same representation: debiased CKA of {lowest:.3f} at least (n = {n})",
        layer=last, step=table.step, split=table.split,
        do="try the network without the later ones: skip or merge them, and measure what is lost",
        first=first, last=last, count=len(run), cka=lowest, standard_error=error, limit=settings.alike, n=n,
    )  # fmt: skip


def _still(settings: Similarity, rows: list[At], n: int) -> Iterator[Finding]:
    def lost(at: At) -> float:
        return 1 - at["cka_initial"] + settings.noise_z * at["cka_initial_se"]

    yield from together(
        settings, "CK002", [at for at in rows if lost(at) <= settings.still], lambda at: at["cka_initial"], len(rows),
        "gives nearly what it gave at step 0", lambda at: f"debiased CKA {at['cka_initial']:.4f} (n = {n})",
        do="if it is not frozen on purpose, check that gradients reach it, or raise its learning rate",
        evidence=lambda at: {
            "cka": at["cka_initial"], "standard_error": at["cka_initial_se"], "procrustes": at["procrustes_initial"],
            "limit": settings.still, "n": n,
        },
    )  # fmt: skip


def _few_examples(settings: Similarity, measured: Group) -> Iterator[Finding]:
    for split, rows in groupby(last_of(measured, "width"), key=lambda at: at.split):
        layers, n = list(rows), _n(measured, split)
        few = [at for at in layers if n < settings.examples_per_unit * at["width"]]
        null = [table.values for table in _tables_of_null(measured) if table.split == split]
        most = float(np.nanmax(null[0])) if null else float("nan")
        if not few or most < READS_HIGH:
            continue
        reads = f", up to {most:.2f} for shuffled examples" if null else ""
        yield settings.finding(
            "CK003", Outcome.SKIPPED,
            f"{len(few)} of {len(layers)} layers have fewer than {settings.examples_per_unit:g} examples a unit, where the "
            f"biased CKA reads high{reads}: {some([str(at.layer) for at in few])}",
            step=few[0].step, split=split, do="read the debiased CKA, or probe more examples",
            count=len(few), of=len(layers), n=n, widest=int(max(at["width"] for at in few)),
            limit=settings.examples_per_unit, null=most,
        )  # fmt: skip


def _tables_of_null(measured: Group) -> Iterator[Table]:
    for name in ("cka_biased_null", "cka_other_biased_null"):
        if name in measured:
            array = measured[name]
            for split in [str(s) for s in array.coords["split"].values] if "split" in array.dims else [None]:
                values = (array if split is None else array.sel(split=split)).values.astype(float)
                if np.isfinite(values).any():
                    yield Table([], 0, split, values, values)


def _apart(settings: Similarity, rows: list[At], n: int) -> Iterator[Finding]:
    """The first layer that surely differs, and the layers that surely do not."""
    spread = settings.noise_z
    rows = [at for at in rows if at.layer != ROOT] or rows
    differ = [at for at in rows if at["cka_same"] + spread * at["cka_same_se"] < settings.alike]
    alike = [at for at in rows if at["cka_same"] - spread * at["cka_same_se"] >= settings.alike]
    if differ:
        at, before = differ[0], rows.index(differ[0])
        yield settings.finding(
            "CK004", Outcome.TIP,
            f"The two networks part ways at {at.layer}: debiased CKA {at['cka_same']:.3f} (n = {n}); "
            f"{len(differ)} of {len(rows)} layers of the same name differ",
            **at.place, do="look at what differs from this layer on: its weights, its settings, what it was trained on",
            cka=at["cka_same"], standard_error=at["cka_same_se"], limit=settings.alike, before=before,
            count=len(differ), of=len(rows), n=n,
        )  # fmt: skip
    if alike:
        least = min(alike, key=lambda at: at["cka_same"])
        names = [str(at.layer) for at in alike]
        yield settings.finding(
            "CK005", Outcome.TIP,
            f"{len(alike)} of {len(rows)} layers {'give' if len(alike) > 1 else 'gives'} the same in both networks: "
            f"{some(names)}; debiased CKA of "
            f"{least['cka_same']:.3f} at least (n = {n})",
            step=least.step, split=least.split, do="share or freeze these layers, or compare what lies after them",
            layers=", ".join(names), count=len(alike), of=len(rows), cka=least["cka_same"],
            standard_error=least["cka_same_se"], limit=settings.alike, n=n,
        )  # fmt: skip
