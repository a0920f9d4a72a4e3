"""Numbers as text, ticks on axes, and names that are short enough."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from unicodedata import category

TIMES = "\N{MULTIPLICATION SIGN}"


def format_number(value: float | int | bool | None, digits: int = 3) -> str:
    """A number as people read it: a few digits, no needless exponent.

    >>> [format_number(v) for v in (0.12345, 1234567, 0.0000123, 42.0, float("nan"), -0.0)]
    ['0.123', '1,234,567', '1.23e-5', '42', 'NaN', '0']
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{int(value):,}"
    size = abs(value)
    if 1e-3 <= size < 1e5:
        return f"{value:,.0f}" if size >= 10**digits else _trim(f"{value:.{digits}g}")
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{_trim(mantissa)}e{int(exponent)}"


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within a range, `about` many.

    >>> linear_ticks(0.0, 1.0), linear_ticks(-3.0, 12.0, 4)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 5.0, 10.0])
    """
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low] if math.isfinite(low) else []
    rough = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    decimals = max(0, 2 - math.floor(math.log10(step)))
    return [round(place * step, decimals) + 0.0 for place in range(first, last + 1)]


def log_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Powers of ten within a positive range, with 2 and 5 between them where there are few; `about` many.

    >>> log_ticks(1.0, 1000.0), log_ticks(2.0, 30.0)
    ([1.0, 10.0, 100.0, 1000.0], [2.0, 5.0, 10.0, 20.0])
    """
    bottom, top = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    stride = max(1, math.ceil((top - bottom) / max(about, 1)))
    start = bottom if stride == 1 else math.ceil(bottom / stride) * stride
    powers = [10.0**power for power in range(start, top + 1, stride)]
    inside = [tick for tick in powers if low * 0.999 <= tick <= high * 1.001]
    if len(inside) >= 3:
        return inside
    finer = [factor * 10.0**power for power in range(bottom, top + 1) for factor in (1, 2, 5)]
    finer = [float(f"{tick:.6g}") for tick in finer if low * 0.999 <= tick <= high * 1.001]
    return finer if len(finer) >= 2 else linear_ticks(low, high, about)


def unit_text(units: str) -> str:
    """A unit for a label: nothing for pure numbers.

    >>> unit_text("1"), unit_text("nat")
    ('', 'nat')
    """
    return "" if units in ("1", "") else units


def readable(text: str) -> str:
    r"""The same without signs that steer a terminal or turn the direction of writing; a name may come from any file.

    >>> readable("a\x1b[2J\n")
    'a\ufffd[2J\ufffd'
    """
    return "".join(sign if sign.isprintable() or category(sign) in ("Zs", "Co", "Cn") else "\ufffd" for sign in text)


def elide(text: str, width: int) -> str:
    """Shorten in the middle, since both ends of a module path tell something.

    >>> elide("encoder.layers.0.linear1", 13)
    'encod…linear1'
    """
    if len(text) <= width:
        return text
    tail = (width - 1) * 3 // 5
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def short_names(names: Sequence[str], width: int) -> list[str]:
    """Names that fit a width and stay different if they were.

    The dotted prefix and suffix that all share go first, and a last part `weight` that nothing else is told apart from.
    Then leading parts become their first letters, for all names alike; only then is anything left out in the middle. Names
    that would become equal get up to eight letters more, and else their place in the list. What is left is never a bare
    number, which would say nothing.

    >>> short_names(["model.conv1.weight", "model.conv2.weight"], 12), short_names(["net.0.relu", "net.1.relu"], 12)
    (['conv1', 'conv2'], ['0.relu', '1.relu'])
    >>> short_names(["transformer.h.0.attn.proj.weight", "transformer.h.1.attn.proj.weight", "head.weight"], 16)
    ['t.h.0.attn.proj', 't.h.1.attn.proj', 'head']
    """
    different = len(set(names))
    parts = _without_shared([name.split(".") for name in _without_weight(names)])
    for count in range(max(map(len, parts), default=0)):
        short = [".".join(_initials(p, count)) for p in parts]
        if len(set(short)) == different and max(map(len, short)) <= width:
            return short
    for wider in (width, width + 4, width + 8):
        short = [elide(".".join(p), wider) for p in parts]
        if len(set(short)) == different:
            return short
    return [elide(f"{place} {text}", width) for place, text in enumerate(short)]


def _without_weight(names: Sequence[str]) -> list[str]:
    """Names without their last part `weight` (`weight:q` becomes `:q`), if all that have it can do without."""
    leaves: dict[str, set[str]] = {}
    for name in names:
        stem, _, last = name.rpartition(".")
        leaves.setdefault(stem, set()).add(last.partition(":")[0])
    weights = [stem for stem, last in leaves.items() if "weight" in last]
    if any(leaves[stem] != {"weight"} or stem.rpartition(".")[2].isdigit() or not stem for stem in weights):
        return list(names)
    return [re.sub(r"\.weight(?=:|$)", "", name) if name.rpartition(".")[0] in weights else name for name in names]


def _without_shared(parts: list[list[str]]) -> list[list[str]]:
    """Dotted names without the first and last parts that all share."""
    if len(parts) < 2 or len({tuple(p) for p in parts}) < len(parts):
        return parts
    for end, rest in ((0, slice(1, None)), (-1, slice(None, -1))):
        while all(len(p) > 1 and not "".join(p[rest]).isdigit() for p in parts) and len({p[end] for p in parts}) == 1:
            parts = [p[rest] for p in parts]
    return parts


def _initials(parts: list[str], count: int) -> list[str]:
    """The first parts as single letters, numbers and the last part as they are."""
    return [p[:1] if place < min(count, len(parts) - 1) and not p.isdigit() else p for place, p in enumerate(parts)]
