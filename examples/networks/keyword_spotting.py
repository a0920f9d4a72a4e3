"""Keyword spotters of Hello Edge (arXiv:1711.07128): one MLP in three widths, and a gated recurrent network.

The stored tensors have TensorFlow's names and layout (inputs x outputs). They are renamed and transposed here, all of
them, and then loaded strictly, so that a name too many or too few is an error.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

# Files in this folder are loaded by path, so the helper beside them is too.
_SPEC = spec_from_file_location("_networks_folder", Path(__file__).with_name("_folder.py"))
data_folder = module_from_spec(_SPEC)
_SPEC.loader.exec_module(data_folder)

LABELS = ("_silence_", "_unknown_", "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
FRAMES, COEFFICIENTS = 25, 10  # one second of audio: 10 cepstral coefficients (MFCC) every 40 ms
WIDTHS = {"DNN_S": 144, "DNN_M": 256, "DNN_L": 436, "GRU_S": 154}
CELL = "rnn/multi_rnn_cell/cell_0/gru_cell"
NAMES = {
    "fc1/W": "fc1.weight",
    "fc1/b": "fc1.bias",
    "fc2/W": "fc2.weight",
    "fc2/b": "fc2.bias",
    "fc3/W": "fc3.weight",
    "fc3/b": "fc3.bias",
    "final_fc": "final.weight",
    "Variable": "final.bias",
    f"{CELL}/gates/kernel": "gates.weight",
    f"{CELL}/gates/bias": "gates.bias",
    f"{CELL}/candidate/kernel": "candidate.weight",
    f"{CELL}/candidate/bias": "candidate.bias",
    "W_o": "final.weight",
    "b_o": "final.bias",
}


class DNN(nn.Module):
    """Three hidden layers with ReLU on all frames at once."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.relu1 = nn.Linear(FRAMES * COEFFICIENTS, width), nn.ReLU()
        self.fc2, self.relu2 = nn.Linear(width, width), nn.ReLU()
        self.fc3, self.relu3 = nn.Linear(width, width), nn.ReLU()
        self.final = nn.Linear(width, len(LABELS))

    def forward(self, features: Tensor) -> Tensor:
        """Scores `(n, 12)` of features `(n, 25, 10)`."""
        x = self.relu1(self.fc1(features.flatten(1)))
        return self.final(self.relu3(self.fc3(self.relu2(self.fc2(x)))))


class GRU(nn.Module):
    """A cell that resets its state BEFORE the candidate's product (arXiv:1406.1078); `nn.GRU` resets after it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gates = nn.Linear(COEFFICIENTS + width, 2 * width)
        self.candidate = nn.Linear(COEFFICIENTS + width, width)
        self.final = nn.Linear(width, len(LABELS))

    def forward(self, features: Tensor) -> Tensor:
        """Scores `(n, 12)` of features `(n, frames, 10)`."""
        state = features.new_zeros(len(features), self.candidate.out_features)
        for frame in features.unbind(1):
            reset, update = self.gates(torch.cat([frame, state], dim=1)).sigmoid().chunk(2, dim=1)
            fresh = self.candidate(torch.cat([frame, reset * state], dim=1)).tanh()
            state = update * state + (1 - update) * fresh
        return self.final(state)


def build(folder: Path | str | None = None, name: str = "DNN_S", weights: bool = True) -> nn.Module:
    """The network `name` (`DNN_S`, `DNN_M`, `DNN_L`, `GRU_S`) with its trained weights, or freshly drawn."""
    module = data_folder.untrained(lambda: (GRU if name.startswith("GRU") else DNN)(WIDTHS[name]))
    if weights:
        stored = load_file(data_folder.path(folder, "keyword_spotting", f"{name}.safetensors"))
        renamed = {NAMES[key]: tensor.T if tensor.ndim == 2 else tensor for key, tensor in stored.items()}
        module.load_state_dict(renamed, strict=True)
    return module


def build_gru(folder: Path | str | None = None, weights: bool = True) -> nn.Module:
    """The gated recurrent network, as `build` with `name="GRU_S"`."""
    return build(folder, "GRU_S", weights)


def noise(n: int = 256, seed: int = 0) -> dict[str, Tensor]:
    """Gaussian noise `(n, 25, 10)` in place of features, without labels: the data folder holds no speech."""
    return {"test": torch.randn(n, FRAMES, COEFFICIENTS, generator=torch.Generator().manual_seed(seed))}
