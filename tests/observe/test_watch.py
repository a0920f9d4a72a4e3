import itertools
import math
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stratoscope import NotApplicable, Record, examine, quantity, watch
from stratoscope.capture.needs import Initial, Previous
from stratoscope.capture.weights import Weights
from stratoscope.errors import RecordError, SettingError, SubjectError
from stratoscope.findings import Outcome
from stratoscope.instruments.base import LayerInstrument, NetworkInstrument
from stratoscope.instruments.registry import choose
from stratoscope.instruments.training import Training
from stratoscope.observe.judging import rejudge
from stratoscope.observe.live import SilentWatch
from stratoscope.observe.settings import Settings


def problem(seed=0, n=120):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=rng)
    y = (x[:, :3].sum(1) > 0).long()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, x, y


def train(w, model, optimizer, x, y, steps, first=1, after=None):
    for i in range(first, first + steps):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        w.step(i, loss=loss)
        if after:
            after(i)
    return loss


def watched(folder, steps=20, **options):
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"budget": math.inf, "every": 5, **options}
    with watch(model, {"train": (x, y)}, optimizer=optimizer, to=folder, **options) as w:
        train(w, model, optimizer, x, y, steps)
    return Record.open(folder), model


def test_every_step_is_recorded_and_full_measurements_follow_the_schedule(tmp_path):
    record, _ = watched(tmp_path / "run")
    assert record["training"]["loss"].coords["step"].values.tolist() == list(range(1, 21))
    assert record["performance"]["loss"].coords["step"].values.tolist() == [0, 5, 10, 15, 20]
    assert record.meta["status"] == "finished"
    assert set(record.keys()) >= {"training", "performance", "units", "weights", "separation"}


def test_update_ratio_is_learning_rate_times_gradient_over_weight_for_plain_sgd(tmp_path):
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weights = []
    with watch(model, optimizer=optimizer, to=tmp_path / "run", budget=math.inf) as w:
        for i in range(1, 4):
            weights.append(model[0].weight.detach().norm().item())
            train(w, model, optimizer, x, y, 1, first=i)
    training = Record.open(tmp_path / "run")["training"]
    ratio = training["update_ratio"].sel(param="0.weight").values
    norm = training["gradient_norm"].sel(param="0.weight").values
    np.testing.assert_allclose(ratio, 0.1 * norm / np.array(weights), rtol=1e-4)
    assert training["learning_rate"].values.tolist() == [0.1, 0.1, 0.1]


def test_watching_does_not_change_what_is_learned(tmp_path):
    _, seen = watched(tmp_path / "run")
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), seen.parameters(), strict=True))


def test_a_loop_that_counts_from_zero_is_shifted_by_one(tmp_path):
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer=optimizer, to=tmp_path / "run", budget=math.inf) as w:
        train(w, model, optimizer, x, y, 3, first=0)
    record = Record.open(tmp_path / "run")
    assert record["training"]["loss"].coords["step"].values.tolist() == [1, 2, 3]
    assert record["weights"]["frobenius_norm"].coords["step"].values.tolist()[0] == 0


def test_with_nothing_but_a_model(tmp_path):
    model, _, _ = problem()
    with watch(model, to=tmp_path / "run") as w:
        w.step()
        w.step(loss=1.5)
    record = Record.open(tmp_path / "run")
    assert "weights" in record.keys()
    reasons = {c.reason for c in record.coverage() if c.instrument == "units"}
    assert any("data" in reason for reason in reasons)


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    watched(tmp_path / "run", steps=2)
    with pytest.raises(RecordError, match="resume"):
        watched(tmp_path / "run", steps=2)


def test_resume_goes_on_and_replaces_later_steps(tmp_path):
    watched(tmp_path / "run", steps=6)
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(
        model, {"train": (x, y)}, optimizer=optimizer, to=tmp_path / "run", budget=math.inf, every=5, resume=True
    ) as w:
        train(w, model, optimizer, x, y, 4, first=7)
    record = Record.open(tmp_path / "run")
    assert record["training"]["loss"].coords["step"].values.tolist() == list(range(1, 11))


