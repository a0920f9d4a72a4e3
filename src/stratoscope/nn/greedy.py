"""Trains a stack of restricted Boltzmann machines from below.

Autograd is not used: the gradient of contrastive divergence is a difference of two outer products, and each goes into the
momentum as it is computed. So an update with one step of the chain is five products of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from stratoscope.errors import DataError, SettingError
from stratoscope.nn.boltzmann import RestrictedBoltzmannMachine, as_parts, check_values
from stratoscope.nn.checkpoints import Checkpoints, digest_of

Progress = Callable[[str, int, int], object]
"""Told what is being done, how much of it is done, and of how much."""

PASS = 4096
"""Examples that are passed upward together."""


@dataclass(frozen=True)
class Epoch:
    """What came of one pass over the data.

    Attributes:
        layer: which machine, from 0.
        epoch: which pass, from 1.
        reconstruction_error: mean squared difference between the examples and the end of their chains, over units and
            examples, as the machine changed.
    """

    layer: int
    epoch: int
    reconstruction_error: float


@dataclass
class _Layer:
    """One machine in training."""

    machine: RestrictedBoltzmannMachine
    velocity: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.velocity = {name: torch.zeros_like(param.data) for name, param in self.machine.named_parameters()}

    def tensors(self, generator: torch.Generator) -> dict[str, Tensor]:
        """All that it takes to go on."""
        params = {name: param.data for name, param in self.machine.named_parameters()}
        velocity = {f"velocity.{name}": tensor for name, tensor in self.velocity.items()}
        return {**params, **velocity, "generator": generator.get_state()}

    def load(self, tensors: dict[str, Tensor], generator: torch.Generator) -> None:
        """Go back to where it was."""
        for name, param in self.machine.named_parameters():
            param.data.copy_(tensors[name])
            self.velocity[name].copy_(tensors[f"velocity.{name}"])
        generator.set_state(tensors["generator"])


@dataclass(frozen=True)
class GreedyTraining:
    """How a stack is trained; `DeepBeliefNetwork.fit` says what each setting is."""

    epochs: int
    batch_size: int
    lr: tuple[float, ...]
    momentum: tuple[float, float]
    momentum_after: int
    weight_decay: float
    k: int
    sample_visible: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", tuple(self.momentum))
        wrong = [
            f"{name}={value} must be {what}"
            for name, value, what, good in (
                ("epochs", self.epochs, "at least 1", self.epochs >= 1),
                ("batch_size", self.batch_size, "at least 1", self.batch_size >= 1),
                ("lr", self.lr, "above 0 and finite", all(0 < rate < math.inf for rate in self.lr)),
                ("momentum", self.momentum, "two numbers from 0 to below 1", _pair(self.momentum)),
                ("momentum_after", self.momentum_after, "at least 0", self.momentum_after >= 0),
                ("weight_decay", self.weight_decay, "at least 0 and finite", 0 <= self.weight_decay < math.inf),
                ("k", self.k, "at least 1 step", self.k >= 1),
            )
            if not good
        ]
        if wrong:
            raise SettingError(f"{wrong[0]}.")

    @torch.no_grad()
    def run(
        self,
        machines: Sequence[RestrictedBoltzmannMachine],
        data: Shaped[Tensor, "n ..."],
        generator: torch.Generator,
        *,
        progress: Progress | None = None,
        folder: Path | None = None,
        resume: bool = False,
    ) -> tuple[Epoch, ...]:
        """Train the machines in order.

        Raises:
            DataError: if the data cannot be learned from.
            SettingError: if the settings do not fit the machines or the data, or the folder holds another training.
        """
        if resume and folder is None:
            raise SettingError("resume=True needs a folder of checkpoints.")
        data = self._checked(machines, data)
        kept = None if folder is None else Checkpoints(folder, self._about(machines, data, generator))
        history = [] if kept is None else _taken_up(machines, kept, resume)
        tell = progress if progress is not None else _silent
        for place, machine in enumerate(machines):
            done = sum(one.layer == place for one in history)
            layer = self._begun(machine, data, None if kept is None or not done else kept.load(place, done), generator)
            for epoch in range(done + 1, self.epochs + 1):
                history.append(Epoch(place, epoch, self._epoch(layer, data, generator, self.lr[place], epoch)))
                self._check_finite(machine, history[-1])
                if kept is not None:
                    kept.save(layer.tensors(generator), [(e.layer, e.epoch, e.reconstruction_error) for e in history])
                tell(f"training layer {place + 1} of {len(machines)}", len(history), len(machines) * self.epochs)
            if place + 1 < len(machines):
                data = _upward(machine, data)
        return tuple(history)

    def _begun(
        self,
        machine: RestrictedBoltzmannMachine,
        data: Tensor,
        held: dict[str, Tensor] | None,
        generator: torch.Generator,
    ) -> _Layer:
        """A machine at its start, or where a checkpoint holds it."""
        layer = _Layer(machine)
        if held is not None:
            layer.load(held, generator)
        else:
            _start_visible_bias(machine, data)
        return layer

    def _epoch(self, layer: _Layer, data: Tensor, generator: torch.Generator, lr: float, epoch: int) -> float:
        machine, n = layer.machine, len(data)
        momentum = self.momentum[epoch > self.momentum_after]
        order = torch.randperm(n, generator=generator, device=generator.device).to(data.device)
        squared = torch.zeros((), dtype=torch.float64, device=machine.weight.device)
        for batch in order.split(self.batch_size):
            v = as_parts(data[batch], machine.weight)
            model = self._update(layer, v, generator, momentum, lr / len(batch))
            squared += (v - model).square_().sum()
        return float(squared) / (n * machine.in_features)

    def _update(self, layer: _Layer, v: Tensor, generator: torch.Generator, momentum: float, rate: float) -> Tensor:
        """One step of the velocity and of the weights; gives the end of the chain."""
        machine, velocity = layer.machine, layer.velocity
        hidden, model, model_hidden = machine.phases(v, self.k, generator, sample_visible=self.sample_visible)
        weight = velocity["weight"].addmm_(hidden.T, v, beta=momentum, alpha=rate)
        weight.addmm_(model_hidden.T, model, alpha=-rate)
        if self.weight_decay:
            weight.add_(machine.weight.data, alpha=-rate * len(v) * self.weight_decay)
        velocity["visible_bias"].mul_(momentum).add_((v - model).sum(0), alpha=rate)
        velocity["hidden_bias"].mul_(momentum).add_((hidden - model_hidden).sum(0), alpha=rate)
        for name, param in machine.named_parameters():
            param.data.add_(velocity[name])
        return model

    def _checked(self, machines: Sequence[RestrictedBoltzmannMachine], data: Tensor) -> Tensor:
        """The data, one example a row."""
        first = machines[0]
        if len(self.lr) != len(machines):
            raise SettingError(f"{len(self.lr)} learning rates were given for {len(machines)} machines.")
        if first.weight.dtype.itemsize < 4:
            raise SettingError(f"Updates vanish in {first.weight.dtype}; train in float32, as with net.float().")
        first.rows(data[:1] if data.ndim else data)  # the width
        rows = data.flatten(1)
        check_values(rows, first.visible_units)
        if len(rows) < 2:
            raise DataError("One example has no distribution to learn; give at least two.")
        if self.batch_size > len(rows):
            raise SettingError(f"batch_size={self.batch_size} is more than the {len(rows)} examples; lower it.")
        return rows

    def _about(
        self, machines: Sequence[RestrictedBoltzmannMachine], data: Tensor, generator: torch.Generator
    ) -> dict[str, Any]:
        """What has to be the same for a training to go on."""
        settings = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {
            **settings,
            "sizes": [machines[0].in_features, *(machine.out_features for machine in machines)],
            "visible_units": machines[0].visible_units,
            "dtype": str(machines[0].weight.dtype),
            "generator": generator.device.type,
            "data": digest_of(data),
        }

    def _check_finite(self, machine: RestrictedBoltzmannMachine, now: Epoch) -> None:
        if not all(bool(torch.isfinite(param).all()) for param in machine.parameters()):
            raise SettingError(
                f"The weights of layer {now.layer + 1} left the finite numbers in epoch {now.epoch}; lower "
                f"lr={self.lr[now.layer]}."
            )


def _silent(what: str, done: int, total: int) -> None:
    """Nobody wants to know."""


def _pair(momentum: tuple[float, ...]) -> bool:
    return len(momentum) == 2 and all(0 <= one < 1 for one in momentum)


def _taken_up(machines: Sequence[RestrictedBoltzmannMachine], kept: Checkpoints, resume: bool) -> list[Epoch]:
    """The epochs of a training that is gone on with, and its machines as they were before it."""
    start = {f"{place}.{name}": p.data for place, m in enumerate(machines) for name, p in m.named_parameters()}
    history = [Epoch(*row) for row in kept.begin(resume, start)]
    if history:
        for name, tensor in kept.start().items():
            start[name].copy_(tensor)
    return history


def _start_visible_bias(machine: RestrictedBoltzmannMachine, data: Float[Tensor, "n visible"]) -> None:
    """Log-odds of each visible unit, with half an example added on both sides; the mean of a Gaussian one."""
    n = len(data)
    total = torch.zeros(data.shape[1], dtype=torch.float64, device=data.device)
    for block in data.split(PASS):
        total += as_parts(block, total).sum(0)
    start = total / n if machine.visible_units == "gaussian" else torch.log((total + 0.5) / (n - total + 0.5))
    machine.visible_bias.data.copy_(start)


def _upward(machine: RestrictedBoltzmannMachine, data: Tensor) -> Tensor:
    """Hidden probabilities of all examples."""
    found = torch.empty(len(data), machine.out_features, dtype=machine.weight.dtype, device=machine.weight.device)
    for rows, block in zip(found.split(PASS), data.split(PASS), strict=True):
        rows.copy_(machine(block))
    return found
