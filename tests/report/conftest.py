"""Fixtures of the report tests: the records of the chart tests."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def synthetic():
    """Makers of records: `make` for a whole run, `record_of` for a few entries."""
    path = Path(__file__).parents[1] / "charts" / "synthetic.py"
    spec = importlib.util.spec_from_file_location("report_synthetic", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def whole(synthetic):
    """A record of a whole run."""
    return synthetic.make()
