"""Penalties on what a layer says, for any layer of a model that stays as it is.

```python
from stratoscope.regularizers import StableRank, attach

with attach(model, {"fc5": StableRank()}, coefficient=1e-2) as extra:
    for x, y in loader:
        loss = criterion(model(x), y) + extra()
        ...
```

A positive coefficient lowers the statistic, a negative one raises it. Class-wise penalties take the labels:
`extra(y)`.

Source: Choi et al., arXiv:1811.03666, which examines eight of them: `EIGHT`.
"""

from stratoscope.regularizers.attaching import Attached, attach
from stratoscope.regularizers.penalties import EIGHT, Correlation, Penalty, Sparsity, StableRank, Variance

__all__ = ["Attached", "Correlation", "EIGHT", "Penalty", "Sparsity", "StableRank", "Variance", "attach"]  # noqa: RUF022 - in the order of sorted()
