"""The one pass over a probe set that serves every streamed and kept need."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.utils.rnn import PackedSequence

from stratoscope.capture.batch import Memo, SiteBatch, find_tensor, first_tensor
from stratoscope.capture.graph import Flow
from stratoscope.capture.layout import Layout
from stratoscope.capture.loss import loss_of
from stratoscope.capture.needs import Kept, KeptReducer, Recognisable, Reducer, Site, Streamed
from stratoscope.capture.restore import differentiable, untouched
from stratoscope.capture.running import call, dtype_of, trained
from stratoscope.capture.taps import MAX_CALLS, Taps
from stratoscope.errors import CaptureError, NotApplicable
from stratoscope.network.layers import ROOT, Catalogue

if TYPE_CHECKING:
    from stratoscope.network.sources import Batch, ProbeSet

GRADIENT_SITES = ("output_gradient", "parameter_gradient")

EVERYWHERE = ""
"""In place of a site's name: nowhere could it be looked."""


Refusal = NotApplicable | CaptureError
"""Why a need has no value at a site: its question makes no sense there, or gathering it failed."""


@dataclass(frozen=True)
class _Waiting:
    """An output whose gradient is wanted once there is a loss."""

    need: Streamed
    site: Site
    raw: Any
    tensor: Tensor
    version: int
    # the place in the graph as it was when the layer gave it; the next layer may change the tensor in place
    edge: GradientEdge


