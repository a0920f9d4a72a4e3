"""Transfer: a planted valley is found and told, noise gets no advice, and nothing is known before it was measured."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.diagnoses.stopping import Course, between, judged_layers, running_best
from stratoscope.diagnoses.stopping_answers import ADVICE, STATES, Answers
from stratoscope.diagnoses.transfer import Transfer
from stratoscope.diagnoses.valley import valley, without_spikes
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Outcome
from stratoscope.instruments.performance import Performance
from stratoscope.instruments.reconstruction import Reconstruction
from stratoscope.network.layers import Catalogue, Layer, Matrix, Param
from stratoscope.observe.diagnosing import diagnose
from stratoscope.observe.settings import Settings
from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity
from stratoscope.record.rows import LayerRow
from stratoscope.testing import check_diagnosis

STEPS = sorted({0, *(round(10 ** (place / 10)) for place in range(43))})
"""As the schedule spaces them: ten in each decade, to step 15,849."""

LAYERS = ["conv", "relu", "pool", "out"]
LEAST, BEST = 126, 7943
"""Where the valley's bottom is planted, and where the classifier is best."""


def fell_and_rose(step, bottom=LEAST):
    return 0.5 + 0.02 * abs(math.log2((1 + step) / (1 + bottom)))


def falls(step):
    return 0.9 - 0.02 * math.log2(1 + step)


def learns(step, best=BEST):
    return 0.7 - 0.03 * abs(math.log2((1 + step) / (1 + best)))


def catalogue():
    layers = {}
    for depth, name in enumerate(LAYERS):
        own = name in ("conv", "out")
        weight = f"{name}.weight"
        kind = {"conv": "conv", "relu": "activation", "pool": "pool", "out": "linear"}[name]
        params = (Param(weight, name, (10, 10)),) if own else ()
        matrices = (Matrix(weight, name, (weight,), "linear", (10, 10), lambda w: w),) if own else ()
        layers[name] = Layer(name, kind, depth, params, matrices)
    return Catalogue(layers)


def number(value, name):
    return quantity(value, units="1", long_name=name)


def along(value, name, layers=("relu", "pool")):
    return quantity([value] * len(layers), units="1", long_name=name, dims="layer", coords={"layer": list(layers)})


def measured(step, error=None, accuracy=None, transfer=None, n=400):
    """What instruments would have written at one step."""
    if error is not None:
        yield Entry("reconstruction", "error", along(error(step), "error"), split="test")
        yield Entry("reconstruction", "error_floor", along(1.0, "floor"), split="test")
        yield Entry("reconstruction", "error", along(0.3, "error"), split="train")
    if accuracy is not None:
        yield Entry("performance", "accuracy", number(accuracy(step), "accuracy"), split="test")
        yield Entry("performance", "accuracy", number(1.0, "accuracy"), split="train")
    if transfer is not None:
        yield Entry("reconstruction", "error", along(0.4, "error"), split="transfer")
        yield Entry("reconstruction", "class_accuracy", along(transfer(step), "accuracy"), split="transfer")
        yield Entry("reconstruction", "n", along(n, "n"), split="transfer")


@pytest.fixture
def recorded():
    """A record of curves over the steps of a training."""
    writers = []

    def make(error=None, accuracy=None, transfer=None, steps=STEPS, n=400):
        writer = RecordWriter.create(None, {"watched": True})
        writers.append(writer)
        writer.write_layers(catalogue())
        for step in steps:
            writer.commit(step, list(measured(step, error, accuracy, transfer, n)))
        return Record.from_writer(writer)

    yield make
    for writer in writers:
        writer.close()


def told(record, **options):
    found = diagnose(record, [Transfer(**options)], Settings()).findings
    return {finding.code: finding for finding in found}


def derived(record, **options):
    return {name: np.asarray(q.values) for name, q in Transfer(**options).derive(record).items()}


def wobble(step, size=0.002, seed=0):
    return size * float(np.random.default_rng([seed, step]).standard_normal())


