"""Every instrument keeps the rules; one that breaks a rule is caught, for each rule."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from stratoscope import examine
from stratoscope.capture.activations import Activations
from stratoscope.capture.gradients import TrainingGradients
from stratoscope.capture.needs import Initial, Operator, Previous, Reducer, Streamed
from stratoscope.errors import NotApplicable
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument, NetworkInstrument
from stratoscope.instruments.registry import available
from stratoscope.network.subject import Subject
from stratoscope.record.quantity import Quantity, quantity
from stratoscope.testing import SUBJECTS, check_instrument
from stratoscope.testing.trial import tried

SEVERAL = ("mlp", "cnn", "transformer")
ONE = ("frozen",)
NEED_A_SETTING = {"bottleneck"}
"""Instruments that measure nothing until they are told something; their own tests hold them to the rules."""


@pytest.mark.parametrize("key", sorted(set(available()) - NEED_A_SETTING))
def test_every_instrument_keeps_the_rules(key):
    check_instrument(available()[key], SEVERAL)


@pytest.mark.parametrize("name", sorted(SUBJECTS))
def test_no_instrument_fails_on_any_kind_of_subject(name):
    record = examine(subject=SUBJECTS[name]())
    assert [row for row in record.coverage() if row.status == "failed"] == []
    assert {"performance", "weights"} <= set(record)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm_packed", "tied", "segmentation", "weight_normed", "checkpointed"])
@pytest.mark.parametrize("key", ["performance", "weights"])
def test_the_rules_hold_on_odd_subjects_too(key, name):
    check_instrument(available()[key], (name,))


# -- a good one, and how to spoil it -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Good(LayerInstrument):
    """How large a layer's outputs are on average."""

    key: ClassVar[str] = "good"
    title: ClassVar[str] = "Size of outputs"
    source: ClassVar[str] = "arXiv:1234.56789"
    codes: ClassVar[Mapping[str, str]] = {"GD001": "a layer is loud"}

    limit: float = 0.01

    @property
    def requires(self):
        return {Activations(pooling="flatten")}

    def measure_layer(self, view):
        rows = view[Activations(pooling="flatten")].features.double()
        return {"size": quantity(float(rows.square().mean()), units="1", long_name="mean square of the outputs")}

    def judge(self, measured):
        for name in measured["size"].coords["layer"].values:
            size = float(measured["size"].sel(layer=name).values.reshape(-1)[-1])
            if size > self.limit:
                yield self.finding(
                    "GD001",
                    Outcome.TIP,
                    f"{name} is loud",
                    layer=str(name),
                    do="turn it down",
                    size=size,
                    limit=self.limit,
                )


@dataclass(frozen=True)
class GoodNetwork(NetworkInstrument):
    """How many layers gave an output."""

    key: ClassVar[str] = "good_network"
    title: ClassVar[str] = "Layers"
    source: ClassVar[str] = "doi:10.1000/182"
    codes: ClassVar[Mapping[str, str]] = {}

    @property
    def requires(self):
        return {Activations()}

    def measure(self, seen):
        return {"layers": quantity(len(seen[Activations()]), units="1", long_name="layers that gave an output")}

    def judge(self, measured):
        yield from ()


def spoiled(base=Good, **changes):
    """The good instrument with something else in place of some attributes."""
    made = type(base.__name__, (base,), {"__module__": __name__, "__doc__": base.__doc__, **changes})
    return dataclass(frozen=True)(made)


def gives(**found):
    return spoiled(measure_layer=lambda self, view: found)


def says(finding):
    """Its judgement is what a function makes of the good one's first finding."""

    def judge(self, measured):
        for good in Good.judge(self, measured):
            yield finding(good)

    return spoiled(judge=judge)


def broken(instrument, subjects=ONE):
    """The sentence that it is refused with."""
    with pytest.raises(AssertionError) as caught:
        check_instrument(instrument, subjects)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("instrument", [Good, Good(), Good(limit=3.0), GoodNetwork])
def test_good_ones_pass(instrument):
    check_instrument(instrument, ONE)


def test_a_subject_of_one_s_own_may_be_named():
    made = SUBJECTS["frozen"]()
    check_instrument(Good, [Subject(made.model, made.data, name="mine")])


# -- what it is ----------------------------------------------------------------------------------------------------------


def test_it_is_a_layer_or_network_instrument():
    assert "must be a LayerInstrument or NetworkInstrument" in broken(dict)


def test_it_is_a_dataclass():
    class Plain(NetworkInstrument):
        """Nothing."""

        requires = frozenset()
        measure = judge = lambda self, _: None

    assert "Plain must be a dataclass" in broken(Plain)


