"""The phase timeline: planted turns are found where they are, noise has none, and theories that disagree are told so."""

import math
import re

import numpy as np
import pytest

from stratoscope.diagnoses.theories.base import Answer
from stratoscope.diagnoses.timeline import Timeline
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Outcome
from stratoscope.instruments.information import Information
from stratoscope.instruments.spectrum import EigenvalueSpectrum
from stratoscope.instruments.training import Training
from stratoscope.network.layers import Catalogue, Layer, Matrix, Param
from stratoscope.numerics.spectral_phase import PHASES
from stratoscope.observe.diagnosing import diagnose
from stratoscope.observe.settings import Settings
from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity
from stratoscope.testing import check_diagnosis

STEPS = (0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
X = np.log2(1 + np.array(STEPS))


def catalogue(names):
    layers = {}
    for depth, name in enumerate(names):
        weight, bias = f"{name}.weight", f"{name}.bias"
        params = (Param(weight, name, (128, 128)), Param(bias, name, (128,), "bias"))
        matrices = (Matrix(weight, name, (weight,), "linear", (128, 128), lambda w: w),)
        layers[name] = Layer(name, "linear", depth, params, matrices)
    return Catalogue(layers)


def bent(at, before, after, start=0.0):
    """A line with a bend at a step, over the places of `STEPS`."""
    place = math.log2(1 + at)
    return start + before * np.minimum(X, place) + after * np.maximum(X - place, 0.0)


def noise(seed, size, deviation=0.02):
    return np.random.default_rng(seed).normal(0.0, deviation, size)


def information(curves, labels=None, silent=None):
    """`I(X;T)` of each layer along `STEPS`."""
    found = {("information", "information_x"): curves}
    silent = {} if silent is None else silent
    found["information", "uninformative"] = {name: silent.get(name, np.zeros(len(STEPS))) for name in curves}
    if labels is not None:
        found["information", "information_y_debiased"] = labels
    return found


def reconstruction(curves, floor=1.0):
    """The error of each layer along `STEPS`."""
    return {
        ("reconstruction", "error"): curves,
        ("reconstruction", "error_floor"): {name: np.full(len(STEPS), floor) for name in curves},
    }


@pytest.fixture
def recorded():
    """Records of curves over layers, phases of matrices, and signal-to-noise ratios."""
    writers = []

    def make(*measured, split="test", layers=None, spectra=None, ratios=None, steps=STEPS):
        writer = RecordWriter.create(None)
        writers.append(writer)
        parts = [part if isinstance(part, tuple) else (split, part) for part in measured]
        names = {name for _, part in parts for curves in part.values() for name in curves}
        names |= {name.rpartition(".")[0] for name in {**(spectra or {}), **(ratios or {})}}
        writer.write_layers(catalogue(layers or sorted(names)))
        for place, step in enumerate(steps):
            entries = [
                Entry(key, name, along({layer: values[place] for layer, values in curves.items()}, name), split=where)
                for where, part in parts
                for (key, name), curves in part.items()
            ]
            if spectra:
                entries.append(
                    Entry("spectrum", "phase", phases({name: said[place] for name, said in spectra.items()}))
                )
            writer.commit(step, [entry for entry in entries if entry.quantity.values.size])
        for step, signals in windows(ratios or {}):
            for name, values in (("gradient_mean", signals), ("gradient_deviation", dict.fromkeys(signals, 1.0))):
                writer.append(step, [Entry("training", name, of_params(values, name))])
        writer.flush()
        return Record.from_writer(writer)

    yield make
    for writer in writers:
        writer.close()


def along(values, name):
    kept = {layer: value for layer, value in values.items() if value is not None}
    return quantity(list(kept.values()), units="1", long_name=name, dims="layer", coords={"layer": list(kept)})


def phases(said):
    kept = {name: phase for name, phase in said.items() if phase is not None}
    return quantity(
        np.array([PHASES.index(phase) for phase in kept.values()], dtype=np.int64), units="1", long_name="phase",
        dims="matrix", coords={"matrix": list(kept)}, flag_values=list(range(len(PHASES))),
        flag_meanings=" ".join(PHASES),
    )  # fmt: skip


def of_params(values, name):
    return quantity(list(values.values()), units="1", long_name=name, dims="param", coords={"param": list(values)})


def windows(ratios):
    """For each full window of 32 steps, the ratio of each param: a function of the step."""
    last = max(STEPS)
    return [(step, {name: ratio(step) for name, ratio in ratios.items()}) for step in range(32, last + 1, 32)] * bool(
        ratios
    )


def crossing(at, seed=0, slope=0.7, deviation=0.2):
    """A ratio that crosses 1 at a step."""
    draw = np.random.default_rng(seed)
    return lambda step: math.exp(-slope * (math.log2(1 + step) - math.log2(1 + at)) + draw.normal(0.0, deviation))


class Told:
    """What was derived of one layer by one theory."""

    def __init__(self, group, layer, theory):
        self.group, self.where = group, {"layer": layer, "theory": theory}
        self.answer = self.number("answer")
        self.turn, self.low, self.high = (self.number(name) for name in ("turn", "turn_low", "turn_high"))
        self.p = self.number("turn_p")

    def number(self, name):
        """The last value of a variable; NaN where there is none."""
        if name not in self.group:
            return math.nan
        return float(self.group[name].isel(step=-1).sel(self.where))

    @property
    def reason(self):
        """Why, in words."""
        return self.group["reason"].attrs["flag_meanings"][int(self.number("reason"))]

    @property
    def letters(self):
        """Its phases as signs, at `STEPS`."""
        if "phase" not in self.group:
            return "." * len(STEPS)
        array = self.group["phase"].sel(self.where)
        if set(array.coords["step"].values.tolist()) <= set(STEPS):
            array = array.reindex(step=list(STEPS))
        return "".join("." if math.isnan(code) else array.attrs["letters"][int(code)] for code in array.values)


def told(record, layer, theory, **settings):
    return Told(diagnose(record, [Timeline(**settings)], Settings())["timeline"], layer, theory)


def spoken(record, *codes, **settings):
    found = diagnose(record, [Timeline(**settings)], Settings()).findings
    return [finding for finding in found if finding.code in codes]


RISES_AND_FALLS = bent(64, 0.5, -0.4, start=3.0)
FALLS_AND_RISES = bent(128, -0.02, 0.03, start=0.6)


# -- information ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [16, 64, 256])
def test_compression_begins_where_it_was_planted(recorded, at):
    found = told(recorded(information({"conv": bent(at, 0.5, -0.4, 3.0) + noise(at, len(X))})), "conv", "information")
    assert found.answer == Answer.TURNS
    assert found.low <= at <= found.high
    assert at / 1.5 < found.turn < at * 1.5
    assert found.p <= 0.05
    place = STEPS.index(at)
    assert found.letters[:place] == "F" * place
    assert found.letters[place + 2 :] == "C" * (len(STEPS) - place - 2)
    assert found.reason.startswith("it falls by ")


def test_what_rises_all_along_has_no_second_phase(recorded):
    found = told(recorded(information({"conv": 3 + 0.5 * X + noise(1, len(X))})), "conv", "information")
    assert found.answer == Answer.ONE_PHASE
    assert found.letters == "F" * len(STEPS)
    assert found.reason.startswith("it fits, and is not shown to fall after (noise bends as clearly in ")
    assert math.isnan(found.turn)
    assert found.p > 0.05


def test_labels_that_are_learned_are_fitting_too(recorded):
    x = bent(64, 0.0, -0.5, start=6.0) + noise(2, len(X))
    labels = bent(64, 0.4, 0.0) + noise(3, len(X))
    found = told(recorded(information({"conv": x}, {"conv": labels})), "conv", "information")
    assert found.answer == Answer.TURNS
    assert found.letters[0] == "F"
    assert found.letters[-1] == "C"
    without = told(recorded(information({"conv": x})), "conv", "information")
    assert without.answer == Answer.ONLY_SECOND
    assert without.letters[0] == "-"
    assert without.letters[-1] == "C"


def test_what_falls_from_the_start_is_compression_when_labels_are_learned(recorded):
    x = 9 - 0.5 * X + noise(4, len(X))
    labels = bent(64, 0.4, 0.0) + noise(5, len(X))
    found = told(recorded(information({"conv": x}, {"conv": labels})), "conv", "information")
    assert found.answer == Answer.TURNS
    assert found.low <= 64 <= found.high
    assert (found.letters[0], found.letters[-1]) == ("F", "C")
    alone = told(recorded(information({"conv": x})), "conv", "information")
    assert alone.answer == Answer.ONLY_SECOND
    assert alone.letters == "C" * len(STEPS)


def test_a_fall_before_any_fitting_is_no_second_phase(recorded):
    found = told(recorded(information({"conv": bent(64, -0.5, 0.5, 6.0) + noise(14, len(X))})), "conv", "information")
    assert (found.letters[0], found.letters[-1]) == ("C", "F")
    assert found.answer == Answer.ONE_PHASE
    assert found.reason == "it fits, and is not shown to fall after"
    assert math.isnan(found.turn)


def test_at_its_ceiling_it_says_nothing(recorded):
    full = np.ones(len(STEPS))
    found = told(recorded(information({"conv": RISES_AND_FALLS}, silent={"conv": full})), "conv", "information")
    assert found.answer == Answer.SILENT
    assert found.letters == "." * len(STEPS)
    assert "at their ceiling at 20 of 20 steps" in found.reason
    (finding,) = spoken(recorded(information({"conv": RISES_AND_FALLS}, silent={"conv": full})), "TL004")
    assert finding.outcome is Outcome.SKIPPED
    assert (finding.layer, finding.split, finding.evidence["theory"]) == ("conv", "test", "information")


def test_points_at_the_ceiling_are_left_out_and_the_others_are_not(recorded):
    silent = (np.arange(len(STEPS)) < 6).astype(float)
    x = np.where(silent == 1, 10.0, bent(128, 0.5, -0.4, 3.0)) + noise(6, len(X))
    found = told(recorded(information({"conv": x}, silent={"conv": silent})), "conv", "information")
    assert found.letters[:6] == "." * 6
    assert found.answer == Answer.TURNS
    assert found.low <= 128 <= found.high


def test_less_than_the_least_is_no_phase(recorded):
    record = recorded(information({"conv": bent(64, 0.01, -0.01, 3.0) + noise(7, len(X), 1e-4)}))
    assert told(record, "conv", "information").letters == "-" * len(STEPS)
    settings = {"theories": (("information", "least", 0.001),)}
    assert told(record, "conv", "information", **settings).answer == Answer.TURNS


# -- reconstruction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_the_error_turns_where_it_was_planted_whatever_its_unit(recorded, scale):
    error = scale * (FALLS_AND_RISES + noise(8, len(X), 0.003))
    found = told(recorded(reconstruction({"conv": error}, floor=scale)), "conv", "reconstruction")
    assert found.answer == Answer.TURNS
    assert found.low <= 128 <= found.high
    assert set(found.letters) == {"\\", "/"}
    assert re.fullmatch(r"the error rises by \d+\.\d% of the mean image's", found.reason)


def test_an_error_that_only_falls_has_no_second_phase(recorded):
    error = bent(32, -0.05, 0.0, start=0.6) + noise(9, len(X), 0.003)
    found = told(recorded(reconstruction({"conv": error})), "conv", "reconstruction")
    assert found.answer == Answer.ONE_PHASE
    assert found.reason.startswith("the error falls, and is not shown to rise after")
    rising = told(recorded(reconstruction({"conv": 0.3 + 0.03 * X})), "conv", "reconstruction")
    assert rising.answer == Answer.ONLY_SECOND
    assert rising.letters == "/" * len(STEPS)


def test_constant_errors_do_not_move(recorded):
    found = told(recorded(reconstruction({"conv": np.zeros(len(X))}, floor=0.0)), "conv", "reconstruction")
    assert (found.answer, found.letters) == (Answer.ONE_PHASE, "-" * len(STEPS))


def test_where_nothing_can_be_rebuilt_nothing_is_said(recorded):
    measured = reconstruction({"conv": 1 + noise(10, len(X))})
    measured["reconstruction", "uninformative"] = {"conv": np.ones(len(X))}
    found = told(recorded(measured), "conv", "reconstruction")
    assert found.answer == Answer.SILENT
    assert "better than by its mean" in found.reason


# -- spectrum -----------------------------------------------------------------------------------------------------------


def spectrum_of(*runs):
    """Phases along `STEPS`: pairs of a name and how often it comes; the last fills up."""
    said = [name for name, count in runs for _ in range(count)]
    return said + [said[-1]] * (len(STEPS) - len(said))


def test_the_spectrum_turns_when_it_leaves_noise_for_good(recorded):
    said = spectrum_of(("random-like", 9), ("bleeding-out", 3), ("bulk+spikes", 3), ("heavy-tailed-fat", 1))
    found = told(recorded(spectra={"fc.weight": said}), "fc", "spectrum")
    assert found.answer == Answer.TURNS
    assert (found.turn, found.low, found.high) == (STEPS[9], STEPS[8], STEPS[9])
    assert found.letters == "R" * 9 + "b" * 3 + "s" * 3 + "H" * 5
    assert found.reason == "it ends as heavy-tailed"


def test_one_measurement_makes_no_phase(recorded):
    said = spectrum_of(
        ("random-like", 5), ("bulk+spikes", 1), ("random-like", 4), ("bleeding-out", 9), ("bulk-decay", 1)
    )
    found = told(recorded(spectra={"fc.weight": said}), "fc", "spectrum")
    assert found.letters == "R" * 10 + "b" * 10
    assert found.turn == STEPS[10]


def test_noise_to_the_end_and_learning_from_the_start(recorded):
    noise_like = told(recorded(spectra={"fc.weight": spectrum_of(("random-like", 1))}), "fc", "spectrum")
    assert noise_like.answer == Answer.ONE_PHASE
    back = spectrum_of(("random-like", 4), ("bleeding-out", 5), ("random-like", 3))
    found = told(recorded(spectra={"fc.weight": back}), "fc", "spectrum")
    assert found.answer == Answer.ONE_PHASE
    assert "after it had been beyond" in found.reason
    trained = told(recorded(spectra={"fc.weight": spectrum_of(("bulk+spikes", 1))}), "fc", "spectrum")
    assert trained.answer == Answer.ONLY_SECOND
    orthogonal = told(recorded(spectra={"fc.weight": spectrum_of(("flat", 6), ("bulk+spikes", 1))}), "fc", "spectrum")
    assert orthogonal.turn == STEPS[6]


def test_small_matrices_say_nothing_and_why(recorded):
    found = told(recorded(spectra={"fc.weight": spectrum_of(("too-small", 1))}), "fc", "spectrum")
    assert (found.answer, found.reason) == (Answer.SILENT, "the matrix is too small for a phase")


def test_of_several_matrices_the_most_advanced_speaks_and_all_are_told(recorded):
    spectra = {
        "attn.q": spectrum_of(("random-like", 5), ("bleeding-out", 1)),
        "attn.v": spectrum_of(("random-like", 9), ("bulk-decay", 1)),
    }
    found = told(recorded(spectra=spectra), "attn", "spectrum")
    assert found.letters == "R" * 5 + "b" * 4 + "d" * 11
    assert found.turn == STEPS[5]
    assert "its matrices differ: attn.q bleeding-out, attn.v bulk-decay" in found.reason


# -- gradient -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [300, 500, 1000])
def test_the_gradient_crosses_where_it_was_planted(recorded, at):
    record = recorded(ratios={"fc.weight": crossing(at)})
    found = told(record, "fc", "gradient")
    assert found.answer == Answer.TURNS
    assert found.low <= at <= found.high
    assert found.letters.strip(".").startswith("D")
    assert found.letters.strip(".").endswith("~")
    # alone, its own blocks are the columns
    steps = diagnose(record, [Timeline()], Settings())["timeline"]["phase"].coords["step"].values
    assert set(steps.tolist()) <= set(record.steps)


def test_the_crossing_lies_in_its_interval_nearly_always(recorded):
    ratios = {f"fc{seed}.weight": crossing(400, seed, deviation=0.5) for seed in range(40)}
    group = diagnose(recorded(ratios=ratios), [Timeline()], Settings())["timeline"]
    found = [Told(group, f"fc{seed}", "gradient") for seed in range(40)]
    turned = [one for one in found if one.answer == Answer.TURNS]
    assert len(turned) >= 36
    assert sum(one.low <= 400 <= one.high for one in turned) >= 0.9 * len(turned)


def test_neither_side_of_one_is_no_phase(recorded):
    draws = {f"fc{seed}.weight": crossing(1, seed, slope=0.0, deviation=0.5) for seed in range(60)}
    group = diagnose(recorded(ratios=draws), [Timeline()], Settings())["timeline"]
    turned = [Told(group, f"fc{seed}", "gradient").answer == Answer.TURNS for seed in range(60)]
    assert sum(turned) <= 3


def test_noise_from_the_first_window_and_drift_to_the_last(recorded):
    noisy = told(recorded(ratios={"fc.weight": lambda step: 0.1}), "fc", "gradient")
    assert noisy.answer == Answer.ONLY_SECOND
    assert set(noisy.letters) <= {"~", "."}
    drifting = told(recorded(ratios={"fc.weight": lambda step: 10.0}), "fc", "gradient")
    assert drifting.answer == Answer.ONE_PHASE
    assert set(drifting.letters) <= {"D", "."}
    still = told(recorded(ratios={"fc.weight": lambda step: 0.0}), "fc", "gradient")
    assert still.answer == Answer.ONLY_SECOND


def test_biases_do_not_speak_and_all_weights_of_a_layer_speak_together(recorded):
    ratios = {"fc.weight": lambda step: 0.1, "fc.bias": lambda step: 100.0}
    assert told(recorded(ratios=ratios), "fc", "gradient").answer == Answer.ONLY_SECOND


def test_few_windows_say_nothing(recorded, monkeypatch):
    record = recorded(
        ratios={"fc.weight": lambda step: math.nan if step > 160 else 3.0},
        spectra={"fc.weight": spectrum_of(("random-like", 1))},
    )
    found = told(record, "fc", "gradient")
    assert (found.answer, found.reason) == (Answer.SILENT, "5 full windows; 8 are needed")


# -- all of them together -------------------------------------------------------------------------------------------------


def everything(at_information, at_reconstruction, layers=("conv",)):
    """Two theories that turn at steps."""
    x = {name: bent(at_information, 0.5, -0.4, 3.0) + noise(n, len(X)) for n, name in enumerate(layers)}
    error = {
        name: bent(at_reconstruction, -0.03, 0.03, 0.6) + noise(50 + n, len(X), 0.002) for n, name in enumerate(layers)
    }
    return information(x) | reconstruction(error)


def test_all_theories_stand_side_by_side(recorded):
    record = recorded(
        everything(64, 64), spectra={"conv.weight": spectrum_of(("random-like", 5), ("bulk+spikes", 1))},
        ratios={"conv.weight": crossing(500)},
    )  # fmt: skip
    group = diagnose(record, [Timeline()], Settings())["timeline"]
    phase = group["phase"]
    assert phase.dims == ("step", "layer", "theory")
    assert phase.coords["theory"].values.tolist() == ["information", "reconstruction", "spectrum", "gradient"]
    # the many steps of the gradient make no columns
    assert phase.coords["step"].values.tolist() == list(STEPS)
    assert phase.attrs["looked_at"] == {"information": "test", "reconstruction": "test"}
    assert {phase.attrs["flag_meanings"][int(code)] for code in np.unique(phase.values[~np.isnan(phase.values)])} == {
        "fitting", "compression", "falling", "rising", "random-like", "bulk+spikes", "drift", "diffusion",
    }  # fmt: skip
    assert all(Told(group, "conv", theory).answer == Answer.TURNS for theory in phase.coords["theory"].values)


def test_where_the_others_looked_seldom_the_gradient_has_columns_of_its_own(recorded):
    seldom = reconstruction({"conv": FALLS_AND_RISES})
    record = recorded(seldom, ratios={"conv.weight": crossing(500)}, steps=(0, 2048))
    group = diagnose(record, [Timeline()], Settings())["timeline"]
    # phases of gradients are shown at the ends of their blocks
    steps = group["phase"].coords["step"].values.tolist()
    assert len(steps) > 5
    assert set(steps) <= set(record.steps)
    assert Told(group, "conv", "gradient").answer == Answer.TURNS
    assert Told(group, "conv", "reconstruction").reason == "2 measured steps; 8 are needed"


def test_turns_that_do_not_meet_are_one_finding_for_all_layers(recorded):
    layers = [f"conv{n}" for n in range(6)]
    (finding,) = [f for f in spoken(recorded(everything(16, 512, layers)), "TL001", "TL002") if f.wants_action]
    assert (finding.code, finding.outcome, finding.layer) == ("TL001", Outcome.TIP, None)
    assert finding.evidence["count"] == finding.evidence["of"] == 6
    assert finding.evidence["gap_in_doublings"] > finding.evidence["limit"] == 0.0
    assert finding.evidence["information_high"] < finding.evidence["reconstruction_low"]
    assert "turns from fitting to compression at step" in finding.says
    assert "turns from falling to rising at step" in finding.says
    assert finding.evidence["information_split"] == "test"
    assert "name the theory" in finding.do


def test_how_far_apart_is_a_setting(recorded):
    record = recorded(everything(16, 512))
    assert [f.outcome for f in spoken(record, "TL001")] == [Outcome.TIP]
    assert spoken(record, "TL001")[0].layer == "conv"
    assert [f.outcome for f in spoken(record, "TL001", apart=10.0)] == [Outcome.PASSED]


def test_turns_that_meet_are_told_too(recorded):
    findings = spoken(recorded(everything(64, 64, ["conv1", "conv2"])), "TL001", "TL002")
    assert [finding.outcome for finding in findings] == [Outcome.PASSED, Outcome.PASSED]
    assert findings[0].says.startswith("At all 2 layers with two turns their intervals meet; at conv1 the information")
    assert findings[0].evidence["gap_in_doublings"] <= 0


def test_a_turn_that_another_theory_does_not_find(recorded):
    measured = information({"conv": RISES_AND_FALLS + noise(11, len(X))}) | reconstruction(
        {"conv": bent(2048, -0.03, 0.0, 0.6) + noise(12, len(X), 0.002)}
    )
    (finding,) = [f for f in spoken(recorded(measured), "TL001", "TL002") if f.wants_action]
    assert (finding.code, finding.layer) == ("TL002", "conv")
    assert finding.evidence["steps_after"] >= finding.evidence["limit"] == 3
    assert "reconstruction finds no second phase" in finding.says
    assert not [f for f in spoken(recorded(measured), "TL002", after=100) if f.wants_action]
    (none,) = spoken(recorded(measured), "TL003")
    assert (none.outcome, none.evidence["theory"]) == (Outcome.PASSED, "reconstruction")
    assert none.says.startswith(
        "Reconstruction finds no second phase at conv: the error falls, and is not shown to rise after"
    )


def test_a_theory_that_stopped_looking_before_the_turn_is_not_held_against_another(recorded):
    early = {"conv": np.where(np.arange(len(X)) < 10, bent(2048, -0.03, 0.0, 0.6) + noise(12, len(X), 0.002), np.nan)}
    measured = information({"conv": bent(256, 0.5, -0.4, 3.0) + noise(11, len(X))}) | reconstruction(early)
    found = spoken(recorded(measured), "TL001", "TL002")
    assert not [finding for finding in found if finding.wants_action]


def test_what_is_thrown_away_and_found_again(recorded):
    assert spoken(recorded(everything(64, 64)), "TL003", "TL004") == []


@pytest.mark.parametrize(
    ("split", "wanted", "chosen"), [("train", None, "test"), ("transfer", None, "test"), ("train", "train", "train")]
)
def test_held_out_data_are_looked_at_unless_others_are_named(recorded, split, wanted, chosen):
    other = reconstruction({"conv": bent(2048, -0.03, 0.0, 0.6)})
    record = recorded((split, other), ("test", reconstruction({"conv": FALLS_AND_RISES})))
    group = diagnose(record, [Timeline(split=wanted)], Settings())["timeline"]
    assert group["phase"].attrs["looked_at"] == {"reconstruction": chosen}
    turned = Told(group, "conv", "reconstruction").answer == Answer.TURNS
    assert turned == (chosen == "test")


def test_layers_that_come_and_go(recorded):
    late, gone = FALLS_AND_RISES.copy(), FALLS_AND_RISES.copy()
    late[:6], gone[14:] = np.nan, np.nan
    between = FALLS_AND_RISES.copy()
    between[9] = np.nan
    record = recorded(
        reconstruction({"late": late, "gone": gone, "between": between}), layers=["gone", "between", "late"]
    )
    group = diagnose(record, [Timeline()], Settings())["timeline"]
    assert group["phase"].coords["layer"].values.tolist() == ["gone", "between", "late"]
    letters = {layer: Told(group, layer, "reconstruction").letters for layer in ("late", "gone", "between")}
    assert letters["late"][:6] == "." * 6
    assert "." not in letters["late"][6:]
    assert letters["gone"][14:] == "." * 6
    assert "." not in letters["gone"][:14]
    assert letters["between"][9] == "."
    assert letters["between"].count(".") == 1


def test_few_steps_say_nothing_and_one_is_no_timeline(recorded):
    found = told(recorded(reconstruction({"conv": FALLS_AND_RISES}), steps=STEPS[:5]), "conv", "reconstruction")
    assert (found.answer, found.reason) == (Answer.SILENT, "5 measured steps; 8 are needed")
    with pytest.raises(NotApplicable, match="one measured step only"):
        Timeline().derive(recorded(reconstruction({"conv": FALLS_AND_RISES}), steps=STEPS[:1]))


def test_without_anything_that_it_reads_it_does_not_apply(recorded):
    with pytest.raises(NotApplicable, match="information, reconstruction, spectrum or training, none of which"):
        Timeline().derive(recorded())
    writer = RecordWriter.create(None)
    writer.commit(0, [Entry("training", "loss", quantity(1.0, units="1", long_name="loss"))])
    with pytest.raises(NotApplicable, match="says nothing of phases"):
        Timeline().derive(Record.from_writer(writer))
    writer.close()


def test_a_theory_that_was_measured_less_often_keeps_its_phase_between(recorded):
    measured = reconstruction({"conv": FALLS_AND_RISES})
    sparse = {
        "conv.weight": [
            phase if place % 2 == 0 else None
            for place, phase in enumerate(spectrum_of(("random-like", 6), ("bulk+spikes", 1)))
        ]
    }
    found = told(recorded(measured, spectra=sparse), "conv", "spectrum")
    # the last measurement of all is at the last place but one
    assert found.letters == "R" * 6 + "s" * 13 + "."


def test_equal_curves_get_equal_answers(recorded):
    curve = FALLS_AND_RISES + noise(13, len(X), 0.02)
    group = diagnose(recorded(reconstruction({"a": curve, "b": curve})), [Timeline()], Settings())["timeline"]
    one, other = (Told(group, layer, "reconstruction") for layer in "ab")
    assert (one.low, one.high, one.letters) == (other.low, other.high, other.letters)


def test_noise_has_no_phases(recorded):
    """At most one curve in twenty gets a second phase; of 80 that is 4, and 10 are three deviations above it."""
    curves = {f"l{seed}": 3 + noise(seed, len(X), 0.5) for seed in range(80)}
    group = diagnose(recorded(information(curves)), [Timeline(resamples=100)], Settings())["timeline"]
    turned = [layer for layer in curves if Told(group, layer, "information").answer == Answer.TURNS]
    assert len(turned) <= 10


def test_many_layers_are_one_finding_each_code(recorded):
    layers = [f"block{n}" for n in range(40)]
    spectra = {
        f"{name}.weight": spectrum_of(("random-like", 1 + n % 10), ("bulk+spikes", 1)) for n, name in enumerate(layers)
    }
    ratios = {f"{name}.weight": crossing(500) for name in layers}
    findings = diagnose(recorded(spectra=spectra, ratios=ratios), [Timeline()], Settings()).findings
    (one,) = [finding for finding in findings if finding.wants_action]
    assert one.evidence["count"] == 40
    assert "37 more" in one.says
    assert all(finding.code.startswith("TL") for finding in findings)


# -- settings and rules ---------------------------------------------------------------------------------------------------


def test_settings_of_theories_are_checked():
    with pytest.raises(SettingError, match="theories are information, reconstruction, spectrum, gradient"):
        Timeline(theories=(("entropy", "least", 1.0),))
    with pytest.raises(SettingError, match="'information' has no setting 'most'; it has least"):
        Timeline(theories=(("information", "most", 1.0),))
    with pytest.raises(SettingError, match="give a level between 0 and 1"):
        Timeline(level=1.5)
    # as they come from a settings file
    assert Timeline(theories=[["gradient", "windows", 6]]) == Timeline(theories=(("gradient", "windows", 6),))
    assert hash(Timeline(theories=[["gradient", "windows", 6]]))


def test_the_same_is_judged_from_disk(recorded, tmp_path):
    """Findings come from saved numbers, also after the attributes went through a file."""
    writer = RecordWriter.create(tmp_path / "run")
    derived = Timeline().derive(recorded(everything(16, 512)))
    for step in STEPS:
        entries = [
            Entry("timeline", name, quantity(
                value.values[STEPS.index(step)] if "step" in value.dims else value.values, units="1",
                long_name=name, dims=("layer", "theory"),
                coords={dim: value.coords[dim] for dim in ("layer", "theory")},
                **{key: text for key, text in value.attrs.items() if key not in ("units", "long_name")},
            ))
            for name, value in derived.items() if "step" in value.dims or step == STEPS[-1]
        ]  # fmt: skip
        writer.commit(step, entries)
    writer.close()
    with Record.open(tmp_path / "run") as record:
        findings = list(Timeline().judge(record["timeline"]))
    assert [finding.code for finding in findings] == ["TL001"]


def test_it_keeps_the_rules():
    quick = [
        Information(variances=(), sweep=(10, 30), permutations=2, distances=False),
        EigenvalueSpectrum(shuffles=0, bootstrap=0, alternatives=False),
        Training(window=2),
    ]
    check_diagnosis(Timeline, subjects=["mlp"], instruments=quick)
