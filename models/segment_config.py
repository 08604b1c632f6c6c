"""Config of segmentation: a segmenter's parts, its starting weights and its training.

Input: a run's YAML through `beam_jobs.contracts.settings`. Output: a checked frozen
dataclass.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.labels import LabelClass, LabelSchema, schema_of
from beam_jobs.contracts.settings import INPUT_PATH
from models.augmentation.config import ImageAugmentConfig
from models.config import (
    Border,
    EncoderConfig,
    ExportPrecision,
    InputConfig,
    OptimizerConfig,
    Precision,
)
from models.pixel_losses.config import LossConfig
from models.value_checks import check_choice, check_positive, check_share

HeadName = Literal["unet", "deeplab", "linear"]
Regime = Literal["finetune", "scratch", "frozen", "linear"]
Keep = Literal["best", "last"]

_NUM_EVALUATIONS = 20
"""Evaluations under `keep: best`, unless `eval_every` says otherwise.

A training that learns all it can within half of its steps has ten to choose from.
"""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """How a segmenter is published.

    Attributes:
        precision: of the SavedModel; its inputs and outputs are float32, and so is the
            Keras model beside it. "bfloat16": kernels are stored in bfloat16, which
            halves the files, and computed with in float32. "mixed_bfloat16": the
            network computes in bfloat16 too, which is fast only on CPUs and GPUs that
            have it (docs/performance.md). A model that loses more than half a point of
            IoU on the eval split is published in float32, with a warning.
    """

    precision: ExportPrecision = "float32"

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, ExportPrecision)


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Supervised training of one task's segmenter.

    Attributes:
        sensors: inputs of the published model, ("s1",), ("s2",) or ("s1", "s2").
        label_schema: name of the label schema the model outputs; must be that of the
            shards.
        label_classes: all classes of a schema of one's own; empty = those of the known
            schema.
        encoder: architecture; must be that of the pretrained encoder if there is one.
        encoder_paths: sensor -> encoder to start from instead of the run's pretrained
            one: folder of a published encoder (also of `import-weights`), or a `.keras`
            file.
        num_steps: updates of the weights.
        head: head on the encoders' pyramids: "unet", "deeplab" (DeepLabV3+) or "linear"
            (a 1x1 convolution).
        decoder_channels: widths of the stages of "unet", deepest first; an encoder of
            stride 2**n uses the last n. For "deeplab" the first is the width of all
            layers. Default: the U-Net of segmentation_models (Iakubovskii 2019),
            DeepLabV3+ (256).
        border: what convolutions see beyond the border of a patch: "mirror" (the pixels
            inside, mirrored) or "zeros". It holds for the head and for encoders that
            train; frozen ones and "torch_" backbones stay as they were pretrained.
            Default "mirror"; origin: trials on simulated radar (docs/segmentation.md).
        regime: "finetune" trains everything; "scratch" everything, from new weights;
            "frozen" only the head; "linear" only the linear head.
        layer_decay: factor of the learning rate from each level of the encoder to the
            level before it, under finetune; see `regimes.py`. Default 1 = the same rate
            for all.
        unfreeze_after: share of the steps after which the whole encoder trains, under
            finetune. Until then its levels begin one after the other, the deepest
            first. Default 0 = all train from the start.
        modality_dropout: probability that in training a patch loses one of its two
            sensors. Default 0.
        loss: what is minimized.
        global_batch_size: patches per step over all replicas.
        optimizer: rate, decay, warm-up.
        augment: of images and label alike, and, with `photometry`, of each sensor's
            pixels. Default: symmetries only.
        use_weights: let each patch count what its record's `weight` says; see
            PretrainConfig.
        shuffle_buffer: records held for shuffling.
        input: how the shards are read.
        seed: of weights, shuffling and augmentation.
        precision: as of PretrainConfig; outputs are float32, too.
        checkpoint_every: see PretrainConfig.
        keep: which weights are published: "best", those of the evaluated step with the
            largest mean IoU on the eval split, or "last". The score is the published
            one: of float32 weights, at the threshold that is best for them.
        eval_every: steps between evaluations on the eval split, at most `num_steps`.
            Default 0: a twentieth of the steps under `keep: best`, none under
            `keep: last`.
        patience: evaluations in a row without a better score after which the training
            stops. Those during `unfreeze_after` do not count. Default None = all steps
            are taken.
        tune_threshold: with two classes, publish the threshold that gives the second
            class the best IoU on the eval split; False = 0.5, the likelier class. With
            more classes there is no threshold.
        export: see ExportConfig.
    """

    sensors: tuple[Sensor, ...]
    label_schema: str
    encoder: EncoderConfig
    num_steps: int
    label_classes: tuple[LabelClass, ...] = ()
    encoder_paths: dict[Sensor, str] = field(default_factory=dict, metadata=INPUT_PATH)
    head: HeadName = "unet"
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    border: Border = "mirror"
    regime: Regime = "finetune"
    layer_decay: float = 1.0
    unfreeze_after: float = 0.0
    modality_dropout: float = 0.0
    loss: LossConfig = field(default_factory=LossConfig)
    global_batch_size: int = 32
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: ImageAugmentConfig = field(default_factory=ImageAugmentConfig)
    use_weights: bool = True
    shuffle_buffer: int = 2048
    input: InputConfig = field(default_factory=InputConfig)
    seed: int = 0
    precision: Precision = "float32"
    checkpoint_every: int = 500
    keep: Keep = "last"
    eval_every: int = 0
    patience: int | None = None
    tune_threshold: bool = True
    export: ExportConfig = field(default_factory=ExportConfig)

    def __post_init__(self) -> None:
        if self.sensors not in (("s1",), ("s2",), SENSORS):
            raise ValueError(f"sensors must be [s1], [s2] or [s1, s2], got {list(self.sensors)}")
        if not self.schema.is_dense:
            raise ValueError(
                f"label_schema {self.label_schema!r} has gaps in its ids; a model outputs 0..K-1"
            )
        for name, path in self.encoder_paths.items():
            if name not in self.sensors or not path:
                raise ValueError(
                    f"encoder_paths must map sensors of the task, {list(self.sensors)}, to paths, "
                    f"got {name!r}: {path!r}"
                )
        # One stage per halving of the encoder: stride 16 or 32.
        num_needed = {"unet": self.encoder.stride.bit_length() - 1, "deeplab": 1}.get(self.head, 0)
        if len(self.decoder_channels) < num_needed:
            raise ValueError(
                f"decoder_channels must hold at least {num_needed} values, "
                f"got {self.decoder_channels}"
            )
        for channels in self.decoder_channels:
            check_positive("decoder_channels", channels)
        for key in ("num_steps", "global_batch_size", "shuffle_buffer", "checkpoint_every"):
            check_positive(key, getattr(self, key))
        check_choice("precision", self.precision, Precision)
        check_choice("border", self.border, Border)
        self.loss.check_classes(self.schema.class_names)
        self._check_regime()
        self._check_evaluations()

    @property
    def schema(self) -> LabelSchema:
        """The classes that the model outputs."""
        return schema_of(self.label_schema, self.label_classes)

    def _check_regime(self) -> None:
        check_choice("head", self.head, HeadName)
        check_choice("regime", self.regime, Regime)
        if self.regime == "linear" and self.head != "linear":
            raise ValueError(f"head must be linear under the regime linear, got {self.head!r}")
        if not 0.0 < self.layer_decay <= 1.0:
            raise ValueError(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if not 0.0 <= self.unfreeze_after < 1.0:
            raise ValueError(
                "unfreeze_after must be within 0 (included) and 1 (excluded), "
                f"got {self.unfreeze_after}"
            )
        for name, off in (("layer_decay", 1.0), ("unfreeze_after", 0.0)):
            if self.regime != "finetune" and getattr(self, name) != off:
                raise ValueError(
                    f"{name} must be {off} under the regime {self.regime}, "
                    f"got {getattr(self, name)}"
                )
        check_share("modality_dropout", self.modality_dropout)
        if self.modality_dropout and self.sensors != SENSORS:
            raise ValueError(
                f"modality_dropout must be 0 with one sensor, got {self.modality_dropout}"
            )

    def _check_evaluations(self) -> None:
        check_choice("keep", self.keep, Keep)
        if not 0 <= self.eval_every <= self.num_steps:
            raise ValueError(
                f"eval_every must be within 0 and num_steps {self.num_steps}, got "
                f"{self.eval_every}: lower it, or set 0"
            )
        if self.patience is None:
            return
        check_positive("patience", self.patience)
        if self.keep != "best":
            raise ValueError(
                f"patience must be null under keep: last, got {self.patience}: set keep: best, or "
                "remove patience"
            )

    def keeping_last(self) -> SegmentConfig:
        """Return this config for a training that is not evaluated on the way."""
        return replace(self, keep="last", eval_every=0, patience=None)

    @property
    def evaluates_every(self) -> int:
        """Steps between evaluations on the eval split; 0 = there are none."""
        if self.eval_every or self.keep == "last":
            return self.eval_every
        return max(1, self.num_steps // _NUM_EVALUATIONS)

    @property
    def needs_pretraining(self) -> bool:
        """Whether a sensor needs a pretrained encoder that the config does not name."""
        return self.regime != "scratch" and set(self.encoder_paths) != set(self.sensors)

    @property
    def trains_encoder(self) -> bool:
        """Whether the encoders train, too."""
        return self.regime in ("finetune", "scratch")
