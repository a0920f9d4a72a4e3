"""What measuring takes: seconds of each instrument so far, and of its next measurement."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from stratoscope.observe.schedule import median

LATEST = 3
"""So many of the last measurements tell what the next one takes: the middle one, so that a busy moment counts for little."""


@dataclass
class Costs:
    """Seconds of each instrument.

    Attributes:
        names: of the instruments.
        sharing: those that look at data: one pass over the network serves all of them, and they share its seconds.
        seconds: of each instrument so far, its part of what is shared included.
    """

    names: Collection[str]
    sharing: Collection[str] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    _own: dict[str, list[float]] = field(default_factory=dict)
    _passing: list[float] = field(default_factory=list)

    def note(self, own: Mapping[str, float], passing: float, total: float) -> dict[str, float]:
        """Note a round.

        Args:
            own: seconds of each instrument that was measured.
            passing: seconds of the passes over the network.
            total: seconds of the round; what is left of them (writing, say) is laid on the instruments by their seconds.

        Returns:
            What each of them took, its part of the rest included; together `total`.
        """
        if not own:
            return {}
        alone, rest = sum(own.values()), total - passing
        grown = {name: rest * (value / alone if alone > 0 else 1 / len(own)) for name, value in own.items()}
        for name, value in grown.items():
            _keep(self._own.setdefault(name, []), value)
        together = [name for name in own if name in self.sharing] or list(own)
        if passing > 0:
            _keep(self._passing, passing)
        found = {name: value + (passing / len(together) if name in together else 0.0) for name, value in grown.items()}
        for name, value in found.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
        return found

    def of(self, name: str) -> float:
        """What the next measurement of an instrument takes, apart from the pass; 0 where it was never measured."""
        return median(self._own.get(name) or (0.0,))

    def passing(self, names: Iterable[str]) -> float:
        """What the pass takes that these instruments need; 0 if they need none."""
        shared = any(name in self.sharing for name in names)
        return median(self._passing or (0.0,)) if shared else 0.0

    def round(self, names: Collection[str]) -> float:
        """What a round of these instruments takes.

        >>> costs = Costs(("a", "b"), sharing=("b",))
        >>> _ = costs.note({"a": 1.0, "b": 2.0}, passing=4.0, total=7.0)
        >>> costs.round(["a"]), costs.round(["b"]), costs.round(["a", "b"])
        (1.0, 6.0, 7.0)
        """
        return sum(map(self.of, names)) + self.passing(names)

    def kept(self) -> dict[str, float]:
        """What a later attempt at the same run has to know: the next seconds of each instrument, and of the pass as `""`."""
        return {name: round(self.of(name), 6) for name in self.names} | {"": round(self.passing(self.sharing), 6)}

    def restore(self, kept: Mapping[str, float], seconds: Mapping[str, float]) -> None:
        """Go on from what an earlier attempt knew."""
        self._own = {name: [float(kept[name])] for name in self.names if name in kept}
        self._passing = [float(kept[""])] if "" in kept else []
        self.seconds = {name: float(value) for name, value in seconds.items()}


def _keep(values: list[float], value: float) -> None:
    values.append(value)
    del values[:-LATEST]
