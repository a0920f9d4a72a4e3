"""Instruments of representations against the plain way to compute the same, and what all of them cost on a real network.

Bins against a loop over inputs and against the bare rule of one width; the generalized discrimination value against
distances of all ordered pairs; alignment of kernels against the kernels themselves; memory at 10,000 examples, in a
process of its own for each; a ResNet-20 with all instruments at every layer against its plain forward pass.

    python benchmarks/representations.py              # everything
    python benchmarks/representations.py bins gdv     # some of: bins run gdv cka memory network
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from pairs import alternate

WIDTHS = (10, 7, 5, 4, 3, 2)
CLASSES = 10


def patterns() -> tuple[np.ndarray, np.ndarray]:
    """All 4,096 patterns of 12 bits, and a label that depends on how many are set."""
    inputs = (np.arange(4096)[:, None] >> np.arange(12)) & 1
    return inputs.astype(np.float64), (inputs.sum(1) > 5).astype(np.int64)


def layers(seed: int = 0) -> list[np.ndarray]:
    """Activations of a 12-10-7-5-4-3-2 network of tanh units on all patterns."""
    draw, found = np.random.default_rng(seed), []
    values = patterns()[0]
    for width in WIDTHS:
        values = np.tanh(values @ draw.normal(0, 1.5 / values.shape[1] ** 0.5, (values.shape[1], width)))
        found.append(values)
    return found


# -- bins -------------------------------------------------------------------------------------------------------------


def bits(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def rows_of(codes: np.ndarray) -> np.ndarray:
    """Each row as one value, for `np.unique`."""
    return np.ascontiguousarray(codes).view(np.dtype((np.void, codes.dtype.itemsize * codes.shape[1]))).ravel()


def looped(features: np.ndarray, labels: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """I(X;T) and I(T;Y) with a loop over every distinct input, as the authors' code does."""
    codes = np.digitize(features, edges)
    inputs = np.arange(len(codes))
    whole = bits(np.unique(rows_of(codes), return_counts=True)[1])
    given_x = sum(bits(np.unique(rows_of(codes[inputs == x]), return_counts=True)[1]) for x in inputs) / len(inputs)
    given_y = sum(
        (labels == y).mean() * bits(np.unique(rows_of(codes[labels == y]), return_counts=True)[1])
        for y in np.unique(labels)
    )
    return whole - given_x, whole - given_y


def bare(features: np.ndarray) -> float:
    """The rule of one width with no information about labels: the least that anybody can do."""
    return bits(np.unique(rows_of(np.floor(features / (2 / 30)).astype(np.int64)), return_counts=True)[1])


def bins() -> None:
    from stratoscope.numerics.binned_information import Examples, binned_information
    from stratoscope.numerics.entropy import EqualWidth

    features, labels = layers()[0], patterns()[1]
    examples, rule = Examples(labels=labels), EqualWidth(-1.0, 1.0, 30)
    found = binned_information(features, rule, examples)
    assert found.y is not None
    np.testing.assert_allclose((found.x, found.y.bits), looped(features, labels, np.linspace(-1, 1, 31)), atol=1e-9)

    def ours() -> object:
        return binned_information(features, rule, examples)

    plain, own, ratio = alternate(lambda: looped(features, labels, np.linspace(-1, 1, 31)), ours, rounds=5, repeats=2)
    print(f"bins, 4096 x 10, X and Y: loop {plain:.3f} s, ours {own * 1e3:.2f} ms: {1 / ratio:.0f} times (bar 100)")
    plain, own, ratio = alternate(lambda: bare(features), ours, rounds=9, repeats=20)
    print(
        f"bins, 4096 x 10: bare rule {plain * 1e3:.2f} ms, ours with X and Y {own * 1e3:.2f} ms: ratio {ratio:.2f} (bar 1.2)"
    )


def run() -> None:
    from stratoscope.numerics.binned_information import Examples, binned_information
    from stratoscope.numerics.entropy import EqualWidth

    examples, rule = Examples(labels=patterns()[1]), EqualWidth(-1.0, 1.0, 30)
    networks = [layers(seed) for seed in range(8)]
    start = time.process_time()
    for _, network in zip(range(400), itertools.cycle(networks), strict=False):
        for features in network:
            binned_information(features, rule, examples)
    print(f"a run of 6 layers x 400 checkpoints x 30 bins: {time.process_time() - start:.1f} s of one core (bar 10 s)")


# -- distances and kernels --------------------------------------------------------------------------------------------


