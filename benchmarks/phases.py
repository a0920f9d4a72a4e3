"""Phases of noisy curves: how often one is named where there is none, and how often a planted one is found.

    python benchmarks/phases.py                  # 400 curves a cell, 15 minutes: the tables
    python benchmarks/phases.py --curves 40      # 2 minutes: shows the shape

False alarm: any second phase named on noise or on noise with a trend. `knot` beside it: a knot was accepted, though
directions did not differ. Noise is white, autoregressive with the correlation stated, a random walk, heavy-tailed
(Student's t with 3 degrees of freedom), or four times as strong at the first place as at the last.
Power: all stretches are named with their directions, in order, and none else; `seen`: a second phase is named.
The noise's deviation is given relative to the curve's range.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from stratoscope.numerics.phases import phases

NOISES = ("white", "0.3", "0.5", "0.7", "0.9", "walk", "t3", "fading")
SHAPES = {
    "fall, rise": (([0, 0.5, 1], [1, 0, 1]), (-1, 1)),
    "fall, rise (late, small)": (([0, 0.7, 1], [1, 0, 0.5]), (-1, 1)),
    "flat, fall, rise": (([0, 0.3, 0.55, 1], [1, 1, 0, 0.8]), (0, -1, 1)),
    "flat, fall": (([0, 0.4, 1], [1, 1, 0]), (0, -1)),
    "rise, fall, rise": (([0, 0.33, 0.67, 1], [0, 1, 0, 1]), (1, -1, 1)),
}
SMOOTH = {
    "exp(-4u)": lambda u: np.exp(-4 * u),
    "exp(-10u)": lambda u: np.exp(-10 * u),
    "logistic": lambda u: 1 / (1 + np.exp(-12 * (u - 0.5))),
    "sqrt": np.sqrt,
    "u^2": np.square,
}


def noise(rng, kind, seeds, places):
    """Noise of deviation 1 (a random walk: at its end), one seed a row."""
    white = rng.standard_normal((seeds, places))
    if kind == "white":
        return white
    if kind == "walk":
        return white.cumsum(1) / np.sqrt(places)
    if kind == "t3":
        return rng.standard_t(3, (seeds, places)) / np.sqrt(3)
    if kind == "fading":
        return white * np.geomspace(1, 0.25, places)
    rho, found = float(kind), [white[:, 0]]
    for fresh in white.T[1:]:
        found.append(rho * found[-1] + np.sqrt(1 - rho**2) * fresh)
    return np.stack(found, axis=1)


def named(curves, seeds, exact, kind, deviation):
    """Phases of each of many noisy curves."""
    for number in range(curves):
        rng = np.random.default_rng([number, seeds, len(exact)])
        yield phases(np.arange(len(exact)), exact + deviation * noise(rng, kind, seeds, len(exact)), generator=rng)


def mean(values):
    values = np.array(list(values), dtype=float)
    return values.mean(axis=0)


def false_alarms(args, seeds):
    print(f"\n**False alarms, {'one run' if seeds == 1 else f'{seeds} seeds'}** (in brackets: a knot)\n")
    print(
        "| noise | "
        + " | ".join(f"T = {t}{', trend' if trend else ''}" for t in args.places for trend in args.trends)
        + " |"
    )
    print("|---" * (1 + len(args.trends) * len(args.places)) + "|")
    for kind in args.noises:
        cells = []
        for places in args.places:
            for trend in args.trends:
                found = named(args.curves, seeds, trend * np.linspace(0, 1, places), kind, 1.0)
                alarm, knot = mean((len(f.stretches) > 1, len(f.knots) + len(f.bends) > 0) for f in found)
                cells.append(f"{alarm:.1%} ({knot:.1%})")
        print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)


def power(args, seeds):
    print(f"\n**Power, {'one run' if seeds == 1 else f'{seeds} seeds'}** (in brackets: seen)\n")
    head = [f"T = {t}, {deviation:.0%}" for t in args.places for deviation in args.deviations]
    print("| curve | noise | " + " | ".join(head) + " |\n" + "|---" * (2 + len(head)) + "|")
    for name in args.shapes:
        (x, y), directions = SHAPES[name]
        for kind in ("white", "0.5"):
            cells = []
            for places in args.places:
                exact = np.interp(np.linspace(0, 1, places), x, y)
                for deviation in args.deviations:
                    found = named(args.curves // 2, seeds, exact, kind, deviation)
                    right, seen = mean((f.directions == directions, len(f.stretches) > 1) for f in found)
                    cells.append(f"{right:.0%} ({seen:.0%})")
            print(f"| {name} | {kind} | " + " | ".join(cells) + " |", flush=True)


def turns(args, seeds):
    """Curves that never turn: how often a turn is named."""
    print(f"\n**Smooth curves that never turn, {'one run' if seeds == 1 else f'{seeds} seeds'}: a turn is named**\n")
    head = [f"T = {t}, {deviation:.0%}" for t in args.places for deviation in (0.0, 0.01, 0.05)]
    print("| curve | " + " | ".join(head) + " |\n" + "|---" * (1 + len(head)) + "|")
    for name, curve in SMOOTH.items():
        cells = []
        for places in args.places:
            exact = curve(np.linspace(0, 1, places))
            for deviation in (0.0, 0.01, 0.05):
                found = named(args.curves // 2 if deviation else 2, seeds, exact, "0.5", deviation)
                cells.append(f"{mean({-1, 1} <= set(f.directions) for f in found):.0%}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


TABLES = {"alarms": false_alarms, "power": power, "turns": turns}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=int, default=400)
    parser.add_argument("--places", type=int, nargs="+", default=[12, 20, 40])
    parser.add_argument("--deviations", type=float, nargs="+", default=[0.2, 0.1, 0.05])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 5, 8])
    parser.add_argument("--trends", type=float, nargs="+", default=[0.0, 5.0], help="of the false alarms")
    parser.add_argument("--noises", nargs="+", default=NOISES, choices=NOISES, help="of the false alarms")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, choices=SHAPES, help="of the power")
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    args = parser.parse_args()
    start = time.process_time()
    for seeds in args.seeds:
        for table in args.tables:
            TABLES[table](args, seeds)
    print(
        f"\n{args.curves} curves a cell of false alarms, half as many of the others, {time.process_time() - start:.0f} s of CPU time"
    )


if __name__ == "__main__":
    main()