def test_it_is_frozen():
    @dataclass
    class Loose(NetworkInstrument):
        """Nothing."""

        requires = frozenset()
        measure = judge = lambda self, _: None

    assert "Loose must be frozen" in broken(Loose)


def test_it_is_default_constructible():
    @dataclass(frozen=True)
    class Asks(Good):
        """Needs a setting."""

        power: float = field(kw_only=True)

    assert "must be default-constructible" in broken(Asks)


def test_it_is_documented():
    assert "must be documented" in broken(spoiled(__doc__=None))


@pytest.mark.parametrize("source", ["a paper", "arXiv:12", "doi:11.1/2", "http://arxiv.org/abs/1234.56789"])
def test_it_has_a_source(source):
    assert f"The source {source!r}" in broken(spoiled(source=source))


@pytest.mark.parametrize("attribute", ["key", "title", "source"])
def test_it_has_a_key_a_title_and_a_source(attribute):
    assert f"Good.{attribute} must be set" in broken(spoiled(**{attribute: ""}))


def test_its_key_is_a_name():
    assert "must be lower-case letters" in broken(spoiled(key="Good One"))


def test_its_key_is_its_own():
    assert "is that of another instrument" in broken(spoiled(key="units"))


def test_its_settings_are_hashable():
    @dataclass(frozen=True)
    class Lists(Good):
        """Has a list."""

        several: list = field(default_factory=list)

    assert "must be hashable" in broken(Lists)


@pytest.mark.parametrize("code", ["GD1", "gd001", "GD000", "001"])
def test_its_codes_have_the_usual_form(code):
    assert f"The code {code!r} of good must be letters and three digits" in broken(spoiled(codes={code: "x"}))


def test_its_codes_have_meanings():
    assert "must have a meaning" in broken(spoiled(codes={"GD001": ""}))


def test_its_codes_begin_alike():
    assert "must begin with the same letters, not GD, GE" in broken(spoiled(codes={"GD001": "x", "GE001": "y"}))


def test_its_codes_begin_like_nobody_else_s():
    assert "begin like those of units" in broken(spoiled(codes={"UN901": "x"}))


def test_its_needs_are_a_set_of_needs():
    assert "must be a set of needs" in broken(spoiled(requires=property(lambda self: [Activations()])))
    assert "must be a set of needs" in broken(spoiled(uses=property(lambda self: {"activations"})))


def test_its_needs_are_compared_by_value():
    class Anew(Streamed):
        def reducer(self, site):
            return None

    assert "must be the same, by value" in broken(spoiled(uses=property(lambda self: {Anew()})))


def test_it_says_what_must_be_there():
    assert "asks for nothing" in broken(spoiled(requires=property(lambda self: set())))


# -- what it measures ----------------------------------------------------------------------------------------------------


def test_it_measures_something():
    def nothing(self, view):
        raise NotApplicable("not today")

    assert "measures nothing on these subjects" in broken(spoiled(measure_layer=nothing))


def test_it_does_not_fail():
    sentence = broken(spoiled(measure_layer=lambda self, view: 1 / 0))
    assert "must measure, or raise NotApplicable" in sentence
    assert "ZeroDivisionError" in sentence


def test_it_gives_quantities():
    assert "size must be made by quantity(...); it is float" in broken(gives(size=3.0))
    bad = spoiled(GoodNetwork, measure=lambda self, seen: [3.0])
    assert "it must give a mapping of quantities, not list" in broken(bad)


def test_its_dims_are_known():
    bad = quantity([1.0], units="1", long_name="x", dims="parsec")
    assert "the dim 'parsec' of size is not known" in broken(gives(size=bad))
    declared = spoiled(
        measure_layer=lambda self, view: {"size": bad}, dims={"parsec": "far"}, judge=lambda *_: iter(())
    )
    check_instrument(declared, ONE)


@pytest.mark.parametrize("attribute", ["units", "long_name"])
def test_its_variables_have_units_and_a_long_name(attribute):
    attrs = {"units": "1", "long_name": "x", attribute: ""}
    assert f"size must have {attribute}" in broken(gives(size=Quantity(np.asarray(1.0), attrs=attrs)))


def test_it_gives_the_same_twice():
    def measure_layer(self, view):
        return {"size": quantity(random.Random().random(), units="1", long_name="x")}

    assert "must give the same bytes under the same seed" in broken(spoiled(measure_layer=measure_layer))


class BatchMax(Reducer):
    """The mean over batches of the largest value in each: it depends on the batches."""

    def __init__(self):
        self.found = []

    def update(self, batch):
        self.found.append(float(batch.rows.max()))

    def merge(self, other):
        self.found += other.found

    def result(self):
        return sum(self.found) / len(self.found)


@dataclass(frozen=True)
class Largest(Streamed):
    """Asks for it."""

    split: str | None = None
    site: str = "output"

    def reducer(self, site):
        return BatchMax()


