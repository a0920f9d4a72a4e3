"""What watching a training takes: every instrument at the default budget, on a convolutional network.

A B A B: trainings that nobody watches and watched ones, each in a process of its own. The clock of the watch says which
share of the time it spent, step 0 and the conclusions included. CPU time beside it, of the whole process with its threads
and for each step, says what that clock leaves out: what runs beside the training (the thread that writes), what the
training has to fetch into its caches again. CIFAR-10 where `STRATOSCOPE_DATA` has it, generated pictures otherwise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from stratoscope import NotApplicable, Record, watch
from stratoscope.studies.learning_phases.pictures import Pictures, load

BATCH = 128
LEAST = 8
"""Full measurements that are wanted, those of the first and the last step among them."""


def pictures() -> tuple[str, Pictures]:
    try:
        return "CIFAR-10", load("cifar10_jpeg", 8000, 2000, 32)
    except NotApplicable:
        return "generated pictures", load("generated", 8000, 2000, 32)


def network(blocks: int) -> nn.Sequential:
    """Blocks of a convolution, batch norm, a rectifier and a maximum; the mean over positions; a linear head."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for block in range(blocks):
        before, after = 3 if block == 0 else 16 * 2**block, 32 * 2**block
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] * (block < blocks - 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16 * 2**blocks, 10))


def train(watched: bool, seconds: float, blocks: int, folder: Path) -> dict[str, Any]:
    """Train for so long; what that took."""
    source, data = pictures()
    model, draw = network(blocks), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = data.train
    splits = {"train": data.train, "test": data.test}
    cpu, start, step = time.process_time(), time.perf_counter(), 0
    with watch(model, splits, optimizer=optimizer, to=folder) if watched else nullcontext() as w:
        while time.perf_counter() - start < seconds:
            step += 1
            chosen = torch.randint(0, len(x), (BATCH,), generator=draw)
            loss = F.cross_entropy(model(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # as every training loop does for its own log
            if w is not None:
                w.step(step, loss=loss)
    about = {"source": source, "steps": step, "seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    return about | (_told(folder, w.summary) if w is not None else {})


def _told(folder: Path, summary: str) -> dict[str, Any]:
    record = Record.open(folder)
    names = ("share_spent", "seconds_spent", "full_rounds", "rounds", "seconds_by_instrument", "seconds_aside")
    last = record["reconstruction"].steps if "reconstruction" in record else record.steps
    return {name: record.meta[name] for name in names} | {"summary": summary, "at": list(last)}


def _in_a_process(watched: bool, seconds: float, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", str(int(watched)), "--seconds", str(seconds)]
        command += ["--threads", str(arguments.threads), "--blocks", str(arguments.blocks)]
        done = subprocess.run([*command, "--folder", folder + "/run"], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    what = "watched" if watched else "plain"
    print(
        f"{what}: {found['steps']} steps in {found['seconds']:.0f} s, CPU {1000 * _each(found):.2f} ms a step",
        flush=True,
    )
    if watched:
        print(f"  {found['summary']}; at steps {found['at']}", flush=True)
    return found


def _each(run: dict[str, Any]) -> float:
    each: float = run["cpu"] / run["steps"]
    return each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of each watched training")
    parser.add_argument("--plain", type=float, default=120, help="seconds of each that nobody watches")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one is not None:
        print(json.dumps(train(bool(arguments.one), arguments.seconds, arguments.blocks, arguments.folder)))
        return
    plain, ours = [], []
    for _ in range(arguments.pairs):
        plain.append(_in_a_process(False, arguments.plain, arguments))
        ours.append(_in_a_process(True, arguments.seconds, arguments))
    share = statistics.median(run["share_spent"] for run in ours)
    more = statistics.median(map(_each, ours)) / statistics.median(map(_each, plain)) - 1
    fewest = min(run["full_rounds"] for run in ours)
    print(f"{ours[0]['source']}, {arguments.threads} threads, {arguments.blocks} blocks, {arguments.seconds:.0f} s")
    print(f"share of the time by the clock of the watch: {share:.4f} (bar 0.05)")
    print(f"full measurements: {fewest} (bar {LEAST}), CPU time of a step: {more:+.1%}")
    taken = sorted((ours[-1]["seconds_by_instrument"] | ours[-1]["seconds_aside"]).items(), key=lambda one: -one[1])
    print("seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in taken if value >= 0.01))


if __name__ == "__main__":
    main()
