"""Trying an instrument on a subject: once through, watched over a few steps, or broken on purpose."""

from __future__ import annotations

import copy
import functools
import math
import random
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from stratoscope.capture.loss import loss_of
from stratoscope.capture.needs import Initial, Live, Previous
from stratoscope.capture.running import call, dtype_of
from stratoscope.findings import Finding
from stratoscope.instruments.base import Instrument, LayerInstrument
from stratoscope.network.subject import Subject
from stratoscope.observe.examine import examine
from stratoscope.observe.settings import Settings
from stratoscope.observe.watch import watch
from stratoscope.record.quantity import Quantity
from stratoscope.record.record import Record
from stratoscope.record.rows import Coverage
from stratoscope.testing.subjects import seeded

STEPS = 36
"""Optimizer steps of a watched trial: enough for a window of 32."""

I = TypeVar("I", bound=Instrument)  # noqa: E741

Numbers = dict[str, tuple[tuple[str, ...], tuple[tuple[Any, ...], ...], NDArray[Any]]]
"""For each variable: its dims, the labels along them, and its values."""


class OnPurposeError(Exception):
    """What a broken trial raises."""


@dataclass
class Trial:
    """What came of one trial.

    Attributes:
        numbers: what was measured, read back from disk.
        findings: what the instrument says of that.
        coverage: what was and was not measured.
        said: the findings that were saved with the record.
        returned: dims and attributes of what `measure` or `measure_layer` gave, for each place.
        failed: where it failed, and how.
    """

    numbers: Numbers = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    said: list[Finding] = field(default_factory=list)
    coverage: list[Coverage] = field(default_factory=list)
    returned: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def needs_training(instrument: Instrument) -> bool:
    """Whether it measures nothing without a training."""
    asked = instrument.requires or instrument.uses
    return instrument.every_step or any(isinstance(need, (Initial, Previous, Live)) for need in asked)


def tried(instrument: Instrument, subject: Subject, then: Callable[[Record], None] | None = None) -> Trial:
    """Measure a subject with one instrument, on disk, and read it back.

    Args:
        instrument: the instrument.
        subject: the subject; if the instrument needs a training, its model is trained.
        then: looks at the record while it is there.
    """
    trial = Trial()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(folder) / "run"
        recording = noting(instrument, trial.returned)
        if needs_training(instrument):
            train(subject, [recording], path)
        else:
            examine(subject=subject, instruments=[recording], to=path, settings=Settings()).close()
        with Record.open(path) as record:
            trial.coverage = record.coverage()
            trial.failed = [f"{f.layer or 'the network'}: {f.says}" for f in record.findings if f.outcome == "failed"]
            trial.said = record.findings
            if instrument.key in record:
                trial.numbers = numbers_of(record, instrument.key)
                trial.findings = list(instrument.judge(record[instrument.key]))
            if then is not None:
                then(record)
    return trial


def train(subject: Subject, instruments: list[Instrument] | None, path: Path) -> None:
    """A few steps of plain SGD, watched by the instruments, or by nobody where there are none."""
    model = subject.module
    assert model is not None
    split = replace(subject, batch_size=8, _probes={}).probe_set(next(iter(subject.splits)))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)

    def steps() -> Iterator[tuple[int, Tensor]]:
        with seeded(0):  # for dropout
            for step in range(STEPS):
                batch = split.batches[step % len(split.batches)].to(subject.device, dtype=dtype_of(model))
                loss = loss_of(subject.loss, call(model, batch), batch, model).mean
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                yield step + 1, loss

    if instruments is None:
        for _ in steps():
            pass
        return
    with watch(
        model, subject.data, optimizer=optimizer, loss=subject.loss, labels=subject.labels, to=path, budget=math.inf,
        every=9, instruments=instruments, probe=subject.probe, batch_size=subject.batch_size, seed=subject.seed,
        snapshot=True, settings=Settings(),
    ) as w:  # fmt: skip
        for step, loss in steps():
            w.step(step, loss=loss)


def numbers_of(record: Record, key: str) -> Numbers:
    """Everything that one instrument measured."""
    group = record[key]
    found: Numbers = {}
    for name in group:
        variable = group.read(name)
        labels = tuple(tuple(axis.labels()) for axis in variable.axes)
        found[name] = (variable.dims, labels, np.array(variable.values))
    return found


def noting(instrument: I, notes: list[tuple[str, Mapping[str, Any]]], *, fail_at: int = 0) -> I:
    """The same instrument, which notes what it measures.

    Args:
        instrument: the instrument.
        notes: where to note it.
        fail_at: which of the needs that it asks for raises, each time that it measures; 0 for none.
    """
    cls = type(instrument)
    name = "measure_layer" if isinstance(instrument, LayerInstrument) else "measure"

    def measure(self: Any, seen: Any) -> Any:
        found = getattr(cls, name)(self, _FailingView(seen, fail_at) if fail_at else seen)
        if fail_at:
            raise OnPurposeError("measuring failed on purpose")
        notes.append((seen.layer.name if hasattr(seen, "layer") else "the network", described(found)))
        return found

    body = {name: measure, "__module__": cls.__module__, "__doc__": cls.__doc__}
    noter = type(cls.__name__, (cls,), body)
    made: I = noter(**{f.name: getattr(instrument, f.name) for f in fields(instrument) if f.init})
    return made


