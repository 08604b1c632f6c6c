"""Backend: what is asked of Kubeflow Pipelines, by its API of version v2beta1.

Package, experiment and values -> uploaded version, run, recurring run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from beam_jobs.contracts.errors import ExitCode
from pipeline.kubeflow.connection import Api, KubeflowError
from pipeline.kubeflow.package import Package, package_of
from pipeline.kubeflow.runs import run_of

MAX_CONCURRENCY = 1
"""Runs of a recurring run at a time: two would train on and publish to one root."""
_EQUALS = 1
"""Kubeflow's number of the operation `EQUALS` of filters (`filter.proto`)."""
_PAGE_SIZE = 50
_MAX_LOOKED_AT = 500
"""Newest runs of an experiment, among which one that goes on is looked for."""
_MAX_NAMED = 10
"""Names that the error for an unknown one lists."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """An uploaded version of a pipeline.

    Attributes:
        pipeline_id: of the pipeline.
        version_id: of the version.
        name: of the version.
        package: what it holds.
        is_new: whether it was uploaded just now.
    """

    pipeline_id: str
    version_id: str
    name: str
    package: Package
    is_new: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one run does, or each run of a schedule.

    Attributes:
        name: of the run or the schedule, for people.
        version: of the pipeline.
        experiment_id: experiment that the runs belong to.
        values: of the pipeline's parameters.
        service_account: of the pods; "" = the server's default.
    """

    name: str
    version: Version
    experiment_id: str
    values: Mapping[str, Any] = field(default_factory=dict)
    service_account: str = ""

    def body(self) -> dict[str, Any]:
        """Return the fields of a request that runs and recurring runs share."""
        account = {"service_account": self.service_account} if self.service_account else {}
        return account | {
            "display_name": self.name,
            "experiment_id": self.experiment_id,
            # By its version and not as a specification: this way Kubeflow shows which.
            "pipeline_version_reference": {
                "pipeline_id": self.version.pipeline_id,
                "pipeline_version_id": self.version.version_id,
            },
            "runtime_config": {"parameters": dict(self.values)},
        }


