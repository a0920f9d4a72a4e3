"""What health advice says of trainings that were broken on purpose, and of healthy ones: the manual's confusion table.

No peer. Each kind of run is trained with several seeds, on scikit-learn's handwritten digits or on generated sequences;
counted is in how many of them each code spoke. Which code has to name which fault was written down before any
run was made (`NAMED_BY`). One thread, about two seconds a run.

    python benchmarks/health.py                    # every kind of run, seeds 0 to 4
    python benchmarks/health.py --seeds 100 105    # other seeds, as those on which thresholds were chosen
    python benchmarks/health.py healthy            # the healthy ones alone; names of runs do, too
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope import watch
from stratoscope.diagnoses.health import Health
from stratoscope.findings import Finding
from stratoscope.instruments.performance import Performance
from stratoscope.instruments.spectrum import EigenvalueSpectrum
from stratoscope.instruments.training import Training
from stratoscope.instruments.units import Units
from stratoscope.instruments.weights import WeightMatrices
from stratoscope.observe.settings import Settings

NAMED_BY = {
    "rate x 100": "TR002",
    "rate x 100, batch norm": "TR002",
    "rate x 100, Adam": "TR002",
    "rate / 1000": "HE004",
    "dead units": "UN001",
    "units always on": "UN003",
    "vanishing gradients": "HE001",
    "exploding recurrent net": "HE002",
    "exploding recurrent net, rectified": "TR001",
    "loss spike: corrupted batch": "HE003",
    "loss spike: rate x 50": "HE003",
    "frozen layer": "HE005",
    "layer left out of the optimizer": "HE005",
    "stalled layer": "HE006",
    "weight decay too strong": "HE007",
    "weight decay too strong, Adam": "HE007",
    "rank collapse": "HE008",
    "label noise": "HE009",
    "few examples": "PF003",
    "layer that stays noise": "RM001",
    "nothing to learn": "PF002",
}
"""For each fault, the code that has to name it."""


Batch = tuple[Tensor, Tensor]
Data = dict[str, Batch]


@dataclass(frozen=True)
class Setup:
    """One training, ready to go.

    Attributes:
        model: the network.
        data: `train`, from which batches are drawn, and `test`.
        optimizer: made of the model.
        steps: optimizer steps.
        rate: factor on every learning rate at a step.
        batch: changes a batch at a step.
        penalty: added to the loss.
        clip: largest norm of a gradient.
    """

    model: nn.Module
    data: Data
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    steps: int = 300
    size: int = 32
    rate: Callable[[int], float] = lambda step: 1.0
    batch: Callable[[int, Tensor], Tensor] = lambda step, x: x
    penalty: Callable[[nn.Module], Tensor | float] = lambda model: 0.0
    clip: float = math.inf


@dataclass(frozen=True)
class Told:
    """What was said of one run, and how well it classified held-out examples at its end."""

    findings: tuple[Finding, ...] = field(repr=False)
    accuracy: float = math.nan

    @property
    def outcomes(self) -> dict[str, str]:
        """Every code that asks the reader to do something, and how strongly."""
        return {f.code: str(f.outcome) for f in self.findings if f.wants_action}


def run(setup: Setup, seed: int, folder: Path, health: Health | None = None) -> Told:
    """Train, watched, and give what was said."""
    model, optimizer = setup.model, setup.optimizer(setup.model)
    draw, (x, y) = torch.Generator().manual_seed(seed), setup.data["train"]
    given = [float(group["lr"]) for group in optimizer.param_groups]
    instruments = [
        Training(), Performance(), WeightMatrices(), Units(), EigenvalueSpectrum(bootstrap=0, alternatives=False),
        health or Health(),
    ]  # fmt: skip
    with torch.random.fork_rng(), watch(
        model, setup.data, optimizer=optimizer, to=folder, budget=math.inf, every=setup.steps // 10, probe=400,
        batch_size=400, instruments=instruments, settings=Settings(),
    ) as w:  # fmt: skip
        torch.manual_seed(seed)  # of dropout
        for step in range(1, setup.steps + 1):
            for group, rate in zip(optimizer.param_groups, given, strict=True):
                group["lr"] = rate * setup.rate(step)
            rows = torch.randint(len(y), (setup.size,), generator=draw)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(setup.batch(step, x[rows])), y[rows])
            (loss + setup.penalty(model)).backward()
            if math.isfinite(setup.clip):
                nn.utils.clip_grad_norm_(model.parameters(), setup.clip)
            optimizer.step()
            w.step(step, loss=loss)
    with w.record as record:
        accuracy = float(record["performance"]["accuracy"].sel(split="test").values[-1])
        return Told(tuple(record.findings), accuracy)


# -- data ----------------------------------------------------------------------------------------------------------------


@cache
def _digits() -> Batch:
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return torch.tensor(loaded.data, dtype=torch.float32) / 16, torch.tensor(loaded.target)


def digits(seed: int, n: int = 1200, noise: float = 0.0, flat: bool = True) -> Data:
    """Handwritten digits in an order drawn by seed: `n` to learn, 400 held out.

    Args:
        seed: of the order, and of the noise.
        n: digits to learn.
        noise: share of the digits to learn whose label is drawn at random.
        flat: as vectors; else as images.
    """
    x, y = _digits()
    draw = torch.Generator().manual_seed(1000 + seed)
    order = torch.randperm(len(y), generator=draw)
    x, y = x[order], y[order].clone()
    x = x if flat else x.reshape(-1, 1, 8, 8)
    test = (x[-400:], y[-400:].clone())
    wrong = torch.rand(n, generator=draw) < noise
    y[:n] = torch.where(wrong, torch.randint(10, (n,), generator=draw), y[:n])
    return {"train": (x[:n], y[:n]), "test": test}


def noise(seed: int) -> Data:
    """Gaussian inputs, and labels that have nothing to do with them."""
    draw = torch.Generator().manual_seed(4000 + seed)
    x, y = torch.randn(1600, 64, generator=draw), torch.randint(10, (1600,), generator=draw)
    return {"train": (x[:1200], y[:1200]), "test": (x[1200:], y[1200:])}


def sequences(seed: int, length: int = 20) -> Data:
    """Noise in four channels; the class is the channel that was largest on average."""
    x = torch.randn(1600, length, 4, generator=torch.Generator().manual_seed(2000 + seed))
    y = x.mean(1).argmax(1)
    return {"train": (x[:1200], y[:1200]), "test": (x[1200:], y[1200:])}


def tokens(seed: int, length: int = 12) -> Data:
    """Eight kinds of tokens; the class is which of the first four is the most frequent."""
    x = torch.randint(8, (1600, length), generator=torch.Generator().manual_seed(3000 + seed))
    y = nn.functional.one_hot(x, 8)[..., :4].sum(1).argmax(1)
    return {"train": (x[:1200], y[:1200]), "test": (x[1200:], y[1200:])}


# -- networks ------------------------------------------------------------------------------------------------------------


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network whose first weights are drawn by seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def mlp(*widths: int, nonlinear: type[nn.Module] = nn.ReLU, dropout: float = 0.0, norm: bool = False) -> nn.Sequential:
    """A perceptron on digits."""
    layers: list[nn.Module] = []
    for one, two in zip((64, *widths), (*widths, 10), strict=True):
        layers += [nn.Linear(one, two), *([nn.LayerNorm(two)] if norm else []), nonlinear()]
        layers += [nn.Dropout(dropout)] if dropout else []
    while not isinstance(layers[-1], nn.Linear):
        layers.pop()
    return nn.Sequential(*layers)


def cnn() -> nn.Sequential:
    """Two convolutions with batch norm on digits."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip


