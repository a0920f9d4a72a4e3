"""Policies for five classic control tasks, trained by PPO (arXiv:1707.06347): tanh MLPs for action and value."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from torch import Tensor, nn

# Files in this folder are loaded by path, so the helper beside them is too.
_SPEC = spec_from_file_location("_networks_folder", Path(__file__).with_name("_folder.py"))
data_folder = module_from_spec(_SPEC)
_SPEC.loader.exec_module(data_folder)

# Numbers that describe the state, numbers that describe the action, whether noise on the action depends on the state.
TASKS = {
    "Acrobot-v1": (6, 3, False),
    "CartPole-v1": (4, 2, False),
    "LunarLander-v2": (8, 4, False),
    "MountainCar-v0": (2, 3, False),
    "Pendulum-v1": (3, 1, True),
}
WIDTH = 64


def branch(inputs: int) -> nn.Sequential:
    """Two hidden layers with tanh."""
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())


class Policy(nn.Module):
    """Two branches that share nothing; the names are those of Stable-Baselines3."""

    def __init__(self, inputs: int, outputs: int, noisy: bool) -> None:
        super().__init__()
        self.mlp_extractor = nn.ModuleDict({"policy_net": branch(inputs), "value_net": branch(inputs)})
        self.action_net = nn.Linear(WIDTH, outputs)
        self.value_net = nn.Linear(WIDTH, 1)
        if noisy:
            self.log_std = nn.Parameter(torch.zeros(WIDTH, outputs))  # explores in training only (arXiv:2005.05719)

    def forward(self, states: Tensor) -> Tensor:
        """Scores of the actions, or the action itself where it is a number: `(n, inputs)` to `(n, outputs)`."""
        return self.action_net(self.mlp_extractor["policy_net"](states))

    def value(self, states: Tensor) -> Tensor:
        """The reward still to come, as the other branch estimates it, `(n, 1)`."""
        return self.value_net(self.mlp_extractor["value_net"](states))


def build(folder: Path | str | None = None, task: str = "CartPole-v1", weights: bool = True) -> nn.Module:
    """The policy for one of `TASKS` with its trained weights, or freshly drawn (`weights=False`)."""
    if not weights:
        return data_folder.untrained(lambda: Policy(*TASKS[task]))
    file = data_folder.path(folder, "control_policies", f"ppo_{task}.safetensors")
    return data_folder.trained(lambda: Policy(*TASKS[task]), file)


def push(states: Tensor, right: Tensor) -> Tensor:
    """The cart and its pole 0.02 s after a push of 10 N: equations of Barto, Sutton, Anderson (1983), Euler's method.

    Args:
        states: position [m], speed, angle [rad] and angular speed of each pole, `(n, 4)`.
        right: whether each cart is pushed to the right, else to the left, `(n,)`.
    """
    gravity, cart, pole, half = 9.8, 1.0, 0.1, 0.5  # m/s^2, kg, kg, m
    _, speed, angle, turn = states.unbind(1)
    sine, cosine, total = angle.sin(), angle.cos(), cart + pole
    drive = (torch.where(right, 10.0, -10.0) + pole * half * turn**2 * sine) / total
    bend = (gravity * sine - cosine * drive) / (half * (4 / 3 - pole * cosine**2 / total))
    pull = drive - pole * half * bend * cosine / total
    return states + 0.02 * torch.stack([speed, pull, turn, bend], dim=1)


@torch.no_grad()
def balance(policy: nn.Module, poles: int = 20, steps: int = 500, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Play CartPole-v1 by the likelier action.

    Returns:
        The states met, `(steps, poles, 4)`, and how many steps each pole stood: within 12 degrees and 2.4 m.
    """
    states = torch.rand(poles, 4, generator=torch.Generator().manual_seed(seed)) * 0.1 - 0.05
    standing = torch.ones(poles, dtype=torch.bool)
    met, stood = [], torch.zeros(poles, dtype=torch.long)
    for _ in range(steps):
        met.append(states)
        states = push(states, policy(states).argmax(1) == 1)
        standing &= (states[:, 0].abs() <= 2.4) & (states[:, 2].abs() <= torch.pi / 15)
        stood += standing
    return torch.stack(met), stood


def data(folder: Path | str | None = None, n: int = 1000) -> dict[str, Tensor]:
    """`n` states that the CartPole policy meets in play, `(n, 4)`, without labels."""
    met, _ = balance(build(folder), poles=-(-n // 500))
    return {"test": met.transpose(0, 1).flatten(0, 1)[:n]}
