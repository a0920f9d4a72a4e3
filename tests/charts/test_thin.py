import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stratoscope.charts.sparkline import BROKEN, spark_path, sparkline
from stratoscope.charts.thin import kept_columns, kept_points

curves = arrays(np.float64, st.integers(1, 400), elements=st.floats(-1e6, 1e6) | st.just(np.nan) | st.just(np.inf))


@given(curves, st.integers(4, 60))
@settings(deadline=None, max_examples=25)
def test_thinning_keeps_extremes_ends_and_gaps(y, limit):
    kept = kept_points(y, limit)
    assert kept[0] == 0
    assert kept[-1] == len(y) - 1
    assert (np.diff(kept) > 0).all()
    finite = y[np.isfinite(y)]
    left = y[kept][np.isfinite(y[kept])]
    if len(finite):
        assert left.min() == finite.min()
        assert left.max() == finite.max()
    assert np.isfinite(y[kept]).all() == np.isfinite(y).all()
    assert len(kept) <= max(1.5 * limit, len(y) if len(y) <= limit else 0) + 2


def test_every_bucket_keeps_its_own_spike():
    y = np.zeros(10_000)
    spikes = np.arange(50, 10_000, 100)
    y[spikes] = 1.0
    assert set(spikes) <= set(kept_points(y, 200))


def test_columns_show_what_stands_out_and_what_is_broken():
    values = np.full((2, 1000), 0.5)
    values[0, 777], values[1, 123] = 0.9, np.nan
    grid, columns = kept_columns(values, 50)
    assert grid.shape == (2, 50)
    assert grid[0].max() == 0.9
    assert np.isnan(grid[1]).sum() == 1
    assert columns[0] == 0
    same, every = kept_columns(values, 1000)
    assert same is values
    assert len(every) == 1000


@given(curves, st.integers(1, 20))
@settings(deadline=None, max_examples=25)
def test_a_sparkline_fits_and_shows_what_is_broken(y, width):
    text = sparkline(y, width)
    assert len(text) == min(width, len(y))
    assert (BROKEN in text) == (not np.isfinite(y).all())


def test_a_sparkline_has_its_ends_at_the_extremes():
    assert sparkline(np.linspace(0, 1, 8)) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.full(3, 2.0)) == "▁▁▁"
    assert sparkline(np.array([1.0, 10.0, 100.0]), log=True)[1] in "▄▅"
    assert sparkline(np.empty(0)) == ""


def test_a_spark_path_has_gaps_and_stays_inside():
    path = spark_path(np.array([0.0, 1.0, np.nan, 3.0, 2.0]), 40, 10)
    assert path.count("M") == 2
    assert spark_path(np.array([np.nan, 1.0])) == ""
    assert spark_path(np.array([-1.0, 2.0, 3.0]), log=True).count("L") == 2