def test_resume_from_a_checkpoint_replaces_what_came_after_it(tmp_path):
    watched(tmp_path / "run", steps=9)
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with watch(model, optimizer=optimizer, to=tmp_path / "run", budget=math.inf, resume=4) as w:
        train(w, model, optimizer, x, y, 2, first=5)
    training = Record.open(tmp_path / "run")["training"]
    assert training["loss"].coords["step"].values.tolist() == [1, 2, 3, 4, 5, 6]
    assert training["learning_rate"].values.tolist() == [0.1] * 4 + [0.5] * 2
    with pytest.raises(SettingError, match="ends at 6"), watch(model, to=tmp_path / "run", resume=7):
        pass


def test_loss_and_rate_are_recorded_at_every_step_however_small_the_budget(tmp_path):
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer=optimizer, to=tmp_path / "run", budget=1e-9) as w:
        train(w, model, optimizer, x, y, 80)
    training = Record.open(tmp_path / "run")["training"]
    assert training["loss"].sizes["step"] == training["learning_rate"].sizes["step"] == 80
    assert 50 <= int(np.isfinite(training["gradient_norm"].values).all(1).sum()) < 60


def test_a_loss_without_an_optimizer_is_recorded_too(tmp_path):
    model, _, _ = problem()
    with watch(model, to=tmp_path / "run", budget=math.inf) as w:
        w.step(loss=2.0)
    assert Record.open(tmp_path / "run")["training"]["loss"].values.tolist() == [2.0]


def test_steps_must_not_go_backwards(tmp_path):
    model, _, _ = problem()
    with watch(model, to=tmp_path / "run") as w:
        w.step(5)
        with pytest.raises(SettingError, match="backwards"):
            w.step(3)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"loss": torch.ones(3)}, r"loss has shape \(3,\)"),
        ({"loss": "low"}, "loss must be one number"),
        ({"i": 2.5}, "whole number"),
        ({"i": "2"}, "whole number"),
    ],
)
def test_a_step_that_is_none_is_refused_and_counts_nothing(tmp_path, given, says):
    with watch(problem()[0], to=tmp_path / "run", only=["training"]) as w:
        with pytest.raises(SettingError, match=says):
            w.step(**given)
        with pytest.raises(SettingError, match="acc has shape"):
            w.log("acc", torch.ones(2))
        w.step(np.int64(1), loss=np.float32(2))
        w.step(torch.tensor(2), loss=torch.ones(1, 1, requires_grad=True))
    assert w.record["training"]["loss"].coords["step"].values.tolist() == [1, 2]


def test_a_watch_that_has_ended_takes_no_steps(tmp_path):
    with watch(problem()[0], to=tmp_path / "run", only=["training"]) as w:
        w.step(1, loss=1.0)
    for late in (lambda: w.step(2, loss=1.0), w.step, lambda: w.log("x", 1.0)):
        with pytest.raises(RecordError, match="has ended"):
            late()
    assert w.record.steps == (1,)


def test_an_optimizer_of_another_model_is_noticed(tmp_path):
    model, other = problem()[0], problem()[0]
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    with (
        pytest.warns(UserWarning, match="no param of this Sequential"),
        watch(model, optimizer=optimizer, to=tmp_path / "r"),
    ):
        pass


def test_own_numbers_are_kept(tmp_path):
    model, _, _ = problem()
    with watch(model, to=tmp_path / "run") as w:
        w.step(1)
        w.log("perplexity", torch.tensor(3.5))
    assert Record.open(tmp_path / "run")["logged"]["perplexity"].values.tolist() == [3.5]


@dataclass(frozen=True)
class Broken(LayerInstrument):
    """Fails always. arXiv:0000.00000."""

    key, title, source = "broken", "Broken", "arXiv:0000.00000"
    codes: ClassVar = {"BX001": "nothing"}

    @property
    def requires(self):
        return {Weights()}

    def measure_layer(self, view):
        raise ZeroDivisionError("on purpose")

    def judge(self, measured):
        yield from ()


def test_an_instrument_that_raises_is_a_failed_finding_and_training_goes_on(tmp_path):
    record, _ = watched(tmp_path / "run", instruments=[Broken(), *choose(only=["weights"])])
    (failed, *more) = [f for f in record.findings if f.outcome == "failed"]
    assert failed.code == "BX000"
    assert "on purpose" in failed.says
    assert record["weights"]["stable_rank"].sizes["step"] == 5


