"""The spectrum of seeded weight matrices, ours and weightwatcher's in one run: numbers and CPU time.

    python benchmarks/spectra.py --peer-python PATH     # an environment with weightwatcher 0.7.7 and torch; or
    python benchmarks/spectra.py                        # one is made in the cache folder
    python benchmarks/spectra.py --parts fit --rounds 3

Both sides see the same float32 matrices, on one thread, in turn (A B A B, each the other's weather); times are CPU times,
ratios are taken within a round, and their median is printed. What is timed:

* alpha: all eigenvalues and the fit of the tail. weightwatcher's `analyze()`; ours is the plain functions, with the test
  of noise, the ranks and the norms, which come along. `floor` is the Gram matrix in float64 and `eigvalsh` alone.
* full: weightwatcher's `analyze(mp_fit=True, randomize=True)`: the decomposition, the tail, a fit of the noise, the
  spectra of shuffled entries (2 shuffles, 6 for a layer of less than 100 rows), a fit of their noise, and their distance.
  Ours is the same work, as many shuffles and a test of noise in each; `all` has 1 shuffle and besides what weightwatcher
  does not have: 200 samples for the p-value, 200 for the interval, comparisons with three other laws.
* inspect: the same through `stratoscope.inspect`, all layers in one call, against one call of `analyze`.
* fit: the fit of a power law alone, against its loop.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

ONE = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
os.environ.update(ONE)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from labelled_spectra import heavy, planted  # noqa: E402

from stratoscope import inspect  # noqa: E402
from stratoscope.instruments.spectrum import EigenvalueSpectrum  # noqa: E402
from stratoscope.numerics.matrices import gram_eigenvalues, singular_values  # noqa: E402
from stratoscope.numerics.power_law import fit_power_law  # noqa: E402
from stratoscope.numerics.shuffle import shuffled_rows  # noqa: E402
from stratoscope.numerics.spectral_numbers import Options, spectrum_numbers  # noqa: E402
from stratoscope.numerics.spectrum import Spectrum  # noqa: E402

VERSION = "0.7.7"
SHAPES = {
    "gaussian": ((64, 64), (256, 256), (512, 1024), (768, 1024)),
    "spikes": ((128, 128), (256, 1024), (512, 512), (1024, 1024)),
    "heavy": ((128, 512), (384, 1536), (768, 768), (512, 2048)),
}
SAMPLES = (256, 512, 1024, 2048, 4096)
COLUMNS = (
    "alpha", "D", "xmin", "sigma", "num_pl_spikes", "N", "M", "Q", "rf", "num_evals", "sv_max", "sv_min", "lambda_max",
    "norm", "log_norm", "log_spectral_norm", "alpha_weighted", "log_alpha_norm", "stable_rank", "matrix_rank",
    "rank_loss", "entropy", "xmax",
)  # fmt: skip
FITTED = ("num_spikes", "sigma_mp", "mp_softrank", "bulk_max", "max_rand_eval", "num_traps", "rand_distance")
ALPHA = Options(gate=False, bootstrap=0, alternatives=False)
ALL = Options(gate=False, bootstrap=200)


# -- what is measured ----------------------------------------------------------------------------------------------------


def layers() -> dict[str, np.ndarray]:
    """Twelve matrices of entries of about one, some of them tall, by increasing work."""
    made = {}
    for kind, shapes in SHAPES.items():
        for place, (rows, columns) in enumerate(shapes):
            generator = np.random.default_rng([rows, columns])
            matrix = heavy(generator, rows, columns, 2.0 + place / 2) if kind == "heavy" else None
            if matrix is None:
                matrix = generator.standard_normal((rows, columns))
            if kind == "spikes":
                matrix += planted(generator, rows, columns, generator.uniform(1.1, 3, rows // 20))
            turned = matrix.T if place % 2 else matrix
            made[f"{kind}_{rows}x{columns}"] = np.ascontiguousarray(turned, dtype=np.float32)
    return dict(sorted(made.items(), key=lambda item: (min(item[1].shape), max(item[1].shape))))


def samples() -> dict[str, np.ndarray]:
    """Values of a power law, and eigenvalues of noise."""
    made = {}
    for n in SAMPLES:
        generator = np.random.default_rng(n)
        made[f"law {n}"] = (1 - generator.random(n)) ** (-1 / 2)
        matrix = generator.standard_normal((n, 2 * n))
        made[f"noise {n}"] = np.linalg.eigvalsh(matrix @ matrix.T)
    return made


def ours(matrix: torch.Tensor, options: Options, shuffles: int = 0) -> dict[str, float]:
    values = singular_values(matrix).square()
    short, long = sorted(matrix.shape)
    generator = torch.Generator().manual_seed(0)
    shuffled = tuple(
        gram_eigenvalues(shuffled_rows(matrix.flatten(), short, generator=generator)).numpy() for _ in range(shuffles)
    )
    spectrum = Spectrum(values.numpy(), short, long, trace=float(values.sum()), shuffled=shuffled)
    return spectrum_numbers(spectrum, options, matrix.dtype).numbers


def floor(matrix: torch.Tensor) -> np.ndarray:
    """What nobody who wants all eigenvalues to the last digits gets under; NumPy's library is faster than torch's here."""
    wide = matrix.numpy().astype(np.float64)
    short = wide if matrix.shape[0] <= matrix.shape[1] else wide.T
    return np.linalg.eigvalsh(short @ short.T)


def inspected(weights: dict[str, torch.Tensor], **settings: object):
    instrument = EigenvalueSpectrum(**{"noise_gate": False, "bootstrap": 0, "alternatives": False, **settings})
    return inspect({f"{name}.weight": matrix for name, matrix in weights.items()}, instruments=[instrument])


def shuffles_of(matrix: torch.Tensor) -> int:
    """How often weightwatcher shuffles: once or five times for the largest value, once for the distance."""
    return 2 if min(matrix.shape) >= 100 else 6


# -- the peer ------------------------------------------------------------------------------------------------------------


class Peer:
    """A process that answers."""

    def __init__(self, python: Path, weights: dict[str, np.ndarray], folder: Path) -> None:
        np.savez(folder / "weights.npz", **weights)
        np.savez(folder / "samples.npz", **samples())
        command = [str(python), str(Path(__file__).parent / "spectra_peer.py")]
        self.process = subprocess.Popen(
            [*command, str(folder / "weights.npz"), str(folder / "samples.npz")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(folder / "said.txt").open("w"), text=True,
            env={**os.environ, **ONE},
        )  # fmt: skip
        self.said = folder / "said.txt"

    def __call__(self, **what: object) -> dict:
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"The peer ended:\n{self.said.read_text()[-2000:]}")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def environment() -> Path:
    """An environment with the peer, made once."""
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stratoscope" / f"weightwatcher-{VERSION}"
    )
    python = cache / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (cache / "ready").exists():
        print(f"making {cache}", flush=True)
        constraints = Path(__file__).resolve().parents[1] / "constraints.txt"
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(cache)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "-c", str(constraints)]
        subprocess.run([*install, f"weightwatcher=={VERSION}", "torch"], check=True)
        (cache / "ready").touch()
    return python


# -- the comparison ------------------------------------------------------------------------------------------------------


def cpu(call: Callable[[], object], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def rounds_of(count: int, *turns: Callable[[], float]) -> list[tuple[float, ...]]:
    """The seconds of each in turn, a row a round, after a first one that is not counted."""
    return [tuple(turn() for turn in turns) for _ in range(count + 1)][1:]


def ms(rounds: list[tuple[float, ...]], place: int) -> str:
    return f"{1e3 * median(row[place] for row in rounds):.1f}"


def ratio(rounds: list[tuple[float, ...]], over: int, under: int) -> float:
    return median(row[over] / row[under] for row in rounds)


def equality(peer: Peer, weights: dict[str, torch.Tensor]) -> None:
    theirs = peer(do="full", layers=list(weights), repeats=1)["rows"]
    mine = {name: ours(matrix, ALPHA, shuffles_of(matrix)) for name, matrix in weights.items()}
    alphas = [abs(mine[name]["alpha"] - theirs[name]["alpha"]) for name in weights]
    print(f"\n|alpha - theirs|: at most {max(alphas):.1e} on {len(alphas)} layers (bar: below 1e-9)\n")
    print("| column | largest relative difference |\n|---|---|")
    for column in COLUMNS:
        apart = [apart_by(mine[name][column], theirs[name][column]) for name in weights]
        print(f"| `{column}` | {max(apart):.0e} |")
    print("\nFitted another way, or random: theirs / ours\n\n| layer | " + " | ".join(f"`{c}`" for c in FITTED) + " |")
    print("|---|" + "---|" * len(FITTED))
    for name in weights:
        cells = [f"{theirs[name][column]:.4g} / {mine[name].get(column, math.nan):.4g}" for column in FITTED]
        print(f"| {name} | {' | '.join(cells)} |")


def apart_by(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), abs(other)) if one != other else 0.0


def alpha(peer: Peer, weights: dict[str, torch.Tensor], count: int) -> None:
    print("\nalpha alone, ms of CPU time\n\n| layer | theirs | ours | floor | theirs / ours | ours / floor |")
    print("|---|---|---|---|---|---|")

    def row(name: str, chosen: dict[str, torch.Tensor], repeats: int) -> None:
        def mine() -> float:
            return cpu(lambda: [ours(matrix, ALPHA) for matrix in chosen.values()], repeats)

        turns = rounds_of(
            count,
            lambda: peer(do="alpha", layers=list(chosen), repeats=repeats)["seconds"],
            mine,
            lambda: cpu(lambda: [floor(matrix) for matrix in chosen.values()], repeats),
        )
        cells = (
            f"{ms(turns, 0)} | {ms(turns, 1)} | {ms(turns, 2)} | {ratio(turns, 0, 1):.1f} | {ratio(turns, 1, 2):.2f}"
        )
        print(f"| {name} | {cells} |", flush=True)

    for name, matrix in weights.items():
        row(name, {name: matrix}, max(1, 256**2 * 16 // (min(matrix.shape) * matrix.numel()) * 256))
    row("all, one call", weights, 1)
    print("\nbar: theirs / ours at least 3, ours / floor at most 1.5")


def full(peer: Peer, weights: dict[str, torch.Tensor], count: int) -> None:
    print("\nall columns, ms of CPU time\n\n| layer | theirs | ours, equal work | all of ours | ratio | ratio |")
    print("|---|---|---|---|---|---|")
    sums = np.zeros((count, 3))
    for name, matrix in weights.items():
        turns = rounds_of(
            count,
            lambda: peer(do="full", layers=[name], repeats=1)["seconds"],  # noqa: B023
            lambda: cpu(lambda: ours(matrix, ALPHA, shuffles_of(matrix)), 3),  # noqa: B023
            lambda: cpu(lambda: ours(matrix, ALL, 1), 1),  # noqa: B023
        )
        sums += turns
        show_full(name, turns)
    show_full("sum", [tuple(row) for row in sums])
    print("\nbar: the first ratio at least 15")


def show_full(name: str, turns: list[tuple[float, ...]]) -> None:
    cells = f"{ms(turns, 0)} | {ms(turns, 1)} | {ms(turns, 2)} | {ratio(turns, 0, 1):.1f} | {ratio(turns, 0, 2):.1f}"
    print(f"| {name} | {cells} |", flush=True)


def through_inspect(peer: Peer, weights: dict[str, torch.Tensor], count: int) -> None:
    print(
        "\n`inspect` against `analyze`, all layers in one call, ms of CPU time\n\n| what | theirs | ours | ratio |\n|---|---|---|---|"
    )
    kinds = {
        "alpha": ("alpha", {"shuffles": 0}),
        "full, equal work": ("full", {"shuffles": 2}),
        "full, all of ours (200 samples)": ("full", {"bootstrap": 200, "alternatives": True}),
    }
    for name, (do, settings) in kinds.items():
        turns = rounds_of(
            count,
            lambda: peer(do=do, layers=list(weights), repeats=1)["seconds"],  # noqa: B023
            lambda: cpu(lambda: inspected(weights, **settings), 1),  # noqa: B023
        )
        print(f"| {name} | {ms(turns, 0)} | {ms(turns, 1)} | {ratio(turns, 0, 1):.1f} |", flush=True)


def fits(peer: Peer, count: int) -> None:
    print("\nthe fit alone, ms of CPU time\n\n| sample | theirs | ours | ratio | alpha, apart |\n|---|---|---|---|---|")
    for name, values in samples().items():
        repeats = max(1, 4096 // len(values))
        turns = rounds_of(
            count,
            lambda: peer(do="fit", name=name, repeats=repeats)["seconds"],  # noqa: B023
            lambda: cpu(lambda: fit_power_law(values), 4 * repeats),  # noqa: B023
        )
        apart = abs(fit_power_law(values).alpha - peer(do="fit", name=name, repeats=1)["alpha"])
        print(
            f"| {name} | {ms(turns, 0)} | {1e3 * median(r[1] for r in turns):.2f} | {ratio(turns, 0, 1):.1f} | {apart:.0e} |",
            flush=True,
        )
    print("\nbar: at least 5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("equality", "alpha", "fit", "full", "inspect")
    parser.add_argument("--peer-python", type=Path, help="interpreter of an environment with the peer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    args = parser.parse_args()
    torch.set_num_threads(1)
    python = args.peer_python or environment()
    arrays = layers()
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Peer(python, arrays, Path(folder))) as peer:
        print(f"weightwatcher {peer(do='version')['version']}, {len(weights)} layers, {args.rounds} rounds, one thread")
        calls = {
            "equality": lambda: equality(peer, weights),
            "alpha": lambda: alpha(peer, weights, args.rounds),
            "fit": lambda: fits(peer, args.rounds),
            "full": lambda: full(peer, weights, max(1, args.rounds // 2)),
            "inspect": lambda: through_inspect(peer, weights, max(1, args.rounds // 2)),
        }
        for part in args.parts:
            calls[part]()


if __name__ == "__main__":
    main()