# -- the advice ---------------------------------------------------------------------------------------------------


def test_a_planted_valley_before_the_best_classifier_is_told(recorded):
    record = recorded(lambda step: fell_and_rose(step) + wobble(step), learns)
    (finding,) = told(record).values()
    assert (finding.code, finding.outcome, finding.layer, finding.step) == ("TA001", Outcome.TIP, None, STEPS[-1])
    evidence = finding.evidence
    assert evidence["valley_low"] <= LEAST <= evidence["valley_high"]
    assert evidence["low"] in (100, 126, 158)
    assert evidence["high"] == BEST
    assert evidence["layer_judged"] == "relu"
    assert evidence["split_judged"] == "test"
    middle = math.sqrt((1 + evidence["low"]) * (1 + BEST)) - 1
    nearest = min(STEPS, key=lambda step: abs(math.log((1 + step) / (1 + middle))))
    assert evidence["stop"] == nearest
    assert evidence["error_ratio"] > 1
    assert "best_transfer" in finding.do
    assert evidence["transfer_gain"] is None


def test_the_ratio_is_that_of_the_errors(recorded):
    record = recorded(fell_and_rose, learns)
    found = derived(record)
    stop = STEPS[np.flatnonzero(np.isfinite(found["stop"]))[-1]] and found["stop"][-1]
    assert found["reconstruction_best"][-1] == LEAST
    assert math.isclose(found["error_ratio"][-1], fell_and_rose(STEPS[-1]) / fell_and_rose(stop))


@pytest.mark.parametrize(
    ("error", "accuracy", "outcome", "state", "words"),
    [
        (falls, learns, Outcome.PASSED, 2, "has not risen"),
        (lambda step: 0.5, learns, Outcome.PASSED, 2, "has not risen"),
        (lambda step: 0.5 + 0.02 * math.log2(1 + step), learns, Outcome.NOT_APPLICABLE, 3, "from the beginning"),
        (fell_and_rose, lambda step: learns(step, 31), Outcome.PASSED, 4, "no later than"),
        (fell_and_rose, None, Outcome.NOT_APPLICABLE, 5, "labels"),
    ],
)
def test_where_there_is_no_advice_the_reason_is_the_answer(recorded, error, accuracy, outcome, state, words):
    def noisy(step):
        return error(step) + wobble(step, 0.0005)

    record = recorded(noisy, accuracy)
    (finding,) = told(record).values()
    assert (finding.code, finding.outcome) == ("TA001", outcome)
    assert finding.says.startswith("No advice: ")
    assert words in finding.says
    found = derived(record)
    assert found["state"][-1] == state
    assert "stop" not in found or np.isnan(found["stop"][-1])


def test_too_few_measurements_are_skipped_and_not_passed(recorded):
    (finding,) = told(recorded(fell_and_rose, learns, steps=STEPS[:6])).values()
    assert finding.outcome is Outcome.SKIPPED
    assert "every=" in finding.do


def test_a_change_that_does_not_count_is_none(recorded):
    def small(step):
        return 0.5 + 0.1 * (fell_and_rose(step) - 0.5)

    record = recorded(small, learns)
    assert told(record)["TA001"].outcome is Outcome.TIP
    assert told(record, rise=0.05)["TA001"].outcome is Outcome.PASSED


def test_a_curve_that_falls_below_its_valley_again_is_in_none(recorded):
    def again(step):
        return fell_and_rose(step, 15) if step < 1000 else 0.4 - 0.02 * math.log2(step / 1000)

    record = recorded(again, learns)
    assert told(record)["TA001"].outcome is Outcome.PASSED
    state = derived(record)["state"]
    assert state[STEPS.index(794)] == ADVICE  # what was known before it fell again
    assert state[STEPS.index(1000)] != ADVICE


