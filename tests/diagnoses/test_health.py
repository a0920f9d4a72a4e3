"""Health: each fault is named on a series that has it, and not on one that nearly has it."""

import math
from dataclasses import fields

import numpy as np
import pytest

from stratoscope.diagnoses.health import Health
from stratoscope.diagnoses.health_steps import along_depth
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Outcome
from stratoscope.network.layers import Catalogue, Layer, Matrix, Param
from stratoscope.observe.diagnosing import diagnose
from stratoscope.observe.settings import Settings
from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity
from stratoscope.testing import check_diagnosis

WEIGHTS = ["a.weight", "b.weight", "c.weight", "d.weight"]
STEPS = 200
QUIET = (Outcome.PASSED, Outcome.MUTED)


def catalogue(trainable=None, tied=()):
    """Four linear layers, each with a weight and a bias."""
    layers = {}
    for depth, name in enumerate("abcd"):
        wanted = True if trainable is None else trainable.get(name)
        weight, bias = (
            Param(f"{name}.{role}", name, (8, 8), role, wanted, "a.weight" if f"{name}.{role}" in tied else None)
            for role in ("weight", "bias")
        )
        matrices = (Matrix(weight.name, name, (weight.name,), "linear", (8, 8), lambda w: w),)
        layers[name] = Layer(name, "linear", depth, (weight, bias), matrices if weight.name not in tied else ())
    return Catalogue(layers)


def noise(seed=0, size=0.1):
    draws = np.exp(size * np.random.default_rng(seed).normal(size=5 * STEPS))
    return lambda step: float(draws[step])


def healthy(**more):
    """What is recorded of a training that goes well; values are functions of the step."""
    rough = noise()
    norm = {name: lambda step, k=k: 0.5**k * rough(step) for k, name in enumerate(WEIGHTS)}
    ratio = {name: lambda step, k=k: 1e-3 * (1 + k) for k, name in enumerate(WEIGHTS)}
    biases = {f"{name}.bias": (lambda step: 0.1) for name in "abcd"}
    return {
        "loss": lambda step: (0.1 + 2 * math.exp(-step / 50)) * rough(step),
        "gradient_norm": norm | biases,
        "update_ratio": ratio | biases,
        "decay_rate": lambda step: 1e-5,
        **more,
    }


def measured(**more):
    """Full measurements of the weights; values are functions of the step."""
    norms = {name: lambda step: 1 + step / STEPS for name in WEIGHTS}
    return {
        "param_norm": norms,
        "effective_rank": dict.fromkeys(WEIGHTS, lambda step: 7 - step / STEPS),
        "sv_median": dict.fromkeys(WEIGHTS, lambda step: 1.0),
        **more,
    }


def accuracies(train, test, half=0.02):
    """The accuracy of each split; values are functions of the step."""
    return {"train": train, "test": test, "half": half}


def _value(by, step, dim):
    if callable(by):
        return quantity(float(by(step)), units="1", long_name="x")
    values = {name: how(step) for name, how in by.items()}
    values = {name: value for name, value in values.items() if value is not None}
    return quantity(list(values.values()), units="1", long_name="x", dims=dim, coords={dim: list(values)})


def entries(step, training, weights, performance, every):
    """What is written at one step."""
    found = []
    if step and training is not None:
        names = [name for name in training if name == "loss" or step % every == 0]
        found += [Entry("training", name, _value(training[name], step, "param")) for name in names]
    if step % 20:
        return found
    for name, by in (weights or {}).items():
        found.append(Entry("weights", name, _value(by, step, "param" if name == "param_norm" else "matrix")))
    for split in ("train", "test") if performance else ():
        accuracy, half = performance[split](step), performance["half"]
        for name, value in (("", accuracy), ("_low", accuracy - half), ("_high", accuracy + half)):
            number = quantity(value, units="1", long_name="accuracy")
            found.append(Entry("performance", f"accuracy{name}", number, split=split))
    return found


@pytest.fixture
def recorded():
    """A record of a training."""
    writers = []

    def make(training=None, weights=None, performance=None, steps=STEPS, layers=None, every=1):
        writer = RecordWriter.create(None)
        writers.append(writer)
        writer.write_layers(layers or catalogue())
        for step in range(steps + 1):
            if found := entries(step, training, weights, performance, every):
                writer.commit(step, found)
        return Record.from_writer(writer)

    yield make
    for writer in writers:
        writer.close()


