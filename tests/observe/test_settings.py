import pytest

from stratoscope.errors import SettingError
from stratoscope.instruments.registry import choose
from stratoscope.observe.settings import Settings, load_settings


def write(folder, text):
    path = folder / "stratoscope.toml"
    path.write_text(text)
    return path


def test_no_file_means_no_settings(tmp_path):
    assert load_settings(folder=tmp_path) == Settings()


def test_a_named_file_must_exist(tmp_path):
    with pytest.raises(SettingError, match="There is no settings file"):
        load_settings(tmp_path / "nothing.toml")


def test_thresholds_reach_the_instrument(tmp_path):
    settings = load_settings(write(tmp_path, "mute = ['TR*']\n[instruments.units]\ndead_limit = 0.25\n"))
    (units,) = choose(only=["units"], settings=settings.instruments)
    assert units.dead_limit == 0.25
    assert settings.mutes("TR003")
    assert not settings.mutes("UN001")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mute = [", "not valid TOML"),
        ("colour = 'red'", "colour"),
        ("mute = 'UN001'", "list of codes"),
        ("instruments = 3", "one table"),
    ],
)
def test_what_no_settings_file_holds_is_refused(tmp_path, text, says):
    with pytest.raises(SettingError, match=says):
        load_settings(write(tmp_path, text))


def test_unknown_instruments_and_settings_name_those_that_exist():
    with pytest.raises(SettingError, match="performance"):
        choose(settings={"nonsense": {}})
    with pytest.raises(SettingError, match="dead_limit"):
        choose(only=["units"], settings={"units": {"dead": 1}})
    with pytest.raises(SettingError, match="must be of type float"):
        choose(only=["units"], settings={"units": {"dead_limit": "half"}})


def test_a_key_may_be_given_as_it_is_and_something_must_be_left():
    assert [i.key for i in choose(only="units")] == ["units"]
    assert "units" not in [i.key for i in choose(skip="units")]
    with pytest.raises(SettingError, match="only units, without units"):
        choose(only=["units"], skip=["units"])
