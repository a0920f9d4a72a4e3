"""A model that is run only as far as one layer: what comes after it is not computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from stratoscope.capture.batch import SiteBatch, first_tensor
from stratoscope.capture.layout import Layout
from stratoscope.capture.needs import Site
from stratoscope.capture.running import call
from stratoscope.capture.taps import Taps
from stratoscope.errors import SubjectError

if TYPE_CHECKING:
    from stratoscope.network.layers import Catalogue, Layer
    from stratoscope.network.sources import Batch


class _Reached(BaseException):
    """The layer has given its output. No `Exception`, so that no model takes it for an error of its own."""

    def __init__(self, value: Any) -> None:
        super().__init__("the layer was reached")
        self.value = value


@dataclass
class Truncated:
    """Runs a model up to a layer's output and stops there; the model itself is neither rewritten nor copied.

    Use it inside `untouched(model)` and `torch.no_grad()`.

    Attributes:
        model: the model.
        catalogue: its layers.
        name: a layer, a further call of it (`relu@2`), or a function's place (`block:relu`).
        weights: other tensors to run the model with, by key.
    """

    model: nn.Module
    catalogue: Catalogue
    name: str
    weights: Mapping[str, Tensor] | None = None
    _layout: Layout = field(init=False)
    _site: Site | None = field(default=None, init=False)
    _calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._layout = Layout.of(self.model)

    def survey(self, batch: Batch) -> tuple[list[str], list[str]]:
        """Run one batch to the end and once only as far as the layer, looking at every call.

        Returns:
            Names of the layers that are called in the whole network, and of those called up to this one, in order.

        Raises:
            SubjectError: if the layer is not called; names those that are.
        """
        sites: dict[str, Site] = {}
        entered: dict[str, None] = {}

        def seen(site: Site, where: str, what: Any) -> None:
            (entered.setdefault(site.layer.name) if where == "input" else sites.setdefault(site.name, site))
            value, _ = first_tensor(what) if where == "output" else (None, None)
            if value is not None:
                self._layout.channel_dim(site.layer, value)
            if where == "output" and self._site is not None and site.name == self.name:
                raise _Reached(what)

        with Taps(self.model, self.catalogue, seen)():
            call(self.model, batch, self.weights)
            whole = list(entered)
            if self.name not in sites:
                raise SubjectError(
                    f"The network cannot be cut after {self.name!r}, which is not called; {_some(list(sites))} are."
                )
            self._site = sites[self.name]
            entered.clear()
            with suppress(_Reached):
                call(self.model, batch, self.weights)
        return whole, list(entered)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Inside, the model stops at the layer; the hook is gone afterwards."""
        site = self._known
        if site.layer.name in self.catalogue.layers and site.layer.module is not None:
            handle = site.layer.module.register_forward_hook(self._leave)
            try:
                yield
            finally:
                handle.remove()
        else:
            with Taps(self.model, self.catalogue, self._at_a_function)():
                yield

    def run(self, batch: Batch) -> SiteBatch:
        """What the layer gives for a batch; inside `stopping`.

        Raises:
            SubjectError: if the layer is not called for this batch.
        """
        site, self._calls = self._known, 0
        try:
            call(self.model, batch, self.weights)
        except _Reached as stop:
            value, lengths = first_tensor(stop.value)
            dims: dict[str, Any] = {}
            if value is not None:
                dims["batch_dim"] = self._layout.batch_dim(site.layer, value, batch.n, lengths is not None)
                dims["channel_dim"] = self._layout.channel_dim(site.layer, value)
            return SiteBatch(site, stop.value, value, batch, lengths_mask=lengths, **dims)
        raise SubjectError(f"{self.name} is not called for every batch, so the network cannot be cut there.")

    @property
    def _known(self) -> Site:
        if self._site is None:
            raise SubjectError("Survey a batch before the network is cut, so that the layer's axes are known.")
        return self._site

    def _leave(self, _: nn.Module, __: Any, output: Any) -> None:
        self._calls += 1
        if self._calls == self._known.call:
            raise _Reached(output)

    def _at_a_function(self, site: Site, where: str, what: Any) -> None:
        if where == "output" and site.name == self.name:
            raise _Reached(what)


@dataclass
class OutputInput:
    """What the output layer is given: the last called layer that has weights.

    Attributes:
        layer: that layer; `None` where there is none.
    """

    layer: Layer | None
    _given: Any = field(default=None, init=False)

    @classmethod
    def of(cls, catalogue: Catalogue, called: list[str]) -> OutputInput:
        """Find it among the layers that are called, in order."""
        known = [catalogue.layers[name] for name in called if name in catalogue.layers]
        weighty = [layer for layer in known if layer.matrices and layer.module is not None]
        return cls(weighty[-1] if weighty else None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, a call of the model leaves what the layer was given last."""
        self._given = None
        if self.layer is None or self.layer.module is None:
            yield
            return
        handle = self.layer.module.register_forward_pre_hook(self._take, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def taken(self, batch: Batch) -> SiteBatch | None:
        """What the layer was given for a batch; `None` where it was not called, or was given no tensor.

        Args:
            batch: the one that the model was called with.
        """
        value, lengths = first_tensor(self._given) if self._given is not None else (None, None)
        if value is None or self.layer is None:
            return None
        fits = [dim for dim in (0, 1) if dim < value.ndim and value.shape[dim] == batch.n]
        channels = 1 if self.layer.channel_dim == 1 else -1
        dims: dict[str, Any] = {"batch_dim": fits[0] if fits else None, "channel_dim": channels}
        return SiteBatch(Site(self.layer), self._given, value, batch, lengths_mask=lengths, **dims)

    def _take(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._given = args or tuple(kwargs.values())


def _some(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def own_params(layers: Mapping[str, Layer], names: list[str]) -> dict[int, Tensor]:
    """The params that some layers own themselves, each tensor once, by its identity."""
    modules = [layers[name].module for name in names if name in layers]
    return {id(param): param for module in modules if module is not None for param in module.parameters(recurse=False)}