def judged(record, **settings):
    return [f for f in diagnose(record, [Health(**settings)], Settings()).findings if f.outcome not in QUIET]


def spoken(record, **settings):
    return {f.code: f for f in judged(record, **settings)}


def test_contract():
    check_diagnosis(Health)


# -- silence -------------------------------------------------------------------------------------------------------------


def test_a_healthy_training_is_passed_in_everything_that_was_looked_at(recorded):
    record = recorded(healthy(), measured(), accuracies(lambda s: 0.5 + s / 500, lambda s: 0.5 + s / 600))
    found = diagnose(record, [Health()], Settings()).findings
    assert {f.outcome for f in found} == {Outcome.PASSED}
    assert {f.code for f in found} == set(Health.codes) - {"HE010"}


def test_what_was_not_recorded_is_not_called_passed(recorded):
    found = diagnose(recorded({"loss": healthy()["loss"]}), [Health()], Settings()).findings
    assert {f.code for f in found} == {"HE003"}


def test_a_short_training_is_not_judged(recorded):
    (finding,) = judged(recorded(healthy(loss=lambda step: 10.0**step), measured(), steps=19))
    assert (finding.code, finding.outcome) == ("HE010", Outcome.SKIPPED)
    assert (finding.evidence["steps"], finding.evidence["limit"]) == (19, 20)
    assert "HE010" not in spoken(recorded(healthy(), steps=20))


def test_an_examination_is_no_training(recorded):
    with pytest.raises(NotApplicable, match="training"):
        Health().derive(recorded(None, measured(), steps=1))


def test_settings_out_of_range_are_refused():
    with pytest.raises(SettingError, match="at least 1 stretch"):
        Health(blocks=0)
    with pytest.raises(SettingError, match="window of 20"):
        Health(window=5)


def test_steps_that_were_not_recorded_change_no_verdict(recorded):
    assert spoken(recorded(healthy(), measured(), every=7)) == {}
    slow = {name: (lambda step, k=k: 1e-6 if k == 0 else 1e-3) for k, name in enumerate(WEIGHTS)}
    assert set(spoken(recorded(healthy(update_ratio=slow), every=7))) == {"HE006"}


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_from_some_step_on_says_nothing_more_here(recorded, broken):
    good = healthy()
    norm = {name: (lambda step, f=f: f(step) if step <= 120 else broken) for name, f in good["gradient_norm"].items()}
    late = healthy(loss=lambda step: good["loss"](step) if step <= 120 else broken, gradient_norm=norm)
    assert spoken(recorded(late)) == {}
    never = healthy(loss=lambda step: broken, gradient_norm={name: (lambda step: broken) for name in norm})
    assert set(spoken(recorded(never))) <= {"HE010"}


def test_a_long_training_is_summed_up(recorded):
    found = diagnose(recorded(healthy(), measured()), [Health(blocks=10)], Settings())["health"]
    assert found["loss_level"].coords["step"].values.tolist() == list(range(20, 201, 20))
    np.testing.assert_allclose(found["norm_left"].values, 1)


# -- gradients -----------------------------------------------------------------------------------------------------------


