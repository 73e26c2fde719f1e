"""Observing nights: which one a moment belongs to, and their text form YYYYMMDD."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

_MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)
_DATE_OBS = re.compile(r"^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(\.\d+)?(Z|[+-]\d\d:?\d\d)?)?$")
_NIGHT_OFFSET = timedelta(hours=19)  # a night changes at 19:00 UTC, about local noon at Kitt Peak


def night_of_time(moment: datetime) -> int:
    """Night (YYYYMMDD) of a moment; a naive one is UTC (spec raw-and-calib §6)."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return int((moment - _NIGHT_OFFSET).strftime("%Y%m%d"))


def night_of_mjd(mjd: float) -> int:
    """Night (YYYYMMDD) of a modified Julian date [day]."""
    return night_of_time(_MJD_ZERO + timedelta(days=float(mjd)))


def parse_date_obs(text: str) -> datetime:
    """A DATE-OBS value as UTC; fractions of any length and zone offsets are understood.

    Raises
    ------
    ValueError : not of the form YYYY-MM-DDThh:mm:ss
    """
    match = _DATE_OBS.match(str(text).strip())
    if not match:
        raise ValueError(f"DATE-OBS = {text!r}; expected YYYY-MM-DDThh:mm:ss[.fff][zone]")
    day, clock, fraction, zone = match.groups()
    moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}{(zone or '+00:00').replace('Z', '+00:00')}")
    return (moment + timedelta(seconds=float(fraction or 0))).astimezone(UTC)


def header_to_night(header: Mapping[str, Any]) -> int:
    """Night of a header: NIGHT if it is a number, else from DATE-OBS, else from MJD-OBS.

    Raises
    ------
    ValueError : none of the three is usable
    """
    try:
        return int(header["NIGHT"])
    except (KeyError, TypeError, ValueError):
        pass
    try:
        return night_of_time(parse_date_obs(header["DATE-OBS"]))
    except (KeyError, ValueError):
        pass
    try:
        return night_of_mjd(float(header["MJD-OBS"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(
            f"NIGHT = {header.get('NIGHT')!r}, DATE-OBS = {header.get('DATE-OBS')!r}, "
            f"MJD-OBS = {header.get('MJD-OBS')!r}: cannot tell the night; expected one of them to be usable"
        ) from None


def validate_night(night: str) -> date:
    """The date of a night given as text.

    Raises
    ------
    TypeError : not text
    ValueError : not a date of the form YYYYMMDD
    """
    if not isinstance(night, str):
        raise TypeError(f"night must be text YYYYMMDD, got {night!r} of type {type(night).__name__}")
    try:
        if not re.fullmatch(r"\d{8}", night):
            raise ValueError
        return datetime.strptime(night, "%Y%m%d").date()
    except ValueError:
        raise ValueError(f"Badly formatted night {night!r}; expected a date YYYYMMDD") from None


def is_night_name(name: str) -> bool:
    """True for the name of a night's folder: 8 characters that start with 20."""
    return len(name) == 8 and name.startswith("20")