@dataclass(frozen=True)
class Travel(LayerInstrument):
    """Distance from step 0 and from the previous measurement. arXiv:1808.01204."""

    key, title, source = "travel", "Travel", "arXiv:1808.01204"
    codes: ClassVar = {"TV001": "far"}

    @property
    def requires(self):
        return {Weights(), Initial(Weights())}

    @property
    def uses(self):
        return {Previous(Weights())}

    def measure_layer(self, view):
        now, first, last = view[Weights()], view[Initial(Weights())], view.get(Previous(Weights()))
        if "0.weight" not in now:
            raise NotApplicable("another layer")
        found = {"far": quantity((now["0.weight"] - first["0.weight"]).norm(), units="1", long_name="from step 0")}
        if last is not None:
            step = (now["0.weight"] - last["0.weight"]).norm()
            found["step_length"] = quantity(step, units="1", long_name="from the last measurement")
        return found

    def judge(self, measured):
        yield from ()


def test_initial_and_previous_weights_are_those_of_their_time(tmp_path):
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    at = {0: model[0].weight.detach().clone()}
    with watch(model, optimizer=optimizer, to=tmp_path / "run", budget=math.inf, every=2, instruments=[Travel()]) as w:
        train(w, model, optimizer, x, y, 5, after=lambda i: at.update({i: model[0].weight.detach().clone()}))
    travel = Record.open(tmp_path / "run")["travel"]
    steps = travel["far"].coords["step"].values.tolist()
    assert steps == [0, 2, 4, 5]
    np.testing.assert_allclose(
        travel["far"].sel(layer="0").values, [float((at[s] - at[0]).norm()) for s in steps], rtol=1e-6
    )
    np.testing.assert_allclose(
        travel["step_length"].sel(layer="0").dropna("step").values,
        [float((at[b] - at[a]).norm()) for a, b in itertools.pairwise(steps)],
        rtol=1e-6,
    )


def test_bad_data_are_a_failed_finding_not_the_end_of_the_training(tmp_path):
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, {"train": (x[:, :4], y)}, optimizer=optimizer, to=tmp_path / "run", budget=math.inf) as w:
        train(w, model, optimizer, x, y, 3)
    record = Record.open(tmp_path / "run")
    assert any(f.outcome == "failed" and "batch 0 of split 'train'" in f.says for f in record.findings)
    assert record["weights"]["stable_rank"].sizes["step"] > 1


def test_ctrl_c_keeps_what_was_measured(tmp_path):
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(KeyboardInterrupt), watch(model, optimizer=optimizer, to=tmp_path / "run", budget=math.inf) as w:
        train(w, model, optimizer, x, y, 4)
        raise KeyboardInterrupt
    record = Record.open(tmp_path / "run")
    assert record.meta["status"] == "interrupted"
    assert record["training"]["loss"].sizes["step"] == 4
    assert not optimizer._optimizer_step_pre_hooks


def test_muted_codes_are_marked(tmp_path):
    record, _ = watched(tmp_path / "run", settings=Settings(mute=("UN*",)))
    assert {f.outcome for f in record.findings if f.code.startswith("UN")} <= {"muted", "failed"}


def test_the_share_is_kept(tmp_path):
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, {"train": (x, y)}, optimizer=optimizer, to=tmp_path / "run", budget=0.2) as w:
        after_first = w.spent
        for i in range(1, 60):
            time.sleep(0.02)
            train(w, model, optimizer, x, y, 1, first=i)
        # step 0 is measured always; beyond it the budget holds
        assert w.spent - after_first <= 0.2 * 60 * 0.03 + 0.1 or w.share <= 0.2
        measured = w.record["performance"]["loss"].sizes["step"]
    assert measured < 59