def clusters(n: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    centres = torch.randn(CLASSES, width, generator=generator)
    return centres[labels] + 2 * torch.randn(n, width, generator=generator), labels


def all_pairs(features: np.ndarray, labels: np.ndarray) -> float:
    """GDV from the distances of all ordered pairs, class by class."""
    from scipy.spatial.distance import cdist

    z = 0.5 * (features - features.mean(0)) / features.std(0)
    parts = [z[labels == y] for y in np.unique(labels)]
    intra = [cdist(part, part).sum() / (len(part) * (len(part) - 1)) for part in parts]
    inter = [cdist(a, b).mean() for i, a in enumerate(parts) for j, b in enumerate(parts) if i != j]
    return float((np.mean(intra) - np.mean(inter)) / features.shape[1] ** 0.5)


def gdv() -> None:
    from stratoscope.numerics import separation

    features, labels = clusters(5000, 500)
    double, classes = features.double().numpy(), labels.numpy()
    difference = abs(separation.gdv(features, labels, permutations=0).gdv - all_pairs(double, classes))
    plain, own, ratio = alternate(
        lambda: all_pairs(double, classes),
        lambda: separation.gdv(features, labels, permutations=0),
        rounds=5,
        repeats=1,
    )
    print(
        f"GDV, 5000 x 500, 10 classes: all pairs {plain:.2f} s, ours {own * 1e3:.0f} ms: {1 / ratio:.1f} times (bar 10); "
        f"difference {difference:.1e}"
    )


def cka() -> None:
    from stratoscope.numerics.similarity import linear_cka

    first, second = clusters(5000, 500)[0], clusters(5000, 300)[0]

    def kernels(*representations: torch.Tensor) -> float:
        """Gram matrices, centred by their own means, and three inner products: as it is usually written down."""
        one, two = (part @ part.T for part in representations)
        one, two = (gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean() for gram in (one, two))
        return float((one * two).sum() / ((one * one).sum() * (two * two).sum()).sqrt())

    double = first.double(), second.double()
    difference = abs(float(linear_cka(first, second).biased) - kernels(*double))
    del double
    plain, own, ratio = alternate(
        lambda: kernels(first, second), lambda: linear_cka(first, second, standard_error=False), rounds=7, repeats=1
    )
    print(
        f"CKA, 5000 x (500, 300): n x n {plain:.2f} s, ours, biased and debiased, {own * 1e3:.0f} ms: {1 / ratio:.1f} times "
        f"(bar 15); difference {difference:.1e}"
    )


# -- memory -----------------------------------------------------------------------------------------------------------


def _gdv(features: torch.Tensor, labels: torch.Tensor) -> None:
    from stratoscope.numerics.separation import gdv as measure

    measure(features, labels)


def _pairs(features: torch.Tensor, labels: torch.Tensor) -> None:
    from stratoscope.capture.activations import Activations, Sample
    from stratoscope.capture.pairs import KernelSums, Neighbours, PairNeed

    of = Activations()
    sample = Sample(features, labels, torch.arange(len(features)), features.shape[1], "")
    PairNeed.work_out([KernelSums(of), Neighbours(of)], sample)


def _cka(features: torch.Tensor, labels: torch.Tensor) -> None:
    from stratoscope.numerics.similarity import cka_map

    cka_map([features, features[:, ::2]])


JOBS: dict[str, Callable[[torch.Tensor, torch.Tensor], None]] = {
    "gdv": _gdv,
    "kernels and neighbours": _pairs,
    "cka": _cka,
}


def memory() -> None:
    for job, width in itertools.product(JOBS, (64, 512, 2048)):
        found = subprocess.run(
            [sys.executable, __file__, "--job", job, "--width", str(width)], check=True, capture_output=True, text=True
        )
        print(f"memory beyond the sample, 10,000 x {width}, {job}: {found.stdout.strip()} MiB (bar 64)")


def one_job(job: str, width: int) -> None:
    """Peak memory of one computation beyond what the process had with the sample in it."""
    JOBS[job](*clusters(600, 8))  # what is imported and set up once
    sample = clusters(10000, width)
    with open("/proc/self/clear_refs", "w") as file:  # the peak starts anew
        file.write("5")
    before = _status("VmRSS")
    JOBS[job](*sample)
    print(f"{(_status('VmHWM') - before) / 1024:.0f}")


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


# -- a real network ---------------------------------------------------------------------------------------------------

ONLY = (
    "units",
    "separation",
    "performance",
    "information",
    "statistics",
    "collapse",
    "similarity",
    "dimension",
    "probe",
)


def network() -> None:
    from examine import forward, subject

    from stratoscope import examine

    model, images, labels, what = subject()
    model.eval()
    forward(model, images)
    examine(model, {"train": (images, labels)}, only=ONLY)
    shown = []
    for _ in range(3):
        start = time.process_time()
        forward(model, images)
        middle = time.process_time()
        record = examine(model, {"train": (images, labels)}, only=ONLY)
        shown.append((middle - start, time.process_time() - middle))
    plain, own = (statistics.median(column) for column in zip(*shown, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"ResNet-20, {what}, 2,000 images, {len(record.layers)} layers, {len(ONLY)} instruments: forward {plain:.2f} s, all "
        f"{own:.2f} s of CPU time: {own / plain:.2f} times (goal 3); peak memory {peak:.0f} MiB"
    )


PARTS = {"bins": bins, "run": run, "gdv": gdv, "cka": cka, "memory": memory, "network": network}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {' '.join(PARTS)}")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--width", type=int, default=512, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.job:
        return one_job(args.job, args.width)
    for part in args.parts or PARTS:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}; choose some of: {' '.join(PARTS)}")
        PARTS[part]()


if __name__ == "__main__":
    main()
