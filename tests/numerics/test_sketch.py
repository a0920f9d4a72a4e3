"""The count sketch keeps inner products on average, with the variance that it states."""

import pytest
import torch

from stratoscope.numerics.sketch import count_sketch


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("size", [40, 43])  # with and without padding
def test_inner_products_are_unbiased_with_the_stated_variance(size):
    x, y = gaussian(2, size)
    y = y + 0.5 * x
    products = []
    for seed in range(4000):
        a, b = count_sketch(torch.stack([x, y]), 8, seed=seed)
        products.append(float(a @ b))
    products = torch.tensor(products)
    groups = -(-size // 8)
    stated = (groups - 1) / (8 * groups - 1) * (x @ x * (y @ y) + (x @ y) ** 2 - 2 * (x**2 @ y**2))
    assert products.var().item() == pytest.approx(stated.item(), rel=0.1)
    assert abs(products.mean() - x @ y) < 4 * (stated / 4000) ** 0.5
    plain = (x @ x * (y @ y) + (x @ y) ** 2 - 2 * (x**2 @ y**2)) / 8
    assert stated < plain


def test_it_is_a_linear_map_of_each_row_alone():
    rows = gaussian(6, 500)
    whole = count_sketch(rows, 16, seed=3)
    torch.testing.assert_close(torch.cat([count_sketch(part, 16, seed=3) for part in rows.split(4)]), whole)
    torch.testing.assert_close(count_sketch(2 * rows[:1] + rows[1:2], 16, seed=3), 2 * whole[:1] + whole[1:2])


def test_every_coordinate_goes_to_one_place_with_a_sign():
    matrix = count_sketch(torch.eye(43), 8, seed=0)
    assert torch.equal(matrix.abs().sum(1), torch.ones(43))
    assert matrix.abs().sum(0).max() == 6
    assert {-1.0, 1.0} <= set(matrix.flatten().tolist())


def test_seeds_and_types():
    rows = gaussian(3, 100, dtype=torch.float32)
    assert torch.equal(count_sketch(rows, 10, seed=1), count_sketch(rows, 10, seed=1))
    assert not torch.equal(count_sketch(rows, 10, seed=1), count_sketch(rows, 10, seed=2))
    half = count_sketch(rows.bfloat16(), 10, seed=1)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), count_sketch(rows.bfloat16().float(), 10, seed=1), rtol=1e-2, atol=1e-2)


def test_narrow_rows_come_back_as_they_are_and_blocks_do_not_matter():
    rows = gaussian(3, 10)
    assert torch.equal(count_sketch(rows, 10, seed=0), rows)
    wide = gaussian(5, 2**21, dtype=torch.float32)
    torch.testing.assert_close(count_sketch(wide, 4, seed=0)[4:], count_sketch(wide[4:], 4, seed=0))


def test_no_global_random_numbers_and_a_bad_width():
    state = torch.get_rng_state()
    count_sketch(gaussian(2, 50), 5, seed=0)
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="width=0"):
        count_sketch(gaussian(2, 50), 0, seed=0)


@pytest.mark.parametrize("width", [5, 24, 100])
def test_units_first_is_projected_as_positions_first(width):
    maps = torch.randn(4, 6, 7, generator=torch.Generator().manual_seed(3))
    found = count_sketch(maps.flatten(1), width, seed=4, units=6)
    assert torch.equal(found, count_sketch(maps.mT.flatten(1), width, seed=4))
