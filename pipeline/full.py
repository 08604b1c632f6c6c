"""The whole TFX pipeline of a run: pretraining, then one segmentation per task.

RunConfig -> tfx Pipeline. Both runners, local and Kubeflow, run this same pipeline.
"""

from __future__ import annotations

from tfx import v1 as tfx

from beam_jobs.runner import local_arguments
from pipeline.config import RunConfig
from pipeline.pretraining import create_pretraining
from pipeline.segmentation import create_segmentation


def create_pipeline(config: RunConfig, metadata: object | None = None) -> tfx.dsl.Pipeline:
    """Joins the parts.

    Args:
        config: the run.
        metadata: connection config of ML Metadata for local runs; Kubeflow brings its own.
    """
    pretraining = create_pretraining(config)
    components = pretraining.as_list()
    for task in config.tasks:
        segmentation = create_segmentation(config, task, pretraining)
        # Before pretraining already: an overlap found after it would have cost its hours.
        pretraining.trainer.add_upstream_node(segmentation.gate)
        components += segmentation.as_list()
    return tfx.dsl.Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.artifacts_dir,
        components=components,
        enable_cache=True,
        metadata_connection_config=metadata,
        beam_pipeline_args=[*local_arguments(config.num_beam_workers)],
    )
