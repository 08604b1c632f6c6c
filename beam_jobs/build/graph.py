"""The Beam graph of a build: catalogs -> shards, rejected records and one summary.

It is the same for every runner. docs/runners.md shows it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import apache_beam as beam

from beam_jobs.build import duplicates, spans, writers
from beam_jobs.build.transforms import (
    REJECTED,
    CutPatches,
    InspectScenes,
    MakePairs,
    labelled_alone,
)
from beam_jobs.catalogs import catalog
from beam_jobs.config import BuildConfig
from beam_jobs.engines.claims import Claim


def expand(
    pipeline: beam.Pipeline,
    config: BuildConfig,
    catalog_paths: Sequence[str | os.PathLike[str]],
    claim: Claim,
    spool_dir: str,
    earlier: Sequence[str | os.PathLike[str]],
) -> None:
    """Add the graph of a build to `pipeline`.

    Args:
        pipeline: of any runner.
        config: of the build.
        catalog_paths: STAC catalogs to read.
        claim: of this run on the building directory, which receives shards, rejected
            records and the summary.
        spool_dir: receives encoded patches in between.
        earlier: `scenes.txt` files of earlier spans, whose scenes are left out.
    """
    building_dir = claim.folder
    items = (
        pipeline
        | "Catalogs" >> beam.Create([str(path) for path in catalog_paths])
        | "ReadItems"
        >> beam.FlatMap(lambda path: [(path, item) for item in catalog.read_items(path)])
    )
    refused = []
    if earlier:
        parted = items | "LeaveOutKnown" >> spans.LeaveOutKnown(tuple(map(str, earlier)), REJECTED)
        items, refused = parted.new, [parted[REJECTED]]
    inspected = items | "InspectScenes" >> InspectScenes(config)
    paired = inspected.scenes | "MakePairs" >> MakePairs(config, alone=labelled_alone(config))
    paired["pairs"] | "WriteScenes" >> spans.WriteScenes(building_dir)
    cut = paired["pairs"] | "CutPatches" >> CutPatches(config, spool_dir, claim=claim)
    judged = (
        cut
        | "Refs" >> beam.FlatMap(lambda result: result.refs)
        | "RejectDuplicates" >> duplicates.RejectDuplicates(config)
    )
    doubled = judged[duplicates.DUPLICATE]
    rejected = (
        *refused,
        inspected.rejected,
        paired[REJECTED],
        cut | "CutRejections" >> beam.FlatMap(lambda result: result.rejections),
        doubled | "DuplicateRejections" >> beam.FlatMap(lambda result: result.rejections),
    ) | "Rejections" >> beam.Flatten()
    summaries = (
        # Merge each separately: a Flatten of the results would keep every histogram in
        # memory.
        cut | "MergeSums" >> beam.CombineGlobally(writers.MergeSummaries()),
        doubled | "MergeDuplicates" >> beam.CombineGlobally(writers.MergeSummaries()),
        rejected | "WriteRejected" >> writers.WriteRejected(building_dir),
        judged.refs | "WriteShards" >> writers.WriteShards(building_dir, config.shards, claim),
        paired["pairs"] | "Sources" >> beam.Map(writers.count_sources),
    )
    (
        summaries
        | "FlattenSummaries" >> beam.Flatten()
        | "MergeAll" >> beam.CombineGlobally(writers.MergeSummaries())
        | "WriteSummary" >> beam.Map(writers.write_summary, building_dir, claim)
    )
