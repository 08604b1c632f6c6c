"""DriftCheck and DriftGate: poisoned data stop before anything is trained on them.

Examples, statistics, schema and manifest of a data set, and the reference that lies
with the model in service -> a report, the schema that ExampleValidator uses, and the
reference of the new data. The gate reads the report, sets refused spans aside, and
fails. They are two components so that the report is kept as an artifact when the run
fails. The comparison itself is in `models/drift` and `watched_statistics.py`.
"""

# No `from __future__ import annotations` here: TFX's @component reads the annotations
# as objects, not as text.
import dataclasses
import json
import os
from collections.abc import Sequence

from tfx.components.schema_gen import executor as schema_gen
from tfx.components.statistics_gen.stats_artifact_utils import load_statistics
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.types import standard_artifacts
from tfx.types.experimental import simple_artifacts
from tfx.utils import io_utils

from beam_jobs.contracts import layout, published, set_aside, settings, windows
from beam_jobs.contracts import manifest as manifest_lib
from beam_jobs.contracts.errors import TerrapairError
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.contracts.locations import content_of, locate, staged
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.set_aside import SetAside
from beam_jobs.errors import RefusedError
from components.artifacts import SOURCES, read_document, split_files
from components.data_manifest import read_manifest
from components.tfx_types import InputArtifact, OutputArtifact, Parameter, component
from components.watched_statistics import compare_statistics, parse_schema, schema_text
from models.drift import report as report_lib
from models.drift.comparison import compare, why_incomparable
from models.drift.config import DriftConfig
from models.drift.embedding_drift import EmbeddingSample, compare_embeddings, sample_of
from models.drift.patch_columns import read_columns
from models.drift.reference import DataReference, ServedReference, find_served, read_reference
from models.drift.report import DriftReport, Finding, ratio
from models.drift.summary import DataSummary, summarize
from models.health.embeddings import Embedder, load_dual_encoder, why_unfit
from models.publishing import labels

REPORT_FILE = "drift.json"
_NUM_NAMED = 3
_CURE = "remove the folder of the artifact and run again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewData:
    """A data set that may be trained on.

    Attributes:
        name: "pairs" or the task's name.
        manifest: of its version.
        eval_files: its shards of the split `eval`.
        reference: what is kept of it if a model is trained on it.
        eval_statistics: TFDV's statistics of its eval split, serialized.
        unseen: summaries of the spans of a window that the model in service was not
            trained on. Each is compared on its own: one poisoned span among many good
            ones hardly moves the figures of the window.
    """

    name: str
    manifest: Manifest
    eval_files: Sequence[str]
    reference: DataReference
    eval_statistics: bytes
    unseen: Sequence[DataSummary] = ()


