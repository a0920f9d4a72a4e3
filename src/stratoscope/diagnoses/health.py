r"""Health: what is wrong with a training, from its time series.

Reads what `training` recorded of every step, and where they are there the full measurements of `weights` and
`performance`. What one instrument alone can say keeps its own code: dead units and units that are always on
(UN001, UN003), losses that are not finite (TR001), a learning rate that is too high (TR002), weights that hardly move at
all (TR003), gradients that have grown (TR004) or are zero (TR005), a loss that ends higher than it began (TR006), a gap
between training and held-out data (PF003), eigenvalues that are zero (RM002), layers that cannot be told from noise
(RM001). Health adds what shows along depth, along time, or in two instruments together.

What is known of every step is summed up over at most `blocks` stretches of recorded steps, labelled with their last
step. Of the weights that matrices are made of, embeddings left out:

| quantity | definition |
|---|---|
| `gradient_along_depth` | gradient norm of the first weights over that of the last, by a straight line through the logarithms of all |
| `gradient_along_depth_most` | the largest of a stretch, where the others are medians |
| `gradient_first_over_last` | the same, of these two alone |
| `burst` | gradient norm over the larger of its median in the stretch before and that of the first 20 steps; the third largest of a stretch and the 20 steps before it |
| `relative_speed` | update over weights, over the median of all weights that move at that step |
| `path` | sum of all updates over weights: no weight can have come further |
| `spike_height` | loss above what the `window` steps before lead to (a robust line), in their deviations from it (median absolute deviation; of logarithms where the loss is positive) |
| `spike_undone` | that rise over all that the loss had fallen by then |
| `never_updated`, `trainable` | whether no step had a gradient for a param; whether it asks for one |
| `norm_left`, `rank_left` | norm and effective rank of the weights over their largest so far (`rank_most`) |
| `usual_left` | median singular value over that where the effective rank was largest |
| `decay_alone` | what weight decay alone would have left: $\exp(-\sum_t \eta_t \lambda_t / (1 - m))$ |
| `accuracy_fall` | best held-out accuracy so far less that of now; `_low` is the lower end of the 95 % interval |
| `accuracy_train_gain` | what the accuracy on the training data gained since that best step |

The pages of the findings say of each what it means, when it misleads, and what to do.

Sources: vanishing and exploding gradients along depth, Glorot and Bengio, AISTATS 2010, and along time, Pascanu, Mikolov
and Bengio, arXiv:1211.5063; wrong labels are learned by heart, Zhang et al., arXiv:1611.03530, and after right ones,
Arpit et al., arXiv:1706.05394; mechanisms of weight decay, arXiv:1810.12281; effective rank, Roy and Vetterli, EUSIPCO
2007. Every limit is ours, chosen on the runs of the manual's page on health, and is a setting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stratoscope.diagnoses import health_rules
from stratoscope.diagnoses.base import Diagnosis
from stratoscope.diagnoses.health_numbers import Numbers
from stratoscope.diagnoses.health_steps import Wiring
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.instruments.reading import passed_if_silent
from stratoscope.numerics.spikes import LEAST

if TYPE_CHECKING:
    from stratoscope.findings import Finding
    from stratoscope.record.group import Group
    from stratoscope.record.quantity import Quantity
    from stratoscope.record.record import Record


@dataclass(frozen=True)
class Health(Diagnosis):
    """What is wrong with a training, from its time series.

    Attributes:
        blocks: stretches that the steps of a training are divided into at most.
        window: steps before each that its loss is compared with.
        min_steps: recorded steps below which nothing is judged.
        vanish: ratio of the first weights' gradient to the last ones' below which, over the later half of the run,
            gradients are said to vanish.
        explode: ratio above which, at any step, they are said to explode towards the first weights; and factor by which a
            gradient has to stand out of what it was, three times in a stretch, to burst.
        spike: deviations by which a loss has to stand out of the ones before it.
        undone: share of what the loss had fallen that a spike has to undo.
        short_path: length of every weight's way, over its norm, below which the learning rate may be too low.
        hardly_fell: share of its beginning by which the loss fell less, for that.
        stalled: speed over the median of all weights below which a layer has stalled, over the later half of the run.
        shrunk: share of their norm that is left of weights that have decayed away.
        useless: share of its beginning above which the loss has to be at the end, for that.
        rank_left: share of the largest effective rank below which the rank has collapsed.
        min_rank: effective rank that a matrix must have had, for that.
        usual_left: share below which its median singular value must have fallen as well: where one direction alone has
            grown, the effective rank falls and the others are still there.
        accuracy_fall: fall of a held-out accuracy below its best from which it counts, beyond its interval.
    """

    key: ClassVar[str] = "health"
    title: ClassVar[str] = "Health"
    source: ClassVar[str] = "arXiv:1211.5063"
    codes: ClassVar[Mapping[str, str]] = {
        "HE001": "gradients vanish on their way to the first layers",
        "HE002": "gradients explode",
        "HE003": "the loss spikes",
        "HE004": "the learning rate may be too low: nothing moves far and the loss hardly falls",
        "HE005": "a parameter is never updated",
        "HE006": "a layer has stalled while others train",
        "HE007": "weights decay away",
        "HE008": "the rank of a weight matrix collapses in training",
        "HE009": "held-out accuracy falls while the training data are learned by heart",
        "HE010": "too few steps to judge a training",
    }
    reads: ClassVar[frozenset[str]] = frozenset({"training", "weights", "performance"})
    optional: ClassVar[frozenset[str]] = frozenset({"weights", "performance"})
    any_of: ClassVar[frozenset[str]] = frozenset({"training"})

    blocks: int = 40
    window: int = 50
    min_steps: int = 20
    vanish: float = 1e-3
    explode: float = 100.0
    spike: float = 8.0
    undone: float = 0.2
    short_path: float = 0.1
    hardly_fell: float = 0.2
    stalled: float = 0.01
    shrunk: float = 0.2
    useless: float = 0.5
    rank_left: float = 0.4
    min_rank: float = 4.0
    usual_left: float = 0.5
    accuracy_fall: float = 0.05

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.window < LEAST:
            raise SettingError(
                f"Health(blocks={self.blocks}, window={self.window}): take at least 1 stretch and a window of {LEAST} steps."
            )

    def derive(self, record: Record) -> Mapping[str, Quantity]:
        """The numbers that are judged, over stretches of steps and over full measurements."""
        groups = self.groups(record)
        if not {"loss", "gradient_norm"} & set(groups["training"]):
            raise NotApplicable("neither losses nor gradients were recorded")
        return Numbers(groups, Wiring.of(record.layers), self.blocks, self.window).quantities()

    def judge(self, measured: Group) -> Iterator[Finding]:
        """Each fault that shows; nothing of a run that is too short."""
        found, looked = health_rules.of(self, measured)
        yield from passed_if_silent(self, found, looked, measured)
