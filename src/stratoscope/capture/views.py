"""What was captured, and what can still be asked of it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from stratoscope.capture.batch import Memo
from stratoscope.capture.needs import (
    Derived,
    Live,
    Modifier,
    Need,
    Operator,
    Other,
    Previous,
    Streamed,
    Worked,
    innermost,
)
from stratoscope.capture.operators import Bench
from stratoscope.capture.passes import EVERYWHERE, ForwardPass, PassResult
from stratoscope.errors import CaptureError, NotApplicable, StratoscopeError
from stratoscope.network.layers import Layer
from stratoscope.network.subject import TRANSFER, Subject
from stratoscope.network.weights import WeightSource

MEMORY = 1 << 30
"""Bytes that kept samples may take together, unless said otherwise."""


@dataclass
class Capture:
    """Gathers needs of a subject: one forward pass for each split, weights layer by layer when they are asked for.

    Attributes:
        subject: what is looked at.
        needs: everything that anybody asked for; equal needs are gathered once.
        foreign: those of them that are gathered on data of another task (`Subject.transfer`), too.
        memory: bytes that kept samples may take together; each split has the same part of it.
        live: values of live needs, by need.
        initial: the weights of step 0, where there is a snapshot.
        previous: values kept from the previous full measurement, by (need, layer, split).
        patterns: layers to look at, such as `"layer1.*"`; all where it is empty.
        deadline: clock time (`time.monotonic`) after which a pass begins no further batch; its first one always is.
        progress: told `(split, batches done, batches in all)` after each batch of a pass.
        remembers: whether a further measurement will come: what it asks for as `Previous` is then kept, also of layers
            that are dropped.
    """

    subject: Subject
    needs: frozenset[Need]
    memory: int = MEMORY
    live: Mapping[Need, Any] = field(default_factory=dict)
    initial: WeightSource | None = None
    previous: Mapping[tuple[Need, str, str | None], Any] = field(default_factory=dict)
    patterns: tuple[str, ...] = ()
    deadline: float | None = None
    progress: Callable[[str, int, int], None] | None = None
    remembers: bool = True
    foreign: frozenset[Need] = frozenset()

    def __post_init__(self) -> None:
        self.passes: dict[str, PassResult] = {}
        self.failures: dict[str, str] = {}
        self._derived: dict[tuple[Need, str], Any] = {}
        self._others: dict[Need | str, Capture] = {}
        self._bench: dict[tuple[Operator, str | None], Any] = {}
        self._results: dict[tuple[Need, str, str | None], Any] = {}
        self._kept: dict[tuple[Need, str, str | None], Any] = {}
        self._memos: dict[tuple[Need, str, str | None], Memo] = {}

    @property
    def streamed(self) -> list[Streamed]:
        """The streamed and kept needs of the weights as they are now."""
        return _streamed_of(self.needs)

    def run(self, split: str) -> PassResult | None:
        """The one pass over a split; the second time it is not run again. `None` where no need wants it.

        Raises:
            CaptureError: if the model cannot be run on the data.
        """
        if split in self.passes:
            return self.passes[split]
        model = self.subject.module
        anywhere = set(_streamed_of(self.foreign) if split == TRANSFER else self.streamed)
        wanted = [
            need
            for need in self.streamed
            if getattr(need, "split", None) == split or (getattr(need, "split", None) is None and need in anywhere)
        ]
        if not wanted or model is None:
            return None
        if split in self.failures:
            raise CaptureError(self.failures[split])
        try:
            self.passes[split] = ForwardPass(
                model,
                self.subject.catalogue,
                wanted,
                self.subject.loss,
                self.subject.override(),
                self.memory // len(self.subject.sources),
                self.subject.device,
                self.wanted,
                self.deadline,
                self.progress,
            ).run(self.subject.probe_set(split))
        except StratoscopeError as error:
            self.failures[split] = str(error)
            raise
        return self.passes[split]

    def wanted(self, name: str) -> bool:
        """Whether a layer was asked for: by its name, as a further call of it (`fc@2`), or by a param or matrix of it."""
        if not self.patterns:
            return True
        first = re.sub(r"@\d+$", "", name)
        layer = self.subject.catalogue.layers.get(first)
        names = [name, first]
        if layer is not None:
            names += [param.name for param in layer.params] + [matrix.name for matrix in layer.matrices]
        return any(one == pattern or fnmatchcase(one, pattern) for one in names for pattern in self.patterns)

    def layers(self) -> list[Layer]:
        """Every layer: those that were called in the order in which they gave their output, the others where they stand."""
        called: dict[str, Layer] = {}
        for result in self.passes.values():
            for name, site in result.sites.items():
                called.setdefault(name, _at(site.layer, name))
        if not called:
            return list(self.subject.catalogue.layers.values())
        ordered = list(called.values())
        for layer in self.subject.catalogue.layers.values():
            if layer.name not in called:
                place = next((i for i, other in enumerate(ordered) if other.depth > layer.depth), len(ordered))
                ordered.insert(place, layer)
        return ordered

    def after(self, layer: Layer, split: str | None) -> list[Layer]:
        """Every layer that what a layer gives goes into, at once or through others, as the first batch showed.

        Empty for the last layer, for a block (its own layers are looked at), and where no batch was seen.
        """
        edges = self.passes[split].edges if split in self.passes else []
        reached, waiting = dict.fromkeys([layer.name]), [layer.name]
        while waiting:
            source = waiting.pop()
            fresh = [end for start, end in edges if start == source and end not in reached]
            reached.update(dict.fromkeys(fresh))
            waiting += fresh
        layers = self.subject.catalogue.layers
        return [layers[name] for name in reached if name != layer.name and name in layers]

    def value(self, need: Need, layer: Layer, split: str | None) -> Any:
        """The value of a need at a layer.

        Raises:
            NotApplicable: if there is none there; says why.
            CaptureError: if nobody asked for it.
        """
        if need not in self.needs:
            held = ", ".join(sorted(str(n) for n in self.needs)) or "nothing"
            raise CaptureError(
                f"{need} was not captured; this capture holds {held}. Add it to the instrument's requires or uses."
            )
        return self._value(need, layer, split)

    def _value(self, need: Need, layer: Layer, split: str | None) -> Any:
        if isinstance(need, Modifier):
            return self._modified(need, layer, split)
        if isinstance(need, Derived):
            return self._derive(need, layer)
        if isinstance(need, Streamed):
            return self._streamed(need, layer, split)
        if isinstance(need, Worked):
            return self._worked(need, layer, split)
        if isinstance(need, Operator):
            return self.operator(need, split)
        return self.live_value(need)

    def live_value(self, need: Need) -> Any:
        """What the running training handed over."""
        if need not in self.live:
            raise NotApplicable(f"{type(need).__name__} is there only in a watched training")
        return self.live[need]

    def operator(self, need: Operator, split: str | None) -> Any:
        """A metered handle; opened once for each split."""
        name = getattr(need, "split", None) or split
        if (need, name) not in self._bench:
            if self.subject.module is None or name is None:
                raise NotApplicable(f"{type(need).__name__} needs a model and data; there are weights alone")
            self._check_split(name)
            self._bench[need, name] = need.open(Bench(self.subject, self.subject.probe_set(name)))
        return self._bench[need, name]

    def drop(self, layer: Layer) -> None:
        """Let go of what was derived for a layer and of its kept sample, but for what is asked as `Previous`."""
        if self.remembers:
            self._keep(layer)
        self._derived = {key: value for key, value in self._derived.items() if key[1] != layer.name}
        self._results = {key: value for key, value in self._results.items() if key[1] != layer.name}
        self._memos = {key: memo for key, memo in self._memos.items() if key[1] != layer.name}
        for result in self.passes.values():
            for reducers in result.reducers.values():
                reducers.pop(layer.name, None)
        for other in self._others.values():
            other.drop(layer)

    def _derive(self, need: Derived, layer: Layer) -> Any:
        key = (need, layer.name)
        if key not in self._derived:
            self._derived[key] = need.derive(
                layer, lambda inner: self._value(inner, layer, None), self.subject.source.load
            )
        return self._derived[key]

    def _streamed(self, need: Streamed, layer: Layer, split: str | None) -> Any:
        name = getattr(need, "split", None) or split
        key = (need, layer.name, name)
        if key in self._results:
            return self._results[key]
        if self.subject.module is None:
            raise NotApplicable("this needs a model and data; there are weights alone")
        if name is None:
            raise NotApplicable("this needs data; none were given")
        self._check_split(name)
        result = self.run(name)
        assert result is not None
        refused = result.refusals[need]
        refusal = refused.get(layer.name) or refused.get(EVERYWHERE)
        if refusal is not None:
            raise type(refusal)(str(refusal))
        if layer.name not in result.reducers[need]:
            raise NotApplicable(_why_absent(need, layer, layer.name in result.sites))
        self._results[key] = result.reducers[need][layer.name].result()
        return self._results[key]

    def _worked(self, need: Worked, layer: Layer, split: str | None) -> Any:
        """Works out all of a family at once; layers that share a value share what follows from it."""
        value = self._value(need.of, layer, split)
        family = need.family()
        plain = [one.need if isinstance(one, Previous) else one for one in self.needs]
        kin = tuple(sorted({one for one in plain if isinstance(one, family) and one.of == need.of}, key=repr))
        own = getattr(need.of, "split", None) or split
        memo = getattr(value, "worked_out", None) or self._memos.setdefault((need.of, layer.name, own), Memo())
        found = memo.once((family, kin), lambda: family.work_out(kin, value))[need]
        if isinstance(found, Exception):
            raise type(found)(str(found))
        return found

    def _check_split(self, name: str) -> None:
        if name not in self.subject.sources:
            raise NotApplicable(
                f"the data have no split {name!r}; they have {', '.join(self.subject.sources) or 'none'}"
            )

    def _modified(self, need: Modifier, layer: Layer, split: str | None) -> Any:
        if isinstance(need, Previous):
            inner = innermost([need])[0]
            own = getattr(inner, "split", None) or split
            key = (need.need, layer.name, own if isinstance(inner, Streamed) else None)
            if key not in self.previous:
                raise NotApplicable("there is no previous measurement yet")
            return self.previous[key]
        return self._elsewhere(need)._value(need.need, layer, split)

    def _elsewhere(self, need: Modifier) -> Capture:
        """A capture of the same model with other weights."""
        key = need.checkpoint if isinstance(need, Other) else "initial"
        if key not in self._others:
            if isinstance(need, Other):
                weights: WeightSource | Path = Path(need.checkpoint)
            elif self.initial is None:
                raise NotApplicable("there is no snapshot of step 0; it is kept by a watched training")
            else:
                weights = self.initial
            inner = frozenset(n.need for n in self.needs if isinstance(n, type(need)) and _same_time(n, need))
            old = self.subject
            subject = Subject(
                old.module, old.data, old.loss, old.labels, weights, None, old.name, old.probe, old.batch_size, old.seed,
                heads=old.heads, config=old.config, transfer=old.transfer, _probes=old._probes,
            )  # fmt: skip
            self._others[key] = Capture(
                subject, inner, self.memory, patterns=self.patterns, deadline=self.deadline, progress=self.progress,
                foreign=frozenset(n.need for n in self.foreign if isinstance(n, type(need)) and _same_time(n, need)),
            )  # fmt: skip
        return self._others[key]

    def remember(self) -> dict[tuple[Need, str, str | None], Any]:
        """The values that the next measurement will ask for as `Previous`."""
        for layer in self.layers():
            self._keep(layer)
        return dict(self._kept)

    def _keep(self, layer: Layer) -> None:
        for need in (need.need for need in self.needs if isinstance(need, Previous)):
            inner = innermost([need])[0]
            own = getattr(inner, "split", None)
            splits = [None] if not isinstance(inner, Streamed) else [own] if own else list(self.passes)
            for split in splits:
                if (need, layer.name, split) in self._kept:
                    continue
                try:
                    # a copy that later training does not change
                    self._kept[need, layer.name, split] = copy.deepcopy(self._value(need, layer, split))
                except Exception:
                    continue  # whoever asks for it now is told why


def _streamed_of(needs: Iterable[Need]) -> list[Streamed]:
    now = innermost(need for need in needs if isinstance(need, Previous) or not isinstance(need, Modifier))
    return list(dict.fromkeys(need for need in now if isinstance(need, Streamed)))


def _why_absent(need: Streamed, layer: Layer, called: bool) -> str:
    if need.site == "parameter_gradient":
        return "no gradient reaches its params" if layer.params else "the layer owns no params"
    if not called:
        return "the layer is not called in the forward pass"
    return f"{type(need).__name__} does not look at layers of kind {layer.kind}"


def _same_time(one: Modifier, other: Modifier) -> bool:
    return not (isinstance(one, Other) and isinstance(other, Other)) or one.checkpoint == other.checkpoint


def _at(layer: Layer, name: str) -> Layer:
    """The layer under its site's name: a second call of a module is a row of its own, without the params."""
    if layer.name == name:
        return layer
    return Layer(name, layer.kind, layer.depth, (), (), layer.channel_dim, layer.activation, layer.module)


