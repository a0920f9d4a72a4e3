"""What `stratoscope inspect` of a large checkpoint takes: memory, time, and how much of it is `eigvalsh`.

A sharded float16 checkpoint in the shapes of a language model is generated (seeded noise with a power-law low-rank part),
then inspected in a process of its own on one thread. Its peak memory is the kernel's count for that process, mapped
pages of the file included. This process imports nothing heavy: what it held would count for its children.

    python benchmarks/giant.py                          # 1 GB
    python benchmarks/giant.py --gigabytes 8 --folder /scratch/giant --to /scratch/record
    python benchmarks/giant.py ... --stop-after 60      # interrupts it after a minute, then goes on where it stopped
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VOCABULARY = 32768
SHARD = 2**29  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--hidden", type=int, help="width; 2048 up to 2 GB, else 4096")
    parser.add_argument("--folder", type=Path, help="keep the checkpoint here, and take it if it is there")
    parser.add_argument("--to", type=Path, help="keep the record here; an interrupted run goes on")
    parser.add_argument("--stop-after", type=float, metavar="SECONDS", help="interrupt once, then resume (needs --to)")
    parser.add_argument("--only", help="one instrument alone")
    parser.add_argument("--generate", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--inspect", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inspect:
        return timed_inspect(args.inspect)
    hidden = args.hidden or (2048 if args.gigabytes <= 2 else 4096)
    if args.generate:
        return generate(args.folder, args.gigabytes, hidden)
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "model.safetensors.index.json").exists():
            own = [sys.executable, __file__, "--generate", "--folder", str(folder)]
            subprocess.run([*own, "--gigabytes", str(args.gigabytes), "--hidden", str(hidden)], check=True)
        report(folder, args, Path(stack.enter_context(tempfile.TemporaryDirectory())))


def report(folder: Path, args: argparse.Namespace, scratch: Path) -> None:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    options = (["--to", str(args.to)] if args.to else []) + (["--only", args.only] if args.only else [])
    command = [sys.executable, __file__, "--inspect", str(scratch / "times.json"), str(folder), *options]
    total, peak = 0.0, 0
    for stop in ([args.stop_after] if args.stop_after else []) + [None]:
        code, seconds, memory = run(command, scratch, stop)
        total, peak = total + seconds, max(peak, memory)
        print(f"exit {code} after {seconds:.0f} s, peak {memory / 2**20:.2f} GiB", flush=True)
    times = json.loads((scratch / "times.json").read_text())
    print(
        f"{size / 1e9:.2f} GB of float16 in {total:.0f} s: {size / 1e6 / total:.1f} MB/s; peak {peak / 2**20:.2f} GiB"
    )
    shares = ", ".join(f"{name} {times[name] / times['all']:.0%}" for name in times if name != "all")
    print(f"processor time of the last process {times['all']:.0f} s: {shares}")


def run(command: list[str], scratch: Path, stop: float | None) -> tuple[int, float, int]:
    """Exit code, seconds, and the peak resident memory in KiB of one process."""
    start = time.perf_counter()
    with (scratch / "said.txt").open("w") as said:
        child = subprocess.Popen(
            command, stdout=said, env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        )
    if stop is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(stop)
        child.send_signal(signal.SIGINT)
    _, status, usage = os.wait4(child.pid, 0)
    return os.waitstatus_to_exitcode(status), time.perf_counter() - start, usage.ru_maxrss


def timed_inspect(arguments: list[str]) -> None:
    """`stratoscope inspect`, with the processor time of its decompositions written to the first argument."""
    import numpy as np
    import scipy.linalg
    import torch

    from stratoscope.cli.main import main as stratoscope
    from stratoscope.numerics import matrices

    spent = {"decompositions": 0.0, "Gram matrices": 0.0}

    def clocked(function, name="decompositions"):
        def call(*args, **kwargs):
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.process_time() - start

        return call

    torch.set_num_threads(1)
    np.linalg.eigvalsh = clocked(np.linalg.eigvalsh)
    scipy.linalg.eigh = clocked(scipy.linalg.eigh)
    torch.linalg.svdvals = clocked(torch.linalg.svdvals)
    matrices.lower_gram = clocked(matrices.lower_gram, "Gram matrices")
    sys.argv = ["stratoscope", "inspect", *arguments[1:]]
    try:
        stratoscope()
    finally:
        Path(arguments[0]).write_text(json.dumps(spent | {"all": time.process_time()}))


def generate(folder: Path, gigabytes: float, hidden: int) -> None:
    """Blocks of attention and a gated feed-forward of four times the width, an embedding and a head."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    block = {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
    block |= {"mlp.gate_proj": (4 * hidden, hidden), "mlp.up_proj": (4 * hidden, hidden)}
    block |= {"mlp.down_proj": (hidden, 4 * hidden)}
    table = (VOCABULARY, hidden)
    each = 2 * sum(rows * columns for rows, columns in block.values())
    count = max(1, math.ceil((gigabytes * 1e9 - 4 * VOCABULARY * hidden) / each))
    names = {"model.embed_tokens.weight": table}
    for number in range(count):
        names |= {f"model.layers.{number}.{name}.weight": shape for name, shape in block.items()}
        names |= {f"model.layers.{number}.{norm}.weight": (hidden,) for norm in ("input_layernorm", "mlp_layernorm")}
    names |= {"model.norm.weight": (hidden,), "lm_head.weight": table}
    homes, shard, number = {}, {}, 1
    for name, shape in names.items():
        shard[name] = weight(shape, generator)
        homes[name] = f"model-{number:05d}.safetensors"
        if sum(tensor.nbytes for tensor in shard.values()) >= SHARD or name == "lm_head.weight":
            save_file(shard, folder / homes[name])
            shard, number = {}, number + 1
    index = {"metadata": {}, "weight_map": homes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    print(f"{len(names)} tensors of width {hidden} in {count} blocks and {number - 1} shards", flush=True)


def weight(shape, generator):
    """A norm's gain of one, or Gaussian entries and 32 directions whose strengths fall as a power law."""
    import torch

    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.float16)
    rows, columns = shape
    left, right = (torch.randn(n, 32, generator=generator) / n**0.5 for n in shape)
    right *= 4 * (torch.arange(32) + 1.0) ** -0.5 * (rows**0.5 + columns**0.5)
    made = torch.empty(shape, dtype=torch.float16)
    for start in range(0, rows, 1024):
        part = left[start : start + 1024] @ right.T
        part += torch.randn(part.shape, generator=generator)
        made[start : start + 1024] = part * 0.02
    return made


if __name__ == "__main__":
    main()
