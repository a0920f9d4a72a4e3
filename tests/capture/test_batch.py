"""What a reducer is shown: nested outputs, padding, pooling."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

from stratoscope.capture.batch import SiteBatch, first_tensor
from stratoscope.capture.needs import Site
from stratoscope.errors import NotApplicable
from stratoscope.network.layers import Layer
from stratoscope.network.sources import Batch


def shown(value, mask=None, batch_dim=0, channel_dim=-1):
    n = value.shape[batch_dim]
    return SiteBatch(
        Site(Layer("layer", "linear", 0)),
        value,
        value,
        Batch(n=n, mask=mask, ids=torch.arange(n)),
        batch_dim,
        channel_dim,
    )


@st.composite
def padded(draw):
    n, steps, width = (draw(st.integers(1, 5)) for _ in range(3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    value = torch.randn(n, steps, width, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, steps + 1, (n,), generator=generator)
    return value, torch.arange(steps)[None] < lengths[:, None]


@settings(deadline=None, max_examples=25)
@given(padded(), st.booleans())
def test_pooling_is_the_mean_of_the_real_tokens(data, time_first):
    value, mask = data
    batch = shown(value.transpose(0, 1) if time_first else value, mask, batch_dim=int(time_first))
    naive = torch.stack([value[i][mask[i]].mean(0) for i in range(len(value))])
    assert_close(batch.pooled, naive)
    assert_close(batch.rows, torch.cat([value[i][mask[i]] for i in range(len(value))]))
    assert_close(batch.flat, (value * mask[..., None]).flatten(1))


def test_what_stands_in_padding_does_not_matter_even_if_it_is_nan():
    value, mask = torch.ones(2, 3, 4), torch.tensor([[1, 1, 0], [1, 1, 1]])
    value[0, 2] = torch.nan
    batch = shown(value, mask)
    assert_close(batch.pooled, torch.ones(2, 4))
    assert batch.flat.isfinite().all()
    assert len(batch.rows) == 5


def test_a_mask_of_another_length_is_left_alone():
    value = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    assert shown(value, torch.tensor([[1, 0, 0], [1, 1, 0]])).mask is None
    assert shown(value, torch.ones(2, 4)).mask is None


@settings(deadline=None, max_examples=25)
@given(padded())
def test_maps_over_tokens_are_masked_as_sequences_are(data):
    value, mask = data
    value = value.masked_fill(~mask[..., None], torch.nan)
    as_map, as_sequence = shown(value.transpose(1, 2), mask, channel_dim=1), shown(value, mask)
    for name in ("pooled", "rows", "flat"):
        assert torch.equal(getattr(as_map, name), getattr(as_sequence, name))
        assert getattr(as_map, name).isfinite().all()


def test_pixels_are_not_tokens_even_where_there_are_as_many():
    mask = torch.tensor([[1, 1, 0, 0]])
    assert shown(torch.ones(1, 3, 2, 2), mask, channel_dim=1).mask is None
    assert shown(torch.ones(1, 3, 5), mask, channel_dim=1).mask is None
    assert shown(torch.ones(1, 3), torch.zeros(1, 1), channel_dim=1).mask is None


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3))
def test_maps_pool_over_positions(n, channels, sizes):
    value = torch.randn(n, channels, *sizes, generator=torch.Generator().manual_seed(0))
    batch = shown(value, channel_dim=1)
    assert_close(batch.pooled, value.flatten(2).mean(2) if sizes else value)
    assert batch.blocks.shape == (n, value[0, 0].numel(), channels)
    assert batch.flat.shape == (n, value[0].numel())


def test_one_number_an_example_is_one_unit():
    assert shown(torch.arange(3.0)).blocks.shape == (3, 1, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_float32(dtype):
    value = torch.full((2, 4096, 1), 0.1, dtype=dtype)
    pooled = shown(value).pooled
    assert pooled.dtype == torch.float32
    assert_close(pooled, value[:, 0].float())


def test_float64_stays():
    assert shown(torch.zeros(2, 3, dtype=torch.float64)).pooled.dtype == torch.float64


@dataclass
class Answer:
    loss: torch.Tensor
    hidden: list


def test_the_first_floating_tensor_is_found_in_anything_nested():
    wanted = torch.ones(2, 3, requires_grad=True)
    for raw in (wanted, (wanted, None), [torch.arange(3), {"a": wanted}], Answer(torch.tensor(0.1), [wanted])):
        found, mask = first_tensor(raw)
        assert_close(found, wanted.detach())
        assert not found.requires_grad
        assert mask is None


@pytest.mark.parametrize("raw", [torch.arange(3), "text", None, (), SimpleNamespace(a=1), {"ids": torch.arange(2)}])
def test_where_there_is_none_there_is_none(raw):
    assert first_tensor(raw) == (None, None)


def test_a_packed_sequence_is_unpacked_with_its_lengths():
    value = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    packed = pack_padded_sequence(value, torch.tensor([2, 4, 1]), batch_first=True, enforce_sorted=False)
    found, mask = first_tensor(packed)
    assert mask.sum(1).tolist() == [2, 4, 1]
    assert_close(found[mask], value[mask])


def test_no_tensor_is_a_reason():
    batch = SiteBatch(Site(Layer("gate", "other", 0)), "text", None, Batch(n=2))
    with pytest.raises(NotApplicable, match="no floating-point tensor at gate"):
        _ = batch.blocks
