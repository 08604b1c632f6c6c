"""A loopback server with the API v2beta1 of Kubeflow Pipelines, for tests.

It stands in for the real API server, of which there is no package: it answers the
requests of kfp's client, and refuses what the real server 2.17 refuses, in its words
(`backend/src/apiserver` of kubeflow/pipelines). It runs nothing: a test tells how a run
goes on, as a `Story`.

Where TERRAPAIR_KFP_ENDPOINT names a real server, the tests that need neither a story nor
faults nor credentials ask that one (`REAL`).
"""

from __future__ import annotations

import contextlib
import email.parser
import email.policy
import json
import os
import re
import socket
import ssl
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.data.servers import certificates

REAL = os.environ.get("TERRAPAIR_KFP_ENDPOINT", "")
"""URL of a real server, "" if there is none."""
ROOT = "/apis/v2beta1"
INVALID, NOT_FOUND, EXISTS, INTERNAL, UNAUTHENTICATED = 3, 5, 6, 13, 16
"""Codes of gRPC."""
_HTTP = {INVALID: 400, NOT_FOUND: 404, EXISTS: 409, INTERNAL: 500, UNAUTHENTICATED: 401}
Story = list[tuple[str, dict[str, str]]]
"""State of a run, and those of its tasks, at each look; the last one stays."""
PAGE = b"<!doctype html><html><head><title>Log in</title></head><body>Log in</body></html>"

_RUN_FIELDS = {
    *("display_name", "experiment_id", "pipeline_version_reference", "pipeline_spec"),
    *("runtime_config", "service_account", "description"),
}
_RECURRING_FIELDS = _RUN_FIELDS | {"trigger", "mode", "no_catchup", "max_concurrency", "namespace"}
# Type in the specification -> what JSON holds, and the server's words.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "NUMBER_INTEGER": ((int, float), "type double or integer"),
    "NUMBER_DOUBLE": ((int, float), "type double or integer"),
    "STRING": ((str,), "type string"),
    "BOOLEAN": ((bool,), "type bool"),
    "LIST": ((list,), "type list"),
    "STRUCT": ((dict,), "type struct"),
}
# What robfig/cron 1.2.0 takes: seconds first, and no weekday 7.
_CRON_RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


