"""Twins: the same output, other statistics; or a reason."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from stratoscope.errors import SettingError, SubjectError
from stratoscope.observe.twin_table import linear_readout
from stratoscope.observe.twins import TARGETS, identical_output

CLASSES = 4
GENERAL = ("whiten", "correlate", "rotate")
EVERY = {"rescale", "permute"}


def filled(net, seed=0):
    """Seeded weights; batch norms with statistics of their own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            size = tensor[0].numel() ** 0.5 if tensor.ndim > 1 else 3.0
            tensor.copy_(
                torch.randn(tensor.shape, generator=generator) / size + (tensor.ndim == 1 and "bias" not in name)
            )
        for name, tensor in net.named_buffers():
            if "running" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.2)
    return net


def vectors(n=120, width=10, seed=1):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    return 2 * F.one_hot(labels, width) + torch.randn(n, width, generator=generator), labels


def pictures(n=40, seed=1):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    return torch.randn(n, 3, 8, 8, generator=generator) + labels[:, None, None, None], labels


def mlp(between=nn.ReLU):
    return filled(nn.Sequential(nn.Linear(10, 9), between(), nn.Linear(9, 8), nn.Dropout(0.5), nn.Linear(8, CLASSES)))


class Convolutions(nn.Module):
    """Functions and modules, flattening with positions, batch norm on both sides."""

    def __init__(self, pool="flatten"):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, 3)
        self.norm2 = nn.BatchNorm2d(5)
        self.pool = pool
        self.head = nn.Linear({"flatten": 45, "gap": 5}[pool], CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x)), inplace=True), 2, padding=1)
        x = self.norm2(self.conv2(x))
        x = x.view(len(x), -1) if self.pool == "flatten" else F.dropout(x, training=self.training).mean((2, 3))
        return {"logits": self.head(x)}


