"""How fast the observatory moves towards a target, against the barycenter of the solar system (spec §13)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.time import Time
from astropy.utils import iers

LIGHT = 299792.458  # km/s
_POINTINGS = (("TARGTRA", "TARGTDEC"), ("SKYRA", "SKYDEC"), ("TELRA", "TELDEC"), ("RA", "DEC"))


@dataclass(frozen=True)
class Site:
    """Where the telescope stands: latitude and longitude [deg], east positive, and height [m]."""

    latitude: float = 31.96403
    longitude: float = -111.59989
    height: float = 2097.0


def barycentric_factor(header: Mapping[str, Any], site: Site | None = None) -> float:
    """1 + v/c, by which wavelengths of this exposure are multiplied to be those of the barycenter.

    Parameters
    ----------
    header : MJD-OBS (start), EXPTIME, and a pointing: TARGTRA and TARGTDEC, or SKYRA, TELRA, RA

    Raises
    ------
    KeyError : no time or no pointing
    """
    pointing = next(
        ((float(header[a]), float(header[d])) for a, d in _POINTINGS if _is_number(header.get(a), header.get(d))), None
    )
    if pointing is None or not _is_number(header.get("MJD-OBS")):
        raise KeyError(
            f"no barycentric correction: MJD-OBS = {header.get('MJD-OBS')!r}, and a pointing is needed, one of "
            + ", ".join(a for a, _ in _POINTINGS)
        )
    where = site or Site()
    middle = float(header["MJD-OBS"]) + 0.5 * float(header.get("EXPTIME") or 0.0) / 86400.0
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        place = EarthLocation.from_geodetic(
            where.longitude * units.deg, where.latitude * units.deg, where.height * units.m
        )
        target = SkyCoord(*pointing, unit="deg")
        velocity = target.radial_velocity_correction("barycentric", Time(middle, format="mjd"), location=place)
    return 1.0 + float(velocity.to_value(units.km / units.s)) / LIGHT


def _is_number(*values: Any) -> bool:
    return all(isinstance(v, (int, float)) and np.isfinite(v) for v in values)
