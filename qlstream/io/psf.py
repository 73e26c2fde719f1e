"""Gauss-Hermite PSF files: XTRACE, YTRACE and the PSF table of parameters (spec datamodel §3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import HDU, FitsFile, write_fits
from qlstream.io.xytraceset import read_param_table, traces_of

_NOT_FITTED = ("BUNDLE", "STATUS")  # rows that NPARAMS does not count
_OWN_CARDS = (
    "PSFTYPE", "PSFVER", "FIBERMIN", "FIBERMAX", "WAVEMIN", "WAVEMAX", "NPIX_Y", "NPARAMS", "LEGDEG",
    "GHDEGX", "GHDEGY", "HSIZEX", "HSIZEY",
)  # fmt: skip


def read_psf(path: Path | str) -> GaussHermitePSF:
    """A PSF with its traces; their Gaussian widths are GHSIGX and GHSIGY, resampled to the domain of the traces.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : no PSF table, parameters are missing, or the traces do not read
    """
    with FitsFile(path) as fits:
        table = read_param_table(fits)
        missing = [name for name in ("GHSIGX", "GHSIGY") if name not in table.coef]
        if missing:
            raise BadFile(fits.path, f"no parameter {', '.join(missing)}", "PSF", expected="a GAUSS-HERMITE table")
        traces = traces_of(fits, table)
        terms = [name.split("-")[1:] for name in table.coef if name.startswith("GH-")]
        cards = dict(table.header)
        if isinstance(cards.get("CAMERA"), str):
            cards["CAMERA"] = cards["CAMERA"].strip("' ").lower()  # real files carry the quotes in the value
        return GaussHermitePSF(
            traces=traces,
            coef=table.coef,
            wavemin=table.domain[0],
            wavemax=table.domain[1],
            ghdegx=max((int(i) for i, _ in terms), default=0),
            ghdegy=max((int(j) for _, j in terms), default=0),
            hsizex=int(cards.get("HSIZEX", 8)),
            hsizey=int(cards.get("HSIZEY", 5)),
            meta=cards,
        )


def write_psf(path: Path | str, psf: GaussHermitePSF) -> None:
    """Traces as float64 images and the parameters as table rows in the order of `psf.coef`."""
    nspec = psf.traces.nspec
    ncoef = max(c.shape[1] for c in psf.coef.values())
    rows = np.zeros(
        len(psf.coef),
        dtype=[("PARAM", "S8"), ("COEFF", "f8", (nspec, ncoef)), ("LEGDEGX", "i4", (1,)), ("LEGDEGW", "i4", (1,))],
    )
    for row, (name, coef) in zip(rows, psf.coef.items(), strict=True):
        row["PARAM"] = name.ljust(8)
        row["COEFF"][:, : coef.shape[1]] = coef
        row["LEGDEGX"] = 0 if name == "GH-0-0" else 1
        row["LEGDEGW"] = coef.shape[1] - 1 if coef[:, 1:].any() else 0
    kind = {"PSFTYPE": "GAUSS-HERMITE"}
    fibers = {"FIBERMIN": int(psf.meta.get("FIBERMIN", 0))}
    fibers["FIBERMAX"] = fibers["FIBERMIN"] + nspec - 1
    domain = {"WAVEMIN": psf.traces.wavemin, "WAVEMAX": psf.traces.wavemax}
    own: dict[str, Any] = {
        "PSFVER": "3",
        "NPIX_Y": psf.traces.npix_y,
        "HSIZEX": psf.hsizex,
        "HSIZEY": psf.hsizey,
        "NPARAMS": sum(name not in _NOT_FITTED for name in psf.coef),
        "LEGDEG": ncoef - 1,
        "GHDEGX": psf.ghdegx,
        "GHDEGY": psf.ghdegy,
        "WAVEMIN": psf.wavemin,
        "WAVEMAX": psf.wavemax,
    }
    meta = {k: v for k, v in psf.meta.items() if k not in _OWN_CARDS}
    write_fits(
        path,
        [
            HDU("XTRACE", psf.traces.xcoef, {**fibers, **domain, **kind, "PSFVER": 3}),
            HDU("YTRACE", psf.traces.ycoef, {**fibers, **domain}),
            HDU("PSF", rows, {**kind, **own, **fibers, **meta}),
        ],
    )