def judge(new: NewData, served: ServedReference | None, config: DriftConfig) -> DriftReport:
    """Compare a data set with its reference; return the report.

    Args:
        new: the data set.
        served: reference of the model in service; None: there is none.
        config: limits and severities.

    Raises:
        DamagedFileError: the reference, or the encoder in service, is damaged.
        FileNotFoundError: the encoder in service is not whole.
        DamagedShardError: a shard cannot be read.
    """
    report = DriftReport(
        data=new.name,
        span=new.manifest.span,
        version=new.manifest.version,
        reference="",
        reference_span="",
        outcome="no_reference",
        notes=("no model in service has a reference of its data: nothing to compare with",),
    )
    if served is None:
        return report
    old, now = served.data.summary, new.reference.summary
    report = dataclasses.replace(
        report,
        reference=served.version_dir,
        reference_span=f"{old.span}.{old.version}",
        notes=(),
    )
    if old.manifest_sha256 == now.manifest_sha256:
        return dataclasses.replace(report, outcome="same_data")
    newest = (new.manifest.span, new.manifest.version)
    unseen = [(part.span, part.version) for part in new.unseen] or [newest]
    is_accepted = any(span in config.accept_spans for span, _ in unseen)
    if why := why_incomparable(old, now):
        why = f"it cannot be compared with that of {served.version_dir}: {why}"
        if is_accepted:
            return dataclasses.replace(report, outcome="accepted", notes=(why,))
        return dataclasses.replace(report, outcome="refused", refusals=(why,))
    found, notes = _compare_all(new, served, config)
    # An accepted span moves the figures of its window, too.
    refused = [] if is_accepted else [one for one in found if _refuses(one)]
    blamed = []
    for part in new.unseen:
        if part.span in config.accept_spans:
            continue
        own = [
            dataclasses.replace(one, reason=f"span {part.span}: {one.reason}")
            for one in compare(old, part, config)
            if one.is_exceeded
        ]
        found += own
        if any(map(_refuses, own)):
            refused += filter(_refuses, own)
            blamed.append((part.span, part.version))
    is_window = len(new.manifest.window) > 1
    if refused and not blamed and (new.unseen or not is_window):
        # The window differs since it has its newest span.
        blamed = [newest]
    # First those that name a band and its two figures.
    refused.sort(key=lambda one: (one.reference is None, -ratio(one)))
    report = dataclasses.replace(report, findings=tuple(found), notes=tuple(notes))
    if refused:
        return dataclasses.replace(
            report,
            outcome="refused",
            refusals=tuple(one.reason for one in refused),
            refused_spans=tuple(f"{span}.{version}" for span, version in blamed),
        )
    is_exceeded = any(map(_refuses, found))
    return dataclasses.replace(report, outcome="accepted" if is_exceeded else "passed")


def _refuses(finding: Finding) -> bool:
    return finding.is_exceeded and finding.severity == "refuse"


def refusal_of(report: DriftReport, where: str, folders: Sequence[str]) -> str:
    """Return the line about a refused report.

    Args:
        report: refused.
        where: file that holds it; "" = none.
        folders: of the spans that were set aside for it. Without any, a person must
            change the data or the settings.
    """
    named = "; ".join(report.refusals[:_NUM_NAMED])
    rest = len(report.refusals) - _NUM_NAMED
    more = f"; and {rest} more" if rest > 0 else ""
    figures = f"; all figures are in {where}" if where else ""
    blamed = sorted({int(one.partition(".")[0]) for one in report.refused_spans}) or [report.span]
    named_spans = " and ".join(map(str, blamed))
    numbers = sorted({int(folder.rpartition("-")[2]) for folder in folders}) or blamed
    cure = (
        f"no model is trained on it, and later windows leave it out: repair its scenes and remove "
        f"{', '.join(folders)}, so that the next span takes them"
        if folders
        else "no model is trained on it: repair the scenes and build the span again"
    )
    return (
        f"{report.data}: span {named_spans} differs from the data of the model in service "
        f"({report.reference}): {named}{more}; {cure}, or, if the change is meant, set "
        f"drift.accept_spans=[{', '.join(map(str, numbers))}]{figures}"
    )


def set_refused_aside(
    report: DriftReport, data_root: str, followers: Sequence[str]
) -> tuple[str, ...]:
    """Set the refused spans of a report aside; return their folders.

    Args:
        report: refused.
        data_root: folder that holds the spans of its data set.
        followers: folders of the data sets whose spans of the same scenes are set aside
            with them.
    """
    at, found = labels.now(), []
    for name in report.refused_spans:
        span, _, version = name.partition(".")
        source = layout.version_dir(data_root, int(span), int(version))
        about = [(data_root, (int(span), int(version)), report.refusals)]
        for root in followers:
            why = f"its scenes are those of {report.data} {name}, which was refused"
            about += [(root, of, (why,)) for of in set_aside.of_same_scenes(source, root)]
        for root, (number, of_span), reasons in about:
            found.append(str(layout.version_dir(root, number, of_span).parent))
            # A span that was refused for its own data keeps those reasons.
            if (number, of_span) not in set_aside.left_out(root):
                record = SetAside(span=number, version=of_span, at=at, reasons=reasons)
                set_aside.add(root, record)
    return tuple(dict.fromkeys(found))


