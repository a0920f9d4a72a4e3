"""Measure a network once, with a model and data."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.capture.restore import on_host
from stratoscope.capture.views import MEMORY, Capture
from stratoscope.errors import Cancelled, SettingError
from stratoscope.instruments.base import Judge
from stratoscope.network.subject import Subject
from stratoscope.network.weights import WeightSource
from stratoscope.observe.diagnosing import Chosen, conclude
from stratoscope.observe.round import Progress, Round, foreign_of, needs_of
from stratoscope.observe.settings import Settings, load_settings
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter
from stratoscope.version import __version__


@on_host()
def examine(
    model: nn.Module | None = None,
    data: Any = None,
    *,
    loss: Callable[..., Any] | None = None,
    labels: Any = None,
    transfer: Any = None,
    weights: WeightSource | Mapping[str, Tensor] | str | Path | None = None,
    subject: Subject | None = None,
    to: str | Path | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    instruments: Sequence[Judge] | None = None,
    layers: Sequence[str] = (),
    probe: int = 2000,
    batch_size: int = 128,
    seed: int = 0,
    memory: int = MEMORY,
    seconds: float | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    name: str = "",
) -> Record:
    """Measure a network with every instrument that applies, in one forward pass over each split.

    ```python
    record = examine(model, (images, labels))
    record["separation"]["gdv"].sel(layer="conv2")
    ```

    Args:
        model: the module; it leaves as it came, bit for bit.
        data: tensors, `(inputs, labels)`, a Dataset, a DataLoader, dict batches, or named splits of these.
        loss: `loss(output, labels)`; the usual one of the task otherwise.
        labels: labels of `data`, where it does not hold them.
        transfer: data of another task with their labels; `reconstruction` fits a probe for it to the frozen layers.
        weights: other weights to look at: a path, a state dict.
        subject: all of the above in one value instead.
        to: a folder for the record; in memory where it is left out.
        only: keys of the instruments and diagnoses to run; all by default. A diagnosis brings what it reads.
        skip: keys of those to leave out.
        instruments: instruments and diagnoses with their settings, instead of `only`, `skip` and the settings file.
        layers: a pattern such as `"layer1.*"`, or several; all layers by default.
        probe: examples drawn from each split.
        batch_size: examples a forward pass.
        seed: of everything random.
        memory: bytes that kept samples may take together.
        seconds: after so many seconds what is left is skipped, with that reason.
        settings: thresholds and muted codes; those of `stratoscope.toml` in the working directory by default.
        progress: told `(what, done, total)`.
        name: of the run, for people.

    Raises:
        StratoscopeError: if the subject, the data or a setting cannot be used; one sentence says why.
        Cancelled: on Ctrl-C; its `record` holds what was measured until then.
    """
    if subject is None:
        name = name or ("weights" if model is None else type(model).__name__)
        subject = Subject(model, data, loss, labels, weights, None, name, probe, batch_size, seed, transfer=transfer)
    settings = settings if settings is not None else load_settings()
    chosen = Chosen.of(instruments, only, skip, settings).without_training()
    if not chosen.instruments:
        raise SettingError("None of these instruments measures a network that is not in training; see watch.")
    patterns = (layers,) if isinstance(layers, str) else tuple(layers)
    deadline = None if seconds is None else time.monotonic() + seconds
    capture = Capture(
        subject, needs_of(chosen.instruments), memory, patterns=patterns, deadline=deadline,
        progress=_passing(progress), remembers=False, foreign=foreign_of(chosen.instruments),
    )  # fmt: skip
    # before anything is written, so that data which do not fit leave no half-made record behind
    for split in subject.sources if subject.module is not None else ():
        capture.run(split)
    known = [layer.name for layer in capture.layers()]
    if not any(map(capture.wanted, known)):
        raise SettingError(f"No layer is called {' or '.join(patterns)}; there are {', '.join(known[:12])}.")

    def measure(writer: RecordWriter) -> None:
        Round(capture, chosen.instruments, writer, by_layer=True, deadline=deadline, progress=progress).run()
        writer.write_meta("data", data_meta(subject, capture))

    return recorded(to, run_meta(subject, chosen), chosen, settings, measure)


def recorded(
    to: str | Path | None,
    about: Mapping[str, Any],
    chosen: Chosen,
    settings: Settings,
    measure: Callable[[RecordWriter], None],
) -> Record:
    """A record of what `measure` writes, with its conclusions; one that was cancelled keeps what it has.

    Args:
        to: a folder, or `None` for one in memory.
        about: the record's metadata.
        chosen: who takes part.
        settings: what is muted.
        measure: writes the measurements.

    Raises:
        Cancelled: if it was interrupted; carries the record.
    """
    writer = RecordWriter.create(None if to is None else Path(to), dict(about))
    try:
        measure(writer)
        conclude(writer, chosen, settings)
    except KeyboardInterrupt:
        writer.write_meta("stopped", "cancelled")
        conclude(writer, chosen, settings)
        raise Cancelled(finished(writer, to, "interrupted")) from None
    except BaseException:
        writer.close("failed")
        raise
    return finished(writer, to)


def _passing(progress: Progress | None) -> Progress | None:
    return None if progress is None else lambda split, done, total: progress(f"passing over {split}", done, total)


def finished(writer: RecordWriter, to: str | Path | None, status: str = "finished") -> Record:
    """Close a record and give it to the reader; one in memory stays open."""
    if to is None:
        writer.write_meta("status", status)
        return Record.from_writer(writer)
    writer.close(status)
    return Record.open(Path(to))


def run_meta(subject: Subject, chosen: Chosen) -> dict[str, Any]:
    """Who measured what, with which versions and settings."""
    return {
        "name": subject.name,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"stratoscope": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "argv": sys.argv,
        "device": str(subject.device),
        "threads": torch.get_num_threads(),
        "seed": subject.seed,
        **chosen.meta(),
    }


def data_meta(subject: Subject, capture: Capture) -> dict[str, Any]:
    """Which examples were looked at, and what the passes cost."""
    found: dict[str, Any] = {}
    for split, result in capture.passes.items():
        probe = subject.probe_set(split)
        found[split] = {
            "n": result.n,
            "how": probe.how,
            "digest": probe.digest,
            "forward_calls": result.forward_calls,
            "seconds": round(result.seconds, 4),
            "notes": result.notes,
        }
    return found
