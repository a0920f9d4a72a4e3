"""What every test of a format needs."""

import time
from contextlib import suppress

import pytest
import torch
from hypothesis import strategies as st

from stratoscope.errors import OpenError
from stratoscope.network.opening import open_weights


def _same(source, tensors):
    """A source has exactly these tensors, described and loaded."""
    infos = source.describe()
    assert list(infos) == list(tensors) or set(infos) == set(tensors)
    for name, info in infos.items():
        value = source.load(name)
        assert (tuple(value.shape), value.dtype) == (info.shape, info.dtype), name
        assert not value.requires_grad
        assert torch.equal(value, tensors[name].detach()), name


def _refused(path, *words, error=OpenError):
    """Opening fails with one sentence that holds the words."""
    with pytest.raises(error) as caught:
        open_weights(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert word in message, message
    return message


def _reads_or_refuses(path, seconds=10.0):
    """Whatever a file holds: tensors as described, or `OpenError`, and soon."""
    start = time.monotonic()
    with suppress(OpenError):
        source = open_weights(path)
        for name, info in source.describe().items():
            assert torch.Size(info.shape).numel() < 2**27 or info.reason
            with suppress(OpenError):
                assert tuple(source.load(name).shape) == info.shape
                assert not info.reason
    assert time.monotonic() - start < seconds


@pytest.fixture(scope="session")
def same():
    return _same


@pytest.fixture(scope="session")
def refused():
    return _refused


@pytest.fixture(scope="session")
def reads_or_refuses():
    return _reads_or_refuses


@st.composite
def _damages(draw):
    """A change to a file: cut off, or a few bytes altered, often near its beginning or end where headers are."""
    if draw(st.integers(0, 4)) == 0:
        share = draw(st.floats(0.01, 0.99))
        return lambda content: content[: max(1, int(share * len(content)))]
    changes = draw(
        st.lists(
            st.tuples(st.sampled_from(["any", "first", "last"]), st.floats(0, 0.999), st.integers(0, 255)),
            min_size=1,
            max_size=6,
        )
    )

    def change(content):
        content = bytearray(content)
        for where, share, value in changes:
            reach = len(content) if where == "any" else min(len(content), 600)
            start = len(content) - reach if where == "last" else 0
            content[start + int(share * reach)] = value
        return bytes(content)

    return change


@pytest.fixture(scope="session")
def damages():
    return _damages()
