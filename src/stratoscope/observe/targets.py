"""The checkpoints that one inspection is of: how each is opened, what it is called, and whether it can be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stratoscope.errors import SettingError, StratoscopeError, SubjectError
from stratoscope.network.layers import Catalogue, Layer
from stratoscope.network.subject import Subject
from stratoscope.network.weights import WeightSource
from stratoscope.observe.series import Series, different, find_series

Weights = WeightSource | Mapping[str, Tensor] | nn.Module | str | Path
"""What can be inspected."""

GENERIC = ("model", "pytorch_model", "weights", "checkpoint", "state_dict", "adapter_model", "variables", "data")
"""Names of files that say nothing of the network; the name of the folder says more."""


@dataclass
class Target:
    """One checkpoint.

    Attributes:
        name: for people.
        step: where it stands along `step`.
        make: opens it; what it holds is read when it is measured, so that few files are open at a time.
        path: where it lies; `None` for what is in memory.
        problem: why it cannot be opened; empty if it can.
        catalogue: its layers, if it can be opened.
    """

    name: str
    step: int
    make: Callable[[], Subject]
    path: Path | None = None
    problem: str = ""
    catalogue: Catalogue = field(default_factory=lambda: Catalogue({}))


@dataclass(frozen=True)
class Targets:
    """All checkpoints of one inspection, in order of step.

    Attributes:
        name: of the network or the run, for people.
        every: at least one, of which at least one can be opened.
        series: how they lie along the training; `None` for a single one.
    """

    name: str
    every: tuple[Target, ...]
    series: Series | None = None

    @property
    def paths(self) -> list[Path]:
        """Where they lie; empty for what is in memory."""
        return [target.path for target in self.every if target.path is not None]

    @property
    def readable(self) -> list[Target]:
        """Those that can be opened."""
        return [target for target in self.every if not target.problem]

    @property
    def catalogue(self) -> Catalogue:
        """The layers of all of them; what several have is as the last one has it."""
        catalogues = [target.catalogue for target in self.readable]
        if len(catalogues) == 1:
            return catalogues[0]
        layers: dict[str, Layer] = {}
        for catalogue in catalogues:
            for name, layer in catalogue.layers.items():
                layers[name] = _merged(layers[name], layer) if name in layers else layer
        notes = dict.fromkeys(note for catalogue in catalogues for note in catalogue.notes)
        return Catalogue(layers, tuple(notes))

    def differences(self) -> str:
        """A sentence on the tensors that only some of them have; empty where all have the same."""
        own = [target.catalogue.params.keys() for target in self.readable]
        some = sorted(name for name in self.catalogue.params if not all(name in keys for keys in own))
        if not some:
            return ""
        names = ", ".join(some[:3]) + (f" and {len(some) - 3} more" if len(some) > 3 else "")
        return f"{len(some)} tensor{'s are' if len(some) > 1 else ' is'} not in every checkpoint: {names}."

    def about(self) -> dict[str, Any]:
        """What the record says of a series: the files, and what `step` is."""
        assert self.series is not None
        return {
            "step": self.series.axis,
            "checkpoints": [
                {"step": target.step, "name": target.name, "path": str(target.path), "problem": target.problem}
                for target in self.every
            ],
            "left_out": list(self.series.left_out),
        }


def targets_of(weights: Sequence[Weights], name: str = "", **options: Any) -> Targets:
    """Open what an inspection is of.

    Args:
        weights: paths and patterns, or one state dict, source of weights or module.
        name: of the network, for people; found from the paths where it is empty.
        **options: of the subjects, such as `heads` and `seed`.

    Raises:
        StratoscopeError: if nothing can be opened, or the checkpoints are of different networks.
    """
    paths = [one for one in weights if isinstance(one, str | Path)]
    if len(paths) < len(weights) and len(weights) > 1:
        raise SettingError("Several checkpoints are given as paths; of a state dict or a module give one.")
    if not paths:
        return _in_memory(weights, name, options)
    found = find_series(paths)
    if isinstance(found, Path):
        return _single(found, name or name_of(found), options)
    every = tuple(_opened(one.path, one.name, one.step, options)[0] for one in found.checkpoints)
    targets = Targets(name or _name_of_series(found), every, found)
    _check(targets)
    return targets


def _in_memory(weights: Sequence[Weights], name: str, options: Mapping[str, Any]) -> Targets:
    if not weights:
        raise SettingError("Nothing was given to inspect; name a file, a folder, a state dict or a module.")
    (one,) = weights
    if isinstance(one, nn.Module):
        subject = Subject(one, name=name or type(one).__name__, **options)
    else:
        subject = Subject(weights=one, name=name or "weights", **options)
    return Targets(subject.name, (Target(subject.name, 0, lambda: subject, catalogue=subject.catalogue),))


def _single(path: Path, name: str, options: Mapping[str, Any]) -> Targets:
    target, error = _opened(path, name, 0, options)
    if error is not None:
        raise error
    return Targets(name, (target,))


def _opened(path: Path, name: str, step: int, options: Mapping[str, Any]) -> tuple[Target, StratoscopeError | None]:
    target = Target(name, step, lambda: Subject.open(path, name=name, **options), path)
    try:
        target.catalogue = target.make().catalogue
    except StratoscopeError as error:
        target.problem = str(error)
        return target, error
    return target, None


def _check(targets: Targets) -> None:
    """Refuse a series of which nothing can be opened, or that is of several networks."""
    if not targets.readable:
        target = targets.every[0]
        raise SubjectError(f"None of the {len(targets.every)} checkpoints can be opened; the first: {target.problem}")
    first = targets.readable[0]
    for other in targets.readable[1:]:
        why = different(first.make().source, other.make().source)
        if why:
            raise SubjectError(
                f"{first.name} and {other.name} are no checkpoints of one network ({why}); inspect them one by one."
            )


def name_of(path: Path) -> str:
    """What to call a checkpoint: its file's name, or the folder's where the file's says nothing.

    >>> name_of(Path("lenet/model.safetensors")), name_of(Path("runs/step_20.pt"))
    ('lenet', 'step_20')
    """
    if path.is_dir():
        return path.resolve().name
    stem = path.name.removesuffix(".index.json")
    stem = stem.rpartition(".")[0] or stem
    return stem if stem.lower() not in GENERIC else path.resolve().parent.name or stem


def _name_of_series(series: Series) -> str:
    parents = {one.path.resolve().parent for one in series.checkpoints}
    parent = parents.pop() if len(parents) == 1 else Path(_shared(series))
    return f"{parent.name or 'series'}, {len(series.checkpoints)} checkpoints"


def _shared(series: Series) -> str:
    return os.path.commonpath([str(one.path.resolve()) for one in series.checkpoints])


def _merged(old: Layer, new: Layer) -> Layer:
    """The newer one, with the params and matrices that only the older one has."""
    params = {param.name: param for param in (*old.params, *new.params)}
    matrices = {matrix.name: matrix for matrix in (*old.matrices, *new.matrices)}
    return replace(new, params=tuple(params.values()), matrices=tuple(matrices.values()))
