"""The shape of the source tree: which room may import which, what loads when, and what is documented."""

import ast
import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "stratoscope"

ORDER = [
    ["errors"],
    ["version"],
    ["numerics"],
    ["findings"],
    ["network"],
    ["capture"],
    ["record"],
    ["instruments"],
    ["diagnoses"],
    ["observe"],
    ["engine"],
    ["charts"],
    ["report"],
    ["view", "integrations", "studies", "testing"],
    ["demo"],
    ["cli"],
]
"""From left to right; rooms in one line do not know each other."""

APART = {"optim": {"numerics", "errors"}, "nn": {"numerics", "errors"}, "regularizers": {"numerics", "errors"}}
"""Building blocks that are used without the rest: room, and all that it may import."""

HEAVY = {
    "h5netcdf", "h5py", "hypothesis", "jinja2", "joblib", "matplotlib", "pandas", "PIL", "pyarrow", "rich", "scipy",
    "sklearn", "starlette", "typer", "uvicorn", "xarray",
}  # fmt: skip
"""Libraries that are imported where they are used, so that nobody pays for what is not used."""

HEAVY_AT_TOP = {
    "h5py": ("network.formats._hdf5_child",),
    "hypothesis": ("testing.strategies",),
    "jinja2": ("report.html", "view.export", "view.notebook"),
    "rich": (
        "report.advising",
        "report.changes",
        "report.console",
        "report.terminal",
        "report.timeline",
        "report.verdicts",
    ),
    "starlette": ("view.security", "view.server", "view.serving"),
    "typer": ("cli.",),
}
"""The exceptions: a library, and the modules that are nothing without it. Nobody imports these at the top either."""

RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


@dataclass(frozen=True)
class Import:
    """One import: who, whom, where it stands (`"top"`, `"function"`, `"typing"`), and the line."""

    module: str
    target: str
    place: str
    line: int

    def __str__(self):
        return f"{self.module}:{self.line} imports {self.target} ({self.place})"