def falling(factor, late=None):
    """Gradients that fall by a factor at each layer on the way back; from the middle of the run on perhaps by another."""
    rough = noise(1)

    def of(k):
        return lambda step: (factor if late is None or step < STEPS // 3 else late) ** (3 - k) * rough(step)

    return {name: of(k) for k, name in enumerate(WEIGHTS)}


def test_gradients_that_vanish(recorded):
    finding = spoken(recorded(healthy(gradient_norm=falling(0.01))))["HE001"]
    assert finding.outcome is Outcome.ISSUE
    assert finding.evidence["ratio"] == pytest.approx(1e-6, rel=1e-6)
    assert finding.evidence["limit"] == 1e-3
    assert finding.evidence["names"] == "a.weight, b.weight"
    assert "HE001" not in spoken(recorded(healthy(gradient_norm=falling(0.2))))


def test_gradients_that_recovered_are_no_issue(recorded):
    assert "HE001" not in spoken(recorded(healthy(gradient_norm=falling(0.01, late=0.5))))


def test_gradients_that_explode_along_depth_even_once(recorded):
    base = falling(0.8)
    once = {
        name: (lambda step, f=f, k=k: f(step) * (1e4 if step == 3 and k == 0 else 1))
        for k, (name, f) in enumerate(base.items())
    }
    assert "HE002" in spoken(recorded(healthy(gradient_norm=falling(20))))
    finding = spoken(recorded(healthy(gradient_norm=once)))["HE002"]
    assert finding.evidence["ratio"] > finding.evidence["limit"] == 100
    assert "HE002" not in spoken(recorded(healthy(gradient_norm=falling(3))))


def test_gradients_that_burst(recorded):
    rough = noise(2)
    burst = dict.fromkeys(WEIGHTS, lambda step: rough(step) * (1000 if step in (100, 101, 102) else 1))
    finding = spoken(recorded(healthy(gradient_norm=burst)))["HE002"]
    assert finding.evidence["burst"] > 100
    once = dict.fromkeys(WEIGHTS, lambda step: rough(step) * (1000 if step == 100 else 1))
    assert "HE002" not in spoken(recorded(healthy(gradient_norm=once)))


def test_large_gradients_of_a_network_that_knows_its_data_by_heart_are_no_bursts(recorded):
    rough = noise(3, 2.0)
    norm = dict.fromkeys(WEIGHTS, lambda step: 1.0 if step < 30 else 1e-3 * rough(step))
    assert "HE002" not in spoken(recorded(healthy(gradient_norm=norm)))


@pytest.mark.parametrize("seed", range(3))
def test_the_line_through_gradients_is_that_of_least_squares(seed):
    rng = np.random.default_rng(seed)
    norms, depths = np.exp(rng.normal(size=(20, 6))), np.array([2, 0, 0, 5, 7, 9])
    norms[3, 0], norms[4, 1], norms[5, 5] = 0, np.nan, np.inf
    line, ends = along_depth(norms, depths)
    for row, one, two in zip(norms, line, ends, strict=True):
        good = np.isfinite(row) & (row > 0)
        points = [
            (place, np.log(row[good & (depths == depth)]).mean())
            for place, depth in enumerate(np.unique(depths))
            if (good & (depths == depth)).any()
        ]
        x, y = map(np.array, zip(*points, strict=True))
        assert one == pytest.approx(math.exp(-np.polyfit(x, y, 1)[0] * (x[-1] - x[0])))
        assert two == pytest.approx(math.exp(y[0] - y[-1]))


def test_scaling_all_gradients_changes_no_ratio():
    norms = np.exp(np.random.default_rng(0).normal(size=(5, 4)))
    one, two = along_depth(norms, np.arange(4)), along_depth(1e6 * norms, np.arange(4))
    np.testing.assert_allclose(one, two)


def test_one_depth_has_no_ratio():
    assert np.isnan(along_depth(np.ones((3, 2)), np.zeros(2, int))).all()
    assert np.isnan(along_depth(np.zeros((3, 2)), np.arange(2))).all()


# -- loss and rate -------------------------------------------------------------------------------------------------------


def test_a_spike_of_the_loss(recorded):
    base = healthy()["loss"]
    finding = spoken(recorded(healthy(loss=lambda step: 5.0 if step == 150 else base(step))))["HE003"]
    assert (finding.step, finding.outcome) == (150, Outcome.ISSUE)
    assert finding.evidence["height"] > finding.evidence["limit"] == 8
    assert finding.evidence["loss"] == 5
    again = healthy(loss=lambda step: 5.0 if step in (100, 150) else base(step))
    assert spoken(recorded(again))["HE003"].evidence["stretches"] == 2


def test_a_spike_that_undoes_little_is_none(recorded):
    quiet = noise(4, 0.01)

    def loss(step):
        return (2 * math.exp(-step / 50) + 0.1) * quiet(step) + (0.2 if step == 150 else 0)

    assert "HE003" not in spoken(recorded(healthy(loss=loss)))
    assert "HE003" in spoken(recorded(healthy(loss=loss)), undone=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_spike(recorded, seed):
    rng = np.random.default_rng(seed)
    draws = rng.exponential(size=STEPS + 1)
    assert spoken(recorded({"loss": lambda step: draws[step]})) == {}
    draws = rng.normal(size=STEPS + 1)
    assert spoken(recorded({"loss": lambda step: draws[step]})) == {}


def crawling(loss):
    return healthy(update_ratio=dict.fromkeys(WEIGHTS, lambda step: 1e-5), loss=loss)


def test_a_learning_rate_that_is_too_low(recorded):
    finding = spoken(recorded(crawling(lambda step: 2.3 - 1e-4 * step)))["HE004"]
    assert finding.outcome is Outcome.TIP
    assert finding.evidence["path"] == pytest.approx(STEPS * 1e-5)


def test_small_steps_that_bring_the_loss_down_are_no_fault(recorded):
    assert "HE004" not in spoken(recorded(crawling(lambda step: 2 * math.exp(-step / 100))))


def test_the_way_counts_steps_that_were_not_recorded(recorded):
    group = diagnose(recorded(crawling(lambda step: 2.0), every=10), [Health()], Settings())["health"]
    assert group["path"].sel(param="a.weight").item() == pytest.approx(STEPS * 1e-5, rel=0.06)


def test_a_network_without_gradients_is_not_told_to_train_faster(recorded):
    dead = crawling(lambda step: 2.3) | {"gradient_norm": dict.fromkeys(WEIGHTS, lambda step: 0.0)}
    assert "HE004" not in spoken(recorded(dead))


# -- layers --------------------------------------------------------------------------------------------------------------


def without(*names):
    """The records of a training in which some params have no gradient."""
    base = healthy()
    for key in ("gradient_norm", "update_ratio"):
        base[key] = {name: f for name, f in base[key].items() if name not in names}
    return base


def test_a_frozen_layer_is_a_tip_and_a_forgotten_one_an_issue(recorded):
    record = recorded(without("b.weight", "b.bias"), layers=catalogue({"a": True, "b": False, "c": True, "d": True}))
    finding = spoken(record)["HE005"]
    assert (finding.outcome, finding.evidence["names"]) == (Outcome.TIP, "b.weight, b.bias")
    finding = spoken(recorded(without("b.weight")))["HE005"]
    assert (finding.outcome, finding.layer) == (Outcome.ISSUE, "b.weight")
    both = judged(recorded(without("a.weight", "b.weight"), layers=catalogue({"a": False, "b": True})))
    assert [f.outcome for f in both] == [Outcome.ISSUE, Outcome.TIP]


def test_a_tied_param_is_trained_where_it_was_met_first(recorded):
    assert spoken(recorded(without("d.weight"), layers=catalogue(tied=("d.weight",)))) == {}


def test_a_param_that_starts_at_zero_and_stays_there_was_updated(recorded):
    base = healthy()
    base["update_ratio"]["b.bias"] = lambda step: math.nan
    assert "HE005" not in spoken(recorded(base))


def test_params_of_another_name_are_not_called_frozen(recorded):
    base = healthy()
    for key in ("gradient_norm", "update_ratio"):
        base[key] = {f"module.{name}": f for name, f in base[key].items()}
    assert "HE005" not in spoken(recorded(base))


def test_many_frozen_params_are_one_finding(recorded):
    names = [f"{name}.{role}" for name in "abc" for role in ("weight", "bias")]
    (finding,) = judged(recorded(without(*names), layers=catalogue(dict.fromkeys("abcd", False))))
    assert finding.evidence["never"] == 6
    assert "and 3 more" in finding.says


def test_a_stalled_layer(recorded):
    base = healthy()
    base["update_ratio"]["b.weight"] = lambda step: 1e-6 if step > STEPS // 3 else 1e-3
    finding = spoken(recorded(base))["HE006"]
    assert (finding.outcome, finding.layer) == (Outcome.TIP, "b.weight")
    assert finding.evidence["speed"] < finding.evidence["limit"] == 0.01
    base["update_ratio"]["b.weight"] = lambda step: 1e-6 if step < STEPS // 3 else 1e-3
    assert "HE006" not in spoken(recorded(base))


def test_a_layer_whose_gradient_vanishes_is_not_called_stalled_as_well(recorded):
    base = healthy(gradient_norm=falling(0.01))
    base["update_ratio"]["a.weight"] = lambda step: 1e-7
    base["gradient_norm"] |= {f"{name}.bias": (lambda step: 0.1) for name in "abcd"}
    assert set(spoken(recorded(base))) == {"HE001"}


def shrinking(rate):
    return measured(param_norm=dict.fromkeys(WEIGHTS, lambda step: math.exp(-rate * step)))


def test_weights_that_decay_away(recorded):
    lost = healthy(loss=lambda step: 2.3, decay_rate=lambda step: 0.02)
    finding = spoken(recorded(lost, shrinking(0.02)))["HE007"]
    assert finding.outcome is Outcome.ISSUE
    assert finding.evidence["norm_left"] == pytest.approx(math.exp(-4))
    assert finding.evidence["decay_alone"] == pytest.approx(math.exp(-4), rel=0.03)
    assert finding.evidence["explained"] == pytest.approx(1, abs=0.02)


def test_weights_that_shrink_while_the_loss_is_good_are_no_fault(recorded):
    assert "HE007" not in spoken(recorded(healthy(decay_rate=lambda step: 0.02), shrinking(0.02)))


def test_weights_that_shrink_without_decay_are_not_blamed_on_it(recorded):
    lost = healthy(loss=lambda step: 2.3, decay_rate=lambda step: 1e-5)
    assert "HE007" not in spoken(recorded(lost, shrinking(0.02)))


def test_weights_that_were_dead_before_they_decayed_are_not_blamed_on_it(recorded):
    dead = dict.fromkeys(WEIGHTS, lambda step: 1.0 if step < 10 else 0.0)
    lost = healthy(loss=lambda step: 2.3, decay_rate=lambda step: 0.02, gradient_norm=dead)
    assert "HE007" not in spoken(recorded(lost, shrinking(0.02)))


def ranks(left, middle):
    one = WEIGHTS[1]
    return measured(
        effective_rank={
            name: (lambda s, n=name: 7 - (1 - left) * 7 * s / STEPS if n == one else 7.0) for name in WEIGHTS
        },
        sv_median={name: (lambda s, n=name: 1 - (1 - middle) * s / STEPS if n == one else 1.0) for name in WEIGHTS},
    )


def test_a_rank_that_collapses(recorded):
    finding = spoken(recorded(healthy(), ranks(0.2, 0.1)))["HE008"]
    assert (finding.outcome, finding.layer) == (Outcome.TIP, "b.weight")
    assert finding.evidence["rank_left"] == pytest.approx(0.2)
    assert finding.evidence["most"] == pytest.approx(7)
    assert "HE008" not in spoken(recorded(healthy(), ranks(0.6, 0.1)))


def test_one_direction_that_grows_is_no_collapse(recorded):
    assert "HE008" not in spoken(recorded(healthy(), ranks(0.2, 1.0)))


# -- what it learns ------------------------------------------------------------------------------------------------------


def peak(step):
    """A held-out accuracy that is best at step 100."""
    return 0.8 - 0.002 * abs(step - 100)


def test_labels_that_are_learned_by_heart(recorded):
    record = recorded(healthy(), None, accuracies(lambda s: 0.4 + s / 400, peak))
    finding = spoken(record)["HE009"]
    assert (finding.outcome, finding.split) == (Outcome.ISSUE, "test")
    assert finding.evidence["fall"] == pytest.approx(0.2)
    assert list(finding.evidence)[:2] == ["fall", "limit"]  # by these two the worst of several splits is found
    assert finding.evidence["best_step"] == 100
    assert finding.evidence["train_gain"] == pytest.approx(0.25)
    assert "HE009" not in spoken(record, accuracy_fall=0.3)


def test_a_fall_within_the_intervals_or_of_the_training_data_too_is_something_else(recorded):
    assert "HE009" not in spoken(recorded(healthy(), None, accuracies(lambda s: 0.4 + s / 400, peak, half=0.2)))
    assert "HE009" not in spoken(recorded(healthy(), None, accuracies(peak, peak)))


# -- thresholds ----------------------------------------------------------------------------------------------------------


def test_findings_are_made_again_from_what_was_derived_with_other_thresholds(recorded):
    derived = diagnose(recorded(healthy(), measured()), [Health()], Settings())["health"]
    strict = Health(vanish=10.0, explode=1e-3, spike=0.5, undone=-1.0, short_path=9.0, hardly_fell=1.0, stalled=9.0)
    found = {f.code for f in strict.judge(derived) if f.outcome not in QUIET}
    assert found == {"HE001", "HE002", "HE003", "HE004"}  # of HE006 nothing is left to say


def test_every_limit_is_a_setting():
    assert {field.name for field in fields(Health)} >= {
        "vanish", "explode", "spike", "undone", "short_path", "hardly_fell", "stalled", "shrunk", "useless",
        "rank_left", "accuracy_fall",
    }  # fmt: skip
