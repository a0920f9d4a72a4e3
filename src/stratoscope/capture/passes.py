"""The one pass over a probe set that serves every streamed and kept need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from stratoscope.capture.batch import SiteBatch, first_tensor
from stratoscope.capture.graph import Flow
from stratoscope.capture.layout import Layout
from stratoscope.capture.loss import loss_of
from stratoscope.capture.needs import Kept, KeptReducer, Reducer, Site, Streamed
from stratoscope.capture.restore import untouched
from stratoscope.capture.taps import MAX_CALLS, ROOT, Taps
from stratoscope.errors import CaptureError, NotApplicable
from stratoscope.network.layers import Catalogue, Layer

if TYPE_CHECKING:
    from stratoscope.network.sources import Batch, ProbeSet

GRADIENT_SITES = ("output_gradient", "parameter_gradient")


@dataclass
class PassResult:
    """What one pass over one split gave.

    Attributes:
        reducers: for each need, the reducer of every site at which it looked.
        refusals: for each need, why a site that it wanted to look at could not be read.
        sites: every layer that was called, in the order in which they first gave an output.
        n: examples seen.
        forward_calls: calls of the model.
        seconds: time of the whole pass; `model_seconds` of the model alone is not separable from the hooks.
        edges: pairs of layers (from, to) between which data flow, from the first batch.
        notes: what was sampled down to stay in the memory budget, calls that were not looked at.
    """

    reducers: dict[Streamed, dict[str, Reducer]] = field(default_factory=dict)
    refusals: dict[Streamed, dict[str, str]] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=dict)
    n: int = 0
    forward_calls: int = 0
    seconds: float = 0.0
    edges: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class ForwardPass:
    """One pass of one model over one probe set.

    Attributes:
        model: the model.
        catalogue: its layers.
        needs: the streamed and kept needs, each gathered once.
        loss: the user's loss, or `None` for the usual one of the task.
        weights: other tensors to run the model with, by key; the model's own stay as they are.
        memory: bytes that all kept samples together may take.
        device: where the model lives.
        wanted: whether a layer, by name, is to be looked at; the network's output always is.
    """

    model: nn.Module
    catalogue: Catalogue
    needs: Iterable[Streamed]
    loss: Callable[..., Any] | None = None
    weights: Mapping[str, Tensor] | None = None
    memory: int = 1 << 30
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wanted: Callable[[str], bool] = lambda name: True

    def __post_init__(self) -> None:
        self._result = PassResult({need: {} for need in self.needs}, {need: {} for need in self.needs})
        self._layout = Layout.of(self.model)
        self._batch: Batch | None = None
        self._waiting: list[tuple[Streamed, Site, Tensor, Any]] = []
        self._gradients = any(need.site in GRADIENT_SITES for need in self.needs)
        self._dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), None)

    def run(self, probe: ProbeSet) -> PassResult:
        """Pass over the probe set once.

        Raises:
            CaptureError: if the model cannot be run on the data; says which batch and what the model said.
        """
        start = time.perf_counter()
        taps = Taps(self.model, self.catalogue, self._seen, flow=Flow())
        with untouched(self.model), taps(), nullcontext() if self._gradients else torch.no_grad():
            for number, batch in enumerate(probe.batches):
                self._step(taps, batch.to(self.device, dtype=self._dtype), number, probe.split)
                if number == 0:
                    self._after_first(taps)
        self._result.seconds = time.perf_counter() - start
        for name, count in taps.skipped.items():
            self._result.notes.append(
                f"{name}: {count} calls beyond the first {MAX_CALLS} of a pass were not looked at"
            )
        return self._result

    def _step(self, taps: Taps, batch: Batch, number: int, split: str) -> None:
        self._batch, self._waiting = batch, []
        taps.listening = True
        try:
            with torch.enable_grad() if self._gradients else nullcontext():
                output = self._call(batch)
                taps.listening = False
                if self._gradients:
                    self._backward(output, batch)
        except (NotApplicable, CaptureError):
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(arg.shape)) for arg in batch.args if isinstance(arg, Tensor))
            shapes = shapes or ", ".join(batch.kwargs)
            raise CaptureError(
                f"The model failed on batch {number} of split {split!r} (inputs {shapes}): "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}. "
                "Check that the data have the shape and type that its forward expects."
            ) from error
        self._result.n += batch.n
        self._result.forward_calls += 1

    def _call(self, batch: Batch) -> Any:
        if self.weights is None:
            return self.model(*batch.args, **batch.kwargs)
        return functional_call(self.model, dict(self.weights), batch.args, batch.kwargs)

    def _seen(self, site: Site, where: str, what: Any) -> None:
        if where == "output":
            self._result.sites.setdefault(site.name, site)
        for need in self._result.reducers:
            if need.site == where or (need.site == "output_gradient" and where == "output"):
                self._show(need, site, what, where)

    def _show(self, need: Streamed, site: Site, what: Any, where: str) -> None:
        if site.name in self._result.refusals[need]:
            return
        reducer = self._reducer(need, site)
        if reducer is None:
            return
        if need.site == "output_gradient":
            tensor = _live_tensor(what)
            if tensor is not None and tensor.requires_grad:
                self._waiting.append((need, site, tensor, what))
            return
        self._update(need, site, reducer, self._site_batch(site, what))

    def _reducer(self, need: Streamed, site: Site) -> Reducer | None:
        known = self._result.reducers[need]
        if site.name not in known:
            if not self.wanted(site.layer.name) and site.layer.name != ROOT:
                return None
            reducer = need.reducer(site)
            if reducer is None:
                return None
            known[site.name] = reducer
        return known[site.name]

    def _update(self, need: Streamed, site: Site, reducer: Reducer, batch: SiteBatch) -> None:
        try:
            reducer.update(batch)
        except NotApplicable as reason:
            self._result.refusals[need][site.name] = str(reason)
            self._result.reducers[need].pop(site.name, None)

    def _site_batch(self, site: Site, raw: Any, value: Tensor | None = None, **more: Any) -> SiteBatch:
        assert self._batch is not None
        lengths = None
        if value is None:
            value, lengths = first_tensor(raw)
        batch_dim, channel_dim = 0, -1
        found: int | None = batch_dim
        if value is not None:
            found = self._layout.batch_dim(site.layer, value, self._batch.n, lengths is not None)
            channel_dim = self._layout.channel_dim(site.layer, value)
        return SiteBatch(site, raw, value, self._batch, found, channel_dim, lengths_mask=lengths, **more)

    def _backward(self, output: Any, batch: Batch) -> None:
        loss = loss_of(self.loss, output, batch, self.model).mean
        params = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if self.weights is not None:
            raise CaptureError("Gradients of other weights than the model's own are not captured; load them first.")
        outputs = [tensor for _, _, tensor, _ in self._waiting]
        gradients = torch.autograd.grad(loss, [*params.values(), *outputs], allow_unused=True)
        by_name = dict(zip(params, gradients, strict=False))
        for (need, site, tensor, raw), gradient in zip(self._waiting, gradients[len(params) :], strict=True):
            value = torch.zeros_like(tensor) if gradient is None else gradient
            batch_of = self._site_batch(site, raw, value.detach(), loss=loss.detach())
            self._update(need, site, self._result.reducers[need][site.name], batch_of)
        self._parameter_gradients(by_name, loss.detach())

    def _parameter_gradients(self, gradients: Mapping[str, Tensor | None], loss: Tensor) -> None:
        for need in self._result.reducers:
            if need.site != "parameter_gradient":
                continue
            for layer in self.catalogue.layers.values():
                own = {p.name: g for p in layer.params if (g := gradients.get(p.name)) is not None}
                reducer = self._reducer(need, Site(layer)) if own else None
                if reducer is not None:
                    self._update(
                        need, Site(layer), reducer, self._site_batch(Site(layer), None, loss=loss, gradients=own)
                    )

    def _after_first(self, taps: Taps) -> None:
        if taps.flow is not None:
            self._result.edges = list(taps.flow.edges)
        taps.flow = None
        self._fit_into_memory()

    def _fit_into_memory(self) -> None:
        """Once every site has been seen, share the memory budget out: the same number of examples everywhere."""
        kept = [
            (need, r) for need, by in self._result.reducers.items() for r in by.values() if isinstance(r, KeptReducer)
        ]
        wanted = sum(need.n * r.bytes_per_example() for need, r in kept if isinstance(need, Kept))
        if wanted <= self.memory:
            return
        share = self.memory / wanted
        for need, reducer in kept:
            if isinstance(need, Kept):
                reducer.keep_at_most(max(1, int(need.n * share)))
        self._result.notes.append(
            f"kept samples were cut to {share:.0%} of what was asked, to stay within {self.memory / 2**20:.0f} MiB"
        )


def _live_tensor(raw: Any) -> Tensor | None:
    """The first floating tensor of an output, still in the graph."""
    if isinstance(raw, Tensor):
        return raw if raw.is_floating_point() else None
    inner = raw.values() if isinstance(raw, Mapping) else raw
    if isinstance(inner, (tuple, list)) or isinstance(raw, Mapping):
        return next((found for item in inner if (found := _live_tensor(item)) is not None), None)
    return None


def root_layer(catalogue: Catalogue) -> Layer:
    """The layer that stands for the whole model."""
    return catalogue[ROOT]