class Recurrent(nn.Module):
    """A recurrent layer and a readout of its last state.

    Args:
        kind: of the recurrent layer.
        gain: factor on its recurrent weights.
    """

    def __init__(self, kind: type[nn.RNNBase], gain: float = 1.0, **settings: Any) -> None:
        super().__init__()
        self.rnn = kind(4, 32, batch_first=True, **settings)
        self.out = nn.Linear(32, 4)
        with torch.no_grad():
            self.rnn.weight_hh_l0 *= gain

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        states, _ = self.rnn(x)
        scores: Tensor = self.out(states[:, -1])
        return scores


class Transformer(nn.Module):
    """Two blocks of attention over tokens, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 32)
        self.place = nn.Parameter(0.02 * torch.randn(12, 32))
        block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.out = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        scores: Tensor = self.out(self.blocks(self.embed(x) + self.place).mean(1))
        return scores


def sgd(rate: float = 0.05, decay: float = 5e-4, momentum: float = 0.9) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Plain SGD with momentum, of the params that are not frozen."""
    return lambda model: torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], rate, momentum=momentum, weight_decay=decay
    )


def adam(rate: float = 2e-3, decay: float = 1e-2) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Adam with decoupled weight decay."""
    return lambda model: torch.optim.AdamW(model.parameters(), rate, weight_decay=decay)


def cosine(steps: int = 300, warm_up: int = 0) -> Callable[[int], float]:
    """The rate's factor: a straight way up, then half a cosine down to zero."""
    return lambda step: (
        step / warm_up if step < warm_up else 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
    )


# -- runs ----------------------------------------------------------------------------------------------------------------


