"""What an instrument must see, said as a value. Equal needs are gathered once.

A need is a frozen dataclass of one of these kinds; a new one is a new class in a new file and edits nothing:

* `Derived`: computed for one layer from its weights or from other needs, without data;
* `Streamed`: reduced batch by batch while the data pass; memory does not grow with the data;
* `Kept`: a seeded sample of examples, inside the memory budget;
* `Worked`: worked out from the value of another need, together with all others that want the same value;
* `Operator`: a metered handle that runs further passes while the capture is open;
* `Live`: handed over by a running training, such as the optimizer's mini-batch gradients;
* `Modifier`: another need, asked at another time: `Initial`, `Previous`, `Other`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from stratoscope.capture.batch import SiteBatch
    from stratoscope.capture.operators import Bench
    from stratoscope.network.layers import Layer

SITES = ("output", "input", "output_gradient", "parameter_gradient")


class Need(ABC):  # noqa: B024 - its kinds below have the methods
    """Something that an instrument must see. Hashable, compared by value."""

    def __str__(self) -> str:
        """Its name, and those settings that are not the usual ones."""
        if not is_dataclass(self):
            return type(self).__name__
        values = ((field, getattr(self, field.name)) for field in fields(self))
        said = ", ".join(f"{field.name}={_short(value)}" for field, value in values if value != field.default)
        return f"{type(self).__name__}({said})"


def _short(value: Any) -> str:
    return str(value) if isinstance(value, Need) else repr(value)


class Derived(Need):
    """A need that is computed for one layer without data."""

    @abstractmethod
    def derive(self, layer: Layer, ask: Callable[[Need], Any], load: Callable[[str], Any]) -> Any:
        """Compute the value for one layer.

        Args:
            layer: the layer.
            ask: gives the value of another derived need for the same layer.
            load: reads a param's tensor by its exact key.

        Raises:
            NotApplicable: if the question makes no sense for this layer.
        """


@dataclass(frozen=True)
class Site:
    """A place that is looked at during the pass: a layer, and which of its calls within one forward."""

    layer: Layer
    call: int = 1

    @property
    def name(self) -> str:
        """The layer's name; from the second call within one forward on, with `@2` and so on added."""
        return self.layer.name if self.call == 1 else f"{self.layer.name}@{self.call}"


class Reducer(ABC):
    """Folds one site's batches into a result."""

    @abstractmethod
    def update(self, batch: SiteBatch) -> None:
        """Take in one batch."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in what another reducer of the same need and site has seen (other batches, other processes)."""

    @abstractmethod
    def result(self) -> Any:
        """The value for this site, from everything seen so far."""


class Streamed(Need):
    """A need that is reduced batch by batch in the one forward pass.

    `site` says what the reducer is shown: a layer's output, its input, the loss gradient at its output, or the
    loss gradients of its params.
    """

    site: str = "output"

    @abstractmethod
    def reducer(self, site: Site) -> Reducer | None:
        """A fresh reducer for one site, or `None` where this need does not look."""


@runtime_checkable
class Recognisable(Protocol):
    """A reducer that can tell whether another one of the same need was shown the same."""

    def shown(self) -> Hashable:
        """Equal for two reducers that were shown the same numbers; one of them then stands for both."""


class KeptReducer(Reducer):
    """A reducer whose memory grows with the examples that it keeps."""

    @abstractmethod
    def bytes_per_example(self) -> int:
        """What one kept example costs at this site; known after the first batch."""

    @abstractmethod
    def keep_at_most(self, n: int) -> None:
        """Reduce the sample to the first `n` of its seeded order."""


class Kept(Streamed):
    """A need that keeps a seeded sample of at most `n` examples, at most `width` numbers each."""

    n: int
    width: int

    @abstractmethod
    def reducer(self, site: Site) -> KeptReducer | None:
        """A fresh reducer for one site, or `None` where this need does not look."""


class Worked(Need):
    """A need that is worked out from the value of another need, such as statistics of the distances in a sample.

    All needs of one family that ask for the same value are worked out together, so that each pair of points, say, is
    looked at once for all of them. The inner need `of` is gathered without anybody else asking for it.
    """

    of: Need

    @classmethod
    @abstractmethod
    def work_out(cls, needs: Sequence[Self], value: Any) -> dict[Any, Any]:
        """The value of each need, or the exception that says why there is none.

        Args:
            needs: of this family (see `family`), all with the same `of`.
            value: what was gathered for `of` at one layer.
        """

    @classmethod
    def family(cls) -> type[Worked]:
        """The class whose subclasses are worked out together; a subclass of `Worked` by default stands alone."""
        return cls


class Operator(Need):
    """A need for further passes over the network while the capture is open."""

    @abstractmethod
    def open(self, bench: Bench) -> Any:
        """A handle that counts the passes it runs."""


class Live(Need):
    """A need that only a running training can fill."""


class Modifier(Need):
    """Another need, asked at another time or of other weights. `need` is the inner one."""

    need: Need


def innermost(needs: Iterable[Need]) -> list[Need]:
    """What is gathered for some needs: modifiers and worked-out needs replaced by what they are made of."""
    return [_innermost(need) for need in needs]


def _innermost(need: Need) -> Need:
    while isinstance(need, (Modifier, Worked)):
        need = need.need if isinstance(need, Modifier) else need.of
    return need


@dataclass(frozen=True)
class Initial(Modifier):
    """The same need at step 0, from the snapshot that is kept with the run."""

    need: Need


@dataclass(frozen=True)
class Previous(Modifier):
    """The value of the same need at the previous full measurement."""

    need: Need


@dataclass(frozen=True)
class Other(Modifier):
    """The same need, of the weights in another checkpoint (a path)."""

    checkpoint: str
    need: Need
