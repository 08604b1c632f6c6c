"""CollectJob: what a fetch or an export is asked to do.

Input: settings, a connection and a file of places. Output: one value that goes to the
driver and, pickled, to Beam workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from beam_jobs.collect.collecting import Unit, units
from beam_jobs.collect.config import FetchConfig
from beam_jobs.earth_engine.connection import Connection
from beam_jobs.places.place import read_places

OnProgress = Callable[[int, int], None]
"""Receives the number of units done or rejected, and the number of all units."""
StrPath = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class CollectJob:
    """One collecting job: its settings, its places and its connection.

    Attributes:
        config: settings of the job.
        connection: connection to Earth Engine.
        places: path or URI of the file of places.
        retry_rejected: True asks again for units that an earlier run rejected.
        max_units: takes only this many units from the start of the file; None takes
            all.
        profiled: True also asks Earth Engine what each pixel request cost.
    """

    config: FetchConfig
    connection: Connection
    places: StrPath
    retry_rejected: bool = False
    max_units: int | None = None
    profiled: bool = False

    def units(self) -> Iterator[Unit]:
        """Yield the units of the job in the order of the file.

        Raises:
            DataError: a place breaks a rule or has no time windows.
        """
        return islice(units(read_places(self.places)), self.max_units)
