"""DataConfig: how the data jobs of a run are done.

The jobs themselves, and what they read, are in `data_build.py`: catalogs, pairs and
labels have settings of their own in RunConfig.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data jobs of a run: one for the pairs, and one for the labels of each task.

    Attributes:
        build: the compiled pipeline, and a run that is done node by node, begin with
            these jobs. False = the shards are in the root already.
        new_span: begin a new span of the scenes that no earlier span used; a run
            without such scenes ends as "nothing new". False = build the newest span
            again if its input has changed.
        beam_options: options of Beam as on its command line, such as
            `--runner=FlinkRunner`; empty = the local runner, in the process of the job.
        spool: folder for patches between cutting and sharding; all workers must see
            it. Empty = beside the shards.
    """

    build: bool = True
    new_span: bool = False
    beam_options: tuple[str, ...] = ()
    spool: str = ""
