r"""Identical output networks: another network that says the same, and whose layer has other statistics.

A layer's activations $z$ are read by a linear map $W z + c$. For any invertible $A$ and any $b$ the network with
$z' = A z + b$, $W' = W A^{-1}$, $c' = c - W A^{-1} b$ gives the same output for every input. So whatever changes from $z$ to
$z'$ (correlations, stable ranks, CKA, GDV, binned information, ...) cannot by itself explain what the network does. With a
rectifier between the two linear maps only positive factors and an order of units get through.

Source: Choi et al., arXiv:1811.03666.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.capture.activations import Activations, Sample
from stratoscope.capture.graph import tensors_in
from stratoscope.capture.restore import on_host, untouched
from stratoscope.capture.running import call
from stratoscope.capture.views import Capture
from stratoscope.errors import NotApplicable, SettingError, SubjectError
from stratoscope.network.subject import Subject
from stratoscope.network.unwrap import unwrap
from stratoscope.numerics.change_of_basis import (
    ChangeOfBasis,
    correlating,
    permuting,
    rescaling,
    rotating,
    whitening,
)
from stratoscope.numerics.matrices import not_finite
from stratoscope.numerics.scatter import Scatter
from stratoscope.observe.functions import FunctionGraph
from stratoscope.observe.refit import refitted
from stratoscope.observe.region import Region, names_of, region_of
from stratoscope.observe.twin_table import Compared, compare

TARGETS = ("whiten", "correlate", "rescale", "rotate", "permute")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Largest difference of outputs, as a share of the largest output or of 1."""

CONDITION = {torch.float64: 1e4, torch.float32: 1e3}
"""Limit of the condition of a map, by which rounding may grow."""

_ALL = 2**31 - 1
"""Units are not projected."""


@dataclass(frozen=True)
class Twin:
    """A network with the outputs of another one and other statistics at one layer.

    Attributes:
        model: the twin, in eval mode, in float32 where the model is in half precision; nothing in it is the model's own.
        layer: whose statistics were changed.
        target: how.
        change: the map from the layer's activations to those of the twin.
        difference: largest absolute difference of outputs over all examples, in the twin's own precision.
        relative: the same over the largest output.
        difference_float64: the same as `difference` when both run in float64: how exact the construction is.
        n: examples.
        table: for each statistic its value before and after, and what theory says; measured in float64.
        notes: what else is to be known, in sentences.
    """

    model: nn.Module
    layer: str
    target: str
    change: ChangeOfBasis
    difference: float
    relative: float
    difference_float64: float
    n: int
    table: Mapping[str, Compared]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The table for people."""
        head = f"{self.target} at {self.layer}: outputs differ by {self.difference:.2g} over {self.n} examples"
        lines = [f"{'statistic':<28}{'before':>12}{'after':>12}  theory"]
        for name, row in self.table.items():
            theory = "must stay" if row.stays else "may change"
            lines.append(f"{name:<28}{row.before:>12.5g}{row.after:>12.5g}  {theory}{', changed' * row.changed}")
        return "\n".join([head, *lines, *self.notes])


@on_host()
def identical_output(
    model: nn.Module,
    layer: str,
    data: Any,
    *,
    target: str = "whiten",
    labels: Any = None,
    probe: int = 1000,
    batch_size: int = 128,
    seed: int = 0,
    spread: float = 10.0,
    correlation: float = 0.9,
    condition: float | None = None,
) -> Twin:
    """A twin of a network: the same output for every input in eval mode, other activations at one layer.

    ```python
    twin = identical_output(model, "fc5", (images, labels), target="rotate")
    print(twin)  # the statistics before and after
    ```

    The change enters at the linear map (linear layer, convolution) that makes the layer's units, and is undone in those
    that read them. `"whiten"` (no correlations, mean 0 and variance 1), `"correlate"` (the same correlation for all pairs)
    and `"rotate"` need nothing between the two that treats units differently; dropout, averages over positions, batch norm
    with running statistics, flattening and border padding are no obstacle. `"rescale"` (a positive factor for each unit)
    and `"permute"` pass rectifiers and maxima, too, and an order of units passes any function that looks at each number
    alone. Everything else is refused, with the reason; and outputs are compared on all the data before a twin is returned.

    The twin has the model's architecture: no bias is added where there is none. Then, and where a border of zeros is put
    around a map, `b = 0`, so that whitened units keep a mean. Weights are worked out in float64.

    Args:
        model: the network; it stays as it is.
        layer: a module path.
        data: as for `examine`; of several splits the first.
        target: one of `TARGETS`.
        labels: labels of `data`, where it does not hold them.
        probe: examples that are drawn, to find the map, to compare outputs and to measure statistics.
        batch_size: examples a forward pass.
        seed: of the draw of examples and of the map.
        spread: factors lie between `1 / spread` and `spread` (rescale).
        correlation: between every two units (correlate).
        condition: limit of the condition number of the map; 1e4 for networks in float64, else 1e3. Directions of less
            variance than the largest over its square are not whitened fully.

    Raises:
        SubjectError: if there is no such twin, or rounding makes it differ by more than 1e-10 in float64 or 1e-4 in
            float32 of the largest output (or of 1).
        SettingError: if the target, the layer or another setting does not exist or is out of range.
        DataError: if the data cannot be read.
    """
    if target not in TARGETS:
        raise SettingError(f"There is no target {target!r}; there are {', '.join(TARGETS)}.")
    own, notes = _copied(model)
    kind = _kind(own)
    subject = _in_float64(Subject(own, data, labels=labels, probe=probe, batch_size=batch_size, seed=seed))
    if layer not in subject.catalogue.layers or subject.catalogue[layer].module is None:
        raise SettingError(f"There is no layer {layer!r}; there are {', '.join(list(subject.catalogue.layers)[1:9])}.")
    sample = _sample(subject, layer)
    change = _change(sample, target, seed, spread, correlation, condition or CONDITION[kind], layer)
    region = _region(subject, layer, change, sample.features.shape[1])
    if change.shifts and region.shift:
        change = change.without_shift
        notes.append(f"Means are kept: {region.shift}.")
    wide = subject.model
    assert wide is not None
    tensors = refitted(region, change, names_of(wide))
    twin, other = _with(own, tensors), replace(subject, model=_with(wide, tensors))
    exact, largest = _difference(wide, other.model, subject, layer)
    difference = exact
    if kind != torch.float64:
        difference, largest = _difference(own, twin, subject, layer)
    notes.append(f"Statistics are of {sample.note}, in float64.")
    return Twin(
        twin, layer, target, change, difference, difference / largest if largest else 0.0, exact, len(sample.features),
        compare(sample, _sample(other, layer), change), tuple(notes),
    )  # fmt: skip


def _copied(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy that may be changed, in eval mode and at least float32, and what is to be said of it."""
    own = copy.deepcopy(unwrap(model)).eval()
    if not any(p.is_floating_point() and p.dtype.itemsize < 4 for p in own.parameters()):
        return own, []
    return own.float(), ["The model is in half precision; the twin is in float32."]


