"""Data in every form: the same examples for the same seed, and the user's things left as they were."""

import copy
import random
import sys
from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from stratoscope.errors import DataError, SettingError
from stratoscope.network import drawing
from stratoscope.network.drawing import drawn_order
from stratoscope.network.sources import Batch, Split, as_splits, load_object, read_data

N = 50
X = torch.arange(N * 3, dtype=torch.float32).reshape(N, 3)
Y = torch.arange(N) % 7


class Plain(Dataset):
    """Map-style, one example an index."""

    def __len__(self):
        return N

    def __getitem__(self, at):
        return X[at], int(Y[at])


class Flow(IterableDataset):
    """Examples in order."""

    def __iter__(self):
        return iter([(X[at], int(Y[at])) for at in range(N)])


class Columns:
    """As a Hugging Face dataset: no torch class, items are dicts with lists."""

    def __init__(self, **more):
        self.more = more

    def __len__(self):
        return N

    def __getitem__(self, at):
        return {"input_ids": [at, at + 1, at + 2], "attention_mask": [1, 1, 0], "labels": at % 7, **self.more}


def probe(data, limit=20, seed=0, batch_size=8, **options):
    (split,) = as_splits(data, **options).values()
    return split.probe(limit, seed, batch_size)


def inputs(found):
    return torch.cat([batch.args[0] for batch in found.batches])


def labels(found):
    return torch.cat([batch.labels for batch in found.batches])


