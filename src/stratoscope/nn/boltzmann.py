r"""Restricted Boltzmann machines: binary hidden units, visible ones that are binary or Gaussian, and no others.

A machine with visible biases $b$, hidden biases $c$ and weights $W$ (hidden x visible) gives the probability
$e^{-E(v, h)} / Z$ to a state, with $E(v, h) = -b \cdot v - c \cdot h - h^T W v$. Units of one side are independent
given the other side, $p(h_j = 1 \mid v) = \sigma(c_j + (W v)_j)$, and summing over the hidden ones leaves
$p(v) = e^{-F(v)} / Z$ with the *free energy* $F(v) = -b \cdot v - \sum_j \log(1 + e^{c_j + (W v)_j})$.

With Gaussian visible units of deviation 1, $-b \cdot v$ becomes $\lVert v - b \rVert^2 / 2$, so $v$ given $h$ is normal
around $b + W^T h$; such data are to be standardised.

The gradient of the mean log-likelihood is that of $\mathbb{E}_{model} F - \mathbb{E}_{data} F$. The model's side takes a Markov
chain that has settled; contrastive divergence stops it after $k$ steps from the data.

Sources: Hinton, "Training products of experts by minimizing contrastive divergence", doi:10.1162/089976602760128018;
Hinton, "A practical guide to training restricted Boltzmann machines", doi:10.1007/978-3-642-35289-8_32; Tieleman,
"Training restricted Boltzmann machines using approximations to the likelihood gradient", doi:10.1145/1390156.1390290.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from stratoscope.errors import DataError, SettingError

VisibleUnits = Literal["bernoulli", "gaussian"]

START = 0.01
"""Standard deviation of fresh weights, as the practical guide gives it."""

EXACT = 20
"""Units of the smaller side up to which all states are enumerated: about a million."""

TOGETHER = 2**14
"""States that are laid side by side."""


class Phases(NamedTuple):
    """Both sides of a contrastive update.

    Attributes:
        hidden: probabilities of the hidden units given the data.
        model: visible units at the end of the chain.
        model_hidden: probabilities of the hidden units given these.
    """

    hidden: Float[Tensor, "n hidden"]
    model: Float[Tensor, "m visible"]
    model_hidden: Float[Tensor, "m hidden"]


class RestrictedBoltzmannMachine(nn.Module):
    """A restricted Boltzmann machine; as a layer, it gives the probabilities of its hidden units.

    Everything random takes a `torch.Generator`; it may live on the CPU while the machine is on another device. Examples
    come one a row, or as pictures, which are flattened; `uint8` counts as parts of 255, `bool` as 0 and 1.

    Attributes:
        weight: `(hidden, visible)`, as in `nn.Linear`; drawn from a normal of deviation 0.01.
        visible_bias: `(visible,)`; zero at first.
        hidden_bias: `(hidden,)`; zero at first.

    >>> machine = RestrictedBoltzmannMachine(6, 4)
    >>> draw = torch.Generator().manual_seed(0)
    >>> v = torch.rand(20, 6, generator=draw).round()
    >>> machine.contrastive_divergence(v, 1, draw).backward()
    >>> machine(v).shape, machine.weight.grad.shape
    (torch.Size([20, 4]), torch.Size([4, 6]))
    """

    def __init__(
        self,
        visible: int,
        hidden: int,
        *,
        visible_units: VisibleUnits = "bernoulli",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Draw fresh weights.

        Args:
            visible: how many visible units.
            hidden: how many hidden units.
            visible_units: `"bernoulli"` (in [0, 1]) or `"gaussian"` (of deviation 1, around any mean).
            generator: of the weights; without one, one that starts from 0.
            device: as for every module.
            dtype: as for every module.

        Raises:
            SettingError: if a side has no unit, or there are no such visible units.
        """
        super().__init__()
        if visible < 1 or hidden < 1:
            raise SettingError(f"visible={visible} and hidden={hidden} must both be at least 1.")
        if visible_units not in get_args(VisibleUnits):
            raise SettingError(f"visible_units={visible_units!r} must be one of {', '.join(get_args(VisibleUnits))}.")
        self.visible_units = visible_units
        self.in_features, self.out_features = visible, hidden
        self.weight = nn.Parameter(torch.empty(hidden, visible, device=device, dtype=dtype))
        self.visible_bias = nn.Parameter(torch.zeros(visible, device=device, dtype=dtype))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden, device=device, dtype=dtype))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew and set the biases to zero.

        Args:
            generator: of the weights; without one, one that starts from 0.
        """
        draw = generator if generator is not None else torch.Generator().manual_seed(0)
        fresh = torch.empty(self.weight.shape, dtype=self.weight.dtype, device=draw.device)
        self.weight.copy_(fresh.normal_(0, START, generator=draw))
        self.visible_bias.zero_()
        self.hidden_bias.zero_()

    def extra_repr(self) -> str:
        """The sizes."""
        return f"visible={self.in_features}, hidden={self.out_features}, visible_units={self.visible_units!r}"

    # -- the conditional distributions --------------------------------------------------------------------------------

    def forward(self, v: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n hidden"]:
        """Probabilities of the hidden units, as `hidden_probabilities` gives them."""
        return self.hidden_probabilities(v)

    def hidden_probabilities(self, v: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n hidden"]:
        """`p(h = 1 | v)`.

        Raises:
            DataError: if an example has another number of values than there are visible units.
        """
        return torch.sigmoid(functional.linear(self.rows(v), self.weight, self.hidden_bias))

    def visible_probabilities(self, h: Shaped[Tensor, "n hidden"]) -> Float[Tensor, "n visible"]:
        """`p(v = 1 | h)`; for Gaussian visible units their means.

        Raises:
            DataError: if a state has another number of values than there are hidden units.
        """
        mean = torch.addmm(self.visible_bias, self._states(h), self.weight)
        return torch.sigmoid(mean) if self.visible_units == "bernoulli" else mean

    def sample_hidden(self, v: Shaped[Tensor, "n ..."], generator: torch.Generator) -> Float[Tensor, "n hidden"]:
        """Hidden states, 0 or 1, drawn given the visible ones."""
        return _bernoulli(self.hidden_probabilities(v), generator)

    def sample_visible(self, h: Shaped[Tensor, "n hidden"], generator: torch.Generator) -> Float[Tensor, "n visible"]:
        """Visible states drawn given the hidden ones: 0 or 1, or normal around their means."""
        return self._drawn(self.visible_probabilities(h), generator)

    def gibbs(self, v: Shaped[Tensor, "n ..."], k: int, generator: torch.Generator) -> Float[Tensor, "n visible"]:
        """Visible states after `k` steps of block Gibbs sampling; in the long run they come from the model.

        Args:
            v: where the chains start, one a row.
            k: steps, each once up and once down.
            generator: of the draws.

        Raises:
            SettingError: if `k` is below 1.
        """
        with torch.no_grad():
            v = self.rows(v)
            for _ in range(_steps(k)):
                v = self.sample_visible(self.sample_hidden(v, generator), generator)
        return v

    # -- learning -----------------------------------------------------------------------------------------------------

    def free_energy(self, v: Shaped[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        """`F(v)`, for each example; `-F(v)` is the log-probability up to a constant, and not the same for two machines.

        >>> machine = RestrictedBoltzmannMachine(3, 2, dtype=torch.float64)
        >>> with torch.no_grad():
        ...     _ = machine.weight.zero_()
        >>> round(machine.free_energy(torch.ones(1, 3)).item(), 6)  # two hidden units of two states each
        -1.386294
        """
        v = self.rows(v)
        hidden = functional.softplus(functional.linear(v, self.weight, self.hidden_bias)).sum(1)
        if self.visible_units == "gaussian":
            return (v - self.visible_bias).square().sum(1) / 2 - hidden
        return -(v @ self.visible_bias) - hidden

    def contrastive_divergence(
        self,
        v: Shaped[Tensor, "n ..."],
        k: int,
        generator: torch.Generator,
        *,
        chain: Float[Tensor, "m visible"] | None = None,
        sample_visible: bool = True,
    ) -> Float[Tensor, ""]:
        """A loss whose gradient is the update of contrastive divergence, for any optimizer.

        It is `mean F(v) - mean F(model)`, where `model` is the end of a chain of `k` steps and no gradient runs through
        it. So the gradient of the weights is `-(p(h|v)^T v - p(h|model)^T model)`, each averaged. Its value may rise
        while the machine learns: follow `reconstruction_error`, or `log_likelihood` where it can be had.

        The gradient tends to that of the exact log-likelihood as `k` grows. For a small `k` it is biased.

        Args:
            v: the data.
            k: steps of the chain.
            generator: of the draws.
            chain: for *persistent* contrastive divergence: where the chain was left the last time, instead of at the
                data. It is overwritten with where it ends; there may be more or fewer rows than examples.
            sample_visible: draw the visible units of the chain. With `False` their probabilities are taken, which is less
                noisy and usual for training, but no longer samples the model.

        Raises:
            DataError: if the data are empty, not finite, or (for binary visible units) not within [0, 1].
            SettingError: if `k` is below 1.
        """
        v = self.checked(v)
        with torch.no_grad():
            start = None if chain is None else self.rows(chain)
            model = self.phases(v, _steps(k), generator, chain=start, sample_visible=sample_visible).model
            if chain is not None:
                chain.copy_(model.reshape(chain.shape))
        return self.free_energy(v).mean() - self.free_energy(model).mean()

    @torch.no_grad()
    def phases(
        self,
        v: Float[Tensor, "n visible"],
        k: int,
        generator: torch.Generator,
        *,
        chain: Float[Tensor, "m visible"] | None = None,
        sample_visible: bool = True,
    ) -> Phases:
        """Both sides of an update, in `2 k + 1` products of matrices; nothing is checked.

        Args:
            v: the data, one example a row, of the machine's own type.
            k: steps of the chain.
            generator: of the draws.
            chain: where the chain starts, instead of at the data.
            sample_visible: draw the visible units of the chain, or take their probabilities.
        """
        hidden = self._up(v)
        model = v if chain is None else chain
        model_hidden = hidden if chain is None else self._up(chain)
        for _ in range(k):
            model = self._down(_bernoulli(model_hidden, generator))
            if sample_visible:
                model = self._drawn(model, generator)
            model_hidden = self._up(model)
        return Phases(hidden, model, model_hidden)

    @torch.no_grad()
    def reconstruction_error(self, v: Shaped[Tensor, "n ..."]) -> Float[Tensor, ""]:
        """Mean squared difference between `v` and what its hidden probabilities give back, over units and examples.

        Nothing is drawn. It usually falls while a machine learns, but a machine that mixes badly has a small one, too.
        """
        v = self.rows(v)
        return (v - self._down(self._up(v))).square().mean()

    # -- small machines, exactly --------------------------------------------------------------------------------------

    def log_partition(self) -> Float[Tensor, ""]:
        """`log Z`, by enumerating all states of the smaller side (of the hidden one for Gaussian visible units).

        Raises:
            SettingError: if that side has more than 20 units.

        >>> round(RestrictedBoltzmannMachine(3, 2, dtype=torch.float64).log_partition().item(), 1)  # about 5 log 2
        3.5
        """
        visible, hidden = self.in_features, self.out_features
        over_visible = self.visible_units == "bernoulli" and visible < hidden
        if (side := visible if over_visible else hidden) > EXACT:
            raise SettingError(f"All states of {side} units are too many to enumerate; at most {EXACT} units can be.")
        terms = [
            torch.logsumexp(-self.free_energy(states) if over_visible else self._log_weight(states), 0)
            for states in _all_states(side, self.weight)
        ]
        return torch.logsumexp(torch.stack(terms), 0)

    def log_likelihood(self, v: Shaped[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        """Exact `log p(v)` in nats for each example (a density for Gaussian visible units), where it can be had.

        Differentiable. Binary visible units have probabilities at 0 and 1 only; between them the value means nothing.

        Raises:
            SettingError: if the machine is too large (see `log_partition`).
        """
        return -self.free_energy(v) - self.log_partition()

    def _log_weight(self, h: Tensor) -> Tensor:
        """`log sum_v exp(-E(v, h))`, an integral for Gaussian visible units."""
        given, own = h @ self.weight, h @ self.hidden_bias
        if self.visible_units == "bernoulli":
            return own + functional.softplus(given + self.visible_bias).sum(1)
        normal = self.in_features / 2 * math.log(2 * math.pi)
        return own + given @ self.visible_bias + given.square().sum(1) / 2 + normal

    # -- what comes in ------------------------------------------------------------------------------------------------

    def rows(self, v: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n visible"]:
        """One example a row, in the machine's own type and on its device.

        Raises:
            DataError: if an example has another number of values than there are visible units.
        """
        if v.ndim < 2 or v[:1].numel() != self.in_features * len(v[:1]):
            raise DataError(
                f"A machine with {self.in_features} visible units needs (n, {self.in_features}) or pictures of as many "
                f"pixels, not {tuple(v.shape)}."
            )
        return as_parts(v.flatten(1), self.weight)

    def checked(self, v: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n visible"]:
        """The same, if it can be learned from.

        Raises:
            DataError: if there is nothing, or something not finite, or (for binary visible units) outside [0, 1].
        """
        found = self.rows(v)
        check_values(found, self.visible_units)
        return found

    def _states(self, h: Tensor) -> Tensor:
        if h.ndim != 2 or h.shape[1] != self.out_features:
            raise DataError(f"Hidden states have the shape (n, {self.out_features}), not {tuple(h.shape)}.")
        return h.to(self.weight)

    # -- the same, without checks -------------------------------------------------------------------------------------

    def _up(self, v: Tensor) -> Tensor:
        return torch.addmm(self.hidden_bias, v, self.weight.T).sigmoid_()

    def _down(self, h: Tensor) -> Tensor:
        mean = torch.addmm(self.visible_bias, h, self.weight)
        return mean.sigmoid_() if self.visible_units == "bernoulli" else mean

    def _drawn(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        if self.visible_units == "bernoulli":
            return _bernoulli(mean, generator)
        return mean + _drawn_on(generator, mean).normal_(generator=generator).to(mean.device)


def as_parts(v: Shaped[Tensor, "*shape"], like: Tensor) -> Float[Tensor, "*shape"]:
    """Numbers in another tensor's type, on its device; `uint8` becomes parts of 255.

    >>> as_parts(torch.tensor([0, 51, 255], dtype=torch.uint8), torch.zeros(1)).tolist()
    [0.0, 0.20000000298023224, 1.0]
    """
    found = v.to(like)
    return found.div_(255) if v.dtype is torch.uint8 else found


def check_values(v: Shaped[Tensor, "n visible"], units: str) -> None:
    """Refuse what visible units cannot be.

    Raises:
        DataError: if there is nothing, or something not finite, or (for binary units) outside [0, 1].
    """
    if v.numel() == 0:
        raise DataError(f"There is nothing to learn from in data of shape {tuple(v.shape)}.")
    if v.dtype in (torch.uint8, torch.bool):
        return
    lowest, highest = (float(end) for end in torch.aminmax(v))
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        bad = int((~torch.isfinite(v)).sum())
        raise DataError(f"{bad:,} of {v.numel():,} numbers of the data are NaN or infinite; remove or replace them.")
    if units == "bernoulli" and (lowest < 0 or highest > 1):
        raise DataError(
            f"The data reach from {lowest:.4g} to {highest:.4g}, and binary visible units take numbers from 0 to 1; scale "
            "them, or use visible_units='gaussian' on standardised data."
        )


def _bernoulli(p: Tensor, generator: torch.Generator) -> Tensor:
    return torch.lt(_drawn_on(generator, p).uniform_(generator=generator).to(p.device), p).to(p.dtype)


def _drawn_on(generator: torch.Generator, like: Tensor) -> Tensor:
    """Room for draws where the generator lives, which need not be where the machine is."""
    return torch.empty(like.shape, dtype=like.dtype, device=generator.device)


def _steps(k: int) -> int:
    if k < 1:
        raise SettingError(f"k={k} must be at least 1 step of the chain.")
    return k


def _all_states(n: int, like: Tensor) -> Iterator[Tensor]:
    """Every row of `n` zeros and ones, in blocks."""
    places = torch.arange(n, device=like.device)
    for numbers in torch.arange(2**n, device=like.device).split(TOGETHER):
        yield (numbers[:, None] >> places & 1).to(like.dtype)
