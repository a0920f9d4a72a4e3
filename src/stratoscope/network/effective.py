"""The weight that a layer computes with, where what is stored is something else: weight norm, pruning, parametrizations."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm as SpectralNormHook
from torch.nn.utils.weight_norm import WeightNorm as WeightNormHook

from stratoscope.network.views import Masked, SpectralNorm, View, WeightNorm

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """A tensor that a layer computes with: one stored tensor, or one made from several.

    Attributes:
        leaf: its plain name within the layer, such as `"weight"`.
        params: exact keys of the stored tensors.
        shape: its sizes.
        view: makes it from the stored tensors; `None` where it is stored as it is.
        law: `"parametrized"` where the noise in it is not that of independent entries; see `Matrix`.
    """

    leaf: str
    params: tuple[str, ...]
    shape: Shape
    view: View | None = None
    law: str = "entries"


@dataclass(frozen=True, eq=False)
class Parametrized:
    """Runs a parametrization on given tensors; neither the live module nor the tensors are changed.

    Attributes:
        skeleton: a copy of the parametrization in eval mode, so that no power iteration runs.
        names: what the tensors are called within it.
    """

    skeleton: nn.Module
    names: tuple[str, ...]

    def __call__(self, *tensors: Tensor) -> Tensor:
        """The effective weight."""
        own = [
            tensor if name.startswith("original") else tensor.clone()
            for name, tensor in zip(self.names, tensors, strict=True)
        ]
        with torch.no_grad():
            made: Tensor = functional_call(self.skeleton, dict(zip(self.names, own, strict=True)), ())
        return made


def parametrized_slots(module: nn.Module, prefix: str) -> Iterator[Slot | tuple[tuple[str, ...], str]]:
    """What `torch.nn.utils.parametrize` makes of a module's weights.

    Args:
        module: the parametrized module.
        prefix: what its keys in the state dict begin with.

    Yields:
        A slot for each effective weight; or the keys, and the reason why it cannot be computed.
    """
    if not parametrize.is_parametrized(module):
        return
    lists = module.parametrizations
    assert isinstance(lists, nn.ModuleDict)
    for leaf, makers in lists.items():
        tensors: dict[str, Tensor] = dict(makers.named_parameters(remove_duplicate=False))
        tensors |= dict(makers.named_buffers(remove_duplicate=False))
        stored = makers.state_dict(keep_vars=True)
        tensors = {name: value for name, value in tensors.items() if name in stored}
        keys = tuple(f"{prefix}parametrizations.{leaf}.{name}" for name in tensors)
        try:
            # Copies the modules but not their tensors, so that a large weight is not held twice.
            skeleton = copy.deepcopy(makers, {id(value): value for value in tensors.values()}).eval()
            view = Parametrized(skeleton, tuple(tensors))
            yield Slot(leaf, keys, _shape_of(view, tensors), view, _law(makers))
        except Exception as error:
            yield keys, f"its parametrization cannot be evaluated ({type(error).__name__}: {error})"


def _law(makers: nn.Module) -> str:
    """Weight norm and spectral norm scale rows or the whole, which leaves independent entries independent."""
    scalings = (_WeightNorm, _SpectralNorm)
    return "entries" if all(isinstance(maker, scalings) for maker in makers.children()) else "parametrized"


def _shape_of(view: Parametrized, tensors: Mapping[str, Tensor]) -> Shape:
    try:
        return tuple(view(*(value.detach().to("meta") for value in tensors.values())).shape)
    except (RuntimeError, NotImplementedError):  # what it does depends on numbers, or meta tensors cannot do it
        return tuple(view(*(value.detach() for value in tensors.values())).shape)


def hooked_names(module: nn.Module) -> dict[str, tuple[tuple[str, ...], View]]:
    """The weights that forward hooks compute: old-style weight norm, spectral norm, and pruning.

    Returns:
        For each, the names of the stored tensors within the module, and the view that makes it.
    """
    found: dict[str, tuple[tuple[str, ...], View]] = {}
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNormHook):
            found[hook.name] = (f"{hook.name}_g", f"{hook.name}_v"), WeightNorm()
        elif isinstance(hook, SpectralNormHook):
            parts = (f"{hook.name}_orig", f"{hook.name}_u", f"{hook.name}_v")
            found[hook.name] = parts, SpectralNorm(hook.dim)
        elif isinstance(hook, BasePruningMethod):
            found[hook._tensor_name] = (f"{hook._tensor_name}_orig", f"{hook._tensor_name}_mask"), Masked()
    return found


def derived_names(shapes: Mapping[str, Shape]) -> dict[str, tuple[tuple[str, ...], View]]:
    """The same from names and shapes alone, as a file has them, parametrizations of torch's own included.

    Args:
        shapes: sizes of a layer's tensors by their names within the layer.

    >>> list(derived_names({"weight_g": (4, 1), "weight_v": (4, 3)}))
    ['weight']
    """
    found: dict[str, tuple[tuple[str, ...], View]] = {}
    for name, shape in shapes.items():
        for make in (_weight_norm, _spectral_norm, _pruned):
            made = make(name, shape, shapes)
            if made is not None:
                leaf, parts, view = made
                found[leaf] = parts, view
    return found


Derived = tuple[str, tuple[str, ...], View] | None


def _weight_norm(name: str, shape: Shape, shapes: Mapping[str, Shape]) -> Derived:
    for gain, direction in (("_g", "_v"), (".original0", ".original1")):
        base = name.removesuffix(direction)
        g = shapes.get(base + gain)
        if base == name or g is None or len(shape) < 2:
            continue
        if g == () or (len(g) == len(shape) and all(a in (1, b) for a, b in zip(g, shape, strict=True))):
            return base.removeprefix("parametrizations."), (base + gain, name), WeightNorm()
    return None


def _spectral_norm(name: str, shape: Shape, shapes: Mapping[str, Shape]) -> Derived:
    for suffix, u, v in (("_orig", "_u", "_v"), (".original", ".0._u", ".0._v")):
        base = name.removesuffix(suffix)
        if base == name or base + u not in shapes or base + v not in shapes or len(shape) < 2:
            continue
        dim = 0 if shapes[base + u] == shape[:1] else 1
        return base.removeprefix("parametrizations."), (name, base + u, base + v), SpectralNorm(dim)
    return None


def _pruned(name: str, shape: Shape, shapes: Mapping[str, Shape]) -> Derived:
    base = name.removesuffix("_orig")
    if base == name or shapes.get(f"{base}_mask") != shape:
        return None
    return base, (name, f"{base}_mask"), Masked()
