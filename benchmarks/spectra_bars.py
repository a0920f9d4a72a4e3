"""What the spectrum's verdicts are worth: errors on noise, planted directions, units, seeds, labelled matrices.

    python benchmarks/spectra_bars.py                      # all, some minutes
    python benchmarks/spectra_bars.py --parts noise scale --quick

* noise: Gaussian matrices that get an `alpha` or a phase that says learned. `ungated` is the share with an `alpha` from
  2 to 6, which reads as well trained, where noise is not tested for; weightwatcher's alpha is the same.
* spikes: one direction of 1.25 times the strength at which it can be seen. `oracle` knows the variance of the noise, and
  its level is the same: no test by the largest eigenvalue finds more.
* scale: verdicts in float32 and float64 under multiplication by 1e-6 to 1e6.
* seed: `inspect` twice.
* labelled: the set of `labelled_spectra.py`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from labelled_spectra import LABELS, labelled, made, orthogonal

from stratoscope import inspect
from stratoscope.instruments.spectrum import EigenvalueSpectrum
from stratoscope.numerics.marchenko_pastur import noise_edge
from stratoscope.numerics.matrices import singular_values
from stratoscope.numerics.spectral_numbers import Options, Reading, spectrum_numbers
from stratoscope.numerics.spectral_phase import PHASES
from stratoscope.numerics.spectrum import Spectrum

SHAPES = ((64, 64), (128, 128), (128, 256), (128, 512), (256, 256), (256, 512), (256, 1024))
SHAPES += ((512, 512), (512, 1024), (512, 2048))
FALSE_POSITIVES = ((128, 256), (128, 384), (256, 256), (384, 768), (512, 1024))
SPIKED = ((128, 128), (128, 512), (256, 256), (256, 512), (384, 1024), (512, 512), (512, 2048), (1024, 1024))
PLAIN = Options(bootstrap=0, alternatives=False)
FACTORS = (1e-6, 1e-3, 1.0, 1e3, 1e6)


def spectrum_of(matrix: torch.Tensor) -> Spectrum:
    values = singular_values(matrix).square().numpy()
    short, long = sorted(matrix.shape)
    return Spectrum(values, short, long, trace=float(values.sum()))


def read(matrix: torch.Tensor) -> Reading:
    return spectrum_numbers(spectrum_of(matrix), PLAIN, matrix.dtype)


def gaussian(rows: int, columns: int, *seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([rows, columns, *seed]).standard_normal((rows, columns), np.float32))


def noise(draws: int) -> None:
    print(
        f"\n{draws} Gaussian matrices a shape\n\n| shape | alpha or learned | alpha | phases | ungated |\n|---|---|---|---|---|"
    )
    pooled = []
    for rows, columns in SHAPES:
        said, phases, given, well = [], Counter(), 0, 0
        for seed in range(draws):
            spectrum = spectrum_of(gaussian(rows, columns, 1, seed))
            reading = spectrum_numbers(spectrum, PLAIN, torch.float32)
            alpha = spectrum_numbers(spectrum, replace(PLAIN, gate=False), torch.float32).numbers["alpha"]
            phases[reading.verdict.phase] += 1
            given += reading.verdict.fit is not None
            well += 2 <= alpha <= 6
            silent = reading.verdict.phase in ("random-like", "flat", "too-small", "no-test")
            said.append(reading.verdict.fit is not None or not silent)
        pooled.append(np.mean(said))
        names = ", ".join(f"{phase} {count}" for phase, count in phases.most_common())
        print(f"| {rows} x {columns} | {pooled[-1]:.1%} | {given} | {names} | {well / draws:.1%} |", flush=True)
    print(f"| all | {np.mean(pooled):.2%} | | | |\n\nbar: at most 2 % pooled, 4.5 % of any shape")


def spikes(draws: int, false: int) -> None:
    print(f"\nOne direction at 1.25 times the threshold, {draws} seeds\n")
    print("| shape | first 6 | found | spikes found on top | oracle |\n|---|---|---|---|---|")
    for rows, columns in SPIKED:
        found, oracle = [], []
        for seed in range(draws if rows < 1024 else min(draws, 40)):
            generator = np.random.default_rng([rows, columns, 2, seed])
            left, right = orthogonal(generator, rows, 1), orthogonal(generator, columns, 1)
            strength = 1.25 * (rows / columns) ** 0.25 * math.sqrt(columns)
            matrix = generator.standard_normal((rows, columns)) + strength * left @ right.T
            reading = read(torch.from_numpy(matrix))
            found.append(int(reading.numbers["num_spikes"]))
            oracle.append(reading.numbers["lambda_max"] > noise_edge(rows, columns, 1.0))
        first, more = sum(k > 0 for k in found[:6]), sum(k > 1 for k in found)
        share = np.mean(np.array(found) > 0)
        print(f"| {rows} x {columns} | {first} of 6 | {share:.0%} | {more} | {np.mean(oracle):.0%} |", flush=True)
    print(f"\n{false} matrices of noise: spikes where there are none\n\n| shape | with spikes |\n|---|---|")
    total, each = 0, false // len(FALSE_POSITIVES)
    for rows, columns in FALSE_POSITIVES:
        count = sum(read(gaussian(rows, columns, 3, seed)).numbers["num_spikes"] > 0 for seed in range(each))
        total += count
        print(f"| {rows} x {columns} | {count} of {each} |", flush=True)
    print(f"| all | {total / (each * len(FALSE_POSITIVES)):.2%} |\n\nbar: found 6 of 6; at most 2 % of noise")


def measured(weights: dict[str, torch.Tensor], **settings: object):
    """The group of one `inspect`, as arrays."""
    instrument = EigenvalueSpectrum(**{"bootstrap": 0, "alternatives": False, "shuffles": 0, **settings})
    return inspect(weights, instruments=[instrument])["spectrum"]


def verdicts(weights: dict[str, torch.Tensor]) -> dict[str, tuple[str, int, float]]:
    """Phase, spikes and alpha of each matrix."""
    group = measured(weights)
    names, phases = group["phase"].matrix.values, group["phase"].values.ravel()
    counts, alphas = group["num_spikes"].values.ravel(), group["alpha"].values.ravel()
    return {
        str(name): (PHASES[int(phase)], int(count), float(alpha))
        for name, phase, count, alpha in zip(names, phases, counts, alphas, strict=True)
    }


def scale(each: int) -> None:
    print("\nVerdicts (phase, spikes, whether there is an alpha) that change under W * c, and how far alpha moves\n")
    print("| type | matrices | c | changed | alpha, relative |\n|---|---|---|---|---|")
    matrices = {
        f"{label} {number}.weight": torch.from_numpy(made(label, np.random.default_rng([4, kind, number]), number))
        for kind, label in enumerate(LABELS)
        for number in range(each)
    }
    for dtype in (torch.float32, torch.float64):
        plain = verdicts({name: matrix.to(dtype) for name, matrix in matrices.items()})
        for factor in FACTORS:
            other = verdicts({name: matrix.to(dtype) * factor for name, matrix in matrices.items()})
            changed = sum(said(plain[name]) != said(other[name]) for name in plain)
            moved = np.nanmax([abs(other[name][2] / plain[name][2] - 1) for name in plain])
            print(f"| {str(dtype)[6:]} | {len(plain)} | {factor:g} | {changed} | {moved:.1e} |", flush=True)


def said(verdict: tuple[str, int, float]) -> tuple[str, int, bool]:
    phase, count, alpha = verdict
    return phase, count, math.isnan(alpha)


def seed() -> None:
    kinds = {"a": "random-like", "b": "bulk+spikes", "c": "heavy-tailed-fat"}
    weights = {
        f"{name}.weight": torch.from_numpy(made(kind, np.random.default_rng(6)).astype(np.float32))
        for name, kind in kinds.items()
    }
    settings = {"bootstrap": 50, "alternatives": True, "shuffles": 2}
    first, second, other = (measured(weights, seed=seed, **settings) for seed in (0, 0, 1))
    same = sum(first[name].values.tobytes() == second[name].values.tobytes() for name in first)
    moved = [name for name in first if first[name].values.tobytes() != other[name].values.tobytes()]
    print(f"\nThe same seed: {same} of {len(list(first))} arrays have the same bytes.")
    print(f"Another seed moves {', '.join(moved)}.")


def confusion() -> None:
    table, wrong = Counter(), []
    for number, (label, matrix) in enumerate(labelled()):
        ((phase, count, alpha),) = verdicts({"m.weight": torch.from_numpy(matrix)}).values()
        table[label, phase] += 1
        if label != phase:
            wrong.append(
                f"{number}: {label} taken for {phase}, {matrix.shape[0]} x {matrix.shape[1]}, {count} spikes, alpha {alpha:.2f}"
            )
    answers = [phase for phase in PHASES if any(table[label, phase] for label in LABELS)]
    print(f"\n| is, taken for | {' | '.join(answers)} |\n|---|{'---|' * len(answers)}")
    for label in LABELS:
        print(f"| {label} | {' | '.join(str(table[label, phase] or '') for phase in answers)} |")
    total, right = table.total(), sum(table[label, label] for label in LABELS)
    six = sum(count for (label, phase), count in table.items() if label.split("-")[:2] == phase.split("-")[:2])
    print(
        f"\nright: {right} of {total} ({right / total:.1%}); of the six phases, tails not told apart, {six} ({six / total:.1%})"
    )
    print("bar: 90 %\n\n" + "\n".join(wrong))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("noise", "spikes", "scale", "seed", "labelled")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, few = time.process_time(), args.quick
    calls = {
        "noise": lambda: noise(20 if few else 200),
        "spikes": lambda: spikes(6 if few else 200, 100 if few else 1000),
        "scale": lambda: scale(1 if few else 2),
        "seed": seed,
        "labelled": confusion,
    }
    for part in args.parts:
        calls[part]()
    print(f"\n{time.process_time() - start:.0f} s of CPU time")


if __name__ == "__main__":
    main()
