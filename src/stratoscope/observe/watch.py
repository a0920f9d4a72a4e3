"""Watch a training: what every step does, and a full measurement as often as the budget allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stratoscope.capture.views import MEMORY
from stratoscope.instruments.base import Judge
from stratoscope.network.subject import Subject
from stratoscope.observe.diagnosing import Chosen
from stratoscope.observe.live import SilentWatch, Watch
from stratoscope.observe.settings import Settings, load_settings
from stratoscope.observe.training import RecordedTraining
from stratoscope.record.folder import new_run_folder


def watch(
    model: nn.Module,
    data: Any = None,
    *,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    loss: Callable[..., Any] | None = None,
    labels: Any = None,
    transfer: Any = None,
    to: str | Path | None = None,
    budget: float = 0.05,
    every: int | None = None,
    cadence: Mapping[str, int] | None = None,
    steps: int | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    instruments: Sequence[Judge] | None = None,
    probe: int = 512,
    batch_size: int = 128,
    seed: int = 0,
    snapshot: bool | None = None,
    memory: int = MEMORY,
    resume: bool | int = False,
    best_transfer: bool | str | Path = False,
    settings: Settings | None = None,
    name: str = "",
) -> Watch:
    """Watch a training.

    ```python
    with watch(model, {"train": (x, y), "test": (u, v)}, optimizer=opt, to="runs/mlp") as w:
        for i, batch in enumerate(loader):
            ...
            opt.step()
            w.step(i, loss=loss)
    ```

    With nothing but a model it measures what needs no more.

    Args:
        model: the module; left as it is.
        data: as for `examine`; a fixed sample of each split is looked at.
        optimizer: read by its hooks, or several; without it there are no gradients and updates.
        loss: `loss(output, labels)` on the data; the usual one of the task otherwise.
        labels: labels of `data`, where it does not hold them.
        transfer: data of another task with their labels; `reconstruction` fits a probe for it to the frozen layers.
        to: a new folder for the record; a dated one under `runs/` where it is left out.
        budget: share of training time that may be spent on measuring; step 0 and the last step are measured always, and
            what the last one takes is kept back. Loss and rate are recorded at every step; gradients at the first steps,
            and then as often as a quarter of the budget pays for.
        every: steps between full measurements; log-spaced where it is left out.
        cadence: the same for single instruments, by their key: `{"spectrum": 1000}`.
        steps: of the whole training, if they are known: then measurements are spread over all of it, evenly in the
            logarithm, and what the training will have earned can be spent on its first steps.
        only: keys of the instruments and diagnoses to run. A diagnosis brings what it reads.
        skip: keys of those to leave out.
        instruments: instruments and diagnoses with their settings instead.
        probe: examples drawn from each split.
        batch_size: examples a forward pass.
        seed: of everything random.
        snapshot: keep the weights of step 0; by default if they take at most 2 GiB.
        memory: bytes that kept samples may take.
        resume: go on with the record that lies in `to`, after its last step, or after the step that is named (of a
            checkpoint that was loaded), whose later steps are replaced. Without a record there, a new one is begun.
        best_transfer: keep the weights of the step that is advised for transfer, of the best probe where `transfer` is
            given, and of the best classifier where there is no advice: in `transfer.safetensors` in the folder of the run,
            or in the file that is named. Until the end that takes up to 13 times the weights on disk.
        settings: thresholds and muted codes; those of `stratoscope.toml` by default.
        name: of the run.

    Raises:
        StratoscopeError: if something cannot be used; one sentence says what.
    """
    settings = settings if settings is not None else load_settings()
    name = name or type(model).__name__
    subject = Subject(model, data, loss, labels, None, optimizer, name, probe, batch_size, seed, transfer=transfer)
    chosen = Chosen.of(instruments, only, skip, settings)
    first = not torch.distributed.is_available() or not torch.distributed.is_initialized()
    first = first or torch.distributed.get_rank() == 0
    if not first:
        return SilentWatch()
    folder = Path(to) if to is not None else new_run_folder(Path("runs"))
    return RecordedTraining(
        subject, folder, chosen, budget=budget, every=every, cadence=cadence, steps=steps, snapshot=snapshot,
        memory=memory, settings=settings, resume=resume, best_transfer=best_transfer,
    )  # fmt: skip
