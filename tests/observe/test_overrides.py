"""Settings that are given one by one, as text."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from stratoscope.errors import SettingError
from stratoscope.instruments.registry import available
from stratoscope.instruments.units import Units
from stratoscope.observe.overrides import overridden, override
from stratoscope.observe.settings import Settings


@dataclass(frozen=True)
class Every(Units):
    """Every type that a setting may have."""

    key: ClassVar[str] = "every"

    truth: bool = False
    whole: int = 3
    share: float = 0.5
    loose: float = 1
    name: str = "gap"
    sizes: tuple[int, ...] = (1, 2)
    shares: tuple[float, ...] = (0.1,)
    pairs: tuple[tuple[str, str], ...] = ()
    cap: float | None = None


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr("stratoscope.observe.overrides.instruments", lambda: {**available(), "every": Every})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("truth=yes", True),
        ("truth=False", False),
        ("whole=7", 7),
        ("whole=-1", -1),
        ("share=1", 1.0),
        ("share=1e-3", 1e-3),
        ("share=inf", float("inf")),
        ("loose=0.25", 0.25),
        ("name=flatten", "flatten"),
        ("name='flatten'", "flatten"),
        ("name=7", "7"),
        ("name=a=b", "a=b"),
        ("name=", ""),
        ("sizes=[4, 5]", (4, 5)),
        ("sizes=4,5", (4, 5)),
        ("shares=[1, 0.5]", (1, 0.5)),
        ("shares=0.5", (0.5,)),
        ('pairs=[["a", "b"]]', (("a", "b"),)),
        ("cap=2.5", 2.5),
        ("cap=none", None),
    ],
)
def test_a_value_has_the_type_of_its_setting(text, value):
    found = override(f"every.{text}")
    assert (found.judge, found.field, found.value) == (Every, text.partition("=")[0], value)
    assert type(found.value) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("units", "write KEY.FIELD=VALUE"),
        ("units.dead_limit", "write KEY.FIELD=VALUE"),
        ("dead_limit=3", "write KEY.FIELD=VALUE"),
        (".dead_limit=3", "write KEY.FIELD=VALUE"),
        ("unit.dead_limit=3", "There is no instrument 'unit', nor a diagnosis; there are .*units.*depth"),
        ("units.dead=3", "units has no setting 'dead'; it has .*dead_limit"),
        ("depth.dead=3", "depth has no setting 'dead'; it has margin"),
        ("units.dead_limit=lots", "must be a number; it is 0.5 by default"),
        ("units.dead_limit=nan", "must be a number"),
        ("units.dead_limit=", "must be a number"),
        ("units.min_n=0.5", "must be a whole number; it is 30 by default"),
        ("every.truth=perhaps", "must be true or false"),
        ("every.sizes=a,b", "must be a list"),
        ("every.sizes=0.5", "must be a list"),
        ("probe.folds=1", "at least 2"),
    ],
)
def test_what_does_not_exist_or_fit_is_one_sentence(text, says):
    with pytest.raises(SettingError, match=says) as told:
        override(text)
    assert "\n" not in str(told.value)


def test_single_settings_come_on_top_of_a_file():
    before = Settings({"units": {"min_n": 5, "dead_limit": 0.2}}, ("UN002",), {"depth": {"gap": 0.3}})
    given = [override(text) for text in ("units.dead_limit=0.9", "depth.margin=0.1", "units.dead_limit=0.8")]
    after = overridden(before, given, ["PF*"])
    assert after.instruments == {"units": {"min_n": 5, "dead_limit": 0.8}}
    assert after.diagnoses == {"depth": {"gap": 0.3, "margin": 0.1}}
    assert after.mute == ("UN002", "PF*")
    assert before.instruments == {"units": {"min_n": 5, "dead_limit": 0.2}}


@pytest.mark.parametrize(
    ("text", "measured"),
    [("units.dead_limit=0.9", False), ("units.threshold=0.5", True), ("units.threshold=0.01", False), ("depth.gap=1", False)],
)  # fmt: skip
def test_settings_that_decide_what_is_measured_are_known(text, measured):
    assert override(text).decides_what_is_measured is measured
