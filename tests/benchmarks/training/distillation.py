"""Measure how much a Sentinel-2 teacher helps a Sentinel-1 student that has few labels.

Run it with `python -m tests.benchmarks.training.distillation`. It is not part of `make bench`,
because it trains for a quarter of an hour. The data come from the simulator.

Every seed draws its own labels: a small share of the train patches. All models start
from one pretrained, frozen encoder. These models are trained:

- teacher: Sentinel-2, on the labels;
- labels: a student on the labels alone;
- labels_as_many_updates: the same with as many updates as a distilled student has in
  all;
- distilled: a student that first learns from the teacher on all pairs, with a higher
  weight on class edges;
- distilled_edges_alike: the same with equal weights.

The score is the mean IoU on the test split. TERRAPAIR_DISTILL_ROOT names a folder that
keeps data and models; a second run skips what is there.
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
LABEL_FRACTION = 0.05
NUM_STEPS = 200
NUM_DISTILL_STEPS = 400
MODEL = {"regime": "frozen", "decoder_channels": (64, 32, 16, 16)}
CONFIG = REPOSITORY / "pipeline/configs/claim.yaml"
ARMS = ("labels", "labels_as_many_updates", "distilled", "distilled_edges_alike")


def measure() -> dict[str, object]:
    """Return the mean IoU of each arm by seed, and the gains of the distilled arms."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "0")
    root = Path(os.environ.get("TERRAPAIR_DISTILL_ROOT") or tempfile.mkdtemp())
    bench = _Bench(root)
    scores = {arm: [bench.student(arm, seed) for seed in range(NUM_SEEDS)] for arm in ARMS}
    scores["teacher"] = [bench.score("teacher", seed) for seed in range(NUM_SEEDS)]
    gains = {
        f"{arm}_over_{other}": [
            round(a - b, 4) for a, b in zip(scores[arm], scores[other], strict=True)
        ]
        for arm in ARMS[2:]
        for other in ARMS[:2]
    }
    means = {
        name: round(statistics.mean(values), 4) for name, values in {**scores, **gains}.items()
    }
    return {
        "mean_iou": {k: [round(v, 4) for v in vs] for k, vs in scores.items()},
        "gain": gains,
        "mean": means,
    }


class _Bench:
    """Data, encoder and models below one folder; each is made once."""

    def __init__(self, root: Path) -> None:
        from beam_jobs.contracts import layout, manifest
        from models import pretrain
        from models.training.scaffold import Folders
        from pipeline.config import load_run_config
        from pipeline.data_build import build_data

        self.root = root
        self.run = load_run_config(CONFIG, [f"root={root}"], {})
        built = build_data(
            self.run, lambda name: contextlib.nullcontext(), lambda done, total: None
        )
        self.pairs, self.labels = Path(str(built.pairs)), Path(str(built.tasks["landcover"]))
        self.manifests = {path: manifest.read(path) for path in (self.pairs, self.labels)}
        self.files = {
            path: {
                split: [str(shard) for shard in layout.shard_paths(path, split)]
                for split in layout.SPLITS
            }
            for path in (self.pairs, self.labels)
        }
        self.encoder = str(root / "encoder")
        if not (root / "encoder/assets.extra/model_card.json").exists():
            pretrain.run_pretraining(
                self.run.pretrain,
                self._shards(self.pairs, self.manifests[self.pairs]),
                Folders(output=self.encoder, logs=f"{self.encoder}-logs"),
            )

    def student(self, arm: str, seed: int) -> float:
        """Return the mean IoU of an arm on the test split; train what is missing."""
        from models.distillation.config import DistillConfig, StudentConfig
        from models.distillation.train import StudentSources, run_distillation
        from models.training.scaffold import Folders

        config = self._config("s1", seed)
        student = None
        if arm == "labels_as_many_updates":
            config = dataclasses.replace(config, num_steps=NUM_STEPS + NUM_DISTILL_STEPS)
        elif arm != "labels":
            teacher = self._model("teacher", seed, self._config("s2", seed))
            student = str(self.root / f"{arm}-{seed}-student")
            distill = DistillConfig(
                teacher="landcover-s2",
                num_steps=NUM_DISTILL_STEPS,
                edge_weight=1.0 if arm.endswith("alike") else 4.0,
            )
            if not Path(student, "assets.extra/model_card.json").exists():
                run_distillation(
                    StudentConfig(segment=config, distill=distill),
                    self._shards(self.pairs, self.manifests[self.pairs]),
                    Folders(output=student, logs=f"{student}-logs"),
                    sources=StudentSources(teacher=teacher, encoder=self.encoder),
                )
        self._model(arm, seed, config, student)
        return self.score(arm, seed)

    def score(self, arm: str, seed: int) -> float:
        """Return the mean IoU of a trained model on the test split."""
        from beam_jobs.contracts.labels import get_schema
        from models.metrics import iou_per_class
        from models.published.export import load_segmenter
        from models.scores.scoring import score_patches

        kept = self.root / f"{arm}-{seed}.json"
        if not kept.exists():
            names = get_schema("dynamic_world").class_names
            model = load_segmenter(str(self.root / f"{arm}-{seed}"))
            scores = score_patches(model, self.files[self.labels]["test"], names, batch_size=64)
            confusion = scores.confusion.sum(axis=0)
            # `mean_iou` also counts classes that are predicted but do not occur. A few
            # such pixels would lower it by a seventh.
            occurs = confusion.sum(axis=1) > 0
            found = {"mean_iou": float(iou_per_class(confusion)[occurs].mean())}
            kept.write_text(json.dumps(found))
            print(arm, seed, found["mean_iou"], file=sys.stderr, flush=True)
        return json.loads(kept.read_text())["mean_iou"]

    def _config(self, sensor: str, seed: int):
        task = self.run.tasks[0].segment
        return dataclasses.replace(task, sensors=(sensor,), seed=seed, num_steps=NUM_STEPS, **MODEL)

    def _model(self, arm: str, seed: int, config, student: str | None = None) -> str:
        from models import segment
        from models.training.scaffold import Folders
        from pipeline.claim_check.label_subsets import write_subset

        folder = str(self.root / f"{arm}-{seed}")
        if Path(folder, "assets.extra/model_card.json").exists():
            return folder
        found = self.manifests[self.labels]
        num = max(config.global_batch_size, int(LABEL_FRACTION * found.num_examples["train"]))
        shard = self.root / "labels" / f"seed{seed}.tfrecord.gz"
        write_subset(self.labels, num, seed, shard)
        found = dataclasses.replace(found, num_examples={**found.num_examples, "train": num})
        segment.run_segmentation(
            config,
            dataclasses.replace(self._shards(self.labels, found), train=(str(shard),)),
            Folders(output=folder, logs=f"{folder}-logs"),
            sources=segment.SegmenterSources(encoder=self.encoder, student=student),
        )
        return folder

    def _shards(self, version: Path, found):
        from models.training.scaffold import Shards

        files = self.files[version]
        return Shards(manifest=found, train=tuple(files["train"]), eval=tuple(files["eval"]))


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
