"""200 weight matrices whose phase is known because of how they are made, to hold the rule of phases to.

The papers give definitions and no numbers (arXiv:1810.01075), so each kind is what its definition says; where a line has
to be drawn it is the authors' own or a closed form, never what an estimate says. Written down before the rule was run
on any of them, drawn once with a seed chosen before, and never redrawn. Matrices that nobody could tell by their
eigenvalues, such as a single direction just above the threshold, are in the set and count as errors.

All: shorter side log-uniform from 128 to 1024; square with odds of one in four, else an aspect of up to 4; either
orientation; any scale from 0.001 to 1000; stored in float32. Noise is of Gaussian, uniform or truncated normal entries.
Strengths are in units of the threshold at which a direction can be seen, `y^(1/4)` (arXiv:math/0403022).

* random-like: noise.
* bleeding-out: up to 1/20 of the rows have a direction, the strongest from 1.1 up to where the closed form of its
  eigenvalue gives a soft rank of 0.75 (1.73 to 1.79); the others uniform between 1.1 and the strongest.
* bulk+spikes: the same, the strongest from there up to 3. The authors' largest share with this label is 5.26 %.
* bulk-decay: directions of uniform strength from 1.1 to 3 for 9.25 % of the others (the authors' smallest with this
  label) up to 15 %.
* heavy-tailed: the whole spectrum is drawn from a density `x^-alpha` between random orthogonal matrices; very heavy
  from alpha 1.5 to 2, fat from 2 to 4, weak from 4 to 5. Every second very heavy one has entries of a Pareto law with a
  random sign instead, `mu = 2 (alpha - 1)`.
* rank-collapse: noise, or noise with up to ten directions, whose rows are a random mix of 10 % to 90 % of that many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SEED = 1810_01075
EACH = 25
LABELS = (
    "random-like",
    "bleeding-out",
    "bulk+spikes",
    "bulk-decay",
    "heavy-tailed-weak",
    "heavy-tailed-fat",
    "heavy-tailed-very-heavy",
    "rank-collapse",
)
TAILS = {"weak": (4.0, 5.0), "fat": (2.0, 4.0), "very-heavy": (1.5, 2.0)}
SOFT_RANK, WEAKEST, STRONGEST = 0.75, 1.1, 3.0

Matrix = NDArray[np.float64]


def labelled() -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The label and the matrix of each."""
    for kind, label in enumerate(LABELS):
        for number in range(EACH):
            generator = np.random.default_rng([SEED, kind, number])
            matrix = made(label, generator, number) * 10 ** generator.uniform(-3, 3)
            yield label, (matrix.T if generator.random() < 0.5 else matrix).astype(np.float32)


def made(label: str, generator: np.random.Generator, number: int = 0) -> Matrix:
    """One matrix of a kind, wide."""
    rows, columns = shape(generator)
    if label.startswith("heavy-tailed"):
        low, high = TAILS[label.removeprefix("heavy-tailed-")]
        alpha = generator.uniform(low, high)
        entries = low < 2 and number % 2
        return pareto_entries(generator, rows, columns, alpha) if entries else heavy(generator, rows, columns, alpha)
    if label == "rank-collapse":
        return collapsed(generator, rows, columns)
    return noise(generator, rows, columns) + directions(label, generator, rows, columns)


def shape(generator: np.random.Generator) -> tuple[int, int]:
    rows = round(128 * 8 ** generator.random())
    return rows, rows if generator.random() < 0.25 else round(rows * generator.uniform(1, 4))


def noise(generator: np.random.Generator, rows: int, columns: int) -> Matrix:
    """Independent entries of variance one."""
    kind = generator.choice(["gaussian", "uniform", "truncated"])
    if kind == "uniform":
        return generator.uniform(-math.sqrt(3), math.sqrt(3), (rows, columns))
    entries = generator.standard_normal((rows, columns))
    if kind == "truncated":  # at two standard deviations, as weights are often initialised
        while (far := np.abs(entries) > 2).any():
            entries[far] = generator.standard_normal(int(far.sum()))
        entries /= 0.8796256610342398
    return entries


def directions(label: str, generator: np.random.Generator, rows: int, columns: int) -> Matrix:
    """What was learned on top of noise of variance one."""
    if label == "random-like":
        return np.zeros((rows, columns))
    ratio = rows / columns
    if label == "bulk-decay":
        share = generator.uniform(0.0925, 0.15)
        count = math.ceil(rows * share / (1 + share))
        return planted(generator, rows, columns, generator.uniform(WEAKEST, STRONGEST, count))
    border = strength_of_soft_rank(SOFT_RANK, ratio)
    low, high = (WEAKEST, border) if label == "bleeding-out" else (border, STRONGEST)
    strongest = generator.uniform(low, high)
    count = int(generator.integers(1, rows // 20 + 1))
    return planted(generator, rows, columns, np.append(generator.uniform(WEAKEST, strongest, count - 1), strongest))


def planted(generator: np.random.Generator, rows: int, columns: int, strengths: Matrix) -> Matrix:
    """Orthogonal directions of these strengths, in units of the threshold."""
    left, right = (orthogonal(generator, side, len(strengths)) for side in (rows, columns))
    return (left * strengths * math.sqrt(columns) * (rows / columns) ** 0.25) @ right.T


def orthogonal(generator: np.random.Generator, rows: int, columns: int) -> Matrix:
    return np.linalg.qr(generator.standard_normal((rows, columns)))[0]


def soft_rank(strength: float, ratio: float) -> float:
    """The edge of the noise over the eigenvalue that a direction of this strength has as the sides grow."""
    theta = strength**2 * math.sqrt(ratio)
    return (1 + math.sqrt(ratio)) ** 2 * theta / ((1 + theta) * (ratio + theta))


def strength_of_soft_rank(soft: float, ratio: float) -> float:
    """The inverse: `x^2 + x^-2` is `t`, hence `x^2 = (t + sqrt(t^2 - 4)) / 2`."""
    t = ((1 + math.sqrt(ratio)) ** 2 / soft - 1 - ratio) / math.sqrt(ratio)
    return math.sqrt((t + math.sqrt(t * t - 4)) / 2)


def heavy(generator: np.random.Generator, rows: int, columns: int, alpha: float) -> Matrix:
    """Eigenvalues from a power law of this exponent, and random directions."""
    values = (1 - generator.random(rows)) ** (-1 / (alpha - 1))
    return (orthogonal(generator, rows, rows) * np.sqrt(values)) @ orthogonal(generator, columns, rows).T


def pareto_entries(generator: np.random.Generator, rows: int, columns: int, alpha: float) -> Matrix:
    """Heavy-tailed entries, whose eigenvalues have this exponent as the sides grow."""
    sizes = (1 - generator.random((rows, columns))) ** (-1 / (2 * (alpha - 1)))
    return sizes * generator.choice([-1.0, 1.0], (rows, columns))


def collapsed(generator: np.random.Generator, rows: int, columns: int) -> Matrix:
    """A part of the rows, each row of the whole a random mix of them."""
    rank = max(1, round(rows * generator.uniform(0.1, 0.9)))
    part = noise(generator, rank, columns)
    if generator.random() < 0.5:
        strengths = generator.uniform(WEAKEST, STRONGEST, min(rank, int(generator.integers(1, 11))))
        part += planted(generator, rank, columns, strengths)
    return orthogonal(generator, rows, rank) @ part
