"""Curves along training, as claims read them."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.studies.claim import Evidence, decide
from stratoscope.studies.curves import Curves, vertex
from stratoscope.studies.runs import StudyRuns


class Written:
    """A run whose one curve is written down, on two splits."""

    def __init__(self, seed, steps, values):
        self.spec, self.steps, self.values = {"seed": seed}, steps, values

    def array(self, key, variable):
        assert (key, variable) == ("group", "number")
        both = np.stack([self.values, self.values - 9], axis=1)
        return xr.DataArray(both, dims=("step", "split"), coords={"step": self.steps, "split": ["test", "train"]})


def read(rows, steps=(0, 1, 2, 4, 8)):
    runs = StudyRuns([Written(seed, list(steps), np.array(row, dtype=float)) for seed, row in enumerate(rows)])
    return Curves.of(runs, "group", "number", split="test")


def test_one_row_a_seed_over_the_logarithm_of_the_step():
    found = read([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]])
    assert found.seeds == (0, 1)
    assert found.places.tolist() == pytest.approx([0, 1, np.log2(3), np.log2(5), np.log2(9)])
    assert found.mean.tolist() == [1, 2, 3, 4, 5]
    assert found.told("x") == {"x at 0": 1, "x at 1": 2, "x at 2": 3, "x at 4": 4, "x at 8": 5}


def test_runs_of_other_steps_are_not_mixed():
    runs = StudyRuns([Written(0, [0, 1], np.zeros(2)), Written(1, [0, 2], np.zeros(2))])
    with pytest.raises(ValueError, match="too many values"):
        Curves.of(runs, "group", "number", split="test")


def test_the_choice_for_a_seed_does_not_see_its_own_curve():
    found = read([[0, 9, 0, 0, 0], [0, 0, 0, 7, 0], [0, 0, 0, 5, 0]])
    assert int(found.of_others(0).argmax()) == 3
    assert found.of_others(0).tolist() == [0, 0, 0, 6, 0]
    assert read([[1, 2, 3, 4, 5]]).of_others(0).tolist() == [1, 2, 3, 4, 5]  # one seed has no others


def test_noise_gains_nothing_at_a_step_that_others_choose_and_much_at_its_own():
    noise = torch.randn(300, 5, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    fair, flattered = [], []
    for values in noise:
        found = Curves(np.arange(13.0), values, tuple(range(5)))
        chosen = np.array([int(found.of_others(place).argmax()) for place in range(5)])
        fair.append(found.at(chosen) - values[:, -1])
        flattered.append(values.max(1) - values[:, -1])
    assert abs(np.mean(fair)) < 0.1
    assert np.mean(flattered) > 1.5
    held = [
        np.mean([decide(Evidence(dict(enumerate(map(float, one))), "gain")).result == "held" for one in gains])
        for gains in (fair, flattered)
    ]
    assert held[0] < 0.1  # seeds choose for each other, so somewhat more than 2.5 %
    assert held[1] > 0.5


def test_values_are_read_at_the_measured_step_that_is_nearest():
    found = read([[10, 11, 12, 13, 14], [20, 21, 22, 23, 24]])
    index = found.nearest(np.log2([1 + 0.2, 1 + 7.0]))
    assert index.tolist() == [0, 4]
    assert found.at(index).tolist() == [10, 24]


@settings(deadline=None, max_examples=25)
@given(
    places=st.lists(st.floats(-5, 5), min_size=3, max_size=9, unique_by=lambda x: round(x, 1)).map(sorted),
    at=st.floats(-6, 6), scale=st.floats(0.1, 10),
)  # fmt: skip
def test_the_vertex_of_a_parabola_is_found_whatever_the_places(places, at, scale):
    places = np.array(places)
    found = vertex(places, -scale * (places - at) ** 2)
    inside = int(((places - at) ** 2).argmin()) not in (0, len(places) - 1)
    assert places[0] <= found <= places[-1]
    if inside:
        assert found == pytest.approx(at, abs=1e-6)


def test_an_end_or_a_flat_top_is_taken_as_it_is():
    assert vertex(np.arange(4.0), np.array([3.0, 2.0, 1.0, 0.0])) == 0
    assert vertex(np.arange(4.0), np.array([0.0, 1.0, 2.0, 3.0])) == 3
    assert vertex(np.arange(4.0), np.zeros(4)) == 0
    assert read([[3, 1, 0, 1, 2]]).best(least=True) == pytest.approx(read([[-3, -1, 0, -1, -2]]).best())
