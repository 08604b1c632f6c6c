"""Subdatasets: one raster of a file that holds several, as GDAL names it.

Input: a name such as `NETCDF:"scene.nc":VV`. Output: its parts, or the name again with
another file. Only formats that read local files without following links are known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

DRIVERS: dict[str, str] = {"NETCDF": "netCDF", "HDF5": "HDF5Image", "GTIFF_DIR": "GTiff"}
"""Prefix of a subdataset -> the GDAL driver that opens it.

Source: https://gdal.org/en/stable/drivers/raster/, netCDF, HDF5 and GTiff.
"""
_NAMED = re.compile(
    r"""(?P<prefix>\w+):(?:(?P<quote>["'])(?P<quoted>.+?)(?P=quote)"""
    r"""|(?P<plain>(?:[A-Za-z][\w+.-]*://)?[^:"']+)):(?P<member>.+)"""
)
_NUMBERED = re.compile(
    r"""(?P<prefix>gtiff_dir):(?P<member>(?:off:)?\d+)"""
    r""":(?P<quote>["']?)(?P<quoted>.+)(?P=quote)(?P<plain>)""",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Subdataset:
    """One raster of a file.

    Attributes:
        prefix: a key of DRIVERS.
        file: path of the file.
        member: name of a variable (NETCDF), path of a data set (HDF5), or number of a
            directory (GTIFF_DIR).
    """

    prefix: str
    file: str
    member: str

    @property
    def driver(self) -> str:
        """The GDAL driver that opens it."""
        return DRIVERS[self.prefix]

    def __str__(self) -> str:
        """Return the name by which GDAL opens it."""
        if self.prefix == "GTIFF_DIR":
            return f"{self.prefix}:{self.member}:{self.file}"
        return f'{self.prefix}:"{self.file}":{self.member}'

    def with_file(self, file: str) -> Subdataset:
        """Return the same member of another file."""
        return replace(self, file=file)


def parse(name: str) -> Subdataset | None:
    """Return the parts of a subdataset's name; None when `name` is another path.

    The prefix may be in small letters, and the file may stand in quotes. A file whose
    name holds a colon needs quotes.
    """
    found = _NUMBERED.fullmatch(name) or _NAMED.fullmatch(name)
    if found is None or found["prefix"].upper() not in DRIVERS:
        return None
    file = found["quoted"] or found["plain"]
    return Subdataset(prefix=found["prefix"].upper(), file=file, member=found["member"])
