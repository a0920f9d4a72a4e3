"""Hypothesis strategies for what instruments are given: rows of features, labels, state dicts, small networks.

Everything random but the shapes comes from a drawn seed, so that a failing example is small to print and quick to make.

```python
@given(features())
def test_it_ignores_a_shift(rows):
    ...
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stratoscope.errors import require
from stratoscope.network.subject import Subject
from stratoscope.testing.subjects import seeded

if TYPE_CHECKING:
    from hypothesis import strategies as st
else:
    st = require("hypothesis.strategies", "testing")

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid, "softsign": nn.Softsign, "hardtanh": nn.Hardtanh, "relu6": nn.ReLU6,
}  # fmt: skip
"""Activations that `networks` draws from."""


def seeds() -> st.SearchStrategy[int]:
    """Seeds of a generator."""
    return st.integers(0, 2**31 - 1)


def arrays(
    shape: Sequence[int] | st.SearchStrategy[tuple[int, ...]] = (8, 3), bound: float = 1e3, dtype: Any = np.float64
) -> st.SearchStrategy[NDArray[Any]]:
    """Finite floating arrays, chosen number by number, so that ties, zeros and extremes come up.

    Args:
        shape: the shape, or a strategy for it.
        bound: the largest absolute value.
        dtype: of NumPy.
    """
    numpy_strategies = require("hypothesis.extra.numpy", "testing")
    width = np.dtype(dtype).itemsize * 8
    largest = float(np.dtype(dtype).type(bound))
    elements = st.floats(-largest, largest, width=width, allow_nan=False, allow_infinity=False, allow_subnormal=False)
    found: st.SearchStrategy[NDArray[Any]] = numpy_strategies.arrays(dtype, shape, elements=elements)
    return found


@st.composite
def features(draw: st.DrawFn, most_rows: int = 24, most_columns: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    """Rows of features from a normal distribution with a drawn scale and shift: `(n, width)`, n at least 2."""
    n, width = draw(st.integers(2, most_rows)), draw(st.integers(1, most_columns))
    scale, shift = draw(st.sampled_from((1e-3, 1.0, 1e3))), draw(st.sampled_from((0.0, 10.0)))
    generator = torch.Generator().manual_seed(draw(seeds()))
    return (scale * (torch.randn(n, width, generator=generator, dtype=torch.float64) + shift)).to(dtype)


@st.composite
def labelled_features(
    draw: st.DrawFn, most_classes: int = 4, most_of_each: int = 8, most_columns: int = 6
) -> tuple[Tensor, Tensor]:
    """Features and their classes, shuffled; at least two classes, of at least two rows each, of different size."""
    sizes = draw(st.lists(st.integers(2, most_of_each), min_size=2, max_size=most_classes))
    generator = torch.Generator().manual_seed(draw(seeds()))
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    width, apart = draw(st.integers(1, most_columns)), draw(st.sampled_from((0.0, 0.5, 3.0)))
    centres = apart * torch.randn(len(sizes), width, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), width, generator=generator, dtype=torch.float64)
    return centres[labels] + noise, labels


@st.composite
def networks(draw: st.DrawFn, inputs: int = 4, outputs: int = 3, deepest: int = 3) -> nn.Sequential:
    """Small fully connected networks with a drawn depth, widths, activations, norms and biases."""
    sizes = [inputs, *draw(st.lists(st.integers(1, 8), min_size=0, max_size=deepest)), outputs]
    kinds = [ACTIVATIONS[draw(st.sampled_from(sorted(ACTIVATIONS)))] for _ in sizes[2:]]
    seed, norm, bias = draw(seeds()), draw(st.booleans()), draw(st.booleans())
    parts: list[nn.Module] = []
    with seeded(seed):
        for kind, size, following in zip(kinds, sizes[:-2], sizes[1:-1], strict=True):
            parts += [nn.Linear(size, following, bias=bias), *([nn.LayerNorm(following)] if norm else []), kind()]
        return nn.Sequential(*parts, nn.Linear(sizes[-2], outputs))


@st.composite
def state_dicts(draw: st.DrawFn) -> dict[str, Tensor]:
    """The state dict of a small network, in a drawn floating type."""
    dtype = draw(st.sampled_from((torch.float64, torch.float32, torch.bfloat16, torch.float16)))
    return dict(draw(networks()).to(dtype).state_dict())


@st.composite
def subjects(draw: st.DrawFn, most_examples: int = 24) -> Subject:
    """Small networks with labelled data, cut into batches of a drawn size."""
    model, n = draw(networks(inputs=4, outputs=3)), draw(st.integers(2, most_examples))
    generator = torch.Generator().manual_seed(draw(seeds()))
    data = torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)
    return Subject(model, data, batch_size=draw(st.integers(1, n)), name="drawn")
