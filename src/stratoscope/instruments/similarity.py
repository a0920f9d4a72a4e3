r"""Similarity: how alike what two layers say is, for all pairs of layers, and for each layer now and before.

For $n$ examples, with centred activations $X$ ($n \times D$) and $Y$ ($n \times E$) and linear kernels $K = XX^\top$,
$L = YY^\top$, the biased **linear CKA** is $\lVert X^\top Y \rVert_F^2 / (\lVert X^\top X \rVert_F \lVert Y^\top Y
\rVert_F)$. The debiased one puts the unbiased estimate of HSIC in all three places. The **Procrustes distance** is what the
best rotation leaves between the two, each divided by its length: $(2 - 2 \lVert \hat X^\top \hat Y \rVert_*)^{1/2}$.

| quantity | definition | range |
|---|---|---|
| `cka` | debiased linear CKA of each layer with each `other` | -1 to 1; 0 for shuffled examples |
| `cka_se` | its standard error, for fresh examples | $\ge 0$ |
| `cka_biased` | biased linear CKA | 0 to 1 |
| `cka_biased_null` | its mean over all orders of the examples, exactly: $\operatorname{tr} K \operatorname{tr} L / ((n-1) \lVert K \rVert \lVert L \rVert)$ | 0 to 1 |
| `cka_uninformative` | 1 where `cka` is less than `noise_z` deviations $(2/(n(n-3)))^{1/2}$ above 0 | 0, 1 |
| `cka_before`, `procrustes_before` | of a layer with the one that gave its output just before | |
| `cka_previous`, `procrustes_previous` | of a layer with itself at the last full measurement of a training | |
| `cka_initial`, `procrustes_initial` | of a layer with itself at step 0 (setting `initial`) | |
| `cka_other`, `cka_same`, `cka_best` | against other weights (setting `other`, or `likeness`): every pair, layers of the same name, the most alike | |
| `procrustes_*_null` | shuffled examples read at least this (root mean square) | 0 to $2^{1/2}$ |
| `cka_pair`, ... | of the pairs of a streamed measurement, over the whole probe set | |
| `status` | why a layer takes no part: not finite, constant, seen on other examples, beyond `max_layers` | |

**What it means.** Both are 1 (distance 0) for the same representation up to shift, rotation, reflection and one scale;
scaling single units changes them. Blocks of light colour in the map are layers that say nearly the same; deep networks that are wider or
deeper than their task needs show large ones.

**When it misleads.** The biased CKA of two representations with many more units than examples is near 1 whatever they
are: read the debiased one, and `cka_biased_null` beside the biased one. The debiased one can be negative. CKA is led
by the few directions of most variance: two layers can differ in all others and still read 0.99; the Procrustes
distance counts them all. Outliers can carry CKA alone. A high similarity says that two layers say the same of these examples,
not that either could be left out; a low one with the layer before is usual inside a residual branch, which does not begin where
the order of outputs says. Activations are pooled and maybe projected as the `note` says; a
projection of $D$ units to $w$ numbers lowers CKA between two layers by about $1 / (1 + P (1/w - 1/D))$, with $P$ the
participation ratio, the number of directions in use.

**What to do.** Layers that say the same in a row: try the network without the later ones and measure what is lost. A
layer that has not moved: see whether it is frozen, and whether gradients reach it. Two networks that part ways: look at what
differs from that layer on. Few examples a unit: read the debiased CKA, or probe more examples.

**Cost.** For $L$ layers the cheaper of $n (\sum D)^2$ and $n^2 (\sum D + L^2)$ multiplications, about; layers that give the same
are compared once, and at most `max_layers` different ones take part. Procrustes distances take $D^3$ a layer.
`previous` keeps a copy of the sample between two measurements; `initial` and `other` run one more pass with other weights.

Sources: Kornblith, Norouzi, Lee and Hinton, arXiv:1905.00414 (CKA); Nguyen, Raghu and Kornblith, arXiv:2010.15327 (debiased,
over mini-batches; here once over all examples); Murphy, Zylberberg and Fyshe, arXiv:2405.01012 (its bias); Williams, Kunz,
Kornblith and Linderman, arXiv:2110.14739, and Ding, Denain and Steinhardt, arXiv:2108.01661 (Procrustes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stratoscope.capture.activations import Activations
from stratoscope.capture.cross_moments import NEIGHBOURS, CrossMoments
from stratoscope.capture.needs import Initial, Need, Other, Previous
from stratoscope.errors import NotApplicable
from stratoscope.findings import Finding
from stratoscope.instruments import alike_findings
from stratoscope.instruments.alike import STATUS, Comparable, as_map, comparable, pairwise
from stratoscope.instruments.base import NetworkInstrument
from stratoscope.instruments.reading import passed_if_silent
from stratoscope.numerics.matrices import not_finite
from stratoscope.numerics.similarity import cka_map
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    from stratoscope.capture.activations import Sample
    from stratoscope.capture.views import Seen
    from stratoscope.numerics.cross_scatter import CrossScatter
    from stratoscope.numerics.similarity import Alignment
    from stratoscope.record.group import Group


@dataclass(frozen=True)
class Similarity(NetworkInstrument):
    """How alike what two layers say is: centered kernel alignment and Procrustes distance.

    Attributes:
        n: examples kept at most.
        width: numbers an example at most; wider activations are projected.
        pooling: `"gap"`, the mean over positions, or `"flatten"`.
        max_layers: at most so many different layers take part, evenly spaced along depth.
        procrustes_width: narrower side above which no Procrustes distance is computed.
        previous: compare each layer with itself at the previous full measurement.
        initial: compare it with itself at step 0; costs one more pass a measurement.
        other: a checkpoint of the same network to compare with; empty for none.
        streamed: instead of all pairs of a sample, some pairs over the whole probe set.
        pairs: these pairs, `("layer", "layer")`; empty for each layer with the one before.
        noise_z: deviations above shuffled examples, and standard errors, from which something is said.
        alike: debiased CKA from which two layers count as saying the same.
        still: loss of debiased CKA since step 0 under which a layer counts as not moved.
        examples_per_unit: fewer examples than this a unit make the biased CKA read high.
    """

    key: ClassVar[str] = "similarity"
    title: ClassVar[str] = "Similarity of layers"
    source: ClassVar[str] = "arXiv:1905.00414"
    codes: ClassVar[Mapping[str, str]] = {
        "CK001": "layers one after the other say nearly the same",
        "CK002": "a layer has hardly moved since step 0",
        "CK003": "with so few examples a unit the biased CKA reads high whatever the layers say",
        "CK004": "two networks part ways",
        "CK005": "layers of two networks say the same",
    }
    dims: ClassVar[Mapping[str, str]] = {"other": "the second layer of a pair"}

    n: int = 1000
    width: int = 4096
    pooling: str = "gap"
    max_layers: int = 100
    procrustes_width: int = 1024
    previous: bool = True
    initial: bool = False
    other: str = ""
    streamed: bool = False
    pairs: tuple[tuple[str, str], ...] = ()
    noise_z: float = 3.0
    alike: float = 0.98
    still: float = 0.01
    examples_per_unit: float = 5.0

    @property
    def requires(self) -> set[Need]:
        """A sample of every layer, or cross moments of some pairs."""
        return {self._moments if self.streamed else self._need}

    @property
    def uses(self) -> set[Need]:
        """The same sample at other times, and of other weights."""
        if self.streamed:
            return set()
        wanted = {Previous(self._need): self.previous, Initial(self._need): self.initial}
        found: set[Need] = {need for need, is_wanted in wanted.items() if is_wanted}
        return found | ({Other(self.other, self._need)} if self.other else set())

    @property
    def _need(self) -> Activations:
        return Activations(n=self.n, width=self.width, pooling=self.pooling)

    @property
    def _moments(self) -> CrossMoments:
        return CrossMoments(pairs=self.pairs or NEIGHBOURS, width=min(self.width, 512), pooling=self.pooling)

    def measure(self, seen: Seen) -> Mapping[str, Quantity]:
        """The map of all pairs, each layer with the one before, and with itself at other times."""
        if self.streamed:
            return self.of_pairs(seen[self._moments])
        samples: Mapping[str, Sample] = seen[self._need]
        layers = comparable(samples, self.max_layers)
        note = note_of(layers)
        table = cka_map(layers.features)
        found = as_map("cka", table, layers, layers, "", note, self.noise_z)
        before = {
            name: (layers.samples[row - 1], layers.samples[row])
            for name, row in zip(layers.names, layers.rows, strict=True)
            if row > 0
        }
        found |= self.at_each("before", before, "with the layer before", note, 1, layers.within(table, layers))
        for need, name, what in (
            (Previous(self._need), "previous", "with itself at the previous measurement"),
            (Initial(self._need), "initial", "with itself at step 0"),
        ):
            if need in self.uses:
                found |= self.at_each(name, _paired(layers, seen.get(need, {})), what, note)
        if self.other:
            found |= self.against(layers, comparable(seen[Other(self.other, self._need)], self.max_layers), note)
        return found | self.about(layers, seen)

    def at_each(
        self,
        name: str,
        pairs: Mapping[str, tuple[Sample, Sample]],
        what: str,
        note: str,
        headline: int = 0,
        in_map: Callable[[Sample, Sample], Alignment] | None = None,
    ) -> dict[str, Quantity]:
        """One comparison for each layer that has a partner; nothing where none has."""
        return pairwise(name, pairs, what, note, self.procrustes_width, headline, in_map) if pairs else {}

    def against(self, layers: Comparable, others: Comparable, note: str) -> dict[str, Quantity]:
        """A network against another one: every pair, layers of the same name, and the most alike of each layer.

        Raises:
            NotApplicable: if they were not seen on the same examples.
        """
        if layers.n != others.n or bool((layers.ids != others.ids).any()):
            raise NotApplicable("the two networks were not seen on the same examples")
        found = cka_map(layers.features, others.features)
        what = "with the other network"
        tables = as_map("cka_other", found, layers, others, what, note, self.noise_z)
        places = dict(zip(others.names, others.rows, strict=True))
        same = {
            name: (layers.samples[row], others.samples[places[name]])
            for name, row in zip(layers.names, layers.rows, strict=True)
            if name in places
        }
        tables |= self.at_each(
            "same", same, "with the same layer of the other network", note, 1, layers.within(found, others)
        )
        best, value = found.debiased.argmax(1).numpy(), found.debiased.amax(1).numpy()
        names = [others.names[others.rows.index(row)] for row in range(len(others.samples))]
        about: dict[str, Any] = {"units": "1", "dims": "layer", "coords": {"layer": layers.names}, "note": note}
        return tables | {
            "cka_best": quantity(
                layers.along(value), **about, valid_min=-1.0, valid_max=1.0, headline=2,
                long_name="debiased linear CKA with the most alike layer of the other network",
            ),
            "best_match": quantity(
                layers.along(best), **about, chart="none", flag_values=list(range(len(names))), flag_meanings=names,
                long_name="most alike layer of the other network",
            ),
        }  # fmt: skip

    def of_pairs(self, scatters: Mapping[str, Mapping[str, CrossScatter]]) -> dict[str, Quantity]:
        """Some pairs over the whole probe set."""
        rows: dict[str, tuple[float, ...]] = {}
        for later, partners in scatters.items():
            for earlier, scatter in partners.items():
                try:
                    cka, distance = scatter.cka(), scatter.procrustes()
                except ValueError:
                    continue
                rows[f"{earlier} ~ {later}"] = (
                    float(cka.debiased), float(cka.biased), float(cka.null_biased), cka.null_sd,
                    distance.distance, distance.null, scatter.n,
                )  # fmt: skip
        if not rows:
            raise NotApplicable("no pair of layers gave finite numbers for 4 examples or more")
        texts = {
            "cka_pair": "debiased linear CKA of the pair",
            "cka_pair_biased": "biased linear CKA of the pair",
            "cka_pair_biased_null": "mean biased linear CKA of shuffled examples",
            "cka_pair_null_sd": "standard deviation of the debiased linear CKA of shuffled examples",
            "procrustes_pair": "Procrustes distance of the pair",
            "procrustes_pair_null": "least Procrustes distance of shuffled examples",
            "n_pair": "examples of the pair",
        }
        shown = ("cka_pair", "procrustes_pair", "procrustes_pair_null")
        return {
            name: quantity(
                [values[column] for values in rows.values()], units="1", dims="pair", coords={"pair": tuple(rows)},
                long_name=what, **({} if name in shown else {"chart": "none"}),
            )
            for column, (name, what) in enumerate(texts.items())
        }  # fmt: skip

    def about(self, layers: Comparable, seen: Seen) -> dict[str, Quantity]:
        """What a judgement needs to know of each layer."""
        owns = {layer.name for layer in seen.layers if any(len(p.shape) > 1 for p in layer.params)}
        weighty = [any(own == name or own.startswith(f"{name}.") for own in owns) for name in layers.names]
        widths = [features.shape[1] for features in layers.features]
        taking_part: dict[str, Any] = {
            "units": "1",
            "dims": "layer",
            "coords": {"layer": layers.names},
            "chart": "none",
        }
        return {
            "width": quantity(layers.along(widths), **taking_part, long_name="units counted"),
            "has_weights": quantity(np.asarray(weighty, dtype=np.int8), **taking_part, long_name="whether it holds weights"),
            "n": quantity(layers.n, units="1", long_name="examples compared", chart="none"),
            "status": quantity(
                np.asarray(list(layers.status.values()), dtype=np.int8), units="1", dims="layer",
                coords={"layer": tuple(layers.status)}, long_name="whether a layer was compared", chart="none",
                flag_values=list(range(len(STATUS))), flag_meanings=list(STATUS),
            ),
        }  # fmt: skip

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Layers that say the same, layers that stand still, two networks that part ways; at the last step measured."""
        found, looked = alike_findings.of(self, measured)
        yield from passed_if_silent(self, found, looked, measured)


def note_of(layers: Comparable) -> str:
    """How the samples of some layers were made, and which layers were left out."""
    notes = dict.fromkeys(sample.note.partition(", projected")[0] for sample in layers.samples)
    note = next(iter(notes))
    projected = sum(sample.width_from > sample.features.shape[1] for sample in layers.samples)
    if projected:
        note += (
            f"; {projected} of {len(layers.samples)} layers projected to {layers.samples[0].features.shape[1]} numbers"
        )
    left = sum(status == STATUS.index("beyond_max_layers") for status in layers.status.values())
    many = "layers" if left > 1 else "layer"
    return note + (f"; {left} {many} left out, the others evenly spaced along depth" if left else "")


def _paired(layers: Comparable, then: Mapping[str, Sample]) -> dict[str, tuple[Sample, Sample]]:
    """Each layer beside itself at another time, where the examples are the same."""
    found = {}
    for name, row in zip(layers.names, layers.rows, strict=True):
        now, before = layers.samples[row], then.get(name)
        if before is not None and before.ids.equal(now.ids) and not not_finite(before.features):
            found[name] = (before, now)
    return found
