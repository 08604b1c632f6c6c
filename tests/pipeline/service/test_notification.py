"""Notifications: what a command and a real web server receive, and what is only warned of."""

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import sys
import threading
import time

import pytest

from beam_jobs.contracts import settings
from beam_jobs.contracts.settings import SettingsError
from pipeline.service.notification import (
    SECRET_VARIABLE,
    Message,
    NotifyConfig,
    headers,
    read_secret,
    tell,
)

SECRET = bytes(range(32))
MESSAGE = Message(id="a1", event="refused", document={"event": "refused", "reasons": ["Überlauf"]})


class Receiver(http.server.ThreadingHTTPServer):
    """Answer with the statuses in `answers`, the last one for ever; keep what was sent."""

    daemon_threads = True

    def __init__(self, answers, location=None):
        self.answers, self.location, self.requests = list(answers), location, []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server = self.server
        server.requests.append((self.command, dict(self.headers), body))
        status = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        if status == "silence":
            time.sleep(1.5)
            return
        self.send_response(status)
        if server.location:
            self.send_header("Location", server.location)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def receiving(*answers, location=None):
    server = Receiver(answers, location)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def told(server, **values):
    return tell(NotifyConfig(webhook=server.url, **values), MESSAGE, SECRET, waits=(0.0, 0.0))


def test_signature_is_that_of_the_vectors_of_standard_webhooks():
    # Source: tests of the libraries of github.com/standard-webhooks/standard-webhooks.
    message = Message(
        id="msg_p5jXN8AQM9LWM0D4loKWxJek", event="failed", document={"test": 2432232314}
    )
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = headers(message, key, 1614265330)
    assert found["Webhook-Signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert found["Webhook-Timestamp"] == "1614265330"


def test_a_webhook_gets_the_json_once_and_can_check_who_sent_it():
    with receiving(204) as server:
        assert told(server) == []
    ((command, sent, body),) = server.requests
    assert command == "POST"
    assert json.loads(body) == MESSAGE.document
    assert sent["Content-Type"] == "application/json"
    assert abs(int(sent["Webhook-Timestamp"]) - time.time()) < 60
    signed = f"a1.{sent['Webhook-Timestamp']}.".encode() + body
    digest = hmac.new(SECRET, signed, hashlib.sha256).digest()
    assert sent["Webhook-Signature"] == f"v1,{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("answers", "num_requests", "warning"),
    [
        ((503, 200), 2, None),
        ((429,), 3, "HTTP status 429"),
        ((403,), 1, "HTTP status 403"),
        (("silence",), 3, "timed out"),
    ],
)
def test_tries_are_few_and_a_refusal_ends_them(answers, num_requests, warning):
    with receiving(*answers) as server:
        found = told(server, timeout_seconds=0.2)
    assert len(server.requests) == num_requests
    assert found == ([f"notify.webhook: 127.0.0.1 was not told: {warning}"] if warning else [])
    # A receiver tells a second try by its id.
    assert {sent["Webhook-Id"] for _, sent, _ in server.requests} == {"a1"}


def test_a_redirect_is_not_followed_since_it_would_lose_the_body():
    with receiving(200) as other, receiving(302, location=other.url) as server:
        assert told(server) == ["notify.webhook: 127.0.0.1 was not told: HTTP status 302"]
    assert other.requests == []


def test_a_webhook_that_is_not_there_is_one_warning():
    with receiving(200) as server:
        url = server.url
    config = NotifyConfig(webhook=url.replace("/hook", "/hook?token=secret"))
    (line,) = tell(config, MESSAGE, SECRET, waits=(0.0,))
    assert line.startswith("notify.webhook: 127.0.0.1 was not told: ")
    assert "refused" in line
    assert "token" not in line


def test_only_the_named_ends_are_told(tmp_path):
    config = NotifyConfig(command=("touch", str(tmp_path / "told")), on=("failed",))
    assert tell(config, MESSAGE, b"") == []
    assert not (tmp_path / "told").exists()


def test_a_command_gets_the_json_on_its_standard_input(tmp_path):
    program = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read())"
    config = NotifyConfig(command=(sys.executable, "-c", program))
    assert tell(config, MESSAGE, b"") == []
    assert json.loads((tmp_path / "got").read_text()) == MESSAGE.document


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("sh", "-c", "echo no route >&2; exit 7"), "exit code 7: no route"),
        # The child of the shell holds its output open for longer.
        (("sh", "-c", "sleep 5 & sleep 5"), "it did not end within 0.2 s"),
        (("no-such-program",), "No such file or directory: 'no-such-program'"),
    ],
)
def test_a_command_that_fails_is_one_warning(command, why):
    began = time.monotonic()
    (line,) = tell(NotifyConfig(command=command, timeout_seconds=0.2), MESSAGE, b"")
    assert line.startswith(f"notify.command: {command[0]} was not told: ")
    assert line.endswith(why)
    assert time.monotonic() - began < 4.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "notify: command or webhook must be given, got neither"),
        ({"webhook": "ftp://host/x"}, "notify: webhook must be http://HOST/... or https://HOST/"),
        ({"webhook": "https://me:hunter2@host/x"}, "got https://host"),
        ({"command": ["mail"], "on": []}, "notify: on must name at least one of published, "),
        ({"command": ["mail"], "on": ["success"]}, "notify.on[0]: expected one of 'published', "),
        ({"command": ["mail"], "timeout_seconds": 0}, "timeout_seconds must be above 0, got 0"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(SettingsError) as error:
        settings.from_dict(NotifyConfig, values, "notify")
    assert message in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_secret_is_read_only_for_a_webhook():
    webhook = NotifyConfig(webhook="https://host/x")
    text = base64.b64encode(SECRET).decode()
    for value in (text, f"whsec_{text}"):
        assert read_secret(webhook, {SECRET_VARIABLE: value}) == SECRET
    assert read_secret(NotifyConfig(command=("mail",)), {}) == b""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "must be set, since notify.webhook is"),
        ("päss", "must be base64"),
        ("c2hvcnQ=", "must be base64 of 24 to 64 bytes, got 5"),
    ],
)
def test_a_bad_secret_is_refused_without_being_shown(value, message):
    with pytest.raises(SettingsError) as error:
        read_secret(NotifyConfig(webhook="https://host/x"), {SECRET_VARIABLE: value})
    assert str(error.value).startswith(f"{SECRET_VARIABLE}: {message}")
    assert not value or value not in str(error.value)