def test_the_class_probe_stands_in_where_no_held_out_accuracy_was_measured():
    writer = RecordWriter.create(None)
    writer.write_layers(catalogue())
    for step in STEPS:
        entries = [entry for entry in measured(step, fell_and_rose, learns) if entry.split == "train"]
        probe = Entry("reconstruction", "class_accuracy", along(learns(step), "accuracy"), split="train")
        writer.commit(step, [*entries, probe])
    with writer:
        course = Transfer().course(Record.from_writer(writer))
    assert course.classifier == "a linear probe's accuracy at relu on train"
    assert course.steps[course.classifier_best[-1]] == BEST


def test_what_is_read_must_be_there(recorded):
    with pytest.raises(NotApplicable, match="reconstruction"):
        Transfer().derive(recorded(None, learns))
    with pytest.raises(SettingError, match="layer='head'"):
        Transfer(layer="head").derive(recorded(fell_and_rose, learns))
    assert Transfer(layer="pool").course(recorded(fell_and_rose, learns)).layer == "pool"


def test_numbers_that_are_not_finite_are_as_good_as_not_measured(recorded):
    def broken(step):
        return {0: math.inf, 5: math.nan}.get(step, fell_and_rose(step))

    found = derived(recorded(broken, lambda step: math.nan if step == BEST else learns(step)))
    assert found["state"][-1] == ADVICE
    assert found["classifier_best"][-1] in (6310, 10000)


# -- as it was known ----------------------------------------------------------------------------------------------


def test_what_is_said_of_a_step_was_known_at_it(recorded):
    def error(step):
        return fell_and_rose(step) + wobble(step, 0.005)

    def accuracy(step):
        return learns(step) + wobble(step, 0.01, 1)

    def transfer(step):
        return round(400 * learns(step, 1000) + 400 * wobble(step, 0.01, 2)) / 400

    whole = derived(recorded(error, accuracy, transfer))
    for until in (3, 9, 20, 31, len(STEPS)):
        part = derived(recorded(error, accuracy, transfer, STEPS[:until]))
        for name, values in part.items():
            np.testing.assert_array_equal(values, whole[name][:until], err_msg=f"{name} until {until}")


finite = st.floats(0, 1)
curves = st.integers(1, 25).flatmap(
    lambda size: st.tuples(
        *(st.lists(finite | st.just(math.nan), min_size=size, max_size=size) for _ in range(2)),
        st.lists(st.integers(1, 300), min_size=size, max_size=size).map(lambda gaps: np.cumsum(gaps) - gaps[0]),
    )
)


def course_of(error, accuracy, steps, transfer=None, n=400.0):
    nothing = np.full(len(steps), np.nan)
    transfer = nothing if transfer is None else np.asarray(transfer, float)
    error, accuracy = (np.asarray(values, float) for values in (error, accuracy))
    return Course(
        "relu", "test", "accuracy", tuple(map(int, steps)), error, nothing, accuracy, transfer, np.full(len(steps), n)
    )


@settings(deadline=None, max_examples=25)
@given(curves)
def test_the_step_never_moves_back_and_is_the_nearest_of_those_until_then(drawn):
    error, accuracy, steps = drawn
    course = course_of(error, accuracy, steps)
    known = course.stop[course.stop >= 0]
    assert (np.diff(known) >= 0).all()
    for place in np.flatnonzero(course.stop >= 0):
        until = course.steps[: place + 1]
        least, best = np.nanargmin(error[: place + 1]), np.nanargmax(accuracy[: place + 1])
        assert (course.reconstruction_best[place], course.classifier_best[place]) == (least, best)
        middle = 0.5 * (math.log1p(steps[least]) + math.log1p(steps[best]))
        far = [round(abs(math.log1p(step) - middle), 12) for step in until]
        assert course.stop[place] == far.index(min(far))


def test_equal_values_are_first_reached_where_they_are_first():
    assert running_best(np.array([1.0, 1.0, 2.0, 2.0])).tolist() == [0, 0, 2, 2]
    assert running_best(np.array([])).tolist() == []
    assert running_best(np.array([np.inf, np.nan])).tolist() == [-1, -1]
    assert between([7], 0, 0) == 0


