"""Where ML Metadata is: settings, the password, and servers that do not answer as they should."""

import socket
import threading
from contextlib import contextmanager

import pytest

from beam_jobs.contracts import settings
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.settings import SettingsError
from pipeline.metadata_store import (
    Database,
    MetadataConfig,
    UnreachableDatabaseError,
    check_place,
    check_reachable,
    connection_config,
    find_place,
)

CONFIG = MetadataConfig(host="db", user="me")


def test_the_password_comes_from_the_environment_and_is_in_no_text():
    assert find_place(None, "/run/metadata.sqlite", {}) == "/run/metadata.sqlite"
    place = find_place(CONFIG, "", {"TERRAPAIR_METADATA_PASSWORD": "s3cret"})
    assert "s3cret" not in f"{place} {place!r} {settings.canonical_json(CONFIG)}"
    assert str(place) == "mysql://me@db:3306/terrapair"
    assert connection_config(place).mysql.password == "s3cret"
    # A password may be empty, but it must be given.
    assert find_place(CONFIG, "", {"TERRAPAIR_METADATA_PASSWORD": ""}).password == ""
    with pytest.raises(SettingsError, match=r"^TERRAPAIR_METADATA_PASSWORD: must hold the pass"):
        find_place(CONFIG, "", {})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"host": ""}, "host must be the name or address of a server, got ''"),
        ({"host": "mysql://db"}, "host must be the name or address"),
        ({"host": "db", "port": 0}, "port must be within 1-65535, got 0"),
        ({"host": "db", "database": "a;b"}, "database must be up to 64 letters"),
        ({"host": "db", "user": ""}, "user must not be empty"),
        ({"host": "db", "password": "x"}, "password"),
    ],
)
def test_wrong_settings_are_refused(values, told):
    with pytest.raises(SettingsError, match=told):
        settings.from_dict(MetadataConfig, values, "metadata")


@contextmanager
def answering(text):
    """A server that says one thing to whoever connects, and closes; None: it says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(text)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        config = MetadataConfig(host="127.0.0.1", port=port, user="me")
        yield Database(config=config, password="s3cret")
        server.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer as MySQL does"),
        (b"", "does not answer as MySQL does"),
        (b"<ht", "does not answer as MySQL does"),
    ],
)
def test_what_is_no_mysql_is_told_in_one_line(text, told):
    with answering(text) as place, pytest.raises(UnreachableDatabaseError, match=told) as error:
        check_place(place, is_written=True)
    assert "\n" not in str(error.value)
    assert "s3cret" not in str(error.value)
    assert error.value.exit_code == ExitCode.CRASH


def test_a_greeting_and_an_error_of_mysql_are_answers():
    with answering(b"\x4a\x00\x00\x00\x0a8.0.36\x00") as place:
        check_reachable(place)
    with answering(b"\x10\x00\x00\x00\xffToo many conn") as place:
        check_reachable(place)
    check_reachable("/no/such/file.sqlite")


def test_nobody_at_the_port_is_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = Database(
            config=MetadataConfig(host="127.0.0.1", port=free.getsockname()[1]), password=""
        )
        with pytest.raises(
            UnreachableDatabaseError, match=r"cannot be reached \(Connection refused\): check that"
        ):
            check_reachable(place)
