"""Configs of pretraining and segmentation: what is trained, on how much, how fast.

Input: a run's YAML through `beam_jobs.contracts.settings`. Output: checked frozen dataclasses. Used by `pretrain.py`,
`segment.py` and by the run config. The paper's own hyper-parameters could not be verified, so every default names the
published recipe it was taken from; none of them is "as in the paper".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.labels import get_schema

Backbone = Literal["small", "resnet18", "resnet50"]
Precision = Literal["float32", "mixed_bfloat16"]


_STRIDES: dict[Backbone, int] = {"small": 16, "resnet18": 32, "resnet50": 32}


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """One encoder; both sensors get the same architecture with weights of their own.

    Attributes:
        backbone: "resnet50" (origin: Scheibenreif et al. 2022), "resnet18" (origin: IaI-SimCLR) or "small", a
            three-stage residual net for CPU runs (origin: this project's own trials).
        embedding_dim: size E of the embedding. Default 128; origin: Scheibenreif et al. 2022 and IaI-SimCLR.
    """

    backbone: Backbone
    embedding_dim: int = 128

    def __post_init__(self) -> None:
        if self.backbone not in ("small", "resnet18", "resnet50"):
            raise ValueError(f"backbone must be small, resnet18 or resnet50, got {self.backbone!r}")
        _check_positive("embedding_dim", self.embedding_dim)

    @property
    def stride(self) -> int:
        """Pixels of the input per cell of the deepest features; heights and widths must be multiples of it."""
        return _STRIDES[self.backbone]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW on a cosine schedule after a linear warm-up.

    Attributes:
        learning_rate: peak. Default 1e-3; origin: this project's own trials with batch 128 (big nets on big batches
            were published with 1e-4, IaI-SimCLR, and 3e-5, Scheibenreif et al. 2022).
        weight_decay: decoupled. Default 1e-4; origin: IaI-SimCLR and Scheibenreif et al. 2022.
        warmup_fraction: share of the steps over which the rate rises from 0. Default 0.1; origin: SimCLR (Chen et al.
            2020: 10 of 100 epochs).
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_fraction: float = 0.1

    def __post_init__(self) -> None:
        _check_positive("learning_rate", self.learning_rate)
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if not 0.0 <= self.warmup_fraction < 1.0:
            raise ValueError(
                f"warmup_fraction must be within 0 (included) and 1 (excluded), got {self.warmup_fraction}"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Contrastive pretraining on pairs.

    Attributes:
        encoder: architecture of both encoders.
        num_steps: updates of the weights.
        temperature: of the contrastive loss. Default 0.1; origin: SimCLR's best for large batches, within the
            0.07-0.5 of the sibling recipes.
        global_batch_size: pairs per step over all replicas; each pair's negatives are all others. Default 256;
            origin: DeCUR.
        optimizer: rate, decay, warm-up.
        augment: flip and turn both images of a pair alike. Default True; origin: this project (Scheibenreif et al.
            2022 use none).
        use_weights: let each pair count what its record's `weight`, the outcome of the quality gate, says; else all
            count alike. Metrics of the eval split never weigh.
        num_eval_batches: most global batches of the eval split that loss and recall are computed on.
        shuffle_buffer: records held for shuffling.
        seed: of weights, shuffling and augmentation.
        precision: "float32", or "mixed_bfloat16" (float32 weights and loss).
    """

    encoder: EncoderConfig
    num_steps: int
    temperature: float = 0.1
    global_batch_size: int = 256
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: bool = True
    use_weights: bool = True
    num_eval_batches: int = 16
    shuffle_buffer: int = 2048
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        _check_positive("num_steps", self.num_steps)
        _check_positive("temperature", self.temperature)
        _check_positive("num_eval_batches", self.num_eval_batches)
        _check_positive("shuffle_buffer", self.shuffle_buffer)
        # One pair alone has no negatives: its loss is 0 whatever the weights.
        if self.global_batch_size < 2:
            raise ValueError(
                f"global_batch_size must be at least 2 for negatives to exist, got {self.global_batch_size}"
            )


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Supervised training of one task's segmenter.

    Attributes:
        sensors: inputs of the published model, ("s1",), ("s2",) or ("s1", "s2").
        label_schema: name of the label schema the model outputs; must be that of the shards.
        encoder: architecture; must be that of the pretrained encoder when one is given.
        num_steps: updates of the weights.
        decoder_channels: of the decoder's stages, deepest first; an encoder of stride 2**n uses the last n. Default:
            the U-Net of segmentation_models (Iakubovskii 2019).
        global_batch_size: patches per step over all replicas.
        optimizer: rate, decay, warm-up.
        augment: flip and turn images and label alike.
        use_weights: let each patch count what its record's `weight` says; see PretrainConfig.
        shuffle_buffer: records held for shuffling.
        seed: of weights, shuffling and augmentation.
        precision: "float32", or "mixed_bfloat16" (float32 weights, loss and outputs).
    """

    sensors: tuple[Sensor, ...]
    label_schema: str
    encoder: EncoderConfig
    num_steps: int
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    global_batch_size: int = 32
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: bool = True
    use_weights: bool = True
    shuffle_buffer: int = 2048
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.sensors not in (("s1",), ("s2",), SENSORS):
            raise ValueError(f"sensors must be [s1], [s2] or [s1, s2], got {list(self.sensors)}")
        if not get_schema(self.label_schema).is_dense:
            raise ValueError(f"label_schema {self.label_schema!r} has gaps in its ids; a model outputs 0..K-1")
        # One stage per halving of the encoder: stride 16 or 32.
        num_stages = self.encoder.stride.bit_length() - 1
        if len(self.decoder_channels) < num_stages:
            raise ValueError(f"decoder_channels must hold at least {num_stages} values, got {self.decoder_channels}")
        for channels in self.decoder_channels:
            _check_positive("decoder_channels", channels)
        _check_positive("num_steps", self.num_steps)
        _check_positive("global_batch_size", self.global_batch_size)
        _check_positive("shuffle_buffer", self.shuffle_buffer)
