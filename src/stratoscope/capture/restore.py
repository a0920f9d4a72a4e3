"""The model leaves as it came: modes, buffers and random states are put back, also after an error."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stratoscope.errors import CaptureError
from stratoscope.network.weights import is_lazy


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

    Raises:
        CaptureError: if it has lazy parameters, which would take their shape from what it is shown, or ones on the
            meta device, which hold no numbers.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if is_lazy(tensor):
            raise CaptureError("The model has lazy parameters that have not seen data yet; run it on one batch first.")
        if tensor.device.type == "meta":
            raise CaptureError("The model is on the meta device: it has shapes but no numbers; load its weights first.")
    modes = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in modes
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        with random_state_kept(), _eagerly():
            torch.backends.mha.set_fastpath_enabled(False)
            model.train(training)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                module._buffers[name] = buffer  # a module may put another tensor in its place
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def _eagerly() -> AbstractContextManager[None]:
    """Run compiled modules as they were written. Without the compiler, which takes a second to import, there are none."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


_DEFAULT: ContextVar[torch.device | None] = ContextVar("the user's default device", default=None)


@contextmanager
def on_host() -> Iterator[None]:
    """What we make ourselves lies on the CPU, whatever `torch.set_default_device` says; the network's own is its own."""
    given = torch.get_default_device()
    if given.type == "cpu":
        yield  # entering a device costs something at every function that is called
        return
    token = _DEFAULT.set(given)
    try:
        with torch.device("cpu"):
            yield
    finally:
        _DEFAULT.reset(token)


def as_given() -> AbstractContextManager[Any]:
    """Inside `on_host`, the default device as it was outside: for calls of the network."""
    return _DEFAULT.get() or nullcontext()


@contextmanager
def differentiable(model: nn.Module, *, twice: bool = False) -> Iterator[None]:
    """Choose kernels whose gradient exists in evaluation mode.

    cuDNN's recurrent kernels have one in training mode only, and no second one; fused attention has no second one.

    Args:
        model: the model.
        twice: whether the gradient is to be differentiated again.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    on_gpu = any(tensor.is_cuda for tensor in model.parameters())
    with ExitStack() as stack:
        if recurrent and on_gpu:
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if twice:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