FORMS = {
    "tensors": lambda: (X, Y),
    "arrays": lambda: (X.numpy(), Y.numpy()),
    "dict": lambda: {"x": X, "y": Y},
    "user dict": lambda: UserDict({"image": X, "label": Y}),
    "tensor dataset": lambda: TensorDataset(X, Y),
    "dataset": Plain,
    "subset": lambda: Subset(Plain(), range(N)),
    "loader": lambda: DataLoader(Plain(), batch_size=5),
    "shuffled loader": lambda: DataLoader(Plain(), batch_size=5, shuffle=True, drop_last=True),
    "list of batches": lambda: [(X[at : at + 7], Y[at : at + 7]) for at in range(0, N, 7)],
    "list of dicts": lambda: [{"inputs": X[at : at + 7], "targets": Y[at : at + 7]} for at in range(0, N, 7)],
    "list of examples": lambda: [(X[at], int(Y[at])) for at in range(N)],
    "big-endian, not writable": lambda: (np.frombuffer(X.numpy().astype(">f4").tobytes(), ">f4").reshape(N, 3), Y),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_examples(form):
    found = probe(FORMS[form]())
    expected = torch.from_numpy(drawn_order(N, 20, seed=0))
    assert torch.equal(found.ids, expected)
    assert torch.equal(inputs(found), X[expected])
    assert torch.equal(labels(found), Y[expected])
    assert [batch.n for batch in found.batches] == [8, 8, 4]
    assert torch.cat([batch.ids for batch in found.batches]).tolist() == list(range(20))
    assert found.n == 20
    assert found.how == "20 of 50 examples drawn with seed 0"
    assert found.split == "data"
    assert found.digest == probe((X, Y), batch_size=20).digest
    assert found.nbytes == 20 * (3 * 4 + 8)


@pytest.mark.parametrize("form", FORMS)
def test_all_examples_once(form):
    found = probe(FORMS[form](), limit=1000)
    assert sorted(found.ids.tolist()) == list(range(N))
    assert found.ids.tolist() != list(range(N))  # so that the first few are a fair sample of sorted data
    assert found.how == "all 50 examples"


@pytest.mark.parametrize(
    "form", [Flow, lambda: DataLoader(Flow(), batch_size=5), lambda: DataLoader(Flow(), batch_size=5, num_workers=2)]
)
def test_streams_give_their_first_examples(form):
    found = probe(form())
    assert torch.equal(inputs(found), X[:20])
    assert torch.equal(labels(found), Y[:20])
    assert found.how == "the first 20 examples of one iteration"
    assert [batch.n for batch in found.batches] == [8, 8, 4]
    assert probe(form(), limit=99).how == "all 50 examples of one iteration"


class Batches:
    """A loader of somebody else's: iterable, nothing more."""

    def __init__(self, size=30):
        self.size = size

    def __iter__(self):
        return iter([(X[at : at + self.size], Y[at : at + self.size]) for at in range(0, N, self.size)])


@pytest.mark.parametrize("limit", [1, 20, 30, 31, 50, 51])
def test_iterables_of_batches_are_cut_to_the_limit(limit):
    found = probe(Batches(), limit=limit)
    assert torch.equal(inputs(found), X[: min(limit, N)])
    assert found.ids.tolist() == list(range(min(limit, N)))
    assert max(batch.n for batch in found.batches) <= 8


class WholeBatches(Dataset):
    """Each item is a batch."""

    def __len__(self):
        return 5

    def __getitem__(self, at):
        return X[10 * at : 10 * at + 10], Y[10 * at : 10 * at + 10]


def test_loader_without_batching():
    found = probe(DataLoader(WholeBatches(), batch_size=None), limit=25)
    assert torch.equal(inputs(found), X[:25])


# --- determinism, and nothing of the user's is changed


@given(n=st.integers(1, 200), small=st.integers(1, 200), more=st.integers(0, 200), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_order_is_a_permutation_and_a_smaller_limit_a_beginning(n, small, more, seed):
    short, long = drawn_order(n, small, seed), drawn_order(n, small + more, seed)
    assert len(set(long.tolist())) == len(long) == min(n, small + more)
    assert long.min() >= 0
    assert long.max() < n
    assert short.tolist() == long[: len(short)].tolist()


def test_order_of_very_many(monkeypatch):
    big = 2**40
    order = drawn_order(big, 70_000, 3)
    assert len(np.unique(order)) == 70_000
    assert drawn_order(big, 10, 3).tolist() == order[:10].tolist()
    assert abs(order.mean() / big - 0.5) < 4 / np.sqrt(12 * 70_000)
    monkeypatch.setattr(drawing, "SHUFFLED_WHOLE", 0)
    assert sorted(drawn_order(100, 1000, 0).tolist()) == list(range(100))


def test_order_is_uniform():
    first = np.array([drawn_order(10, 1, seed)[0] for seed in range(3000)])
    counts = np.bincount(first, minlength=10)
    assert ((counts - 300) ** 2 / 300).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001


def test_seed_decides():
    one, same, other = probe((X, Y), seed=1), probe((X, Y), seed=1), probe((X, Y), seed=2)
    assert one.digest == same.digest != other.digest
    assert one.ids.tolist() == same.ids.tolist() != other.ids.tolist()


def test_digest_follows_the_data_and_ignores_the_batch_size():
    digest = probe((X, Y)).digest
    assert probe((X, Y), batch_size=3).digest == digest
    changed = X.clone()
    changed[int(probe((X, Y)).ids[5]), 1] += 1e-4
    assert probe((changed, Y)).digest != digest
    assert probe((X, Y + 1)).digest != digest
    assert probe((X.double(), Y)).digest != digest
    assert probe((X.reshape(N, 1, 3), Y)).digest != digest


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64, torch.bool, torch.uint8])
def test_digest_of_every_type(dtype):
    assert len(probe(torch.ones(3, 2).to(dtype)).digest) == 64
    assert probe(torch.ones(3)).n == 3


def everything_random():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


class Noisy(Dataset):
    """Random transforms from all three global generators."""

    def __len__(self):
        return N

    def __getitem__(self, at):
        return X[at] + torch.rand(3) + random.random() + np.random.rand(), int(Y[at])


class NoisyFlow(IterableDataset):
    def __iter__(self):
        return iter([X[at] + torch.rand(3) for at in range(N)])


@pytest.mark.parametrize("make", [Noisy, lambda: DataLoader(Noisy(), 4, shuffle=True), NoisyFlow])
def test_random_transforms_are_seeded_and_generators_put_back(make):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = everything_random()
    first = probe(make())
    assert everything_random() == before
    torch.rand(5)
    random.random()
    assert probe(make()).digest == first.digest
    assert probe(make(), seed=1).digest != first.digest


def test_generators_are_put_back_after_a_failure():
    class Broken(Noisy):
        def __getitem__(self, at):
            super().__getitem__(at)
            raise OSError("disk gone")

    before = everything_random()
    with pytest.raises(DataError, match=r"'data' failed to give examples .*OSError: disk gone"):
        probe(Broken())
    assert everything_random() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_the_users_loader_goes_on_as_if_nothing_had_happened(workers):
    def loader():
        generator = torch.Generator().manual_seed(5)
        return DataLoader(Plain(), batch_size=5, shuffle=True, generator=generator, num_workers=workers)

    untouched, used = loader(), loader()
    probe(used)
    assert torch.equal(untouched.generator.get_state(), used.generator.get_state())
    probe(used)
    for ours, theirs in zip(used, untouched, strict=True):
        assert torch.equal(ours[0], theirs[0])


