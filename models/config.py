"""Configs of pretraining and segmentation: what is trained, on how much, how fast.

Input: a run's YAML through `beam_jobs.contracts.settings`. Output: checked frozen dataclasses. Used by `pretrain.py`,
`segment.py` and by the run config. The paper's own hyper-parameters could not be verified, so every default names the
published recipe it was taken from; none of them is "as in the paper".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.labels import get_schema
from models.augmentation.config import AugmentConfig, ImageAugmentConfig
from models.health.config import HealthConfig
from models.pixel_losses.config import LossConfig

Backbone = Literal["small", "resnet18", "resnet50", "torch_resnet18", "torch_resnet50"]
Norm = Literal["batch", "group"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
OptimizerName = Literal["adamw", "lars"]
Cache = Literal["none", "memory", "disk"]
HeadName = Literal["unet", "deeplab", "linear"]
Regime = Literal["finetune", "scratch", "frozen", "linear"]
ObjectiveName = Literal[
    "multimodal",
    "multimodal_2n",
    "multimodal_intra",
    "simclr_s1",
    "simclr_s2",
    "sigmoid",
    "decur",
    "dense",
    "shuffled",
    "none",
]

TORCH_PREFIX = "torch_"
"""Of the backbones that compute as PyTorch's do, so that public weights fit them."""

_STRIDES: dict[Backbone, int] = {
    "small": 16,
    "resnet18": 32,
    "resnet50": 32,
    "torch_resnet18": 32,
    "torch_resnet50": 32,
}

LEARNED_TEMPERATURES = (0.01, 10.0)
"""Bounds of a learned temperature. Source of 0.01: Radford et al. 2021, arXiv 2103.00020, section 2.5 (logits are scaled by
no more than 100, for stability); the upper bound only keeps it finite."""

MAX_NEGATIVE_KM = 20_000.0
"""About half the way around the Earth: no two places are further apart."""


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be within 0 and 1, got {value}")


