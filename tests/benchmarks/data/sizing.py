"""Compute the sizing table of docs/scaling.md.

`python -m tests.benchmarks.data.sizing` prints it. The input is what `make bench` measured
and the limits of Earth Engine. The output is the number of requests, hours, bytes and
cores, by the formulas on that page. A test compares the page with this table.
"""

from dataclasses import dataclass

NUM_PAIRS = (10_000, 1_000_000, 10_000_000)
REQUESTS_PER_PAIR = 3
"""One lists the scenes of the place, and one per sensor reads its pixels.

The cloud band comes with Sentinel-2. One request cannot cover two places.
"""
S1_BYTES_PER_PIXEL = 2 * 4
"""VV and VH as float32."""
S2_BYTES_PER_PIXEL = 13 * 2
"""12 bands and the cloud score as 16 bits."""
RECORD_BYTES_PER_PIXEL = 2 * 2 + 12 * 2
"""In the spool: 2 bands of int16 and 12 bands of uint16."""
MAX_CONCURRENT_REQUESTS = 40
MAX_REQUESTS_PER_SECOND = 100
MAX_REQUEST_BYTES = 50_331_648
"""48 MiB.

Source of the three limits: Earth Engine's quotas page,
developers.google.com/earth-engine/guides/usage.
"""
SECONDS_PER_REQUEST = (2.0, 3.0)
"""Lowest and highest time of a request.

An assumption from what users of computePixels report; it is not measured here. `plan`
replaces it by the result of a pilot.
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What `make bench` measured for one patch size.

    Attributes:
        size_px: height and width of a patch.
        shard_bytes_per_pair: size of a pair in the gzipped shards.
        cpu_ms_per_pair: time of build-pairs from GeoTIFF on one core, in milliseconds.
    """

    size_px: int
    shard_bytes_per_pair: int
    cpu_ms_per_pair: float


MEASURED = (
    Measured(size_px=64, shard_bytes_per_pair=62_049, cpu_ms_per_pair=10.3),
    Measured(size_px=128, shard_bytes_per_pair=242_958, cpu_ms_per_pair=40.1),
)


def rows(measured: Measured, num_pairs: int) -> dict[str, str]:
    """Return the name and the value of each line of one column of the table."""
    pixels = measured.size_px**2
    if S2_BYTES_PER_PIXEL * pixels > MAX_REQUEST_BYTES:
        raise ValueError(f"a patch of {measured.size_px} px does not fit one request")
    requests = num_pairs * REQUESTS_PER_PAIR
    hours = [requests * seconds / MAX_CONCURRENT_REQUESTS / 3600 for seconds in SECONDS_PER_REQUEST]
    core_hours = num_pairs * measured.cpu_ms_per_pair / 1000 / 3600
    return {
        "requests": f"{requests:,}",
        "fetch, hours": f"{hours[0]:.1f}-{hours[1]:.1f}",
        "fetch at 100 requests/s, hours": f"{requests / MAX_REQUESTS_PER_SECOND / 3600:.2f}",
        "fetched": size(num_pairs * pixels * (S1_BYTES_PER_PIXEL + S2_BYTES_PER_PIXEL)),
        "spool": size(num_pairs * pixels * RECORD_BYTES_PER_PIXEL),
        "shards": size(num_pairs * measured.shard_bytes_per_pair),
        "build, core hours": f"{core_hours:.2f}",
        "cores to build in an hour": f"{max(1, -(-core_hours // 1)):.0f}",
    }


def size(num_bytes: float) -> str:
    """Return bytes as MB, GB or TB."""
    for unit in ("MB", "GB"):
        num_bytes /= 1000 if unit == "GB" else 1e6
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}"
    return f"{num_bytes / 1000:.1f} TB"


def table() -> str:
    """Return the table as Markdown."""
    lines = [
        "| | " + " | ".join(f"{m.size_px} px, {n:,}" for m in MEASURED for n in NUM_PAIRS) + " |"
    ]
    lines.append("|---|" + "---:|" * len(MEASURED) * len(NUM_PAIRS))
    columns = [rows(measured, num_pairs) for measured in MEASURED for num_pairs in NUM_PAIRS]
    lines += [
        "| " + " | ".join([name, *(column[name] for column in columns)]) + " |"
        for name in columns[0]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
