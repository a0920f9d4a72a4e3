"""How many heads an attention layer has: from its module, or from the config that lies beside a checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from stratoscope.errors import SubjectError

_QUERIES = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead", "encoder_attention_heads")
_KEYS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head", "kv_heads", "n_head_kv")
_WIDTH = ("head_dim", "head_size", "attention_head_size", "dim_head", "d_head", "d_kv")
_MAX_CONFIG = 64 * 2**20
_SECTIONS = {
    "text": "text|language|llm|decoder",
    "llm": "text|language|llm|decoder",
    "vision": "vision|visual|image",
    "audio": "audio|speech",
    "encoder": "encoder",
    "decoder": "decoder",
}


@dataclass(frozen=True)
class Heads:
    """The heads of an attention layer.

    Attributes:
        queries: how many ask.
        keys: how many keys and values they share; `None` where nobody says.
        width: rows of one head; `None` where nobody says.
    """

    queries: int
    keys: int | None = None
    width: int | None = None


KnownHeads = Callable[[str], Heads | None]
"""The heads of the attention layer at a path, or `None` if nobody says."""


def heads_known(heads: bool | int, said: KnownHeads) -> KnownHeads:
    """What the network says of its heads, and where it says nothing the number that was given.

    Raises:
        SubjectError: if the number is negative.

    >>> heads_known(4, lambda path: None)("blocks.0.attn")
    Heads(queries=4, keys=None, width=None)
    """
    if heads < 0:
        raise SubjectError(f"heads={heads} must be True, False or the number of query heads, at least 1.")
    given = None if isinstance(heads, bool) or heads == 0 else Heads(heads)
    return lambda path: said(path) or given


def heads_of(module: object) -> Heads | None:
    """What a module, or its `config`, says of its heads; `None` if it says nothing."""
    for place in (module, getattr(module, "config", None)):
        heads = None if place is None else _read(partial(_attribute, place))
        if heads is not None:
            return heads
    return None


def heads_in_module(root: nn.Module) -> KnownHeads:
    """The heads by path: what the module there says, or the nearest around it."""

    def known(path: str) -> Heads | None:
        return next((heads for module in _around(root, path) if (heads := heads_of(module)) is not None), None)

    return known


def heads_in_config(config: Mapping[str, Any]) -> KnownHeads:
    """The heads by path, from a config as Transformers writes it.

    A config of several networks (`text_config`, `vision_config`, ...) speaks of the paths that name them.

    >>> known = heads_in_config({"num_attention_heads": 8, "num_key_value_heads": 2})
    >>> known("model.layers.0.self_attn")
    Heads(queries=8, keys=2, width=None)
    """
    whole = _read(config.get)
    sections = {
        _SECTIONS.get(name.removesuffix("_config"), re.escape(name.removesuffix("_config"))): heads
        for name, section in config.items()
        if name.endswith("_config") and isinstance(section, Mapping) and (heads := _read(section.get)) is not None
    }

    def known(path: str) -> Heads | None:
        return next((heads for words, heads in sections.items() if re.search(words, path)), whole)

    return known


def config_beside(path: str | Path) -> dict[str, Any]:
    """What the config beside a checkpoint says of its heads, and whatever else stands there.

    It is `config.json`, `params.json`, or a `.json` of the file's own name; `model.json` in a folder. Nothing found, or nothing that can be read, is an empty config: it
    only adds to what the weights show.
    """
    place = Path(path).expanduser()
    folder = place if place.is_dir() else place.parent
    own = "model" if place.is_dir() else place.stem
    for name in ("config.json", "params.json", f"{own}.json"):
        found = _json(folder / name)
        for config in (found, found.get("config")):
            if isinstance(config, dict) and _speaks_of_heads(config):
                return config
    return {}


def _speaks_of_heads(config: Mapping[str, Any]) -> bool:
    sections = [value for name, value in config.items() if name.endswith("_config") and isinstance(value, Mapping)]
    return any(_read(place.get) is not None for place in (config, *sections))


def _json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_CONFIG:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _around(root: nn.Module, path: str) -> Iterator[nn.Module]:
    """The module at a path, the one around it, and so on up to the root."""
    names = path.split(".") if path else []
    for length in range(len(names), -1, -1):
        try:
            yield root.get_submodule(".".join(names[:length]))
        except AttributeError:  # a path within weights that no module has
            continue


def _attribute(place: object, name: str) -> Any:
    return getattr(place, name, None)


def _read(ask: Callable[[str], Any]) -> Heads | None:
    queries = _first(ask, _QUERIES)
    if queries is None:
        return None
    return Heads(queries, _first(ask, _KEYS), _first(ask, _WIDTH))


def _first(ask: Callable[[str], Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = ask(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
