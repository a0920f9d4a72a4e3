"""Writes the pages that follow from the code: one for each instrument and diagnosis, the registry of findings, the reference.

Everything is found by walking, so a new instrument or module appears here without an edit.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import stratoscope
from stratoscope.cli.instruments import cost_of
from stratoscope.diagnoses.base import Diagnosis
from stratoscope.diagnoses.registry import available as diagnoses
from stratoscope.instruments.base import Instrument, Judge, NetworkInstrument
from stratoscope.instruments.registry import available
from stratoscope.report.codes import EVERYWHERE, codes_of
from stratoscope.report.explanations import without_codes

SOURCE = Path(stratoscope.__file__).parent
Variables = Mapping[str, Mapping[str, Any]]


def write_all(docs: Path) -> None:
    """Write every generated page below a folder and delete old ones; what would not change is left alone."""
    found = variables()
    written = {
        "findings.md": findings_page(),
        "instruments/index.md": instruments_index(),
        **{f"instruments/{key}.md": instrument_page(cls, found.get(key, {})) for key, cls in available().items()},
        "diagnoses/index.md": diagnoses_index(),
        **{f"diagnoses/{key}.md": diagnosis_page(cls, found.get(key, {})) for key, cls in diagnoses().items()},
        "generated/commands.md": commands_part(),
        **{f"generated/{room}.md": text for room, text in reference_pages().items()},
    }
    for name, text in written.items():
        write(docs / name, text)
    for folder in ("instruments", "diagnoses", "generated"):
        for path in (docs / folder).glob("*.md"):
            if f"{folder}/{path.name}" not in written:
                path.unlink()  # of an instrument or room that is gone


def write(path: Path, text: str) -> None:
    """Write a page, unless it says so already."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# -- instruments ----------------------------------------------------------------------------------------------------


def instruments_index() -> str:
    """The list of instruments."""
    rows = [
        [f"[{cls.title}]({key}.md)", f"`{key}`", link(cls.source), cost_of(cls())] for key, cls in available().items()
    ]
    keys = "\n".join(available())
    return (
        "# Instruments\n\n"
        "Each is one published measurement, in one file. `stratoscope instruments` prints the same list, "
        "with those that other installed packages bring.\n\n"
        f"{table(['instrument', 'key', 'source', 'cost'], rows)}\n"
        f"```{{toctree}}\n:hidden:\n\n{keys}\n```\n"
    )