# -- noise --------------------------------------------------------------------------------------------------------


def noise(kind, seed):
    drawn = np.random.default_rng([seed, len(kind)]).standard_normal(len(STEPS))
    if kind == "autoregression":
        for place in range(1, len(drawn)):
            drawn[place] += 0.5 * drawn[place - 1]
    return drawn if kind != "trend" else drawn - 0.2 * np.arange(len(drawn))


@pytest.mark.parametrize("kind", ["white", "autoregression", "trend"])
def test_noise_has_a_valley_in_at_most_one_of_twenty(kind):
    seen = sum(valley(STEPS, noise(kind, seed), 0.0, 0.05).state == "valley" for seed in range(40))
    assert seen <= 2  # of 40; measured over 400: see the diagnosis' page


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["white", "autoregression", "trend"])
def test_whole_runs_of_noise_get_advice_in_at_most_one_of_twenty(kind):
    ever = 0
    for seed in range(60):
        answers = Answers(course_of(noise(kind, seed), np.linspace(0, 1, len(STEPS)), STEPS), 0.0, 0.05)
        ever += any(answers.at(place)["state"] == ADVICE for place in range(len(STEPS)))
    assert ever <= 3


def test_a_probe_that_is_as_good_at_all_steps_is_not_said_to_have_been_better():
    rng, told = np.random.default_rng(0), 0
    for _ in range(200):
        shares = rng.binomial(300, 0.7, len(STEPS)) / 300
        course = course_of(np.full(len(STEPS), np.nan), shares, STEPS, shares, 300.0)
        told += Answers(course, 0.01, 0.05).at(len(STEPS) - 1)["transfer_gain_low"] > 0
    assert told <= 10


# -- a real probe for another task --------------------------------------------------------------------------------


def peaks_at(best, height=0.85, fall=0.02):
    return lambda step: round(400 * (height - fall * abs(math.log2((1 + step) / (1 + best))))) / 400


def test_a_probe_that_is_best_where_the_advice_is_agrees(recorded):
    found = told(recorded(fell_and_rose, learns, peaks_at(1000)))
    assert found["TA001"].outcome is Outcome.TIP
    assert found["TA002"].outcome is Outcome.PASSED
    assert "agrees" in found["TA002"].says
    assert found["TA003"].outcome is Outcome.PASSED  # 8 points of 400 examples, among 44 comparisons
    more = told(recorded(fell_and_rose, learns, peaks_at(1000), n=4000))
    assert more["TA003"].outcome is Outcome.TIP
    assert more["TA003"].evidence["transfer_best"] == 1000
    assert more["TA003"].evidence["first"] < 1000 < more["TA003"].evidence["last"]
    assert math.isclose(more["TA003"].evidence["gain"], 0.08, abs_tol=0.003)


def test_a_probe_that_is_worse_where_the_advice_is_disagrees(recorded):
    found = told(recorded(fell_and_rose, learns, peaks_at(3, fall=0.04)))
    assert found["TA002"].outcome is Outcome.TIP
    assert found["TA002"].evidence["short"] > 0.2
    assert found["TA002"].evidence["transfer_best"] == 3
    assert found["TA003"].outcome is Outcome.TIP


def test_a_probe_speaks_also_where_there_is_no_advice(recorded):
    found = told(recorded(falls, None, peaks_at(30, fall=0.05)))
    assert found["TA001"].outcome is Outcome.NOT_APPLICABLE
    assert "TA002" not in found
    assert found["TA003"].outcome is Outcome.TIP


def test_a_difference_turns_its_sign_with_the_steps():
    course = course_of([0.1] * 2, [0.1] * 2, [0, 1], [0.9, 0.8])
    one, other = course.difference(0, 1), course.difference(1, 0)
    np.testing.assert_allclose(one, [-other[0], -other[2], -other[1]])
    assert one[1] < one[0] < one[2]
    assert np.isnan(course.difference(0, -1)).all()