def perceptron(seed: int) -> Setup:
    """The healthy run from which most broken ones are made."""
    return Setup(seeded(lambda: mlp(64, 64), seed), digits(seed), sgd())


def perceptron_adam(seed: int) -> Setup:
    """With dropout, Adam and weight decay."""
    return Setup(seeded(lambda: mlp(128, 128, dropout=0.2), seed), digits(seed), adam())


def convolutional(seed: int) -> Setup:
    """With batch norm and a rate that falls as a cosine."""
    return Setup(seeded(cnn, seed), digits(seed, flat=False), sgd(), rate=cosine())


def recurrent(seed: int) -> Setup:
    """With clipped gradients."""
    return Setup(seeded(lambda: Recurrent(nn.RNN), seed), sequences(seed), adam(), clip=1.0)


def gated(seed: int) -> Setup:
    """A gated recurrent unit."""
    return Setup(seeded(lambda: Recurrent(nn.GRU), seed), sequences(seed), adam(), clip=1.0)


def transformer(seed: int) -> Setup:
    """With a warm-up, then a cosine."""
    return Setup(seeded(Transformer, seed), tokens(seed), adam(3e-3), rate=cosine(warm_up=30))


def deep(seed: int) -> Setup:
    """Eight rectified layers with layer norm."""
    return Setup(seeded(lambda: mlp(*[64] * 8, norm=True), seed), digits(seed), adam(1e-3))


def long(seed: int) -> Setup:
    """Far beyond the point at which the training data are known by heart."""
    return replace(perceptron(seed), steps=1500)


def _changed(setup: Setup, change: Callable[[nn.Module], Any], **more: Any) -> Setup:
    with torch.no_grad():
        change(setup.model)
    return replace(setup, **more)


def _bias(value: float) -> Callable[[nn.Module], Any]:
    return lambda model: [layer.bias.fill_(value) for layer in list(model)[:-1] if isinstance(layer, nn.Linear)]


def frozen(seed: int) -> Setup:
    """The first layer does not ask for gradients."""
    setup = perceptron(seed)
    setup.model[0].requires_grad_(False)
    return setup


def left_out(seed: int) -> Setup:
    """The middle layer was forgotten."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([*model[0].parameters(), *model[4].parameters()], 0.05, momentum=0.9)

    return replace(perceptron(seed), optimizer=optimizer)


def stalled(seed: int) -> Setup:
    """The first layer's own rate is ten thousand times too small."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        groups = [{"params": model[0].parameters(), "lr": 5e-6}, {"params": model[2:].parameters()}]
        return torch.optim.SGD(groups, 0.05, momentum=0.9)

    return replace(perceptron(seed), optimizer=optimizer)


def stays_noise(seed: int) -> Setup:
    """A wide layer beside the way: what it gives is multiplied by next to nothing."""

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.way, self.beside, self.out = nn.Linear(64, 128), nn.Linear(128, 128), nn.Linear(128, 10)

        def forward(self, x: Tensor) -> Tensor:
            way = torch.relu(self.way(x))
            scores: Tensor = self.out(way + 1e-3 * torch.relu(self.beside(way)))
            return scores

    return replace(perceptron(seed), model=seeded(Beside, seed), optimizer=sgd(decay=0.0))


def rank_penalty(model: nn.Module) -> Tensor:
    """The nuclear norm of the middle layer over its Frobenius norm, which draws it to one direction."""
    weight = model[2].weight
    return 0.5 * torch.linalg.matrix_norm(weight, "nuc") / weight.norm()


def _corrupted(step: int, x: Tensor) -> Tensor:
    return 50 * torch.randn(x.shape, generator=torch.Generator().manual_seed(7)) if step == 200 else x


HEALTHY: dict[str, Callable[[int], Setup]] = {
    "perceptron": perceptron,
    "perceptron, Adam, dropout": perceptron_adam,
    "convolutional, batch norm": convolutional,
    "recurrent, clipped": recurrent,
    "gated recurrent": gated,
    "transformer, warm-up": transformer,
    "eight layers, layer norm": deep,
    "perceptron, 1,500 steps": long,
}

