r"""A data model on which a single layer passes through the three phases, and the reason why.

The paper proves phases for single-layer networks on a data model of its own, whose exact form could not be checked. This
one is ours, in its spirit: of what tells the classes apart, some is strong and mixed with other variation, some is weak and
clean, and much of the input has nothing to do with them.

**Data.** A class $y$ of $C$, all as likely, and $x = (s, w, g)$ with

$$ s = A e_y + \sigma_s \xi, \qquad w = B e_y + \sigma_w \xi', \qquad g = \sigma_g \zeta, $$

$\xi, \xi' \in R^C$ and $\zeta \in R^m$ standard normal. Strong: $A > B$; clean: $B / \sigma_w > A / \sigma_s$. The known mean of $x$ is
taken off. The other task that the layer is probed for is the largest strong feature, $\arg\max_j s_j$.

**Layer.** $z = W x$ with $C$ outputs and no bias, softmax, cross entropy, gradient descent with rate $\eta$ from small normal
weights $W_0$. What is reconstructed is $x$ from $z$, by the best linear decoder, with an error of

$$ E(W) = \mathrm{tr}\,\Sigma - \mathrm{tr}\,[\, \Sigma W^T (W \Sigma W^T)^+ W \Sigma \,], \qquad \Sigma = \mathrm{cov}(x). $$

**Derived.** Near $z = 0$ the softmax is $1/C + Hz/C$ with $H = I - 11^T/C$, and the gradient is that of a quadratic loss. Its
gradient descent is solved exactly: along each eigenvector $v$ of $\Sigma$ with eigenvalue $\lambda$,

$$ H W_t v = \frac{C}{\lambda} (1 - q^t)\, M v + q^t H W_0 v, \qquad q = 1 - \eta \lambda / C, \qquad M = \mathrm{cov}(e_y, x), $$

while $1^T W_t$ stays. By the symmetry of the classes, all $C - 1$ contrasts between them see the same 2 x 2 covariance $S$ of
$(s, w)$ and the same $m = (A, B) / C$. Hence three phases:

1. *flat* while $\eta t |M|$ is small beside $W_0$: a random projection is decoded, which sees little of any direction;
2. *falling* when it is large: each contrast reads $m \cdot (s, w)$ and explains $|S m|^2 / m^T S m$, near the larger variance of $S$;
3. *rising* when small eigenvalues catch up: in the end each contrast reads $S^{-1} m$, the best discriminant, and explains
   $|m|^2 / m^T S^{-1} m$.

**Theorem.** Without $W_0$ the error of the linearised training never falls. Let $p_i$ be the squares of the components of $m$ along
the eigenvectors of $S$. A contrast explains the mean of $\lambda_i$ with weights $p_i (1 - q_i^t)^2 / \lambda_i$. For
$\lambda_1 > \lambda_2$ the ratio of their weights, $((1 - q_1^t) / (1 - q_2^t))^2$ times a constant, falls in $t$ where both $q$ lie
in $[0, 1)$, since $-\ln q \cdot q^t / (1 - q^t)$ falls in $-\ln q$. So the mean falls, strictly if $m$ has parts along two
eigenvalues, and stays if it has not. The second phase is therefore owed to the random start, and the third to class means
that lie along more than one variance.

**Simulated**, and not derived: cross entropy beyond small $z$, a finite sample, and a decoder fitted to it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class DataModel:
    """Examples of classes with strong, weak and irrelevant features.

    Attributes:
        classes: C.
        strong: A, the mean of the strong feature of the own class.
        strong_noise: its deviation.
        weak: B, the mean of the weak feature of the own class.
        weak_noise: its deviation.
        others: m, features that have nothing to do with the class.
        others_noise: their deviation.
    """

    classes: int = 10
    strong: float = 2.0
    strong_noise: float = 1.0
    weak: float = 0.8
    weak_noise: float = 0.15
    others: int = 150
    others_noise: float = 0.3

    @property
    def width(self) -> int:
        """Numbers of an input."""
        return 2 * self.classes + self.others

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Examples `(n, width)` less their known mean, their classes, and which strong feature is the largest."""
        labels = torch.randint(self.classes, (n,), generator=generator)
        own = torch.nn.functional.one_hot(labels, self.classes).double() - 1 / self.classes
        noise = torch.randn(n, self.width, generator=generator, dtype=torch.float64)
        strong, weak, others = noise.split((self.classes, self.classes, self.others), dim=1)
        strong = self.strong * own + self.strong_noise * strong
        inputs = torch.cat([strong, self.weak * own + self.weak_noise * weak, self.others_noise * others], 1)
        return inputs, labels, strong.argmax(1)

    @cached_property
    def _unit(self) -> Tensor:
        """Covariance of the one-hot classes, `H / C`."""
        return (torch.eye(self.classes, dtype=torch.float64) - 1 / self.classes) / self.classes

    @cached_property
    def covariance(self) -> Tensor:
        """Of the inputs, `(width, width)`."""
        own, unit = torch.eye(self.classes, dtype=torch.float64), self._unit
        found = self.others_noise**2 * torch.eye(self.width, dtype=torch.float64)
        k = self.classes
        found[:k, :k] = self.strong**2 * unit + self.strong_noise**2 * own
        found[k : 2 * k, k : 2 * k] = self.weak**2 * unit + self.weak_noise**2 * own
        found[:k, k : 2 * k] = found[k : 2 * k, :k] = self.strong * self.weak * unit
        return found

    @cached_property
    def cross(self) -> Tensor:
        """Covariance of the one-hot classes with the inputs, `(classes, width)`."""
        none = torch.zeros(self.classes, self.others, dtype=torch.float64)
        return torch.cat([self.strong * self._unit, self.weak * self._unit, none], 1)

    def start(self, deviation: float, generator: torch.Generator) -> Tensor:
        """Normal weights, `(classes, width)`."""
        return deviation * torch.randn(self.classes, self.width, generator=generator, dtype=torch.float64)

    def weights(self, start: Tensor, step: int, rate: float) -> Tensor:
        """What gradient descent on the linearised loss has made of `start` after some steps: exact."""
        values, axes = self._axes
        left = (1 - rate * values / self.classes) ** step
        mean = start.mean(0, keepdim=True)
        learned = self.classes * (self.cross @ axes) * ((1 - left) / values)
        return mean + (learned + ((start - mean) @ axes) * left) @ axes.mT

    def error(self, weights: Tensor) -> float:
        """Mean squared error of an input number, decoded by the best linear map from `weights @ x`."""
        return (float(self.covariance.trace()) - _explained(self.covariance, weights)) / self.width

    @cached_property
    def contrast(self) -> tuple[Tensor, Tensor]:
        """`S` and `m` of a contrast between classes."""
        a, b, k = self.strong, self.weak, self.classes
        s = [[a * a / k + self.strong_noise**2, a * b / k], [a * b / k, b * b / k + self.weak_noise**2]]
        return torch.tensor(s, dtype=torch.float64), torch.tensor([a, b], dtype=torch.float64) / k

    @property
    def fallen(self) -> float:
        """Error of the second phase without random weights: each contrast reads `m`."""
        s, m = self.contrast
        return self._with(float((s @ m).square().sum() / (m @ s @ m)))

    @property
    def risen(self) -> float:
        """Error of the third phase without random weights: each contrast reads `S^-1 m`."""
        s, m = self.contrast
        return self._with(float(m.square().sum() / (m @ torch.linalg.solve(s, m))))

    @property
    def floor(self) -> float:
        """Error of predicting the mean."""
        return self._with(0.0)

    def _with(self, explained: float) -> float:
        return (float(self.covariance.trace()) - (self.classes - 1) * explained) / self.width

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        values, axes = torch.linalg.eigh(self.covariance)
        return values, axes