# -- the layer ----------------------------------------------------------------------------------------------------


def row(name, kind, weights=False, parent="(root)"):
    return LayerRow(name, kind, 0, 10 if weights else 0, parent, {"matrices": [{}] if weights else []})


def test_the_judged_layer_is_the_last_map():
    vgg = [row("0", "conv", True), row("1", "activation"), row("2", "pool"), row("3", "conv", True), row("4", "norm")]
    vgg += [
        row("5", "activation"),
        row("6", "pool"),
        row("7", "other"),
        row("8", "linear", True),
        row("9", "linear", True),
    ]
    assert judged_layers(vgg)[0] == "5"
    blocks = [row(f"{b}.{c}", "conv", True, b) for b in ("b1", "b2", "b3") for c in ("one", "two")]
    for place, name in ((6, "b3"), (4, "b2"), (2, "b1")):
        blocks.insert(place, row(name, "block"))
    assert judged_layers([*blocks, row("pool", "pool"), row("fc", "linear", True)])[0] == "b3"


def test_without_maps_it_is_the_last_layer_before_the_output():
    mlp = [row("0", "linear", True), row("1", "activation"), row("2", "linear", True), row("3", "activation")]
    assert judged_layers([*mlp, row("4", "linear", True)]) == ["3", "2", "1", "0"]
    assert judged_layers([row("0", "linear", True)]) == []


def test_contract():
    check_diagnosis(Transfer, ("mlp",), [Reconstruction(), Performance()])
    assert len(STATES) == 6


# -- spikes -------------------------------------------------------------------------------------------------------


def test_a_decoder_that_fails_now_and_then_hides_no_valley(recorded):
    def failing(step):
        return fell_and_rose(step) + wobble(step) + {20: 5.0, 501: 40.0, STEPS[-1]: 1.0}.get(step, 0.0)

    evidence = told(recorded(failing, learns))["TA001"].evidence
    assert evidence["valley_low"] <= LEAST <= evidence["valley_high"]
    assert evidence["high"] == BEST


@settings(deadline=None, max_examples=25)
@given(st.integers(8, 60), st.integers(0, 10**6))
def test_ordinary_noise_and_monotone_curves_have_no_spikes(size, seed):
    rng = np.random.default_rng(seed)
    steps = np.sort(rng.exponential(1, size))
    np.testing.assert_array_equal(without_spikes(steps)[1:-1], steps[1:-1])
    np.testing.assert_array_equal(without_spikes(-steps)[1:-1], -steps[1:-1])
    kept = without_spikes(rng.uniform(0, 1, 1000))
    assert ((kept >= 0) & (kept <= 1)).all()


def test_a_spike_is_taken_out_wherever_it_stands():
    values = np.random.default_rng(0).standard_normal(30)
    for place in range(len(values)):
        spiked = values.copy()
        spiked[place] += 100
        assert np.abs(without_spikes(spiked)).max() < 10
        assert (without_spikes(spiked) != spiked).sum() <= 2


@pytest.mark.parametrize("norm", [False, True])
def test_where_running_statistics_lag_the_first_steps_are_left_out(norm):
    def error(step):  # the untrained network seems to rebuild best, since its statistics are others
        return 0.3 if step < 20 else fell_and_rose(step)

    layers = dict(catalogue().layers)
    if norm:
        params = (Param("norm.running_mean", "norm", (10,), role="statistic"),)
        layers["norm"] = Layer("norm", "norm", 9, params, ())
    with RecordWriter.create(None, {"watched": True}) as writer:
        writer.write_layers(Catalogue(layers))
        for step in STEPS:
            writer.commit(step, list(measured(step, error, learns)))
        record = Record.from_writer(writer)
        best = derived(record)["reconstruction_best"][-1]
        assert best == (LEAST if norm else 0)
        assert derived(record, settle=0)["reconstruction_best"][-1] == 0
