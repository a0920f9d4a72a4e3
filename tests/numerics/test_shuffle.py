"""Shuffles of a matrix's entries."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics import shuffle
from stratoscope.numerics.shuffle import shuffled_rows


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def whole(entries, columns, seed=0, **options):
    return torch.cat(list(shuffled_rows(entries, columns, generator=generator(seed), **options)))


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 2**31), drawn=st.booleans())
@settings(deadline=None, max_examples=25)
def test_every_entry_comes_once(rows, columns, seed, drawn):
    entries = torch.arange(rows * columns)
    made = whole(entries, columns, seed, at_once=10**9 if drawn else 0)
    assert made.shape == (rows, columns)
    assert torch.equal(made.flatten().sort().values, entries)


@pytest.mark.parametrize("at_once", [0, 10**9])
def test_blocks_do_not_change_the_order(at_once, monkeypatch):
    entries = torch.arange(90 * 7, dtype=torch.float16)
    plain = whole(entries, 7, at_once=at_once)
    monkeypatch.setattr(shuffle, "_BLOCK", 60)
    monkeypatch.setattr(shuffle, "_CHUNK", 11)
    blocks = list(shuffled_rows(entries, 7, generator=generator(), at_once=at_once))
    assert [len(block) for block in blocks] == [8] * 11 + [2]
    assert torch.equal(torch.cat(blocks), plain)
    assert plain.dtype == torch.float16


@pytest.mark.parametrize("at_once", [0, 10**9])
def test_the_seed_decides(at_once):
    entries = torch.arange(600)
    assert torch.equal(whole(entries, 6, 1, at_once=at_once), whole(entries, 6, 1, at_once=at_once))
    assert not torch.equal(whole(entries, 6, 1, at_once=at_once), whole(entries, 6, 2, at_once=at_once))


@pytest.mark.parametrize("at_once", [0, 10**9])
def test_a_low_rank_matrix_becomes_noise(at_once):
    """After a shuffle the spectrum lies within Marchenko-Pastur's edges; before, one eigenvalue held everything."""
    n, k = 600, 300
    left, right = (torch.randn(size, generator=generator(size), dtype=torch.float64) for size in (n, k))
    low = torch.outer(left, right)
    low /= low.std()
    made = whole(low.flatten() - low.mean(), k, at_once=at_once)
    eigenvalues = torch.linalg.eigvalsh(made.T @ made / n)
    edge = (1 + (k / n) ** 0.5) ** 2
    # the entries have heavier tails than a normal law, so the edge is met from a little above
    assert float(eigenvalues[-1]) < 1.15 * edge
    assert float(torch.linalg.eigvalsh(low.T @ low / n)[-1]) > 50 * edge


@pytest.mark.parametrize("shape", [(400, 256), (50, 2000), (2000, 50)])
def test_the_network_leaves_no_trace_of_place(shape):
    """Place before and after, in rows and in columns, are as independent as those of a uniform shuffle."""
    rows, columns = shape
    n = rows * columns
    made = whole(torch.arange(n), columns, 3, at_once=0)
    row, column = made // columns, made % columns
    here_row, here_column = (torch.arange(n).reshape(shape) // columns, torch.arange(n).reshape(shape) % columns)
    for before in (row, column):
        for after in (here_row, here_column):
            pair = np.corrcoef(before.flatten().double().numpy(), after.flatten().double().numpy())[0, 1]
            assert abs(pair) < 5 / n**0.5
    # how often two neighbours were neighbours before: once in the number of columns or rows, by chance
    together = (row[:, 1:] == row[:, :-1]).double().mean()
    assert abs(float(together) - 1 / rows) < 6 * (1 / rows / n) ** 0.5


def test_places_beyond_32_bits(monkeypatch):
    network = shuffle._network(2**20, 2**12, generator())
    places = torch.tensor([0, 1, 2**32 - 1, 2**31])
    sent = shuffle.moved(places, 2**12, network)
    assert sent.dtype == torch.int64
    assert ((sent >= 0) & (sent < 2**32)).all()
    assert len(set(sent.tolist())) == 4


def test_entries_that_do_not_fill_their_rows():
    with pytest.raises(ValueError, match="7 entries do not fill rows of 2"):
        list(shuffled_rows(torch.arange(7), 2, generator=generator()))
