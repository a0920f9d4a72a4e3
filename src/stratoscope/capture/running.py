"""One call of a model on one batch, with its own weights or with others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from stratoscope.capture.restore import as_given

if TYPE_CHECKING:
    from stratoscope.network.sources import Batch


def call(model: nn.Module, batch: Batch, weights: Mapping[str, Tensor] | None = None) -> Any:
    """What a model gives for a batch.

    `labels` among what is given by name, which models of Hugging Face make their loss of, are left out where the model
    does not know the word.

    Args:
        model: the model.
        batch: where the model is, and of its type.
        weights: other tensors to run it with, by key; its own stay as they are.
    """
    kwargs = dict(batch.kwargs)
    if "labels" in kwargs and not takes(model, "labels"):
        del kwargs["labels"]
    with as_given():
        if weights is None:
            return model(*batch.args, **kwargs)
        return functional_call(model, dict(weights), batch.args, kwargs)


def takes(model: nn.Module, name: str) -> bool:
    """Whether a model's forward can be given something by this name."""
    try:
        known = inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return True
    return name in known or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """The floating type of its params, in which it wants its inputs; `None` where it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def trained(
    model: nn.Module, weights: Mapping[str, Tensor] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """What a gradient is taken of.

    Args:
        model: the model.
        weights: other tensors to run it with, or `None` for its own.

    Returns:
        The trained params by key, tied ones once; and the tensors to run the model with, of which these are part.
    """
    own: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if weights is None:
        return own, None
    used = {name: tensor.detach().requires_grad_(name in own) for name, tensor in weights.items()}
    return {name: used.get(name, p) for name, p in own.items()}, used
