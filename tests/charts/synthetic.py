"""Records that look like those of a watched training, made without training."""

import numpy as np

from stratoscope.findings import Finding, Outcome
from stratoscope.network.layers import Catalogue, Layer, Matrix, Param
from stratoscope.record import Coverage, Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity

METHOD = """Unit census: which units of a nonlinearity ever act.

For each unit the share of examples on which it is **active**: `x > 0` for ReLU.

* ReLU: above zero;
* tanh: not saturated.

**When it misleads.** A small probe set makes rare units look dead.

Source: arXiv:1811.05381.
"""


def linear(name, depth, rows, columns, bias=True):
    weight = f"{name}.weight"
    params = [Param(weight, name, (rows, columns), "weight", True)]
    if bias:
        params.append(Param(f"{name}.bias", name, (rows,), "bias", True))
    matrix = Matrix(weight, name, (weight,), "linear", (rows, columns), lambda w: w)
    return Layer(name, "linear", depth, tuple(params), (matrix,))


def activation(name, depth):
    return Layer(name, "activation", depth, activation="relu")


def catalogue(layers=4):
    found = []
    for number in range(layers):
        found.append(linear(f"body.{number}.fc", 2 * number, 32, 16))
        found.append(activation(f"body.{number}.relu", 2 * number + 1))
    found.append(linear("head", 2 * layers, 10, 32))
    return Catalogue({layer.name: layer for layer in found})


def entries_at(step, layers, rng, split, units=24):
    """What the instruments would say at one step: dead units grow in the second layer, classes separate."""
    relus = [f"body.{n}.relu" for n in range(layers)]
    progress = 1 - np.exp(-step / 60)
    share = {"units": "1", "valid_min": 0.0, "valid_max": 1.0, "dims": "layer", "coords": {"layer": relus}}
    dead = np.clip(rng.normal(0.05, 0.01, layers) + (np.arange(layers) == 1) * 0.6 * progress, 0, 1)
    stacked = [(name, unit) for name in relus for unit in range(units)]
    active = np.clip(rng.beta(2, 3, len(stacked)) * (1 - 0.5 * progress), 0, 1)
    depth = np.arange(layers)
    gdv = -0.05 - 0.4 * progress * (depth + 1) / layers + rng.normal(0, 0.01, layers)
    place = {"dims": "layer", "coords": {"layer": relus}, "units": "1"}
    found = [
        Entry("units", "active_share", quantity(active, units="1", valid_min=0.0, valid_max=1.0, dims="layer_unit",
              coords={"layer_unit": stacked}, long_name="share of examples on which the unit is active"), split=split),
        Entry("units", "dead_share", quantity(dead, long_name="share of units active for no example", **share), split=split),
        Entry("units", "sparsity", quantity(np.clip(0.4 + 0.1 * progress + rng.normal(0, 0.02, layers), 0, 1),
              long_name="share of (example, position) pairs that are not active", **share), split=split),
        Entry("units", "n", quantity([500] * layers, long_name="examples counted", **place), split=split),
        Entry("separation", "gdv", quantity(gdv, long_name="generalized discrimination value", **place), split=split),
        Entry("separation", "gdv_floor", quantity([-0.95] * layers, long_name="the value if every class were one point", **place), split=split),
        Entry("separation", "uninformative", quantity((gdv > -0.08).astype(int), flag_values=[0, 1],
              flag_meanings="informative uninformative", long_name="shuffled labels would read the same", **place), split=split),
        Entry("separation", "intra", quantity(rng.gamma(3, 0.2, (layers, 10)), units="1", dims=("layer", "class"),
              coords={"layer": relus}, long_name="mean distance within the class"), split=split),
    ]  # fmt: skip
    accuracy = 0.1 + 0.8 * progress
    for name, value, text in (("accuracy", accuracy, "accuracy"), ("accuracy_low", accuracy - 0.04, "lower end"),
                              ("accuracy_high", accuracy + 0.03, "upper end")):  # fmt: skip
        number = quantity(value, units="1", valid_min=0.0, valid_max=1.0, long_name=text)
        found.append(Entry("performance", name, number, split=split))
    return found


def weights_at(step, layers, rng):
    names = [f"body.{n}.fc.weight" for n in range(layers)] + ["head.weight"]
    progress = 1 - np.exp(-step / 60)
    where = {"dims": "matrix", "coords": {"matrix": names}}
    rank = 8 - 4 * progress + rng.normal(0, 0.1, len(names))
    return [
        Entry("weights", "stable_rank", quantity(rank, units="1", valid_min=1.0, long_name="stable rank", **where)),
        Entry("weights", "spectral_norm", quantity(1 + progress * np.linspace(1, 3, len(names)), units="1",
              long_name="largest singular value", **where)),
    ]  # fmt: skip


def training_at(step, layers, rng):
    names = [f"body.{n}.fc.{part}" for n in range(layers) for part in ("weight", "bias")] + ["head.weight", "head.bias"]
    loss = 2.3 * np.exp(-step / 80) + 0.05 + rng.gamma(2, 0.02)
    ratio = 10 ** rng.normal(-3, 0.2, len(names))
    where = {"dims": "param", "coords": {"param": names}, "scale": "log", "units": "1"}
    return [
        Entry("training", "loss", quantity(loss, units="nat", long_name="loss of the mini-batch")),
        Entry(
            "training",
            "update_ratio",
            quantity(ratio, long_name="norm of the update over norm of the weights", **where),
        ),
    ]


