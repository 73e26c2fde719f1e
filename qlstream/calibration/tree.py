"""The calibration tree: which entry of its YAML files is valid for a camera on a night (spec raw-and-calib §7)."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from qlstream.io.numberlist import parse_number_list

_log = logging.getLogger(__name__)

FIRST_SM_NIGHT = 20191211  # from here on files go by hardware spectrograph (SM), before by logical one (SP)
_OPEN_END = 99999999
FILE_KEYS = ("BIAS", "DARK", "PIXFLAT", "MASK", "PSF", "FIBERFLAT", "FLUXCALIB")
OTHER_FILE_KEYS = ("SKYCORR", "SKYGRADPCA", "TPCORRPARAM", "FIBERFLATVSHUMIDITY", "FIBERCROSSTALK")
FIBER_KEYS = (
    "BROKENFIBERS", "LOWTRANSMISSIONFIBERS", "BADCOLUMNFIBERS", "BADAMPFIBERS", "EXCLUDEFIBERS",
    "NEARCHARGETRAPFIBERS", "VARIABLETHRUFIBERS",
)  # fmt: skip
_NUMBER_KEY = re.compile(r"^(GAIN[A-D1-4]|SATURLEV[A-D1-4]|CROSSTALK[A-D1-4]{2}|DARKTRAIL(AMP|WIDTH)[A-D1-4])$")
_POSITIVE_KEY = re.compile(r"^(GAIN|SATURLEV)")


class CalibrationTreeError(ValueError):
    """The tree has a mistake; the message names the file, the entry and the key."""


@dataclass(frozen=True)
class TreeEntry:
    """What the tree has for a camera on a night.

    Attributes
    ----------
    values : key -> number, text, or fiber numbers as tuple; files as absolute Path
    source : YAML file and version, for messages
    expired : the entry's last night, if it ended before the night
    why_none : why there is no entry, if there is none
    """

    values: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    expired: int | None = None
    why_none: str = ""


def find_entry(root: Path, header: Mapping[str, Any], camera: str, night: int, allow_expired: bool) -> TreeEntry:
    """The one entry that is valid for the header.

    It must match DETECTOR, and CCDCFG and CCDTMING if it names them, and its dates must include the night.
    With `allow_expired`, if none does, the one that ended last serves.

    Raises
    ------
    CalibrationTreeError : several entries match, or a value is wrong
    """
    detector = str(header.get("DETECTOR", "")).strip()
    if not detector:
        return TreeEntry(why_none="the header has no DETECTOR")
    simulated = detector == "SIM"
    if simulated and (root / "sim").is_dir():
        root = root / "sim"
    if night >= FIRST_SM_NIGHT and not simulated:
        specid = header.get("SPECID")
        if specid is None:
            return TreeEntry(why_none="the header has no SPECID, which names the spectrograph in the tree")
        if not str(specid).strip().isdigit():
            return TreeEntry(why_none=f"SPECID = {specid!r} is no number, so it names no spectrograph in the tree")
        unit = f"sm{int(specid)}"
        name, path = f"{unit}-{camera[0]}", root / "spec" / unit / f"{unit}-{camera[0]}.yaml"
    else:
        name, path = camera, root / "spec" / f"sp{camera[1:]}" / f"{camera}.yaml"
    if not path.exists():
        return TreeEntry(why_none=f"the calibration tree has no {path}")
    versions = _versions(path, name)
    wrong_reasons: dict[str, str] = {}
    valid: list[str] = []
    ended: list[tuple[int, int, str]] = []
    for version, entry in versions.items():
        begin, end = _dates(path, name, version, entry)
        mismatch = _mismatch(entry, header, detector)
        if mismatch:
            wrong_reasons[version] = mismatch
        elif night < begin:
            wrong_reasons[version] = f"valid only from {begin}"
        elif night > end:
            wrong_reasons[version] = f"valid only until {end}"
            ended.append((end, begin, version))
        else:
            valid.append(version)
    if len(valid) > 1:
        raise CalibrationTreeError(
            f"{path}, {name}: the entries {', '.join(valid)} all match {camera} on {night} "
            f"(DETECTOR {detector}); limit them by DATE-OBS-BEGIN and DATE-OBS-END so that one remains"
        )
    if valid:
        return TreeEntry(_values(path, root, f"{name}.{valid[0]}", versions[valid[0]]), f"{path}, {valid[0]}")
    if allow_expired and ended:
        end, _, version = max(ended)
        _log.warning(
            "%s, %s ended on %d; it serves %s on %d for want of a valid one", path, version, end, camera, night
        )
        return TreeEntry(_values(path, root, f"{name}.{version}", versions[version]), f"{path}, {version}", expired=end)
    reasons = "; ".join(f"{version}: {why}" for version, why in wrong_reasons.items())
    return TreeEntry(why_none=f"no entry of {path} is valid ({reasons or 'it is empty'})")


def plain_value(value: Any) -> Any:
    """The value of `value` or `[value, comment]`."""
    return value[0] if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str) else value


def _versions(path: Path, name: str) -> dict[str, dict[str, Any]]:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CalibrationTreeError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(content, dict) or name not in content:
        there = ", ".join(map(str, content)) if isinstance(content, dict) else repr(content)
        raise CalibrationTreeError(f"{path}: no top key {name}; it has {there}")
    versions = content[name] or {}
    if not isinstance(versions, dict) or not all(isinstance(v, dict) for v in versions.values()):
        raise CalibrationTreeError(f"{path}, {name}: expected version names, each with its keys")
    return {str(v): {str(k): plain_value(x) for k, x in entry.items()} for v, entry in versions.items()}


def _dates(path: Path, name: str, version: str, entry: Mapping[str, Any]) -> tuple[int, int]:
    dates = []
    for key, default in (("DATE-OBS-BEGIN", None), ("DATE-OBS-END", _OPEN_END)):
        value = entry.get(key, default)
        if key == "DATE-OBS-END" and str(value).strip().lower() in ("none", ""):
            value = _OPEN_END
        if not re.fullmatch(r"\d{8}", str(value).strip()):
            raise CalibrationTreeError(f"{path}, {name}.{version}: {key} = {value!r}; expected a night YYYYMMDD")
        dates.append(int(value))
    return dates[0], dates[1]


def _mismatch(entry: Mapping[str, Any], header: Mapping[str, Any], detector: str) -> str:
    if str(entry.get("DETECTOR", "")).strip() != detector:
        return f"for DETECTOR {entry.get('DETECTOR')}, not {detector}"
    for key in ("CCDCFG", "CCDTMING"):
        if key in entry and str(entry[key]).strip() != str(header.get(key, "")).strip():
            return f"for {key} {entry[key]}, not {header.get(key)}"
    return ""


def _values(path: Path, root: Path, where: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with files as paths below the root, fiber lists as numbers, and numbers checked."""
    values: dict[str, Any] = {}
    wrong = []
    for key, value in entry.items():
        try:
            values[key] = _typed(key, value, root)
        except (TypeError, ValueError) as error:
            wrong.append(f"{key} = {value!r}: {error}")
    if wrong:
        raise CalibrationTreeError(f"{path}, {where}: " + "; ".join(wrong))
    return values


def _typed(key: str, value: Any, root: Path) -> Any:
    if key in FILE_KEYS or key in OTHER_FILE_KEYS:
        if not isinstance(value, str) or not value.strip():
            raise TypeError("expected a path, below the tree or absolute")
        return root / value.strip()
    if key in FIBER_KEYS:
        return tuple(parse_number_list("" if value is None else str(value)))
    if _NUMBER_KEY.match(key):
        number = float(value)
        if _POSITIVE_KEY.match(key) and not number > 0:
            raise ValueError("expected a positive number")
        return number
    return value
