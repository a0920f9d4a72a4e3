"""What an ONNX file says of its graph: tensors and where their numbers lie, and the nodes that use them."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from stratoscope.errors import OpenError
from stratoscope.network.formats._protobuf import Buffer, Message, signed

_MAX_DEPTH = 16
_LONGEST_NAME = 65_536
_TYPED = frozenset({4, 5, 6, 7, 10, 11})  # float_data, int32_data, string_data, int64_data, double_data, uint64_data
_RAW = 9

Value = int | Message


@dataclass(frozen=True)
class Stored:
    """A tensor of the graph.

    Attributes:
        name: its name in the file.
        sizes: its sizes as the file gives them.
        type: code of its type.
        field: number of the field with its numbers; 0 where none is in this file.
        start: where in the file they begin.
        length: bytes that they have.
        external: where they lie if they are in another file.
        odd: why it cannot be read; empty if nothing speaks against it.
        constant: whether it is the value of a node `Constant`.
    """

    name: str
    sizes: tuple[int, ...] = ()
    type: int = 0
    field: int = 0
    start: int = 0
    length: int = 0
    external: Mapping[str, str] | None = None
    odd: str = ""
    constant: bool = False


@dataclass(frozen=True)
class Node:
    """An operation: its type, name, inputs, outputs, attributes that are integers, and the module it comes from."""

    op: str = ""
    name: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scopes: str = ""

    def number(self, name: str, default: int) -> int:
        """An attribute that is one integer."""
        return self.numbers.get(name, (default,))[0]


@dataclass
class Graph:
    """All tensors and nodes of a model, those of the bodies of loops and branches among them."""

    producer: str = ""
    tensors: dict[str, Stored] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)


def read_graph(path: Path) -> Graph:
    """Read all but the numbers of an ONNX file.

    Raises:
        OpenError: if it is none.
    """
    graph = Graph()
    found = False
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for number, value in Message(Buffer(data), 0, len(data)).fields():
                if number == 2 and isinstance(value, Message):
                    graph.producer = _text(value)
                elif number == 7 and isinstance(value, Message):
                    _read_into(graph, value, "", 0)
                    found = True
    except (OpenError, OSError, ValueError) as error:
        raise OpenError(
            f"{path} is not a complete ONNX file ({str(error).rstrip('.')}); copy or export it again."
        ) from None
    if not found:
        raise OpenError(f"{path} is not an ONNX file: it has no graph.")
    return graph


def _read_into(graph: Graph, message: Message, owner: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise OpenError(f"its graphs are nested more than {_MAX_DEPTH} deep")
    tensors: list[Stored] = []
    nodes: list[Node] = []
    bodies: list[tuple[str, Message]] = []
    for number, value in _parts(message.fields()):
        if number == 1:
            node, constants, inner = _node(value)
            nodes.append(node)
            tensors += constants
            bodies += [("/".join(filter(None, (node.name or owner, name))), body) for name, body in inner]
        elif number == 5:
            tensors.append(_tensor(value))
        elif number == 15:
            tensors.append(_sparse(value))
    names = _names_in(graph, tensors, owner)
    graph.tensors |= {names[one.name]: replace(one, name=names[one.name]) for one in tensors}
    graph.nodes += [replace(node, inputs=tuple(names.get(name, name) for name in node.inputs)) for node in nodes]
    for name, body in bodies:
        _read_into(graph, body, name, depth + 1)


def _names_in(graph: Graph, tensors: Iterable[Stored], owner: str) -> dict[str, str]:
    """What tensors of one graph are called among all: a body may use the names of the graph around it again."""
    names: dict[str, str] = {}
    for one in tensors:
        if one.name in names:
            raise OpenError(f"two of its tensors have the name {one.name[:80]!r}")
        name = one.name
        while name in graph.tensors:
            name = f"{owner or 'body'}/{name}"
            if len(name) > _LONGEST_NAME:
                raise OpenError("its names are too long")
        names[one.name] = name
    return names


def _parts(fields: Iterable[tuple[int, Value]]) -> Iterator[tuple[int, Message]]:
    """Fields that are messages or strings."""
    for number, value in fields:
        if isinstance(value, Message):
            yield number, value


def _text(message: Message) -> str:
    if message.stop - message.start > _LONGEST_NAME:
        raise OpenError("a name is too long")
    return message.text()


def _node(message: Message) -> tuple[Node, list[Stored], list[tuple[str, Message]]]:
    """A node, the tensors in its attributes, and the bodies of its loop or branches by the attributes' names."""
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    attributes: list[Message] = []
    scopes = ""
    for number, value in _parts(message.fields()):
        if number in texts:
            texts[number].append(_text(value))
        elif number == 5:
            attributes.append(value)
        elif number == 9:
            key, entry = _entry(value)
            scopes = entry if key == "pkg.torch.onnx.name_scopes" else scopes
    numbers: dict[str, tuple[int, ...]] = {}
    tensors: list[Message] = []
    bodies: list[tuple[str, Message]] = []
    for attribute in attributes:
        inner: list[Message] = []
        name, integers = _attribute(attribute, tensors, inner)
        bodies += [(name, body) for body in inner]
        if integers:
            numbers[name] = integers
    inputs, outputs, names, ops = (texts[number] for number in (1, 2, 3, 4))
    op = ops[-1] if ops else ""
    node = Node(op, names[-1] if names else "", tuple(inputs), tuple(outputs), numbers, scopes)
    constants = [_tensor(one) for one in tensors[:1]] if op == "Constant" and outputs else []
    return node, [replace(one, name=outputs[0], constant=True) for one in constants], bodies


