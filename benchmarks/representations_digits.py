"""What the instruments of representations read where the answer is known, on scikit-learn's handwritten digits.

No peer: these are the numbers of the manual's page on representations. One thread, seeded; the last digits may differ
between processors.

    python benchmarks/representations_digits.py               # everything, a minute
    python benchmarks/representations_digits.py bins probe    # passes bins stretch noise gdv twin ranks dimension probe cka depth
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from stratoscope import cut, examine, identical_output
from stratoscope.instruments.collapse import NeuralCollapse
from stratoscope.instruments.dimension import Dimension
from stratoscope.instruments.information import Information
from stratoscope.instruments.probe import Probe
from stratoscope.instruments.separation import Separation
from stratoscope.instruments.statistics import Statistics
from stratoscope.numerics.similarity import linear_cka, procrustes

Split = tuple[Tensor, Tensor]


def digits() -> dict[str, Split]:
    """1,200 digits to learn and 597 held out, in an order drawn by seed."""
    loaded = load_digits()
    order = torch.randperm(len(loaded.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(loaded.data, dtype=torch.float32)[order] / 16, torch.tensor(loaded.target)[order]
    return {"train": (x[:1200], y[:1200]), "test": (x[1200:], y[1200:])}


def network(widths: tuple[int, ...], nonlinear: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    """A perceptron on digits, untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for one, two in zip((64, *widths), (*widths, 10), strict=True):
            layers += [nn.Linear(one, two), nonlinear()]
        return nn.Sequential(*layers[:-1])


def trained(model: nn.Sequential, x: Tensor, y: Tensor, steps: int = 800, rate: float = 0.003) -> nn.Sequential:
    """The same one after some steps of Adam."""
    optimizer, draw = torch.optim.Adam(model.parameters(), rate), torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = torch.randint(len(y), (64,), generator=draw)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return model


def numbers(instrument: Any, features: Tensor, labels: Tensor, layer: nn.Module | None = None) -> dict[str, float]:
    """What an instrument reads on given activations, or on what one layer makes of them."""
    model = nn.Sequential(layer or nn.Identity())
    group = examine(model, (features, labels), instruments=[instrument])[instrument.key]
    chosen = {name: group[name].sel(layer="0") for name in group if "layer" in group[name].dims}
    return {name: float(values.squeeze()) for name, values in chosen.items() if values.size == 1}


def table(record: Any, split: str, **columns: str) -> None:
    """Variables of a record, a row a layer: `heading="instrument.variable"`."""
    print(f"{'layer':>10}" + "".join(f"{name:>18}" for name in columns))
    chosen = {}
    for name, path in columns.items():
        key, _, variable = path.partition(".")
        chosen[name] = record[key][variable].isel(step=-1).sel(split=split).to_series()
    for layer in next(iter(chosen.values())).index:
        print(f"{layer:>10}" + "".join(f"{chosen[name].get(layer, float('nan')):18.3f}" for name in columns))


def passes() -> None:
    """How often the network runs for one instrument, and for all."""
    splits = digits()
    model = network((64, 32))
    for name, only in (("separation", ("separation",)), ("all", ())):
        record = examine(model, splits, **({"only": only} if only else {}))
        calls = {split: about["forward_calls"] for split, about in record.meta["data"].items()}
        print(f"{name:12} {len(list(record)):3} groups, forward calls {calls}")


def bins() -> None:
    """A tanh network: which layers stand at the ceiling, and what the number of bins does to the others."""
    splits = digits()
    model = trained(network((24, 8, 3), nn.Tanh), *splits["train"])
    record = examine(model, splits, only=("information",), layers=("1", "3", "5"))
    at = "information"
    table(record, "train", h_bin=f"{at}.information_x", low=f"{at}.information_x_low", high=f"{at}.information_x_high",
          ceiling=f"{at}.information_x_ceiling", singletons=f"{at}.singletons", uninformative=f"{at}.uninformative")  # fmt: skip
    table(record, "train", i_y=f"{at}.information_y", null=f"{at}.information_y_null",
          debiased=f"{at}.information_y_debiased", ceiling=f"{at}.information_y_ceiling")  # fmt: skip
    noisy = record[at]
    for name in ("noisy_x", "noisy_x_low", "noisy_x_high", "noisy_x_error"):
        print(name, noisy[name].isel(step=-1).sel(split="train").to_series().round(3).to_dict())


