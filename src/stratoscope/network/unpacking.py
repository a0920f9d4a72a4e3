"""What people hand over as one batch, taken apart into inputs, labels and mask."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import DataError
from stratoscope.network.batches import Batch, mapped

LABEL_KEYS = ("labels", "label", "targets", "target", "y")
"""Keys of a dict batch under which labels are recognised, the first that is there."""

INPUT_KEYS = frozenset({"x", "X", "input", "inputs", "image", "images"})
"""Keys of a dict batch that stand for its one input."""

MODEL_KEYS = frozenset(
    {
        "input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds", "pixel_values", "pixel_mask",
        "input_values", "input_features", "decoder_input_ids", "decoder_attention_mask", "bbox",
    }
)  # fmt: skip
"""Keys that Hugging Face models take by name."""

PADDING_KEYS = ("src_key_padding_mask", "key_padding_mask")
"""Keys by which torch's attention modules are told what is padding: true where it is."""

LabelRule = bool | int | str | None
"""Where the labels of a batch are: a position, a key, `True` (the last), `False` (nowhere), `None` (by the rules)."""


def unpack(given: Any, rule: LabelRule, where: str) -> Batch:
    """Take a batch apart. Sizes are not checked here.

    * A tensor or array alone is the input.
    * `(x, y)`: the last is the labels. Of three and more the last is the labels if it is a vector of whole numbers or
      truth values (or one column of them); else all are inputs. A list counts as a tuple.
    * A dict: `labels`, `label`, `targets`, `target` or `y` is the labels. If one entry is left, and its name is none
      that Hugging Face models take, it is given by position; otherwise all are given by name.
    * `(dict, y)`: the dict's entries by name, and the labels.

    Args:
        given: the batch.
        rule: where the labels are, if not by these rules.
        where: begins the message of an error.

    Raises:
        DataError: if it holds what no network takes, or the labels are not where the rule says.
    """
    if isinstance(given, Mapping):
        return _unpack_dict(dict(given), rule, where)
    if isinstance(given, (tuple, list)) and not is_numbers(given):
        return _unpack_tuple(tuple(given), rule, where)
    if not (rule is None or rule is False):
        raise DataError(
            f"{where} is one {type(given).__name__} without labels; labels={rule!r} has nothing to point at."
        )
    return _batch((tensors(given, where),), {}, None)


def _unpack_dict(given: dict[str, Any], rule: LabelRule, where: str) -> Batch:
    if not all(isinstance(key, str) for key in given):
        raise DataError(f"{where} is a dict whose keys are not all text.")
    if isinstance(rule, bool) or rule is None:
        key = None if rule is False else next((key for key in LABEL_KEYS if key in given), None)
        if rule is True and key is None:
            raise DataError(f"{where} holds {', '.join(given)} and no labels under {', '.join(LABEL_KEYS)}.")
    elif rule in given:
        key = str(rule)
    else:
        raise DataError(f"{where} has no key {rule!r} for the labels; it holds {', '.join(given)}.")
    labels = None if key is None else as_labels(given[key], where)
    inputs = {name: tensors(value, f"{where}, {name!r},") for name, value in given.items() if name != key}
    if len(inputs) == 1 and not inputs.keys() & MODEL_KEYS:
        return _batch(tuple(inputs.values()), {}, labels)
    if key == "labels" and inputs.keys() & MODEL_KEYS:
        inputs["labels"] = labels
    return _batch((), inputs, labels)


def _unpack_tuple(given: tuple[Any, ...], rule: LabelRule, where: str) -> Batch:
    if not given:
        raise DataError(f"{where} is an empty {type(given).__name__}.")
    at = _label_place(given, rule, where)
    labels = None if at is None else as_labels(given[at], where)
    rest = [item for place, item in enumerate(given) if place != at]
    if len(rest) == 1 and isinstance(rest[0], Mapping):
        inner = _unpack_dict(dict(rest[0]), None if at is None else False, where)
        return _batch(inner.args, dict(inner.kwargs), labels if at is not None else inner.labels)
    args = tuple(tensors(item, f"{where}, element {place},") for place, item in enumerate(rest))
    return _batch(args, {}, labels)


def _label_place(given: tuple[Any, ...], rule: LabelRule, where: str) -> int | None:
    count = len(given)
    if isinstance(rule, str):
        raise DataError(f"{where} is a tuple, so labels={rule!r} must be a position, not a name.")
    if rule is False or (rule is None and count == 1):
        return None
    if rule is None and count > 2:
        return count - 1 if _is_class_vector(given[-1]) else None
    at = count - 1 if rule is None or rule is True else int(rule)
    if not -count <= at < count or count == 1:
        raise DataError(f"{where} has {count} elements, so labels={rule!r} leaves no labels or no inputs.")
    return at % count


def _is_class_vector(value: Any) -> bool:
    shape = getattr(value, "shape", None)
    if shape is None or not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        return False
    if isinstance(value, Tensor):
        return not value.is_floating_point() and not value.is_complex()
    return getattr(getattr(value, "dtype", None), "kind", "") in "iub"