class RefusalError(Exception):
    """The server refuses, with a code of gRPC and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass
class KubeflowServer:
    """What the server holds, and how it behaves.

    Attributes:
        url: of the server.
        token: that clients must send; "" = none.
        cookie: that clients must send; "" = none. Without it they get a login page.
        is_multi_user: whether namespaces matter.
        is_login_page: answer everything with a login page.
        num_faults: requests that fail from now on, as while the server restarts.
        seconds: how long each answer takes.
        story: of the runs that are started from now on.
        requests: method and path of each request.
    """

    url: str = ""
    token: str = ""
    cookie: str = ""
    is_multi_user: bool = False
    is_login_page: bool = False
    num_faults: int = 0
    seconds: float = 0.0
    story: Story = field(default_factory=lambda: [("SUCCEEDED", {})])
    requests: list[tuple[str, str]] = field(default_factory=list)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stories: dict[str, Story] = {}
        self._make(self.experiments, "experiment_id", display_name="Default")

    def upload(self, name: str, description: str, content: bytes) -> dict[str, Any]:
        """Make a pipeline and its first version, both with the name."""
        specification = _specification(content)
        if any(one["display_name"] == name for one in self.pipelines.values()):
            raise RefusalError(EXISTS, "Failed to create a pipeline and a pipeline version")
        made = self._make(self.pipelines, "pipeline_id", display_name=name, description=description)
        self._make_version(made["pipeline_id"], name, description, specification)
        return made

    def upload_version(
        self, pipeline_id: str, name: str, description: str, content: bytes
    ) -> dict[str, Any]:
        """Make a version of a pipeline."""
        if pipeline_id not in self.pipelines:
            raise RefusalError(INVALID, "Failed to create a pipeline version")
        specification = _specification(content)
        if any(
            one["display_name"] == name and one["pipeline_id"] == pipeline_id
            for one in self.versions.values()
        ):
            raise RefusalError(EXISTS, "Failed to create a pipeline version")
        return self._make_version(pipeline_id, name, description, specification)

    def create_run(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make a run, which goes as the story says."""
        _check_fields(body, _RUN_FIELDS)
        if not body.get("display_name"):
            raise RefusalError(INVALID, "The run name is empty. Please specify a valid name")
        self._check_job(body)
        made = self._make(self.runs, "run_id", **body, state="PENDING")
        self._stories[made["run_id"]] = list(self.story)
        return made

    def look_at_run(self, run_id: str) -> dict[str, Any]:
        """Return a run, one step further in its story."""
        if run_id not in self.runs:
            raise RefusalError(NOT_FOUND, f"Run {run_id} not found")
        story = self._stories[run_id]
        state, tasks = story.pop(0) if len(story) > 1 else story[0]
        run = self.runs[run_id]
        # With each task the real server lists its helpers.
        names = {"root": state, "root-driver": "SUCCEEDED"} | tasks
        names |= {f"{name}-driver": "SUCCEEDED" for name in tasks}
        details = [{"display_name": name, "state": one} for name, one in names.items()]
        details += [{"display_name": "executor", "state": one} for one in tasks.values()]
        run |= {"state": state, "run_details": {"task_details": details}}
        return run

    def create_recurring(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make a recurring run."""
        _check_fields(body, _RECURRING_FIELDS)
        if not body.get("display_name"):
            raise RefusalError(INTERNAL, "Recurring run's name cannot be empty")
        if not 1 <= body.get("max_concurrency", 0) <= 10:
            raise RefusalError(
                INVALID,
                "Max concurrency of a recurring run must be at least 1 and at most 10. Received "
                f"{body.get('max_concurrency', 0)}",
            )
        _check_cron(body["trigger"]["cron_schedule"]["cron"])
        self._check_job(body)
        return self._make(self.recurring, "recurring_run_id", **body)

    def _check_job(self, body: dict[str, Any]) -> None:
        if body.get("experiment_id") not in self.experiments:
            raise RefusalError(NOT_FOUND, f"Experiment {body.get('experiment_id')} not found")
        reference = body.get("pipeline_version_reference", {})
        version = self.versions.get(reference.get("pipeline_version_id"))
        if version is None:
            raise RefusalError(
                NOT_FOUND, f"PipelineVersion {reference.get('pipeline_version_id')} not found"
            )
        root = version["pipeline_spec"]["root"]
        _check_values(
            root.get("inputDefinitions", {}).get("parameters", {}),
            body.get("runtime_config", {}).get("parameters", {}),
        )

    def _make_version(
        self, pipeline_id: str, name: str, description: str, specification: dict[str, Any]
    ) -> dict[str, Any]:
        return self._make(
            self.versions,
            "pipeline_version_id",
            pipeline_id=pipeline_id,
            display_name=name,
            description=description,
            pipeline_spec=specification,
        )

    @staticmethod
    def _make(held: dict[str, dict[str, Any]], key: str, **values: Any) -> dict[str, Any]:
        made = {key: str(uuid.uuid4()), **values}
        held[made[key]] = made
        return made


def _specification(content: bytes) -> dict[str, Any]:
    """Return the pipeline of a file; settings for Kubernetes stand beside it."""
    try:
        documents = [one for one in yaml.safe_load_all(content) if one]
    except yaml.YAMLError as error:
        raise RefusalError(INVALID, "unknown template format") from error
    found = [one for one in documents if _is_pipeline(one)]
    if not found:
        raise RefusalError(INVALID, "unknown template format")
    if len(found) > 1:
        raise RefusalError(INVALID, "multiple pipeline specs provided")
    (specification,) = found
    if specification.get("schemaVersion") != "2.1.0":
        raise RefusalError(
            INVALID,
            "KFP only supports schema version 2.1.0, but the pipeline spec has version "
            f"{specification.get('schemaVersion', '')}",
        )
    return specification


def _is_pipeline(document: Any) -> bool:
    try:
        spec = json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError:
        return False
    return bool(spec.pipeline_info.name) and spec.HasField("root")


def _check_fields(body: dict[str, Any], known: set[str]) -> None:
    for key in body:
        if key not in known:
            raise RefusalError(INVALID, f'proto: (line 1:2): unknown field "{key}"')


def _check_values(declared: dict[str, Any], given: dict[str, Any]) -> None:
    for name, one in declared.items():
        if name not in given:
            if not one.get("isOptional") and "defaultValue" not in one:
                raise RefusalError(
                    INVALID,
                    f"parameter {name} is not optional, yet has neither default value nor user "
                    "provided value",
                )
            continue
        types, words = _KINDS[one["parameterType"]]
        value = given[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise RefusalError(INVALID, f"input parameter {name} requires {words}")
    if extra := [name for name in given if name not in declared]:
        raise RefusalError(
            INVALID, f"parameter(s) provided are not required by pipeline: {', '.join(extra)}"
        )


def _check_cron(text: str) -> None:
    fields = text.split()
    why = "" if 5 <= len(fields) <= 6 else f"Expected 5 to 6 fields, found {len(fields)}: {text}"
    for field_text, (least, most) in zip(fields, _CRON_RANGES, strict=False):
        for number in map(int, re.findall(r"(?<![/\d])\d+", field_text)):
            if not least <= number <= most:
                why = f"End of range ({number}) above maximum ({most}): {field_text}"
    if why:
        raise RefusalError(
            INVALID,
            "Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron). "
            f"Error: {why}",
        )


class _Handler(BaseHTTPRequestHandler):
    """Translate HTTP to calls of a KubeflowServer."""

    protocol_version = "HTTP/1.1"
    # Head and body in one packet: the second one would wait for an answer to the first.
    wbufsize = -1
    server: _HttpServer

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        state = self.server.state
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        address = urlsplit(self.path)
        with self.server.lock:
            state.requests.append((self.command, address.path))
            state.num_faults -= 1
            is_failing = state.num_faults >= 0
        time.sleep(state.seconds)
        if is_failing:
            self._send(503, b"upstream connect error", "text/plain")
            return
        is_logged_in = not state.cookie or self.headers.get("cookie") == state.cookie
        if state.is_login_page or not is_logged_in:
            self._send(200, PAGE, "text/html; charset=utf-8")
            return
        try:
            if state.token and self.headers.get("authorization") != f"Bearer {state.token}":
                raise RefusalError(
                    UNAUTHENTICATED, "Request header error: there is no user identity header."
                )
            if not address.path.startswith(ROOT):
                self._send(404, PAGE, "text/html")
                return
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            with self.server.lock:
                answer = self._dispatch(address.path.removeprefix(ROOT), query, body)
            self._send(200, json.dumps(answer).encode(), "application/json")
        except RefusalError as error:
            self._send(_HTTP[error.code], _error_body(address.path, error), "application/json")

    def _dispatch(self, path: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        state, method = self.server.state, self.command
        name, description = query.get("name", ""), query.get("description", "")
        parts = path.strip("/").split("/")
        match (method, parts):
            case "GET", ["healthz"]:
                return {"multi_user": state.is_multi_user, "tag_name": "stand-in"}
            case "POST", ["pipelines", "upload"]:
                return state.upload(name, description, self._file(body))
            case "POST", ["pipelines", "upload_version"]:
                return state.upload_version(
                    query.get("pipelineid", ""), name, description, self._file(body)
                )
            case "GET", ["pipelines"]:
                return _page("pipelines", state.pipelines.values(), query)
            case "GET", ["pipelines", pipeline_id, "versions"]:
                found = [
                    one for one in state.versions.values() if one["pipeline_id"] == pipeline_id
                ]
                is_newest_first = query.get("sort_by") == "created_at desc"
                return _page("pipeline_versions", found[:: -1 if is_newest_first else 1], query)
            case "GET", ["pipelines", _, "versions", version_id]:
                return state.versions[version_id]
            case "GET", ["experiments"]:
                return _page("experiments", state.experiments.values(), query)
            case "POST", ["experiments"]:
                return state._make(state.experiments, "experiment_id", **json.loads(body))
            case "POST", ["runs"]:
                return state.create_run(json.loads(body))
            case "GET", ["runs"]:
                found = [
                    one
                    for one in state.runs.values()
                    if one["experiment_id"] == query.get("experiment_id", one["experiment_id"])
                ]
                return _page("runs", found[::-1], query)
            case "GET", ["runs", run_id]:
                return state.look_at_run(run_id)
            case "POST", ["recurringruns"]:
                return state.create_recurring(json.loads(body))
            case "GET", ["recurringruns"]:
                found = [
                    one
                    for one in state.recurring.values()
                    if one["experiment_id"] == query.get("experiment_id", one["experiment_id"])
                ]
                return _page("recurringRuns", found, query)
            case "POST", ["recurringruns", action] if action.endswith(":disable"):
                state.recurring[action.removesuffix(":disable")]["mode"] = "DISABLE"
                return {}
            case "DELETE", ["recurringruns", recurring_id]:
                # Its runs lose their pods, and stay as they are for ever.
                del state.recurring[recurring_id]
                return {}
        raise RefusalError(NOT_FOUND, "Not Found")

    def _file(self, body: bytes) -> bytes:
        """Return the file of a multipart form."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        for part in form.iter_parts():
            if part.get_param("name", header="content-disposition") == "uploadfile":
                return part.get_payload(decode=True)
        raise RefusalError(INVALID, "Failed to read pipeline from file")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        with contextlib.suppress(OSError):  # A client that has gone.
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)


