"""What a finding's code means in general, and where the manual explains it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from stratoscope.diagnoses.registry import available as diagnoses
from stratoscope.errors import SettingError
from stratoscope.instruments.base import Judge
from stratoscope.instruments.registry import available as instruments
from stratoscope.instruments.registry import prefix_of
from stratoscope.observe.settings import matches

MANUAL = "https://stratoscope.readthedocs.io/en/latest"
"""Where the manual lies. Addresses below it stay what they are from release to release."""

EVERYWHERE = {"ST000": "the data could not be passed through the network, or a measurement failed as a whole"}
"""Codes that belong to no instrument."""

_FAILED = {
    "instrument": "the instrument itself failed, or does not apply to this split; the reason is in the finding",
    "diagnosis": "the diagnosis itself failed, or does not apply to this record; the reason is in the finding",
}


def codes_of(judge: type[Judge]) -> dict[str, str]:
    """Every code that an instrument or diagnosis can give, that of its failure too, and its meaning.

    >>> from stratoscope.instruments.units import Units
    >>> codes_of(Units)["UN004"]
    'units give NaN or infinity'
    """
    kind = "diagnosis" if judge.key in diagnoses() else "instrument"
    return {**judge.codes, f"{prefix_of(judge)}000": _FAILED[kind]}


@cache
def meanings() -> Mapping[str, str]:
    """Every code that there is, and its meaning."""
    return {code: meaning for judge in _judges() for code, meaning in codes_of(judge).items()} | EVERYWHERE


def known_patterns(patterns: Iterable[str], further: Iterable[str] = ()) -> tuple[str, ...]:
    """Codes as a person writes them, `UN002` or `un*`, in capitals.

    Args:
        patterns: what was written.
        further: codes that there are besides those of the instruments and diagnoses that are installed.

    Raises:
        SettingError: if there is no such code.

    >>> known_patterns(["un001", "TR*"])
    ('UN001', 'TR*')
    """
    every = sorted({*meanings(), *further})
    found = tuple(pattern.strip().upper() for pattern in patterns)
    for pattern in found:
        if not any(matches(code, [pattern]) for code in every):
            prefix = pattern.rstrip("0123456789*")
            near = [code for code in every if code.rstrip("0123456789") == prefix]
            near = near or sorted({f"{code.rstrip('0123456789')}*" for code in every})
            raise SettingError(f"There is no finding with the code {pattern!r}; there are {', '.join(near)}.")
    return found


def page_of(code: str) -> str:
    """The address of a code's page in the manual; empty for a code of other people's instruments.

    >>> page_of("UN001")
    'https://stratoscope.readthedocs.io/en/latest/findings/un001.html'
    """
    return f"{MANUAL}/findings/{code.lower()}.html" if code in _explained() else ""


@cache
def _explained() -> frozenset[str]:
    ours = (judge for judge in _judges() if judge.__module__.partition(".")[0] == "stratoscope")
    return frozenset(code for judge in ours for code in codes_of(judge)) | frozenset(EVERYWHERE)


def _judges() -> Iterator[type[Judge]]:
    yield from instruments().values()
    yield from diagnoses().values()
