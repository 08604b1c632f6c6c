"""The root of a run: refused while another run holds it, and where TFX would not find files."""

import dataclasses
import functools

import pytest

from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError
from beam_jobs.storage import files, leases
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


def test_a_run_and_a_node_on_one_root_exclude_each_other_and_nodes_do_not(tmp_path):
    config = Config(str(tmp_path / "one"))
    with root.hold_node(config.root, "monday", "build-pairs"):
        with root.hold_node(config.root, "monday", "build-labels-flood"):
            pass
        with (
            pytest.raises(DataError, match=r"/one: node build-pairs of run monday works") as error,
            root.hold(config),
        ):
            pass
        assert (error.value.reason, error.value.exit_code) == ("folder_in_use", ExitCode.CRASH)
        with (
            pytest.raises(DataError, match=r"node build-pairs of run monday: another job is wor"),
            root.hold_node(config.root, "monday", "build-pairs"),
        ):
            pass
    with (
        root.hold(config),
        pytest.raises(DataError, match=r"/one: `terrapair run`, or another verb .* wait") as error,
        root.hold_node(config.root, "monday", "report"),
    ):
        pass
    assert "\n" not in str(error.value)
    # What a killed node leaves holds nobody up.
    (tmp_path / "one" / "locks" / "monday" / "Trainer").write_text("process 1 on x")
    with root.hold(config):
        pass


@pytest.mark.e2e
def test_a_run_and_a_node_exclude_each_other_on_a_store(s3_folder, monkeypatch):
    monkeypatch.setattr(leases, "hold", functools.partial(leases.hold, lease_seconds=1.0))
    monkeypatch.setattr(leases, "find_held", functools.partial(leases.find_held, lease_seconds=1.0))
    config = Config(s3_folder)
    with (
        root.hold_node(s3_folder, "monday", "Trainer"),
        pytest.raises(DataError, match=r"node Trainer of run monday works there"),
        root.hold(config),
    ):
        pass
    with (
        root.hold(config),
        pytest.raises(DataError, match=r"`terrapair run`, or another verb .* works there"),
        root.hold_node(s3_folder, "monday", "Trainer"),
    ):
        pass
    # The lease of a killed node runs out once, and is then forgotten.
    left = f"{s3_folder}/locks/monday/Trainer"
    files.write_bytes(left, b"killed\n7")
    with root.hold(config):
        assert not files.exists(left)
