"""The two shapes of an instrument (one looks at a layer at a time, the other at the whole network), and who judges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from stratoscope.findings import Evidence, Finding, Outcome

if TYPE_CHECKING:
    from dataclasses import Field

    from stratoscope.capture.needs import Need
    from stratoscope.capture.views import LayerView, Seen
    from stratoscope.record.group import Group
    from stratoscope.record.quantity import Quantity


class Judge(ABC):
    """Who speaks of saved numbers: an instrument of its own, a diagnosis of those of several.

    Attributes:
        key: short name; the group in the record.
        title: name for people.
        source: arXiv id or DOI, with `arXiv:` or `doi:` before it.
        codes: every code that `judge` can give, and its meaning.
        dims: further dimensions of its own: name and meaning.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    codes: ClassVar[Mapping[str, str]]
    dims: ClassVar[Mapping[str, str]] = {}

    if TYPE_CHECKING:
        # every one is a dataclass; `testing.check_instrument` and `check_diagnosis` hold it to that
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @abstractmethod
    def judge(self, measured: Group) -> Iterator[Finding]:
        """Findings from saved numbers alone, so that they can be recomputed with other settings.

        Args:
            measured: its own variables; every one has the `step` dimension.
        """

    def finding(
        self,
        code: str,
        outcome: Outcome,
        says: str,
        *,
        layer: str | None = None,
        step: int | None = None,
        split: str | None = None,
        do: str = "",
        **evidence: Evidence,
    ) -> Finding:
        """A finding in its own name."""
        step = None if step is None else int(step)
        return Finding(code, self.key, layer, step, outcome, says, do, evidence, self.source, split)


class Instrument(Judge):
    """One published measurement. Subclass `LayerInstrument` or `NetworkInstrument`, as a frozen dataclass.

    The fields of the dataclass are its settings; each can be set in `stratoscope.toml`.

    Attributes:
        every_step: whether a watched training measures it at every step rather than on the schedule.
        transfers: whether it is measured on data of another task as well, as a split called `transfer`.
    """

    every_step: ClassVar[bool] = False
    transfers: ClassVar[bool] = False

    @property
    @abstractmethod
    def requires(self) -> set[Need]:
        """What must be there; a layer without it is not applicable."""

    @property
    def uses(self) -> set[Need]:
        """What is looked at where it is there."""
        return set()


class LayerInstrument(Instrument):
    """An instrument that looks at one layer at a time."""

    @abstractmethod
    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """Measure one layer.

        Args:
            view: the layer, and what was captured of it: `view[need]`.

        Raises:
            NotApplicable: if the question makes no sense for this layer.
        """


class NetworkInstrument(Instrument):
    """An instrument whose numbers cross layers."""

    @abstractmethod
    def measure(self, seen: Seen) -> Mapping[str, Quantity]:
        """Measure the whole network.

        Args:
            seen: what was captured of every layer: `seen[need]` maps layer names to values.

        Raises:
            NotApplicable: if the question makes no sense for this network.
        """