def test_a_loader_with_an_iteration_of_its_own_keeps_its_generator():
    class Own(DataLoader):
        def __iter__(self):
            yield from super().__iter__()

    loader = Own(Plain(), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(5))
    state = loader.generator.get_state()
    first = probe(loader)
    assert torch.equal(loader.generator.get_state(), state)
    assert first.how == "the first 20 examples of one iteration"


def test_the_probe_does_not_follow_later_changes():
    x, y = X.clone(), Y.clone()
    for data in ((x, y), [(x, y)], Batches(), [(x[:20], y[:20]), (x[20:], y[20:])]):
        found = probe(data, limit=N)
        kept, digest = inputs(found).clone(), found.digest
        x.add_(1)
        assert torch.equal(inputs(found), kept)
        assert found.digest == digest


# --- samplers: only what the loader would give


def test_a_loader_on_a_part_of_its_dataset_keeps_to_it():
    part = [3, 9, 4, 30, 31]
    found = probe(DataLoader(Plain(), batch_size=2, sampler=SubsetRandomSampler(part)))
    assert sorted(found.ids.tolist()) == sorted(part)
    assert torch.equal(inputs(found), X[found.ids])


class Odd(Sampler):
    """A sampler of the user's own, which counts how often it was read."""

    def __init__(self, dataset):
        self.dataset, self.reads = dataset, 0

    def __iter__(self):
        self.reads += 1
        return iter(range(1, N, 2))

    def __len__(self):
        return N // 2


class Uncopied(Plain):
    def __deepcopy__(self, memo):
        raise AssertionError("a dataset was copied")


@pytest.mark.parametrize("as_batches", [False, True])
def test_a_sampler_of_ones_own_is_read_from_a_copy(as_batches):
    dataset = Uncopied()
    sampler = Odd(dataset)
    if as_batches:

        class OwnBatches(BatchSampler):
            pass

        loader = DataLoader(dataset, batch_sampler=OwnBatches(sampler, 4, False))
    else:
        loader = DataLoader(dataset, batch_size=4, sampler=sampler)
    found = probe(loader, limit=N)
    assert sorted(found.ids.tolist()) == list(range(1, N, 2))
    assert sampler.reads == 0


def test_samplers_that_change_the_odds_or_cannot_be_read_are_said():
    weighted = DataLoader(Plain(), sampler=WeightedRandomSampler(torch.ones(N), 5))
    assert "all equally likely" in probe(weighted).how

    class Closed(Odd):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    assert "Closed cannot be read" in probe(DataLoader(Plain(), sampler=Closed(Plain()))).how
    assert probe(DataLoader(Plain(), sampler=RandomSampler(Plain(), num_samples=5))).n == 20


# --- what a batch is


def test_hugging_face_dict():
    n = 12
    batch = {
        "input_ids": torch.arange(n * 4).reshape(n, 4),
        "attention_mask": torch.tensor([[1, 1, 1, 0]] * n),
        "labels": torch.arange(n, dtype=torch.int32) % 2,
    }
    found = probe(batch, limit=5)
    first = found.batches[0]
    assert first.args == ()
    assert set(first.kwargs) == {"input_ids", "attention_mask", "labels"}
    assert first.kwargs["labels"] is first.labels
    assert first.labels.dtype == torch.int64
    assert first.mask.dtype == torch.bool
    assert first.mask.tolist() == [[True, True, True, False]] * 5
    assert torch.equal(first.kwargs["input_ids"], batch["input_ids"][found.ids])
    assert found.nbytes == 5 * (4 * 8 + 4 * 8 + 8)  # the labels count once, the mask not


def test_dataset_in_the_style_of_hugging_face():
    found = probe(Columns(), batch_size=20)
    first = found.batches[0]
    assert first.kwargs["input_ids"].tolist() == [[at, at + 1, at + 2] for at in found.ids.tolist()]
    assert first.labels.tolist() == (found.ids % 7).tolist()
    assert not bool(first.mask[:, 2].any())
    with pytest.raises(DataError, match=r"'text', holds text"):
        probe(Columns(text="hello"))


