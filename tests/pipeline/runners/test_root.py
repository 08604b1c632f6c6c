"""The root of a run: refused while another run holds it, and where TFX would not find files."""

import dataclasses

import pytest

from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError
from pipeline.runners import root


@dataclasses.dataclass(frozen=True)
class Config:
    root: str
    local_root: str = ""


@pytest.mark.parametrize("character", list("*?[\\{^$|"))
def test_a_character_of_patterns_is_named(character):
    with pytest.raises(SettingsError, match="TFX takes the character") as error:
        root.check_names(Config(f"/data/runs {character}1"))
    assert repr(character) in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == ExitCode.USAGE
    with pytest.raises(SettingsError, match=r"^local_root: "):
        root.check_names(Config("s3://bucket/runs", f"/data/{character}"))


def test_all_other_characters_are_let_through():
    root.check_names(Config("/data/-runs #1 50% ü-'x' (c)+d&h;i=j@k~l,m:n!]}", "s3://bucket/a"))


def test_a_second_run_on_a_root_is_refused(tmp_path):
    one = Config(str(tmp_path / "one"))
    with root.hold(one):
        with (
            pytest.raises(DataError, match=rf"{tmp_path}/one: another job") as error,
            root.hold(one),
        ):
            pass
        assert error.value.reason == "folder_in_use"
        with root.hold(Config(str(tmp_path / "two"))):
            pass
        # Two runs must not share ML Metadata either.
        with (
            pytest.raises(DataError, match=rf"{tmp_path}/one: another job"),
            root.hold(Config(str(tmp_path / "three"), str(tmp_path / "one"))),
        ):
            pass
        with root.hold(Config(str(tmp_path / "three"), str(tmp_path / "three"))):
            pass
    with root.hold(one):
        pass
    assert list((tmp_path / "one").iterdir()) == []
