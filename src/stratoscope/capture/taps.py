"""Hooks on every layer and on functional activations, for the length of a `with`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stratoscope.capture.graph import Flow
from stratoscope.capture.needs import Site
from stratoscope.network.layers import ROOT, Catalogue, Layer

MAX_CALLS = 16
"""Calls of one module within one forward pass that are told apart; an unrolled loop goes on without being looked at."""

_FUNCTIONAL: dict[str, tuple[str, ...]] = {
    "relu": ("relu", "relu_"),
    "relu6": ("relu6",),
    "leaky_relu": ("leaky_relu", "leaky_relu_"),
    "elu": ("elu", "elu_"),
    "selu": ("selu", "selu_"),
    "celu": ("celu", "celu_"),
    "gelu": ("gelu",),
    "silu": ("silu",),
    "mish": ("mish",),
    "softplus": ("softplus",),
    "softsign": ("softsign",),
    "hardtanh": ("hardtanh", "hardtanh_"),
    "hardswish": ("hardswish",),
    "hardsigmoid": ("hardsigmoid",),
    "tanh": ("tanh", "tanh_"),
    "sigmoid": ("sigmoid", "sigmoid_"),
    "threshold": ("threshold", "threshold_"),
    "prelu": ("prelu",),
    "rrelu": ("rrelu", "rrelu_"),
}
_OWN_FUNCTIONS = ("activation", "recurrent", "attention")
"""Kinds of layers whose calls of these functions are their own business."""


def _functions() -> dict[Callable[..., Any], str]:
    found: dict[Callable[..., Any], str] = {}
    for activation, names in _FUNCTIONAL.items():
        for name in names:
            for home in (F, torch, torch.Tensor):
                function = getattr(home, name, None)
                if function is not None:
                    found[function] = activation
    return found


_ACTIVATIONS = _functions()

Seen = Callable[[Site, str, Any], None]
"""Called with a site, `"input"` or `"output"`, and what passed there."""


@dataclass
class Taps:
    """Watches one model's forward passes and tells `seen` what each layer was given and gave.

    Attributes:
        model: the model; untouched but for hooks, which go when the `with` ends.
        catalogue: its layers.
        seen: who is told.
        listening: set to `False` to let a pass go by (a checkpointed block's second forward).
        skipped: how often a call beyond `MAX_CALLS` went by, for each layer.
        flow: follows tensors from layer to layer, for as long as it is there.
    """

    model: nn.Module
    catalogue: Catalogue
    seen: Seen
    listening: bool = True
    skipped: Counter[str] = field(default_factory=Counter)
    flow: Flow | None = None
    _calls: Counter[str] = field(default_factory=Counter)
    _inside: list[Layer] = field(default_factory=list)
    _found: dict[str, Layer] = field(default_factory=dict)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Put the hooks in place for the length of a `with`."""
        with ExitStack() as stack:
            for layer in self.catalogue.layers.values():
                if layer.module is not None:
                    stack.callback(layer.module.register_forward_pre_hook(self._enter(layer), with_kwargs=True).remove)
                    stack.callback(layer.module.register_forward_hook(self._leave(layer), always_call=True).remove)
            stack.enter_context(_FunctionWatch(self))
            yield

    def _enter(self, layer: Layer) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if layer.name == ROOT:
                self._calls.clear()
                self._inside.clear()
            self._follow(layer, args, kwargs)
            self._inside.append(layer)
            if self.listening:
                self._tell(layer, "input", args or tuple(kwargs.values()), self._calls[layer.name] + 1)

        return hook

    def _leave(self, layer: Layer) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if self._inside:
                self._inside.pop()
            if self.flow is not None and layer.kind != "block":
                self.flow.leave(layer.name, output)
            if self.listening and output is not None:
                self._calls[layer.name] += 1
                self._tell(layer, "output", output, self._calls[layer.name])

        return hook

    def _follow(self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.flow is None:
            return
        if layer.name == ROOT:
            self.flow.begin((args, kwargs))
        if layer.kind != "block":
            self.flow.enter(layer.name, (args, kwargs))

    def function(self, activation: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """A functional activation was called inside the innermost layer."""
        if not (self.listening and self._inside) or self._inside[-1].kind in _OWN_FUNCTIONS:
            return
        home = self._inside[-1].name
        name = f":{activation}" if home == ROOT else f"{home}:{activation}"
        depth = len(self.catalogue) + len(self._found)
        layer = self._found.setdefault(name, Layer(name, "activation", depth, activation=activation))
        if activation in _SET_BY_THE_CALL:
            # two calls in one place may differ in their bounds
            layer = replace(layer, module=_SET_BY_THE_CALL[activation](args, kwargs))
        self._calls[name] += 1
        if self.flow is not None:
            self.flow.enter(name, args)
            self.flow.leave(name, output)
        self._tell(layer, "output", output, self._calls[name])

    def _tell(self, layer: Layer, where: str, what: Any, call: int) -> None:
        if call > MAX_CALLS:
            self.skipped[layer.name] += where == "output"
            return
        # what the listener computes is not the model's doing, and not the business of modes that see every function
        self.listening = False
        try:
            with torch._C.DisableTorchFunction():
                self.seen(Site(layer, call), where, what)
        finally:
            self.listening = True


def _hardtanh(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> nn.Hardtanh:
    """The module that clips as this call of the function did."""
    given = {**dict(zip(("input", "min_val", "max_val"), args, strict=False)), **kwargs}
    module = nn.Hardtanh()
    # set, not passed: the function takes two equal bounds, the module's constructor does not
    module.min_val, module.max_val = float(given.get("min_val", -1.0)), float(given.get("max_val", 1.0))
    return module


def _threshold(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> nn.Threshold:
    """The module that cuts off as this call of the function did."""
    given = {**dict(zip(("input", "threshold", "value"), args, strict=False)), **kwargs}
    return nn.Threshold(float(given["threshold"]), float(given["value"]))


_SET_BY_THE_CALL: dict[str, Callable[[tuple[Any, ...], Mapping[str, Any]], nn.Module]] = {
    "hardtanh": _hardtanh,
    "threshold": _threshold,
}
"""Functions whose outputs are read by the bounds of the call, and the modules that have these."""


class _FunctionWatch(TorchFunctionMode):
    """Sees `F.relu(x)` where no module is called."""

    def __init__(self, taps: Taps) -> None:
        super().__init__()
        self._taps = taps

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if self._taps.flow is not None and self._taps.listening:
            self._taps.flow.through(output, (args, kwargs or {}))
        activation = _ACTIVATIONS.get(func)
        if activation is not None and isinstance(output, Tensor):
            self._taps.function(activation, args, kwargs or {}, output)
        return output