def _compare_all(
    new: NewData, served: ServedReference, config: DriftConfig
) -> tuple[list[Finding], list[str]]:
    found = compare(served.data.summary, new.reference.summary, config)
    with content_of(served.version_dir, published.CURE):
        by_tfdv, notes = compare_statistics(served.data, new.reference, new.eval_statistics, config)
    found += by_tfdv
    if served.data.summary.patch_size_px != new.manifest.patch_size_px:
        notes.append(
            f"patches have {new.manifest.patch_size_px} px, those of the reference "
            f"{served.data.summary.patch_size_px}: figures of patches differ for that alone"
        )
    if served.data.embeddings is not None and config.severity_of("embeddings") != "off":
        sample = _embed(new, served, served.data.embeddings, config)
        if isinstance(sample, str):
            notes.append(f"embeddings: not compared: {sample}")
        else:
            found += compare_embeddings(served.data.embeddings, sample, config)
    return found, notes


def _embed(
    new: NewData, served: ServedReference, kept: EmbeddingSample, config: DriftConfig
) -> EmbeddingSample | str:
    """Return embeddings under the encoder in service, or why there are none."""
    model = load_dual_encoder(served.version_dir)
    if reason := why_unfit(model, new.manifest):
        return reason
    try:
        split = Embedder(model).embed_split(
            new.manifest, new.eval_files, max_patches=config.num_embedded
        )
    except TerrapairError:
        # A damaged shard.
        raise
    except ValueError as error:
        return str(error)
    return sample_of(split, tuple(kept.embeddings), config.num_embedded)


def unseen_spans(
    read: Manifest, data_root: str, served: ServedReference, config: DriftConfig
) -> tuple[DataSummary, ...]:
    """Return the summaries of spans that the model in service was not trained on.

    Args:
        read: manifest of a window; that of a single version has none.
        data_root: folder of the spans.
        served: reference of the model in service.
        config: how many patches are read of each.
    """
    known = {entry.sha256 for entry in windows.of_card(published.read_card(served.version_dir))}
    known.add(served.data.summary.manifest_sha256)
    found = []
    for entry in read.window if len(read.window) > 1 else ():
        if "train" not in entry.splits or entry.sha256 in known:
            continue
        folder = windows.version_dir(data_root, entry)
        own = manifest_lib.read(folder)
        files = [str(path) for path in layout.shard_paths(folder, "train")]
        found.append(summarize(own, read_columns(own, files, config.num_patches)))
    return tuple(found)


def read_report(folder: str) -> DriftReport:
    """Return the report of a DriftCheck's `report` artifact."""
    return read_document(folder, REPORT_FILE, report_lib.from_json)


def read_new_reference(folder: str) -> DataReference:
    """Return the reference of a DriftCheck's `reference` artifact."""
    found = read_reference(folder, _CURE)
    if found is None:
        raise FileNotFoundError(f"{folder}: no reference of the data: {_CURE}")
    return found


@component
def DriftCheck(  # noqa: N802 - TFX names a component after its function
    examples: InputArtifact[standard_artifacts.Examples],
    statistics: InputArtifact[standard_artifacts.ExampleStatistics],
    inferred: InputArtifact[standard_artifacts.Schema],
    manifest: InputArtifact[standard_artifacts.HyperParameters],
    report: OutputArtifact[simple_artifacts.File],
    schema: OutputArtifact[standard_artifacts.Schema],
    reference: OutputArtifact[simple_artifacts.File],
    settings_json: Parameter[str],
    since: Parameter[str],
    code: Parameter[str],
) -> None:
    """Compare the data with the reference; succeed whatever the outcome is.

    Args:
        examples: output of ImportExampleGen.
        statistics: output of StatisticsGen.
        inferred: output of SchemaGen: the schema of these data.
        manifest: output of DataManifest.
        report: receives `drift.json`.
        schema: receives the schema of the reference, or `inferred` without one.
        reference: receives what is kept of these data with a model.
        settings_json: see `create_drift_check`.
        since: identifier of what is in service; TFX's cache does not see that.
        code: fingerprint of the code, which TFX's cache does not see either.
    """
    del since, code
    given = json.loads(settings_json)
    config = settings.from_dict(DriftConfig, given["drift"], "drift")
    read = read_manifest(manifest.uri)
    own_schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(inferred.uri))
    columns = read_columns(read, split_files(examples, "train"), config.num_patches)
    new = NewData(
        name=given["name"],
        manifest=read,
        eval_files=split_files(examples, "eval"),
        reference=DataReference(
            summary=summarize(read, columns),
            statistics=_statistics(statistics, "train"),
            schema=schema_text(own_schema),
        ),
        eval_statistics=_statistics(statistics, "eval"),
    )
    served = find_served(given["served_dir"])
    if served is not None:
        unseen = unseen_spans(read, given["data_root"], served, config)
        new = dataclasses.replace(new, unseen=unseen)
    found = judge(new, served, config)
    expected = new.reference if served is None else served.data
    with content_of("" if served is None else served.version_dir, published.CURE):
        expected_schema = schema_text(parse_schema(expected.schema))
    _write(schema.uri, {schema_gen.DEFAULT_FILE_NAME: expected_schema.encode()})
    _write(reference.uri, new.reference.files())
    _write(report.uri, {REPORT_FILE: found.to_json().encode()})