def test_an_inert_watch_on_other_ranks(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    model, _, _ = problem()
    with watch(model, to=tmp_path / "run") as w:
        w.step(1, loss=0.1)
        w.log("x", 1.0)
    assert not (tmp_path / "run").exists()


CHILD = """
import math, sys, torch, torch.nn.functional as F
from stratoscope import watch
torch.manual_seed(0)
x = torch.randn(64, 6); y = (x[:, 0] > 0).long()
model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
opt = torch.optim.SGD(model.parameters(), lr=0.1)
with watch(model, {"train": (x, y)}, optimizer=opt, to=sys.argv[1], budget=math.inf, every=3,
           only=["training", "units", "performance"], resume=True) as w:
    first = int(sys.argv[2])
    print("ready", flush=True)
    for i in range(first, 10**9):
        loss = F.cross_entropy(model(x), y)
        opt.zero_grad(); loss.backward(); opt.step()
        w.step(i, loss=loss)
        print(w.committed, flush=True)
"""


@pytest.mark.slow
def test_kill_nine_twenty_times_loses_nothing_that_was_acknowledged(tmp_path):
    folder, rng = tmp_path / "run", np.random.default_rng(0)
    first = 1
    for _ in range(20):
        command = [sys.executable, "-c", textwrap.dedent(CHILD), str(folder), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(float(rng.uniform(0.02, 0.6)))
            child.send_signal(signal.SIGKILL)
            acknowledged = [int(line) for line in child.stdout.read().split("\n")[:-1]]
        safe = max(acknowledged, default=first - 1)
        record = Record.open(folder)
        steps = record["training"]["loss"].coords["step"].values.tolist() if safe >= 1 else []
        assert steps[:safe] == list(range(1, safe + 1))
        full = record["performance"]["loss"].coords["step"].values
        assert np.isfinite(record["performance"]["loss"].values).all()
        assert full[0] == 0
        first = max(record.steps) + 1
    assert first > 20


def test_findings_of_a_killed_run_can_be_made_from_what_was_saved(tmp_path):
    record, _ = watched(tmp_path / "run")
    again = rejudge(record, Settings())
    kept = [(f.code, f.layer, f.step) for f in record.findings]
    assert sorted(kept, key=str) == sorted(((f.code, f.layer, f.step) for f in again), key=str)
    strict = rejudge(record, Settings(instruments={"units": {"some_dead": 0.0, "dead_limit": 0.0}}))
    assert any(f.code == "UN001" and f.outcome == "issue" for f in strict)


def test_a_training_that_ends_before_its_second_measurement_gets_no_tips(tmp_path):
    torch.manual_seed(3)
    x, y = torch.randn(120, 6), torch.randint(0, 3, (120,))
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    only = ["separation", "performance", "units"]
    again = rejudge(examine(model, (x, y), only=only), Settings())
    assert {"SP001", "PF002"} <= {f.code for f in again if f.outcome is Outcome.TIP}
    with pytest.raises(MemoryError), watch(model, (x, y), to=tmp_path / "run", only=only):
        raise MemoryError
    found = Record.open(tmp_path / "run").findings
    assert not [f for f in found if f.outcome is Outcome.TIP]
    skipped = {f.code: f for f in found if f.outcome is Outcome.SKIPPED}
    assert {"SP001", "PF002"} <= set(skipped)
    assert skipped["SP001"].says.endswith("this is the network before training")
    assert "longer" not in skipped["SP001"].do
    with watch(model, (x, y), to=tmp_path / "whole", only=only) as w:
        w.step(1)
    assert "SP001" in {f.code for f in Record.open(tmp_path / "whole").findings if f.outcome is Outcome.TIP}


def test_a_network_instrument_may_give_a_dataset(tmp_path):
    import xarray as xr

    @dataclass(frozen=True)
    class Depth(NetworkInstrument):
        """Counts layers. arXiv:0000.00001."""

        key, title, source = "depth", "Depth", "arXiv:0000.00001"
        codes: ClassVar = {"DX001": "deep"}

        @property
        def requires(self):
            return {Weights()}

        def measure(self, seen):
            names = list(seen[Weights()])
            sizes = [1.0] * len(names)
            one = xr.DataArray(sizes, dims="layer", coords={"layer": names}, attrs={"units": "1", "long_name": "one"})
            return xr.Dataset({"one": one})

        def judge(self, measured):
            yield from ()

    record, _ = watched(tmp_path / "run", instruments=[Depth()])
    assert record["depth"]["one"].sel(layer="0").values.tolist() == [1.0] * 5


def test_no_warning_is_given_on_a_healthy_run(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watched(tmp_path / "run", steps=3)


def test_epochs_are_recorded(tmp_path):
    model, x, y = problem()
    with watch(model, (x, y), to=tmp_path / "run", every=1, budget=math.inf) as w:
        w.step(1, loss=0.5, epoch=0.25)
    rows = sqlite3.connect(tmp_path / "run" / "run.db").execute("SELECT DISTINCT step, epoch FROM frame ORDER BY step")
    assert rows.fetchall() == [(0, None), (1, 0.25)]


def test_ctrl_c_during_the_first_measurement_leaves_no_hook_and_closes_the_record(tmp_path):
    @dataclass(frozen=True)
    class Slow(LayerInstrument):
        key: ClassVar[str] = "slow"
        title: ClassVar[str] = "Slow"
        source: ClassVar[str] = "arXiv:0000.00000"
        codes: ClassVar[dict[str, str]] = {"SL001": "slow"}

        @property
        def requires(self):
            return {Weights()}

        def measure_layer(self, view):
            raise KeyboardInterrupt

        def judge(self, measured):
            return iter(())

    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"instruments": [Slow(), *choose(only=["training"])], "to": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt), watch(model, (x, y), optimizer=optimizer, **options):
        pass
    assert not optimizer._optimizer_step_pre_hooks
    assert Record.open(tmp_path / "run").meta["status"] == "interrupted"


def test_an_instrument_that_gives_something_else_fails_alone(tmp_path):
    @dataclass(frozen=True)
    class Odd(NetworkInstrument):
        key: ClassVar[str] = "odd"
        title: ClassVar[str] = "Odd"
        source: ClassVar[str] = "arXiv:0000.00000"
        codes: ClassVar[dict[str, str]] = {"OD001": "odd"}

        @property
        def requires(self):
            return {Weights()}

        def measure(self, seen):
            return {"number": 1.0}

        def judge(self, measured):
            return iter(())

    record = examine(problem()[0], instruments=[Odd(), *choose(only=["weights"])])
    assert list(record.keys()) == ["weights"]
    (failed,) = [f for f in record.findings if f.outcome == "failed"]
    assert "a mapping from names to quantities is wanted" in failed.says


def test_the_other_processes_of_a_distributed_training_may_ask_the_same():
    with SilentWatch() as w:
        w.step(1, loss=0.5)
        w.log("accuracy", 0.5)
    assert (w.share, w.spent, w.committed) == (0.0, 0.0, -1)
    with pytest.raises(RecordError, match="first process keeps the record"):
        _ = w.record


def test_a_state_dict_may_hold_other_things_and_tied_tensors_are_measured_once():
    tensor = torch.eye(3)
    record = examine(weights={"a.weight": tensor, "b.weight": tensor, "epoch": 3})
    assert record["weights"]["stable_rank"].coords["matrix"].values.tolist() == ["a.weight"]
    assert record.meta["name"] == "weights"


def test_why_an_instrument_was_not_measured_is_said_once_a_run(tmp_path):
    model, x, _ = problem()
    with watch(model, {"train": x, "test": x}, to=tmp_path / "run", every=1, budget=math.inf) as w:
        for i in range(1, 4):
            w.step(i, loss=1.0)
    found = [f for f in w.record.findings if f.code == "PF000"]
    assert [(f.outcome, f.split) for f in found] == [("not_applicable", "train"), ("not_applicable", "test")]
    assert all("no labels" in f.says for f in found)


def test_two_settings_of_one_instrument_are_kept_apart(tmp_path):
    from stratoscope.instruments.units import Units

    both = [Units(dead_limit=0.5), Units(dead_limit=0.0, some_dead=0.0), Units(dead_limit=0.5)]
    record, _ = watched(tmp_path / "run", instruments=both)
    assert list(record.keys()) == ["units:dead_limit=0.5,some_dead=0.1", "units:dead_limit=0.0,some_dead=0.0"]
    spoken = {f.instrument for f in record.findings if f.code == "UN001" and f.outcome == "issue"}
    assert spoken == {"units:dead_limit=0.0,some_dead=0.0"}
    assert [(f.code, f.instrument) for f in rejudge(record, Settings())] == [
        (f.code, f.instrument) for f in record.findings
    ]
    assert {c.label for c in record.coverage()} == {"dead_limit=0.5,some_dead=0.1", "dead_limit=0.0,some_dead=0.0"}


def test_every_param_is_covered_by_the_instruments_of_every_step(tmp_path):
    model, x, y = problem()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with watch(model, optimizer=optimizer, to=tmp_path / "run", budget=math.inf) as w:
        train(w, model, optimizer, x, y, 2)
    covered = {
        c.param: (c.status, c.reason) for c in Record.open(tmp_path / "run").coverage() if c.instrument == "training"
    }
    assert covered["0.weight"] == ("not_applicable", "no gradient reaches it")
    assert {name for name, (status, _) in covered.items() if status == "measured"} == {"0.bias", "2.weight", "2.bias"}


def two_nets():
    torch.manual_seed(0)
    return nn.ModuleDict({"g": nn.Linear(3, 4), "d": nn.Linear(4, 2)})


def test_several_optimizers_are_recorded_each_with_its_own_window(tmp_path):
    nets, x = two_nets(), torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    slow, fast = torch.optim.SGD(nets["g"].parameters(), lr=0.1), torch.optim.Adam(nets["d"].parameters(), lr=0.01)
    only = [Training(window=3)]
    with watch(nets, optimizer=[slow, fast], to=tmp_path / "run", budget=math.inf, instruments=only) as w:
        for i in range(1, 10):
            loss = nets["d"](nets["g"](x)).square().mean()
            nets.zero_grad()
            loss.backward()
            fast.step()
            if i % 2:
                slow.step()
            w.step(i, loss=loss)
    group = w.record["training"]
    norms = group["gradient_norm"]
    assert set(norms.coords["param"].values) == {"g.weight", "g.bias", "d.weight", "d.bias"}
    known = {name: np.flatnonzero(group.measured("gradient_norm").sel(param=name)) + 1 for name in ("g.bias", "d.bias")}
    assert known["d.bias"].tolist() == list(range(1, 10))
    assert known["g.bias"].tolist() == [1, 3, 5, 7, 9]
    snr = group.measured("gradient_snr")
    full = {name: snr.coords["step"].values[snr.sel(param=name).values].tolist() for name in ("g.bias", "d.bias")}
    assert full == {"g.bias": [5], "d.bias": [3, 6, 9]}
    rates = group["group_rate"]
    assert rates.coords["group"].values.tolist() == ["0:0", "1:0"]
    assert rates.values[-1].tolist() == [0.1, 0.01]


def test_groups_of_one_optimizer_have_their_rates_by_name(tmp_path):
    nets = two_nets()
    groups = [{"params": nets["g"].parameters(), "name": "body"}, {"params": nets["d"].parameters(), "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    with watch(nets, optimizer=optimizer, to=tmp_path / "run", budget=math.inf, only=["training"]) as w:
        nets["d"](nets["g"](torch.ones(2, 3))).sum().backward()
        optimizer.step()
        w.step(loss=1.0)
    rates = w.record["training"]["group_rate"]
    assert rates.sel(group="body").values.tolist() == [0.1]
    assert rates.sel(group="1").values.tolist() == [0.5]
    assert w.record["training"]["learning_rate"].values.tolist() == [0.1]


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(SubjectError, match=r"a torch\.optim\.Optimizer or a list of them, not str"):
        watch(two_nets(), optimizer=["sgd"])


def test_a_default_device_of_the_users_changes_nothing(tmp_path):
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    values = []
    for device in ("cpu", "meta"):
        torch.set_default_device(device)
        try:
            with watch(
                model, {"train": (x, y)}, optimizer=optimizer, to=tmp_path / device, budget=math.inf, every=1,
                only=["units", "separation", "performance", "training"],
            ) as w:  # fmt: skip
                F.cross_entropy(model(x), y).backward()
                w.step(loss=1.0)
        finally:
            torch.set_default_device(None)
        assert not [f for f in w.record.findings if f.outcome is Outcome.FAILED]
        values.append(w.record["separation"]["gdv"].values)
    np.testing.assert_array_equal(*values)
