"""DriftCheck and DriftGate on TFX's artifacts, with a reference in a serving folder."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.experimental import simple_artifacts
from tfx_bsl.coders import example_coder

from beam_jobs.contracts import layout, manifest, set_aside, settings, windows
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.errors import RefusedError
from components import blessing, drift_check
from components.shard_readers import statistics_options
from components.watched_statistics import parse_schema
from models.drift.comparison import compare
from models.drift.config import DriftConfig
from models.drift.embedding_drift import sample_of
from models.drift.patch_columns import read_columns
from models.drift.reference import find_served, published_files
from models.drift.summary import summarize
from models.health.embeddings import Embedder
from models.publishing.publication import Approval, publish
from tests.data.networks import make_encoder
from tests.data.runs.make_artifacts import artifact_of, import_version
from tests.data.shards import make_poison, make_shards

CONFIG = DriftConfig(num_embedded=16)
BANDS = ("B2", "B3", "B4", "B8", "B11")


def statistics_of(version, split):
    batch = [
        record.numpy()
        for path in layout.shard_paths(version, split)
        for record in tf.data.TFRecordDataset(str(path), compression_type="GZIP")
    ]
    decoded = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(batch)
    return stats_impl.generate_statistics_in_memory(decoded, statistics_options())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Versions of pairs: span 1, an equal span 2, span 3 with doubled decibels, 4 of one band."""
    root = tmp_path_factory.mktemp("data")
    found = {}
    for span in (1, 2):
        found[span] = make_shards.make_version(
            root / "pairs", num_patches=48, size_px=16, s2_bands=BANDS, seed=span, span=span
        )
    found[3] = make_poison.poison_version(found[2], root / "pairs", 3, "doubled")
    found[4] = make_shards.make_version(
        root / "pairs", num_patches=8, size_px=16, s1_bands=("VV",), s2_bands=BANDS, span=4
    )
    return found


def run_check(version, root, served_dir, config=CONFIG):
    """Outputs of the component for a version."""
    examples, read = import_version(version, root)
    statistics = artifact_of(standard_artifacts.ExampleStatistics, root / "statistics")
    statistics.split_names = artifact_utils.encode_split_names(["train", "eval"])
    for split in ("train", "eval"):
        folder = root / "statistics" / f"Split-{split}"
        folder.mkdir(parents=True)
        found = statistics_of(version, split)
        (folder / "FeatureStats.pb").write_bytes(found.SerializeToString())
        if split == "train":
            (root / "inferred").mkdir()
            schema = tfdv.infer_schema(found, infer_feature_shape=True)
            tfdv.write_schema_text(schema, str(root / "inferred" / "schema.pbtxt"))
    outputs = {
        "report": artifact_of(simple_artifacts.File, root / "report"),
        "schema": artifact_of(standard_artifacts.Schema, root / "schema"),
        "reference": artifact_of(simple_artifacts.File, root / "reference"),
    }
    values = {
        "name": "pairs",
        "data_root": str(version.parents[1]),
        "served_dir": str(served_dir),
        "drift": settings.to_dict(config),
    }
    drift_check.DriftCheck.test_call(
        examples=examples,
        statistics=statistics,
        inferred=artifact_of(standard_artifacts.Schema, root / "inferred"),
        manifest=read,
        **outputs,
        settings_json=json.dumps(values),
        since="s0",
        code="x",
    )
    return SimpleNamespace(**outputs, root=root)


def open_gate(checked, followers=()):
    """Ask the gate, which writes its records below `<root of the check>/data`."""
    drift_check.DriftGate.test_call(
        report=checked.report,
        data_root=f"{checked.root}/data",
        followers=json.dumps(followers),
    )


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    """The check of span 1 with an empty serving folder."""
    root = tmp_path_factory.mktemp("first")
    return run_check(data[1], root, root / "serving" / "encoder")


@pytest.fixture(scope="module")
def served(data, first, tmp_path_factory):
    """Serving folder of an encoder of span 1 with its reference, published by a blessing."""
    root = tmp_path_factory.mktemp("served")
    read = manifest.read(data[1])
    model = make_encoder.make_dual_encoder(read)
    folder = make_encoder.publish_keras_half(model, root / "model")
    (root / "model" / "saved_model.pb").write_text("graph")
    split = Embedder(model).embed_split(
        read, [str(path) for path in layout.shard_paths(data[1], "eval")]
    )
    kept = dataclasses.replace(
        drift_check.read_new_reference(first.reference.uri),
        embeddings=sample_of(split, ("s1", "s2"), 16),
    )
    judged = artifact_of(standard_artifacts.ModelBlessing, root / "blessing")
    approval = Approval(reason="first", files=published_files(kept))
    blessing.write_blessing(judged, standard_artifacts.Model(), True, approval)
    publish(folder, str(root / "encoder"), blessing.read_approval(judged.uri))
    return root / "encoder"


