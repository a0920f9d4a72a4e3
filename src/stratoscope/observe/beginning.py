"""The weights of step 0, kept with the run."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from stratoscope.network.snapshot import open_snapshot, save_snapshot
from stratoscope.network.weights import WeightSource
from stratoscope.record.writer import RecordWriter

SNAPSHOT_LIMIT = 2 << 30
"""Bytes of weights above which a snapshot of step 0 is kept only on request."""

SNAPSHOT = "initial.safetensors"


def keep_beginning(
    writer: RecordWriter, folder: Path | None, model: nn.Module | None, *, new: bool, wanted: bool | None
) -> WeightSource | None:
    """Keep the weights of step 0, unless nobody wants them or they are too large; open those kept before.

    Args:
        writer: of the run; says whether they were kept, and why not.
        folder: of the run; without one nothing is kept.
        model: as it is now.
        new: whether now is step 0.
        wanted: whether to keep them; by default if they take at most 2 GiB.

    Returns:
        The weights of step 0, if they are there.
    """
    if folder is None or model is None:
        return None
    path = folder / SNAPSHOT
    if not path.exists() and new and wanted is not False:
        size = sum(t.numel() * t.element_size() for t in model.state_dict().values() if isinstance(t, Tensor))
        if wanted is None and size > SNAPSHOT_LIMIT:
            reason = f"{size / 2**30:.1f} GiB of weights; pass snapshot=True to keep step 0"
            writer.write_meta("snapshot", {"kept": False, "reason": reason})
            return None
        save_snapshot(model, path)
        writer.write_meta("snapshot", {"kept": True, "file": SNAPSHOT})
    return open_snapshot(path) if path.exists() else None
