"""Remote models: a segmenter behind a server as a function of pixels.

Input: an Endpoint and the model's card. Output: the function that `segmenters.load`
gives for a local model. Windows travel in several requests at a time. A request that
finds no server is sent again, with growing pauses.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import numpy as np

from beam_jobs.contracts.records import FloatArray
from beam_jobs.errors import DataError
from beam_jobs.predict import segmenters
from beam_jobs.predict.blending import Pixels
from beam_jobs.predict.remote_models.endpoints import (
    BusyError,
    Client,
    Endpoint,
    Served,
    ServerError,
    refusal,
)
from beam_jobs.predict.remote_models.grpc_client import GrpcClient
from beam_jobs.predict.remote_models.rest_client import RestClient
from beam_jobs.predict.segmenters import Segmenter

_PAUSES_SECONDS = (0.5, 8.0)
"""Pause after the first failure, and the longest; each is twice the one before."""
_Answer = TypeVar("_Answer")


def pinned(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint with the number of the version that now answers.

    A label may move to another version during a run. All maps of a run must come from
    one version, so the run asks for the number.

    Raises:
        DataError: the server is not there, or has no such segmenter.
    """
    version = _served(endpoint).version
    return endpoint if version is None else replace(endpoint, label="", version=version)


def find_card(endpoint: Endpoint, path: str) -> Segmenter:
    """Return what the card of the served version says.

    Args:
        endpoint: of `pinned`.
        path: folder of a published model or of one version, or a copy of a card.

    Raises:
        DataError: there is no card of this version, or the model is no segmenter.
    """
    try:
        return segmenters.find(path, endpoint.version)
    except DataError as error:
        raise DataError(
            f"{error} (the server answers with version {endpoint.version})"
            if endpoint.version is not None
            else str(error),
            error.reason,
        ) from error


def check(endpoint: Endpoint, segmenter: Segmenter) -> None:
    """Refuse a server whose model is not that of the card.

    Raises:
        DataError: the server is not there, has no such model or version, or its model
            has other inputs, classes or another version.
    """
    found = _served(endpoint)
    bands: dict[str, int] = {sensor: len(names) for sensor, names in segmenter.bands.items()}
    version = int(segmenter.version) if segmenter.version else None
    for there, here, what in (
        (found.bands and _listed(found.bands), _listed(bands), "takes {}"),
        (found.num_classes, len(segmenter.classes), "tells {} classes apart"),
        (found.version, version, "is version {}"),
    ):
        if there is not None and here is not None and there != here:
            raise DataError(
                f"{endpoint.name}: {what.format(there)}, but the card names {here}: name the card "
                "of the served model",
                "bad_model",
            )


def _listed(bands: Mapping[str, int]) -> str:
    return ", ".join(f"{name} of {count} bands" for name, count in sorted(bands.items()))


def connect(endpoint: Endpoint, segmenter: Segmenter) -> Callable[[Pixels], FloatArray]:
    """Return the function pixels [B, H, W, C] -> probabilities [B, H, W, K] of a model.

    All callers in a process share one connection and `max_in_flight`.

    Raises:
        DataError: when the function is called: the server is not there, has no such
            model or version, or refuses the pixels.
    """
    client, pool = _client(endpoint), _pool(endpoint)
    num_classes = len(segmenter.classes)

    def ask(pixels: Pixels) -> FloatArray:
        found = _retried(endpoint, lambda: client.predict(pixels))
        expected = (*next(iter(pixels.values())).shape[:3], num_classes)
        if found.shape != expected:
            raise refusal(
                endpoint, f"it answers with the shape {found.shape}, the card asks for {expected}"
            )
        return found

    def probabilities(pixels: Pixels) -> FloatArray:
        seen = {name: pixels[name] for name in segmenter.sensors}
        batches = list(_requests(seen, endpoint, num_classes))
        return np.concatenate(list(pool.map(ask, batches)))

    return probabilities


def _requests(pixels: Pixels, endpoint: Endpoint, num_classes: int) -> Iterator[Pixels]:
    """Yield the windows of a batch, as many at a time as a request takes.

    The answer is bounded as well: of many classes it is larger than the request.
    """
    first = next(iter(pixels.values()))
    num_values = max(sum(values.shape[-1] for values in pixels.values()), num_classes)
    num_bytes = max(1, first.shape[1] * first.shape[2] * num_values * first.itemsize)
    together = max(1, int(endpoint.max_request_mib * (1 << 20)) // num_bytes)
    for begin in range(0, max(len(first), 1), together):
        yield {name: values[begin : begin + together] for name, values in pixels.items()}


@lru_cache(maxsize=4)
def _client(endpoint: Endpoint) -> Client:
    return GrpcClient(endpoint) if endpoint.protocol == "grpc" else RestClient(endpoint)


@lru_cache(maxsize=4)
def _pool(endpoint: Endpoint) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(endpoint.max_in_flight, "requests")


def _served(endpoint: Endpoint) -> Served:
    return _retried(endpoint, lambda: _client(endpoint).served())


def _retried(endpoint: Endpoint, ask: Callable[[], _Answer]) -> _Answer:
    """Return what `ask` returns; ask again while the server is busy or away.

    Raises:
        ServerError: it stays away.
        DataError: it refuses.
    """
    pause, longest = _PAUSES_SECONDS
    begin, num_tries = time.monotonic(), 0
    while True:
        num_tries += 1
        try:
            return ask()
        except BusyError as error:
            why = str(error)
        waited = time.monotonic() - begin
        if waited >= endpoint.retry_seconds:
            raise ServerError(
                f"{endpoint.name}: no answer in {num_tries} tries and {waited:.0f} s ({why}): "
                f"start the server, {'' if endpoint.is_encrypted else 'add --tls if it encrypts, '}"
                "or name another --host or --protocol; the same command goes on where it stopped"
            )
        # Workers that lost one server must not come back all at once.
        time.sleep(min(pause * random.uniform(0.5, 1.0), endpoint.retry_seconds - waited))
        pause = min(2 * pause, longest)