def test_it_does_not_depend_on_the_batches():
    cut = spoiled(
        requires=property(lambda self: {Largest()}),
        measure_layer=lambda self, view: {"size": quantity(view[Largest()], units="1", long_name="x")},
    )
    sentence = broken(cut)
    assert "must not depend on how the data are cut into batches (torch.float64)" in sentence
    assert "size at (0, data, 0) is" in sentence


def test_it_gives_the_same_in_both_types():
    def measure_layer(self, view):
        rows = view[Activations(pooling="flatten")].features
        return {"size": quantity(float(rows.dtype == torch.float64), units="1", long_name="x")}

    assert "must give in float32 what it gives in float64" in broken(spoiled(measure_layer=measure_layer))


# -- traces --------------------------------------------------------------------------------------------------------------


def meddles(what):
    """Measures, and does something to the model on the way."""

    def measure_layer(self, view):
        if view.layer.params:
            what(view.layer.module)
        return Good.measure_layer(self, view)

    return spoiled(measure_layer=measure_layer)


def hook(module):
    module.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("what", "named"),
    [
        (hook, "hooks of 0"),
        (lambda module: module.weight.data.mul_(2), "param 0.weight"),
        (lambda module: setattr(module.weight, "grad", torch.ones_like(module.weight)), "grad of 0.weight"),
        (lambda module: module.requires_grad_(True), "requires_grad of"),
        (lambda module: module.train(not module.training), "mode of"),
        (lambda module: setattr(module, "seen", True), "attributes of 0"),
        (lambda module: torch.rand(1), "torch's random state"),
        (lambda module: random.random(), "Python's random state"),
        (lambda module: np.random.rand(), "NumPy's random state"),
    ],
)
def test_it_leaves_the_model_as_it_came(what, named):
    sentence = broken(meddles(what))
    assert "must leave the model as it came" in sentence
    assert named in sentence


@dataclass(frozen=True)
class Careless(Operator):
    """Puts a hook on the model and takes it away again if all goes well."""

    when: str = "measure"

    def open(self, bench):
        self.runs(bench)
        return bench

    def runs(self, bench):
        handle = bench.model.register_forward_hook(lambda *_: None)
        bench.run(bench.batch(0))
        handle.remove()


def test_no_hook_is_left_when_the_forward_pass_fails():
    @dataclass(frozen=True)
    class Fragile(GoodNetwork):
        """Counts layers with further passes, of which one may fail."""

        @property
        def requires(self):
            return {Careless()}

        def measure(self, seen):
            for _ in range(3):
                Careless().runs(seen[Careless()])
            return {"layers": quantity(1.0, units="1", long_name="x")}

    assert "must leave no trace when the forward pass raises: hooks of the model changed" in broken(Fragile)


@pytest.mark.parametrize("asks_before", [0, 1])
def test_no_hook_is_left_when_measuring_fails(asks_before):
    def measure_layer(self, view):
        for _ in range(asks_before):
            view.get(Activations(pooling="flatten"))
        handle = view.layer.module.register_forward_hook(lambda *_: None) if view.layer.module else None
        found = Good.measure_layer(self, view)
        if handle:
            handle.remove()
        return found

    assert "must leave no trace when measure raises: hooks of" in broken(spoiled(measure_layer=measure_layer))


def test_weights_alone_are_not_applicable_rather_than_a_failure():
    def measure_layer(self, view):
        if view.layer.module is None:
            raise ValueError("where is the module?")
        return Good.measure_layer(self, view)

    @dataclass(frozen=True)
    class Heavy(spoiled(measure_layer=measure_layer)):
        """Looks at weights, and at the module too."""

        @property
        def requires(self):
            from stratoscope.capture.weights import Weights

            return {Weights()}

        @property
        def uses(self):
            return {Activations(pooling="flatten")}

    sentence = broken(Heavy)
    assert "given weights alone, must raise NotApplicable" in sentence
    assert "where is the module?" in sentence


# -- what it says --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"code": "GD009"}, "the finding GD009 is not among its codes"),
        ({"instrument": "units"}, "speaks for units"),
        ({"source": ""}, "must name the source arXiv:1234.56789"),
        ({"outcome": "tip"}, "must have an Outcome"),
        ({"says": " "}, "must say something"),
        ({"do": ""}, "must say what to do"),
        ({"evidence": {"size": 1.0}}, "must give the limit"),
        ({"evidence": {"limit": np.float64(1)}}, "must have plain numbers"),
        ({"evidence": {"limit": torch.ones(1)}}, "must have plain numbers"),
    ],
)
def test_its_findings_are_complete(change, rule):
    assert rule in broken(says(lambda finding: replace(finding, **change)))


