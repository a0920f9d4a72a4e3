"""Stratoscope shows what every layer of a neural network has learned, how its training is going, and what to do about it.

```python
from stratoscope import examine, inspect, watch
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stratoscope.diagnoses.base import Diagnosis
    from stratoscope.errors import NotApplicable, StratoscopeError
    from stratoscope.findings import Finding, Outcome
    from stratoscope.instruments.base import LayerInstrument, NetworkInstrument
    from stratoscope.network import datasets as data
    from stratoscope.network.subject import Subject
    from stratoscope.observe.cutting import cut
    from stratoscope.observe.diagnosing import diagnose
    from stratoscope.observe.examine import examine
    from stratoscope.observe.inspecting import inspect
    from stratoscope.observe.likeness import likeness
    from stratoscope.observe.twins import identical_output
    from stratoscope.observe.watch import watch
    from stratoscope.record.quantity import quantity
    from stratoscope.record.record import Record
    from stratoscope.version import __version__

_HOMES = {
    "Diagnosis": "stratoscope.diagnoses.base",
    "Finding": "stratoscope.findings",
    "LayerInstrument": "stratoscope.instruments.base",
    "NetworkInstrument": "stratoscope.instruments.base",
    "NotApplicable": "stratoscope.errors",
    "Outcome": "stratoscope.findings",
    "Record": "stratoscope.record.record",
    "StratoscopeError": "stratoscope.errors",
    "Subject": "stratoscope.network.subject",
    "__version__": "stratoscope.version",
    "cut": "stratoscope.observe.cutting",
    "data": "stratoscope.network.datasets",
    "diagnose": "stratoscope.observe.diagnosing",
    "examine": "stratoscope.observe.examine",
    "identical_output": "stratoscope.observe.twins",
    "inspect": "stratoscope.observe.inspecting",
    "likeness": "stratoscope.observe.likeness",
    "quantity": "stratoscope.record.quantity",
    "watch": "stratoscope.observe.watch",
}

__all__ = [
    "Diagnosis",
    "Finding",
    "LayerInstrument",
    "NetworkInstrument",
    "NotApplicable",
    "Outcome",
    "Record",
    "StratoscopeError",
    "Subject",
    "__version__",
    "cut",
    "data",
    "diagnose",
    "examine",
    "identical_output",
    "inspect",
    "likeness",
    "quantity",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import stratoscope` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stratoscope' has no attribute {name!r}")
    home = import_module(_HOMES[name])
    return home if name == "data" else getattr(home, name)


def __dir__() -> list[str]:
    return __all__
