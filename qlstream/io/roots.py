"""The roots of the file tree, from arguments or from the environment (spec paths-and-names §1)."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


def rawdata_root(given: Path | str | None = None) -> str:
    """RAW: `given`, else DESI_SPECTRO_DATA, else DESI_ROOT/spectro/data.

    Raises
    ------
    KeyError : none of them is set; so do the functions below
    """
    return _first(given, "DESI_SPECTRO_DATA", "spectro/data", "rawdata_dir")


def specprod_root(given: Path | str | None = None, specprod: str | None = None) -> str:
    """PROD: `given`, else DESI_SPECTRO_REDUX/SPECPROD; a SPECPROD with a slash is a path by itself."""
    if given is not None:
        return str(given)
    name = specprod or os.environ.get("SPECPROD")
    if not name:
        raise KeyError("no production: give specprod_dir, or set DESI_SPECTRO_REDUX and SPECPROD")
    if "/" in name:
        return name
    return os.path.join(_first(None, "DESI_SPECTRO_REDUX", "spectro/redux", "specprod_dir"), name)


def specprod_name(given: Path | str | None = None, specprod: str | None = None) -> str:
    """SPECPROD: the name of the production, as it stands in file names."""
    return os.path.basename(os.path.normpath(specprod_root(given, specprod)))


def calib_root(given: Path | str | None = None) -> str:
    """CAL: `given`, else DESI_SPECTRO_CALIB, else below DESI_ROOT, else the deprecated DESI_CCD_CALIBRATION_DATA."""
    try:
        return _first(given, "DESI_SPECTRO_CALIB", "spectro/desi_spectro_calib/trunk", "calib_dir")
    except KeyError:
        return _first(None, "DESI_CCD_CALIBRATION_DATA", None, "calib_dir")


def tiles_root(given: Path | str | None = None) -> str:
    """The tree of fiberassign files: `given`, else FIBER_ASSIGN_DIR."""
    return _first(given, "FIBER_ASSIGN_DIR", None, "tiles_dir")


def compression_suffix() -> str:
    """ ".gz" or "" for products that may be compressed, by DESI_COMPRESSION.

    Raises
    ------
    KeyError : another value than NONE, GZ or GZIP
    """
    value = os.environ.get("DESI_COMPRESSION", "GZ").strip().upper()
    suffixes = {"NONE": "", "GZ": ".gz", "GZIP": ".gz"}
    if value not in suffixes:
        raise KeyError(f"DESI_COMPRESSION = {value!r}; expected NONE, GZ or GZIP")
    return suffixes[value]


def readonly_path(path: str) -> str:
    """The path under DESI_ROOT_READONLY in place of a leading DESI_ROOT, if that mirror exists."""
    root = os.environ.get("DESI_ROOT", "")
    mirror = _mirror(os.environ.get("DESI_ROOT_READONLY", ""))
    return mirror + path[len(root) :] if root and mirror and path.startswith(root) else path


def shorten_filename(path: Path | str | None) -> str:
    """A path for headers: a leading CAL becomes SPCALIB, a leading PROD becomes SPECPROD; None becomes "None"."""
    text = str(path)
    for find, name in ((calib_root, "SPCALIB"), (specprod_root, "SPECPROD")):
        try:
            root = find()
        except KeyError:
            continue
        for leading in (root, readonly_path(root)):
            if text.startswith(leading):
                return text.replace(leading, name, 1)
    return text


@cache
def _mirror(folder: str) -> str:
    return folder if folder and os.path.isdir(folder) else ""


def _first(given: Path | str | None, variable: str, below_desi_root: str | None, argument: str) -> str:
    if given is not None:
        return str(given)
    if os.environ.get(variable):
        return os.environ[variable]
    if below_desi_root and os.environ.get("DESI_ROOT"):
        return os.path.join(os.environ["DESI_ROOT"], below_desi_root)
    raise KeyError(f"give {argument}, or set {variable}{' or DESI_ROOT' if below_desi_root else ''}")
