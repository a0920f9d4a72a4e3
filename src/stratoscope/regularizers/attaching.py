"""Attach penalties to layers of a model that stays as it is, for the length of a `with`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from stratoscope.errors import SettingError
from stratoscope.regularizers.penalties import unit_rows

AnyPenalty = Callable[[Tensor, Tensor | None], Tensor]
"""Called with examples x units, and the labels or `None`."""


def attach(model: nn.Module, penalties: Mapping[str, AnyPenalty], coefficient: float = 1.0) -> Attached:
    """Collect what layers say while the model runs, and make penalties of it.

    ```python
    with attach(model, {"fc5": Correlation(classwise=True)}, coefficient=0.1) as extra:
        loss = criterion(model(x), y) + extra(y)
    ```

    The model gets a hook at each of these layers and one at itself, which go when the `with` ends (or with
    `extra.remove()`); nothing else of it changes, and its outputs stay the same bit for bit. Several may be attached at
    once, to the same layers too. With the coefficient 0 the penalty is an exact zero without a gradient, so that
    training equals the one without it bit for bit.

    A layer that runs several times within one forward pass pays for each time. What a layer returns is taken as it was
    then, also where an in-place function follows. Three axes are read as examples, tokens, units, but for layers made for
    one spatial axis (`Conv1d`, `BatchNorm1d`, ...): attach to these and not to an activation behind them. Attach before
    `torch.compile`.

    Args:
        model: any module; call it, and not its parts, for each batch.
        penalties: for each layer, by its module path, a `Penalty`, or any callable of `(rows, labels)`.
        coefficient: what the sum of the penalties is multiplied by; negative to raise the statistics. It may be changed
            during training: `extra.coefficient = ...`.

    Raises:
        SettingError: if there is no such layer, no penalty, or the coefficient is not finite.

    >>> from stratoscope.regularizers import Sparsity
    >>> model = nn.Sequential(nn.Identity(), nn.Flatten())
    >>> with attach(model, {"0": Sparsity()}, coefficient=0.5) as extra:
    ...     _ = model(torch.tensor([[1.0, -3.0]]))
    ...     extra().item()
    1.0
    """
    return Attached(model, penalties, coefficient)


class Attached:
    """Penalties that are attached to a model; made by `attach`.

    Attributes:
        coefficient: what the sum of the penalties is multiplied by; may be set at any time.
        penalties: for each layer its penalty.
        last: for each layer the last value of its penalty, not multiplied, out of the graph.
    """

    def __init__(self, model: nn.Module, penalties: Mapping[str, AnyPenalty], coefficient: float = 1.0) -> None:
        """Use `attach` instead."""
        if not penalties:
            raise SettingError("There is no penalty to attach; give some, such as {'fc2': StableRank()}.")
        if bare := [name for name, penalty in penalties.items() if isinstance(penalty, type) or not callable(penalty)]:
            raise SettingError(
                f"The penalty of {bare[0]} is {penalties[bare[0]]!r}, which is none; give one, such as StableRank()."
            )
        self.coefficient = _finite(coefficient)
        self.penalties = dict(penalties)
        self.last: dict[str, Tensor] = {}
        self._rows: dict[str, list[Tensor]] = {}
        self._used = False
        modules = {name: _layer(model, name) for name in penalties}
        self._handles = [model.register_forward_pre_hook(self._begin)]
        for name, module in modules.items():
            self._handles.append(module.register_forward_hook(self._keep(name, _channels_first(module))))

    def __call__(self, labels: Tensor | None = None) -> Tensor:
        """The coefficient times the sum of the penalties of the last forward pass.

        Args:
            labels: class of each example, for class-wise penalties.

        Raises:
            SettingError: if the layers were not called since the hooks were attached, labels are missing, or the
                coefficient was set to what is not finite.
        """
        missing = [name for name in self.penalties if name not in self._rows]
        if missing:
            raise SettingError(f"The layer {missing[0]} was not called; run the model before its penalty is asked for.")
        self._used = True
        first = next(iter(self._rows.values()))[0]
        total = torch.zeros((), dtype=first.dtype, device=first.device)
        if _finite(self.coefficient) == 0.0:
            return total
        for name, penalty in self.penalties.items():
            own = torch.stack([penalty(rows, labels) for rows in self._rows[name]]).sum()
            self.last[name] = own.detach()
            total = total + own.to(total.device)
        return self.coefficient * total

    def remove(self) -> None:
        """Take the hooks away; once more does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._rows.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.remove()

    def _begin(self, *_: Any) -> None:
        self._rows.clear()

    def _keep(self, name: str, channels_first: bool) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if self._used:  # parts of the model were called by themselves, for another batch
                self._rows.clear()
                self._used = False
            z = _tensor_of(output, name)
            rows = unit_rows(z.mT if channels_first and z.ndim == 3 else z)
            # a function in place may follow and change what the layer gave
            self._rows.setdefault(name, []).append(rows.clone() if z.ndim < 3 else rows)

        return hook


def _finite(coefficient: float) -> float:
    if not math.isfinite(coefficient):
        raise SettingError(f"The coefficient {coefficient} of a penalty is not finite.")
    return float(coefficient)


def _layer(model: nn.Module, name: str) -> nn.Module:
    known: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise SettingError(f"There is no layer {name!r}; there are {', '.join(filter(None, list(known)[:9]))}.{meant}")


def _channels_first(module: nn.Module) -> bool:
    """Whether three axes of its output are examples, channels, positions."""
    kinds = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.GroupNorm, nn.MaxPool1d, nn.AvgPool1d)
    return isinstance(module, (*kinds, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d))


def _tensor_of(output: Any, name: str) -> Tensor:
    """What a layer gave, or the first of several things that it gave."""
    first = output
    while isinstance(first, (tuple, list)) and first:
        first = first[0]
    if not isinstance(first, Tensor):
        raise SettingError(f"The layer {name} gives {type(output).__name__}, which no penalty can be made of.")
    return first