def _kind(model: nn.Module) -> torch.dtype:
    return torch.float64 if any(p.dtype == torch.float64 for p in model.parameters()) else torch.float32


def _in_float64(subject: Subject) -> Subject:
    """The same with a copy of the network in float64, where there is such a type."""
    assert subject.module is not None
    device = "cpu" if subject.device.type == "mps" else subject.device
    return replace(subject, model=copy.deepcopy(subject.module).to(device, torch.float64))


def _region(subject: Subject, layer: str, change: ChangeOfBasis, width: int) -> Region:
    assert subject.model is not None
    region = region_of(_graph(subject, layer), subject.model, layer, change.groups)
    if width != region.units:
        raise SubjectError(
            f"There is no twin by a change of units at {layer}: its output has {width} numbers for {region.units} units "
            "of the map before; take a layer where they are not yet laid out flat."
        )
    return region


def _split(subject: Subject) -> str:
    if not subject.splits:
        raise SubjectError("A twin is compared on data, and none were given.")
    return next(iter(subject.splits))


def _graph(subject: Subject, layer: str) -> FunctionGraph:
    """What the first batch goes through."""
    model, module, graph = subject.module, subject.catalogue[layer].module, FunctionGraph()
    assert model is not None
    assert module is not None
    batch = subject.probe_set(_split(subject)).batches[0].to(subject.device, torch.float64)
    try:
        with untouched(model), torch.no_grad(), graph.watching(model, module):
            graph.returns(call(model, batch))
    except RuntimeError as error:
        raise SubjectError(f"The model cannot be run in float64: {error}.") from error
    return graph


def _sample(subject: Subject, layer: str) -> Sample:
    need = Activations(n=subject.probe, width=_ALL)
    capture = Capture(subject, frozenset({need}), patterns=(layer,))
    try:
        found = capture.value(need, subject.catalogue[layer], _split(subject))
    except NotApplicable as reason:
        raise SubjectError(f"There is no twin by a change of units at {layer}: {reason}.") from reason
    assert isinstance(found, Sample)
    if len(found.features) < 2 or not_finite(found.features):
        raise SubjectError(f"Statistics of {layer} need two examples or more, and finite activations.")
    return found


def _change(
    sample: Sample, target: str, seed: int, spread: float, correlation: float, condition: float, layer: str
) -> ChangeOfBasis:
    units = sample.features.shape[1]
    scatter = Scatter()
    scatter.update(sample.features)
    found = scatter.result()
    try:
        match target:
            case "whiten":
                return whitening(found.mean, found.covariance, condition=condition)
            case "correlate":
                return correlating(found.mean, found.covariance, correlation=correlation, condition=condition)
            case "rescale":
                return rescaling(units, spread=spread, seed=seed)
            case "rotate":
                return rotating(units, seed=seed)
            case _:
                return permuting(units, seed=seed)
    except ValueError as error:
        raise SettingError(f"{layer} cannot be made to {target}: {error}") from error


def _with(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a model with other numbers in some of its tensors."""
    twin = copy.deepcopy(model)
    own = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)
    return twin


def _difference(model: nn.Module, twin: nn.Module | None, subject: Subject, layer: str) -> tuple[float, float]:
    """Largest absolute difference of all outputs, and the largest output.

    Raises:
        SubjectError: if it is above the tolerance.
    """
    assert twin is not None
    probe, at, kind = subject.probe_set(_split(subject)), Subject(model), _kind(model)
    tolerance = TOLERANCE[kind]
    worst = largest = 0.0
    with untouched(model), untouched(twin), torch.no_grad():
        for batch in probe.batches:
            one, two = (call(net, batch.to(at.device, kind)) for net in (model, twin))
            for a, b in zip(tensors_in(one), tensors_in(two), strict=True):
                if a.is_floating_point() and a.numel():
                    worst = max(worst, float((a - b).abs().max()))
                    largest = max(largest, float(a.abs().max()))
    if not worst <= tolerance * max(1.0, largest):
        raise SubjectError(
            f"The twin at {layer} would differ by {worst:.2g} where outputs are up to {largest:.2g} and {tolerance:.0e} is "
            "allowed; give a smaller condition, or run the model in float64."
        )
    return worst, largest
