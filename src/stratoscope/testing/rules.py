"""Rules that instruments and diagnoses share: who they are, which codes they give, what their findings hold."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from stratoscope.diagnoses import registry as diagnoses
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments import registry as instruments
from stratoscope.instruments.base import Judge
from stratoscope.instruments.registry import prefix_of
from stratoscope.testing.trial import plain

SOURCE = re.compile(r"arXiv:(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})(v\d+)?$|doi:10\.\d{4,9}/\S+$")
CODE = re.compile(r"([A-Z]{2,4})\d{3}$")
KEY = re.compile(r"[a-z][a-z0-9_]*$")

J = TypeVar("J", bound=Judge)


def rule(holds: object, broken: str) -> None:
    """Raise an `AssertionError` with one sentence, unless a rule holds."""
    if not holds:
        raise AssertionError(f"{broken}.")


def made_of(given: J | type[J], kinds: tuple[type, ...]) -> J:
    """An instrument or diagnosis as it is, or made with its default settings."""
    cls = given if inspect.isclass(given) else type(given)
    names = " or ".join(kind.__name__ for kind in kinds)
    rule(issubclass(cls, kinds), f"{cls.__name__} must be a {names}")
    rule(dataclasses.is_dataclass(cls), f"{cls.__name__} must be a dataclass, whose fields are its settings")
    frozen = cls.__dataclass_params__.frozen  # type: ignore[attr-defined] # no public name says it
    rule(frozen, f"{cls.__name__} must be frozen: @dataclass(frozen=True)")
    try:
        default = cls()
    except TypeError as error:
        raise AssertionError(f"{cls.__name__} must be default-constructible: {error}.") from error
    return default if inspect.isclass(given) else given


def check_identity(made: Judge) -> None:
    """Its key, title, source and documentation."""
    cls = type(made)
    for attribute in ("key", "title", "source"):
        value = getattr(made, attribute, None)
        rule(isinstance(value, str) and value.strip(), f"{cls.__name__}.{attribute} must be set")
    rule(KEY.match(made.key), f"The key {made.key!r} must be lower-case letters, digits and underscores")
    doc = cls.__doc__ or ""
    documented = doc.strip() and not doc.startswith(f"{cls.__name__}(")
    rule(documented, f"{made.key} must be documented: give its class a docstring")
    sourced = SOURCE.match(made.source)
    rule(sourced, f"The source {made.source!r} of {made.key} must be 'arXiv:dddd.ddddd' or 'doi:10.'...")
    try:
        hash(made)
    except TypeError as error:
        raise AssertionError(f"The settings of {made.key} must be hashable: {error}.") from error
    for kind, others in _known().items():
        other = others.get(made.key)
        rule(other is None or same(other, cls), f"The key {made.key!r} is that of another {kind}")


def check_codes(made: Judge) -> None:
    """Its codes: their form, their meaning, and a prefix that nobody else has."""
    codes = getattr(made, "codes", None)
    rule(isinstance(codes, Mapping), f"{made.key} must declare its codes")
    assert isinstance(codes, Mapping)
    prefixes = set()
    for code, meaning in codes.items():
        found = CODE.match(code)
        good = found and not code.endswith("000")
        rule(good, f"The code {code!r} of {made.key} must be letters and three digits from 001")
        rule(isinstance(meaning, str) and meaning.strip(), f"The code {code!r} of {made.key} must have a meaning")
        prefixes.add(found[1] if found else "")
    several = ", ".join(sorted(prefixes))
    rule(len(prefixes) <= 1, f"The codes of {made.key} must begin with the same letters, not {several}")
    for other in [cls for others in _known().values() for cls in others.values()]:
        clash = not same(other, type(made)) and other.codes and prefixes and prefix_of(other) in prefixes
        rule(not clash, f"The codes of {made.key} begin like those of {other.key}")


def _known() -> Mapping[str, Mapping[str, type[Judge]]]:
    return {"instrument": instruments.available(), "diagnosis": diagnoses.available()}


def same(one: type[Judge], other: type[Judge]) -> bool:
    """Whether two classes are one, perhaps imported twice."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def check_findings(made: Judge, name: str, findings: list[Finding]) -> None:
    """What each finding holds: a declared code, plain evidence, a limit and something to do where it complains."""
    for finding in findings:
        said = f"{name}: the finding {finding.code}"
        rule(finding.code in made.codes, f"{said} is not among its codes")
        rule(finding.instrument == made.key, f"{said} speaks for {finding.instrument}")
        rule(finding.source == made.source, f"{said} must name the source {made.source}")
        rule(isinstance(finding.outcome, Outcome), f"{said} must have an Outcome, not {finding.outcome!r}")
        rule(finding.says.strip(), f"{said} must say something")
        rule(plain(finding.evidence.values()), f"{said} must have plain numbers and texts as evidence")
        if finding.wants_action:
            rule(finding.do.strip(), f"{said} must say what to do")
            rule("limit" in finding.evidence, f"{said} must give the limit beside its evidence")


def text_of(finding: Finding) -> str:
    """A finding as it is compared: NaN in its evidence is not equal to itself, but reads the same."""
    return repr(replace(finding, evidence=dict(sorted(finding.evidence.items()))))


def other_thresholds(made: J) -> Iterator[J]:
    """The same with each of its numbers far up or down, to make it speak."""
    for field in dataclasses.fields(made):
        value = getattr(made, field.name)
        if field.init and isinstance(value, (int, float)) and not isinstance(value, bool):
            for factor in (0, 1e-6, 1e6):
                try:
                    other = replace(made, **{field.name: type(value)(value * factor)})
                except Exception:  # a value that its own settings refuse, with whatever error they like
                    continue
                yield other
