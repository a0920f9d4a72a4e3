"""The functions of tensors that one forward pass calls, as a graph: which value goes into which function.

`capture.graph` follows tensors from layer to layer; this follows them through every function, with its arguments, so that
one can tell what may be done to a value without anybody noticing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stratoscope.capture.batch import find_tensor
from stratoscope.capture.graph import tensors_in

HARMLESS = {
    "size", "dim", "numel", "nelement", "stride", "element_size", "get_device", "is_contiguous", "is_floating_point",
    "is_complex", "is_nested", "data_ptr", "__len__", "__get__", "ndimension", "storage_offset", "_version",
}  # fmt: skip
"""Questions about a tensor whose answers do not depend on its numbers."""

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
SIGNATURES: Mapping[str, tuple[str, ...]] = {
    "linear": ("input", "weight", "bias"),
    **{f"conv{d}d": _CONV for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": _TRANSPOSED for d in (1, 2, 3)},
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    **{name: ("input", "p", "training", "inplace") for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")},
    **{f"avg_pool{d}d": ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override") for d in (1, 2, 3)},
    "mean": ("input", "dim", "keepdim"),
    "pad": ("input", "pad", "mode", "value"),
    "prelu": ("input", "weight"),
    "leaky_relu": ("input", "negative_slope", "inplace"),
    "leaky_relu_": ("input", "negative_slope"),
    "transpose": ("input", "dim0", "dim1"),
}  # fmt: skip
"""Names of the arguments of functions that are looked into."""


@dataclass(frozen=True)
class Call:
    """One function that was called.

    Attributes:
        name: of the function, such as `"conv2d"`.
        home: the module it comes from; empty for methods.
        given: arguments by name, for functions of `SIGNATURES`; others under `"args"`.
        inputs: numbers of the values that went in, params not among them.
        outputs: numbers of the values that came out.
        shapes: of the first input and the first output.
    """

    name: str
    home: str
    given: Mapping[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]


@dataclass
class FunctionGraph:
    """What one forward pass did.

    Every value has a number. A function that works in place gives a new one to the tensor that it changes.

    Attributes:
        calls: in order.
        uses: how often each param or buffer went into a function, by `id`.
        at_layer: the values that the layer gave, one for each of its calls; `-1` where it gave no tensor.
        returned: the values that the network gave.
    """

    calls: list[Call] = field(default_factory=list)
    uses: Counter[int] = field(default_factory=Counter)
    at_layer: list[int] = field(default_factory=list)
    returned: tuple[int, ...] = ()
    _owned: set[int] = field(default_factory=set)
    _numbers: dict[int, int] = field(default_factory=dict)
    _alive: list[Tensor] = field(default_factory=list)
    _next: int = 0

    def consumers(self, value: int) -> list[Call]:
        """The functions that a value goes into."""
        return [call for call in self.calls if value in call.inputs]

    def producer(self, value: int) -> Call | None:
        """The function that a value comes from; `None` for what the network was given."""
        return next((call for call in self.calls if value in call.outputs), None)

    def record(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function, and note it."""
        found = list(tensors_in((args, dict(kwargs))))
        inputs = tuple(self._number(tensor) for tensor in found if id(tensor) not in self._owned)
        before = next((tuple(tensor.shape) for tensor in found if id(tensor) not in self._owned), ())
        given = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        outputs = tuple(self._renumber(tensor) for tensor in tensors_in(given) if id(tensor) not in self._owned)
        if outputs or name not in HARMLESS:
            self.uses.update(id(tensor) for tensor in found if id(tensor) in self._owned)
        if inputs and (outputs or name not in HARMLESS):
            after = next((tuple(tensor.shape) for tensor in tensors_in(given)), ())
            home = getattr(func, "__module__", None) or ""
            self.calls.append(Call(name, home, _named(name, args, kwargs), inputs, outputs, (before, after)))
        return given

    @contextmanager
    def watching(self, model: nn.Module, layer: nn.Module) -> Iterator[None]:
        """Record all that happens within a `with`.

        Args:
            model: whose params are no values.
            layer: whose outputs are noted.
        """
        owned: list[Tensor] = [*model.parameters(), *model.buffers()]
        self._owned = {id(tensor) for tensor in owned}
        self._alive += owned
        handle = layer.register_forward_hook(self._at_layer)
        try:
            with _Watch(self):
                yield
        finally:
            handle.remove()
            self._alive.clear()  # numbers stay, tensors go

    def returns(self, output: Any) -> None:
        """Note what the network gave; within the `with`."""
        with torch._C.DisableTorchFunction():
            self.returned = tuple(self._number(tensor) for tensor in tensors_in(output))

    def _at_layer(self, _: nn.Module, __: Any, output: Any) -> None:
        with torch._C.DisableTorchFunction():
            found = find_tensor(output)
            self.at_layer.append(self._number(found) if isinstance(found, Tensor) else -1)

    def _number(self, tensor: Tensor) -> int:
        if id(tensor) not in self._numbers:
            return self._renumber(tensor)
        return self._numbers[id(tensor)]

    def _renumber(self, tensor: Tensor) -> int:
        self._alive.append(tensor)  # so that no other tensor gets its id
        self._numbers[id(tensor)] = self._next
        self._next += 1
        return self._numbers[id(tensor)]


class _Watch(TorchFunctionMode):
    def __init__(self, graph: FunctionGraph) -> None:
        super().__init__()
        self._graph = graph

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._graph.record(func, args, kwargs or {})


def _named(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    names = SIGNATURES.get(name, ())
    if len(args) > len(names):
        return {"args": args, **kwargs}
    found = dict(zip(names, args, strict=False)) | dict(kwargs)
    if "self" in found:
        found["input"] = found.pop("self")
    return found | {"args": args}