def test_dict_of_columns_is_a_batch_and_no_splits():
    columns = {"input_ids": [[1, 2], [3, 4]], "token_type_ids": [[0, 0], [0, 1]]}
    assert list(as_splits(columns)) == ["data"]
    assert list(as_splits({"left": X, "right": X[:, :1]})) == ["data"]
    assert list(as_splits({"left": X, "right": X[:9]})) == ["left", "right"]
    assert list(as_splits({"clean": (X, Y), "noisy": (X, Y)})) == ["clean", "noisy"]
    assert list(as_splits({"train": X, "test": X})) == ["train", "test"]
    assert list(as_splits({"x": X, "y": Y})) == ["data"]
    with pytest.raises(DataError, match="nest them"):
        as_splits({"train": X, "labels": Y})


def test_two_inputs_by_name():
    first = probe({"left": X, "right": Y.float(), "y": Y}).batches[0]
    assert set(first.kwargs) == {"left", "right"}
    assert first.labels is not None


def test_inputs_alone():
    for data in (X, X.numpy(), (X,), [X], TensorDataset(X), {"inputs": X}, X.tolist()):
        found = probe(data)
        assert found.batches[0].labels is None
        assert len(found.batches[0].args) == 1
        assert torch.equal(inputs(found).float(), X[found.ids])


Pair = namedtuple("Pair", "inputs labels")


@pytest.mark.parametrize(
    ("data", "rule", "args", "has_labels"),
    [
        ((X, Y.float()), None, 1, True),
        ((X, X), None, 1, True),
        ((X, X, Y), None, 2, True),
        ((X, X, Y[:, None]), None, 2, True),
        ((X, X, Y > 3), None, 2, True),
        ((X, X, Y.float()), None, 3, False),
        ((X, X, Y.float()), True, 2, True),
        ((X, X, Y.float()), -1, 2, True),
        ((Y, X, X), 0, 2, True),
        ((X, X), False, 2, False),
        (Pair(X, Y), None, 1, True),
        ({"a": X, "b": X, "c": Y}, "c", 0, True),
        ({"x": X, "y": X}, False, 0, False),
    ],
)
def test_where_the_labels_are(data, rule, args, has_labels):
    first = probe(data, labels=rule).batches[0]
    assert len(first.args) == args
    assert (first.labels is not None) == has_labels


@pytest.mark.parametrize(
    ("data", "rule", "says"),
    [
        ((X, Y), 5, "no labels or no inputs"),
        ((X,), True, "no labels or no inputs"),
        ((X, Y), "y", "must be a position"),
        (X, True, "nothing to point at"),
        ({"a": X, "b": X}, "c", "no key 'c'"),
        ({"a": X, "b": X}, True, "no labels under"),
        ((X, (Y, Y)), None, "not one tensor"),
    ],
)
def test_labels_that_are_not_there(data, rule, says):
    with pytest.raises(DataError, match=says):
        probe(data, labels=rule)


@pytest.mark.parametrize(
    "form", [lambda: X, lambda: (X, X), Plain, lambda: DataLoader(Plain(), 5), lambda: [(X[:20],), (X[20:],)], Flow]
)
def test_labels_beside_the_data(form):
    beside = torch.arange(N) * 10
    found = probe(form(), labels=beside.numpy())
    assert torch.equal(labels(found), beside[found.ids])


def test_labels_beside_several_splits():
    found = as_splits({"train": X, "test": X[:9]}, labels={"train": Y, "test": Y[:9]})
    assert torch.equal(labels(found["test"].probe(9, 0, 9)), Y[found["test"].probe(9, 0, 9).ids])
    with pytest.raises(DataError, match="One array of labels for 2 splits"):
        as_splits({"train": X, "test": X}, labels=Y)
    with pytest.raises(DataError, match="no split 'val'"):
        as_splits({"train": X}, labels={"val": Y})
    with pytest.raises(DataError, match="without data"):
        as_splits(None, labels=Y)
    for form in (X, Plain(), [X]):
        with pytest.raises(DataError, match=r"50 examples and labels of shape \(49,\)"):
            probe(form, labels=Y[:49])
    with pytest.raises(DataError, match="more examples than the 9 labels"):
        probe(Flow(), labels=Y[:9])


