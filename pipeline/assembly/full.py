"""The whole TFX pipeline of a run: data, pretraining, then one segmentation per task.

RunConfig -> TFX Pipeline. A run whose tasks start from a published encoder has neither
pairs nor pretraining. The local and the Kubeflow runner run the same pipeline.
"""

from __future__ import annotations

from tfx.orchestration.pipeline import Pipeline

from beam_jobs.contracts import windows
from beam_jobs.contracts.object_store import beam_plugins
from beam_jobs.contracts.published import ENCODER_NAME
from beam_jobs.runner import local_arguments
from components.shard_gen import Spans
from models.publishing import labels as labels_lib
from pipeline.assembly.distillation import create_distillation
from pipeline.assembly.labels import create_labels
from pipeline.assembly.pretraining import create_pairs, create_pretraining
from pipeline.assembly.segmentation import SegmentationComponents, create_segmentation
from pipeline.config import RunConfig
from pipeline.data_build import newest_trained
from pipeline.service import attempts

_NO_PACKAGE = "--sdk_container_image=none"
"""TFX packs its own source for the workers of every Beam job, which takes 1 s of CPU,
unless the options say what the workers have. The local runner's workers have what this
process has, and ignore the image.
Source: `make_beam_dependency_flags` in tfx/utils/dependency_utils.py."""


def create_pipeline(config: RunConfig, run_id: str = "") -> Pipeline:
    """Return the pipeline of a run; it does not name ML Metadata, which runners open.

    Args:
        config: the run.
        run_id: id that no other run of this root has. "": the pipeline is compiled
            only, so nothing is looked up.
    """

    def in_service(name: str) -> str:
        # A pipeline is compiled where its serving folder may be out of reach.
        return labels_lib.state_of(f"{config.serving_dir}/{name}", run_id) if run_id else ""

    def spans_of(data_root: str) -> Spans | None:
        if config.window is None:
            return None
        if not run_id:
            # As above: the executor looks them up.
            return Spans(config=config.window, accepted=config.drift.accept_spans)
        return Spans(config=config.window, window=windows.resolve(data_root, config.window))

    encoder_since = in_service(ENCODER_NAME) if config.pretrain is not None else ""
    since = {task.name: in_service(task.name) for task in config.tasks}
    pairs = create_pairs(
        config, encoder_since, spans_of(config.pairs_dir) if config.needs_pairs else None
    )
    labels = {
        task.name: create_labels(
            config, task, pairs, since[task.name], spans_of(config.task_dir(task))
        )
        for task in config.tasks
    }
    restart = ""
    if config.warm_start and run_id:
        newest = {
            name: "{}.{}".format(*version) for name, version in newest_trained(config).items()
        }
        restart = attempts.restart(attempts.read_attempts(config.root), newest)
    pretraining = create_pretraining(config, pairs, labels, encoder_since, restart)
    components = [
        item
        for part in (pairs, *labels.values(), pretraining)
        if part is not None
        for item in part.as_list()
    ]
    segmentations: dict[str, SegmentationComponents] = {}
    for task in config.tasks:
        student = create_distillation(
            config, task, pairs, labels[task.name], pretraining, segmentations
        )
        segmentations[task.name] = create_segmentation(
            config, task, labels[task.name], pretraining, student, since[task.name]
        )
        components += [*([student] if student else []), *segmentations[task.name].as_list()]
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.artifacts_dir,
        components=components,
        enable_cache=True,
        beam_pipeline_args=[
            *local_arguments(config.num_beam_workers),
            *beam_plugins(config.root),
            _NO_PACKAGE,
        ],
    )
