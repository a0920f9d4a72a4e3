from dataclasses import dataclass
from typing import ClassVar

import pytest

from stratoscope.errors import SettingError
from stratoscope.instruments import registry
from stratoscope.instruments.units import Units


def test_two_instruments_of_one_key_are_refused():
    with pytest.raises(SettingError, match="both have an instrument with the key 'units'"):
        registry._add({"units": Units}, Units)


def test_an_instrument_of_single_layers_cannot_measure_every_step():
    @dataclass(frozen=True)
    class Eager(Units):
        """Counts at every step."""

        key: ClassVar[str] = "eager"
        every_step: ClassVar[bool] = True

    with pytest.raises(SettingError, match="must be a NetworkInstrument"):
        registry._add({}, Eager)


def test_ours_are_found_by_walking():
    assert {"weights", "units", "separation", "training", "performance"} <= set(registry.available())


def test_an_entry_point_that_is_no_instrument_is_refused(monkeypatch):
    class Point:
        name, value = "odd", "somewhere:odd"

        @staticmethod
        def load():
            return dict

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point])
    registry.available.cache_clear()
    try:
        with pytest.raises(SettingError, match="'odd'"):
            registry.available()
    finally:
        registry.available.cache_clear()


def test_lists_of_a_settings_file_are_settings_too():
    from stratoscope.instruments.information import Information

    made = registry.configured(Information, {"sweep": [10, 20], "variances": [["absolute", 0.1]]})
    assert made == Information(sweep=(10, 20), variances=(("absolute", 0.1),))
    assert hash(made)
    with pytest.raises(SettingError, match=r"information\.bins must be of type int"):
        registry.configured(Information, {"bins": [30]})