def test_dict_and_labels_in_a_pair():
    first = probe(({"input_ids": X.long(), "attention_mask": torch.ones(N, 3)}, Y)).batches[0]
    assert set(first.kwargs) == {"input_ids", "attention_mask"}
    assert first.labels is not None
    assert first.mask is None  # a floating mask is added to scores; which tokens are real it does not say


def test_types_are_kept_but_for_labels():
    first = probe((X.numpy().astype(np.float64), Y.numpy().astype(np.uint8))).batches[0]
    assert first.args[0].dtype == torch.float64
    assert first.labels.dtype == torch.int64
    pixels = probe((X.to(torch.uint8), Y)).batches[0]
    assert pixels.args[0].dtype == torch.uint8
    moved = pixels.to("cpu", torch.float16)
    assert moved.args[0].dtype == torch.uint8
    assert first.to("cpu", torch.float32).args[0].dtype == torch.float32
    assert first.to("cpu").args[0].dtype == torch.float64
    for kind, wider in ((np.uint16, torch.int32), (np.uint32, torch.int64), (np.uint64, torch.int64)):
        assert probe(X.numpy().astype(kind)).batches[0].args[0].dtype == wider
    with pytest.raises(DataError, match="beyond 64 bits"):
        probe(np.full(3, 2**64 - 1, dtype=np.uint64))


def test_batch_to_moves_everything_nested():
    batch = Batch(((X, [X]),), {"a": {"b": X}, "flag": True}, Y.double(), X > 0, N, torch.arange(N))
    moved = batch.to("meta", torch.float16)
    assert {t.device.type for _, t in moved.tensors()} == {"meta"}
    assert moved.mask.dtype == torch.bool
    assert moved.ids.dtype == torch.int64
    assert moved.labels.dtype == torch.float16
    assert moved.kwargs["flag"] is True
    assert [name for name, _ in moved.tensors()] == ["0.0", "0.1.0", "a.b", "labels"]
    assert batch.args[0][0].dtype == torch.float32


def test_batch_to_is_a_copy_wherever_it_is():
    batch = Batch((X.clone(),), {"a": X.clone()}, Y.clone(), X > 0, N, torch.arange(N))
    moved = batch.to("cpu")
    for tensor in (*(t for _, t in moved.tensors()), moved.mask, moved.ids):
        tensor.zero_()
    assert all(bool(t.any()) for _, t in batch.tensors())
    assert bool(batch.mask.any())


def test_constants_pass_through():
    first = probe({"input_ids": X.long(), "output_attentions": True, "scale": torch.tensor(2.0)}).batches[0]
    assert first.kwargs["output_attentions"] is True
    assert first.kwargs["scale"].item() == 2


# --- collating


def padded(items):
    longest = max(len(item) for item in items)
    ids = torch.stack([torch.nn.functional.pad(item, (0, longest - len(item))) for item in items])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


class Ragged(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, at):
        return torch.ones(1 + at % 5, dtype=torch.int64)


def test_ragged_examples_need_the_users_collate():
    with pytest.raises(DataError, match="ragged"):
        probe(Ragged())
    found = probe(DataLoader(Ragged(), batch_size=2, collate_fn=padded), batch_size=4)
    for batch in found.batches:
        ids = found.ids[batch.ids]
        assert batch.mask.sum(1).tolist() == (1 + ids % 5).tolist()