BROKEN: dict[str, Callable[[int], Setup]] = {
    "rate x 100": lambda seed: replace(perceptron(seed), optimizer=sgd(5.0)),
    "rate x 100, batch norm": lambda seed: replace(convolutional(seed), optimizer=sgd(5.0)),
    "rate x 100, Adam": lambda seed: replace(perceptron_adam(seed), optimizer=adam(0.2)),
    "rate / 1000": lambda seed: replace(perceptron(seed), optimizer=sgd(5e-5)),
    "dead units": lambda seed: _changed(perceptron(seed), _bias(-5.0)),
    "units always on": lambda seed: _changed(perceptron(seed), _bias(5.0), optimizer=sgd(0.002)),
    "vanishing gradients": lambda seed: Setup(
        seeded(lambda: mlp(*[32] * 10, nonlinear=nn.Sigmoid), seed), digits(seed), sgd()
    ),
    "exploding recurrent net": lambda seed: Setup(
        seeded(lambda: Recurrent(nn.RNN, 4.0), seed), sequences(seed, 60), sgd(0.01, 0.0, 0.0)
    ),
    "exploding recurrent net, rectified": lambda seed: Setup(
        seeded(lambda: Recurrent(nn.RNN, 4.0, nonlinearity="relu"), seed), sequences(seed, 60), sgd(0.01, 0.0, 0.0)
    ),
    "loss spike: corrupted batch": lambda seed: replace(perceptron(seed), batch=_corrupted),
    "loss spike: rate x 50": lambda seed: replace(
        perceptron(seed), rate=lambda step: 50.0 if 200 <= step < 203 else 1.0
    ),
    "frozen layer": frozen,
    "layer left out of the optimizer": left_out,
    "stalled layer": stalled,
    "weight decay too strong": lambda seed: replace(perceptron(seed), optimizer=sgd(0.05, 0.2)),
    "weight decay too strong, Adam": lambda seed: replace(perceptron_adam(seed), optimizer=adam(2e-3, 50.0)),
    "rank collapse": lambda seed: replace(perceptron(seed), penalty=rank_penalty),
    "label noise": lambda seed: Setup(
        seeded(lambda: mlp(256, 256), seed), digits(seed, 600, noise=0.5), sgd(0.05, 0.0), steps=1000
    ),
    "few examples": lambda seed: Setup(seeded(lambda: mlp(64, 64), seed), digits(seed, 50), sgd()),
    "layer that stays noise": stays_noise,
    "nothing to learn": lambda seed: replace(perceptron(seed), data=noise(seed)),
}


# -- the table -----------------------------------------------------------------------------------------------------------


def told(make: Callable[[int], Setup], seed: int, health: Health | None = None) -> Told:
    """Make a run and train it."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of networks that are not finite
        return run(make(seed), seed, Path(folder) / "run", health)


def table(results: Mapping[str, Sequence[Told]]) -> Iterator[str]:
    """Kinds of runs by codes: in how many runs each spoke; in brackets where it gave tips alone, in bold what had to be said."""
    codes = sorted({code for every in results.values() for one in every for code in one.outcomes})
    yield "| " + " | ".join(["run", "accuracy", *codes]) + " |"
    yield "| " + " | ".join(["---", "---:", *[":---:"] * len(codes)]) + " |"
    for name, every in results.items():
        accuracy = statistics.median(one.accuracy for one in every)
        row = [name, f"{accuracy:.0%}", *(_cell(every, code, code == NAMED_BY.get(name)) for code in codes)]
        yield "| " + " | ".join(row) + " |"


def _cell(every: Sequence[Told], code: str, named: bool) -> str:
    said = [one.outcomes[code] for one in every if code in one.outcomes]
    if not said:
        return "**0**" if named else ""
    count = str(len(said)) if "issue" in said else f"({len(said)})"
    return f"**{count}**" if named else count


def misses(results: Mapping[str, Sequence[Told]]) -> Iterator[str]:
    """Runs whose fault was not named, and healthy ones with an issue."""
    for name, every in results.items():
        code = NAMED_BY.get(name)
        for place, one in enumerate(every):
            if code is not None and code not in one.outcomes:
                yield f"{name}, run {place}: {code} did not speak"
            issues = [c for c, outcome in one.outcomes.items() if outcome == "issue"]
            if code is None and issues:
                yield f"{name}, run {place}: {', '.join(issues)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of runs, or healthy, broken")
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 5), help="the first, and the one after the last")
    parser.add_argument("--verbose", action="store_true", help="print every finding of every run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sets = {"healthy": HEALTHY, "broken": BROKEN}
    wanted = {name for one in given.names or sets for name in sets.get(one, [one])}
    results: dict[str, list[Told]] = {}
    for name, make in (HEALTHY | BROKEN).items():
        if name in wanted:
            results[name] = [told(make, seed) for seed in range(*given.seeds)]
            print(name, file=sys.stderr, flush=True)
        for seed, one in enumerate(results.get(name, ()) if given.verbose else (), given.seeds[0]):
            for f in one.findings:
                if f.wants_action:
                    print(f"    {seed} {f.code} {f.outcome} {f.layer}: {f.says} {dict(f.evidence)}")
    print("\n".join(table(results)))
    print("\n".join(["", *misses(results)]))


if __name__ == "__main__":
    main()
