import itertools
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.observe.costs import Costs
from stratoscope.observe.plan import Plan, cadence_of
from stratoscope.observe.schedule import Budget, Schedule


def steps_taken(schedule, last):
    taken = []
    for step in range(1, last + 1):
        if schedule.due(step):
            schedule.done(step)
            taken.append(step)
    return taken


# -- one schedule ----------------------------------------------------------------------------------------------------------


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


@settings(deadline=None, max_examples=25)
@given(total=st.integers(200, 100_000), rounds=st.integers(1, 12))
def test_few_measurements_are_spread_evenly_in_the_logarithm(total, rounds):
    schedule = Schedule(per_decade=1000, steps=total)
    taken, left = [], rounds
    for step in range(1, total + 1):
        if left and schedule.due(step, left):
            schedule.done(step)
            taken.append(step)
            left -= 1
    assert len(taken) == rounds
    # up to rounding to whole steps, each place divides what is left of the training in equal factors
    for number, (before, step) in enumerate(itertools.pairwise([1, *taken])):
        place = before * (total / before) ** (1 / (rounds - number + 1))
        assert step == max(math.ceil(place - 1e-6), before + (number > 0))


@settings(deadline=None, max_examples=25)
@given(total=st.integers(200, 5000), rounds=st.integers(1, 12), every=st.integers(1, 15))
def test_few_measurements_are_spread_evenly_where_they_were_asked_for_in_even_steps(total, rounds, every):
    schedule = Schedule(every=every, steps=total)
    schedule.done(0)
    taken, left = [], rounds
    for step in range(1, total + 1):
        if left and schedule.due(step, left):
            schedule.done(step)
            taken.append(step)
            left -= 1
    gaps = [b - a for a, b in itertools.pairwise([0, *taken, total])]
    assert len(taken) == rounds
    assert max(gaps) - min(gaps) <= 2
    assert min(gaps) >= every - 1