def check(net, layer, data, target, **more):
    before = copy.deepcopy(net.state_dict())
    twin = identical_output(net, layer, data, target=target, **more)
    assert twin.difference_float64 < 1e-10 * max(1.0, twin.difference / twin.relative if twin.relative else 1.0)
    assert not [name for name, row in twin.table.items() if row.stays and row.changed], str(twin)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    assert not {t.data_ptr() for t in net.parameters()} & {t.data_ptr() for t in twin.model.parameters()}
    assert [(n, t.shape) for n, t in net.named_parameters()] == [(n, t.shape) for n, t in twin.model.named_parameters()]
    return twin


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_layer_before_a_linear_layer_has_every_twin(target, dtype):
    net, (x, y) = mlp().to(dtype), vectors()
    twin = check(net, "2", (x.to(dtype), y), target)
    assert twin.relative < (1e-10 if dtype == torch.float64 else 1e-4)
    net.eval()
    assert torch.allclose(twin.model(x.to(dtype)), net(x.to(dtype)), atol=1e-4, rtol=0)
    hidden, other = net[:3](x.to(dtype)), twin.model[:3](x.to(dtype))
    assert torch.allclose(twin.change(hidden), other.double(), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(hidden, other, atol=0.1)
    assert twin.n == 120


CHANGES = {  # what almost every map of this kind must change, and does here
    "whiten": {"correlation", "variance", "stable_rank", "stable_rank_centred", "cka", "gdv", "nc1", "kernel_information", "class_correlation", "class_variance", "class_stable_rank_centred"},
    "correlate": {"correlation", "variance", "stable_rank", "cka", "gdv", "nc1", "kernel_information", "class_correlation"},
    "rotate": {"correlation", "gdv", "class_correlation"},
    "rescale": {"variance", "stable_rank", "cka", "nc1", "kernel_information", "binned_information", "class_variance"},
    "permute": set(),
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_the_table_says_what_changed_and_theory_what_must_not(target):
    twin = check(mlp(), "2", vectors(400), target)
    changed = {name for name, row in twin.table.items() if row.changed}
    assert changed >= CHANGES[target], str(twin)
    if target == "permute":
        assert changed == set()
    assert "linear_readout" in twin.table
    assert all(
        row.stays
        for name, row in twin.table.items()
        if name in ("rank_centred", "linear_readout", "class_rank_centred")
    )
    assert f"{target} at 2" in str(twin)


def test_whitened_units_are_uncorrelated_and_correlated_ones_are_as_asked():
    white = check(mlp(), "2", vectors(), "whiten").table
    assert white["correlation"].after < 1e-6
    assert white["variance"].after == pytest.approx(1.0, rel=1e-6)
    alike = check(mlp(), "2", vectors(), "correlate", correlation=0.7).table
    assert alike["correlation"].after == pytest.approx(0.7, abs=1e-6)


def test_few_units_keep_their_collapse_under_every_map():
    net = filled(nn.Sequential(nn.Linear(10, CLASSES - 1), nn.Linear(CLASSES - 1, CLASSES)))
    for target in GENERAL:
        row = check(net, "0", vectors(), target).table["nc1"]
        assert row.stays
        assert not row.changed


def test_class_means_that_do_not_span_the_units_promise_nothing_of_their_collapse():
    net = filled(nn.Sequential(nn.Linear(10, 3), nn.Linear(3, CLASSES)))
    with torch.no_grad():
        net[0].weight[2] = net[0].weight[1]
    assert not check(net, "0", vectors(), "rescale").table["nc1"].stays


def test_classes_of_one_example_do_not_count_as_classes():
    net = filled(nn.Sequential(nn.Linear(10, 3), nn.Linear(3, CLASSES)))
    x, y = vectors()
    one = torch.cat([(y == c).nonzero()[: 1 if c == 0 else 20, 0] for c in range(CLASSES)])
    assert not check(net, "0", (x[one], y[one]), "correlate").table["nc1"].stays
    assert check(net, "0", (x, y), "correlate").table["nc1"].stays


def test_a_shift_changes_the_raw_rank_of_what_lies_off_the_origin():
    # eight units that are seven and a constant: a plane off the origin has full rank, around its mean it has not
    net = mlp()
    with torch.no_grad():
        net[2].weight[0] = 0.0
    table = check(net, "2", vectors(), "whiten").table
    assert (table["rank"].before, table["rank"].after) == (8, 7)
    assert (table["rank_centred"].before, table["rank_centred"].after) == (7, 7)
    assert not table["rank"].stays


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("layer", ["0", "1"])
def test_a_rectifier_lets_factors_and_orders_pass_and_nothing_else(target, layer):
    if target in EVERY:
        check(mlp(), layer, vectors(), target)
        return
    with pytest.raises(SubjectError, match=r"relu lies between .* \(rescale, permute\)"):
        identical_output(mlp(), layer, vectors(), target=target)


@pytest.mark.parametrize("between", [nn.Tanh, nn.GELU, nn.ReLU6, nn.SiLU, nn.Sigmoid])
def test_a_function_of_single_numbers_lets_orders_pass_and_nothing_else(between):
    check(mlp(between), "1", vectors(), "permute")
    for target in ("rescale", "whiten"):
        with pytest.raises(SubjectError, match=r"\(permute\)"):
            identical_output(mlp(between), "1", vectors(), target=target)


@pytest.mark.parametrize("between", [nn.LeakyReLU, nn.PReLU, lambda: nn.ReLU(inplace=True), lambda: nn.Sequential(nn.Dropout(), nn.ReLU(), nn.Identity())])  # fmt: skip
def test_other_functions_that_factors_pass(between):
    for target in EVERY:
        check(mlp(between), "0", vectors(), target)


@pytest.mark.parametrize("pool", ["flatten", "gap"])
@pytest.mark.parametrize("target", TARGETS)
def test_convolutions_with_batch_norm_between_maps_and_flattening(pool, target):
    for layer in ("conv2", "norm2"):
        check(filled(Convolutions(pool)), layer, pictures(), target)
    if target in EVERY:
        for layer in ("conv1", "norm1"):
            twin = check(filled(Convolutions(pool)), layer, pictures(), target)
            assert twin.notes
    else:
        with pytest.raises(SubjectError, match=r"(relu|max_pool2d) lies between"):
            identical_output(filled(Convolutions(pool)), "norm1", pictures(), target=target)


def test_a_batch_norm_is_taken_into_the_maps_and_the_layer_behind_it_gets_what_was_asked():
    table = check(filled(Convolutions()), "norm2", pictures(), "whiten").table
    assert table["correlation"].after < 1e-6
    assert table["variance"].after == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norms_without_gains_and_several_of_them(affine):
    net = filled(
        nn.Sequential(
            nn.Linear(10, 6), nn.BatchNorm1d(6, affine=affine), nn.BatchNorm1d(6), nn.Linear(6, 5), nn.ReLU(),
            nn.BatchNorm1d(5, affine=affine), nn.Linear(5, CLASSES),
        )
    )  # fmt: skip
    for layer in ("0", "1", "2"):
        for target in TARGETS:
            check(net, layer, vectors(), target)
    for target in EVERY:
        check(net, "5", vectors(), target)


ODD_MAPS = {
    "a border of zeros keeps the mean": nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3, padding=1), nn.Flatten(), nn.Linear(320, 4)),
    "no bias keeps the mean": nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(180, 4)),
    "strides and dilation": nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 5, 2, dilation=2), nn.Flatten(), nn.Linear(5, 4)),
    "reflected border": nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(320, 4)),
    "transposed": nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.ConvTranspose2d(4, 5, 3), nn.Flatten(), nn.Linear(605, 4)),
    "averages": nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(2, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4)),
    "upsampling": nn.Sequential(nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(392, 4)),
    "unflattened": nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 4, 1), nn.Flatten()),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_MAPS)