def instrument_page(cls: type[Instrument], measured: Variables) -> str:
    """Everything that is known of one instrument."""
    instrument = cls()
    facts = [
        ["key", f"`{cls.key}`"],
        ["source", link(cls.source)],
        ["looks at", "the whole network" if issubclass(cls, NetworkInstrument) else "one layer at a time"],
        ["when", "every step of a watched training" if cls.every_step else "at each full measurement"],
        ["needs", ", ".join(sorted(f"`{need}`" for need in instrument.requires)) or "nothing"],
        ["uses, where it is there", ", ".join(sorted(f"`{need}`" for need in instrument.uses)) or "nothing more"],
        ["cost", cost_of(instrument)],
        ["class", f"{{py:class}}`{cls.__module__}.{cls.__name__}`"],
    ]
    parts = [
        f"(instrument-{cls.key})=\n# {cls.title}",
        table(["", ""], facts),
        _method(cls),
        _settings(cls),
        _codes(cls),
        _variables(cls, measured),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def diagnoses_index() -> str:
    """The list of diagnoses."""
    rows = [[f"[{cls.title}]({key}.md)", f"`{key}`", link(cls.source), _reads(cls)] for key, cls in diagnoses().items()]
    keys = "\n".join(diagnoses())
    return (
        "# Diagnoses\n\n"
        "Each is a rule over what several [instruments](../instruments/index.md) measured, in one file. It is derived at "
        "the end of every measurement, and from any record by `stratoscope.diagnose`.\n\n"
        f"{table(['diagnosis', 'key', 'source', 'reads'], rows)}\n"
        f"```{{toctree}}\n:hidden:\n\n{keys}\n```\n"
    )


def diagnosis_page(cls: type[Diagnosis], derived: Variables) -> str:
    """Everything that is known of one diagnosis."""
    needs = sorted(cls.reads - cls.optional)
    facts = [
        ["key", f"`{cls.key}`"],
        ["source", link(cls.source)],
        ["reads", _reads(cls)],
        ["needs", " and ".join(needs) or "one of " + ", ".join(sorted(cls.any_of or cls.reads))],
        ["class", f"{{py:class}}`{cls.__module__}.{cls.__name__}`"],
    ]
    parts = [
        f"(diagnosis-{cls.key})=\n# {cls.title}",
        table(["", ""], facts),
        _method(cls, "What follows"),
        _settings(cls, "diagnoses"),
        _codes(cls),
        _variables(cls, derived),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _reads(cls: type[Diagnosis]) -> str:
    """The instruments that it reads, with their pages where they are ours."""
    return ", ".join(f"[{key}](../instruments/{key}.md)" if key in available() else key for key in sorted(cls.reads))


def _method(cls: type[Judge], title: str = "What it measures") -> str:
    text = inspect.getdoc(sys.modules[cls.__module__]) or inspect.getdoc(cls) or ""
    return f"## {title}\n\n{_flat(without_codes(text))}"


def _settings(cls: type[Judge], room: str = "instruments") -> str:
    fields = dataclasses.fields(cls)
    if not fields:
        return "## Settings\n\nIt has none."
    said = attributes_of(cls)
    rows = [[f"`{f.name}`", f"`{f.default!r}`", said.get(f.name, "")] for f in fields]
    first = fields[0]
    example = f"```toml\n[{room}.{cls.key}]\n{first.name} = {_toml(first.default)}\n```"
    return (
        f"## Settings\n\n{table(['setting', 'default', 'meaning'], rows)}\n\n"
        f"In `stratoscope.toml` (see [](../howto/settings.md)):\n\n{example}"
    )


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) or value is None else repr(value)


def _codes(cls: type[Judge]) -> str:
    rows = [[f"[{code}](../findings/{code.lower()}.md)", meaning] for code, meaning in cls.codes.items()]
    return f"## Findings\n\n{table(['code', 'says'], rows)}" if rows else ""


def _variables(cls: type[Judge], measured: Variables) -> str:
    if not measured:
        return ""
    rows = [[f"`{name}`", ", ".join(v["dims"]), f"`{v['units']}`", v["long_name"]] for name, v in measured.items()]
    return (
        f'## In the record\n\n`record["{cls.key}"]` holds, for a small convolutional classifier with labelled data:\n\n'
        f"{table(['variable', 'dims', 'units', 'meaning'], rows)}"
    )


def variables() -> dict[str, Variables]:
    """What each instrument writes for a small network: its variables, their dims, units and names.

    An instrument that does not apply to that network has no entry.
    """
    import torch
    from torch import nn

    from stratoscope import Record, watch
    from stratoscope.observe.settings import Settings

    data = torch.Generator().manual_seed(0)
    images, labels = torch.randn(64, 1, 8, 8, generator=data), torch.arange(64) % 4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tempfile.TemporaryDirectory() as folder:
        splits = {"train": (images[:32], labels[:32]), "test": (images[32:], labels[32:])}
        run = Path(folder, "run")
        with watch(model, splits, optimizer=optimizer, to=run, budget=1e9, settings=Settings()) as w:
            for step in range(1, 41):
                loss = nn.functional.cross_entropy(model(images[:32]), labels[:32])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                w.step(step, loss=loss)
        record = Record.open(run)
        return {key: described(record[key]) for key in record}


def described(group: Mapping[str, Any]) -> Variables:
    """Dims, units and names of a group's variables."""
    return {
        name: {
            "dims": [str(dim) for dim in array.dims],
            "units": array.attrs.get("units", ""),
            "long_name": array.attrs.get("long_name", ""),
        }
        for name, array in group.items()
    }


# -- findings -------------------------------------------------------------------------------------------------------


def findings_page() -> str:
    """The registry of codes."""
    parts = [
        "# Registry of findings",
        "Every statement that Stratoscope makes carries a stable code, and each code has a page: what it means, when it "
        "misleads, what to do. The first letters name the instrument or diagnosis; the numbers stay what they are from "
        "release to release, so a code can be muted or searched for ([](howto/settings.md)). What the outcomes mean is in "
        "[](explanation/findings.md).",
    ]
    judges: dict[str, Mapping[str, type[Judge]]] = {"instruments": available(), "diagnoses": diagnoses()}
    for room, key, cls in ((room, key, cls) for room, every in judges.items() for key, cls in every.items()):
        parts += [f"## [{cls.title}]({room}/{key}.md)", _registered(codes_of(cls))]
    parts += ["## Stratoscope itself", _registered(EVERYWHERE)]
    every = sorted(
        {code for judge in judges.values() for cls in judge.values() for code in codes_of(cls)} | {*EVERYWHERE}
    )
    listed = "\n".join(f"{code} <findings/{code.lower()}>" for code in every)
    parts.append(f"```{{toctree}}\n:hidden:\n\n{listed}\n```")
    return "\n\n".join(parts) + "\n"


def _registered(codes: Mapping[str, str]) -> str:
    rows = [[f"[`{code}`](findings/{code.lower()}.md){{#{code.lower()}}}", meaning] for code, meaning in codes.items()]
    return table(["code", "says"], rows)


# -- command line ---------------------------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """Every subcommand by its name; one of a group by both names, as `study run`."""
    import typer

    from stratoscope.cli import main

    if not main.app.registered_commands:
        main._add_commands()
    group: Any = typer.main.get_command(main.app)
    return dict(_flat_commands("", group))


def _flat_commands(before: str, group: Any) -> Iterable[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _flat_commands(f"{before}{name} ", command)
        else:
            yield f"{before}{name}", command


def commands_part() -> str:
    """One section for each subcommand, in the order of the alphabet."""
    return "\n\n".join(_command(name, command) for name, command in sorted(commands().items())) + "\n"


def _command(name: str, command: Any) -> str:
    about, _, example = (command.help or "").partition("Example: ")
    arguments = [param for param in command.params if not param.opts[0].startswith("-")]
    options = [param for param in command.params if param.opts[0].startswith("-")]
    usage = " ".join(["stratoscope", name, *(param.name.upper() for param in arguments), "[OPTIONS]"])
    rows = [[f"`{param.name.upper()}`", "", param.help or ""] for param in arguments]
    rows += [[f"`{', '.join(param.opts)}`", _default(param), param.help or ""] for param in options]
    rows.append(["`-h, --help`", "", "Show the help."])
    parts = [
        f"## {name}",
        about.strip(),
        f"```text\n{usage}\n```",
        table(["option", "default", "meaning"], rows),
        f"```console\n$ {example.strip()}\n```" if example else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _default(param: Any) -> str:
    if param.default in (None, False, []):
        return ""
    return f"`{param.default}`"


# -- reference ------------------------------------------------------------------------------------------------------


def reference_pages() -> dict[str, str]:
    """One page a room, one section a module; what the package exports stands on the hand-written page."""
    exported = {(home, name) for name, home in _homes().items()}
    pages: dict[str, list[str]] = {}
    for module, about in public_modules().items():
        room = module.split(".")[1]
        if room in ("cli", "version"):
            continue
        hidden = sorted(name for home, name in exported if home == module)
        exclude = f"   :exclude-members: {', '.join(hidden)}\n" if hidden else ""
        short = module.removeprefix("stratoscope.")
        pages.setdefault(room, [f"# {room}"]).append(
            f"## {short}\n\n{_about(module, about)}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n   :ignore-module-all:\n{exclude}```"
        )
    return {room: "\n\n".join(parts) + "\n" for room, parts in pages.items()}


def _about(module: str, docstring: str) -> str:
    """What a module says of itself; an instrument's says it on a page of its own."""
    for room, every in (("instruments", available()), ("diagnoses", diagnoses())):
        for key, cls in every.items():
            if cls.__module__ == module:
                return f"See [{cls.title}](../{room}/{key}.md)."
    return _flat(docstring)


def _flat(text: str) -> str:
    """Markdown whose headings do not break into the page's own."""
    return re.sub(r"^#+ +(.*)$", r"**\1**", text, flags=re.MULTILINE)


def _homes() -> dict[str, str]:
    """Exported names and the modules that they really come from."""
    names = (name for name in stratoscope.__all__ if name not in ("data", "__version__"))
    return {name: getattr(stratoscope, name).__module__ for name in names}


def public_modules() -> dict[str, str]:
    """Modules that define something public, in order, with their docstrings; none is imported for it."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not any(part.startswith("_") for part in parts) and _defines(tree):
            found[".".join(("stratoscope", *parts))] = ast.get_docstring(tree) or ""
    return found


def _defines(tree: ast.Module) -> bool:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and not node.name.startswith("_") for node in tree.body)


# -- small things ---------------------------------------------------------------------------------------------------


def attributes_of(cls: type) -> dict[str, str]:
    """What a class says of its attributes in the `Attributes:` part of its docstring."""
    text = inspect.getdoc(cls) or ""
    _, _, after = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in after.splitlines():
        if line and not line.startswith(" "):
            break
        start = re.match(r"^ {4}(\w+): (.*)$", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def link(source: str) -> str:
    """A source such as `arXiv:1811.05381` as a link."""
    scheme, _, rest = source.partition(":")
    base = {"arxiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}.get(scheme.lower())
    return f"[{source}]({base}{rest})" if base else source


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", r"\|").split()) for cell in line) + " |" for line in lines
    )