def _explained(covariance: Tensor, weights: Tensor) -> float:
    """Variance of x that z = W x explains; directions of z within rounding of none are left out."""
    along = weights @ covariance
    return float((torch.linalg.pinv(along @ weights.mT, rtol=1e-12, hermitian=True) * (along @ along.mT)).sum())


def descend(
    inputs: Tensor,
    labels: Tensor,
    start: Tensor,
    steps: Collection[int],
    rate: float,
    batch: int,
    order: torch.Generator,
) -> dict[int, Tensor]:
    """Stochastic gradient descent on the cross entropy of `softmax(W x)`: the weights at some steps.

    Args:
        inputs: `(n, width)`.
        labels: classes.
        start: weights of step 0.
        steps: at which weights are kept; the last is the end.
        rate: of learning.
        batch: examples of a step.
        order: of the examples.
    """
    weights, kept, step = start.to(inputs, copy=True), {}, 0
    hot = torch.nn.functional.one_hot(labels, len(start)).to(inputs)
    while True:
        for some in torch.randperm(len(inputs), generator=order).split(batch):
            if step in steps:
                kept[step] = weights.clone()
            if step == max(steps):
                return kept
            x = inputs[some]
            missed = hot[some] - (x @ weights.mT).softmax(1)
            weights.addmm_(missed.mT, x, alpha=rate / len(some))
            step += 1


def doubling(last: int) -> list[int]:
    """0 and the powers of two up to some step, and that step.

    >>> doubling(20)
    [0, 1, 2, 4, 8, 16, 20]
    """
    powers = [2**power for power in range(int(math.log2(last)) + 1)] if last else []
    return sorted({0, *powers, last})