@settings(deadline=None, max_examples=25)
@given(total=st.integers(1, 3000), every=st.one_of(st.none(), st.integers(1, 50)))
def test_what_a_schedule_may_still_ask_for_is_never_more_than_it_says(total, every):
    schedule = Schedule(every, steps=total)
    taken = steps_taken(schedule, total)
    for step in {1, total // 2, total} - {0}:
        assert sum(one > step for one in taken) <= schedule.left(step)
    assert Schedule(every).left(1) == math.inf


# -- the budget ------------------------------------------------------------------------------------------------------------


def test_the_share_is_of_the_rest_of_the_time():
    budget = Budget(0.05)
    budget.add(1.0)
    assert budget.used(21.0) == pytest.approx(0.05)
    assert budget.used(1.0) == math.inf


def test_what_is_earned_is_known_ahead_where_the_length_is():
    known, unknown = Budget(0.1, steps=1000), Budget(0.1)
    for step in range(1, 101):
        for budget in (known, unknown):
            # one step in ten takes long, as where an epoch ends
            budget.passed(step, 2.0 * step + 5.0 * (step // 10))
    assert unknown.earned(250.0) == pytest.approx(25.0)
    assert known.earned(250.0) == pytest.approx(25.0 + 0.1 * 900 * 2.0)
    for step in range(101, 1101):
        known.passed(step, 2.0 * step + 50.0)
    assert known.earned(2250.0) == pytest.approx(225.0)


def test_the_length_is_not_guessed_from_the_first_steps():
    budget = Budget(0.1, steps=1000)
    budget.passed(1, 30.0)
    budget.passed(2, 30.1)
    assert budget.earned(30.1) == pytest.approx(3.01)


# -- what it costs ---------------------------------------------------------------------------------------------------------


def test_the_pass_is_shared_by_those_that_look_at_data():
    costs = Costs(("weights", "units", "probe"), sharing=("units", "probe"))
    taken = costs.note({"weights": 1.0, "units": 1.0, "probe": 2.0}, passing=3.0, total=9.0)
    # two seconds of writing are laid on all three by their seconds
    assert taken == pytest.approx({"weights": 1.5, "units": 3.0, "probe": 4.5})
    assert sum(taken.values()) == pytest.approx(9.0)
    assert costs.round(["weights"]) == pytest.approx(1.5)
    assert costs.round(["units"]) == pytest.approx(4.5)
    assert costs.round(["weights", "units", "probe"]) == pytest.approx(9.0)


def test_the_middle_one_of_the_last_three_rounds_tells_what_the_next_one_takes():
    costs = Costs(("a",))
    for value, expected in ((9.0, 9.0), (1.0, 1.0), (3.0, 3.0), (2.0, 2.0), (50.0, 3.0)):
        costs.note({"a": value}, passing=0.0, total=value)
        assert costs.of("a") == expected
    assert costs.seconds["a"] == 65.0
    again = Costs(("a",))
    again.restore(costs.kept(), costs.seconds)
    assert (again.of("a"), again.seconds["a"]) == (3.0, 65.0)


def test_instruments_that_take_no_time_share_what_there_is():
    costs = Costs(("a", "b"))
    assert costs.note({"a": 0.0, "b": 0.0}, passing=0.0, total=1.0) == {"a": 0.5, "b": 0.5}
    assert costs.note({}, passing=0.0, total=1.0) == {}


# -- the plan, on a clock of its own ---------------------------------------------------------------------------------------


@dataclass
class Run:
    """A training that takes time by rule: what was measured when, and what that took."""

    costs: dict[str, float]
    share: float
    length: int
    pace: float = 1.0
    passing: float = 0.0
    sharing: tuple[str, ...] = ()
    every: int | None = None
    cadence: dict[str, int] = field(default_factory=dict)
    known: bool = False
    concluding: float = 0.0
    beginning: float = 0.0

    def __post_init__(self):
        names = tuple(self.costs)
        self.budget = Budget(self.share, self.length if self.known else None)
        self.book = Costs(names, self.sharing)
        self.plan = Plan(names, self.budget, self.book, self.every, self.cadence)
        self.measured = {name: [] for name in names}
        self.rounds = []
        self.elapsed = self.beginning
        self.budget.add(self.beginning)
        self.worst = 0.0
        self._measure(names, 0, planned=False)
        for step in range(1, self.length + 1):
            self.elapsed += self.pace
            self.budget.passed(step, self.elapsed)
            chosen = self.plan.choose(step, self.elapsed)
            if chosen:
                self._measure(chosen, step)
                ahead = self.share * self.pace * (self.length - step if self.known else 0)
                self.worst = max(self.worst, self.budget.total + self.last - self.share * self.training - ahead)
        self._measure(self.plan.left(self.length), self.length, planned=False)
        self.elapsed += self.concluding
        self.budget.add(self.concluding)

    @property
    def training(self):
        return self.pace * round((self.elapsed - self.budget.total) / self.pace)

    @property
    def last(self):
        """What the end takes."""
        return sum(self.costs.values()) + self.passing * bool(self.sharing) + self.concluding

    @property
    def between(self):
        return {name: [step for step in steps if 0 < step < self.length] for name, steps in self.measured.items()}

    def _measure(self, names, step, planned=True):
        if not names:
            return
        own = {name: self.costs[name] for name in names}
        passing = self.passing if any(name in self.sharing for name in names) else 0.0
        total = sum(own.values()) + passing
        self.plan.done(step, self.book.note(own, passing, total), planned=planned)
        self.elapsed += total
        self.budget.add(total)
        self.rounds.append((step, tuple(names)))
        for name in names:
            self.measured[name].append(step)


NAMES = "abcdefg"
seconds = st.floats(1e-4, 100.0)


@st.composite
def runs(draw, known=None):
    names = NAMES[: draw(st.integers(1, 7))]
    costs = {name: draw(seconds) for name in names}
    sharing = tuple(name for name in names if draw(st.booleans()))
    cadence = {name: draw(st.integers(1, 200)) for name in names if draw(st.integers(0, 3)) == 0}
    full = sum(costs.values())
    return Run(
        costs,
        share=draw(st.sampled_from([0.01, 0.05, 0.2, 1.0])),
        length=draw(st.integers(1, 600)),
        pace=draw(st.floats(0.01, 50.0)),
        passing=draw(st.floats(0.0, 20.0)),
        sharing=sharing,
        every=draw(st.one_of(st.none(), st.integers(1, 100))),
        cadence=cadence,
        known=draw(st.booleans()) if known is None else known,
        concluding=draw(st.floats(0.0, 0.5)) * full,
        beginning=draw(st.floats(0.0, 2.0)),
    )


@settings(deadline=None, max_examples=25)
@given(run=runs())
def test_all_together_stay_within_the_budget(run):
    in_between = any(run.between.values())
    # step 0, the last step and what surrounds them are measured whatever they take; beyond that the budget holds
    assert not in_between or run.budget.total <= run.share * run.training * (1 + 1e-9) + 1e-6
    assert run.worst <= 1e-6 * (1 + run.share * run.training)


@settings(deadline=None, max_examples=25)
@given(run=runs())
def test_everybody_is_measured_at_the_first_and_the_last_step_and_never_twice(run):
    for steps in run.measured.values():
        assert steps[0] == 0
        assert steps[-1] == run.length
        assert steps == sorted(set(steps))


@settings(deadline=None, max_examples=25)
@given(run=runs())
def test_nobody_is_measured_more_often_than_its_cadence(run):
    for name, steps in run.between.items():
        every = run.cadence.get(name, run.every)
        if every is not None:
            assert all(b - a >= every for a, b in itertools.pairwise([0, *steps]))
        else:
            for low in (1, 10, 100):
                # one of the decade before may have been late
                assert sum(low < step <= 10 * low for step in steps) <= 11


@settings(deadline=None, max_examples=15)
@given(costs=st.lists(st.floats(0.01, 50.0), min_size=1, max_size=6), known=st.booleans(), share=st.floats(0.02, 0.5))
def test_nobody_starves(costs, known, share):
    """A training that earns several full rounds for each instrument measures every one of them in between."""
    costs = dict(zip(NAMES, costs, strict=False))
    full = sum(costs.values())
    length = 2000
    earned = 6 * (len(costs) + 2) * full
    run = Run(costs, share, length, pace=earned / share / length, known=known)
    assert min(map(len, run.between.values())) >= 2


def test_one_that_no_budget_pays_for_is_measured_first_and_last_and_holds_nobody_up():
    cheap = dict.fromkeys("abc", 0.1)
    run = Run({**cheap, "d": 60.0}, 0.05, 100_000, pace=0.04, every=2000)
    assert run.measured["d"] == [0, 100_000]
    assert min(len(run.between[name]) for name in "abc") >= 5
    assert run.budget.used(run.elapsed) <= 0.05


def test_instruments_of_like_cost_are_measured_at_common_steps():
    costs = {"a": 0.9, "b": 0.6, "c": 0.5, "d": 0.2, "e": 0.001}
    run = Run(costs, 0.05, 20_000, pace=0.1, passing=1.4, sharing=("a", "b", "c"))
    assert len(run.rounds) >= 10
    assert all(set(names) == set(costs) for _, names in run.rounds)


def test_a_dear_one_takes_part_in_the_rounds_of_the_others():
    run = Run({"a": 0.5, "b": 0.5, "dear": 20.0}, 0.05, 60_000, pace=0.1)
    assert 2 <= len(run.between["dear"]) < len(run.between["a"])
    assert set(run.between["dear"]) <= set(run.between["a"])
    # each has its half of what is earned, but for what it has no use for
    dear, others = 20.0 * len(run.between["dear"]), 1.0 * len(run.between["a"])
    income = 0.05 * 6000 - 2 * 21.0 - 0.5 * 21
    assert dear >= 0.4 * income
    assert others >= 5


def test_a_known_length_is_used_from_the_beginning():
    blind = Run({"a": 2.0}, 0.05, 10_000, pace=0.05)
    ahead = Run({"a": 2.0}, 0.05, 10_000, pace=0.05, known=True)
    assert blind.between["a"][0] > 1500
    assert ahead.between["a"][0] < 20
    factors = [b / a for a, b in itertools.pairwise([*ahead.between["a"], 10_000])]
    assert len(factors) >= 8
    assert max(factors[1:]) / min(factors[1:]) < 1.5
    assert ahead.budget.used(ahead.elapsed) <= 0.05


def test_single_instruments_may_have_a_cadence_of_their_own():
    run = Run({"a": 1e-3, "b": 1e-3}, math.inf, 1000, cadence={"b": 250})
    assert run.measured["b"] == [0, 250, 500, 750, 1000]
    assert len(run.measured["a"]) > 20
    assert cadence_of({"a": 3, "b:x=1": 4}, ["a:y=2", "b:x=1", "b:x=2"]) == {"a:y=2": 3, "b:x=1": 4}


def test_without_a_limit_everything_that_is_due_is_measured():
    run = Run({"a": 1.0, "b": 500.0}, math.inf, 100, every=10)
    assert run.measured == {"a": list(range(0, 101, 10)), "b": list(range(0, 101, 10))}


def test_a_training_that_goes_on_beyond_what_was_said_stays_within_the_budget():
    budget, costs = Budget(0.05, steps=100), Costs(("a",))
    plan, elapsed, taken = Plan(("a",), budget, costs), 0.0, []
    for step in range(401):
        elapsed += 1.0 * (step > 0)
        budget.passed(step, elapsed)
        if step == 0 or plan.choose(step, elapsed):
            plan.done(step, costs.note({"a": 0.5}, 0.0, 0.5), planned=step > 0)
            budget.add(0.5)
            elapsed += 0.5
            taken.append(step)
    assert any(step > 100 for step in taken)
    assert budget.used(elapsed) <= 0.05


def test_conclusions_that_are_known_to_be_dear_are_kept_for():
    costs = Costs(("a",))
    costs.note({"a": 2.0}, 0.0, 2.0)
    plan = Plan(("a",), Budget(0.05), costs)
    assert plan.reserve == pytest.approx(3.0)
    plan.concluding = 5.0
    assert plan.reserve == pytest.approx(7.0)