@dataclass
class PassResult:
    """What one pass over one split gave.

    Attributes:
        reducers: for each need, the reducer of every site at which it looked.
        refusals: for each need and site that it wanted to look at, why it could not; under `""` where it could
            look nowhere.
        sites: every layer that was called, in the order in which they first gave an output.
        n: examples seen; fewer than the probe set has, where the time budget was spent.
        forward_calls: calls of the model.
        seconds: time of the whole pass, the model and what looks at it.
        edges: pairs of layers (from, to) between which data flow, from the first batch.
        notes: what was sampled down to stay in the memory budget, calls that were not looked at, whether
            time was up before the end.
    """

    reducers: dict[Streamed, dict[str, Reducer]] = field(default_factory=dict)
    refusals: dict[Streamed, dict[str, Refusal]] = field(default_factory=dict)
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
        deadline: clock time (`time.monotonic`) after which no further batch is begun; the first one always is.
        progress: told `(split, batches done, batches in all)` after each batch.
    """

    model: nn.Module
    catalogue: Catalogue
    needs: Iterable[Streamed]
    loss: Callable[..., Any] | None = None
    weights: Mapping[str, Tensor] | None = None
    memory: int = 1 << 30
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wanted: Callable[[str], bool] = lambda name: True
    deadline: float | None = None
    progress: Callable[[str, int, int], None] | None = None

    def __post_init__(self) -> None:
        self._result = PassResult({need: {} for need in self.needs}, {need: {} for need in self.needs})
        self._layout = Layout.of(self.model)
        self._batch: Batch | None = None
        self._of_batch = Memo()
        self._last: tuple[Tensor, int, int | None, int, Memo] | None = None
        self._waiting: list[_Waiting] = []
        self._planned = 0
        self._share = 1.0
        self._gradients = any(need.site in GRADIENT_SITES for need in self.needs)
        self._dtype = dtype_of(self.model)
        self._trained, self._used = trained(self.model, self.weights)

    def run(self, probe: ProbeSet) -> PassResult:
        """Pass over the probe set once.

        Raises:
            CaptureError: if the model cannot be run on the data; says which batch and what the model said.
        """
        start = time.perf_counter()
        taps = Taps(self.model, self.catalogue, self._seen, flow=Flow())
        kernels = differentiable(self.model) if self._gradients else nullcontext()
        with untouched(self.model), kernels, taps(), torch.no_grad():
            for number, batch in enumerate(probe.batches):
                self._step(taps, batch.to(self.device, dtype=self._dtype), number, probe.split)
                if number == 0:
                    self._after_first(taps)
                self._fit_into_memory(probe.n)
                if self.progress is not None:
                    self.progress(probe.split, number + 1, len(probe.batches))
                if self.deadline is not None and time.monotonic() > self.deadline:
                    break
        self._last = None
        self._share_samples()
        self._result.seconds = time.perf_counter() - start
        self._take_notes(taps, len(probe.batches))
        return self._result

    def _step(self, taps: Taps, batch: Batch, number: int, split: str) -> None:
        self._batch, self._waiting, self._of_batch, self._last = batch, [], Memo(), None
        taps.listening = True
        with torch.set_grad_enabled(self._gradients):
            try:
                output = call(self.model, batch, self._used)
            except Exception as error:
                shapes = ", ".join(str(tuple(arg.shape)) for arg in batch.args if isinstance(arg, Tensor))
                shapes = shapes or ", ".join(batch.kwargs)
                raise CaptureError(
                    f"The model failed on batch {number} of split {split!r} (inputs {shapes}): {in_a_line(error)}. "
                    "Check that the data have the shape and type that its forward expects."
                ) from error
            taps.listening = False
            if self._gradients:
                self._backward(output, batch)
        self._result.n += batch.n
        self._result.forward_calls += 1

    def _seen(self, site: Site, where: str, what: Any) -> None:
        if where == "output":
            self._result.sites.setdefault(site.name, site)
            value = find_tensor(what)
            if isinstance(value, Tensor):
                # also where nobody looks: the layers after this one may not say where their channels are
                self._layout.channel_dim(site.layer, value)
        batch: SiteBatch | None = None
        for need in self._result.reducers:
            gradient = need.site == "output_gradient" and where == "output"
            if not gradient and need.site != where:
                continue
            reducer = self._reducer(need, site)
            if reducer is None:
                continue
            if gradient:
                self._wait(need, site, what)
                continue
            batch = batch or self._site_batch(site, what)
            self._update(need, site, reducer, batch)

    def _reducer(self, need: Streamed, site: Site) -> Reducer | None:
        known, refused = self._result.reducers[need], self._result.refusals[need]
        if site.name in refused or EVERYWHERE in refused:
            return None
        if site.name not in known:
            if not self.wanted(site.layer.name) and site.layer.name != ROOT:
                return None
            try:
                reducer = need.reducer(site)
            except Exception as error:
                self._refuse(need, site.name, CaptureError(f"{need} failed at {site.name}: {in_a_line(error)}."))
                return None
            if reducer is None:
                return None
            known[site.name] = reducer
        return known[site.name]

    def _update(self, need: Streamed, site: Site, reducer: Reducer, batch: SiteBatch) -> None:
        try:
            reducer.update(batch)
        except (NotApplicable, CaptureError) as why:
            self._refuse(need, site.name, why)
        except Exception as error:
            # one need that fails must not take the others with it
            self._refuse(need, site.name, CaptureError(f"{need} failed at {site.name}: {in_a_line(error)}."))

    def _refuse(self, need: Streamed, site: str, why: Refusal) -> None:
        self._result.refusals[need][site] = why
        self._result.reducers[need].pop(site, None)

    def _site_batch(self, site: Site, raw: Any, value: Tensor | None = None, **more: Any) -> SiteBatch:
        assert self._batch is not None
        lengths, batch_dim, channel_dim = None, None, -1
        if value is None:
            value, lengths = first_tensor(raw)
        if value is not None:
            batch_dim = self._layout.batch_dim(site.layer, value, self._batch.n, lengths is not None)
            channel_dim = self._layout.channel_dim(site.layer, value)
        of_value = self._memo_of(raw, batch_dim, channel_dim) if raw is not None and not more else Memo()
        return SiteBatch(
            site, raw, value, self._batch, batch_dim, channel_dim, self.loss, lengths_mask=lengths,
            of_batch=self._of_batch, of_value=of_value, **more,
        )  # fmt: skip

    def _memo_of(self, raw: Any, batch_dim: int | None, channel_dim: int) -> Memo:
        """What is known of the tensor that the layer before gave, if it is given on as it is: by a block, say."""
        if not isinstance(raw, Tensor):
            return Memo()
        if self._last is not None:
            tensor, version, *dims, memo = self._last
            if raw is tensor and raw._version == version and dims == [batch_dim, channel_dim]:
                return memo
        self._last = (raw, raw._version, batch_dim, channel_dim, memo := Memo())
        return memo

    # -- gradients ----------------------------------------------------------------------------------------------------

    def _wait(self, need: Streamed, site: Site, raw: Any) -> None:
        found = find_tensor(raw)
        tensor = found.data if isinstance(found, PackedSequence) else found
        if tensor is None or not tensor.requires_grad:
            self._refuse(need, site.name, NotApplicable(f"no gradient flows through {site.name}"))
        else:
            self._waiting.append(_Waiting(need, site, raw, tensor, tensor._version, get_gradient_edge(tensor)))

    def _backward(self, output: Any, batch: Batch) -> None:
        try:
            loss = loss_of(self.loss, output, batch, self.model)
            if loss.n == 0:
                return
            if not loss.mean.requires_grad:
                raise NotApplicable("the loss depends on no param that is trained, so there is no gradient")
            ends: list[Any] = [*self._trained.values(), *(waiting.edge for waiting in self._waiting)]
            gradients = torch.autograd.grad(loss.mean, ends, allow_unused=True)
        except NotApplicable as why:
            self._give_up_gradients(why)
            return
        except Exception as error:
            self._give_up_gradients(CaptureError(f"The backward pass failed: {in_a_line(error)}."))
            return
        about = {"loss": loss.mean.detach(), "loss_n": loss.n}
        with torch.no_grad():
            for waiting, gradient in zip(self._waiting, gradients[len(self._trained) :], strict=True):
                self._output_gradient(waiting, gradient, about)
            self._parameter_gradients(dict(zip(self._trained, gradients, strict=False)), about)

    def _give_up_gradients(self, why: Refusal) -> None:
        self._gradients = False
        for need in self._result.reducers:
            if need.site in GRADIENT_SITES:
                self._result.reducers[need].clear()
                self._result.refusals[need][EVERYWHERE] = why

    def _output_gradient(self, waiting: _Waiting, gradient: Tensor | None, about: Mapping[str, Any]) -> None:
        need, site = waiting.need, waiting.site
        reducer = self._reducer(need, site)
        if reducer is None:
            return
        if gradient is None and waiting.tensor._version != waiting.version:
            self._refuse(need, site.name, NotApplicable(f"what {site.name} gives is a view that is changed in place"))
            return
        value = torch.zeros_like(waiting.tensor) if gradient is None else gradient
        raw = find_tensor(waiting.raw)
        if isinstance(raw, PackedSequence):
            packed = PackedSequence(value, raw.batch_sizes, raw.sorted_indices, raw.unsorted_indices)
            self._update(need, site, reducer, self._site_batch(site, packed, **about))
        else:
            self._update(need, site, reducer, self._site_batch(site, waiting.raw, value, **about))

    def _parameter_gradients(self, gradients: Mapping[str, Tensor | None], about: Mapping[str, Any]) -> None:
        for need in self._result.reducers:
            if need.site != "parameter_gradient":
                continue
            for layer in self.catalogue.layers.values():
                site, names = Site(layer), [p.name for p in layer.params if p.name in gradients]
                # also where this batch's gradient is zero: the next one's may not be
                reducer = self._reducer(need, site) if names else None
                if reducer is not None:
                    own = {name: g for name in names if (g := gradients[name]) is not None}
                    self._update(need, site, reducer, self._site_batch(site, None, gradients=own, **about))

    # -- after a batch ------------------------------------------------------------------------------------------------

    def _after_first(self, taps: Taps) -> None:
        if taps.flow is not None:
            self._result.edges = list(taps.flow.edges)
        taps.flow = None

    def _fit_into_memory(self, n: int) -> None:
        """Share the memory budget out, the same part of the examples everywhere; anew when further sites come up."""
        kept = [
            (min(need.n, n), reducer)
            for need, by_site in self._result.reducers.items()
            for reducer in by_site.values()
            if isinstance(need, Kept) and isinstance(reducer, KeptReducer)
        ]
        wanted = sum(rows * reducer.bytes_per_example() for rows, reducer in kept)
        if wanted <= max(self.memory, self._planned):
            return
        self._planned, self._share = wanted, self.memory / wanted
        for rows, reducer in kept:
            reducer.keep_at_most(max(1, int(rows * self._share)))

    def _share_samples(self) -> None:
        """One reducer for all sites that were shown the same, so that what follows from it is worked out once."""
        for by_site in self._result.reducers.values():
            known: dict[Hashable, Reducer] = {}
            for name, reducer in by_site.items():
                if isinstance(reducer, Recognisable):
                    by_site[name] = known.setdefault(reducer.shown(), reducer)

    def _take_notes(self, taps: Taps, batches: int) -> None:
        notes, seen = self._result.notes, self._result.forward_calls
        if seen < batches:
            notes.append(f"stopped after {seen} of {batches} batches: the time budget was spent")
        if self._share < 1:
            size = f"{self.memory / 2**20:.3g} MiB"
            notes.append(f"kept samples were cut to {self._share:.1%} of what was asked, to stay within {size}")
        for name, count in taps.skipped.items():
            notes.append(f"{name}: {count} calls beyond the first {MAX_CALLS} of a pass were not looked at")


def in_a_line(error: Exception) -> str:
    """What kind of error it is and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