def stretch() -> None:
    """The same layer with its pre-activations multiplied: tanh loses nothing (in exact arithmetic), bins do."""
    x, y = digits()["train"]
    draw = torch.Generator().manual_seed(0)
    before = x[:1000].double() @ torch.randn(64, 3, generator=draw, dtype=torch.float64) / 2
    before = before - before.mean(0)
    for gain in (0.5, 2.0, 8.0, 32.0):
        found = numbers(Information(bin_range="activation"), gain * before, y[:1000], nn.Tanh())
        distinct = len(torch.unique(torch.tanh(gain * before), dim=0))
        print(
            f"gain {gain:4}: H(bin T) {found['information_x']:6.3f}, equal counts {found['quantile_x']:6.3f}, "
            f"distinct activations {distinct} of 1000, I(bin T; Y) {found['information_y']:.3f}"
        )


def noise() -> None:
    """Shuffled labels: what each instrument reads of no relation at all."""
    x, y = digits()["train"]
    x, y = x[:1000], y[torch.randperm(1000, generator=torch.Generator().manual_seed(1))]
    few = x @ torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) / 8
    for name, features in (("64 pixels", x), ("3 projections", few)):
        info, gdv = numbers(Information(), features, y), numbers(Separation(), features, y)
        probe, collapse = numbers(Probe(), features, y), numbers(NeuralCollapse(), features, y)
        print(
            f"{name}: I(bin T; Y) {info['information_y']:.3f} of {info['information_y_ceiling']:.3f} bit, "
            f"debiased {info['information_y_debiased']:+.3f}, singletons {info['singletons']:.2f}, "
            f"uninformative {info['uninformative']:.0f}"
        )
        print(
            f"   GDV {gdv['gdv']:+.4f} (null {gdv['null_mean']:+.4f} sd {gdv['null_sd']:.4f}, "
            f"z {gdv['z']:+.1f}); probe {probe['accuracy']:.3f} (null {probe['accuracy_null']:.3f}, "
            f"floor {probe['accuracy_floor']:.3f}); CDNV {collapse['cdnv']:.0f} (null {collapse['cdnv_null']:.0f})"
        )


def gdv() -> None:
    """The floor depends on the number and sizes of classes; a rotation changes the value."""
    x, y = digits()["train"]
    for name, labels in (("ten digits", y), ("odd or even", y % 2), ("is it a nine", (y == 9).long())):
        found, readable = numbers(Separation(), x, labels), numbers(Probe(), x, labels)["accuracy"]
        points = nn.functional.one_hot(labels).float()
        best = numbers(Separation(), points, labels)
        print(
            f"{name:14} pixels {found['gdv']:+.3f}, floor {found['gdv_floor']:+.3f}, fraction "
            f"{found['gdv_fraction']:.3f}, z {found['z']:+.0f}; classes as points {best['gdv']:+.3f}; "
            f"probe {readable:.3f}"
        )
    rotation = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).Q
    turned = numbers(Separation(), x @ rotation, y)
    print(f"rotated pixels {turned['gdv']:+.3f}")


def twin() -> None:
    """Statistics of a linear layer of a trained network and of its twin with the same outputs."""
    splits = digits()
    model = network((48, 48, 12))
    model = trained(nn.Sequential(*list(model)[:-2], model[-1]), *splits["train"])  # no rectifier after the 12 units
    for target in ("whiten", "correlate", "rotate"):
        print(identical_output(model, "4", splits, target=target), "\n")
    print(identical_output(model, "1", splits, target="rescale"))


def ranks() -> None:
    """Raw ranks see the mean as a direction; centred ones do not."""
    splits = digits()
    model = trained(network((64, 64, 64)), *splits["train"])
    record = examine(model, splits, only=("statistics",), layers=("1", "3", "5"))
    at = "statistics"
    table(record, "test", rank=f"{at}.rank", stable=f"{at}.stable_rank", stable_centred=f"{at}.stable_rank_centred",
          centred_null=f"{at}.stable_rank_centred_null", effective=f"{at}.effective_rank",
          effective_centred=f"{at}.effective_rank_centred")  # fmt: skip
    z = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0)).relu()
    found = numbers(Statistics(), z, torch.arange(1000) % 10)
    print(f"rectified noise: stable rank {found['stable_rank']:.2f}, centred {found['stable_rank_centred']:.2f}")


def dimension() -> None:
    """A circle has one dimension and two directions; digits; white noise."""
    draw = torch.Generator().manual_seed(0)
    angle = torch.rand(1000, generator=draw) * 2 * torch.pi
    x, y = digits()["train"]
    for name, features in (
        ("circle in 20", torch.stack([angle.cos(), angle.sin()], 1) @ torch.randn(2, 20, generator=draw)),
        ("20 Gaussians", torch.randn(1000, 20, generator=draw)),
        ("digits", x[:1000]),
    ):
        found = numbers(Dimension(), features, y[:1000])
        print(
            f"{name:14}"
            + ", ".join(
                f"{key} {found[key]:.2f}"
                for key in ("twonn", "twonn_null", "lid", "participation_ratio", "rankme_centred", "uninformative")
            )
        )


