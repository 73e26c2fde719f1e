"""What is on disk: nights, exposures, and the files of an exposure camera by camera."""

from __future__ import annotations

import re
from pathlib import Path

from qlstream.io.nights import is_night_name
from qlstream.io.paths import findfile
from qlstream.io.roots import rawdata_root, specprod_root

_EXPOSURE = re.compile(r"^\d{8}$")
_CAMERA = re.compile(r"-([brz]\d)-")


def list_nights(specprod_dir: Path | str | None = None, subfolder: str = "exposures") -> list[int]:
    """The nights of a production: the folders of its `subfolder` that are named like one."""
    return sorted(int(p.name) for p in _folders(Path(specprod_root(specprod_dir)) / subfolder) if is_night_name(p.name))


def list_exposures(
    night: int,
    raw: bool = False,
    rawdata_dir: Path | str | None = None,
    specprod_dir: Path | str | None = None,
) -> list[int]:
    """Exposure numbers of a night, raw or of the production: folders named by exactly 8 digits."""
    root = Path(rawdata_root(rawdata_dir)) if raw else Path(specprod_root(specprod_dir)) / "exposures"
    return sorted(int(p.name) for p in _folders(root / str(night)) if _EXPOSURE.match(p.name))


def files_by_camera(
    filetype: str, night: int, expid: int, specprod_dir: Path | str | None = None, camera: str = "*"
) -> dict[str, Path]:
    """Camera -> file of one type and exposure; unfinished files are passed over, either form of .gz is found."""
    pattern = Path(
        findfile(filetype, night=night, expid=expid, camera=camera, specprod_dir=specprod_dir, readonly=True)
    )
    name = pattern.name.removesuffix(".gz")
    found: dict[str, Path] = {}
    for path in sorted([*pattern.parent.glob(name), *pattern.parent.glob(name + ".gz")], reverse=True):
        match = _CAMERA.search(path.name)
        if match and "_tmp" not in path.name:
            found[match[1]] = path
    return dict(sorted(found.items()))


def _folders(root: Path) -> list[Path]:
    return [p for p in root.iterdir() if p.is_dir()] if root.is_dir() else []
