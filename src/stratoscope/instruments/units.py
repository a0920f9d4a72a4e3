"""Unit census: which units of a nonlinearity ever act, and which always do.

For each unit (a feature map counts as one unit) the share of examples on which it is **active**. What counts as active
depends on the function and is written beside the result:

* ReLU and its kin (leaky, parametric, ELU, SELU, CELU): the output is above zero;
* GELU, SiLU, Mish, Hardswish, Softplus: the output is further from zero than `threshold` (0.01);
* tanh, sigmoid, softsign: more than `slope` (a tenth) of the function's largest slope is left, so "not active" means
  saturated; Hardtanh, ReLU6, Hardsigmoid: not at a bound.

A unit is **dead** if it was active for no example, **always on** if it was active at every position of every example
(a ReLU that is always on is linear: Grosse's "undead" unit), and **working** otherwise. A unit that gives nothing but NaN
or infinity is none of these: it counts in `unknown_share`. For sequences every real token
counts as an example; for maps an example counts once, with its most active position. `sparsity` is the share of
(example, position) pairs that are not active.

Dead for `n` examples does not mean dead for ever: `dead_bound` is the upper end of the exact one-sided 95 % interval
(Clopper and Pearson) for how often a unit seen dead may still be active, `1 - 0.05**(1/n)`.

A unit of a leaky, parametric or exponential rectifier that is never active still has a slope: it is counted, and said to
be below zero, but is no issue.

**When it misleads.** A small probe set makes rare units look dead. Units that serve a rare class are dead on data
without it. Behind a tanh, "not active" says that gradients hardly pass, not that the unit says nothing.

**UN001.** At least `dead_limit` of the units of a layer were active for no example: dead behind a rectifier, saturated behind a
bounded function. Such a unit passes no gradient, so it cannot come back by itself. It is an issue, and a tip where the function
has a slope there (leaky, parametric, exponential). **When it misleads.** With few examples rare units look dead: compare
`dead_bound`. A layer that is wider than its task needs may have many dead units and work well. Pruned units are dead on
purpose. **What to do.** Lower the learning rate; check the initialisation and the bias; put a norm before the nonlinearity, or use a
leaky one. Dead from step 0 on is a matter of the start, dead later of the steps.

**UN002.** At least `some_dead` of the units of a layer were active for no example, and fewer than UN001 speaks of. **What to do.** Watch whether it grows over the training; nothing has to
be done as long as it does not.

**UN003.** At least `on_limit` of the rectifiers of a layer are above zero at every position of every example: there the layer is
linear, and could be merged with the next one. **When it misleads.** A wide margin around the data, as after a large bias, may
be used on other data. In networks with a bound on their Lipschitz constant such units are common and cost expressive power.
**What to do.** Look at the bias and the norm before it; where it is meant to be linear, drop the nonlinearity.

**UN004.** Outputs of units are NaN or infinite. **When it misleads.** A masked position that is meant to be infinite is
counted as well. **What to do.** Look at the inputs of this layer in full precision; if it happens in training, lower the learning
rate and clip gradients.

**UN005.** Fewer than `min_n` examples were looked at, so nothing is said of dead units. It is not a pass. **What to do.** Probe more
examples (`--limit`).

Source: Anil, Lucas and Grosse, arXiv:1811.05381 (always-on units); Clopper and Pearson, doi:10.1093/biomet/26.4.404.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from stratoscope.capture.needs import Need
from stratoscope.capture.unit_counts import UnitCounts, UnitTally
from stratoscope.capture.views import LayerView
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.reading import At, last_of, passed_if_silent
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.record.group import Group

JUDGED = (
    "dead_share", "on_share", "bounded", "leaky", "one_sided", "outputs_not_finite", "examples", "dead_bound"
)  # fmt: skip


@dataclass(frozen=True)
class Units(LayerInstrument):
    """Which units of a nonlinearity ever act, and which always do.

    Attributes:
        threshold: how far from zero counts as active for GELU, SiLU, Mish, Hardswish, Softplus.
        slope: share of the largest slope that must be left for a bounded function's unit to count as active.
        dead_limit: share of dead units in a layer from which it is an issue.
        some_dead: share of dead units from which it is a tip.
        on_limit: share of always-on ReLU units from which it is a tip.
        min_n: examples below which nothing is judged.
    """

    key: ClassVar[str] = "units"
    title: ClassVar[str] = "Unit census"
    source: ClassVar[str] = "arXiv:1811.05381"
    codes: ClassVar[Mapping[str, str]] = {
        "UN001": "most units of a layer are dead or saturated",
        "UN002": "some units of a layer are dead or saturated",
        "UN003": "most rectifiers of a layer are always on, so the layer is nearly linear",
        "UN004": "units give NaN or infinity",
        "UN005": "too few examples to judge units",
    }

    threshold: float = 0.01
    slope: float = 0.1
    dead_limit: float = 0.5
    some_dead: float = 0.1
    on_limit: float = 0.9
    min_n: int = 30

    @property
    def requires(self) -> set[Need]:
        """Counts behind every nonlinearity."""
        return {UnitCounts(self.threshold, self.slope)}

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        """Census of one layer's units."""
        tally: UnitTally = view[UnitCounts(self.threshold, self.slope)]
        return census(tally)

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Layers whose units mostly do nothing, or always the same."""
        yield from passed_if_silent(self, self._judge(measured), self._checked(measured), measured)

    def _checked(self, measured: Group) -> list[str]:
        """Codes for which a layer had enough examples, and a rectifier where the code speaks of rectifiers."""
        layers = [at for at in last_of(measured, *JUDGED) if at["examples"] >= self.min_n]
        if not layers:
            return []
        rectified = any(at["one_sided"] == 1 for at in layers)
        return ["UN001", "UN002", *(["UN003"] if rectified else []), "UN004"]

    def _judge(self, measured: Group) -> Iterator[Finding]:
        for at in last_of(measured, *JUDGED):
            if at["outputs_not_finite"] > 0:
                yield self.finding(
                    "UN004", Outcome.ISSUE, f"{at.layer}: {at['outputs_not_finite']:.0f} outputs are NaN or infinite",
                    do="lower the learning rate, clip gradients, or look at this layer's inputs in full precision",
                    not_finite=int(at["outputs_not_finite"]), limit=0, **at.place,
                )  # fmt: skip
            if at["examples"] < self.min_n:
                yield self.finding(
                    "UN005", Outcome.SKIPPED, f"{at.layer}: {at['examples']:.0f} examples are too few to judge units",
                    do=f"probe at least {self.min_n} examples", n=int(at["examples"]), limit=self.min_n, **at.place,
                )  # fmt: skip
                continue
            yield from self._dead(at)
            if at["on_share"] >= self.on_limit and at["one_sided"]:
                yield self.finding(
                    "UN003", Outcome.TIP, f"{at.layer}: {at['on_share']:.0%} of the units are always on",
                    do="the nonlinearity does nothing for these units; look at the bias and the norm before it",
                    on_share=at["on_share"], limit=self.on_limit, n=int(at["examples"]), **at.place,
                )  # fmt: skip

    def _dead(self, at: At) -> Iterator[Finding]:
        share = at["dead_share"]
        if share < self.some_dead:
            return
        most, leaky = share >= self.dead_limit, at["leaky"] == 1
        if leaky:
            # it has a slope there, so this is no death
            word, do = "below zero", "they can still learn; look at the bias and the norm before them"
        elif at["bounded"]:
            word, do = "saturated", "scale the weights or inputs down, or put a norm before the nonlinearity"
        else:
            word = "dead"
            do = "lower the learning rate, check the initialisation and the bias, or use a leaky nonlinearity"
        yield self.finding(
            "UN001" if most else "UN002",
            Outcome.ISSUE if most and not leaky else Outcome.TIP,
            f"{at.layer}: {share:.0%} of the units are {word} on all {at['examples']:.0f} examples",
            do=do,
            dead_share=share,
            limit=self.dead_limit if most else self.some_dead,
            n=int(at["examples"]),
            dead_bound=at["dead_bound"],
            **at.place,
        )


def census(tally: UnitTally) -> dict[str, Quantity]:
    """Shares from counts; every share lies in [0, 1].

    >>> ones = torch.tensor([4, 0])
    >>> tally = UnitTally(4, 4, ones, ones, ones * 0.0, ones * 1.0, ones * 0, "output > 0", False, True)
    >>> float(census(tally)["dead_share"].values)
    0.5
    """
    units = len(tally.active)
    known = tally.not_finite < tally.positions
    dead = (tally.anywhere == 0) & known
    always = (tally.active == tally.positions) & known
    active = torch.where(known, tally.anywhere.double() / tally.n, torch.nan)
    constant = tally.lowest == tally.highest
    share: dict[str, Any] = {"units": "1", "valid_min": 0.0, "valid_max": 1.0, "rule": tally.rule}

    aside: dict[str, Any] = {"units": "1", "chart": "none"}

    def part(name: str, mask: torch.Tensor, **more: Any) -> Quantity:
        return quantity(float(mask.double().mean()), long_name=name, **share, **more)

    return {
        "active_share": quantity(active, dims="unit", long_name="share of examples on which the unit is active", **share),
        "dead_share": part("share of units active for no example", dead, headline=1),
        "on_share": part("share of units active at every position of every example", always, headline=2),
        "working_share": part("share of units neither dead nor always on", ~dead & ~always & known),
        "unknown_share": part("share of units that give nothing but NaN or infinity", ~known, chart="none"),
        "constant_share": part("share of units with one and the same output", constant),
        "sparsity": quantity(
            1 - float(tally.active.double().sum()) / (tally.positions * units),
            long_name="share of (example, position) pairs that are not active", headline=3, **share,
        ),
        "dead_bound": quantity(
            1 - 0.05 ** (1 / tally.n), long_name="how often a unit seen dead may still be active (95 % upper bound)",
            **aside,
        ),
        "bounded": quantity(tally.has_bounds, **aside, long_name="the nonlinearity is bounded: dead means saturated"),
        "leaky": quantity(tally.leaky, **aside, long_name="it has a slope below zero too: a dead unit can still learn"),
        "one_sided": quantity(tally.one_sided, **aside, long_name="the nonlinearity is a rectifier: always on means linear"),
        "outputs_not_finite": quantity(int(tally.not_finite.sum()), **aside, long_name="outputs that are NaN or infinite"),
        "unit_count": quantity(units, **aside, long_name="units"),
        "examples": quantity(tally.n, **aside, long_name="examples counted"),
    }  # fmt: skip
