import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.observe.schedule import Budget, Schedule


def steps_taken(schedule, last):
    taken = []
    for step in range(1, last + 1):
        if schedule.due(step):
            schedule.done(step)
            taken.append(step)
    return taken


def test_every_counts_from_the_last_measurement():
    assert steps_taken(Schedule(every=7), 40) == [1, 8, 15, 22, 29, 36]


@settings(deadline=None, max_examples=25)
@given(per_decade=st.integers(1, 30))
def test_log_spacing_gives_as_many_steps_in_every_decade(per_decade):
    taken = steps_taken(Schedule(per_decade=per_decade), 10_000)
    assert taken == sorted(set(taken))
    for low in (100, 1000):
        assert sum(low < step <= 10 * low for step in taken) == per_decade


def test_a_due_step_that_was_not_affordable_stays_due():
    schedule = Schedule(every=10)
    schedule.done(10)
    assert not schedule.due(19)
    assert schedule.due(20)
    assert schedule.due(23)
    schedule.done(23)
    assert not schedule.due(32)
    assert schedule.due(33)


def test_the_share_is_of_the_rest_of_the_time():
    budget = Budget(0.05)
    budget.add(1.0)
    assert budget.used(21.0) == pytest.approx(0.05)
    assert budget.used(1.0) == math.inf


def test_the_first_measurement_is_not_what_the_next_one_is_expected_to_take():
    budget = Budget(0.05)
    budget.add(4.0, full=True)
    assert budget.next_cost == 2.0
    for cost in (1.0, 0.5, 2.0, 3.0):
        budget.add(cost, full=True)
    assert budget.next_cost == 0.5
    budget.add(3.0, full=True)
    assert budget.next_cost == 2.0
