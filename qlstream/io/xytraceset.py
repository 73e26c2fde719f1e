"""Trace sets: the traces and widths of every fiber, from quicklook `psf` files or from full PSF files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.traces import XYTraceSet
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import HDU, Cards, FitsFile, required, write_fits
from qlstream.numeric import legendre

Array = NDArray[np.float64]
Domain = tuple[float, float]

_SAME_WAVE = 0.001  # domains that differ by less are the same [Angstrom]
_X_NAMES = ("XTRACE", "XCOEF", "XCOEFF")
_Y_NAMES = ("YTRACE", "YCOEF", "YCOEFF")
_OWN_CARDS = ("WAVEMIN", "WAVEMAX", "NPIX_Y", "PSFTYPE", "PSFVER")


@dataclass(frozen=True)
class ParamTable:
    """The PSF table of a PSF file: parameter name -> (nspec, n) Legendre coefficients over `domain`."""

    coef: dict[str, Array]
    domain: Domain
    header: Cards


def read_xytraceset(path: Path | str) -> XYTraceSet:
    """Traces and, where the file has them, Gaussian widths, all over one wavelength domain (spec datamodel §3.2).

    Widths of a Gauss-Hermite table are resampled from the domain of the table to that of the traces.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : no traces, no NPIX_Y, or domains that differ
    """
    with FitsFile(path) as fits:
        table = read_param_table(fits) if "PSF" in fits else None
        return traces_of(fits, table)


def write_xytraceset(path: Path | str, traces: XYTraceSet) -> None:
    """XTRACE, YTRACE and, if known, XSIG and YSIG as float32, each with its domain and NPIX_Y."""
    own = {"WAVEMIN": traces.wavemin, "WAVEMAX": traces.wavemax, "NPIX_Y": traces.npix_y}
    meta = {k: v for k, v in (traces.meta or {}).items() if k not in _OWN_CARDS}
    series = {"XTRACE": traces.xcoef, "YTRACE": traces.ycoef, "XSIG": traces.xsigcoef, "YSIG": traces.ysigcoef}
    write_fits(path, [HDU(name, c.astype(np.float32), {**meta, **own}) for name, c in series.items() if c is not None])


def traces_of(fits: FitsFile, table: ParamTable | None) -> XYTraceSet:
    """As `read_xytraceset`, of an open file and its PSF table."""
    first = fits.header(0)
    if str(first.get("PSFTYPE", "")).strip().lower() == "bootcalib":
        ix: int | None = 0
        iy: int | None = 1
    else:
        ix, iy = fits.find(*_X_NAMES), fits.find(*_Y_NAMES)
    if ix is not None and iy is not None:
        xcoef, domain = _series(fits, ix)
        ycoef = _same_domain(fits, iy, domain)
    elif table is not None and "X" in table.coef and "Y" in table.coef:
        xcoef, ycoef, domain = table.coef["X"], table.coef["Y"], table.domain
    else:
        fits.require(*(_X_NAMES if ix is None else _Y_NAMES))
        raise AssertionError("unreachable")
    if len(xcoef) != len(ycoef):
        raise BadFile(fits.path, f"{len(xcoef)} traces in x, {len(ycoef)} in y", iy, expected="as many in both")
    sigmas: list[Array | None] = []
    for name, param in (("XSIG", "GHSIGX"), ("YSIG", "GHSIGY")):
        if name in fits:
            sigmas.append(_same_domain(fits, fits.require(name), domain))
        elif table is not None and param in table.coef:
            sigmas.append(legendre.on_domain(table.coef[param], table.domain, domain))
        else:
            sigmas.append(None)
    sources = [first, *(fits.header(i) for i in (ix,) if i is not None), *([table.header] if table else [])]
    meta: dict[str, object] = {k: v for k, v in first.items() if k not in _OWN_CARDS}
    traces = XYTraceSet(xcoef, ycoef, *domain, _npix_y(fits, sources), sigmas[0], sigmas[1], meta)
    if sigmas[1] is None and "WSIGMA" in fits:
        wsigma, wdomain = _series(fits, fits.require("WSIGMA"))
        return _with_ysig_from(traces, legendre.on_domain(wsigma, wdomain, domain))
    return traces


def read_param_table(fits: FitsFile) -> ParamTable:
    """The PSF table of an open file.

    Old tables have WAVEMIN and WAVEMAX per row; rows of another domain are resampled to that of the first.

    Raises
    ------
    BadFile : a column or the domain is missing
    """
    rows, header = fits.table("PSF"), fits.header("PSF")
    columns = rows.dtype.names or ()
    for column in ("PARAM", "COEFF"):
        if column not in columns:
            raise BadFile(fits.path, f"no column {column}", "PSF", expected=f"PARAM and COEFF; it has {columns}")
    if "WAVEMIN" in columns and "WAVEMAX" in columns:
        domains = [(float(r["WAVEMIN"]), float(r["WAVEMAX"])) for r in rows]
    else:
        domain = _domain(fits, header, "PSF")
        domains = [domain] * len(rows)
    names = [str(name).strip() for name in rows["PARAM"]]
    coef = {
        name: legendre.on_domain(np.atleast_2d(row["COEFF"]).astype(np.float64), own, domains[0])
        for name, row, own in zip(names, rows, domains, strict=True)
    }
    return ParamTable(coef, domains[0], header)


def _with_ysig_from(traces: XYTraceSet, wsigma: Array) -> XYTraceSet:
    """YSIG [pixel] from the deprecated WSIGMA [Angstrom]: times dy/dwave, fitted to the degree of the product."""
    degree = wsigma.shape[1] + traces.ycoef.shape[1] - 3
    u = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    wave = traces.wavemin + (u + 1) * (traces.wavemax - traces.wavemin) / 2
    ysig = legendre.evaluate(wsigma, u) * traces.dy_dwave(wave)
    return XYTraceSet(
        traces.xcoef, traces.ycoef, traces.wavemin, traces.wavemax, traces.npix_y, traces.xsigcoef,
        legendre.fit(u, ysig, degree), traces.meta,
    )  # fmt: skip


def _series(fits: FitsFile, index: int) -> tuple[Array, Domain]:
    coef = fits.image(index).astype(np.float64)
    if coef.ndim != 2 or not np.isfinite(coef).all():
        raise BadFile(
            fits.path, f"coefficients of shape {coef.shape}", fits.names[index], expected="finite (nspec, ncoef)"
        )
    return coef, _domain(fits, fits.header(index), fits.names[index] or index)


def _same_domain(fits: FitsFile, index: int, domain: Domain) -> Array:
    coef, own = _series(fits, index)
    for keyword, have, want in zip(("WAVEMIN", "WAVEMAX"), own, domain, strict=True):
        if abs(have - want) > _SAME_WAVE:
            raise BadFile(
                fits.path, "domains differ", fits.names[index] or index, keyword, have, f"{want}, as in the x traces"
            )
    return coef


def _domain(fits: FitsFile, header: Cards, hdu: str | int) -> Domain:
    wavemin = required(fits.path, header, "WAVEMIN", float, hdu)
    wavemax = required(fits.path, header, "WAVEMAX", float, hdu)
    if not wavemax > wavemin:
        raise BadFile(fits.path, "empty wavelength domain", hdu, "WAVEMAX", wavemax, f"more than WAVEMIN = {wavemin}")
    return wavemin, wavemax


def _npix_y(fits: FitsFile, sources: Sequence[Cards]) -> int:
    for header in sources:
        if header.get("NPIX_Y") is not None:
            return int(required(fits.path, header, "NPIX_Y", int))
    raise BadFile(fits.path, "missing keyword NPIX_Y", expected="the number of CCD rows, in HDU 0, XTRACE or PSF")
