"""The user's module inside what torch wraps around it."""

from __future__ import annotations

import torch
from torch import nn

from stratoscope.errors import SubjectError

_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "DeepSpeedEngine": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
"""Class name of a wrapper, and the attribute that holds what it wraps."""

HIDDEN_PREFIX = "_checkpoint_wrapped_module."
"""A part of module paths that torch itself leaves out of the keys of a state dict."""


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, `DataParallel`, `DistributedDataParallel` and checkpoint wrappers.

    Raises:
        SubjectError: if it is no module, or a TorchScript module, whose layers cannot be looked into.

    >>> unwrap(nn.DataParallel(nn.Linear(3, 4)))
    Linear(in_features=3, out_features=4, bias=True)
    """
    if not isinstance(module, nn.Module):
        raise SubjectError(f"A network must be a torch.nn.Module; this is a {type(module).__name__}.")
    while (attribute := wrapped_in(module)) is not None:
        module = getattr(module, attribute)
    if isinstance(module, torch.jit.ScriptModule):
        raise SubjectError(
            f"{type(module).__name__} is a TorchScript module, into which nobody can look while it runs; "
            "give the eager module that it was made from, or its weights alone."
        )
    return module


def wrapped_in(module: nn.Module) -> str | None:
    """The attribute in which a wrapper keeps its module; `None` if this is no wrapper."""
    for kind in type(module).__mro__:
        attribute = _WRAPPERS.get(kind.__name__)
        if attribute is not None and kind.__module__.partition(".")[0] in ("torch", "deepspeed"):
            return attribute
    return None
