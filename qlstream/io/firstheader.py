"""The first header of a FITS file, for those who have many files to ask."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

from astropy.io.fits import Header

from qlstream.io.compression import existing_file
from qlstream.io.errors import BadFile


def read_first_header(path: Path | str) -> dict[str, Any]:
    """Cards of the first HDU; of a gzip file no more than its header is unpacked.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : it does not begin with a FITS header
    """
    path = existing_file(path)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            if file.read(6) != b"SIMPLE":
                raise ValueError("it does not begin with SIMPLE")
            file.seek(0)
            header = Header.fromfile(file)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise BadFile(path, f"no readable FITS header: {error}") from None
    return {name: header[name] for name in header if name}
