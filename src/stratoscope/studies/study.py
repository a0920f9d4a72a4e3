'''What a study declares.

A study is a folder `studies/NAME/` with a module `study.py` that has a `STUDY`:

```python
"""Does a wider layer keep a larger stable rank? A worked example."""

from itertools import pairwise
import torch
from stratoscope import inspect
from stratoscope.studies import Claim, Evidence, Study


def tasks(budget, seeds):
    widths = {"smoke": [8, 16], "analogue": [64, 128, 256], "full": [256, 512, 1024]}[budget]
    return [{"width": width, "seed": seed} for width in widths for seed in range(seeds)]


def work(spec, folder):
    draw = torch.Generator().manual_seed(spec["seed"])
    inspect({"fc.weight": torch.randn(spec["width"], 64, generator=draw)}, to=folder, only=["weights"])


def rises(runs):
    def smallest_step(same):
        ranks = [run.number("weights", "stable_rank", matrix="fc.weight") for run in same.sorted("width")]
        return min(b - a for a, b in pairwise(ranks))

    return Evidence(runs.per_seed(smallest_step), "smallest rise from one width to the next")


STUDY = Study(
    name="worked-example",
    title="Stable rank and width",
    paper="doi:10.5555/12345678",
    question="Does a wider layer keep a larger stable rank?",
    tasks=tasks,
    work=work,
    claims=(Claim("The stable rank of a random matrix rises with its width", "Figure 1", rises),),
)
```

`tasks` and `work` are plain functions. A task is done once: its folder is named by its spec and by the source of the study
(every `.py` file in the folder but `claims.py`, so claims may be changed without training again).
'''

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from stratoscope.engine.task import Spec, Task, Work
from stratoscope.errors import SettingError
from stratoscope.record.values import digest, to_json
from stratoscope.studies.claim import Claim

Budget = Literal["smoke", "analogue", "full"]
"""`smoke`: at most 20 s, decides nothing; `analogue`: at most 15 minutes on two cores; `full`: the paper's own size."""

BUDGETS: tuple[Budget, ...] = get_args(Budget)
SEEDS: Mapping[Budget, int] = {"smoke": 1, "analogue": 3, "full": 6}

CLAIMS = "claims.py"
"""A file that may change without making what was measured old."""


@dataclass(frozen=True)
class Study:
    """A reproduction of a paper, declared.

    Attributes:
        name: in lower case, with hyphens.
        title: for people.
        paper: its source, as `arXiv:1810.01075`.
        question: what it asks, in one sentence.
        tasks: the specs of all tasks, for a budget and a number of seeds; those with a random part have a `seed`.
        work: does one task: measures, and writes a record into the folder, which is there and is empty but for a note.
            It raises `NotApplicable` with the reason where something is missing, such as a data set.
        claims: what the paper says.
        seeds: how many for each budget, where nobody says otherwise.
    """

    name: str
    title: str
    paper: str
    question: str
    tasks: Callable[[Budget, int], Sequence[Spec]]
    work: Work
    claims: tuple[Claim, ...]
    seeds: Mapping[Budget, int] = field(default_factory=lambda: dict(SEEDS))

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise SettingError(f"{self.name!r} is no name for a study; use lower case and hyphens.")
        said = [claim.says for claim in self.claims]
        if not said or len(set(said)) < len(said):
            raise SettingError(f"The study {self.name} needs claims, each said once.")

    @property
    def digest(self) -> str:
        """Names the source of the study, claims included."""
        return self._digest(self.sources)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that the study consists of: those beside its `work`, or the one file, where that is no package."""
        module = sys.modules[self.work.__module__]
        file = getattr(module, "__file__", None)
        if file is None:
            return ()
        package = module.__name__.rpartition(".")[0]
        return tuple(sorted(Path(file).parent.glob("*.py"))) if package else (Path(file),)

    def _digest(self, files: Sequence[Path]) -> str:
        found = hashlib.sha256()
        for path in files:
            found.update(path.name.encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
        return found.hexdigest()[:16]

    def make_tasks(self, budget: Budget, seeds: int, root: Path) -> list[Task]:
        """The tasks of a budget, with their folders.

        Args:
            budget: how much.
            seeds: how many.
            root: where the folders go; one study may share it with others.

        Raises:
            SettingError: if two specs are equal, or one is not what JSON can hold.
        """
        from stratoscope.version import __version__

        version = self._digest([path for path in self.sources if path.name != CLAIMS])
        found = {}
        for spec in self.tasks(budget, seeds):
            text = to_json(dict(spec), f"A spec of {self.name}")
            name = f"{_slug(spec)}-{digest(f'{self.name} {version} {__version__} {text}')[:12]}"
            if name in found:
                raise SettingError(f"The study {self.name} has the same task twice: {dict(spec)}.")
            found[name] = Task(self.work, spec, root / self.name / name)
        return list(found.values())


def _slug(spec: Spec) -> str:
    """What a folder is called for people.

    >>> _slug({"net": "LeNet5", "batch": 16, "seed": 0})
    'net-lenet5-batch-16-seed-0'
    """
    words = "-".join(f"{name}-{value}" for name, value in spec.items())
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:48].strip("-") or "task"
