from itertools import pairwise

import pytest

from stratoscope.charts.colours import DARK_GROUND, LIGHT_GROUND, category, contrast, luminance, ordered, ramp


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("place", range(8))
def test_categories_can_be_seen_on_both_grounds(place, dark):
    assert contrast(category(place, dark=dark), DARK_GROUND if dark else LIGHT_GROUND) >= 3.0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_ordered_series_can_be_seen_and_differ_in_lightness_alone(count, dark):
    shades = [ordered(place, count, dark=dark) for place in range(count)]
    assert all(contrast(shade, DARK_GROUND if dark else LIGHT_GROUND) >= 3.0 for shade in shades)
    greys = [luminance(shade) for shade in shades]
    assert greys == sorted(greys)
    assert len(set(shades)) == count


def test_the_ramp_rises_in_lightness_so_that_it_reads_in_grey():
    greys = [luminance(ramp(share / 20)) for share in range(21)]
    assert all(a < b for a, b in pairwise(greys))
    assert ramp(-1.0) == ramp(0.0)
    assert ramp(2.0) == ramp(1.0)


def test_contrast_agrees_with_known_values():
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