def phases_at(step, layers, rng):
    names = [f"body.{n}.relu" for n in range(layers)]
    phase = [min(2, int(step / (40 + 30 * n))) for n in range(layers)]
    return [
        Entry("phases", "phase", quantity(phase, units="1", dims="layer", coords={"layer": names}, flag_values=[0, 1, 2],
              flag_meanings="random fitting compressed", long_name="phase of training")),
    ]  # fmt: skip


def findings():
    return [
        Finding("UN001", "units", "body.1.relu", 200, Outcome.ISSUE, "body.1.relu: 62% of the units are dead on all 500 examples",
                "lower the learning rate, check the initialisation and the bias, or use a leaky nonlinearity",
                {"dead_share": 0.62, "limit": 0.5, "n": 500, "dead_bound": 0.006}, "arXiv:1811.05381", "train"),
        Finding("SP001", "separation", "body.0.relu", 200, Outcome.TIP, "body.0.relu does not separate the classes",
                "look at deeper layers", {"gdv": -0.06, "limit": -0.08}, "arXiv:1811.01753", "test"),
        Finding("UN003", "units", None, None, Outcome.PASSED, "Not seen: most rectifiers of a layer are always on", "", {}, "arXiv:1811.05381"),
        Finding("TR001", "training", None, None, Outcome.PASSED, "Not seen: the loss or a gradient is NaN or infinite", "", {}, "arXiv:1703.00810"),
        Finding("UN005", "units", None, 0, Outcome.SKIPPED, "too few examples to judge units", "probe more", {"n": 3, "limit": 30}, ""),
    ]  # fmt: skip


def coverage(layers):
    found = []
    for n in range(layers):
        weight, bias = f"body.{n}.fc.weight", f"body.{n}.fc.bias"
        found += [
            Coverage("weights", "", f"body.{n}.fc", weight, "", 0, "measured"),
            Coverage(
                "weights", "", f"body.{n}.fc", bias, "", 0, "not_applicable", "a vector or a number, not a matrix"
            ),
            Coverage("training", "", f"body.{n}.fc", bias, "", 0, "measured"),
            Coverage("units", "", f"body.{n}.relu", "", "train", 0, "measured"),
            Coverage("units", "", f"body.{n}.fc", weight, "train", 0, "not_applicable", "no nonlinearity here"),
        ]
    found.append(Coverage("weights", "", "head", "head.weight", "", 0, "measured"))
    found.append(
        Coverage("weights", "", "head", "head.bias", "", 0, "not_applicable", "a vector or a number, not a matrix")
    )
    return found


META = {
    "name": "a small network",
    "started": "2026-01-01T12:00:00+0000",
    "versions": {"stratoscope": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
    "argv": ["stratoscope", "demo"],
    "instruments": {
        "units": {
            "title": "Unit census",
            "source": "arXiv:1811.05381",
            "codes": {},
            "settings": {"threshold": 0.01},
            "method": METHOD,
        },
        "separation": {
            "title": "Separation of classes",
            "source": "arXiv:1811.01753",
            "codes": {},
            "settings": {},
            "method": "GDV.",
        },
        "training": {
            "title": "Training steps",
            "source": "arXiv:1703.00810",
            "codes": {},
            "settings": {},
            "method": "",
        },
        "weights": {
            "title": "Weight matrices",
            "source": "arXiv:1501.01571",
            "codes": {},
            "settings": {},
            "method": "",
        },
    },
    "data": {
        "train": {"n": 500, "how": "drawn at random", "digest": "abc", "forward_calls": 4, "seconds": 0.1, "notes": []}
    },
}


def make(steps=(0, 1, 2, 4, 8, 16, 32, 64, 128, 200), layers=4, splits=("train", "test"), seed=0, every_step=200):
    """A record in memory."""
    rng = np.random.default_rng(seed)
    writer = RecordWriter.create(None, META)
    writer.write_layers(catalogue(layers))
    for step in steps:
        entries = [entry for split in splits for entry in entries_at(step, layers, rng, split)]
        entries += weights_at(step, layers, rng) + phases_at(step, layers, rng)
        writer.commit(step, entries)
    for step in range(1, every_step + 1):
        writer.append(step, training_at(step, layers, rng))
    writer.commit(max((*steps, every_step)), [], findings=findings(), coverage=coverage(layers))
    writer.write_meta("status", "finished")
    return Record.from_writer(writer)


def record_of(*entries, layers=None, step=0, findings=(), coverage=(), meta=None):
    """A record in memory with the entries given; a list of (step, entries) pairs makes several steps."""
    writer = RecordWriter.create(None, meta or {})
    if layers is not None:
        writer.write_layers(Catalogue({layer.name: layer for layer in layers}))
    rounds = entries[0] if entries and isinstance(entries[0], list) else [(step, entries)]
    for number, (at, some) in enumerate(rounds):
        last = number == len(rounds) - 1
        writer.commit(at, some, findings=findings if last else (), coverage=coverage if last else ())
    return Record.from_writer(writer)
