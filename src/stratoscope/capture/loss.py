"""The loss of a batch: the user's, the model's own, or the usual one of the task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

from stratoscope.capture.batch import first_tensor
from stratoscope.errors import NotApplicable

if TYPE_CHECKING:
    from stratoscope.network.sources import Batch

IGNORED_LABEL = -100
"""The label that torch and Hugging Face leave out of a loss."""


@dataclass(frozen=True)
class BatchLoss:
    """The loss of one batch.

    Attributes:
        mean: the mean loss, in the graph if gradients are on.
        each: the loss of each labelled position, or `None` where only the mean is known.
        n: labelled positions that the mean is over.
        kind: what it is: `"cross entropy"`, `"mean squared error"`, `"the model's own"`, `"given"`.
        logits: class scores, `(n, classes)`, for a classification; `None` otherwise.
        labels: class indices, `(n,)`, that go with `logits`.
    """

    mean: Tensor
    each: Tensor | None
    n: int
    kind: str
    logits: Tensor | None = None
    labels: Tensor | None = None


def loss_of(given: Callable[..., Any] | None, output: Any, batch: Batch, model: nn.Module) -> BatchLoss:
    """The loss of a batch from the model's output.

    The user's own loss is used if there is one: `loss(output, labels)`, reduced or per example. Else the output's own
    `loss`, as Hugging Face models give it when they are given labels. Else cross entropy for class labels, and mean
    squared error for floating labels of the output's shape.

    Raises:
        NotApplicable: if there are no labels, or they fit no usual loss; says what was there.
    """
    value = _tensor(output)
    labels = batch.labels
    classes = _classification(value, labels, model)
    if given is not None:
        if labels is None:
            raise NotApplicable("a loss was given, but the data have no labels")
        return _given(given(output if not isinstance(output, Tensor) else value, labels), classes, batch.n)
    own = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
    if isinstance(own, Tensor):
        n = batch.n if classes is None else len(classes[1])
        return BatchLoss(own.mean(), None, n, "the model's own", *(classes or (None, None)))
    if labels is None or value is None:
        raise NotApplicable("the data have no labels, so there is no loss")
    if classes is not None:
        logits, targets = classes
        each = F.cross_entropy(logits.float(), targets, reduction="none")
        return BatchLoss(each.mean(), each, len(targets), "cross entropy", logits, targets)
    return _regression(value, labels)


def _tensor(output: Any) -> Tensor | None:
    """The output's scores, in the graph: `logits` where an object names them, else its first floating tensor."""
    named = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    for candidate in (named, output):
        if isinstance(candidate, Tensor):
            return candidate
    items = list(output.values()) if isinstance(output, dict) else output
    if isinstance(items, (tuple, list)):
        return next((item for item in items if isinstance(item, Tensor) and item.is_floating_point()), None)
    return first_tensor(output)[0]


def _classification(value: Tensor | None, labels: Tensor | None, model: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Scores and class indices, one row a labelled position; `None` where this is no classification."""
    if value is None or labels is None or labels.is_floating_point() or labels.dtype == torch.bool or value.ndim < 2:
        return None
    if labels.ndim == 2 and labels.shape[1] == 1 and value.ndim == 2 and value.shape[1] > 1:
        labels = labels[:, 0]
    if labels.ndim == value.ndim - 1 and labels.shape == value.shape[:-1]:
        if labels.ndim == 2 and type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
            value, labels = value[:, :-1], labels[:, 1:]
        scores, targets = value.reshape(-1, value.shape[-1]), labels.reshape(-1)
    elif labels.ndim == value.ndim - 1 and labels.shape == (value.shape[0], *value.shape[2:]):
        scores, targets = value.movedim(1, -1).reshape(-1, value.shape[1]), labels.reshape(-1)
    else:
        return None
    kept = targets != IGNORED_LABEL
    scores, targets = scores[kept], targets[kept].long()
    if len(targets) and (int(targets.min()) < 0 or int(targets.max()) >= scores.shape[1]):
        raise NotApplicable(
            f"labels from {int(targets.min())} to {int(targets.max())} do not fit {scores.shape[1]} outputs"
        )
    return scores, targets


def _regression(value: Tensor, labels: Tensor) -> BatchLoss:
    if value.numel() != labels.numel():
        raise NotApplicable(
            f"outputs of shape {tuple(value.shape)} and labels of shape {tuple(labels.shape)} fit no usual loss; "
            "give loss="
        )
    each = (value.float() - labels.reshape(value.shape).float()).square().reshape(len(value), -1).mean(1)
    return BatchLoss(each.mean(), each, len(each), "mean squared error")


def _given(loss: Any, classes: tuple[Tensor, Tensor] | None, n: int) -> BatchLoss:
    if not isinstance(loss, Tensor) or not loss.is_floating_point():
        raise NotApplicable(f"the loss gave {type(loss).__name__}, not a floating tensor")
    each = loss.reshape(-1) if loss.ndim > 0 and loss.numel() > 1 else None
    return BatchLoss(loss.mean(), each, n if each is None else len(each), "given", *(classes or (None, None)))
