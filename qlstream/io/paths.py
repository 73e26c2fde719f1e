"""`findfile`: the path of any file of the data model, from its type and the exposure, camera, tile or pixel."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlstream.io import roots
from qlstream.io.compression import other_form
from qlstream.io.pathtable import ALIASES, GROUPED, HAS_LOG, TEMPLATES

_CAMERA = re.compile(r"^(\*|[brz*?][0-9*?])$")
_TILE_PREFIX = {"cumulative": "thru", "pernight": "", "perexp": "exp"}


@dataclass(frozen=True)
class _Inputs:
    """What a caller gave, cleaned: numbers as int, camera and names in lower case."""

    night: int | None
    expid: int | None
    camera: str | None
    spectrograph: int | None
    tile: int | None
    healpix: int | None
    groupname: str | None
    subgroup: str | None
    survey: str | None
    faprogram: str | None
    version: str | None
    specprod: str | None
    specprod_dir: Path | str | None
    rawdata_dir: Path | str | None
    calib_dir: Path | str | None
    tiles_dir: Path | str | None
    qaprod_dir: Path | str | None

    @property
    def tilegroup(self) -> str:
        return self.groupname or "cumulative"

    @property
    def pixgroup(self) -> str:
        return "spectra" if self.groupname in ("uniqpix", "spectra") else "healpix"

    @property
    def prod(self) -> str:
        return roots.specprod_root(self.specprod_dir, self.specprod)


def _subdir(given: _Inputs) -> str:
    if given.tilegroup == "perexp":
        return f"{given.expid:08d}"
    return f"{given.night}" if given.tilegroup in _TILE_PREFIX else f"{given.subgroup}"


def _subdir_needs(given: _Inputs) -> tuple[str, ...]:
    if given.tilegroup == "perexp":
        return ("expid",)
    return ("night",) if given.tilegroup in _TILE_PREFIX else ("subgroup",)


def _in_folder(given: _Inputs, folder: str) -> str:
    """The extra folder that catalogs of version v2 have."""
    return f"/{folder}" if given.version == "v2" else ""


# field of a template -> (inputs it needs, its text)
_Field = tuple[tuple[str, ...] | Callable[[_Inputs], tuple[str, ...]], Callable[[_Inputs], str]]
FIELDS: dict[str, _Field] = {
    "RAW": ((), lambda g: roots.rawdata_root(g.rawdata_dir)),
    "PROD": ((), lambda g: g.prod),
    "CAL": ((), lambda g: roots.calib_root(g.calib_dir)),
    "TILES": ((), lambda g: roots.tiles_root(g.tiles_dir)),
    "QA": ((), lambda g: str(g.qaprod_dir) if g.qaprod_dir is not None else f"{g.prod}/QA"),
    "specprod": ((), lambda g: roots.specprod_name(g.specprod_dir, g.specprod)),
    "gz": ((), lambda g: roots.compression_suffix()),
    "night": (("night",), lambda g: f"{g.night}"),
    "month": (("night",), lambda g: f"{g.night}"[:6]),
    "expid": (("expid",), lambda g: f"{g.expid:08d}"),
    "camera": (("camera",), lambda g: f"{g.camera}"),
    "spectrograph": (("spectrograph",), lambda g: f"{g.spectrograph}"),
    "tile": (("tile",), lambda g: f"{g.tile}"),
    "tile6": (("tile",), lambda g: f"{g.tile:06d}"),
    "tiledir": (("tile",), lambda g: f"{(g.tile or 0) // 1000:03d}"),
    "group": ((), lambda g: g.tilegroup),
    "subdir": (_subdir_needs, _subdir),
    "prefix": ((), lambda g: _TILE_PREFIX.get(g.tilegroup, f"{g.tilegroup}-")),
    "pixgroup": ((), lambda g: g.pixgroup),
    "pixdir": (("healpix",), lambda g: f"{(g.healpix or 0) // 100}/{g.healpix}"),
    "pixel": (("healpix",), lambda g: f"{g.healpix}"),
    "survey": (("survey",), lambda g: f"{g.survey}"),
    "program": (("faprogram",), lambda g: f"{g.faprogram}"),
    "version": (("version",), lambda g: f"{g.version}"),
    "surveydir": (("version", "survey"), lambda g: _in_folder(g, f"{g.survey}")),
    "zalldir": (("version",), lambda g: _in_folder(g, "zall")),
}

Number = int | str | None
Folder = Path | str | None


def findfile(
    filetype: str,
    night: Number = None,
    expid: Number = None,
    camera: str | None = None,
    *,
    tile: Number = None,
    groupname: Number = None,
    subgroup: str | None = None,
    healpix: Number = None,
    spectrograph: Number = None,
    survey: str | None = None,
    faprogram: str | None = None,
    version: str | None = None,
    word: str | None = None,
    rawdata_dir: Folder = None,
    specprod_dir: Folder = None,
    specprod: str | None = None,
    calib_dir: Folder = None,
    tiles_dir: Folder = None,
    qaprod_dir: Folder = None,
    outdir: Folder = None,
    readonly: bool = False,
    logfile: bool = False,
    return_exists: bool = False,
) -> Any:
    """The normalised path of a file (spec paths-and-names §2-4). Numbers may be given as text.

    Parameters
    ----------
    filetype : e.g. "raw", "qframe", "psfnight"; the error about an unknown one lists all
    camera : e.g. "r3"; "*" and "?" make a pattern
    groupname, subgroup : of tile-based files: cumulative (default), pernight, perexp or an own group with its
        subgroup; of pixel-based ones: healpix (default) or uniqpix. An integer is taken for a pixel
    word : in place of "qlfile" or "qlfig", the step or metric that a ql_file or ql_fig is about
    rawdata_dir, specprod_dir, specprod, calib_dir, tiles_dir, qaprod_dir : roots, in place of the environment's
    outdir : keep only the file's name, in this folder; no root is needed
    readonly : for reading: the form that exists of NAME and NAME.gz, and the read-only mirror if there is one
    logfile : the log that belongs to the file
    return_exists : also tell whether the file exists

    Returns
    -------
    str, or (str, bool) with `return_exists`

    Raises
    ------
    ValueError : unknown type, inputs missing (all are named) or contradictory
    KeyError : a root is neither given nor in the environment
    OSError : not readonly, and only the other form of NAME and NAME.gz exists
    """
    pixel, group = _pixel_and_group(healpix, groupname)
    given = _Inputs(
        night=_number("night", night),
        expid=_number("expid", expid),
        camera=_camera(camera),
        spectrograph=_spectrograph(spectrograph, camera),
        tile=_number("tile", tile),
        healpix=pixel,
        groupname=group,
        subgroup=subgroup,
        survey=survey.lower() if survey else None,
        faprogram=faprogram.lower() if faprogram else None,
        version=version,
        specprod=specprod,
        specprod_dir=specprod_dir,
        rawdata_dir=rawdata_dir,
        calib_dir=calib_dir,
        tiles_dir=tiles_dir,
        qaprod_dir=qaprod_dir,
    )
    template = TEMPLATES[_resolved(filetype, given)]
    _require_inputs(filetype, template, given)
    if outdir is not None:
        template = template.rsplit("/", 1)[1]
    path = template.format(**{name: FIELDS[name][1](given) for name in _field_names(template)})
    if word is not None:
        path = path.replace("ql-qlfile-", f"ql-{word}-").replace("ql-qlfig-", f"ql-{word}-")
    path = os.path.normpath(os.path.join(outdir, path) if outdir is not None else path)
    if logfile:
        path = _log_of(filetype, path)
    if "{gz}" in template and not logfile:
        path = _form_on_disk(path, readonly)
    if readonly:
        path = roots.readonly_path(path)
    return (path, os.path.exists(path)) if return_exists else path


def known_filetypes() -> tuple[str, ...]:
    """All names that `findfile` understands."""
    return tuple(sorted({*TEMPLATES, *ALIASES, *GROUPED}))


def _resolved(filetype: str, given: _Inputs) -> str:
    """The entry of the table that a name stands for."""
    if given.tile is not None and given.healpix is not None:
        raise ValueError(f"findfile {filetype}: tile {given.tile} and healpix {given.healpix} contradict; give one")
    name = ALIASES.get(filetype, filetype)
    if name in GROUPED:
        return f"{name}_pix" if given.healpix is not None else f"{name}_tile"
    if name not in TEMPLATES:
        raise ValueError(f"unknown file type {filetype!r}; known are {', '.join(known_filetypes())}")
    return name


def _require_inputs(filetype: str, template: str, given: _Inputs) -> None:
    missing: list[str] = []
    for name in _field_names(template):
        needs = FIELDS[name][0]
        missing += [n for n in (needs(given) if callable(needs) else needs) if getattr(given, n) is None]
    if missing:
        raise ValueError(f"findfile {filetype}: give {', '.join(dict.fromkeys(missing))}")


def _field_names(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


def _number(name: str, value: Number) -> int | None:
    if value is None or value == "":
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} = {value!r}; expected a whole number") from None


def _camera(camera: str | None) -> str | None:
    if camera is None:
        return None
    if not _CAMERA.match(camera.lower()):
        raise ValueError(f"camera = {camera!r}; expected an arm letter and a spectrograph as in b0, or * for all")
    return camera.lower()


def _spectrograph(spectrograph: Number, camera: str | None) -> int | None:
    if spectrograph is None and camera is not None and camera[-1:].isdigit():
        return int(camera[-1])
    return _number("spectrograph", spectrograph)


def _pixel_and_group(healpix: Number, groupname: Number) -> tuple[int | None, str | None]:
    if healpix is None and groupname is not None and str(groupname).isdigit():
        return int(groupname), None
    return _number("healpix", healpix), None if groupname is None else str(groupname).lower()


def _log_of(filetype: str, path: str) -> str:
    if not filetype.startswith(HAS_LOG):
        raise ValueError(f"files of type {filetype} have no log; those of {', '.join(HAS_LOG)} have")
    folder, name = os.path.split(path)
    return os.path.join(folder, "logs", os.path.splitext(name.removesuffix(".gz"))[0] + ".log")


def _form_on_disk(path: str, readonly: bool) -> str:
    other = str(other_form(path))
    if os.path.exists(path) or not os.path.exists(other):
        return path
    if readonly:
        return other
    raise FileExistsError(f"{path} would stand beside {other}; remove it, or set DESI_COMPRESSION to its form")
