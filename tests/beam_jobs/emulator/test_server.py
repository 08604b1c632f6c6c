"""The server over plain HTTP: error bodies, routes, faults, the request log, the command."""

import io
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import rasterio

from beam_jobs.emulator.config import EmulatorConfig
from beam_jobs.emulator.server import running

PROJECT = "/v1/projects/terrapair-emulator"


@pytest.fixture(scope="module")
def server(simulated, tmp_path_factory):
    with running(
        simulated.parent, tmp_path_factory.mktemp("emulator"), EmulatorConfig(pending_s=60)
    ) as server:
        yield server


def ask(server, path, body=None, token="t"):
    """(status, bytes) of an answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        server.url + path, data, headers | {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def constant(value):
    return {"result": "0", "values": {"0": {"constantValue": value}}}


def call(name, **arguments):
    return {
        "result": "0",
        "values": {
            "0": {"functionInvocationValue": {"functionName": name, "arguments": arguments}}
        },
    }


def test_errors_have_googles_form(server):
    status, body = ask(server, f"{PROJECT}/value:compute", {"expression": call("Image.blur")})
    error = json.loads(body)["error"]
    assert (status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert (
        "does not know the algorithm 'Image.blur'; it knows ['Collection.filter'"
        in error["message"]
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (f"{PROJECT}/maps", {}, 404, "has no POST"),
        (
            f"{PROJECT}/value:compute",
            {"expression": {"result": "0", "values": {}}},
            400,
            "incomplete",
        ),
        (
            f"{PROJECT}/value:compute",
            {"expression": {"result": "0", "values": {"0": {"x": 1}}}},
            400,
            "kind 'x'",
        ),
        (f"{PROJECT}/value:compute", {}, 400, "expression"),
        (
            f"{PROJECT}/image:computePixels",
            {"expression": constant(1)},
            400,
            "must be an Image, got int",
        ),
        (
            f"{PROJECT}/image:computePixels",
            {
                "expression": call("Image.constant", value={"constantValue": 1}),
                "fileFormat": "GEO_TIFF",
            },
            400,
            "'grid' is missing",
        ),
    ],
)
def test_bad_requests_are_answered_with_the_cause(server, path, body, status, message):
    got, data = ask(server, path, body)
    assert got == status
    assert message in json.loads(data)["error"]["message"]


def test_without_a_token_nothing_is_answered(server):
    assert ask(server, f"{PROJECT}/algorithms", token="")[0] == 401


def test_the_limits_hold_on_the_server_too(server):
    image = {
        "expression": call("Image.constant", value={"constantValue": 1}),
        "fileFormat": "GEO_TIFF",
    }
    affine = {"scaleX": 1, "scaleY": -1}
    for width, height, message in (
        (40_000, 1, "Pixel grid dimensions (40000x1)"),
        (8000, 8000, "Total request size"),
    ):
        grid = {
            "crsCode": "EPSG:4326",
            "affineTransform": affine,
            "dimensions": {"width": width, "height": height},
        }
        status, data = ask(server, f"{PROJECT}/image:computePixels", {**image, "grid": grid})
        assert status == 400
        assert json.loads(data)["error"]["message"].startswith(message)


def test_get_pixels_returns_a_structured_array_with_zero_where_masked(server, simulated):
    item = next(json.loads(line) for line in simulated.read_text().splitlines())
    (image_id,) = (
        name
        for name in server.service.images
        if name.startswith("COPERNICUS/S1_GRD") and item["id"][7:22] in name
    )
    a, _, c, _, e, f = item["properties"]["proj:transform"][:6]
    affine = {"scaleX": a, "translateX": c, "scaleY": e, "translateY": f}
    body = {
        "fileFormat": "NPY",
        "bandIds": ["VH"],
        "grid": {
            "crsCode": item["properties"]["proj:code"],
            "affineTransform": affine,
            "dimensions": {"width": 160, "height": 160},
        },
    }
    status, data = ask(server, f"/v1/projects/earthengine-public/assets/{image_id}:getPixels", body)
    array = np.load(io.BytesIO(data))
    assert (status, array.dtype.names) == (200, ("VH",))
    with rasterio.open(simulated.parent / item["assets"]["data"]["href"]) as dataset:
        np.testing.assert_array_equal(array["VH"], np.nan_to_num(dataset.read(2), nan=0.0))


def test_faults_are_set_over_http_and_the_log_tells_what_happened(server):
    before = len(server.requests())
    status, body = ask(
        server, "/emulator/faults", {"server_error": 1.0, "max_faults_per_request": 1}
    )
    assert (status, json.loads(body)["server_error"]) == (200, 1.0)
    for expected in (503, 200):
        assert ask(server, f"{PROJECT}/value:compute", {"expression": constant(7)})[0] == expected
    lines = server.requests()[before:]
    assert [(line["method"], line["status"], line["fault"], line["attempt"]) for line in lines] == [
        ("compute", 503, "server_error", 0),
        ("compute", 200, None, 1),
    ]
    assert lines[0]["key"] == lines[1]["key"]
    status, body = ask(server, "/emulator/faults", {"sever_error": 1.0})
    assert status == 400
    assert "sever_error" in json.loads(body)["error"]["message"]
    assert ask(server, "/emulator/faults", {})[0] == 200


def test_operations_are_listed_and_the_same_request_id_starts_one(server):
    export = {
        "expression": call("Image.constant", value={"constantValue": 1}),
        "requestId": "a",
        "grid": {
            "crsCode": "EPSG:4326",
            "affineTransform": {},
            "dimensions": {"width": 1, "height": 1},
        },
        "fileExportOptions": {},
    }
    names = [
        json.loads(ask(server, f"{PROJECT}/image:export", export)[1])["name"] for _ in range(2)
    ]
    assert names[0] == names[1]
    listed = json.loads(ask(server, f"{PROJECT}/operations?pageSize=500")[1])["operations"]
    assert [(operation["name"], operation["metadata"]["state"]) for operation in listed] == [
        (names[0], "PENDING")
    ]


@pytest.mark.e2e
def test_the_command_prints_what_to_export_serves_and_ends_at_ctrl_c(tmp_path):
    settings = ["simulate.num_places=1", "simulate.num_dates=1", "simulate.size_px=64"]
    command = [sys.executable, "-m", "beam_jobs", "emulate-ee", "--output", str(tmp_path)]
    command += ["--log", str(tmp_path / "log.ndjson")] + [
        text for value in settings for text in ("--set", value)
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline().strip() for _ in range(3)]
        environment = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        try:
            assert set(environment) == {
                "EARTHENGINE_PROJECT",
                "TERRAPAIR_EE_URL",
                "TERRAPAIR_EE_TOKEN",
            }
            headers = {
                "Authorization": f"Bearer {environment['TERRAPAIR_EE_TOKEN']}",
                "Content-Type": "application/json",
            }
            server, project = environment["TERRAPAIR_EE_URL"], environment["EARTHENGINE_PROJECT"]
            url = f"{server}/v1/projects/{project}/value:compute"
            body = json.dumps({"expression": constant([1, 2])}).encode()
            with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
                assert json.load(answer) == {"result": [1, 2]}
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert json.loads((tmp_path / "log.ndjson").read_text())["method"] == "compute"
