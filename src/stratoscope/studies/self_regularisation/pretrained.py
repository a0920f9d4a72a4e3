"""Pre-trained networks whose exponents the authors printed, and where their weights may lie on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Printed:
    """What the authors printed for one matrix: exponent, and distance of the fit (NaN where none was given)."""

    matrix: str
    alpha: float
    D: float = float("nan")


def _vgg(*alphas: float) -> tuple[Printed, ...]:
    return tuple(Printed(f"classifier.{place}.weight", a) for place, a in zip((0, 3, 6), alphas, strict=True))


def _last(name: str, alpha: float) -> tuple[Printed, ...]:
    return (Printed(f"{name}.weight", alpha),)


PRINTED: Mapping[str, tuple[Printed, ...]] = {
    "alexnet": (
        Printed("classifier.1.weight", 2.29, 0.0527),
        Printed("classifier.4.weight", 2.25, 0.0372),
        Printed("classifier.6.weight", 3.02, 0.0186),
    ),
    "inception_v3_google": (
        Printed("AuxLogits.fc.weight", 5.26, 0.0421),
        Printed("fc.weight", 4.48, 0.0275),
    ),
    "resnet18": _last("fc", 3.34),
    "resnet34": _last("fc", 3.39),
    "resnet50": _last("fc", 3.54),
    "resnet101": _last("fc", 3.57),
    "resnet152": _last("fc", 3.52),
    "densenet121": _last("classifier", 3.32),
    "densenet161": _last("classifier", 3.45),
    "densenet169": _last("classifier", 3.38),
    "densenet201": _last("classifier", 3.41),
    "vgg11": _vgg(2.32, 2.17, 2.83),
    "vgg16": _vgg(2.30, 2.18, 2.09),
    "vgg19": _vgg(2.27, 2.19, 2.07),
    "vgg11_bn": _vgg(2.07, 1.95, 2.99),
    "vgg16_bn": _vgg(2.05, 1.97, 3.03),
    "vgg19_bn": _vgg(2.04, 1.98, 3.03),
}
"""By torchvision's file names. Fits with the upper limit at the largest eigenvalue, as the authors made them."""

RETRAINED = ("11ad3fa6", "cd907fc2", "f82ba261")
"""Hashes in the names of weights that were trained anew, long after the authors measured theirs."""


def weights_of(model: str) -> Path | None:
    """A file of torchvision's weights on this machine: in the data folder, or where torch keeps downloads."""
    for folder in _places():
        for path in sorted(folder.glob(f"{model}-*.pth")):
            if not any(path.stem.endswith(name) for name in RETRAINED):
                return path
    return None


def _places() -> Iterator[Path]:
    given = os.environ.get("STRATOSCOPE_DATA")
    if given:
        yield Path(given) / "pretrained"
    yield Path(torch.hub.get_dir()) / "checkpoints"