def test_maps_of_every_kind(name):
    net = filled(copy.deepcopy(ODD_MAPS[name]))
    for target in TARGETS:
        twin = check(net, "0", pictures(), target)
        if "keeps the mean" in name and target == "whiten":
            assert any(note.startswith("Means are kept") for note in twin.notes)
            assert not twin.change.shifts


class Tokens(nn.Module):
    """Sequences: units last, several readers, axes exchanged."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 6)
        self.query, self.key = nn.Linear(6, 4), nn.Linear(6, 4)
        self.mix = nn.Conv1d(6, 2, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.embed(x.flatten(2).transpose(1, 2)[:, :5])
        other = self.mix(x.permute(0, 2, 1)).flatten(1)
        weights = (self.query(x) @ self.key(x).mT).softmax(-1)
        return self.head(torch.cat([weights.mean(1), weights.amax(1), other[:, :6]], 1))


def test_units_of_sequences_are_followed_to_all_their_readers():
    for target in TARGETS:
        check(filled(Tokens()), "embed", pictures(), target)


class Shortcut(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, CLASSES)

    def forward(self, x):
        x = self.first(x)
        return self.head(x + self.second(x))


class Shared(Shortcut):
    def forward(self, x):
        return self.head(self.first(self.first(x)))


class SharedReader(Shortcut):
    def forward(self, x):
        return self.head(self.second(self.first(x)) * 0.5) + self.head(self.second(x))


class Features(Shortcut):
    def forward(self, x):
        x = self.second(x)
        return self.head(x), x


class Norms(Shortcut):
    def forward(self, x):
        return self.head(F.layer_norm(self.second(x), (10,)))


class Drops(Shortcut):
    def forward(self, x):
        return self.head(F.dropout(self.second(x)))


class Depends(Shortcut):
    def forward(self, x):
        x = self.second(x)
        return self.head(x if x.sum().item() > 0 else -x)


class Changes(Shortcut):
    def forward(self, x):
        x = self.second(x)
        x[:, 0] = 1.0
        return self.head(x)


def weight_normed():
    net = Shortcut()
    net.forward = lambda x: net.head(net.second(x))
    return net


def reader_with_norm():
    return nn.Sequential(nn.Linear(10, 9), parametrizations.weight_norm(nn.Linear(9, CLASSES)))


REFUSED = {
    "a shortcut": (Shortcut(), "first", "joins it with another value"),
    "a layer of several calls": (Shared(), "first", "called 2 times"),
    "a shared reader": (SharedReader(), "second", "called 2 times"),
    "what is returned": (Features(), "second", "what the network returns"),
    "the output": (mlp(), "4", "what the network returns"),
    "layer norm": (Norms(), "second", "layer_norm reads it"),
    "dropout at work": (Drops(), "second", "dropout is at work"),
    "numbers that are looked at": (Depends(), "second", "sum reads it"),
    "single units that are overwritten": (Changes(), "second", "__setitem__ reads it"),
    "the input": (nn.Sequential(nn.Identity(), nn.Linear(10, 4)), "0", "no linear map of the network makes it"),
    "a computed weight of the reader": (reader_with_norm(), "0", "computed as the network runs"),
    "a computed weight of the maker": (nn.Sequential(parametrizations.weight_norm(nn.Linear(10, 9)), nn.Linear(9, 4)), "0", "computed as the network runs"),
    "a layer never called": (nn.ModuleDict({"used": nn.Linear(10, 4), "never": nn.Linear(10, 4)}), "never", "never"),
    "batch statistics": (nn.Sequential(nn.Linear(10, 9), nn.BatchNorm1d(9, track_running_stats=False), nn.Linear(9, 4)), "0", "without running statistics"),
    "softmax": (nn.Sequential(nn.Linear(10, 9), nn.Softmax(-1), nn.Linear(9, 4)), "0", "softmax reads it"),
    "recurrence": (nn.Sequential(nn.Linear(10, 9), nn.GRUCell(9, 9), nn.Linear(9, 4)), "0", "gru_cell"),
    "dead gains": (nn.Sequential(nn.Linear(10, 9), nn.BatchNorm1d(9), nn.Linear(9, 4)), "0", "gain of 0"),
    "slopes of each unit": (nn.Sequential(nn.Linear(10, 9), nn.PReLU(9), nn.Linear(9, 4)), "0", "slope of its own"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_twin_is_refused_with_the_reason(name):
    net, layer, says = REFUSED[name]
    if isinstance(net, nn.ModuleDict):
        net.forward = net["used"].forward
        says = "not called"
    filled(net)
    if name == "dead gains":
        with torch.no_grad():
            net[1].weight[3] = 0.0
    before = {key: value.clone() for key, value in net.state_dict().items()}
    target = "permute" if name == "slopes of each unit" else "rotate"
    with pytest.raises(SubjectError, match=says):
        identical_output(net, layer, vectors(), target=target)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize(("net", "layer", "says"), [
    (nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3, groups=2), nn.Flatten(), nn.Linear(144, 4)), "0", "groups reads it"),
    (nn.Sequential(nn.Conv2d(3, 6, 1, groups=3), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(144, 4)), "0", "groups makes it"),
    (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(216, 4)), "1", "216 numbers for 6 units"),
    (nn.Sequential(nn.Conv2d(3, 6, 1), nn.Linear(8, 4), nn.Flatten(), nn.Linear(192, 4)), "0", "another axis"),
    (nn.Sequential(nn.Conv2d(3, 6, 1), nn.Flatten(2), nn.Linear(64, 4), nn.Flatten()), "0", "another axis"),
])  # fmt: skip
def test_maps_that_do_not_read_all_units_alike_are_refused(net, layer, says):
    with pytest.raises(SubjectError, match=says):
        identical_output(filled(net), layer, pictures(), target="rotate")


def test_the_reader_that_two_places_share_is_refused():
    class Twice(Shortcut):
        def forward(self, x):
            return self.head(self.second(x)) + self.head(x)

    with pytest.raises(SubjectError, match="shared with another place"):
        identical_output(filled(Twice()), "second", vectors(), target="rotate")


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(half):
    net, (x, y) = mlp().to(half), vectors()
    twin = identical_output(net, "2", (x.to(half), y), target="whiten")
    assert next(twin.model.parameters()).dtype == torch.float32
    assert twin.relative < 1e-4
    assert any("half precision" in note for note in twin.notes)
    assert next(net.parameters()).dtype == half


def test_the_model_keeps_its_mode_its_hooks_and_the_global_generator():
    net = mlp().train()
    net[2].register_forward_hook(lambda *_: None)
    state = torch.get_rng_state()
    twin = identical_output(net, "2", vectors())
    assert torch.equal(state, torch.get_rng_state())
    assert net.training
    assert net[3].training
    assert not twin.model.training
    assert len(net[2]._forward_hooks) == 1


def test_a_seed_gives_the_same_twin_and_another_seed_another():
    one, two, three = (
        identical_output(mlp(), "2", vectors(), target="rotate", seed=s).model[2].weight for s in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_data_without_labels_and_of_one_class_leave_out_what_needs_classes():
    x, y = vectors()
    assert "gdv" not in identical_output(mlp(), "2", x).table
    assert "gdv" not in identical_output(mlp(), "2", (x, torch.zeros_like(y))).table
    assert "gdv" in identical_output(mlp(), "2", {"test": (x, y)}).table


def test_units_that_do_not_vary_are_no_trouble():
    net, (x, y) = mlp(), vectors()
    with torch.no_grad():
        net[2].weight[:3] = 0.0
    for target in TARGETS:
        check(net, "2", (x, y), target)
        check(net, "2", (x[:3], y[:3]), target)


def test_wrong_use_says_what_to_do():
    net, data = mlp(), vectors()
    with pytest.raises(SettingError, match="no target 'bleach'; there are whiten"):
        identical_output(net, "2", data, target="bleach")
    with pytest.raises(SettingError, match="no layer 'fc'; there are 0, 1"):
        identical_output(net, "fc", data)
    with pytest.raises(SettingError, match="cannot be made to correlate"):
        identical_output(net, "2", data, target="correlate", correlation=2.0)
    with pytest.raises(SettingError, match="cannot be made to rescale"):
        identical_output(net, "2", data, target="rescale", spread=0.0)
    with pytest.raises(SubjectError, match="two examples"):
        identical_output(net, "2", (data[0][:1], data[1][:1]))
    with pytest.raises(SubjectError, match="none were given"):
        identical_output(net, "2", None)
    constant = mlp()
    with torch.no_grad():
        constant[2].weight.zero_()
    with pytest.raises(SettingError, match="No unit varies"):
        identical_output(constant, "2", data)


def test_rounding_that_would_show_is_an_error():
    net = mlp()
    with torch.no_grad():  # two units that are nearly one
        net[2].weight[0] = net[2].weight[1] * (1 + 1e-6)
        net[2].bias[0] = net[2].bias[1]
    with pytest.raises(SubjectError, match="give a smaller condition"):
        identical_output(net, "2", vectors(), condition=1e12)
    assert identical_output(net, "2", vectors()).relative < 1e-4


def test_the_linear_readout_is_the_square_of_the_correlation_for_one_unit():
    x, y = vectors()
    labels = (y > 1).long()
    r = torch.corrcoef(torch.stack([x[:, 0], labels.float()]))[0, 1]
    assert linear_readout(x[:, :1], labels) == pytest.approx(float(r) ** 2, rel=1e-5)
    assert linear_readout(torch.eye(6), torch.arange(6) % 2) == pytest.approx(1.0)
