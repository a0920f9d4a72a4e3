"""weightwatcher's side of `spectra.py`: runs in an environment of its own, and answers one line of JSON for each."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections import OrderedDict

import numpy as np
import torch
import weightwatcher
from torch import nn
from weightwatcher.WW_powerlaw import WWFit


def network(weights) -> nn.Sequential:
    layers = OrderedDict()
    for name, matrix in weights.items():
        layers[name] = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        layers[name].weight.data = torch.from_numpy(matrix)
    return nn.Sequential(layers)


def analyze(model, full: bool):
    watcher = weightwatcher.WeightWatcher(model=model, log_level=logging.CRITICAL)
    return watcher.analyze(mp_fit=full, randomize=full)


def timed(call, repeats: int):
    start = time.process_time()
    for _ in range(repeats):
        found = call()
    return (time.process_time() - start) / repeats, found


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # it prints
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    weights, samples = dict(np.load(sys.argv[1])), dict(np.load(sys.argv[2]))
    for line in sys.stdin:
        ask = json.loads(line)
        if ask["do"] == "version":
            reply = {"version": weightwatcher.__version__}
        elif ask["do"] == "fit":
            seconds, fit = timed(lambda: WWFit(samples[ask["name"]]), ask["repeats"])  # noqa: B023
            reply = {"seconds": seconds, "alpha": float(fit.alpha), "D": float(fit.D), "xmin": float(fit.xmin)}
        else:
            model = network({name: weights[name] for name in ask["layers"]})
            seconds, rows = timed(lambda: analyze(model, ask["do"] == "full"), ask["repeats"])  # noqa: B023
            numbers = rows.select_dtypes("number").astype(float)
            reply = {"seconds": seconds, "rows": dict(zip(rows["name"], numbers.to_dict("records"), strict=True))}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
