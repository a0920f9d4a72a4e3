"""Building blocks as plain `torch.nn` modules: usable in any network, without the rest of this package.

```python
from stratoscope.nn import DeepBeliefNetwork, RestrictedBoltzmannMachine
```
"""

from __future__ import annotations

from stratoscope.nn.boltzmann import RestrictedBoltzmannMachine
from stratoscope.nn.deep_belief import DeepBeliefNetwork

__all__ = ["DeepBeliefNetwork", "RestrictedBoltzmannMachine"]