def modules(source):
    """Every module of the package by its dotted name, the package itself as `stratoscope`."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(("stratoscope", *parts))] = path
    return found


def imports(source):
    known = modules(source)
    return [found for name, path in known.items() for found in imports_of(name, path, known)]


def imports_of(name, path, known):
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    stack = [(node, "top") for node in ast.parse(path.read_text(encoding="utf-8")).body]
    while stack:
        node, place = stack.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, place, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(name, inner if inner in known else base, place, node.lineno)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            stack += [(child, "typing") for child in node.body] + [(child, place) for child in node.orelse]
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            stack += [(child, "function" if inside else place) for child in ast.iter_child_nodes(node)]


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def breaches(found):
    """Imports that go against the order. Those for types alone may point anywhere: they run nothing."""
    return [one for one in found if one.place != "typing" and ours(one.target) and not allowed(one)]


def ours(target):
    return target == "stratoscope" or target.startswith("stratoscope.")


def allowed(one):
    mine, theirs = room_of(one.module), room_of(one.target)
    if mine in ("", theirs) or one.module == "stratoscope.__main__":
        return True  # the door may name everybody, a room its own files
    if theirs == "":
        return False  # a room that goes through the door loads what the door shows
    if mine in APART:
        return theirs in APART[mine]
    return theirs in APART or RANK[theirs] < RANK[mine]


def cycles(found):
    """Groups of modules that import each other while running, at the top or in a function."""
    graph = {}
    for one in found:
        if one.place != "typing" and ours(one.target) and one.module != one.target:
            graph.setdefault(one.module, set()).add(one.target)

    def reach(start):
        seen, todo = set(), [start]
        while todo:
            for target in graph.get(todo.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen

    reached = {module: reach(module) for module in graph}
    return sorted(
        {tuple(sorted(m for m in reached if m in reached[n] and n in reached[m])) for n in reached if n in reached[n]}
    )


def heavy(found):
    """Imports that load a heavy library as soon as a module is imported, directly or by way of an exception."""
    apart = lazy()
    return [
        one
        for one in found
        if one.place == "top" and (loads_heavy(one) or (one.target in apart and one.module not in apart))
    ]


def loads_heavy(one):
    library = one.target.partition(".")[0]
    within = one.module.removeprefix("stratoscope.")
    return library in HEAVY and not any(within.startswith(place) for place in HEAVY_AT_TOP.get(library, ()))


def lazy():
    """Modules that are imported only where they are used, since they load something heavy."""
    return {f"stratoscope.{place}" for places in HEAVY_AT_TOP.values() for place in places if not place.endswith(".")}


@pytest.fixture(scope="module")
def found():
    return imports(SOURCE)


def test_every_room_has_a_place_in_the_order():
    rooms = {room_of(name) for name in modules(SOURCE)} - {"", "__main__"}
    assert rooms <= set(RANK) | set(APART), "a new room: give it a place in ORDER"


def test_imports_go_one_way(found):
    assert [str(one) for one in breaches(found)] == []


def test_no_module_imports_itself_round_a_corner(found):
    assert cycles(found) == []


def test_heavy_libraries_are_imported_where_they_are_used(found):
    assert [str(one) for one in heavy(found)] == []


def test_nothing_of_ours_needs_torchvision(found):
    assert [str(one) for one in found if one.target.partition(".")[0] in ("torchvision", "timm", "torchaudio")] == []


def test_the_checks_see_what_is_wrong(tmp_path):
    wrong = {
        "__init__.py": "",
        "errors.py": "",
        "numerics/__init__.py": "",
        "numerics/one.py": "from ..record import two\nimport scipy.stats",
        "record/__init__.py": "",
        "record/two.py": "def f():\n    from stratoscope.record.three import x",
        "record/three.py": "import stratoscope.record.two\nfrom stratoscope import examine",
        "record/four.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stratoscope.cli import main",
        "nn/__init__.py": "from stratoscope import errors\nfrom stratoscope.record import four",
        "report/__init__.py": "",
        "report/terminal.py": "import rich.table\nfrom stratoscope.errors import x",
        "report/other.py": "def f():\n    from stratoscope.report import terminal",
        "cli/main.py": "import typer\nfrom stratoscope import record",
        "cli/bad.py": "from stratoscope.report.terminal import print_report",
    }
    for name, text in wrong.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = imports(tmp_path)
    assert {(one.module.removeprefix("stratoscope."), one.target) for one in breaches(found)} == {
        ("numerics.one", "stratoscope.record.two"),
        ("record.three", "stratoscope"),
        ("nn", "stratoscope.record.four"),
    }
    assert cycles(found) == [("stratoscope.record.three", "stratoscope.record.two")]
    assert {(one.module, one.target) for one in heavy(found)} == {
        ("stratoscope.numerics.one", "scipy.stats"),
        ("stratoscope.cli.bad", "stratoscope.report.terminal"),
    }


SLOW_TO_LOAD = ["jinja2", "matplotlib", "numpy", "pandas", "scipy", "sklearn", "torch", "xarray"]


def loaded_by(code):
    """Which of the slow libraries are loaded after some code has run in a fresh interpreter."""
    ask = f"import json, sys\n{code}\nprint(json.dumps([m for m in {SLOW_TO_LOAD} if m in sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent), "COLUMNS": "80"}
    environment.pop("COVERAGE_PROCESS_START", None)
    ended = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environment, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import stratoscope") == []


def help_of(*words):
    return (
        "from contextlib import suppress\nfrom stratoscope.cli.main import main\n"
        f"sys.argv = ['stratoscope', *{list(words)}, '--help']\nwith suppress(SystemExit):\n    main()"
    )


def test_help_loads_nothing_heavy():
    assert loaded_by(help_of()) == []


def test_help_of_a_command_loads_nothing_heavy():
    assert loaded_by(help_of("examine")) == []


def test_the_loading_check_can_fail():
    assert loaded_by("import numpy") == ["numpy"]


def test_every_module_can_be_imported():
    for name in modules(SOURCE):
        if not name.endswith("__main__"):
            importlib.import_module(name)


def test_public_names_are_sorted_documented_and_told_to_type_checkers():
    import stratoscope

    assert stratoscope.__all__ == sorted(stratoscope.__all__)
    assert set(stratoscope.__all__) == set(stratoscope._HOMES)
    for name in stratoscope.__all__:
        public = getattr(stratoscope, name)
        assert name == "__version__" or public.__doc__, f"stratoscope.{name} has no docstring"
    door = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.asname or alias.name
        for node in ast.walk(door)
        if isinstance(node, ast.If)
        for line in node.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert typed == set(stratoscope.__all__)


def undocumented(name, tree, is_package):
    """Public modules, classes, functions and methods without a docstring."""
    if not (is_package and not tree.body) and ast.get_docstring(tree) is None:
        yield name
    todo = [(name, node) for node in tree.body]
    while todo:
        home, node = todo.pop()
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        overload = any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)
        if ast.get_docstring(node) is None and not overload:
            yield f"{home}.{node.name}"
        if isinstance(node, ast.ClassDef):
            todo += [(f"{home}.{node.name}", child) for child in node.body]


def test_everything_public_is_documented():
    missing = [
        bare
        for name, path in modules(SOURCE).items()
        if not any(part.startswith("_") for part in name.split("."))
        for bare in undocumented(name, ast.parse(path.read_text(encoding="utf-8")), path.name == "__init__.py")
    ]
    assert missing == []


def test_lists_of_public_names_are_sorted():
    for name, path in modules(SOURCE).items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                listed = ast.literal_eval(node.value)
                assert listed == sorted(listed), f"__all__ of {name} is not sorted"
