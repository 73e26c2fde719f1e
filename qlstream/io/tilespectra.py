"""The spectra of a tile: its files of all petals, read as one (spec paths-and-names §2.4)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.spectra import Spectra, stack, stack_tables
from qlstream.io.firstheader import read_first_header
from qlstream.io.listing import files_by_camera, list_exposures, list_nights
from qlstream.io.nights import is_night_name
from qlstream.io.paths import findfile
from qlstream.io.redshifts import read_redshifts
from qlstream.io.roots import specprod_root
from qlstream.io.spectra import read_spectra

_NODATA = 1 << 9  # ZWARN bit
_PETALS = range(10)  # one digit in the names of files

Redshifts = NDArray[Any]


def read_tile_spectra(
    tileid: int,
    night: int | None = None,
    *,
    expid: int | None = None,
    specprod: str | None = None,
    specprod_dir: Path | str | None = None,
    coadd: bool = False,
    targets: Collection[int] | None = None,
    fibers: Collection[int] | None = None,
    redrock: bool = True,
    group: str | None = None,
    spectrographs: Iterable[int] | None = None,
) -> Spectra | tuple[Spectra, Redshifts]:
    """The spectra of a tile from the files of all its petals, in their order, and their redshifts row by row.

    Parameters
    ----------
    night : in the names of the files; default the last one that the production has of this tile
    expid : in place of the night, for group perexp
    specprod, specprod_dir : production, or its folder, in place of the environment's
    coadd : read coadds, one row per target, instead of one row per target and exposure
    targets, fibers : TARGETID and FIBER to keep; default all
    redrock : also return the redshifts
    group : cumulative (default), pernight, perexp, or a group of your own
    spectrographs : whose files are read; default all there are

    Returns
    -------
    spectra : all that match
    redshifts : only with `redrock`: its REDSHIFTS table, one row per spectrum, so a target may come more than once;
        a target that redrock did not measure has Z nan and ZWARN 512 (NODATA)

    Raises
    ------
    FileNotFoundError : no spectra of this tile, or no redshifts; the message says where they were looked for
    LookupError : no spectrum matches
    BadFile : a file cannot be read
    """
    group = group or "cumulative"
    prod = Path(specprod_root(specprod_dir, specprod))
    where: dict[str, Any] = {"tile": tileid, "groupname": group, "specprod_dir": prod, "readonly": True}
    if group == "perexp":
        where["expid"] = expid if expid is not None else _last(prod, group, tileid, 8)
    elif group in ("cumulative", "pernight"):
        where["night"] = night if night is not None else _last(prod, group, tileid, 0)
    else:
        where["subgroup"] = str(night) if night is not None else None
    kind = "coadd_tile" if coadd else "spectra_tile"
    parts, tables, missing = [], [], []
    chosen = _PETALS if spectrographs is None else sorted(set(spectrographs))
    for petal in chosen:
        path = Path(findfile(kind, spectrograph=petal, **where))
        if not path.exists():
            missing.append(path)
            continue
        part = _matching(read_spectra(path), targets, fibers)
        if not len(part):
            continue
        parts.append(part)
        redshifts = Path(findfile("redrock_tile", spectrograph=petal, **where))
        if redrock and redshifts.exists():
            tables.append(read_redshifts(redshifts))
    if len(missing) == len(chosen):
        raise FileNotFoundError(f"no {kind.removesuffix('_tile')} of tile {tileid}, group {group}: no {missing[0]} ...")
    if not parts:
        raise LookupError(f"tile {tileid}: none of its spectra is of the targets or fibers asked for")
    spectra = stack(parts)
    if not redrock:
        return spectra
    if not tables:
        raise FileNotFoundError(
            f"no redshifts of tile {tileid}, group {group}, beside its spectra; redrock=False reads these alone"
        )
    return spectra, redshifts_of(spectra.fibermap["TARGETID"], stack_tables(tables))


def redshifts_of(targetids: NDArray[np.integer[Any]], table: Redshifts) -> Redshifts:
    """The rows of a redshift table for these targets, one each, in their order; Z nan, ZWARN 512 for unknown ones."""
    row = {target: n for n, target in enumerate(table["TARGETID"].tolist())}
    at = np.array([row.get(target, -1) for target in targetids.tolist()], dtype=np.int64)
    known = at >= 0
    out = np.zeros(len(targetids), table.dtype)
    out[known] = table[at[known]]
    out["TARGETID"] = targetids
    for name in ("Z", "ZERR"):
        out[name][~known] = np.nan
    out["ZWARN"][~known] = _NODATA
    return out


def list_tile_exposures(
    tileid: int | None = None, through: int | None = None, specprod_dir: Path | str | None = None
) -> list[tuple[int, int, int]]:
    """(TILEID, NIGHT, EXPID) of the exposures that a production has calibrated frames of, by night and number.

    Parameters
    ----------
    tileid : one tile only
    through : last night that counts
    """
    found = []
    for night in list_nights(specprod_dir):
        if through is not None and night > through:
            break
        for expid in list_exposures(night, specprod_dir=specprod_dir):
            files = files_by_camera("cframe", night, expid, specprod_dir)
            if not files:
                continue
            first = next(iter(files.values()))
            tile = _tile_of(first, first.stat().st_mtime_ns)
            if tileid is None or tile == tileid:
                found.append((tile, night, expid))
    return found


@lru_cache(maxsize=100_000)
def _tile_of(path: Path, _changed_ns: int) -> int:
    """TILEID of the first header, -1 if it has none."""
    return int(read_first_header(path).get("TILEID", -1))


def _matching(spectra: Spectra, targets: Collection[int] | None, fibers: Collection[int] | None) -> Spectra:
    """Those of the targets and fibers; a coadd's fibers may stand in the table of its exposures only."""
    keep = np.ones(len(spectra), dtype=bool)
    ids = spectra.fibermap["TARGETID"]
    if targets is not None:
        keep &= np.isin(ids, list(targets))
    if fibers is not None:
        if "FIBER" in (spectra.fibermap.dtype.names or ()):
            keep &= np.isin(spectra.fibermap["FIBER"], list(fibers))
        else:
            exposures = spectra.exp_fibermap
            if exposures is None:
                raise LookupError("cannot choose by fiber: neither FIBERMAP nor EXP_FIBERMAP has FIBER")
            keep &= np.isin(ids, exposures["TARGETID"][np.isin(exposures["FIBER"], list(fibers))])
    return spectra if keep.all() else spectra[keep]


def _last(prod: Path, group: str, tileid: int, digits: int) -> int:
    """The last night (or exposure, of 8 digits) that a tile has a folder for."""
    folder = prod / "tiles" / group / str(tileid)
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    fitting = [n for n in names if n.isdigit() and (len(n) == digits if digits else is_night_name(n))]
    if not fitting:
        raise FileNotFoundError(f"no spectra of tile {tileid}, group {group}: nothing in {folder}")
    return max(map(int, fitting))
