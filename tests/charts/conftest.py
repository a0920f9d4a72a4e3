"""Fixtures of the chart tests: records made without training."""

import importlib.util
from pathlib import Path

import pytest


def load(name):
    """A module that lies beside this file."""
    spec = importlib.util.spec_from_file_location(f"charts_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic():
    """Makers of records: `make` for a whole run, `record_of` for a few entries."""
    return load("synthetic")


@pytest.fixture(scope="session")
def whole(synthetic):
    """A record of a whole run."""
    return synthetic.make()
