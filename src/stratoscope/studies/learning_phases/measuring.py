"""What is measured of a training at a checkpoint: reconstruction and probes at the end of the convolutions, and accuracy.

Each is measured twice: with the running statistics of the batch norms, as a frozen network is used, and with the
statistics of batches of its present weights. For one network the decoder is varied, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from stratoscope.capture.views import MEMORY, Capture, LayerView, Seen
from stratoscope.instruments.performance import Performance
from stratoscope.instruments.reconstruction import Reconstruction
from stratoscope.network.subject import TRANSFER, Subject
from stratoscope.observe.entries import entries_of, quantities_of
from stratoscope.observe.round import foreign_of, needs_of
from stratoscope.record.assemble import assemble
from stratoscope.record.entry import Entry
from stratoscope.studies.learning_phases.networks import PROBED, with_batch_statistics
from stratoscope.studies.learning_phases.pictures import Pictures

BATCH = "batch statistics"
"""Label of what is measured with the statistics of batches; what is measured with running statistics has none."""
STATISTICS = 2000
"""Training pictures that those statistics come from."""
DECODERS: Mapping[str, Mapping[str, Any]] = {
    "ridge, raw": {"standardise": False},
    "trained 20, raw": {"decoder": "linear", "standardise": False},
    "trained 2, raw": {"decoder": "linear", "standardise": False, "epochs": 2},
    "trained 20": {"decoder": "linear"},
    "trained 2": {"decoder": "linear", "epochs": 2},
}
"""Decoders by label: closed form or trained by Adam for so many epochs, features standardised or as they are. The paper's
code has the second one."""
DECODER_BATCH = 32
"""Examples a step, so that an epoch over 2,000 of them has as many steps as one over 8,000 pictures with batches of 128."""


def subject_of(net: nn.Module, pictures: Pictures, seed: int) -> Subject:
    """A network with what it is measured on."""
    splits = {"train": pictures.train, "test": pictures.test}
    return Subject(net, splits, probe=len(pictures.test[0]), batch_size=500, seed=seed, transfer=pictures.other)


def measured(subject: Subject, images: Tensor, batch: int, *, decoders: bool) -> list[Entry]:
    """Everything of one checkpoint.

    Args:
        subject: the network and its data.
        images: what the statistics of batches are taken from.
        batch: how many make a batch.
        decoders: whether to vary the decoder.
    """
    assert subject.module is not None
    base = Reconstruction(n=subject.probe, input_width=images[0].numel(), batch=DECODER_BATCH)
    varied = {label: replace(base, **settings) for label, settings in DECODERS.items()} if decoders else {}
    found = _entries(subject, "", base, varied)
    again = replace(subject, model=with_batch_statistics(subject.module, images[:STATISTICS], batch))
    return found + _entries(again, BATCH, base, {})


def _entries(subject: Subject, label: str, base: Reconstruction, varied: Mapping[str, Reconstruction]) -> list[Entry]:
    performance = Performance()
    needs = needs_of([base, *varied.values(), performance])
    capture = Capture(subject, needs, MEMORY, patterns=(PROBED,), remembers=False, foreign=foreign_of([base]))
    for split in subject.sources:
        capture.run(split)
    (layer,) = (layer for layer in capture.layers() if layer.name == PROBED)
    found: list[Entry] = []
    for split in subject.splits:
        found += entries_of(performance, quantities_of(performance.measure(Seen(split, capture))), split, label)
    chosen = [(label, base, "test"), (label, base, TRANSFER), *((name, one, "test") for name, one in varied.items())]
    for name, one, split in chosen:
        rebuilt = one.measure_layer(LayerView(layer, split, capture))
        found += entries_of(one, assemble({PROBED: rebuilt}), split, name)
    return found
