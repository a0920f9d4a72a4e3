"""Trainings that were broken on purpose are told by the code that was agreed on beforehand, healthy ones give no issue.

A part of `benchmarks/health.py`, which makes the manual's table with five seeds each.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from stratoscope.diagnoses.registry import available as diagnoses
from stratoscope.instruments.registry import available as instruments

pytest.importorskip("sklearn", reason="the runs are trained on scikit-learn's digits: pip install 'stratoscope[demo]'")

HOME = Path(__file__).resolve().parents[2] / "benchmarks" / "health.py"


def load():
    """The benchmark as a module; it is no part of the package."""
    spec = spec_from_file_location("health_benchmark", HOME)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BENCHMARK = load()
FRUGAL = ("rate x 100", "frozen layer", "vanishing gradients")
"""Faults that are tried each time; all of them in the slow tests."""


def named(name, seed):
    """Whether the fault is told by its code."""
    return BENCHMARK.NAMED_BY[name] in BENCHMARK.told(BENCHMARK.BROKEN[name], seed).outcomes


def issues(name, seed):
    """What is called an issue in a healthy run."""
    outcomes = BENCHMARK.told(BENCHMARK.HEALTHY[name], seed).outcomes
    return [code for code, outcome in outcomes.items() if outcome == "issue"]


def test_every_fault_has_one_code_that_there_is():
    known = {code for cls in (*instruments().values(), *diagnoses().values()) for code in cls.codes}
    assert set(BENCHMARK.NAMED_BY) == set(BENCHMARK.BROKEN)
    assert set(BENCHMARK.NAMED_BY.values()) <= known


@pytest.mark.parametrize("name", FRUGAL)
def test_a_fault_is_named(name):
    assert named(name, 200)


def test_a_healthy_training_gives_no_issue():
    assert issues("perceptron", 200) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [201, 202])
@pytest.mark.parametrize("name", BENCHMARK.BROKEN)
def test_every_fault_is_named(name, seed):
    assert named(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [201, 202])
@pytest.mark.parametrize("name", BENCHMARK.HEALTHY)
def test_no_healthy_training_gives_an_issue(name, seed):
    assert issues(name, seed) == []
