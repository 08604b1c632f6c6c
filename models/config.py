"""Configs of pretraining, and of encoder, optimizer and input for all trainings.

Input: a run's YAML through `beam_jobs.contracts.settings`. Output: checked frozen
dataclasses. The hyper-parameters of the paper itself could not be verified. So every
default names the published recipe it comes from; none of them is "as in the paper".
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
ExportPrecision = Literal["float32", "bfloat16", "mixed_bfloat16"]
Border = Literal["zeros", "mirror"]
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
"""Prefix of the backbones that compute what PyTorch's do; public weights fit them."""

_STRIDES: dict[Backbone, int] = {
    "small": 16,
    "resnet18": 32,
    "resnet50": 32,
    "torch_resnet18": 32,
    "torch_resnet50": 32,
}

LEARNED_TEMPERATURES = (0.01, 10.0)
"""Bounds of a learned temperature.

Source of 0.01: Radford et al. 2021, arXiv 2103.00020, section 2.5 (logits are scaled by
at most 100, for stability). The upper bound only keeps it finite.
"""

SERVED_BY_WORKERS = "workers"
"""Value of `InputConfig.data_service`: the processes that train serve themselves."""

MAX_NEGATIVE_KM = 20_000.0
"""About half of the Earth's circumference: no two places are further apart."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The architecture of the encoders; each sensor has its own weights.

    Attributes:
        backbone: "resnet50" (origin: Scheibenreif et al. 2022), "resnet18" (origin:
            IaI-SimCLR) or "small", a three-stage residual net for CPU runs (origin:
            this project's own trials). "torch_resnet18" and "torch_resnet50" have the
            padding, strides and epsilon of PyTorch (`torch_resnet.py`), which public
            weights need.
        embedding_dim: size E of the embedding. Default 128; origin: Scheibenreif et al.
            2022 and IaI-SimCLR.
        norm: "batch" (over the batch of all replicas) or "group" (32 groups within each
            patch; Wu and He 2018, arXiv 1803.08494). With batch normalization a patch's
            features depend on the rest of its batch. A contrastive loss can exploit
            that as a pretext shortcut (He et al. 2020, MoCo, arXiv 1911.05722, section
            3.3), and cached gradients use the statistics of each micro-batch. Default
            "batch"; origin: the published ResNets.
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
        """Pixels per cell of the deepest features; H and W must be multiples of it."""
        return _STRIDES[self.backbone]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer, on a cosine schedule after a linear warm-up.

    Attributes:
        optimizer: "adamw", or "lars" (layer-wise rates; You et al. 2017, arXiv
            1708.03888) for global batches of thousands.
        learning_rate: peak of the schedule; it is not scaled by the batch size. Default
            1e-3, for AdamW; origin: this project's own trials with batch 128 (published
            for big nets on big batches: 1e-4, IaI-SimCLR, and 3e-5, Scheibenreif et al.
            2022). LARS needs much larger rates: 0.3 x global_batch_size / 256, or 0.075
            x sqrt(global_batch_size) for a short training (SimCLR, arXiv 2002.05709,
            appendix B.1): 4.8 for 4,096 pairs. The rate of AdamW is often scaled by the
            square root of the batch size (Malladi et al. 2022, arXiv 2205.10287).
        weight_decay: decoupled under AdamW, part of the gradient under LARS (SimCLR:
            1e-6). Default 1e-4; origin: IaI-SimCLR and Scheibenreif et al. 2022.
        warmup_fraction: share of the steps over which the rate rises from 0. Default
            0.1; origin: SimCLR (Chen et al. 2020: 10 of 100 epochs).
        lars_scalar_rate: peak rate of learned single numbers under LARS: the
            temperature, the bias of "sigmoid" or of a head with one output. Adam moves
            them, on the same schedule; the rate of LARS would throw them out of their
            range. Default 1e-3; origin: SigLIP's rate of all weights (Zhai et al. 2023,
            arXiv 2303.15343). AdamW moves them at `learning_rate`.
    """

    optimizer: OptimizerName = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_fraction: float = 0.1
    lars_scalar_rate: float = 1e-3

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OptimizerName)
        check_positive("learning_rate", self.learning_rate)
        check_positive("lars_scalar_rate", self.lars_scalar_rate)
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if not 0.0 <= self.warmup_fraction < 1.0:
            raise ValueError(
                "warmup_fraction must be within 0 (included) and 1 (excluded), "
                f"got {self.warmup_fraction}"
            )


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """How shards are read. All settings but `deterministic` change only the speed.

    Attributes:
        deterministic: whether only seed and step decide the batch of a step. With False
            the records that are ready first come first: a run cannot be repeated, and a
            resumed run gets other batches.
        cache: "none" inflates the shards in every epoch. "memory" keeps the inflated
            features of the task: size² x 2 bytes per band (and 1 for a label), 123 kB
            for a pair of 64 px with 2 + 13 bands; refused when they do not fit. "disk"
            keeps inflated copies of whole shards in `cache_dir`.
        cache_dir: local folder. Runs on the same data share the copies; runs on other
            data never use them. It may be deleted between runs.
        data_service: grpc://host:port of the dispatcher of a tf.data service, whose
            servers read, decode and augment; "workers" = a service of the processes
            that train, each of which serves itself; empty = no service. An epoch still
            has each pair once, but in the order in which the servers answer.
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
        if self.data_service != SERVED_BY_WORKERS and not re.fullmatch(
            r"grpc://[^/:]+:\d+", self.data_service
        ):
            raise ValueError(
                f"data_service must be grpc://host:port or {SERVED_BY_WORKERS}, got "
                f"{self.data_service!r}"
            )
        if self.deterministic:
            raise ValueError(
                "deterministic must be false with data_service, whose workers answer in any "
                "order, got True"
            )
        if self.cache == "memory":
            raise ValueError(
                "cache must be none or disk with data_service: its servers cannot read the memory "
                "of this process, got 'memory'"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Contrastive pretraining on pairs.

    Attributes:
        encoder: architecture of both encoders.
        num_steps: updates of the weights.
        objective: what is learned; each class of `models/objectives` names its source.
            "multimodal": that of the paper. "multimodal_2n", "multimodal_intra": also
            negatives, or SimCLR, within a sensor. "simclr_s1", "simclr_s2": the paper's
            baseline. "sigmoid"; "decur"; "dense": also per location. Controls:
            "shuffled" breaks all pairs, "none" publishes the untrained encoders.
        temperature: of the contrastive loss, or its first value if it is learned.
            Default 0.1; origin: SimCLR's best for large batches, within the 0.07-0.5 of
            the sibling recipes.
        learn_temperature: whether the temperature is learned. Default None: as in the
            objective's source (only "sigmoid" learns it).
        min_negative_km: negatives nearer than this on the ground count as false
            negatives. 0 = none do.
        false_negative_weight: weight of false negatives, 0 (masked) to 1.
        intra_weight: weight of the SimCLR terms of "multimodal_intra". Default 1;
            origin: IaI-SimCLR.
        dense_weight: share of the local term of "dense", 0-1. Default 0.5; origin:
            DenseCL.
        decur_common_dim: dimensions of the embedding that both sensors share under
            "decur". Default None: 7/8 of them; origin: DeCUR (448 of 512).
        global_batch_size: pairs per step over all replicas. The negatives of a pair are
            all other pairs. Default 256; origin: DeCUR.
        micro_batch_size: pairs that a replica encodes at a time, by cached gradients
            (Gao et al. 2021, arXiv 2101.06983). It saves memory and costs a second
            forward pass; the negatives are still those of the global batch. None = all
            at once.
        logits_chunk_size: pairs of a replica whose logits against the global batch are
            in memory at a time; same results, less memory. None = all.
        optimizer: rate, decay, warm-up.
        health: when the encoders are checked during training, and by which limits.
        augment: changes to both sensors alike and to the views of one sensor, and the
            treatment of no data.
        use_weights: whether each pair has the `weight` of its record, which is the
            result of the quality gate; False = all pairs count alike. Metrics of the
            eval split never use weights.
        num_eval_batches: most global batches of the eval split on which loss and recall
            are computed.
        shuffle_buffer: records held for shuffling.
        input: how the shards are read.
        seed: of weights, shuffling and augmentation.
        precision: "float32", or "mixed_bfloat16" or "mixed_float16" (float32 weights
            and loss). "mixed_float16" is for GPUs without bfloat16: it scales the loss
            and skips steps whose gradients overflow.
        checkpoint_every: steps between checkpoints, from which a killed training
            continues. Default 500; origin: this project, some minutes of a ResNet-50 on
            one GPU.
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
        # A single pair has no negatives: its loss would always be 0.
        if self.global_batch_size < 2:
            raise ValueError(
                "global_batch_size must be at least 2 for negatives to exist, "
                f"got {self.global_batch_size}"
            )
        self._check_negatives()
        self._check_parts()

    def _check_negatives(self) -> None:
        if not 0.0 <= self.min_negative_km <= MAX_NEGATIVE_KM:
            raise ValueError(
                f"min_negative_km must be within 0 and {MAX_NEGATIVE_KM:.0f}, "
                f"got {self.min_negative_km}"
            )
        if self.min_negative_km and self.objective == "decur":
            raise ValueError(
                "min_negative_km must be 0 under decur, which has no negatives, "
                f"got {self.min_negative_km}"
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
        """Check sizes that must divide others; a replica's share is checked later."""
        for name in ("micro_batch_size", "logits_chunk_size"):
            value = getattr(self, name)
            if value is not None and (value < 1 or self.global_batch_size % value):
                raise ValueError(
                    f"{name} must divide global_batch_size {self.global_batch_size}, got {value}"
                )
        if not 1 <= self.num_common_dims <= self.encoder.embedding_dim:
            raise ValueError(
                "decur_common_dim must be within 1 and embedding_dim "
                f"{self.encoder.embedding_dim}, got {self.decur_common_dim}"
            )

    @property
    def num_common_dims(self) -> int:
        """Number of dimensions that "decur" shares between the sensors."""
        return (
            math.ceil(0.875 * self.encoder.embedding_dim)
            if self.decur_common_dim is None
            else self.decur_common_dim
        )
