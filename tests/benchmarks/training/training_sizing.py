"""Compute the table of trainings on many GPUs of docs/scaling.md.

`python -m tests.benchmarks.training.training_sizing` prints it. The input is what `make bench`
measured, a published rate of a GPU, and the data sheet and prices of a machine. The
output is compute, bytes, input and money, by the formulas on that page. A test compares
the page with this table. Change the inputs for other machines and prices.
"""

from dataclasses import dataclass

from tests.benchmarks.data import sizing

NUM_PAIRS = (1_000_000, 10_000_000)
NUM_GPUS = (8, 64)
NUM_EPOCHS = 100
PAIRS_PER_GPU = 256
EMBEDDING_DIM = 128
NUM_SENSORS = 2
FLOAT_BYTES = 4
"""Weights, gradients, statistics and embeddings travel as float32 in all precisions."""


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """What a pair costs in both encoders; `python -m tests.benchmarks training_costs`.

    Attributes:
        num_weights: of both encoders and heads.
        num_statistics: means and variances of all normalizations.
        forward_flops: side of a patch in pixels -> operations of the forward pass.
    """

    num_weights: int
    num_statistics: int
    forward_flops: dict[int, float]

    def step_flops(self, size_px: int) -> float:
        """Return the operations of a pair in a training step.

        The backward pass computes the gradients of inputs and of weights: twice the
        forward pass.
        """
        return 3 * self.forward_flops[size_px]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine with 8 GPUs.

    Attributes:
        num_gpus: GPUs.
        num_cores: virtual CPUs.
        gpu_flops: rate of a GPU, operations a second.
        small_shares: lowest and highest share of that rate on small patches.
        link_bytes: a second from one GPU to the next.
        network_bytes: a second from one machine to the next.
        usd_per_hour: lowest and highest price.
    """

    num_gpus: int
    num_cores: int
    gpu_flops: float
    small_shares: tuple[float, float]
    link_bytes: float
    network_bytes: float
    usd_per_hour: tuple[float, float]


RESNET50 = Encoders(
    num_weights=55_961_536,
    num_statistics=106_240,
    forward_flops={64: 1.336e9, 128: 5.291e9},
)
A100 = Machine(
    num_gpus=8,
    num_cores=96,
    # 2,375 images/s of ResNet-50 at 224 px in mixed precision on an A100 (NVIDIA,
    # DeepLearningExamples, TensorFlow/Classification/ConvNets/resnet50v1.5, June 2020),
    # with 4.09e9 products and sums each (torchvision's table of models).
    gpu_flops=2375 * 3 * 2 * 4.09e9,
    # Assumed. Layers of 64 px have a twelfth of the pixels, and keep a GPU less busy.
    small_shares=(0.25, 1.0),
    # Data sheets: 600 GB/s of NVLink in both directions; 400 Gbit/s of p4d.24xlarge.
    link_bytes=300e9,
    network_bytes=400e9 / 8,
    # Assumed: p4d.24xlarge reserved in a capacity block (AWS' price list of late 2024)
    # and on demand (usage.ai, June 2026).
    usd_per_hour=(14.75, 32.77),
)
USD_PER_GB_MONTH = 0.023
"""Assumed: S3 Standard, first 50 TB, us-east-1, the list price of the last years."""
CPU_MS = {"none": {64: 1.63, 128: 6.52}, "disk": {64: 0.86, 128: 3.44}}
"""Cache -> side of a patch -> CPU time to read, decode and augment a pair.

64 px: two cores over the pairs a second of docs/input_pipeline.md. 128 px: four times
that, by the number of pixels.
"""
SHARD_BYTES = {one.size_px: one.shard_bytes_per_pair for one in sizing.MEASURED}


@dataclass(frozen=True, kw_only=True)
class Training:
    """One column of the table."""

    size_px: int
    num_pairs: int
    num_gpus: int
    encoders: Encoders = RESNET50
    machine: Machine = A100

    @property
    def num_machines(self) -> int:
        """Machines for all GPUs."""
        return max(1, self.num_gpus // self.machine.num_gpus)

    @property
    def global_batch_size(self) -> int:
        """Pairs of a step."""
        return self.num_gpus * PAIRS_PER_GPU

    def gpu_rates(self) -> tuple[float, float]:
        """Return the lowest and highest number of pairs a second of a GPU."""
        rate = self.machine.gpu_flops / self.encoders.step_flops(self.size_px)
        low, high = self.machine.small_shares
        return low * rate, high * rate

    def step_bytes(self) -> dict[str, float]:
        """Return what a GPU sends in a step, by kind.

        Collectives are rings: an all-gather sends (n - 1) / n of the result, an
        all-reduce twice that.
        """
        rest = (self.num_gpus - 1) / self.num_gpus
        embeddings = self.global_batch_size * EMBEDDING_DIM * NUM_SENSORS * FLOAT_BYTES
        return {
            "all-gather of embeddings": rest * embeddings,
            "all-reduce of their gradients": 2 * rest * embeddings,
            "all-reduce of weights' gradients": 2 * rest * self.encoders.num_weights * FLOAT_BYTES,
            # Forward and backward.
            "all-reduce of statistics": 2 * 2 * rest * self.encoders.num_statistics * FLOAT_BYTES,
        }

    def exchange_seconds(self) -> float:
        """Return the least time in which a step's bytes pass the slowest link."""
        machine = self.machine
        link = machine.link_bytes if self.num_machines == 1 else machine.network_bytes
        return sum(self.step_bytes().values()) / link

    def step_rates(self) -> tuple[float, float]:
        """Return pairs a second of all GPUs, if no input is waited for."""
        exchange = self.exchange_seconds()
        low, high = (
            self.global_batch_size / (PAIRS_PER_GPU / rate + exchange) for rate in self.gpu_rates()
        )
        return low, high

    def input_rate(self, cache: str, is_shared: bool) -> float:
        """Return pairs a second that the processors can read for all GPUs.

        Without a data service each machine reads all pairs of a batch.
        """
        one = self.machine.num_cores * 1000 / CPU_MS[cache][self.size_px]
        return one * self.num_machines if is_shared else one

    def hours(self, cache: str, is_shared: bool) -> tuple[float, float]:
        """Return the shortest and longest time of the training."""
        read = self.input_rate(cache, is_shared)
        longest, shortest = (
            NUM_EPOCHS * self.num_pairs / min(rate, read) / 3600 for rate in self.step_rates()
        )
        return shortest, longest