class _FailingView:
    """What an instrument is shown, until it asks for one need too many."""

    def __init__(self, seen: Any, fail_at: int) -> None:
        self._seen, self._left = seen, fail_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._seen, name)

    def __getitem__(self, need: Any) -> Any:
        self._count()
        return self._seen[need]

    def get(self, need: Any, default: Any = None) -> Any:
        """As the view's own."""
        self._count()
        return self._seen.get(need, default)

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise OnPurposeError("asking for a need failed on purpose")


def described(found: Any) -> dict[str, tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Dims and attributes of what an instrument gave, quantities or a dataset.

    Raises:
        TypeError: if it is neither.
    """
    found = getattr(found, "data_vars", found)
    if not isinstance(found, Mapping):
        raise TypeError(f"it must give a mapping of quantities, not {type(found).__name__}")
    for name, value in found.items():
        if not (isinstance(value, Quantity) or (hasattr(value, "dims") and hasattr(value, "attrs"))):
            raise TypeError(f"{name} must be made by quantity(...); it is {type(value).__name__}")
    return {str(name): (tuple(str(dim) for dim in value.dims), value.attrs) for name, value in found.items()}


@contextmanager
def breaking(model: nn.Module, after: int) -> Iterator[None]:
    """Let a model's forward raise from the call after so many on."""
    original, calls = model.forward, 0

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        output = original(*args, **kwargs)
        if calls > after:
            raise OnPurposeError("the forward pass failed on purpose")
        return output

    model.forward = forward
    try:
        yield
    finally:
        del model.forward


# -- what must stay as it is ---------------------------------------------------------------------------------------------


def unsettled(subject: Subject) -> Subject:
    """The same subject with a model in a mixed state: some modules evaluate, some params are frozen or have gradients."""
    model = copy.deepcopy(subject.module)
    assert model is not None
    generator = torch.Generator().manual_seed(0)
    model.train()
    for place, module in enumerate(model.modules()):
        module.training = place % 3 != 1
    for place, param in enumerate(model.parameters()):
        param.requires_grad_(place % 4 != 3)
        if param.requires_grad and place % 2 == 0:
            param.grad = torch.randn(param.shape, generator=generator).to(param)
    return replace(subject, model=model, _probes={})


def state_of(model: nn.Module, *, numbers: bool = True, identity: bool = True) -> dict[str, Any]:
    """Everything of a model and of the process that looking must not change, by name; bytes where it holds numbers.

    Args:
        model: the model.
        numbers: whether params, gradients and buffers are part of it.
        identity: whether it matters that params and buffers are the very same objects.
    """
    state: dict[str, Any] = {}
    for path, module in model.named_modules():
        state[f"type of {path or 'the model'}"] = type(module)
        state[f"mode of {path or 'the model'}"] = module.training
        state[f"attributes of {path or 'the model'}"] = sorted(vars(module))
        state[f"hooks of {path or 'the model'}"] = _hooks(vars(module))
    for name, param in model.named_parameters(remove_duplicate=False):
        state[f"requires_grad of {name}"] = param.requires_grad
        state[f"hooks of {name}"] = len(param._backward_hooks or ())
        state[f"identity of {name}"] = identity and id(param)
        state[f"param {name}"] = numbers and _bytes(param)
        state[f"grad of {name}"] = numbers and param.grad is not None and _bytes(param.grad)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        state[f"identity of {name}"] = identity and id(buffer)
        state[f"buffer {name}"] = numbers and _bytes(buffer)
    state |= {
        "torch's random state": bytes(torch.get_rng_state().numpy()),
        "NumPy's random state": repr(np.random.get_state()),
        "Python's random state": random.getstate(),
        "global hooks": _hooks(vars(global_hooks)),
        "gradient mode": torch.is_grad_enabled(),
        "default type": torch.get_default_dtype(),
        "attention fast path": torch.backends.mha.get_fastpath_enabled(),
    }
    return state


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of what differs."""
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def _hooks(attributes: Mapping[str, Any]) -> dict[str, int]:
    return {
        name: len(value) for name, value in attributes.items() if name.endswith("_hooks") and isinstance(value, Mapping)
    }


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


# -- comparing -----------------------------------------------------------------------------------------------------------


def difference(one: Numbers, other: Numbers, tolerance: float) -> str:
    """Where two measurements differ by more than a tolerance, relative or absolute; empty if they do not.

    >>> one = {"share": (("unit",), ((0, 1),), np.array([0.5, np.nan]))}
    >>> difference(one, one, 0.0)
    ''
    """
    if one.keys() != other.keys():
        return f"{sorted(one.keys() ^ other.keys())[0]} is in one of them only"
    for name, (dims, labels, values) in one.items():
        its_dims, its_labels, its_values = other[name]
        if dims != its_dims or labels != its_labels:
            return f"{name} has other labels"
        far = ~np.isclose(
            values.astype(float), its_values.astype(float), rtol=tolerance, atol=tolerance, equal_nan=True
        )
        if far.any():
            place = tuple(int(i) for i in np.argwhere(far)[0])
            where = ", ".join(str(along[i]) for along, i in zip(labels, place, strict=True))
            return f"{name} at ({where}) is {values[place]} and {its_values[place]}"
    return ""


def plain(values: Iterable[Any]) -> bool:
    """Whether these are all plain numbers, texts, truth values or `None`."""
    return all(type(value) in (int, float, str, bool, type(None)) for value in values)