def _batch(args: tuple[Any, ...], kwargs: dict[str, Any], labels: Tensor | None) -> Batch:
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2 and not mask.is_floating_point():
        return Batch(args, kwargs, labels, mask.bool())
    padding = next((kwargs[key] for key in PADDING_KEYS if key in kwargs), None)
    if isinstance(padding, Tensor) and padding.ndim == 2 and padding.dtype == torch.bool:
        return Batch(args, kwargs, labels, ~padding)
    return Batch(args, kwargs, labels)


def as_labels(value: Any, where: str) -> Tensor:
    """Labels as one tensor; whole numbers become int64.

    Raises:
        DataError: if they are not one array of numbers.
    """
    found = tensors(value, f"{where}, the labels,")
    if not isinstance(found, Tensor):
        raise DataError(
            f"{where} has labels of type {type(value).__name__}, not one tensor; give the inputs alone, or say with "
            "labels= where the labels are (labels=False: there are none)."
        )
    whole = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
    return found.long() if whole else found


def tensors(value: Any, where: str) -> Any:
    """Turn arrays and lists of numbers into tensors, which share memory where they can; numbers and `None` stay.

    Raises:
        DataError: for text, Python objects, ragged lists, sparse tensors and anything else that no network takes.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized:
            raise DataError(f"{where} is a sparse or quantised tensor; give a dense one.")
        return value.detach()
    if isinstance(value, Mapping):
        return {name: tensors(item, f"{where}, {name!r},") for name, item in value.items()}
    if isinstance(value, (tuple, list)) and not is_numbers(value):
        return tuple(tensors(item, where) for item in value)
    numeric = isinstance(value, (tuple, list)) or hasattr(value, "__array__")
    if numeric and not type(value).__module__.startswith("PIL."):
        return from_array(as_array(value, where), where)
    if type(value).__module__.startswith("PIL."):
        raise DataError(f"{where} holds a picture; give its dataset a transform that makes tensors of pictures.")
    what = "text" if isinstance(value, (str, bytes)) else type(value).__name__
    raise DataError(f"{where} holds {what}, which no network takes; turn it into tensors or leave it out.")


def is_numbers(value: Any) -> bool:
    """Whether this is a (nested) list of plain numbers."""
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    return isinstance(value, (bool, int, float)) or (isinstance(value, (tuple, list)) and not value)


def as_array(value: Any, where: str) -> np.ndarray[Any, Any]:
    """An array of numbers.

    Raises:
        DataError: if it is ragged, or holds text or Python objects.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where} is ragged: its rows differ in length; pad or cut them to one.") from error
    if array.dtype.kind == "O":
        raise DataError(f"{where} holds Python objects (dtype object), not numbers; are its rows of one length?")
    if array.dtype.kind not in "biufc":
        raise DataError(f"{where} holds {array.dtype}, which no network takes; turn it into numbers or leave it out.")
    return array


def from_array(array: np.ndarray[Any, Any], where: str) -> Tensor:
    """A tensor of an array's numbers that shares its memory where torch can; it must not be written to.

    Types that torch lacks or barely supports become the next larger one: unsigned 16 and 32 bits become signed 32 and
    64, long doubles become float64.
    """
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        if array.dtype.itemsize == 8 and array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise DataError(f"{where} holds numbers beyond 64 bits with sign.")
        array = array.astype(np.int32 if array.dtype.itemsize == 2 else np.int64)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def at_rows(batch: Batch, rows: slice | Tensor) -> Batch:
    """Some rows of a batch whose tensors all have their examples first; tensors without axes stay."""

    def pick(tensor: Tensor) -> Tensor:
        if not tensor.ndim:
            return tensor
        return tensor[rows] if isinstance(rows, slice) else tensor.index_select(0, rows.to(tensor.device))

    return _changed(batch, pick)


def owned(batch: Batch) -> Batch:
    """The same on the CPU, in memory that nobody else writes to."""
    return _changed(batch, lambda tensor: tensor.cpu() if tensor.device.type != "cpu" else tensor.clone())


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches of one structure, end to end."""
    others = [_every(batch) for batch in batches]

    def join(first: Tensor) -> Tensor:
        parts = [next(tensors) for tensors in others]
        return torch.cat(parts) if first.ndim else first

    return _changed(batches[0], join)


def _every(batch: Batch) -> Iterator[Tensor]:
    """Every tensor in the order in which `_changed` meets them."""
    found: list[Tensor] = []
    _changed(batch, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return iter(found)


def _changed(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    labels = mapped(change, batch.labels)
    kwargs = {
        name: labels if labels is not None and value is batch.labels else mapped(change, value)
        for name, value in batch.kwargs.items()
    }
    return Batch(mapped(change, batch.args), kwargs, labels, mapped(change, batch.mask))


def not_finite(batch: Batch) -> tuple[str, Tensor] | None:
    """The first floating tensor that holds NaN or infinity, and which rows do. Additive masks may hold infinity."""
    for name, tensor in batch.tensors():
        if tensor.is_floating_point() and tensor.ndim and not name.endswith(("mask", "bias")):
            bad = ~torch.isfinite(tensor).reshape(len(tensor), -1).all(1)
            if bool(bad.any()):
                return name, bad
    return None