@component
def DriftGate(  # noqa: N802
    report: InputArtifact[simple_artifacts.File],
    data_root: Parameter[str],
    followers: Parameter[str],
) -> None:
    """Set refused spans aside, and fail.

    Args:
        report: output of DriftCheck.
        data_root: folder that holds the spans.
        followers: see `DriftSettings`, as a JSON list.

    Raises:
        RefusedError: the data are refused; the message has the reasons, what to do and
            the path of the report.
    """
    found = read_report(report.uri)
    if found.outcome == "refused":
        folders = set_refused_aside(found, data_root, json.loads(followers))
        where = os.path.join(report.uri, REPORT_FILE)
        raise RefusedError(refusal_of(found, where, folders), "data_drift")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """What a check needs to know besides its inputs.

    Attributes:
        served_dir: folder of the published versions of the model that is trained on the
            data; may be an object store.
        drift: limits and severities.
        since: what is in service, by `labels.state_of`; the same text lets TFX's cache
            answer.
        followers: folders of other data sets. Their spans of the same scenes are set
            aside with a refused span: only the pairs are compared under the encoder, so
            labels of scenes that it does not know would pass.
    """

    served_dir: str
    drift: DriftConfig
    since: str
    followers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspected:
    """The components of one data set whose outputs are compared.

    Attributes:
        examples: ImportExampleGen.
        statistics: its StatisticsGen.
        schema: its SchemaGen.
        manifest: its DataManifest.
    """

    examples: BaseComponent
    statistics: BaseComponent
    schema: BaseComponent
    manifest: BaseComponent


def create_drift_check(
    name: str, data_root: str, data: Inspected, given: DriftSettings
) -> tuple[BaseComponent, BaseComponent]:
    """Return (DriftCheck, DriftGate) of one data set.

    Every training on the data must wait for the gate.

    Args:
        name: suffix of the component ids, "pairs" or the task's name.
        data_root: folder that holds the spans.
        data: components of the data set.
        given: settings.
    """
    values = {
        "name": name,
        "data_root": data_root,
        "served_dir": given.served_dir,
        "drift": settings.to_dict(given.drift),
    }
    check = DriftCheck(
        examples=data.examples.outputs["examples"],
        statistics=data.statistics.outputs["statistics"],
        inferred=data.schema.outputs["schema"],
        manifest=data.manifest.outputs["manifest"],
        settings_json=json.dumps(values, sort_keys=True),
        since=given.since,
        code=source_fingerprint(SOURCES),
    ).with_id(f"DriftCheck-{name}")
    gate = DriftGate(
        report=check.outputs["report"],
        data_root=data_root,
        followers=json.dumps(given.followers),
    ).with_id(f"DriftGate-{name}")
    return check, gate


def _statistics(artifact: standard_artifacts.ExampleStatistics, split: str) -> bytes:
    return load_statistics(artifact, split).proto().SerializeToString(deterministic=True)


def _write(folder: str, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        with staged(locate(folder) / name) as file:
            file.write_bytes(content)