def test_codes_that_only_other_thresholds_give_are_checked_too():
    @dataclass(frozen=True)
    class Quiet(Good):
        """Says nothing at its own threshold."""

        limit: float = 1e3

        def judge(self, measured):
            for finding in super().judge(measured):
                yield replace(finding, code="GD777")

    assert "GD777 is not among its codes" in broken(Quiet)


def test_it_judges_the_same_numbers_the_same_way():
    def judge(self, measured):
        yield self.finding("GD001", Outcome.PASSED, f"drawn: {random.Random().random()}")

    assert "must judge the same numbers the same way" in broken(spoiled(judge=judge))


def test_it_judges_saved_numbers_only():
    """Nothing that it kept while measuring is there when a record is judged by another process."""
    kept = {}

    def measure_layer(self, view):
        kept[view.layer.name] = view[Activations(pooling="flatten")].features
        return Good.measure_layer(self, view)

    def judge(self, measured):
        for features in kept.values():
            yield self.finding("GD001", Outcome.PASSED, "seen", size=float(features.mean()))
        kept.clear()

    assert "must judge from saved numbers alone" in broken(spoiled(measure_layer=measure_layer, judge=judge))


# -- trainings -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EveryStep(NetworkInstrument):
    """The gradient's norm at each step."""

    key: ClassVar[str] = "every"
    title: ClassVar[str] = "Steps"
    source: ClassVar[str] = "arXiv:1234.56789"
    codes: ClassVar[Mapping[str, str]] = {"ES001": "a gradient is large"}
    every_step: ClassVar[bool] = True

    @property
    def requires(self):
        return {TrainingGradients()}

    def measure(self, seen):
        return {"norm": quantity(float(seen[TrainingGradients()].norm.sum()), units="1", long_name="x")}

    def judge(self, measured):
        yield Finding("ES001", "every", None, 1, Outcome.PASSED, "fine", source=self.source)


def test_instruments_of_every_step_are_watched_through_a_training():
    check_instrument(EveryStep, ONE)


def test_a_training_is_left_as_it_would_be():
    def measure(self, seen):
        torch.rand(1)
        return EveryStep.measure(self, seen)

    assert "must leave a training as it would be" in broken(spoiled(EveryStep, measure=measure), ("transformer",))


def test_an_instrument_of_every_step_that_fails_is_caught():
    assert "must measure" in broken(spoiled(EveryStep, measure=lambda self, seen: 1 / 0))


@dataclass(frozen=True)
class Travel(LayerInstrument):
    """How far a layer's outputs have come since the start, and since the last time."""

    key: ClassVar[str] = "travel"
    title: ClassVar[str] = "Travel"
    source: ClassVar[str] = "arXiv:1234.56789"
    codes: ClassVar[Mapping[str, str]] = {"TV001": "a layer has not moved"}
    least: float = 1e-9

    @property
    def requires(self):
        return {Activations(), Initial(Activations())}

    @property
    def uses(self):
        return {Previous(Activations())}

    def measure_layer(self, view):
        now, start = view[Activations()].features.double(), view[Initial(Activations())].features.double()
        last = view.get(Previous(Activations()))
        moved = float("nan") if last is None else float((now - last.features.double()).norm())
        return {
            "travel": quantity(float((now - start).norm()), units="1", long_name="way from the start"),
            "moved": quantity(moved, units="1", long_name="way from the last time"),
        }

    def judge(self, measured):
        last = measured["travel"].isel(step=-1)
        for name in last.coords["layer"].values:
            way = float(last.sel(layer=name).values.reshape(-1)[0])
            if way < self.least:
                yield self.finding(
                    "TV001", Outcome.TIP, f"{name} stands still", layer=str(name), do="wait", way=way, limit=self.least
                )


@pytest.mark.parametrize("name", ["frozen", "cnn"])
def test_instruments_that_look_back_are_watched_through_a_training(name):
    check_instrument(Travel, (name,))


def test_looking_back_gives_the_way_that_the_network_went():
    trial = tried(Travel(), SUBJECTS["frozen"]())
    dims, labels, travel = trial.numbers["travel"]
    moved = trial.numbers["moved"][2]
    assert dims == ("step", "split", "layer")
    assert labels[0] == (0, 9, 18, 27, 36)
    learns = labels[2].index("2")
    assert travel[0].max() == 0
    assert np.isnan(moved[0]).all()
    assert (travel[1:, 0, learns] > 0).all()
    # the first part of the way is the way so far; later parts add up to at least the whole
    assert moved[1, 0, learns] == pytest.approx(travel[1, 0, learns])
    assert np.nansum(moved[:, 0, learns]) >= travel[-1, 0, learns]
    assert travel[:, 0, labels[2].index("0")].max() == 0
