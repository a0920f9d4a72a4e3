"""The loss of a batch: the user's, the model's own, or the usual one of the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

from stratoscope.capture.batch import find_tensor
from stratoscope.errors import CaptureError, NotApplicable

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
        CaptureError: if the user's own loss fails.
    """
    value, labels = scores_of(output), batch.labels
    if given is not None:
        if labels is None:
            raise NotApplicable("a loss was given, but the data have no labels")
        return _given(_called(given, output, labels), labels, _if_fitting(value, labels, model), batch.n)
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(own, Tensor):
        classes = _if_fitting(value, labels, model)
        n = batch.n if classes is None else len(classes[1])
        return BatchLoss(own.mean(), None, n, "the model's own", *(classes or (None, None)))
    if labels is None:
        raise NotApplicable("the data have no labels, so there is no loss")
    if value is None:
        raise NotApplicable(f"the model gives {type(output).__name__}, in which there are no scores; give loss=")
    classes = _classification(value, labels, model)
    if classes is None:
        return _regression(value, labels)
    logits, targets = classes
    each = F.cross_entropy(_wide(logits), targets, reduction="none")
    return BatchLoss(each.mean(), each, len(targets), "cross entropy", logits, targets)


def scores_of(output: Any) -> Tensor | None:
    """The output's scores, in the graph: `logits` where an object names them, else its first floating tensor."""
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    found = named if isinstance(named, Tensor) else output if isinstance(output, Tensor) else find_tensor(output)
    return found if isinstance(found, Tensor) else None


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
            f"labels from {int(targets.min())} to {int(targets.max())} do not fit {scores.shape[1]} outputs; give loss="
        )
    return scores, targets


def _if_fitting(value: Tensor | None, labels: Tensor | None, model: nn.Module) -> tuple[Tensor, Tensor] | None:
    """The same; `None` where the labels do not fit, which is no matter to a loss of the user's own."""
    try:
        return _classification(value, labels, model)
    except NotApplicable:
        return None


def _regression(value: Tensor, labels: Tensor) -> BatchLoss:
    shapes = f"outputs of shape {tuple(value.shape)} and labels of shape {tuple(labels.shape)}"
    if value.numel() != labels.numel() or value.ndim == 0:
        raise NotApplicable(f"{shapes} fit no usual loss; give loss=")
    if not labels.is_floating_point():
        raise NotApplicable(f"{shapes} and type {labels.dtype} are neither classes nor floating targets; give loss=")
    each = (_wide(value) - _wide(labels.reshape(value.shape))).square().reshape(len(value), -1).mean(1)
    return BatchLoss(each.mean(), each, len(each), "mean squared error")


def _called(given: Callable[..., Any], output: Any, labels: Tensor) -> Any:
    try:
        return given(output, labels)
    except NotApplicable:
        raise
    except Exception as error:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        said = (str(error).splitlines() or [""])[0]
        raise CaptureError(
            f"The loss that was given failed on outputs {shape} and labels {tuple(labels.shape)}, {labels.dtype}: "
            f"{type(error).__name__}: {said}"
        ) from error


def _given(loss: Any, labels: Tensor, classes: tuple[Tensor, Tensor] | None, n: int) -> BatchLoss:
    if not isinstance(loss, Tensor) or not loss.is_floating_point():
        raise NotApplicable(f"the loss gave {type(loss).__name__}, not a floating tensor")
    positions = n if classes is None else len(classes[1])
    each = loss.reshape(-1)
    if classes is not None and loss.ndim > 0 and loss.numel() == labels.numel():
        # a loss that is not reduced gives zero where there is no label
        each = each[labels.reshape(-1) != IGNORED_LABEL]
    if loss.ndim == 0 or len(each) not in (positions, n, labels.numel()):
        return BatchLoss(loss.mean(), None, positions, "given", *(classes or (None, None)))
    return BatchLoss(each.mean(), each, len(each), "given", *(classes or (None, None)))


def _wide(value: Tensor) -> Tensor:
    """Half precision as float32; others as they are."""
    return value.float() if value.dtype.itemsize < 4 else value
