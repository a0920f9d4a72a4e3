"""Silero's voice-activity network for 16 kHz audio: a short-time Fourier transform, four convolutions, an LSTM cell."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

# Files in this folder are loaded by path, so the helper beside them is too.
_SPEC = spec_from_file_location("_networks_folder", Path(__file__).with_name("_folder.py"))
data_folder = module_from_spec(_SPEC)
_SPEC.loader.exec_module(data_folder)

RATE, FRAME, CONTEXT, FFT = 16000, 512, 64, 256  # samples: per second, per step, seen of the step before, per window
State = tuple[Tensor, Tensor]


class SileroVAD(nn.Module):
    """One step per frame of 512 samples; what it remembers between frames is the LSTM's state."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, FFT + 2, FFT, stride=FFT // 2, bias=False)  # a fixed basis: cosines, then sines
        self.conv1 = nn.Conv1d(FFT // 2 + 1, 128, 3, 1, 1)
        self.conv2 = nn.Conv1d(128, 64, 3, 2, 1)
        self.conv3 = nn.Conv1d(64, 64, 3, 2, 1)
        self.conv4 = nn.Conv1d(64, 128, 3, 1, 1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def encode(self, frames: Tensor) -> Tensor:
        """What the convolutions make of frames `(n, 576)`: 64 samples of context and 512 new ones, to `(n, 128)`."""
        parts = self.stft_conv(functional.pad(frames.unsqueeze(1), (0, CONTEXT), mode="reflect")).chunk(2, dim=1)
        x = torch.linalg.vector_norm(torch.stack(parts), dim=0)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = functional.relu(conv(x))
        return x.squeeze(-1)

    def step(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Probability of speech `(n,)` in frames `(n, 576)`, and the state that the next frames need."""
        state = self.lstm_cell(self.encode(frames), state)
        score = self.final_conv(functional.relu(state[0]).unsqueeze(-1))
        return score.sigmoid().flatten(), state

    def forward(self, audio: Tensor) -> Tensor:
        """Probability of speech `(n, frames)` along audio `(n, samples)` in -1..1; zeros fill the last frame."""
        missing = -audio.shape[1] % FRAME
        frames = functional.pad(audio, (CONTEXT, missing)).unfold(1, CONTEXT + FRAME, FRAME)
        state, heard = None, []
        for frame in frames.unbind(1):
            speech, state = self.step(frame, state)
            heard.append(speech)
        return torch.stack(heard, dim=1)


def build(folder: Path | str | None = None, weights: bool = True) -> nn.Module:
    """The network with its trained weights, or freshly drawn (`weights=False`)."""
    if not weights:
        return data_folder.untrained(SileroVAD)
    return data_folder.trained(SileroVAD, data_folder.path(folder, "silero_vad_lstm", "model.safetensors"))


def vowel(pitch: float = 100.0, seconds: float = 1.0) -> Tensor:
    """A hummed "ah" `(samples,)` in -0.3..0.3: harmonics of a pitch [Hz] under three formants, four times a second."""
    time = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE
    phase = 2 * torch.pi * pitch * torch.cumsum(1 + 0.02 * torch.sin(2 * torch.pi * 5 * time), 0) / RATE
    harmonic = torch.arange(1, int(7000 / pitch), dtype=torch.float64).unsqueeze(1)
    formants = ((700, 80), (1220, 90), (2600, 120))  # middle and half width in Hz
    loud = sum(1 / (1 + ((harmonic * pitch - middle) / width) ** 2) for middle, width in formants)
    wave = (loud / harmonic.sqrt() * torch.sin(harmonic * phase)).sum(0) * (1 - torch.cos(2 * torch.pi * 4 * time))
    return (0.3 * wave / wave.abs().max()).float()


def data(folder: Path | str | None = None, n: int = 32, seconds: float = 1.0, seed: int = 0) -> dict[str, Tensor]:
    """Synthetic sounds `(n, samples)` without labels, since the data folder holds no speech; `folder` is not used.

    Vowels pitched from 80 to 160 Hz and white noise of deviation 0.1, in turn.
    """
    noise = 0.1 * torch.randn(n, int(seconds * RATE), generator=torch.Generator().manual_seed(seed))
    for row, pitch in enumerate(torch.linspace(80, 160, -(-n // 2)).tolist()):
        noise[2 * row] = vowel(pitch, seconds)
    return {"test": noise}