def test_list_of_batches_of_different_length_is_drawn_by_whole_batches():
    data = [padded([torch.ones(1 + size, dtype=torch.int64)] * 5) for size in range(4)]
    found = probe(data, limit=12)
    assert found.n == 12
    assert "whole batches" in found.how
    starts = (found.ids // 5).tolist()
    assert [len(b.kwargs["input_ids"][0]) for b in found.batches] == [1 + starts[int(b.ids[0])] for b in found.batches]
    assert probe(data, limit=12).digest == found.digest
    assert sorted(probe(data, limit=99).ids.tolist()) == list(range(20))


def test_sequences_with_time_first():
    def time_first(items):
        return torch.stack([x for x, _ in items], dim=1), torch.tensor([y for _, y in items])

    found = probe(DataLoader(Plain(), batch_size=5, collate_fn=time_first))
    assert found.batches[0].args[0].shape == (3, 8)
    assert found.batches[0].n == 8


def test_collate_that_fails_or_changes_the_number():
    def broken(items):
        raise KeyError("speech")

    with pytest.raises(DataError, match="KeyError: 'speech'"):
        probe(DataLoader(Plain(), collate_fn=broken))
    with pytest.raises(DataError, match="one row an example"):
        probe(DataLoader(Plain(), collate_fn=lambda items: torch.ones(2 * len(items) + 9, 1)))


class Pictures(Plain):
    def __getitem__(self, at):
        return Image.new("L", (2, 2)), 1


class Texts(Plain):
    def __getitem__(self, at):
        return "hello", 1


class Sizeless(Dataset):
    def __getitem__(self, at):
        return X[at]


class Hollow(Dataset):
    def __len__(self):
        return 0

    def __getitem__(self, at):
        raise IndexError


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (torch.zeros(0, 3), "'data' is empty"),
        ([], "'data' is empty"),
        (Hollow(), "'data' is empty"),
        (DataLoader(Hollow()), "'data' is empty"),
        (Batches.__new__(Batches), "failed to give"),
        ((X, Y[:49]), r"'0' has 50, 'labels' has 49"),
        ({"x": X, "y": Y[:3]}, "different length"),
        ([(X, Y[:49])], r"batch 0, has tensors of different length"),
        ([X, Y], "give a tuple"),
        (np.array([1, "a", None], dtype=object), "dtype object"),
        (np.array(["a", "b"]), "which no network takes"),
        ([[1.0, 2.0], [3.0]], "ragged"),
        (X.to_sparse(), "sparse"),
        (Pictures(), "holds a picture; give its dataset a transform"),
        (Texts(), "holds text"),
        (Sizeless(), "without a length"),
        (torch.tensor(3.0), "single number"),
        (3, "which is no data"),
        ("no/such/file.npz", "no file or folder"),
        ({}, "empty dict"),
        ({"train": None}, "'train' is None"),
        ((x for x in [X]), "only once"),
        ({"labels": Y}, "no tensor among its inputs"),
        ((), "'data' is empty"),
    ],
)
def test_what_cannot_be_used_says_why(data, says):
    with pytest.raises(DataError, match=says):
        probe(data)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("form", [lambda x: (x, Y), lambda x: [(x[:20], Y[:20]), (x[20:], Y[20:])], TensorDataset])
def test_nan_and_infinity_are_counted_and_refused(value, form):
    x = X.clone()
    x[17, 1] = x[17, 2] = x[40, 0] = value
    with pytest.raises(
        DataError, match=r"'data' has NaN or infinity in 2 of the 50 examples drawn, first in '0' of example (17|40)"
    ):
        probe(form(x), limit=N)
    assert 17 not in drawn_order(N, 3, 0)
    assert 40 not in drawn_order(N, 3, 0)
    assert probe(form(x), limit=3).n == 3


def test_infinity_in_an_additive_mask_is_no_fault():
    mask = torch.zeros(N, 1, 3, 3).fill_(-float("inf"))
    assert probe({"inputs_embeds": X, "attention_mask": mask}).n == 20
    with pytest.raises(DataError, match="in 'labels'"):
        probe((X, torch.full((N,), float("nan"))))


@pytest.mark.parametrize("form", [(X[:1], Y[:1]), [(X[:1], Y[:1])], TensorDataset(X[:1], Y[:1])])
def test_one_example(form):
    found = probe(form)
    assert found.n == 1
    assert found.how == "all 1 example"
    assert found.batches[0].args[0].shape == (1, 3)


@pytest.mark.parametrize("options", [{"limit": 0}, {"batch_size": 0}, {"seed": -1}])
def test_options_out_of_range(options):
    with pytest.raises(DataError, match="must"):
        probe(X, **options)


def test_none_and_ready_splits():
    assert as_splits(None) == {}
    split = Split("mine", (X, Y))
    assert as_splits(split) == {"mine": split}
    renamed = as_splits({"test": split})["test"]
    assert renamed.name == "test"
    assert renamed.data is split.data


def test_values_are_frozen():
    found = probe(X)
    for value, name in ((found, "ids"), (found.batches[0], "n"), (Split("a", X), "name")):
        with pytest.raises(AttributeError):
            setattr(value, name, None)


