"""Metered operators: handles that run further passes while the capture is open, and count them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stratoscope.capture.loss import loss_of, scores_of
from stratoscope.capture.needs import Operator
from stratoscope.capture.restore import differentiable, untouched
from stratoscope.capture.running import call, dtype_of, trained
from stratoscope.errors import CaptureError, NotApplicable

if TYPE_CHECKING:
    from stratoscope.network.sources import Batch, ProbeSet
    from stratoscope.network.subject import Subject

Vector = Mapping[str, Tensor]
"""A vector in the space of the params: one tensor for each trained param, by key."""


@dataclass
class Bench:
    """What an operator works on: a subject and one split's probe set.

    Attributes:
        subject: the subject; its model has to be there. Where it has weights of its own, the model runs on these.
        probe: the examples.
    """

    subject: Subject
    probe: ProbeSet

    @property
    def model(self) -> nn.Module:
        """The model."""
        assert self.subject.module is not None
        return self.subject.module

    @property
    def params(self) -> dict[str, Tensor]:
        """The trained params by key, tied ones once."""
        return self._weights[0]

    @cached_property
    def _weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        return trained(self.model, self.subject.override())

    def batch(self, number: int) -> Batch:
        """One batch of the probe set, where the model is and of its type."""
        return self.probe.batches[number].to(self.subject.device, dtype=dtype_of(self.model))

    def run(self, batch: Batch) -> Any:
        """What the model gives for a batch."""
        return call(self.model, batch, self._weights[1])


@dataclass
class Meter:
    """Counts batches that went forward and backward, and stops at a limit.

    Attributes:
        limit: at most so many passes over the probe set, forward and backward counted each.
        batches: batches in one pass.
        forward: batches that went forward.
        backward: batches that went backward.
    """

    limit: int
    batches: int
    forward: int = 0
    backward: int = 0

    @property
    def passes(self) -> float:
        """Passes over the probe set so far, forward and backward together."""
        return (self.forward + self.backward) / max(self.batches, 1)

    def count(self, forward: int = 0, backward: int = 0) -> None:
        """Add to the meter.

        Raises:
            CaptureError: if that would exceed the limit.
        """
        if self.forward + self.backward + forward + backward > self.limit * self.batches:
            raise CaptureError(
                f"{self.passes:.0f} passes over the probe set have run and the limit is {self.limit}; "
                "raise max_passes or ask for less."
            )
        self.forward += forward
        self.backward += backward


@dataclass(frozen=True)
class Curvature(Operator):
    """Products with the Hessian of the mean loss: a `CurvatureHandle`.

    Attributes:
        split: a named split, or `None` for the one being measured.
        max_passes: limit on passes over the probe set.
    """

    split: str | None = None
    max_passes: int = 1000

    def open(self, bench: Bench) -> CurvatureHandle:
        """A handle; nothing runs yet."""
        return CurvatureHandle(bench, Meter(self.max_passes, len(bench.probe.batches)))


@dataclass
class CurvatureHandle:
    """Gradient of, and Hessian products with, the mean loss over the probe set, in evaluation mode."""

    bench: Bench
    meter: Meter

    def gradient(self) -> dict[str, Tensor]:
        """The gradient of the mean loss: one forward and one backward pass.

        Raises:
            NotApplicable: if the data have no labels, or nothing is trained.
            CaptureError: if the meter is used up.
        """
        return self._accumulate(lambda grads, params: grads, backward=1, graph=False)

    def hvp(self, vector: Vector) -> dict[str, Tensor]:
        """Hessian times vector, exact: one forward and two backward passes.

        Args:
            vector: one tensor for each trained param, of its shape.

        Raises:
            NotApplicable: if the data have no labels, or nothing is trained.
            CaptureError: if the vector does not fit the params, or the meter is used up.
        """
        params = self.bench.params
        for name, param in params.items():
            if name not in vector or vector[name].shape != param.shape:
                there = tuple(vector[name].shape) if name in vector else "nothing"
                raise CaptureError(f"The vector has {there} for {name!r}, whose shape is {tuple(param.shape)}.")

        def product(grads: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
            linked = [(g, vector[name]) for g, name in zip(grads, params, strict=True) if g.requires_grad]
            if not linked:
                return [torch.zeros_like(p) for p in inputs]
            inner = sum(((g * v.to(g)).sum() for g, v in linked), torch.zeros((), device=inputs[0].device))
            return list(torch.autograd.grad(inner, inputs, allow_unused=True, materialize_grads=True))

        return self._accumulate(product, backward=2, graph=True)

    def _accumulate(
        self, pick: Callable[[list[Tensor], list[Tensor]], list[Tensor]], backward: int, graph: bool
    ) -> dict[str, Tensor]:
        bench, positions = self.bench, 0
        names, params = list(bench.params), list(bench.params.values())
        if not params:
            raise NotApplicable("no param of the model is trained")
        total = {name: torch.zeros_like(_wide(p)) for name, p in bench.params.items()}
        with untouched(bench.model), differentiable(bench.model, twice=graph), torch.enable_grad():
            for number in range(len(bench.probe.batches)):
                self.meter.count(forward=1, backward=backward)
                batch = bench.batch(number)
                loss = loss_of(bench.subject.loss, bench.run(batch), batch, bench.model)
                if loss.n == 0:
                    continue
                grads = torch.autograd.grad(
                    loss.mean, params, create_graph=graph, allow_unused=True, materialize_grads=True
                )
                for name, part in zip(names, pick(list(grads), params), strict=True):
                    total[name] += _wide(part.detach()) * loss.n
                positions += loss.n
        return {name: part / max(positions, 1) for name, part in total.items()}


@dataclass(frozen=True)
class Jacobian(Operator):
    """Products with the Jacobian of the network's output: a `JacobianHandle`.

    Attributes:
        wrt: `"input"` or `"params"`.
        split: a named split, or `None` for the one being measured.
        max_passes: limit on passes over the probe set.
    """

    wrt: str = "input"
    split: str | None = None
    max_passes: int = 1000

    def open(self, bench: Bench) -> JacobianHandle:
        """A handle; nothing runs yet."""
        if self.wrt not in ("input", "params"):
            raise CaptureError(f"Jacobian(wrt={self.wrt!r}): choose 'input' or 'params'.")
        return JacobianHandle(bench, Meter(self.max_passes, len(bench.probe.batches)), self.wrt)


@dataclass
class JacobianHandle:
    """Vector-Jacobian and Jacobian-vector products, one batch of the probe set at a time, in evaluation mode."""

    bench: Bench
    meter: Meter
    wrt: str

    def vjp(self, cotangent: Tensor, batch: int = 0) -> dict[str, Tensor]:
        """Cotangent times Jacobian: one forward and one backward of one batch.

        Args:
            cotangent: of the output's shape for this batch.
            batch: number of the batch in the probe set.

        Returns:
            one tensor for each param, or `{"input": ...}`.
        """
        with untouched(self.bench.model), differentiable(self.bench.model), torch.enable_grad():
            output, inputs = self._forward(batch)
            self.meter.count(backward=1)
            found = torch.autograd.grad(
                output, list(inputs.values()), cotangent.to(output), allow_unused=True, materialize_grads=True
            )
        return {name: value.detach() for name, value in zip(inputs, found, strict=True)}

    def jvp(self, tangent: Vector, batch: int = 0) -> Tensor:
        """Jacobian times tangent, exact: one forward and two backward of one batch.

        Works through the transpose of the transpose, so every layer that has a double backward can be asked.
        """
        with untouched(self.bench.model), differentiable(self.bench.model, twice=True), torch.enable_grad():
            output, inputs = self._forward(batch)
            self.meter.count(backward=2)
            probe = torch.zeros_like(output, requires_grad=True)
            back = torch.autograd.grad(
                output, list(inputs.values()), probe, create_graph=True, allow_unused=True, materialize_grads=True
            )
            linked = [(b, tangent[name].to(b)) for b, name in zip(back, inputs, strict=True) if b.requires_grad]
            if not linked:
                return torch.zeros_like(output)
            inner = sum(((b * t).sum() for b, t in linked), torch.zeros((), device=output.device))
            (found,) = torch.autograd.grad(inner, probe, allow_unused=True, materialize_grads=True)
        return found.detach()

    def _forward(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        self.meter.count(forward=1)
        bench = self.bench
        if not 0 <= number < len(bench.probe.batches):
            raise CaptureError(f"There is no batch {number}; the probe set has {len(bench.probe.batches)}.")
        batch = bench.batch(number)
        args = list(batch.args)
        inputs = bench.params
        if self.wrt == "input":
            if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
                raise CaptureError(
                    "The input is not a floating-point tensor, so there is no Jacobian with respect to it."
                )
            args[0] = args[0].detach().requires_grad_()
            inputs = {"input": args[0]}
        raw = bench.run(replace(batch, args=tuple(args)))
        output = scores_of(raw)
        if output is None or not output.is_floating_point():
            raise CaptureError(f"The model gives {type(raw).__name__}, in which there is no floating-point tensor.")
        return output, inputs


@dataclass(frozen=True)
class Replay(Operator):
    """Forward passes with some layers' outputs edited: a `ReplayHandle`.

    Attributes:
        split: a named split, or `None` for the one being measured.
        max_passes: limit on passes over the probe set.
    """

    split: str | None = None
    max_passes: int = 1000

    def open(self, bench: Bench) -> ReplayHandle:
        """A handle; nothing runs yet."""
        return ReplayHandle(bench, Meter(self.max_passes, len(bench.probe.batches)))


@dataclass
class ReplayHandle:
    """Runs the probe set again while chosen layers say something else."""

    bench: Bench
    meter: Meter

    def outputs(self, edits: Mapping[str, Callable[[Tensor], Tensor]]) -> Tensor:
        """The network's outputs for the whole probe set: one forward pass.

        Args:
            edits: for a layer's name, what becomes of its output.

        Raises:
            CaptureError: if there is no such layer, or the meter is used up.
        """
        layers = self.bench.subject.catalogue.layers
        for name in edits:
            if name not in layers or layers[name].module is None:
                raise CaptureError(f"There is no layer {name!r} to edit; there are {', '.join(list(layers)[:8])}, ...")
        with untouched(self.bench.model), torch.no_grad(), ExitStack() as stack:
            for name, edit in edits.items():
                module = layers[name].module
                assert module is not None
                stack.callback(module.register_forward_hook(_edited(edit)).remove)
            return torch.cat([self._one(number) for number in range(len(self.bench.probe.batches))])

    def _one(self, number: int) -> Tensor:
        self.meter.count(forward=1)
        value = scores_of(self.bench.run(self.bench.batch(number)))
        if value is None:
            raise CaptureError("The model gives no floating-point tensor.")
        return value.detach()


def _edited(edit: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return edit(output)
        if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
            return (edit(output[0]), *output[1:])
        raise CaptureError(
            f"An output of type {type(output).__name__} cannot be edited; choose a layer that gives a tensor."
        )

    return hook


def _wide(value: Tensor) -> Tensor:
    """Half precision as float32, so that sums over batches lose nothing."""
    return value.detach().float() if value.dtype.itemsize < 4 else value
