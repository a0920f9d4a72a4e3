import subprocess
import sys

import pytest


def cli(*arguments, folder):
    command = [sys.executable, "-m", "stratoscope.cli.main", *arguments]
    return subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=170)


def test_without_a_command_there_is_the_help_and_nothing_else(tmp_path):
    done = cli(folder=tmp_path)
    assert done.returncode == 2
    assert "Usage" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("option", [["--html", "."], ["--html", "taken/x.html"], ["--to", "taken"]])
def test_a_place_that_cannot_be_written_is_no_fault_of_ours(tmp_path, option):
    (tmp_path / "taken").write_text("a file")
    done = cli("examine", "torch.nn:ReLU", *option, folder=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "cannot be written" in done.stderr
    assert "fault of stratoscope" not in done.stderr


def test_nothing_left_to_measure_is_said(tmp_path):
    done = cli("examine", "torch.nn:ReLU", "--only", "units", "--skip", "units", folder=tmp_path)
    assert done.returncode == 2
    assert "No instrument is left" in done.stderr
