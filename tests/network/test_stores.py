"""Files of safetensors: what reading them holds in memory."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stratoscope.network.stores import SafetensorsFile

SMAPS = Path("/proc/self/smaps")


def resident(path):
    """Bytes of a file's pages that this process has mapped and touched."""
    total, counts = 0, False
    for line in SMAPS.read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first and not first.endswith(":"):
            counts = line.endswith(str(path))
        elif counts and first == "Rss:":
            total += 1024 * int(line.split()[1])
    return total


@pytest.mark.skipif(not SMAPS.exists(), reason="this system does not tell what is mapped")
def test_pages_of_a_tensor_go_when_it_does(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({f"w{i}": torch.full((2**20,), float(i)) for i in range(4)}, path)
    source = SafetensorsFile(path)
    for i in range(4):
        tensor = source.load(f"w{i}")
        assert float(tensor.sum()) == i * 2**20
        assert 4 * 2**20 <= resident(path) < 8 * 2**20  # one tensor, not all that were read
        del tensor
    assert resident(path) < 2**20
