"""The audit as components: disjoint places pass, an overlap fails in the gate."""

import pytest
from tfx.types import standard_artifacts

from beam_jobs.contracts import settings, windows
from beam_jobs.errors import DataError
from components import overlap_audit
from tests.data.shards import make_shards, make_spans


def examples_of(span, version):
    artifact = standard_artifacts.Examples()
    artifact.uri = "examples-uri"
    artifact.set_string_custom_property("span", str(span))
    artifact.set_int_custom_property("version", version)
    return artifact


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Roots of pairs and labels; labels of version 1 overlap the pairs, of version 2 do not."""
    root = tmp_path_factory.mktemp("data")
    make_shards.make_version(root / "pairs", num_patches=6, size_px=16, span=4)
    for version, north in ((1, 0.0), (2, 3.0)):
        make_shards.make_version(
            root / "flood",
            kind="labels",
            label_schema="water",
            num_patches=6,
            size_px=16,
            version=version,
            seed=version,
            north=north,
        )
    return root


def run_audit(roots, version, folder, buffer_m=0.0, seen=()):
    """Report of the labels' version against the run's pairs, or against `seen` alone."""
    report = overlap_audit.OverlapReport()
    report.uri = str(folder)
    config = overlap_audit.AuditConfig(
        pairs_root="" if seen else str(roots / "pairs"),
        labels_root=str(roots / "flood"),
        buffer_m=buffer_m,
        seen=seen,
    )
    overlap_audit.OverlapAudit.test_call(
        pairs=None if seen else examples_of(4, 1),
        labels=examples_of(1, version),
        report=report,
        config=settings.canonical_json(config),
        code="x",
    )
    return report


def test_disjoint_places_pass_and_the_report_tells_what_was_compared(roots, tmp_path):
    report = run_audit(roots, 2, tmp_path)
    found = overlap_audit.read_report(report.uri)
    assert (found.num_pair_patches, found.num_label_patches, found.num_overlaps) == (6, 4, 0)
    assert found.pairs == (f"{roots}/pairs/span-4/version-1",)
    assert found.labels == (f"{roots}/flood/span-1/version-2",)
    assert (
        found.verdict == "6 unlabeled train patches, 4 labelled eval and test patches: no overlap"
    )
    overlap_audit.OverlapGate.test_call(report=report)


def test_an_overlap_is_reported_whole_and_fails_in_the_gate(roots, tmp_path):
    report = run_audit(roots, 1, tmp_path)
    found = overlap_audit.read_report(report.uri)
    # `make_shards` puts the patch of one index at the same place in every split: two
    # places are in eval and test too.
    assert found.num_leaking_pair_patches == 2
    assert found.num_footprint_overlaps == len(found.overlaps) == 4
    with pytest.raises(
        DataError, match=r"2 of 6 unlabeled train patches overlap labelled eval and test"
    ) as caught:
        overlap_audit.OverlapGate.test_call(report=report)
    assert str(tmp_path / "overlaps.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_buffer_reaches_the_audit(roots, tmp_path):
    found = overlap_audit.read_report(run_audit(roots, 2, tmp_path, buffer_m=400_000.0).uri)
    assert found.buffer_m == 400_000.0
    assert found.num_footprint_overlaps == 6 * 4


@pytest.mark.parametrize(("version", "num_leaking"), [(1, 2), (2, 0)])
def test_pairs_of_a_published_encoder_are_audited_without_pairs_of_the_run(
    roots, tmp_path, version, num_leaking
):
    seen = (f"{roots}/pairs/span-4/version-1",)
    found = overlap_audit.read_report(run_audit(roots, version, tmp_path, seen=seen).uri)
    assert (found.pairs, found.num_pair_patches) == (seen, 6)
    assert found.num_leaking_pair_patches == num_leaking


def test_a_window_compares_train_of_its_newest_spans_with_eval_and_test_of_all(tmp_path):
    for span in (1, 2, 3):
        make_spans.make_span(tmp_path / "pairs", span)
        make_spans.make_span(
            tmp_path / "flood", span, kind="labels", label_schema="water", north=50.0 + span
        )
    config = overlap_audit.AuditConfig(
        pairs_root=str(tmp_path / "pairs"), labels_root=str(tmp_path / "flood"), buffer_m=0.0
    )

    def examples(root):
        artifact = examples_of(3, 1)
        window = windows.resolve(tmp_path / root, windows.WindowConfig(last=2))
        artifact.set_string_custom_property("window", windows.to_json(window))
        return artifact

    found = overlap_audit.audit_examples(examples("pairs"), examples("flood"), config)
    assert found.pairs == tuple(f"{tmp_path}/pairs/span-{span}/version-1" for span in (2, 3))
    assert found.labels == tuple(f"{tmp_path}/flood/span-{span}/version-1" for span in (1, 2, 3))
    assert (found.num_pair_patches, found.num_label_patches) == (6 + 4, 3 * 4)
