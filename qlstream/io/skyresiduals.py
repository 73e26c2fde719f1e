"""Sky residuals out of sframes and cframes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.frame import PER_ANGSTROM, Frame
from qlstream.datamodel.skyresiduals import SkyResiduals, joined, residuals_of
from qlstream.io.compression import existing_file
from qlstream.io.errors import BadFile
from qlstream.io.fluxcalib import read_fluxcalib
from qlstream.io.frame import read_frame
from qlstream.io.sky import read_sky


def get_skyres(cframes: Path | str | Iterable[Path | str]) -> SkyResiduals:
    """What the sky subtraction left in the sky fibers of one or many sframes or cframes of an arm.

    The sky that was subtracted is that of the files sky-CAMERA-EXPID and, for calibrated frames, fluxcalib-CAMERA-EXPID
    beside each frame; where they are not, the sky is nan.

    Raises
    ------
    FileNotFoundError : no such frame
    BadFile : a frame has no fibermap, or its sky or calibration is that of another frame
    ValueError : nothing given, or frames of different wavelengths or units
    """
    paths = [cframes] if isinstance(cframes, (str, Path)) else list(cframes)
    parts = []
    for path in map(Path, paths):
        frame = read_frame(path)
        try:
            parts.append(residuals_of(frame, int(frame.meta.get("EXPID", 0)), _subtracted(path, frame)))
        except ValueError as error:
            raise BadFile(path, str(error)) from None
    return joined(parts)


def _subtracted(path: Path, frame: Frame) -> NDArray[np.float64] | None:
    """The sky model in the unit of the frame, or None."""
    sky = _beside(path, "sky")
    if sky is None:
        return None
    flux = read_sky(sky).flux
    if frame.bunit == PER_ANGSTROM:
        return flux
    calib = _beside(path, "fluxcalib")
    if calib is None:
        return None
    value = read_fluxcalib(calib).value
    if value.shape != flux.shape:
        raise ValueError(f"{calib.name} has {value.shape} bins, {sky.name} {flux.shape}")
    out = np.full(flux.shape, np.nan)
    np.divide(flux, value, out=out, where=value > 0)
    return out


def _beside(path: Path, kind: str) -> Path | None:
    """The file of another kind of the same camera and exposure, or None."""
    try:
        return Path(existing_file(path.with_name(f"{kind}-{path.name.partition('-')[2]}")))
    except FileNotFoundError:
        return None
