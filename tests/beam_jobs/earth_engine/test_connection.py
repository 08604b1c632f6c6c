"""Connecting: which project and server, and what missing or expired credentials lead to."""

import dataclasses
import pickle
import socket

import pytest

from beam_jobs.earth_engine.connection import (
    HIGH_VOLUME_URL,
    STANDARD_URL,
    Connection,
    connect,
    from_environment,
    read_token,
)
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.earth_engine.pixels import fetch_pixels
from beam_jobs.emulator.faults import FaultsConfig


@pytest.fixture
def old_token(emulator, tmp_path) -> Connection:
    """A connection with another token than the one of `emulator`."""
    (tmp_path / "old").write_text("old")
    return Connection(
        project="terrapair-emulator",
        url=emulator.url,
        token_from="file",
        token_file=str(tmp_path / "old"),
    )


def test_the_environment_names_project_server_and_token():
    environment = {
        "EARTHENGINE_PROJECT": "a",
        "GOOGLE_CLOUD_PROJECT": "b",
        "TERRAPAIR_EE_URL": "http://x",
    }
    assert from_environment(environment, "fetch") == Connection(project="a", url="http://x")
    connection = from_environment(
        {"GOOGLE_CLOUD_PROJECT": "b", "TERRAPAIR_EE_TOKEN": "t"}, "export"
    )
    assert connection == Connection(
        project="b", url=None, token_from="environment", purpose="export"
    )
    assert connection.server == STANDARD_URL
    assert dataclasses.replace(connection, purpose="fetch").server == HIGH_VOLUME_URL


def test_a_connection_travels_without_its_token(monkeypatch, tmp_path):
    secret = tmp_path / "token"
    monkeypatch.chdir(tmp_path)
    for variables in (
        {"TERRAPAIR_EE_TOKEN": "secret-1"},
        {"TERRAPAIR_EE_TOKEN": "secret-1", "TERRAPAIR_EE_TOKEN_FILE": "token"},
    ):
        found = from_environment({"EARTHENGINE_PROJECT": "a", **variables}, "fetch")
        assert b"secret" not in pickle.dumps(found)
        assert "secret" not in repr(found)
    assert (found.token_from, found.token_file) == ("file", str(secret))


def test_each_process_reads_the_token_itself(monkeypatch, tmp_path):
    secret = tmp_path / "token"
    by_file = Connection(project="a", token_from="file", token_file=str(secret))
    by_variable = Connection(project="a", token_from="environment")
    monkeypatch.setenv("TERRAPAIR_EE_TOKEN", "one")
    secret.write_text("two\n")
    assert [read_token(found) for found in (by_file, by_variable)] == ["two", "one"]
    assert read_token(Connection(project="a")) is None


def test_a_process_without_the_token_says_what_to_set(monkeypatch, tmp_path):
    monkeypatch.delenv("TERRAPAIR_EE_TOKEN")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for connection, message in (
        (
            Connection(project="a", token_from="environment"),
            "TERRAPAIR_EE_TOKEN holds no token in this process: set it on every worker",
        ),
        (
            Connection(project="a", token_from="file", token_file=str(empty)),
            "empty holds no token in this process",
        ),
        (
            Connection(project="a", token_from="file", token_file=str(tmp_path / "missing")),
            "the token cannot be read on this machine .*No such file.*missing",
        ),
    ):
        with pytest.raises(EarthEngineError, match=message) as caught:
            connect(connection)
        assert caught.value.reason == "no_credentials"
        assert "\n" not in str(caught.value)


def test_without_a_project_one_line_says_what_to_run():
    with pytest.raises(
        EarthEngineError, match="run `earthengine authenticate` and set GOOGLE_CLOUD_PROJECT"
    ) as caught:
        from_environment({}, "fetch")
    assert caught.value.reason == "no_credentials"


def test_without_saved_credentials_one_line_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(
        EarthEngineError, match=r"no credentials.*run `earthengine authenticate`"
    ) as caught:
        connect(Connection(project="terrapair", url="http://127.0.0.1:9"))
    assert (caught.value.reason, caught.value.retriable) == ("no_credentials", False)
    assert "\n" not in str(caught.value)


def test_a_token_refused_at_the_start_is_no_credentials(emulator, old_token):
    emulator.service.set_faults(FaultsConfig(expired_token=True))
    with pytest.raises(
        EarthEngineError, match=r"missing or expired.*earthengine authenticate"
    ) as caught:
        connect(old_token)
    assert caught.value.reason == "no_credentials"


def test_a_token_that_expires_later_is_no_credentials(emulator, world, request_of):
    request = request_of(world.of_sensor("s1")[0])
    assert fetch_pixels(request)
    emulator.service.set_faults(FaultsConfig(expired_token=True))
    with pytest.raises(EarthEngineError, match="earthengine authenticate") as caught:
        fetch_pixels(request)
    assert caught.value.reason == "no_credentials"


def test_a_server_that_is_not_there_is_a_failed_connection():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(EarthEngineError, match=f"connecting to {url}") as caught:
        connect(Connection(project="terrapair-emulator", url=url, token_from="environment"))
    assert (caught.value.reason, caught.value.retriable) == ("connection", True)


def test_a_second_connect_asks_nothing_and_another_connection_replaces_the_first(
    emulator, world, request_of, old_token
):
    request = request_of(world.of_sensor("s1")[0])
    emulator.service.set_faults(FaultsConfig(expired_token=True))
    with pytest.raises(EarthEngineError):
        connect(old_token)
    emulator.service.set_faults(FaultsConfig())
    connection = from_environment(emulator.environment, "fetch")
    connect(connection)
    assert fetch_pixels(request)
    # A request would fail, because the token is expired.
    emulator.service.set_faults(FaultsConfig(expired_token=True))
    connect(connection)