def probe() -> None:
    """What can be read is not what is used: untrained layers, and labels that were learned by heart."""
    splits = digits()
    (x, y), (u, v) = splits["train"], splits["test"]
    widths = (64, 64, 64)
    plain = examine(network(widths), splits, only=("probe", "performance"))
    learned = examine(trained(network(widths), x, y), splits, only=("probe", "performance", "collapse"))
    wrong = y[torch.randperm(1200, generator=torch.Generator().manual_seed(0))]
    heart = trained(network((256, 256, 256)), x, wrong, steps=4000, rate=0.001)
    by_heart = examine(heart, {"train": (x, wrong), "test": (u, v)}, only=("probe", "performance", "collapse"))
    for split, at in (("train", learned), ("test", learned), ("train", by_heart), ("test", by_heart)):
        cdnv = at["collapse"]["cdnv"].isel(step=-1).sel(split=split, layer=["0", "5"]).values
        print(
            f"{'shuffled labels' if at is by_heart else 'trained'}, {split}: CDNV {cdnv[0]:.3f} in 0, {cdnv[1]:.3f} in 5"
        )
    for name, record, split in (
        ("untrained", plain, "test"),
        ("trained", learned, "test"),
        ("shuffled labels, train", by_heart, "train"),
    ):
        own = float(record["performance"]["accuracy"].isel(step=-1).sel(split=split))
        found = record["probe"]["accuracy"].isel(step=-1).sel(split=split).to_series()
        nulls = record["probe"]["accuracy_null"].isel(step=-1).sel(split=split).to_series()
        print(f"{name}: network {own:.3f}, probes {found.round(3).to_dict()}, null {nulls.mean():.3f}")


def cka() -> None:
    """Few examples, many units; one loud direction; two seeds of one training."""
    draw = torch.Generator().manual_seed(0)
    for n in (50, 200, 1000):
        one, two = (torch.randn(n, 500, generator=draw) for _ in range(2))
        found = linear_cka(one, two)
        print(
            f"unrelated, 500 units, n {n}: biased {found.biased.item():.3f} (null {found.null_biased.item():.3f}), "
            f"debiased {found.debiased.item():+.3f}"
        )
    loud = 30 * torch.randn(1000, 1, generator=draw)
    one, two = (torch.cat([loud, torch.randn(1000, 30, generator=draw)], 1) for _ in range(2))
    apart, alone = procrustes(one, two), linear_cka(one[:, 1:], two[:, 1:])
    print(
        f"one loud unit in common, 30 others unrelated: debiased {linear_cka(one, two).debiased.item():.3f}, "
        f"without it {alone.debiased.item():+.3f}, Procrustes distance {apart.distance:.3f}"
    )
    x, y = digits()["train"]
    u = digits()["test"][0]
    nets = [trained(network((64, 64, 64), seed=seed), x, y) for seed in (0, 1)]
    fresh = [network((64, 64, 64), seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        for depth in (2, 4, 6):
            values = [
                float(linear_cka(a[:depth](u), b[:depth](u)).debiased) for a, b in (nets, fresh, (nets[0], fresh[0]))
            ]
            print(
                f"after layer {depth - 1}: two seeds {values[0]:.3f}, both untrained {values[1]:.3f}, before and after {values[2]:.3f}"
            )


def depth() -> None:
    """The diagnosis, and the check by a cut, for perceptrons of several depths and for labels that need more depth."""
    splits = digits()
    for hidden in (2, 4, 8):
        model = trained(network((48,) * hidden), *splits["train"])
        record = examine(model, splits, only=("depth", "separation", "probe", "collapse", "performance"))
        print(f"{hidden} hidden layers:")
        for finding in record.findings:
            if finding.code == "DP001":
                print("  ", finding.outcome, finding.says)
                if finding.wants_action:
                    print("  ", cut(model, splits, record=record).says)


PARTS: dict[str, Callable[[], None]] = {
    part.__name__: part for part in (passes, bins, stretch, noise, gdv, twin, ranks, dimension, probe, cka, depth)
}


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*PARTS, []], help="all by default")
    for name in parser.parse_args().parts or PARTS:
        print(f"\n-- {name}: {PARTS[name].__doc__}")
        PARTS[name]()


if __name__ == "__main__":
    main()
