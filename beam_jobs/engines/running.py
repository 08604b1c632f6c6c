"""One pipeline of a driver, from the job of the last run to the end of its own.

The drivers of `build` and `predict` use all of it. `fetch` has a lease of its own that
its workers check (`collect.job_folder`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from beam_jobs.engines import checks, claims, flink
from beam_jobs.engines.claims import Claim
from beam_jobs.errors import DataError

_LOGGER = logging.getLogger(__name__)


def stop_last(folder: str) -> None:
    """Stop the job of a run that was killed and left its claim on a folder.

    A job on Flink is cancelled. The job of any other engine, and that of a cluster that
    does not answer, fails at its next write, because its claim is gone.

    Raises:
        DataError: reason folder_in_use; the job on Flink does not end.
    """
    last = claims.read(folder)
    if last is None:
        return
    claims.drop(folder)
    if not last.flink_master:
        return
    try:
        if flink.cancel(last.flink_master, last.job_name):
            _LOGGER.warning(
                "cancelled the job %s of an earlier run at %s", last.job_name, last.flink_master
            )
    except DataError as error:
        if error.reason != "no_answer":
            raise
        _LOGGER.warning(
            "an earlier run had a job at %s, which does not answer: if that job still runs, it "
            "fails at its next write",
            last.flink_master,
        )


@contextmanager
def pipeline(options: PipelineOptions, claim: Claim) -> Iterator[beam.Pipeline]:
    """Yield a pipeline that runs when the body ends.

    Its job on Flink is cancelled when this process ends it early, such as by Ctrl-C.

    Args:
        options: of the job; those of a job on Flink get the claim's name.
        claim: of this run.
    """
    if claim.flink_master:
        options.view_as(GoogleCloudOptions).job_name = claim.job_name
    try:
        with beam.Pipeline(options=options) as made:
            yield made
    except BaseException:
        if claim.flink_master:
            with suppress(DataError):
                flink.cancel(claim.flink_master, claim.job_name)
        raise


def take(folder: str, options: PipelineOptions) -> Claim:
    """Take a folder for this run and return its claim."""
    return claims.take(folder, checks.flink_master(options))