def rows(one: Training) -> dict[str, str]:
    """Return the name and the value of each line of one column of the table."""
    low, high = one.gpu_rates()
    all_pairs = NUM_EPOCHS * one.num_pairs
    num_steps = NUM_EPOCHS * (one.num_pairs // one.global_batch_size)
    return {
        "global batch, pairs": f"{one.global_batch_size:,}",
        f"steps of {NUM_EPOCHS} epochs": f"{num_steps:,}",
        "compute, GPU hours": _range(all_pairs / high / 3600, all_pairs / low / 3600),
        "compute of a step, ms": _range(PAIRS_PER_GPU / high * 1000, PAIRS_PER_GPU / low * 1000),
        **{f"{name}, MB": f"{sent / 1e6:.1f}" for name, sent in one.step_bytes().items()},
        "all of these at the links' rate, ms": f"{one.exchange_seconds() * 1000:.1f}",
        **_input_rows(one),
        **_money_rows(one),
    }


def _input_rows(one: Training) -> dict[str, str]:
    rates = one.step_rates()
    read = rates[1] * SHARD_BYTES[one.size_px] / 1e9
    cores = rates[1] * CPU_MS["none"][one.size_px] / 1000
    return {
        "pairs/s if no input is waited for": _range(*rates, digits=0),
        "GB/s from the store, each machine all": f"{read * one.num_machines:.1f}",
        "GB/s from the store, shared": f"{read:.1f}",
        "cores a machine, each machine all": f"{cores:,.0f}",
        "cores a machine, shared": f"{cores / one.num_machines:,.0f}",
        "hours, each machine all": _range(*one.hours("none", is_shared=False), digits=2),
        "hours, shared": _range(*one.hours("none", is_shared=True), digits=2),
        "hours, shared, `cache: disk`": _range(*one.hours("disk", is_shared=True), digits=2),
    }


def _money_rows(one: Training) -> dict[str, str]:
    usd = [
        hours * one.num_machines * price
        for hours, price in zip(
            one.hours("disk", is_shared=True), one.machine.usd_per_hour, strict=True
        )
    ]
    shards = one.num_pairs * SHARD_BYTES[one.size_px]
    # Weights and two slots of AdamW, in two checkpoints.
    checkpoints = 2 * 3 * one.encoders.num_weights * FLOAT_BYTES
    return {
        "training, last line of hours, USD": _range(*usd, digits=0),
        "shards": sizing.size(shards),
        "checkpoints": sizing.size(checkpoints),
        "both, USD a month": f"{(shards + checkpoints) / 1e9 * USD_PER_GB_MONTH:,.0f}",
    }


def _range(low: float, high: float, digits: int = 1) -> str:
    texts = [f"{value:,.{digits}f}" for value in (low, high)]
    return texts[0] if texts[0] == texts[1] else "-".join(texts)


def table(size_px: int) -> str:
    """Return the table of one patch size as Markdown."""
    columns = {
        f"{pairs // 1_000_000} M pairs, {gpus} GPUs": rows(
            Training(size_px=size_px, num_pairs=pairs, num_gpus=gpus)
        )
        for pairs in NUM_PAIRS
        for gpus in NUM_GPUS
    }
    lines = [
        f"| ResNet-50, {size_px} px | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    names = next(iter(columns.values()))
    lines += [
        "| " + " | ".join([name, *(column[name] for column in columns.values())]) + " |"
        for name in names
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print("\n\n".join(table(size_px) for size_px in RESNET50.forward_flops))
