"""The model leaves as it came: modes, buffers and random states are put back, also after an error."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put the states of Python's, NumPy's and torch's global generators back on the way out."""
    python, host = random.getstate(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    numpy = sys.modules.get("numpy")
    legacy = numpy.random.get_state() if numpy else None
    try:
        yield
    finally:
        random.setstate(python)
        torch.set_rng_state(host)
        if devices:
            torch.cuda.set_rng_state_all(devices)
        if numpy:
            numpy.random.set_state(legacy)


@contextmanager
def untouched(model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Look at a model without a trace.

    Inside, the model is in the mode asked for, compiled modules run eagerly (a compiled graph would pass our hooks
    by), and so do the fused attention kernels. On the way out every module's mode and every buffer is what it was.

    Args:
        model: the model.
        training: whether to look at it in training mode.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers() if buffer.device.type != "meta"]
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        with random_state_kept(), torch.compiler.set_stance("force_eager"):
            torch.backends.mha.set_fastpath_enabled(False)
            model.train(training)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