def _check_choice(name: str, value: str, choices: Any) -> None:
    known = get_args(choices)
    if value not in known:
        raise ValueError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """One encoder; both sensors get the same architecture with weights of their own.

    Attributes:
        backbone: "resnet50" (origin: Scheibenreif et al. 2022), "resnet18" (origin: IaI-SimCLR) or "small", a
            three-stage residual net for CPU runs (origin: this project's own trials). "torch_resnet18" and
            "torch_resnet50" differ from these in padding, strides and epsilon (`torch_resnet.py`): public weights need them.
        embedding_dim: size E of the embedding. Default 128; origin: Scheibenreif et al. 2022 and IaI-SimCLR.
        norm: "batch" (over the batch of all replicas) or "group" (32 groups within each patch; Wu and He 2018, arXiv
            1803.08494). Batch normalization lets pairs leak into each other: a patch's features depend on what else is in
            its batch, which a contrastive loss can exploit (He et al. 2020, MoCo, arXiv 1911.05722, section 3.3), and
            cached gradients are then those of statistics per micro-batch. Default "batch"; origin: the published ResNets.
    """

    backbone: Backbone
    embedding_dim: int = 128
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        _check_choice("backbone", self.backbone, Backbone)
        _check_choice("norm", self.norm, Norm)
        _check_positive("embedding_dim", self.embedding_dim)

    @property
    def stride(self) -> int:
        """Pixels of the input per cell of the deepest features; heights and widths must be multiples of it."""
        return _STRIDES[self.backbone]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer, on a cosine schedule after a linear warm-up.

    Attributes:
        optimizer: "adamw", or "lars" (layer-wise rates; You et al. 2017, arXiv 1708.03888) for global batches of thousands.
        learning_rate: peak; it is taken as it is, not scaled by the batch. Default 1e-3, for AdamW; origin: this project's own
            trials with batch 128 (big nets on big batches were published with 1e-4, IaI-SimCLR, and 3e-5, Scheibenreif et
            al. 2022). LARS needs rates of another size: 0.3 x global_batch_size / 256, or 0.075 x sqrt(global_batch_size)
            when training is short (SimCLR, arXiv 2002.05709, appendix B.1): 4.8 for 4,096 pairs. AdamW's is often scaled by
            the square root of the batch (Malladi et al. 2022, arXiv 2205.10287).
        weight_decay: decoupled under AdamW, part of the gradient under LARS (SimCLR: 1e-6). Default 1e-4; origin: IaI-SimCLR
            and Scheibenreif et al. 2022.
        warmup_fraction: share of the steps over which the rate rises from 0. Default 0.1; origin: SimCLR (Chen et al.
            2020: 10 of 100 epochs).
    """

    optimizer: OptimizerName = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_fraction: float = 0.1

    def __post_init__(self) -> None:
        _check_choice("optimizer", self.optimizer, OptimizerName)
        _check_positive("learning_rate", self.learning_rate)
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if not 0.0 <= self.warmup_fraction < 1.0:
            raise ValueError(
                f"warmup_fraction must be within 0 (included) and 1 (excluded), got {self.warmup_fraction}"
            )


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """How shards are read; speed only, but for `deterministic`.

    Attributes:
        deterministic: whether the batch of a step follows from seed and step alone. False lets whatever is ready come first:
            a run cannot be repeated, and one that resumes sees other batches.
        cache: "none" inflates the shards in every epoch. "memory" holds what the task reads, inflated: size² x 2 bytes per band
            (and 1 for a label), 123 kB a pair of 64 px with 2 + 13 bands; refused when it will not fit. "disk" keeps inflated
            copies of whole shards in `cache_dir`.
        cache_dir: local folder; runs on the same data share it, other data never meets there. It may be deleted between runs.
        data_service: grpc://host:port of a tf.data service's dispatcher, whose workers read, decode and augment; empty = this
            process does. An epoch still sees each pair once, but in the order in which the workers answer.
    """

    deterministic: bool = True
    cache: Cache = "none"
    cache_dir: str = ""
    data_service: str = ""

    def __post_init__(self) -> None:
        _check_choice("cache", self.cache, Cache)
        if (self.cache == "disk") != bool(self.cache_dir):
            raise ValueError(f"cache_dir must be given with cache disk, and only then, got {self.cache_dir!r}")
        if "://" in self.cache_dir:
            raise ValueError(f"cache_dir must be a folder of this machine, got {self.cache_dir!r}")
        if not self.data_service:
            return
        if not re.fullmatch(r"grpc://[^/:]+:\d+", self.data_service):
            raise ValueError(f"data_service must be grpc://host:port, got {self.data_service!r}")
        if self.deterministic:
            raise ValueError(
                "deterministic must be false with data_service, whose workers answer in any order, got True"
            )
        if self.cache == "memory":
            raise ValueError("cache must be none or disk with data_service: workers are other processes, got 'memory'")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Contrastive pretraining on pairs.

    Attributes:
        encoder: architecture of both encoders.
        num_steps: updates of the weights.
        objective: what is learned; each class of `models/objectives` names its source. "multimodal": the paper's;
            "multimodal_2n", "multimodal_intra": with negatives, or SimCLR, within a sensor; "simclr_s1", "simclr_s2": the
            paper's baseline; "sigmoid"; "decur"; "dense": also per location. Controls: "shuffled" breaks all pairs, "none"
            publishes the encoders as they began.
        temperature: of the contrastive loss, or its first value. Default 0.1; origin: SimCLR's best for large batches,
            within the 0.07-0.5 of the sibling recipes.
        learn_temperature: whether it moves. Default None: as the objective's source does (only "sigmoid" learns it).
        min_negative_km: negatives nearer than this on the ground are false ones. 0 = none are.
        false_negative_weight: what these count, 0 (masked) to 1.
        intra_weight: of the SimCLR terms of "multimodal_intra". Default 1; origin: IaI-SimCLR.
        dense_weight: share of the local term of "dense", 0-1. Default 0.5; origin: DenseCL.
        decur_common_dim: dimensions of the embedding that both sensors share under "decur". Default None: 7/8 of them;
            origin: DeCUR (448 of 512).
        global_batch_size: pairs per step over all replicas; each pair's negatives are all others. Default 256;
            origin: DeCUR.
        micro_batch_size: pairs that go through the encoders of a replica at a time, by cached gradients (Gao et al. 2021,
            arXiv 2101.06983), at the price of a second forward pass; the negatives stay those of the global batch. None =
            all at once.
        logits_chunk_size: pairs of a replica whose logits against the global batch are held at a time; same numbers,
            less memory. None = all.
        optimizer: rate, decay, warm-up.
        health: when the encoders are looked at during training, and what counts as ill.
        augment: what is changed in both sensors alike, what in the views of one sensor, and what becomes of no data.
        use_weights: let each pair count what its record's `weight`, the outcome of the quality gate, says; else all
            count alike. Metrics of the eval split never weigh.
        num_eval_batches: most global batches of the eval split that loss and recall are computed on.
        shuffle_buffer: records held for shuffling.
        input: how the shards are read.
        seed: of weights, shuffling and augmentation.
        precision: "float32", or "mixed_bfloat16" or "mixed_float16" (float32 weights and loss); float16 scales the loss and
            leaves out steps whose gradients overflow: for GPUs without bfloat16.
        checkpoint_every: steps between checkpoints, from which a killed training goes on. Default 500; origin: this project,
            some minutes of a ResNet-50 on one GPU.
    """

    encoder: EncoderConfig
    num_steps: int
    objective: ObjectiveName = "multimodal"
    temperature: float = 0.1
    learn_temperature: bool | None = None
    min_negative_km: float = 0.0
    false_negative_weight: float = 0.0
    intra_weight: float = 1.0
    dense_weight: float = 0.5
    decur_common_dim: int | None = None
    global_batch_size: int = 256
    micro_batch_size: int | None = None
    logits_chunk_size: int | None = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    use_weights: bool = True
    num_eval_batches: int = 16
    shuffle_buffer: int = 2048
    input: InputConfig = field(default_factory=InputConfig)
    seed: int = 0
    precision: Precision = "float32"
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        _check_choice("objective", self.objective, ObjectiveName)
        _check_positive("num_steps", self.num_steps)
        _check_positive("temperature", self.temperature)
        _check_positive("num_eval_batches", self.num_eval_batches)
        _check_positive("shuffle_buffer", self.shuffle_buffer)
        _check_positive("checkpoint_every", self.checkpoint_every)
        _check_choice("precision", self.precision, Precision)
        _check_positive("intra_weight", self.intra_weight)
        _check_share("false_negative_weight", self.false_negative_weight)
        _check_share("dense_weight", self.dense_weight)
        # One pair alone has no negatives: its loss is 0 whatever the weights.
        if self.global_batch_size < 2:
            raise ValueError(
                f"global_batch_size must be at least 2 for negatives to exist, got {self.global_batch_size}"
            )
        self._check_negatives()
        self._check_parts()

    def _check_negatives(self) -> None:
        if not 0.0 <= self.min_negative_km <= MAX_NEGATIVE_KM:
            raise ValueError(f"min_negative_km must be within 0 and {MAX_NEGATIVE_KM:.0f}, got {self.min_negative_km}")
        if self.min_negative_km and self.objective == "decur":
            raise ValueError(
                f"min_negative_km must be 0 under decur, which has no negatives, got {self.min_negative_km}"
            )
        low, high = LEARNED_TEMPERATURES
        if (self.learn_temperature or self.objective == "sigmoid") and not low <= self.temperature <= high:
            raise ValueError(f"temperature must be within {low} and {high} to be learned, got {self.temperature}")
        if self.learn_temperature and self.objective == "decur":
            raise ValueError("learn_temperature must be left out under decur, which has no temperature, got True")

    def _check_parts(self) -> None:
        """Sizes that must fit into others; what the replicas' number decides is checked when it is known."""
        for name in ("micro_batch_size", "logits_chunk_size"):
            value = getattr(self, name)
            if value is not None and (value < 1 or self.global_batch_size % value):
                raise ValueError(f"{name} must divide global_batch_size {self.global_batch_size}, got {value}")
        if not 1 <= self.num_common_dims <= self.encoder.embedding_dim:
            raise ValueError(
                f"decur_common_dim must be within 1 and embedding_dim {self.encoder.embedding_dim}, "
                f"got {self.decur_common_dim}"
            )

    @property
    def num_common_dims(self) -> int:
        """Dimensions that "decur" shares between the sensors."""
        return math.ceil(0.875 * self.encoder.embedding_dim) if self.decur_common_dim is None else self.decur_common_dim


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Supervised training of one task's segmenter.

    Attributes:
        sensors: inputs of the published model, ("s1",), ("s2",) or ("s1", "s2").
        label_schema: name of the label schema the model outputs; must be that of the shards.
        encoder: architecture; must be that of the pretrained encoder when one is given.
        encoder_paths: sensor -> encoder to start from instead of the run's pretrained one: directory of a published encoder
            (also of `import-weights`), or a `.keras` file.
        num_steps: updates of the weights.
        head: what makes labels of the encoders' pyramids: "unet", "deeplab" (DeepLabV3+) or "linear" (a 1x1 convolution).
        decoder_channels: of the stages of "unet", deepest first; an encoder of stride 2**n uses the last n. Of "deeplab" the
            first is the width. Default: the U-Net of segmentation_models (Iakubovskii 2019), DeepLabV3+ (256).
        regime: "finetune" trains all; "scratch" all, from new weights; "frozen" the head alone; "linear" the linear head alone.
        layer_decay: of the rate, from each level of the encoder to the one before, under finetune; see `regimes.py`. Default
            1 = the same rate for all.
        unfreeze_after: share of the steps before the encoder's weights begin to move, under finetune. Default 0.
        modality_dropout: probability that in training a patch loses one of its two sensors. Default 0.
        loss: what is minimized.
        global_batch_size: patches per step over all replicas.
        optimizer: rate, decay, warm-up.
        augment: of images and label alike, and, with `photometry`, of each sensor's pixels. Default: symmetries only.
        use_weights: let each patch count what its record's `weight` says; see PretrainConfig.
        shuffle_buffer: records held for shuffling.
        input: how the shards are read.
        seed: of weights, shuffling and augmentation.
        precision: as of PretrainConfig; outputs are float32, too.
        checkpoint_every: see PretrainConfig.
    """

    sensors: tuple[Sensor, ...]
    label_schema: str
    encoder: EncoderConfig
    num_steps: int
    encoder_paths: dict[Sensor, str] = field(default_factory=dict)
    head: HeadName = "unet"
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
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

    def __post_init__(self) -> None:
        if self.sensors not in (("s1",), ("s2",), SENSORS):
            raise ValueError(f"sensors must be [s1], [s2] or [s1, s2], got {list(self.sensors)}")
        if not get_schema(self.label_schema).is_dense:
            raise ValueError(f"label_schema {self.label_schema!r} has gaps in its ids; a model outputs 0..K-1")
        for name, path in self.encoder_paths.items():
            if name not in self.sensors or not path:
                raise ValueError(
                    f"encoder_paths must map sensors of the task, {list(self.sensors)}, to paths, got {name!r}: {path!r}"
                )
        # One stage per halving of the encoder: stride 16 or 32.
        num_needed = {"unet": self.encoder.stride.bit_length() - 1, "deeplab": 1}.get(self.head, 0)
        if len(self.decoder_channels) < num_needed:
            raise ValueError(f"decoder_channels must hold at least {num_needed} values, got {self.decoder_channels}")
        for channels in self.decoder_channels:
            _check_positive("decoder_channels", channels)
        for key in ("num_steps", "global_batch_size", "shuffle_buffer", "checkpoint_every"):
            _check_positive(key, getattr(self, key))
        _check_choice("precision", self.precision, Precision)
        self.loss.check_classes(get_schema(self.label_schema).class_names)
        self._check_regime()

    def _check_regime(self) -> None:
        _check_choice("head", self.head, HeadName)
        _check_choice("regime", self.regime, Regime)
        if self.regime == "linear" and self.head != "linear":
            raise ValueError(f"head must be linear under the regime linear, got {self.head!r}")
        if not 0.0 < self.layer_decay <= 1.0:
            raise ValueError(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if not 0.0 <= self.unfreeze_after < 1.0:
            raise ValueError(f"unfreeze_after must be within 0 (included) and 1 (excluded), got {self.unfreeze_after}")
        for name, off in (("layer_decay", 1.0), ("unfreeze_after", 0.0)):
            if self.regime != "finetune" and getattr(self, name) != off:
                raise ValueError(f"{name} must be {off} under the regime {self.regime}, got {getattr(self, name)}")
        _check_share("modality_dropout", self.modality_dropout)
        if self.modality_dropout and self.sensors != SENSORS:
            raise ValueError(f"modality_dropout must be 0 with one sensor, got {self.modality_dropout}")

    @property
    def needs_pretraining(self) -> bool:
        """Whether a sensor has no encoder of its own to start from, but must have one."""
        return self.regime != "scratch" and set(self.encoder_paths) != set(self.sensors)

    @property
    def trains_encoder(self) -> bool:
        """Whether anything but the head trains."""
        return self.regime in ("finetune", "scratch")