def _attribute(message: Message, tensors: list[Message], bodies: list[Message]) -> tuple[str, tuple[int, ...]]:
    name = ""
    integers: list[int] = []
    for number, value in message.fields():
        if isinstance(value, int):
            if number in (3, 8):
                integers.append(signed(value))
        elif number == 1:
            name = _text(value)
        elif number == 5:
            tensors.append(value)
        elif number == 8:
            integers += value.integers()
        elif number in (6, 11):
            bodies.append(value)
    return name, tuple(integers)


def _tensor(message: Message) -> Stored:
    name, kind, location = "", 0, 0
    sizes: list[int] = []
    entries: dict[str, str] = {}
    numbers: list[tuple[int, Value]] = []
    for number, value in message.fields():
        if number in _TYPED or number == _RAW:
            numbers = [*numbers[:1], (number, value)]  # one is as it should be, two are one too many
        elif isinstance(value, int):
            sizes += [signed(value)] if number == 1 else []
            kind = value if number == 2 else kind
            location = value if number == 14 else location
        elif number == 1:
            sizes += value.integers()
        elif number == 8:
            name = _text(value)
        elif number == 13:
            key, entries[key] = _entry(value)
    stored = Stored(name, tuple(sizes), kind, external=entries if location == 1 else None)
    if not numbers or location == 1:
        return stored
    number, value = numbers[0]
    if len(numbers) > 1 or isinstance(value, int):
        return replace(stored, odd="its numbers are stored in several pieces, which are not put together here")
    return replace(stored, field=number, start=value.start, length=value.stop - value.start)


def _sparse(message: Message) -> Stored:
    """A sparse initialiser is named by its values and has sizes of its own."""
    stored, sizes = Stored(""), list[int]()
    for number, value in message.fields():
        if number == 1 and isinstance(value, Message):
            stored = _tensor(value)
        elif number == 3:
            sizes += [signed(value)] if isinstance(value, int) else value.integers()
    return replace(stored, sizes=tuple(sizes), odd="sparse: no dense matrix is stored")


def _entry(message: Message) -> tuple[str, str]:
    """A key with its value."""
    texts = {number: _text(value) for number, value in _parts(message.fields())}
    return texts.get(1, ""), texts.get(2, "")