class Backend:
    """Kubeflow Pipelines behind one connection."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._client = api.client
        self._namespace = api.connection.namespace or None
        self._url = api.connection.url

    def upload(self, package: Package) -> Version:
        """Return the version with the content of a file, and upload it if it is new.

        The first version makes the pipeline, which has the name of the package.

        Raises:
            KubeflowError: the server refuses the file.
        """
        mark = f"sha256:{package.version}"
        uploads = self._client.pipeline_uploads
        arguments = {"uploadfile": str(package.path), "description": mark}
        pipeline_id = self._find_pipeline(package.name)
        if pipeline_id is None:
            made = self._api.call(
                uploads.upload_pipeline,
                refused=ExitCode.BAD_DATA,
                what=str(package.path),
                name=package.name,
                namespace=self._namespace,
                **arguments,
            )
            pipeline_id = _id(made, "pipeline_id", self._url)
        elif not self._has_version(pipeline_id, mark):
            made = self._api.call(
                uploads.upload_pipeline_version,
                refused=ExitCode.BAD_DATA,
                what=str(package.path),
                name=package.version,
                pipelineid=pipeline_id,
                **arguments,
            )
        else:
            made = {}
        for version in self._versions(pipeline_id):
            if version.get("description") == mark:
                return _version(version, package, is_new=bool(made))
        raise KubeflowError(f"{self._url}: the version {mark} was uploaded, but is not listed")

    def find_version(self, pipeline: str, version: str | None) -> Version:
        """Return a version that was uploaded before.

        Args:
            pipeline: name.
            version: name; None = the newest.

        Raises:
            KubeflowError: there is no such pipeline or version.
        """
        pipeline_id = self._find_pipeline(pipeline)
        if pipeline_id is None:
            raise self._unknown("pipeline", pipeline, self._pipelines(namespace=self._namespace))
        for one in self._versions(pipeline_id):
            if version is None or version == one["display_name"]:
                return _version(one, package_of(one["pipeline_spec"]))
        raise self._unknown("version", version or "", self._versions(pipeline_id))

    def find_experiment(self, name: str, is_made: bool) -> str:
        """Return the id of an experiment.

        Args:
            name: of the experiment.
            is_made: make it if there is none.

        Raises:
            KubeflowError: there is none.
        """
        for one in self._experiments(filter=_named(name)):
            return _id(one, "experiment_id", self._url)
        if not is_made:
            other = ", or make it with --create-experiment"
            raise self._unknown("experiment", name, self._experiments(), other)
        made = self._api.call(
            self._client.experiments.experiment_service_create_experiment,
            _without_none({"display_name": name, "namespace": self._namespace}),
        )
        return _id(made, "experiment_id", self._url)

    def start(self, job: Job) -> dict[str, Any]:
        """Start a run and return what the server says of it.

        Raises:
            KubeflowError: the server refuses it.
        """
        made = self._api.call(self._client.runs.run_service_create_run, job.body())
        _id(made, "run_id", self._url)
        return made

    def read_run(self, run_id: str) -> dict[str, Any]:
        """Return what the server says of a run.

        Raises:
            KubeflowError: there is no such run.
        """
        run = self._api.call(self._client.runs.run_service_get_run, run_id=run_id)
        _id(run, "run_id", self._url)
        return run

    def package_of_run(self, run: Mapping[str, Any]) -> Package:
        """Return the pipeline of what `read_run` gave."""
        if "pipeline_spec" in run:
            return package_of(run["pipeline_spec"])
        function = self._client.pipelines.pipeline_service_get_pipeline_version
        return package_of(
            self._api.call(function, **run["pipeline_version_reference"])["pipeline_spec"]
        )

    def find_schedules(self, name: str, experiment_id: str) -> list[str]:
        """Return the ids of the recurring runs of an experiment that have a name."""
        found = self._list(
            self._client.recurring_runs.recurring_run_service_list_recurring_runs,
            "recurringRuns",  # Not recurring_runs, in the server's JSON.
            experiment_id=experiment_id,
            filter=_named(name),
        )
        return [_id(one, "recurring_run_id", self._url) for one in found]

    def schedule(self, job: Job, cron: str) -> str:
        """Make a recurring run and return its id.

        Without catch-up: of dates that were missed only the last one is made up for. A
        run that still goes on keeps the next one waiting.

        Args:
            job: what each run does.
            cron: Kubeflow's expression with six fields.

        Raises:
            KubeflowError: the server refuses it.
        """
        body = job.body() | {
            "trigger": {"cron_schedule": {"cron": cron}},
            "mode": "ENABLE",
            "no_catchup": True,
            "max_concurrency": MAX_CONCURRENCY,
        }
        create = self._client.recurring_runs.recurring_run_service_create_recurring_run
        return _id(self._api.call(create, body), "recurring_run_id", self._url)

    def retire_schedule(self, schedule_id: str, experiment_id: str) -> bool:
        """Remove a recurring run, or only stop it while a run of it goes on.

        Kubernetes removes the pods of a run together with the recurring run that
        started it, and Kubeflow then shows that run as running for ever.

        Args:
            schedule_id: of the recurring run.
            experiment_id: experiment that its runs belong to.

        Returns:
            Whether it is gone. False: it starts nothing any more, but is still there.
        """
        of = self._client.recurring_runs
        # First: it must start no run between the look and the removal.
        self._api.call(of.recurring_run_service_disable_recurring_run, recurring_run_id=schedule_id)
        runs = self._list(
            self._client.runs.run_service_list_runs,
            "runs",
            experiment_id=experiment_id,
            sort_by="created_at desc",
        )
        for one in islice(runs, _MAX_LOOKED_AT):
            if one.get("recurring_run_id") == schedule_id and not run_of(one).has_ended:
                return False
        self._api.call(of.recurring_run_service_delete_recurring_run, recurring_run_id=schedule_id)
        return True

    def run_page(self, run_id: str) -> str:
        """Return the URL of a run in Kubeflow's user interface."""
        return f"{self._url}/#/runs/details/{run_id}"

    def schedule_page(self, schedule_id: str) -> str:
        """Return the URL of a recurring run in Kubeflow's user interface."""
        return f"{self._url}/#/recurringrun/details/{schedule_id}"

    def _find_pipeline(self, name: str) -> str | None:
        for namespace in dict.fromkeys((self._namespace, None)):
            # On a server with several users, pipelines without a namespace are for all.
            for one in self._pipelines(namespace=namespace, filter=_named(name)):
                return _id(one, "pipeline_id", self._url)
        return None

    def _pipelines(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        function = self._client.pipelines.pipeline_service_list_pipelines
        return self._list(function, "pipelines", **arguments)

    def _versions(self, pipeline_id: str) -> Iterator[dict[str, Any]]:
        """Yield the versions of a pipeline, the newest first."""
        function = self._client.pipelines.pipeline_service_list_pipeline_versions
        arguments = {"pipeline_id": pipeline_id, "sort_by": "created_at desc"}
        return self._list(function, "pipeline_versions", **arguments)

    def _has_version(self, pipeline_id: str, mark: str) -> bool:
        return any(one.get("description") == mark for one in self._versions(pipeline_id))

    def _experiments(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        function = self._client.experiments.experiment_service_list_experiments
        return self._list(function, "experiments", namespace=self._namespace, **arguments)

    def _list(
        self, function: Callable[..., Any], key: str, **arguments: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield what a list has, page by page."""
        asked = _without_none({"page_size": _PAGE_SIZE, **arguments})
        token: dict[str, Any] = {}
        while True:
            page = self._api.call(function, **asked, **token)
            yield from page.get(key, [])
            if not page.get("next_page_token"):
                return
            token = {"page_token": page["next_page_token"]}

    def _unknown(
        self, what: str, name: str, known: Iterator[dict[str, Any]], other: str = ""
    ) -> KubeflowError:
        names = [repr(one["display_name"]) for one in islice(known, _MAX_NAMED)]
        return KubeflowError(
            f"{self._url}: there is no {what} {name!r}; known: {', '.join(names) or 'none'}. Name "
            f"another{other}",
            ExitCode.USAGE,
        )


def _version(found: Mapping[str, Any], package: Package, is_new: bool = False) -> Version:
    return Version(
        pipeline_id=found["pipeline_id"],
        version_id=found["pipeline_version_id"],
        name=found["display_name"],
        package=package,
        is_new=is_new,
    )


def _id(answer: Mapping[str, Any], key: str, url: str) -> str:
    """Return an id of an answer, which no answer of Kubeflow lacks."""
    if key not in answer:
        raise KubeflowError(
            f"{url}: the answer has no {key}, so this is not the API v2beta1 of Kubeflow "
            "Pipelines 2: name another --endpoint",
            ExitCode.USAGE,
        )
    return str(answer[key])


def _named(name: str) -> str:
    """Return the filter for what has a name."""
    predicate = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
