"""Configs of pretraining, and of what segmentation has in common with it: encoder, optimizer, input.

Input: a run's YAML through `beam_jobs.contracts.settings`. Output: checked frozen
dataclasses. Used by `pretrain.py`, `segment_config.py` and by the run config. The
paper's own hyper-parameters could not be verified, so every default names the published
recipe it was taken from; none of them is "as in the paper".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from models.augmentation.config import AugmentConfig
from models.health.config import HealthConfig
from models.value_checks import check_choice, check_positive, check_share

Backbone = Literal["small", "resnet18", "resnet50", "torch_resnet18", "torch_resnet50"]
Norm = Literal["batch", "group"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
OptimizerName = Literal["adamw", "lars"]
Cache = Literal["none", "memory", "disk"]
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


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """One encoder; both sensors get the same architecture with weights of their own.

    Attributes:
        backbone: "resnet50" (origin: Scheibenreif et al. 2022), "resnet18" (origin:
            IaI-SimCLR) or "small", a three-stage residual net for CPU runs (origin:
            this project's own trials). "torch_resnet18" and "torch_resnet50" differ
            from these in padding, strides and epsilon (`torch_resnet.py`): public
            weights need them.
        embedding_dim: size E of the embedding. Default 128; origin: Scheibenreif et al.
            2022 and IaI-SimCLR.
        norm: "batch" (over the batch of all replicas) or "group" (32 groups within each
            patch; Wu and He 2018, arXiv 1803.08494). Batch normalization lets pairs
            leak into each other: a patch's features depend on what else is in its
            batch, which a contrastive loss can exploit (He et al. 2020, MoCo, arXiv
            1911.05722, section 3.3), and cached gradients are then those of statistics
            per micro-batch. Default "batch"; origin: the published ResNets.
    """

    backbone: Backbone
    embedding_dim: int = 128
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        check_choice("backbone", self.backbone, Backbone)
        check_choice("norm", self.norm, Norm)
        check_positive("embedding_dim", self.embedding_dim)

    @property
    def stride(self) -> int:
        """Pixels of the input per cell of the deepest features; heights and widths must be multiples of it."""
        return _STRIDES[self.backbone]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer, on a cosine schedule after a linear warm-up.

    Attributes:
        optimizer: "adamw", or "lars" (layer-wise rates; You et al. 2017, arXiv
            1708.03888) for global batches of thousands.
        learning_rate: peak; it is taken as it is, not scaled by the batch. Default
            1e-3, for AdamW; origin: this project's own trials with batch 128 (big nets
            on big batches were published with 1e-4, IaI-SimCLR, and 3e-5, Scheibenreif
            et al. 2022). LARS needs rates of another size: 0.3 x global_batch_size /
            256, or 0.075 x sqrt(global_batch_size) when training is short (SimCLR,
            arXiv 2002.05709, appendix B.1): 4.8 for 4,096 pairs. AdamW's is often
            scaled by the square root of the batch (Malladi et al. 2022, arXiv
            2205.10287).
        weight_decay: decoupled under AdamW, part of the gradient under LARS (SimCLR:
            1e-6). Default 1e-4; origin: IaI-SimCLR and Scheibenreif et al. 2022.
        warmup_fraction: share of the steps over which the rate rises from 0. Default
            0.1; origin: SimCLR (Chen et al. 2020: 10 of 100 epochs).
    """

    optimizer: OptimizerName = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_fraction: float = 0.1

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OptimizerName)
        check_positive("learning_rate", self.learning_rate)
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
        deterministic: whether the batch of a step follows from seed and step alone.
            False lets whatever is ready come first: a run cannot be repeated, and one
            that resumes sees other batches.
        cache: "none" inflates the shards in every epoch. "memory" holds what the task
            reads, inflated: size² x 2 bytes per band (and 1 for a label), 123 kB a pair
            of 64 px with 2 + 13 bands; refused when it will not fit. "disk" keeps
            inflated copies of whole shards in `cache_dir`.
        cache_dir: local folder; runs on the same data share it, other data never meets
            there. It may be deleted between runs.
        data_service: grpc://host:port of a tf.data service's dispatcher, whose workers
            read, decode and augment; empty = this process does. An epoch still sees
            each pair once, but in the order in which the workers answer.
    """

    deterministic: bool = True
    cache: Cache = "none"
    cache_dir: str = ""
    data_service: str = ""

    def __post_init__(self) -> None:
        check_choice("cache", self.cache, Cache)
        if (self.cache == "disk") != bool(self.cache_dir):
            raise ValueError(
                f"cache_dir must be given with cache disk, and only then, got {self.cache_dir!r}"
            )
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
            raise ValueError(
                "cache must be none or disk with data_service: workers are other processes, got 'memory'"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Contrastive pretraining on pairs.

    Attributes:
        encoder: architecture of both encoders.
        num_steps: updates of the weights.
        objective: what is learned; each class of `models/objectives` names its source.
            "multimodal": the paper's; "multimodal_2n", "multimodal_intra": with
            negatives, or SimCLR, within a sensor; "simclr_s1", "simclr_s2": the paper's
            baseline; "sigmoid"; "decur"; "dense": also per location. Controls:
            "shuffled" breaks all pairs, "none" publishes the encoders as they began.
        temperature: of the contrastive loss, or its first value. Default 0.1; origin:
            SimCLR's best for large batches, within the 0.07-0.5 of the sibling recipes.
        learn_temperature: whether it moves. Default None: as the objective's source
            does (only "sigmoid" learns it).
        min_negative_km: negatives nearer than this on the ground are false ones. 0 =
            none are.
        false_negative_weight: what these count, 0 (masked) to 1.
        intra_weight: of the SimCLR terms of "multimodal_intra". Default 1; origin:
            IaI-SimCLR.
        dense_weight: share of the local term of "dense", 0-1. Default 0.5; origin:
            DenseCL.
        decur_common_dim: dimensions of the embedding that both sensors share under
            "decur". Default None: 7/8 of them; origin: DeCUR (448 of 512).
        global_batch_size: pairs per step over all replicas; each pair's negatives are
            all others. Default 256; origin: DeCUR.
        micro_batch_size: pairs that go through the encoders of a replica at a time, by
            cached gradients (Gao et al. 2021, arXiv 2101.06983), at the price of a
            second forward pass; the negatives stay those of the global batch. None =
            all at once.
        logits_chunk_size: pairs of a replica whose logits against the global batch are
            held at a time; same numbers, less memory. None = all.
        optimizer: rate, decay, warm-up.
        health: when the encoders are looked at during training, and what counts as ill.
        augment: what is changed in both sensors alike, what in the views of one sensor,
            and what becomes of no data.
        use_weights: let each pair count what its record's `weight`, the outcome of the
            quality gate, says; else all count alike. Metrics of the eval split never
            weigh.
        num_eval_batches: most global batches of the eval split that loss and recall are
            computed on.
        shuffle_buffer: records held for shuffling.
        input: how the shards are read.
        seed: of weights, shuffling and augmentation.
        precision: "float32", or "mixed_bfloat16" or "mixed_float16" (float32 weights
            and loss); float16 scales the loss and leaves out steps whose gradients
            overflow: for GPUs without bfloat16.
        checkpoint_every: steps between checkpoints, from which a killed training goes
            on. Default 500; origin: this project, some minutes of a ResNet-50 on one
            GPU.
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
        check_choice("objective", self.objective, ObjectiveName)
        check_positive("num_steps", self.num_steps)
        check_positive("temperature", self.temperature)
        check_positive("num_eval_batches", self.num_eval_batches)
        check_positive("shuffle_buffer", self.shuffle_buffer)
        check_positive("checkpoint_every", self.checkpoint_every)
        check_choice("precision", self.precision, Precision)
        check_positive("intra_weight", self.intra_weight)
        check_share("false_negative_weight", self.false_negative_weight)
        check_share("dense_weight", self.dense_weight)
        # One pair alone has no negatives: its loss is 0 whatever the weights.
        if self.global_batch_size < 2:
            raise ValueError(
                f"global_batch_size must be at least 2 for negatives to exist, got {self.global_batch_size}"
            )
        self._check_negatives()
        self._check_parts()

    def _check_negatives(self) -> None:
        if not 0.0 <= self.min_negative_km <= MAX_NEGATIVE_KM:
            raise ValueError(
                f"min_negative_km must be within 0 and {MAX_NEGATIVE_KM:.0f}, got {self.min_negative_km}"
            )
        if self.min_negative_km and self.objective == "decur":
            raise ValueError(
                f"min_negative_km must be 0 under decur, which has no negatives, got {self.min_negative_km}"
            )
        low, high = LEARNED_TEMPERATURES
        if (
            self.learn_temperature or self.objective == "sigmoid"
        ) and not low <= self.temperature <= high:
            raise ValueError(
                f"temperature must be within {low} and {high} to be learned, got {self.temperature}"
            )
        if self.learn_temperature and self.objective == "decur":
            raise ValueError(
                "learn_temperature must be left out under decur, which has no temperature, got True"
            )

    def _check_parts(self) -> None:
        """Sizes that must fit into others; what the replicas' number decides is checked when it is known."""
        for name in ("micro_batch_size", "logits_chunk_size"):
            value = getattr(self, name)
            if value is not None and (value < 1 or self.global_batch_size % value):
                raise ValueError(
                    f"{name} must divide global_batch_size {self.global_batch_size}, got {value}"
                )
        if not 1 <= self.num_common_dims <= self.encoder.embedding_dim:
            raise ValueError(
                f"decur_common_dim must be within 1 and embedding_dim {self.encoder.embedding_dim}, "
                f"got {self.decur_common_dim}"
            )

    @property
    def num_common_dims(self) -> int:
        """Dimensions that "decur" shares between the sensors."""
        return (
            math.ceil(0.875 * self.encoder.embedding_dim)
            if self.decur_common_dim is None
            else self.decur_common_dim
        )
