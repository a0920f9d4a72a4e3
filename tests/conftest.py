"""Fixtures that every test may use."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than a few seconds")


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same numbers in every run, alone or after others; STRATOSCOPE_TEST_SEED gives other ones."""
    seed = int(os.environ.get("STRATOSCOPE_TEST_SEED", "0"))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real data sets and trained networks, or a skip."""
    folder = Path(os.environ.get("STRATOSCOPE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"there is no data folder at {folder}; set STRATOSCOPE_DATA to one")
    return folder


@pytest.fixture(scope="session", autouse=True)
def ledger_apart(tmp_path_factory):
    """Studies that tests run leave the ledger of the repository alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRATOSCOPE_LEDGER", str(tmp_path_factory.mktemp("ledger") / "ledger.json"))
        yield


@pytest.fixture(scope="session")
def browser():
    """Chromium, or a skip."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    node = Path(sync_api.__file__).parents[1] / "driver" / "node"
    tried = subprocess.run([node, "--version"], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"playwright's node does not run here: {tried.stderr.strip()}")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()
