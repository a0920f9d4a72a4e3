"""Deep belief networks: restricted Boltzmann machines in a stack, each trained on what the one below says.

Source: Hinton, Osindero and Teh, "A fast learning algorithm for deep belief nets", doi:10.1162/neco.2006.18.7.1527; the
settings of its training are those of Hinton's practical guide, doi:10.1007/978-3-642-35289-8_32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from stratoscope.errors import DataError, SettingError
from stratoscope.nn.boltzmann import RestrictedBoltzmannMachine, VisibleUnits, as_parts
from stratoscope.nn.greedy import Epoch, GreedyTraining, Progress


class DeepBeliefNetwork(nn.Module):
    """A stack of restricted Boltzmann machines; as a layer, it passes probabilities upward.

    `layers.0`, `layers.1` and so on are the machines, each a module whose output hooks and instruments see, and
    `flatten` gives the examples as the first of them takes them.

    Attributes:
        flatten: one row an example.
        layers: the machines, from below.

    >>> net = DeepBeliefNetwork([64, 16, 16])
    >>> draw = torch.Generator().manual_seed(0)
    >>> pictures = torch.randint(256, (50, 8, 8), generator=draw, dtype=torch.uint8)
    >>> epochs = net.fit(pictures, generator=draw, epochs=2, batch_size=10)
    >>> [(one.layer, one.epoch) for one in epochs]
    [(0, 1), (0, 2), (1, 1), (1, 2)]
    >>> net(pictures).shape
    torch.Size([50, 16])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        visible_units: VisibleUnits = "bernoulli",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Draw fresh machines.

        Args:
            sizes: units of each side, from the visible ones up: `[784, 500, 500]` makes two machines.
            visible_units: of the lowest machine; all others are binary.
            generator: of the weights; without one, one that starts from 0.
            device: as for every module.
            dtype: as for every module.

        Raises:
            SettingError: if there are less than two sizes, or one is below 1.
        """
        super().__init__()
        if len(sizes) < 2:
            raise SettingError(
                f"sizes={list(sizes)} must name two sides at least, the visible units and the hidden ones."
            )
        draw = generator if generator is not None else torch.Generator().manual_seed(0)
        self.flatten = nn.Flatten()
        self.layers = nn.ModuleList(
            RestrictedBoltzmannMachine(
                below, above, visible_units=visible_units if place == 0 else "bernoulli",
                generator=draw, device=device, dtype=dtype,
            )
            for place, (below, above) in enumerate(pairwise(sizes))
        )  # fmt: skip

    @property
    def machines(self) -> tuple[RestrictedBoltzmannMachine, ...]:
        """The same as `layers`, for type checkers."""
        return tuple(cast(RestrictedBoltzmannMachine, layer) for layer in self.layers)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each side, from the visible ones up."""
        return (self.machines[0].in_features, *(machine.out_features for machine in self.machines))

    def forward(self, v: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n hidden"]:
        """Mean field: each machine's hidden probabilities are what the next one sees.

        Raises:
            DataError: if an example has another number of values than there are visible units.
        """
        v = self.flatten(as_parts(v, self.machines[0].weight))
        for layer in self.layers:
            v = layer(v)
        return v

    def upward(self, v: Shaped[Tensor, "n ..."]) -> Iterator[Float[Tensor, "n hidden"]]:
        """What each machine says, from below."""
        for layer in self.layers:
            v = layer(v)
            yield v

    def fit(
        self,
        data: Shaped[Tensor, "n ..."],
        *,
        generator: torch.Generator,
        epochs: int = 10,
        batch_size: int = 100,
        lr: float | Sequence[float] = 0.1,
        momentum: tuple[float, float] = (0.5, 0.9),
        momentum_after: int = 5,
        weight_decay: float = 0.0,
        k: int = 1,
        sample_visible: bool = False,
        progress: Progress | None = None,
        checkpoints: str | Path | None = None,
        resume: bool = False,
    ) -> tuple[Epoch, ...]:
        """Train the machines from below, each on the hidden probabilities of the one before, by contrastive divergence.

        Each machine's visible biases start at the log-odds of what it is shown (`log((s + 1/2) / (n - s + 1/2))` for a
        sum of `s` over `n` examples, so never infinite), those of Gaussian units at the means. Its weights start as
        they are. The same generator, data, settings and number of threads give the same weights, bit for bit, whether
        the training was stopped and resumed or not.

        Args:
            data: examples, one a row, or pictures; `uint8` counts as parts of 255. They may be on another device and are
                moved there batch by batch.
            generator: of the order of examples and of all draws.
            epochs: passes over the data for each machine.
            batch_size: examples an update; the last batch of an epoch may be smaller.
            lr: learning rate: one for all machines, or one for each.
            momentum: at first, and later.
            momentum_after: epochs of each machine with the first momentum.
            weight_decay: L2 decay of the weights, not of the biases.
            k: steps of contrastive divergence.
            sample_visible: draw the visible units of the chain; by default their probabilities are taken.
            progress: told `(what, done, total)` after each epoch, in epochs of all machines.
            checkpoints: a folder for what is needed to go on after each epoch; made if it is not there.
            resume: go on from the last checkpoint in that folder, if there is one.

        Returns:
            What came of each epoch, those before a resume included.

        Raises:
            DataError: if the data are empty, one example, not finite, outside [0, 1], or of another width.
            SettingError: if a setting is out of range, the folder holds another training, or the weights left the
                finite numbers; one sentence says which.
        """
        training = GreedyTraining(
            epochs=epochs,
            batch_size=batch_size,
            lr=tuple(lr) if isinstance(lr, Sequence) else (lr,) * len(self.layers),
            momentum=momentum,
            momentum_after=momentum_after,
            weight_decay=weight_decay,
            k=k,
            sample_visible=sample_visible,
        )
        folder = None if checkpoints is None else Path(checkpoints)
        return training.run(self.machines, data, generator, progress=progress, folder=folder, resume=resume)

    @torch.no_grad()
    def sample(self, n: int, k: int, generator: torch.Generator) -> Float[Tensor, "n visible"]:
        """Draw examples from the network as a generative model.

        A Gibbs chain in the top machine, from fair coins (or a standard normal), then each lower machine's visible
        units drawn given the states above.

        Args:
            n: how many.
            k: steps of the chain.
            generator: of the draws.
        """
        *below, top = self.machines
        start = torch.empty(n, top.in_features, dtype=top.weight.dtype, device=generator.device)
        gaussian = top.visible_units == "gaussian"
        start = start.normal_(generator=generator) if gaussian else start.uniform_(generator=generator).round_()
        v = top.gibbs(start, k, generator)
        for machine in reversed(below):
            v = machine.sample_visible(v, generator)
        return v

    @torch.no_grad()
    def reconstruction_error(self, v: Shaped[Tensor, "n ..."]) -> Float[Tensor, ""]:
        """Mean squared difference between `v` and what comes back from the top, by probabilities up and down."""
        if len(v) == 0:
            raise DataError("There is nothing to reconstruct in no examples.")
        shown = as_parts(v, self.machines[0].weight).flatten(1)
        state: Tensor = self(v)
        for machine in reversed(self.machines):
            state = machine.visible_probabilities(state)
        return (shown - state).square().mean()
