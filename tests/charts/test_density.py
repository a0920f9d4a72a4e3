"""Spectra with the laws that were fitted to them: areas, places and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stratoscope import inspect
from stratoscope.charts.build import charts_of
from stratoscope.charts.json import to_json
from stratoscope.charts.svg import to_svg
from stratoscope.charts.values import Line, Rule


def area(line):
    return float(np.nansum(np.nan_to_num(line.y[:-1]) * np.diff(line.x)))


@pytest.fixture(scope="module")
def charts():
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(256, 512, generator=draw)
    spiked = noise + 60 * torch.outer(
        torch.nn.functional.normalize(torch.randn(256, generator=draw), dim=0),
        torch.nn.functional.normalize(torch.randn(512, generator=draw), dim=0),
    )
    small = torch.randn(4, 4, generator=draw)
    record = inspect({"noise.weight": noise, "spiked.weight": spiked, "small.weight": small}, only=["spectrum"])
    return {chart.title.removeprefix("Spectrum of "): chart for chart in charts_of(record) if chart.kind == "density"}


def test_a_picture_for_each_matrix_that_has_enough(charts):
    assert set(charts) == {"noise.weight", "spiked.weight"}


def test_the_density_of_all_eigenvalues_is_one(charts):
    for chart in charts.values():
        assert area(chart.marks[0]) == pytest.approx(1.0, abs=1e-6)
        assert (np.diff(chart.marks[0].x) > 0).all()


def test_the_law_of_noise_lies_over_noise(charts):
    chart = charts["noise.weight"]
    histogram, law = (mark for mark in chart.marks if isinstance(mark, Line))
    assert area(law) == pytest.approx(1.0, abs=0.02)
    middle = np.interp(histogram.x[4:-4], law.x, np.nan_to_num(law.y))
    assert np.abs(histogram.y[4:-4] / middle - 1).max() < 0.5
    assert chart.series == ("eigenvalues", "noise (Marchenko-Pastur)")
    assert "0 stand above" in chart.caption


def test_a_spike_stands_right_of_the_edge(charts):
    chart = charts["spiked.weight"]
    (edge,) = (mark for mark in chart.marks if isinstance(mark, Rule))
    assert edge.upright
    histogram = chart.marks[0]
    assert histogram.x[-1] > edge.value
    assert "1 stand above" in chart.caption


def test_every_renderer_draws_it(charts):
    for chart in charts.values():
        assert to_svg(chart).startswith("<svg")
        assert to_json(chart)["kind"] == "density"
