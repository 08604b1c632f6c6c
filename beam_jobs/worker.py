"""The program that a Beam runner starts on a remote worker.

Input: the worker's id and the addresses of the runner's services, as options of
`python -m beam_jobs.worker`. The program asks the provision service for the pipeline
options and then becomes Beam's worker process. Beam's own images hold a compiled
program for this. With this one, the project's image needs no base image of Beam, and
the Beam version is the one of the lock.

Source: Beam's container contract, https://beam.apache.org/documentation/runtime/environments/
and beam_provision_api.proto.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

import grpc
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from google.protobuf import json_format, text_format

WORKER_MODULE = "apache_beam.runners.worker.sdk_worker_main"
_PROVISION_TIMEOUT_SECONDS = 60.0


def worker_environment(
    options: argparse.Namespace, info: beam_provision_api_pb2.ProvisionInfo
) -> dict[str, str]:
    """Return the environment variables that Beam's worker process reads.

    Args:
        options: addresses from the command line.
        info: the provision service's answer. An address in it wins over the command
            line.
    """
    endpoints = {
        "LOGGING": info.logging_endpoint.url or options.logging_endpoint,
        "CONTROL": info.control_endpoint.url or options.control_endpoint,
        "STATUS": info.status_endpoint.url,
    }
    found = {
        f"{name}_API_SERVICE_DESCRIPTOR": text_format.MessageToString(
            endpoints_pb2.ApiServiceDescriptor(url=url), as_one_line=True
        )
        for name, url in endpoints.items()
        if url
    }
    return found | {
        "WORKER_ID": options.id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        "SEMI_PERSISTENT_DIRECTORY": options.semi_persist_dir,
    }


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the runner's options; options of other versions of Beam are ignored."""
    parser = argparse.ArgumentParser(prog="python -m beam_jobs.worker", description=__doc__)
    parser.add_argument("--id", required=True, help="id of this worker")
    parser.add_argument("--provision_endpoint", required=True, help="host:port")
    for name in ("logging", "control", "artifact"):
        parser.add_argument(f"--{name}_endpoint", default="", help="host:port")
    parser.add_argument("--semi_persist_dir", default="/tmp", help="folder for scratch files")
    return parser.parse_known_args(arguments)[0]


def provision_info(endpoint: str, worker_id: str) -> beam_provision_api_pb2.ProvisionInfo:
    """Return what the runner's provision service at `endpoint` (host:port) says.

    Raises:
        grpc.RpcError: the service does not answer within a minute.
    """
    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        answer = stub.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(),
            metadata=[("worker_id", worker_id)],
            timeout=_PROVISION_TIMEOUT_SECONDS,
        )
    return answer.info


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Replace this process by Beam's worker."""
    options = parse_options(arguments)
    found = worker_environment(options, provision_info(options.provision_endpoint, options.id))
    command = [sys.executable, "-m", WORKER_MODULE]
    os.execve(sys.executable, command, {**environment, **found})


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
