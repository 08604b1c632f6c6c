"""Which reason an answer of Earth Engine has, and whether asking again helps."""

import pickle

import pytest

from beam_jobs.earth_engine.errors import EarthEngineError, from_status


@pytest.mark.parametrize(
    ("status", "message", "reason", "retriable"),
    [
        (
            429,
            "Too Many Requests: the request rate or concurrency limit was exceeded.",
            "quota_exceeded",
            True,
        ),
        (
            429,
            "Quota exceeded for quota metric 'Read requests per minute'.",
            "quota_exceeded",
            True,
        ),
        (
            403,
            "Your project has exceeded the compute quota of its noncommercial tier.",
            "quota_exhausted",
            False,
        ),
        (429, "EECU-hours of this month are used up.", "quota_exhausted", False),
        (503, "The service is currently unavailable.", "server_error", True),
        (500, "An internal error has occurred.", "server_error", True),
        (400, "Computation timed out.", "timeout", True),
        (
            400,
            "Total request size (56623104 bytes) must be less than or equal to 50331648 bytes.",
            "too_large",
            False,
        ),
        (
            400,
            "Pixel grid dimensions (40818x1) must be less than or equal to 32768.",
            "too_large",
            False,
        ),
        (400, "User memory limit exceeded.", "too_large", False),
        (400, "Image.load: Image asset 'A/b' not found (does not exist or …).", "not_found", False),
        (404, "Operation not found.", "not_found", False),
        (400, "Image.select: Band pattern 'B99' did not match any bands.", "refused", False),
        (403, "Permission denied.", "refused", False),
        (401, "Request had invalid authentication credentials.", "no_credentials", False),
    ],
)
def test_status_and_message_decide_the_reason(status, message, reason, retriable):
    error = from_status("COPERNICUS/S1_GRD/S1A", status, message)
    assert (error.reason, error.status, error.retriable) == (reason, status, retriable)
    assert message in str(error)
    assert "\n" not in str(error)


def test_errors_travel_between_processes_whole():
    sent = EarthEngineError("what: 503", "server_error", 503)
    got = pickle.loads(pickle.dumps(sent))
    assert (type(got), str(got), got.reason, got.status) == (
        EarthEngineError,
        "what: 503",
        "server_error",
        503,
    )
