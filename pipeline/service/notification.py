"""Notification: tell a command or a webhook how an attempt to retrain ended.

NotifyConfig and the attempt as JSON -> warnings of what could not be told. Nothing here
raises: who is told does not change what happened.

The webhook gets a POST with the headers of Standard Webhooks, so that its libraries can
check the signature.

Source: spec/standard-webhooks.md of github.com/standard-webhooks/standard-webhooks
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from beam_jobs.contracts.manifest import CODE_VERSION
from beam_jobs.contracts.settings import SettingsError

SECRET_VARIABLE = "TERRAPAIR_WEBHOOK_SECRET"
Event = Literal["published", "unchanged", "refused", "failed", "nothing_new"]
_SECRET_PREFIX = "whsec_"
_SECRET_BYTES = (24, 64)
"""Least and largest number of bytes of a secret, as Standard Webhooks has them."""
_WAITS_SECONDS = (1.0, 4.0)
"""Between the tries to reach a webhook."""
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses of a server that may answer otherwise a moment later."""


@dataclass(frozen=True, kw_only=True)
class NotifyConfig:
    """Who is told how a `retrain` ended. `run` tells nobody.

    Attributes:
        command: program and arguments; it gets the JSON on standard input. There is no
            shell. Empty = none.
        webhook: http or https URL that gets the JSON, signed; empty = none. It is
            written into the run's folder, so it must hold no password.
        on: ends that are told.
        timeout_seconds: for the command, and for each of three tries of the webhook.
    """

    command: tuple[str, ...] = ()
    webhook: str = ""
    on: tuple[Event, ...] = ("published", "refused", "failed")
    timeout_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.command and not self.webhook:
            raise ValueError("command or webhook must be given, got neither")
        if self.webhook:
            parts = urlsplit(self.webhook)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.password:
                raise ValueError(
                    "webhook must be http://HOST/... or https://HOST/... without a password, got "
                    f"{parts.scheme}://{parts.hostname or ''}"
                )
        if not self.on:
            raise ValueError(f"on must name at least one of {', '.join(get_args(Event))}, got none")
        if not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be above 0, got {self.timeout_seconds}")


@dataclass(frozen=True, kw_only=True)
class Message:
    """What is told.

    Attributes:
        id: the same in each try, so that a receiver can drop a second one.
        event: how the attempt ended.
        document: plain values.
    """

    id: str
    event: Event
    document: Mapping[str, Any]

    @property
    def body(self) -> bytes:
        """The document as JSON in UTF-8."""
        return json.dumps(self.document, sort_keys=True).encode()


def read_secret(config: NotifyConfig, environment: Mapping[str, str]) -> bytes:
    """Return the key for signatures; empty if no webhook is told.

    Args:
        config: who is told.
        environment: variables of the process.

    Raises:
        SettingsError: there is none, or it is no secret of Standard Webhooks. The
            message does not show it.
    """
    if not config.webhook:
        return b""
    least, most = _SECRET_BYTES
    make = f'make one: export {SECRET_VARIABLE}="whsec_$(openssl rand -base64 32)"'
    text = environment.get(SECRET_VARIABLE, "")
    if not text:
        raise SettingsError(f"{SECRET_VARIABLE}: must be set, since notify.webhook is; {make}")
    try:
        key = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(f"{SECRET_VARIABLE}: must be base64; {make}") from error
    if not least <= len(key) <= most:
        raise SettingsError(
            f"{SECRET_VARIABLE}: must be base64 of {least} to {most} bytes, got {len(key)}; {make}"
        )
    return key


def tell(
    config: NotifyConfig,
    message: Message,
    secret: bytes,
    waits: Sequence[float] = _WAITS_SECONDS,
) -> list[str]:
    """Tell the command and the webhook; return one line for each that was not reached.

    Args:
        config: who is told, and of what.
        message: is sent if `config.on` names its event.
        secret: key for signatures.
        waits: seconds between the tries to reach the webhook.
    """
    if message.event not in config.on:
        return []
    warnings = []
    if config.command and (why := _run(config, message)):
        warnings.append(f"notify.command: {config.command[0]} was not told: {why}")
    if config.webhook and (why := _post_all(config, message, secret, waits)):
        host = urlsplit(config.webhook).hostname
        warnings.append(f"notify.webhook: {host} was not told: {why}")
    return warnings


def headers(message: Message, secret: bytes, at: int) -> dict[str, str]:
    """Return the headers of a signed message.

    The signature is HMAC-SHA256 of "id.time.body", in base64 after "v1,".

    Args:
        message: what is sent.
        secret: key.
        at: time of sending, seconds since 1970.
    """
    signed = f"{message.id}.{at}.".encode() + message.body
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "User-Agent": f"terrapair/{CODE_VERSION}",
        "Webhook-Id": message.id,
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _run(config: NotifyConfig, message: Message) -> str:
    """Run the command; return why it failed, or ""."""
    # Files, not pipes: a grandchild that holds a pipe would make us wait for it.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(message.body)
        given.seek(0)
        try:
            ended = subprocess.run(
                config.command,
                stdin=given,
                stdout=said,
                stderr=said,
                timeout=config.timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it did not end within {config.timeout_seconds:g} s"
        except (OSError, ValueError) as error:
            return str(error)
        if ended.returncode == 0:
            return ""
        said.seek(0)
        lines = said.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"exit code {ended.returncode}" + (f": {last}" if last else "")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Make a redirect an error: it would turn the POST into a GET without a body."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post_all(config: NotifyConfig, message: Message, secret: bytes, waits: Sequence[float]) -> str:
    """Send until the webhook takes it; return why it did not, or ""."""
    for wait in (*waits, None):
        why, is_passing = _post(config, message, secret)
        if not why or not is_passing or wait is None:
            break
        time.sleep(wait)
    return why


def _post(config: NotifyConfig, message: Message, secret: bytes) -> tuple[str, bool]:
    """Send once; return why the webhook did not take it, and whether that may pass."""
    request = urllib.request.Request(
        config.webhook, message.body, headers(message, secret, int(time.time())), method="POST"
    )
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        opener.open(request, timeout=config.timeout_seconds).close()
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP status {error.code}", error.code in _PASSING
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return " ".join(str(reason).split()) or type(error).__name__, True
    return "", False
