"""Pickles read as data: what they describe is built of plain values, and nothing in them is ever called or imported."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stratoscope.errors import OpenError
from stratoscope.network.stores import printable

MAX_STEPS = 50_000_000
"""Instructions of one pickle that are followed."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names, such as `torch.Size`; only the name, never the thing."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


_MEMBER = (Name("builtins", "getattr"), Name("__builtin__", "getattr"))
"""By which Python 3.11.0 to 3.11.3 write a member of an enumeration, as its class and its name."""


@dataclass(eq=False)
class Made:
    """What would be an object: the name that would be called, with what, and the state it would be given."""

    kind: Name
    args: tuple[Any, ...] = ()
    state: Any = field(default=None, repr=False)

    def get(self, name: str) -> Any:
        """An attribute of the object."""
        return self.state.get(name) if isinstance(self.state, dict) else None


class _Mark:
    """Where a run of values on the stack begins."""


def read_pickle(data: bytes, admits: Callable[[Name], bool]) -> Any:
    """The value that a pickle describes: dicts, lists, tuples, numbers, strings, and `Made` for objects.

    Args:
        data: the pickle.
        admits: whether a name may occur in it.

    Raises:
        OpenError: if it is no complete pickle, names something that is not admitted, or does what descriptions of
            checkpoints never do.

    >>> import pickle
    >>> read_pickle(pickle.dumps({"a": (1, 2.5)}), admits=lambda name: False)
    {'a': (1, 2.5)}
    """
    machine = _Machine(admits)
    try:
        for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
            if opcode.name == "STOP":
                (result,) = machine.stack
                return result
            if count > MAX_STEPS:
                raise OpenError("its pickle is too long")
            machine.step(opcode.name, arg)
    except OpenError:
        raise
    except Exception as error:  # whatever a damaged pickle can lead to
        raise OpenError(f"its pickle is damaged ({type(error).__name__})") from None
    raise OpenError("its pickle is cut off")


class _Machine:
    """The stack and memory of a pickle, without the power to call anything."""

    def __init__(self, admits: Callable[[Name], bool]) -> None:
        self.stack: list[Any] = []
        self._memory: dict[int, Any] = {}
        self._admits = admits

    def step(self, name: str, arg: Any) -> None:
        """Follow one instruction."""
        if name in _IGNORED:
            return
        if name in _PUSHED:
            self.stack.append(arg)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memory[arg] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self._memory[arg])
        elif name == "MEMOIZE":
            self._memory[len(self._memory)] = self.stack[-1]
        elif name in _ACTIONS:
            _ACTIONS[name](self, arg)
        else:
            raise OpenError(f"its pickle uses the instruction {name}, which descriptions of checkpoints never do")

    def since_mark(self) -> list[Any]:
        """The values after the last mark, taken off the stack with it."""
        at = len(self.stack) - 1
        while not isinstance(self.stack[at], _Mark):
            at -= 1  # ends in IndexError where there is no mark
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def name(self, module: Any, name: Any) -> None:
        """Push a name, if it is admitted."""
        found = Name(str(module), str(name))
        if found not in _MEMBER and not self._admits(found):
            raise OpenError(
                f"its pickle names {printable(str(found), 100)}, which a description of tensors has no use for"
            )
        self.stack.append(found)

    def make(self) -> None:
        """What would call the name below the top with the arguments on top."""
        args, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Name) or not isinstance(args, tuple):
            raise OpenError("its pickle would call something that is no name")
        if kind in _MEMBER:
            owner, member = args
            if not isinstance(owner, Name) or not isinstance(member, str):
                raise OpenError("its pickle would look into something that is no name")
            kind, args = owner, (member,)
        self.stack.append(Made(kind, args))


def _global(machine: _Machine, arg: Any) -> None:
    module, _, name = arg.partition(" ")
    machine.name(module, name)


def _stack_global(machine: _Machine, arg: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.name(module, name)


def _build(machine: _Machine, arg: Any) -> None:
    state, made = machine.stack.pop(), machine.stack[-1]
    if not isinstance(made, Made):
        raise OpenError("its pickle would change something that is no object")
    made.state = state


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def build(machine: _Machine, arg: Any) -> None:
        values = tuple(machine.stack[-count:])
        if len(values) < count:
            raise OpenError("its pickle is damaged")
        machine.stack[-count:] = [values]

    return build


def _append(machine: _Machine, values: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list):
        raise OpenError("its pickle would add to something that is no list")
    target.extend(values)


def _set(machine: _Machine, values: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, Made):  # an OrderedDict
        target.state = target.state or {}
        target = target.state
    if not isinstance(target, dict) or len(values) % 2:
        raise OpenError("its pickle would fill something that is no dict")
    target.update(zip(_keys(values[::2]), values[1::2], strict=True))


def _add(machine: _Machine, values: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, set):
        raise OpenError("its pickle would fill something that is no set")
    target.update(_keys(values))


def _keys(values: list[Any]) -> list[Any]:
    """Keys whose hash is quick; that of tuples within tuples may take for ever."""
    if not all(isinstance(value, str | int | float | Made | None) for value in values):
        raise OpenError("its pickle has keys that are neither names nor numbers")
    return values


def _pair(machine: _Machine) -> list[Any]:
    value, key = machine.stack.pop(), machine.stack.pop()
    return [key, value]


_IGNORED = frozenset({"PROTO", "FRAME"})
_PUSHED = frozenset(
    {
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
    }
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
    "MARK": _Mark,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "NEWOBJ": lambda machine, arg: machine.make(),
    "REDUCE": lambda machine, arg: machine.make(),
    "BUILD": _build,
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine, arg: machine.stack.append(tuple(machine.since_mark())),
    "APPEND": lambda machine, arg: _append(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, arg: _append(machine, machine.since_mark()),
    "SETITEM": lambda machine, arg: _set(machine, _pair(machine)),
    "SETITEMS": lambda machine, arg: _set(machine, machine.since_mark()),
    "ADDITEMS": lambda machine, arg: _add(machine, machine.since_mark()),
}
