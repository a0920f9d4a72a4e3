"""What a fitted exponent is worth: bias, coverage of its interval, rejection rates, on samples whose law is known.

    python benchmarks/power_law_calibration.py                                    # a minute: shows the shape
    python benchmarks/power_law_calibration.py --seeds 200 --samples 400 --sizes 100 512 1024   # half an hour

Kinds of samples: `law` is the power law alone; `step` has below it, with even odds, a uniform density; `noise` has
80 % of its values from Marchenko-Pastur noise whose upper edge is where the law starts.
`plain` is the maximum-likelihood `alpha`, `corrected` has its bias taken off; `sigma` is how often `alpha +- 1.96
sigma` covers the exponent, `interval` how often the bootstrap's 95 % interval does.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from stratoscope.numerics.power_law import fit_power_law
from stratoscope.numerics.power_law_errors import alpha_interval, goodness_of_fit
from stratoscope.numerics.tails import compare_tails

ALPHAS = (2.0, 3.0, 4.0)


def noise(rng, n, aspect=2):
    """Eigenvalues of Marchenko-Pastur noise, with the upper edge of their law at 1."""
    matrix = rng.normal(size=(n, aspect * n))
    return np.linalg.eigvalsh(matrix @ matrix.T) / (n * (1 + math.sqrt(aspect)) ** 2)


def planted(kind, rng, n, alpha):
    tail = np.exp(rng.exponential(size=n) / (alpha - 1))
    if kind == "law":
        return tail
    if kind == "step":
        return np.where(rng.random(n) < 0.5, rng.random(n), tail)
    body = round(0.8 * n)
    return np.concatenate([np.minimum(noise(rng, body), 1), tail[body:]])


def cell(kind, n, alpha, seeds, samples):
    """One row a seed: alpha, corrected, whether sigma and the interval cover, the interval's width."""
    rows = []
    for seed in seeds:
        values = planted(kind, np.random.default_rng([seed, n, int(alpha)]), n, alpha)
        fit = fit_power_law(values)
        interval = alpha_interval(values, fit, samples=samples, seed=seed)
        covered = interval.low <= alpha <= interval.high
        rows.append(
            (
                fit.alpha,
                interval.corrected,
                abs(fit.alpha - alpha) <= 1.96 * fit.sigma,
                covered,
                interval.high - interval.low,
            )
        )
    return np.array(rows, dtype=float)


def coverage(args, seeds):
    print(
        "| kind | n | alpha | plain bias | corrected bias | sigma | interval | width |\n|---|---|---|---|---|---|---|---|"
    )
    for kind in args.kinds:
        pooled = []
        for n in args.sizes:
            for alpha in ALPHAS:
                rows = cell(kind, n, alpha, seeds, args.samples)
                plain, corrected, sigma, interval, width = rows.mean(axis=0)
                pooled.append((sigma, interval))
                print(
                    f"| {kind} | {n} | {alpha:.0f} | {plain / alpha - 1:+.2%} | {corrected / alpha - 1:+.2%}"
                    f" | {sigma:.1%} | {interval:.1%} | {width:.2f} |",
                    flush=True,
                )
        sigma, interval = np.mean(pooled, axis=0)
        print(f"| {kind} | all | all | | | {sigma:.1%} | {interval:.1%} | |")


def rejections(seeds, n=256):
    draws = {
        "power law": lambda rng: planted("law", rng, n, 3.0),
        "Marchenko-Pastur noise": lambda rng: noise(rng, n),
        "lognormal, sigma 1": lambda rng: rng.lognormal(size=n),
        "exponential": lambda rng: 1 + rng.exponential(size=n),
    }
    print(f"\nn = {n}: how often the power law is rejected (p < 0.1), or another law is preferred (p < 0.1)")
    print("| sample | goodness of fit | lognormal | exponential | truncated power law |\n|---|---|---|---|---|")
    for name, draw in draws.items():
        rows = []
        for seed in seeds:
            values = draw(np.random.default_rng([seed, n]))
            fit = fit_power_law(values)
            tests = compare_tails(values, fit).values()
            rows.append([goodness_of_fit(values, fit, seed=seed).p < 0.1, *(test.verdict == "other" for test in tests)])
        print(f"| {name} | " + " | ".join(f"{share:.1%}" for share in np.mean(rows, axis=0)) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--samples", type=int, default=200, help="of each bootstrap")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 512])
    parser.add_argument("--kinds", nargs="+", default=["law", "step", "noise"])
    args = parser.parse_args()
    start, seeds = time.process_time(), range(args.first, args.first + args.seeds)
    coverage(args, seeds)
    rejections(seeds)
    print(
        f"\n{args.seeds} seeds from {args.first}, {args.samples} samples, {time.process_time() - start:.0f} s of CPU time"
    )


if __name__ == "__main__":
    main()
