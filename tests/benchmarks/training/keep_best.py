"""Measure what `keep: best` gives over `keep: last`, on the tasks of the demo.

Run it with `python -m tests.benchmarks.training.keep_best`. It is not part of `make bench`,
because it trains for a quarter of an hour. The data come from the simulator.

Evaluations do not change the steps of a training. So each training is run once: the
model of its last step is scored, then the model of its best step. Both get the
threshold that is best for them on the eval split. The score is the mean IoU.
TERRAPAIR_KEEP_ROOT names a folder that keeps data, encoder and scores; a second run
skips what is there.
"""

import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from tests.data.runs.repository import REPOSITORY

NUM_SEEDS = 3
CONFIG = REPOSITORY / "pipeline/configs/demo.yaml"


def measure() -> dict[str, object]:
    """Return the mean IoU by task, step and split, and the gains of the best step."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "0")
    bench = _Bench(Path(os.environ.get("TERRAPAIR_KEEP_ROOT") or tempfile.mkdtemp()))
    found: dict[str, object] = {}
    for task in bench.run.tasks:
        rows = [bench.train(task, seed) for seed in range(NUM_SEEDS)]
        scores = {
            f"{keep}_{split}": [row[keep][split] for row in rows]
            for keep in ("last", "best")
            for split in ("eval", "test")
        }
        scores |= {
            f"gain_{split}": [
                round(best - last, 4)
                for best, last in zip(scores[f"best_{split}"], scores[f"last_{split}"], strict=True)
            ]
            for split in ("eval", "test")
        }
        found[task.name] = {
            "best_step": [row["best_step"] for row in rows],
            **scores,
            "mean": {name: round(statistics.mean(values), 4) for name, values in scores.items()},
        }
    return found


class _Bench:
    """Data, encoder and scores below one folder; each is made once."""

    def __init__(self, root: Path) -> None:
        from models import pretrain
        from models.training.scaffold import Folders
        from pipeline.config import load_run_config
        from pipeline.data_build import build_data

        self.root = root
        self.run = load_run_config(CONFIG, [f"root={root}"], {})
        self.built = build_data(
            self.run, lambda name: contextlib.nullcontext(), lambda done, total: None
        )
        self.encoder = str(root / "encoder")
        if not (root / "encoder/assets.extra/model_card.json").exists():
            pretrain.run_pretraining(
                self.run.pretrain,
                _shards(self.built.pairs),
                Folders(output=self.encoder, logs=f"{self.encoder}-logs"),
                is_served=False,
            )

    def train(self, task, seed: int) -> dict[str, object]:
        """Return the mean IoU of the last and of the best step of one training."""
        import keras

        from models import segment
        from models.training import scaffold
        from models.training.scaffold import Folders

        kept = self.root / f"{task.name}-{seed}.json"
        if kept.exists():
            return json.loads(kept.read_text())
        keras.backend.clear_session()
        config = dataclasses.replace(task.segment, keep="best", seed=seed)
        version = self.built.tasks[task.name]
        sources = segment.SegmenterSources(encoder=self.encoder)
        recipe = _make_recipe(config, _shards(version), sources)
        recipe.test_files = _files(version, "test")
        logs = f"{self.root}/{task.name}-{seed}-logs"
        scaffold.fit(recipe, Folders(output="", logs=logs))
        found = {
            "last": recipe.last,
            "best": recipe.scores(),
            "best_step": recipe.evaluations.kept_step,
            "history": recipe.evaluations.describe()["history"],
        }
        kept.write_text(json.dumps(found))
        print(task.name, seed, found, file=sys.stderr, flush=True)
        return found


def _make_recipe(*arguments):
    """Return a SegmentRecipe that scores the last step before the best one is kept."""
    from models import segment
    from models.scores.calibration import at_best_threshold, at_threshold
    from models.scores.summary import summarize

    class Watched(segment.SegmentRecipe):
        test_files: tuple[str, ...]

        def build(self, strategy):
            fit = super().build(strategy)
            self.evaluations, conclude = fit.evaluations, fit.evaluations.conclude

            def score_then_conclude(*arguments):
                self.last = self.scores()
                conclude(*arguments)

            self.evaluations.conclude = score_then_conclude
            return fit

        def scores(self) -> dict[str, float]:
            """Return split -> mean IoU of the model as it is now."""
            scorer = self._scorer_of(self._as_published())
            on_eval, on_test = scorer.score(self.shards.eval), scorer.score(self.test_files)
            on_eval = at_best_threshold(on_eval)
            if on_eval.threshold is not None:
                on_test = at_threshold(on_test, on_eval.threshold)
            both = {"eval": on_eval, "test": on_test}
            return {name: round(summarize(one)["mean_iou"], 4) for name, one in both.items()}

    return Watched(*arguments)


def _files(version, split: str) -> tuple[str, ...]:
    from beam_jobs.contracts import layout

    return tuple(str(path) for path in layout.shard_paths(version, split))


def _shards(version):
    from beam_jobs.contracts import manifest
    from models.training.scaffold import Shards

    found = manifest.read(version)
    return Shards(manifest=found, train=_files(version, "train"), eval=_files(version, "eval"))


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
