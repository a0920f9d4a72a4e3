"""CrossScatter: one pass, merged passes and plain matrices give the same."""

import math
import os

import pytest
import torch

from stratoscope.numerics.cross_scatter import CrossScatter
from stratoscope.numerics.similarity import linear_cka, procrustes

SEED = 1000 * int(os.environ.get("STRATOSCOPE_TEST_SEED", "0"))


def streams(n=60, d=4, e=6, dtype=torch.float64, far=100.0):
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = torch.randn(n, e, generator=generator, dtype=torch.float64) ** 3
    y[:, : min(d, e)] += 2 * x[:, : min(d, e)]
    return (x + far).to(dtype), (y - far).to(dtype)


def scattered(x, y, cuts):
    scatter = CrossScatter()
    for start, stop in zip([0, *cuts], [*cuts, len(x)], strict=True):
        scatter.update(x[start:stop], y[start:stop])
    return scatter


def close(one, other, tolerance=1e-9):
    assert one.n == other.n
    for a, b in (
        *zip(one.means, other.means, strict=True),
        *zip(one.covariances, other.covariances, strict=True),
        (one.cross_covariance, other.cross_covariance),
    ):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    for name in ("debiased", "biased", "null_biased"):
        torch.testing.assert_close(getattr(one.cka(), name), getattr(other.cka(), name), rtol=tolerance, atol=tolerance)
    assert one.procrustes().distance == pytest.approx(other.procrustes().distance, abs=tolerance)
    assert one.procrustes().null == pytest.approx(other.procrustes().null, abs=1e-6)


def test_it_holds_the_plain_moments():
    x, y = streams()
    scatter = scattered(x, y, [7, 8, 40])
    assert scatter.n == 60
    joint = torch.cov(torch.cat([x, y], 1).T, correction=0)
    torch.testing.assert_close(scatter.means[0], x.mean(0))
    torch.testing.assert_close(scatter.covariances[0], joint[:4, :4])
    torch.testing.assert_close(scatter.covariances[1], joint[4:, 4:])
    torch.testing.assert_close(scatter.cross_covariance, joint[:4, 4:])


@pytest.mark.parametrize(("d", "e"), [(4, 6), (1, 1), (70, 90)])
def test_it_gives_what_all_rows_at_once_give(d, e):
    x, y = streams(d=d, e=e)
    scatter, whole = scattered(x, y, [1, 2, 33]), linear_cka(x, y)
    for name in ("debiased", "biased", "null_biased"):
        assert float(getattr(scatter.cka(), name)) == pytest.approx(float(getattr(whole, name)), abs=1e-9)
    assert scatter.cka().null_sd == whole.null_sd
    assert math.isnan(float(scatter.cka().standard_error))
    assert scatter.procrustes().distance == pytest.approx(procrustes(x, y).distance, abs=1e-7)
    assert scatter.procrustes().null == pytest.approx(procrustes(x, y).null, abs=1e-6)


def test_two_half_passes_merged_are_one_pass():
    x, y = streams()
    one, other = scattered(x[:23], y[:23], [5]), scattered(x[23:], y[23:], [1, 20])
    kept = other.cross_covariance.clone()
    one.merge(other)
    close(one, scattered(x, y, []))
    torch.testing.assert_close(other.cross_covariance, kept, rtol=0, atol=0)
    empty = CrossScatter()
    empty.merge(one)
    empty.merge(CrossScatter())
    close(empty, one)


def test_float32_rows_are_summed_in_float64():
    x, y = streams(dtype=torch.float32)
    close(scattered(x, y, list(range(1, 60))), scattered(x.double(), y.double(), []))


def test_empty_batches_and_half_precision():
    x, y = streams(far=0.0)
    scatter = scattered(x.half(), y.half(), [0, 0, 30, 30])
    assert scatter.n == 60
    assert float(scatter.cka().debiased) == pytest.approx(float(linear_cka(x.half(), y.half()).debiased), abs=1e-5)


def test_a_stream_with_itself_and_a_constant_one():
    x, _ = streams(far=0.1)
    itself = scattered(x, 3 * x + 1, [10])
    assert float(itself.cka().debiased) == pytest.approx(1)
    assert itself.procrustes().distance == 0
    constant = scattered(x, torch.full((60, 2), 0.1, dtype=torch.float32), [10, 30])
    assert float(constant.cka().debiased) == float(constant.cka().biased) == 0
    assert constant.procrustes().distance == pytest.approx(math.sqrt(2))


def test_what_cannot_be_used_is_refused():
    x, y = streams()
    with pytest.raises(ValueError, match="no rows yet"):
        CrossScatter().cka()
    with pytest.raises(ValueError, match="At least 4 examples"):
        scattered(x[:3], y[:3], []).cka()
    with pytest.raises(ValueError, match="belong together"):
        CrossScatter().update(x, y[:-1])
    with pytest.raises(ValueError, match=r"widths \(4, 6\); there came \(4, 5\)"):
        scattered(x, y, []).update(x, y[:, :5])
    x[3, 3] = math.nan
    broken = scattered(x, y, [10])
    for measure in (broken.cka, broken.procrustes):
        with pytest.raises(ValueError, match="NaN or infinite"):
            measure()