def test_memory_mapped_arrays_are_read_by_row(tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = probe((mapped, Y))
    assert torch.equal(inputs(found), X[found.ids])
    before = copy.deepcopy(mapped)
    inputs(found).zero_()
    found.batches[0].args[0].zero_()
    np.testing.assert_array_equal(mapped, before)


# --- files and objects


def test_load_object_from_a_file(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 7\n")
    (tmp_path / "model.py").write_text(
        "from dataclasses import dataclass\nimport beside\nimport math\n\n\n@dataclass\nclass Config:\n    width: int = beside.VALUE\n\n\n"
        "def build():\n    return Config()\n"
    )
    path_before = list(sys.path)
    assert load_object(f"{tmp_path}/model.py:build")().width == 7
    assert load_object(f"{tmp_path}/model.py:Config.width") == 7
    assert load_object(f"{tmp_path}/model.py:Config") is load_object(f"{tmp_path}/model.py:Config")
    assert sys.path == path_before
    with pytest.raises(SettingError, match=r"has no 'biuld'; it has Config, build\.") as caught:
        load_object(f"{tmp_path}/model.py:biuld")
    assert "math" not in str(caught.value)
    sys.modules.pop("beside")


def test_load_object_from_a_module(tmp_path, monkeypatch):
    assert load_object("torch.nn.functional:relu") is torch.nn.functional.relu
    assert load_object("torch:nn.Linear") is torch.nn.Linear
    (tmp_path / "here_only.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    assert load_object("here_only:answer") == 42
    sys.modules.pop("here_only")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("model.py", "form file.py:name"),
        ("model.py:", "form file.py:name"),
        (":build", "form file.py:name"),
        ("absent.py:build", "no file"),
        ("no_such_module_at_all:build", "no module"),
        ("torch.nn.no_such_module:build", "no module"),
        ("torch:no_such_name", "has no 'no_such_name'"),
    ],
)
def test_load_object_errors(spec, says):
    with pytest.raises(SettingError, match=says):
        load_object(spec)


def test_load_object_from_a_file_that_fails(tmp_path):
    path_before, modules = list(sys.path), set(sys.modules)
    (tmp_path / "bad.py").write_text("def build():\n    pass\n\n1 / 0\n")
    with pytest.raises(SettingError, match="ZeroDivisionError: division by zero"):
        load_object(f"{tmp_path}/bad.py:build")
    (tmp_path / "worse.py").write_text("def build(:\n")
    with pytest.raises(SettingError, match="SyntaxError"):
        load_object(f"{tmp_path}/worse.py:build")
    (tmp_path / "lacking.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(SettingError, match="cannot be loaded: ModuleNotFoundError"):
        load_object(f"{tmp_path}/lacking.py:build")
    assert sys.path == path_before
    assert not {name for name in set(sys.modules) - modules if name.startswith("_stratoscope")}


@pytest.mark.parametrize(
    ("keys", "splits"),
    [
        (("x", "y"), {"data"}),
        (("images", "labels"), {"data"}),
        (("arr_0", "arr_1"), {"data"}),
        (("train_x", "train_y"), {"train"}),
        (("x_train", "y_train"), {"train"}),
        (("val.inputs", "val.targets"), {"val"}),
        (("test/images", "test/label"), {"test"}),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_read_data_recognises_names(tmp_path, keys, splits, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez(path, **dict(zip(keys, (X.numpy(), Y.numpy()), strict=True)), names=np.array(["a", "b"]))
    else:
        save_file(dict(zip(keys, (X, Y), strict=True)), path)
    for found in (as_splits(read_data(str(path))), as_splits(path)):
        assert set(found) == splits
        (split,) = found.values()
        drawn = split.probe(20, 0, 8)
        assert torch.equal(inputs(drawn), X[drawn.ids])
        assert torch.equal(labels(drawn), Y[drawn.ids])


def test_read_data_several_splits_and_names_of_hugging_face(tmp_path):
    ids = X.long().numpy()
    np.savez(
        tmp_path / "a.npz", input_ids_train=ids, attention_mask_train=ids > 0, labels_train=Y, validation_input_ids=ids[:9],
        validation_attention_mask=ids[:9] > 0,
    )  # fmt: skip
    found = as_splits(read_data(str(tmp_path / "a.npz")))
    assert list(found) == ["train", "val"]
    assert set(found["train"].probe(9, 0, 9).batches[0].kwargs) == {"input_ids", "attention_mask", "labels"}
    np.savez(tmp_path / "b.npz", x=ids, y_train=Y)
    with pytest.raises(DataError, match="only some of these names"):
        read_data(str(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", names=np.array(["a"]))
    with pytest.raises(DataError, match="no arrays of numbers"):
        read_data(str(tmp_path / "c.npz"))


def test_read_data_pictures(tmp_path):
    for split in ("train", "valid"):
        for at, name in enumerate(("cat", "dog")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.fromarray(np.full((2, 3, 3), 51 * at, np.uint8)).save(folder / "0.png")
    found = read_data(str(tmp_path))
    assert set(found) == {"train", "val"}
    pictures, classes = found["val"]
    assert pictures.shape == (2, 3, 2, 3)
    torch.testing.assert_close(pictures[1], torch.full((3, 2, 3), 0.2))
    assert classes.tolist() == [0, 1]
    plain, _ = read_data(str(tmp_path / "train"))
    assert torch.equal(plain, pictures)
    (tmp_path / "train" / "dog").rename(tmp_path / "train" / "fish")
    with pytest.raises(DataError, match="different classes"):
        read_data(str(tmp_path))


def test_read_data_tables_and_functions(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,class\n1,2,x\n3,4,y\n")
    table, classes = read_data(str(tmp_path / "a.csv"))
    assert table.tolist() == [[1, 2], [3, 4]]
    assert classes.tolist() == [0, 1]
    (tmp_path / "load.py").write_text(
        "import torch\nREADY = (torch.zeros(4, 2), torch.zeros(4))\n\n\ndef data():\n    return {'train': READY}\n\n\n"
        "def broken():\n    raise RuntimeError('no disk')\n"
    )
    assert list(as_splits(read_data(f"{tmp_path}/load.py:data"))) == ["train"]
    assert as_splits(read_data(f"{tmp_path}/load.py:READY"))["data"].probe(4, 0, 4).n == 4
    with pytest.raises(DataError, match="RuntimeError: no disk"):
        read_data(f"{tmp_path}/load.py:broken")


@pytest.mark.parametrize(
    ("name", "says"),
    [("a.pt", "may hold code"), ("a.pkl", "may hold code"), ("a.txt", "no data file"), ("a.npz", "npz")],
)
def test_read_data_of_other_files(tmp_path, name, says):
    (tmp_path / name).write_bytes(b"whatever")
    with pytest.raises(DataError, match=says):
        read_data(str(tmp_path / name))
    with pytest.raises(DataError, match="no file or folder"):
        read_data(str(tmp_path / "absent"))


def test_read_data_real_packed_jpegs(data_folder):
    found = as_splits(read_data(str(data_folder / "cifar10" / "train8k_jpeg.npz")))["data"].probe(64, 0, 32)
    assert found.batches[0].args[0].shape == (32, 3, 32, 32)
    assert 0 <= float(inputs(found).min()) < float(inputs(found).max()) <= 1
    assert found.how == "64 of 8,000 examples drawn with seed 0"


def test_pairs_and_datasets_are_splits_by_any_name():
    x, y = torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64)
    for value in ((x, y), TensorDataset(x, y), DataLoader(TensorDataset(x, y))):
        # "target" is also a name of labels
        splits = as_splits({"source": value, "target": value})
        assert list(splits) == ["source", "target"]
        assert splits["target"].probe(3, 0, 2).batches[0].labels is not None
    assert list(as_splits({"inputs": (x, x), "labels": y})) == ["data"]


@pytest.mark.parametrize("key", ["src_key_padding_mask", "key_padding_mask"])
def test_padding_as_torch_says_it_is_a_mask_too(key):
    padding = torch.arange(4)[None] >= torch.tensor([4, 2, 1])[:, None]
    given = {"src": torch.zeros(3, 4, 2), key: padding, "labels": torch.zeros(3, dtype=torch.int64)}
    (batch,) = as_splits(given)["data"].probe(3, 0, 3).batches
    assert torch.equal(batch.mask, ~batch.kwargs[key])
    assert sorted(batch.mask.sum(1).tolist()) == [1, 2, 4]
    # an additive mask does not say which tokens are padding
    given[key] = torch.zeros(3, 4)
    assert as_splits(given)["data"].probe(3, 0, 3).batches[0].mask is None