def test_without_a_reference_the_first_data_pass_and_say_so(data, first):
    found = drift_check.read_report(first.report.uri)
    assert (found.outcome, found.reference, found.score) == ("no_reference", "", 0.0)
    assert found.notes == (
        "no model in service has a reference of its data: nothing to compare with",
    )
    open_gate(first)
    # ExampleValidator then uses the schema of these data themselves.
    schema = parse_schema((first.root / "schema" / "schema.pbtxt").read_text())
    shapes = {one.name: one.shape.dim[0].size for one in schema.feature if one.HasField("shape")}
    assert (shapes["s1_mean"], shapes["s2_mean"]) == (2, len(BANDS))


def test_an_equal_span_passes_with_figures_of_bands_tfdv_and_embeddings(data, served, tmp_path):
    checked = run_check(data[2], tmp_path, served)
    found = drift_check.read_report(checked.report.uri)
    assert (found.outcome, found.reference_span) == ("passed", "1.1"), found.refusals
    assert found.reference == str(served / "1")
    assert 0.0 < found.score < 1.0
    rules = {one.rule for one in found.findings}
    assert rules >= {"s1_mean", "s2_spread", "no_data", "time_gap", "embeddings"}
    assert {one.about for one in found.findings if one.rule == "embeddings"} == {"s1", "s2"}
    # TFDV has twelve scenes, too few for its comparators; its schema is that of span 1.
    assert [note for note in found.notes if "12 scenes are too few" in note]
    open_gate(checked)


def test_the_schema_of_other_bands_is_that_of_the_model_in_service(data, served, tmp_path):
    checked = run_check(data[4], tmp_path, served)
    schema = parse_schema((checked.root / "schema" / "schema.pbtxt").read_text())
    (s1_mean,) = [one for one in schema.feature if one.name == "s1_mean"]
    assert s1_mean.shape.dim[0].size == 2
    with pytest.raises(RefusedError) as caught:
        open_gate(checked)
    line = str(caught.value)
    assert line.startswith(
        f"pairs: span 4 differs from the data of the model in service ({served}/1): it cannot be "
        f"compared with that of {served}/1: the reference has the bands of s1 VV, VH, the new data "
        "VV; "
    )
    assert "set drift.accept_spans=[4]" in line
    assert "\n" not in line
    # The settings are at fault, not the scenes: no later span would be better.
    assert not (tmp_path / "data").exists()
    assert "build the span again" in line


def test_the_data_of_the_model_in_service_are_not_compared_with_themselves(data, served, tmp_path):
    checked = run_check(data[1], tmp_path, served)
    assert drift_check.read_report(checked.report.uri).outcome == "same_data"
    open_gate(checked)


def test_doubled_decibels_stop_at_the_gate_with_band_figures_rule_and_report(
    data, served, tmp_path
):
    checked = run_check(data[3], tmp_path, served)
    with pytest.raises(RefusedError) as caught:
        open_gate(checked)
    assert caught.value.exit_code == ExitCode.REFUSED
    assert caught.value.reason == "data_drift"
    line = str(caught.value)
    assert f"all figures are in {checked.report.uri}/drift.json" in line
    assert "no model is trained on it, and later windows leave it out" in line
    assert f"remove {tmp_path}/data/span-3, so that the next span takes them" in line
    found = drift_check.read_report(checked.report.uri)
    old, new = (
        {one.band: one for one in manifest.read(data[span]).s1_statistics} for span in (1, 3)
    )
    (one,) = [one for one in found.findings if (one.rule, one.about) == ("s1_mean", "VH")]
    assert (one.reference, one.found) == (old["VH"].mean, new["VH"].mean)
    assert one.is_exceeded
    assert one.reason in found.refusals
    # The encoder in service sees it too.
    assert any("s1: the embeddings of" in reason for reason in found.refusals)


def test_an_accepted_span_is_compared_and_passes(data, served, tmp_path):
    config = dataclasses.replace(CONFIG, accept_spans=(3, 4), severity={"embeddings": "off"})
    for span, has_findings in ((3, True), (4, False)):
        checked = run_check(data[span], tmp_path / str(span), served, config)
        found = drift_check.read_report(checked.report.uri)
        assert found.outcome == "accepted"
        assert bool(found.findings) == has_findings
        assert bool(found.warnings) == has_findings
        open_gate(checked)
        # The next model's reference is this span.
        assert drift_check.read_new_reference(checked.reference.uri).summary.span == span


def test_a_refused_model_carries_no_files(first, tmp_path):
    judged = artifact_of(standard_artifacts.ModelBlessing, tmp_path / "blessing")
    files = published_files(drift_check.read_new_reference(first.reference.uri))
    approval = Approval(reason="worse", files=files)
    blessing.write_blessing(judged, standard_artifacts.Model(), False, approval)
    read = blessing.read_approval(judged.uri)
    assert (read.reason, read.files) == ("worse", {})