def _page(key: str, found: Any, query: dict[str, str]) -> dict[str, Any]:
    """Return a page of a list; the real server has no key for an empty one."""
    wanted = {}
    if "filter" in query:
        (predicate,) = json.loads(query["filter"])["predicates"]
        assert predicate["operation"] == 1
        wanted = {predicate["key"]: predicate["stringValue"]}
    matching = [one for one in found if all(one[name] == text for name, text in wanted.items())]
    first, size = int(query.get("page_token", 0)), int(query.get("page_size", 20))
    page: dict[str, Any] = {key: matching[first : first + size]} if matching[first:] else {}
    return page | ({"next_page_token": str(first + size)} if matching[first + size :] else {})


def _error_body(path: str, error: RefusalError) -> bytes:
    if "/upload" in path and error.code != UNAUTHENTICATED:
        return json.dumps({"error_message": error.message, "error_details": "..."}).encode()
    inner = {
        "@type": "type.googleapis.com/google.rpc.Status",
        "code": error.code,
        "message": error.message,
    }
    document = {"code": error.code, "message": f"Failed: {error.message}", "details": [inner]}
    return json.dumps(document).encode()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, state: KubeflowServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state, self.lock = state, threading.Lock()


def _encrypted(plain: socket.socket, authority: certificates.Authority) -> ssl.SSLSocket:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "chain.pem"
        chain.write_bytes(authority.key + authority.certificate)
        context.load_cert_chain(chain)
    return context.wrap_socket(plain, server_side=True)


@contextlib.contextmanager
def running(authority: certificates.Authority | None = None) -> Iterator[KubeflowServer]:
    """Run the stand-in on 127.0.0.1 at a free port.

    Args:
        authority: its certificate and key for TLS; None = plain HTTP.
    """
    state = KubeflowServer()
    server = _HttpServer(state)
    scheme = "http"
    if authority is not None:
        scheme = "https"
        server.socket = _encrypted(server.socket, authority)
    state.url = f"{scheme}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