@dataclass(frozen=True)
class LayerView:
    """One layer, and what was captured of it.

    Attributes:
        layer: the layer.
        split: the split being measured, or `None` for an instrument that needs no data.
    """

    layer: Layer
    split: str | None
    _capture: Capture = field(repr=False)

    @property
    def after(self) -> list[Layer]:
        """Every layer that what this one gives goes into, at once or through others; see `Capture.after`."""
        return self._capture.after(self.layer, self.split)

    def __getitem__(self, need: Need) -> Any:
        """The value of a need.

        Raises:
            NotApplicable: if there is none at this layer; says why.
            CaptureError: if the need is in neither `requires` nor `uses`.
        """
        return self._capture.value(need, self.layer, self.split)

    def get(self, need: Need, default: Any = None) -> Any:
        """The value of a need, or `default` where there is none."""
        try:
            return self[need]
        except NotApplicable:
            return default


@dataclass(frozen=True)
class Seen:
    """The whole network, and what was captured of it.

    Attributes:
        split: the split being measured, or `None` for an instrument that needs no data.
    """

    split: str | None
    _capture: Capture = field(repr=False)

    @property
    def layers(self) -> list[Layer]:
        """Every layer in order of depth."""
        return self._capture.layers()

    def __getitem__(self, need: Need) -> Any:
        """A mapping from layer name to value; for live needs and operators the value itself.

        Raises:
            NotApplicable: if there is none anywhere; says why.
            CaptureError: if the need is in neither `requires` nor `uses`.
        """
        if isinstance(need, Live):
            return self._capture.live_value(need)
        if isinstance(need, Operator):
            return self._capture.operator(need, self.split)
        values, reason = {}, f"no layer gives {type(need).__name__}"
        for layer in self.layers:
            try:
                values[layer.name] = self._capture.value(need, layer, self.split)
            except NotApplicable as why:
                reason = str(why)
        if not values:
            raise NotApplicable(reason)
        return values

    def get(self, need: Need, default: Any = None) -> Any:
        """The same, or `default` where there is nothing."""
        try:
            return self[need]
        except NotApplicable:
            return default

    def views(self) -> Iterator[LayerView]:
        """A view of each layer."""
        for layer in self.layers:
            yield LayerView(layer, self.split, self._capture)
