"""Refused spans: the data of a run that a check set aside.

Root of a run -> one entry for each version of each data set. The report, the history
and the exit code of a run show them.
"""

from __future__ import annotations

from dataclasses import dataclass

from beam_jobs.contracts import layout, set_aside
from beam_jobs.contracts.locations import locate
from beam_jobs.contracts.set_aside import SetAside


@dataclass(frozen=True, kw_only=True)
class RefusedSpan:
    """One version that was set aside.

    Attributes:
        data: "pairs" or the task's name.
        record: why and when.
        is_newest: whether the data set has no newer version.
    """

    data: str
    record: SetAside
    is_newest: bool

    @property
    def is_left_out(self) -> bool:
        """Whether windows leave the version out now."""
        return not self.record.put_back_at

    @property
    def sentence(self) -> str:
        """What happened to the version, and why, in one sentence."""
        record, more = self.record, len(self.record.reasons) - 1
        state = f"put back {record.put_back_at}" if record.put_back_at else "windows leave it out"
        return (
            f"{self.data}: span {record.name} was set aside {record.at} ({state}): "
            f"{record.reasons[0]}" + (f"; and {more} more" if more else "")
        )


def read_refused(root: str) -> tuple[RefusedSpan, ...]:
    """Return what was set aside of all data sets of a run, sorted by data set and span.

    Raises:
        DamagedFileError: a record is not what was written.
    """
    folder = locate(f"{root.rstrip('/')}/data")
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        records = set_aside.read(path)
        newest = max(layout.list_versions(path)) if records else None
        found += [
            RefusedSpan(data=path.name, record=one, is_newest=(one.span, one.version) == newest)
            for one in records
        ]
    return tuple(found)