def test_a_poisoned_span_is_found_among_the_good_ones_of_a_window(data, served):
    root = str(data[1].parents[1])
    entries = windows.resolve(root, windows.WindowConfig())
    window = tuple(one for one in entries if one.span in (1, 2, 3))
    # The spans of these fixtures have other seeds, so they cannot be merged; the check
    # needs the list of the spans only.
    read = dataclasses.replace(manifest.read(data[3]), window=window)
    kept = find_served(served)
    parts = drift_check.unseen_spans(read, root, kept, CONFIG)
    # The encoder in service was trained on span 1.
    assert [part.span for part in parts] == [2, 3]
    good, bad = (
        {one.rule for one in compare(kept.data.summary, part, CONFIG) if one.is_exceeded}
        for part in parts
    )
    assert good == set()
    assert "s1_mean" in bad
    assert drift_check.unseen_spans(manifest.read(data[3]), root, kept, CONFIG) == ()


def judged_window(data, served, spans, unseen, **config):
    """Report about a window whose own figures are those of the first of `spans`."""
    entries = windows.resolve(data[1].parents[1], windows.WindowConfig())
    window = tuple(one for one in entries if one.span in spans)
    of_span = {span: manifest.read(data[span]) for span in spans}
    read = dataclasses.replace(of_span[spans[-1]], window=window)
    kept = find_served(served)
    summaries = {
        span: summarize(
            of_span[span],
            read_columns(of_span[span], [*map(str, layout.shard_paths(data[span], "train"))], 64),
        )
        for span in spans
    }
    new = drift_check.NewData(
        name="pairs",
        manifest=read,
        eval_files=(),
        reference=dataclasses.replace(kept.data, summary=summaries[spans[0]]),
        eval_statistics=kept.data.statistics,
        unseen=[summaries[span] for span in unseen],
    )
    off = {"embeddings": "off", "statistics": "off", "skew": "off", "schema": "off"}
    return drift_check.judge(new, kept, DriftConfig(severity=off, **config))


@pytest.mark.parametrize(
    ("spans", "unseen", "accept", "outcome", "refused"),
    [
        # Span 3 has doubled decibels. It is blamed also when it is not the newest.
        ((2, 3), (3,), (), "refused", ("3.1",)),
        ((2, 3, 4), (3,), (), "refused", ("3.1",)),
        # The window as a whole differs, and each unseen span alone passes.
        ((3, 2), (2,), (), "refused", ("2.1",)),
        # The same window, and nothing in it is new: a person must look at the settings.
        ((3, 2), (), (), "refused", ()),
        # An accepted span moves the window, for which no other span is blamed.
        ((3, 2), (3, 2), (3,), "accepted", ()),
        # It does not hide the fault of another.
        ((2, 3), (2, 3), (2,), "refused", ("3.1",)),
    ],
)
def test_the_spans_that_are_refused_are_those_at_fault(
    data, served, spans, unseen, accept, outcome, refused
):
    found = judged_window(data, served, spans, unseen, accept_spans=accept)
    assert (found.outcome, found.refused_spans) == (outcome, refused)
    assert found.score > 1.0


def test_the_gate_sets_a_refused_span_aside_with_the_labels_of_its_scenes(data, served, tmp_path):
    checked = run_check(data[3], tmp_path, served)
    pairs, flood = tmp_path / "data", tmp_path / "flood"
    for root, scenes in ((pairs, {3: "S1_c\n"}), (flood, {1: "S1_b\n", 2: "S1_c\nS1_d\n"})):
        for span, lines in scenes.items():
            folder = layout.version_dir(root, span, 1)
            folder.mkdir(parents=True)
            (folder / layout.MANIFEST_NAME).write_text("{}")
            (folder / layout.SCENES_NAME).write_text(lines)
    with pytest.raises(RefusedError) as caught:
        open_gate(checked, [str(flood)])
    line = str(caught.value)
    assert f"remove {pairs}/span-3, {flood}/span-2, so that the next span takes them" in line
    assert "set drift.accept_spans=[2, 3]" in line
    (record,), (other,) = set_aside.read(pairs), set_aside.read(flood)
    assert record.name == "3.1"
    assert record.reasons == drift_check.read_report(checked.report.uri).refusals
    assert (other.name, other.at) == ("2.1", record.at)
    assert other.reasons == ("its scenes are those of pairs 3.1, which was refused",)
    # Labels that were refused for their own data keep that reason.
    set_aside.add(flood, dataclasses.replace(other, reasons=("class shares",)))
    with pytest.raises(RefusedError):
        open_gate(checked, [str(flood)])
    assert set_aside.read(flood)[0].reasons == ("class shares",)
