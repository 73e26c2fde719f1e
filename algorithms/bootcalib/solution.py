"""Rows and widths of all wavelengths in all fibers, from lines whose wavelengths are known.

The first solution takes the rows of `follow_lines` as they are. It is then refined by `flexure.dispersion`, which fits
every feature of the line list, blends with all their lines, about its expected row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from algorithms.bootcalib.smooth import fit_fiber_field
from algorithms.flexure.dispersion import measure_lines, visible_features
from algorithms.flexure.windows import tabulate_windows
from algorithms.resolution.lines import lonely_lines, measure_widths
from qlstream.datamodel.image import Image
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.traces import XYTraceSet
from qlstream.numeric import legendre
from qlstream.numeric.legendre import reduced

Array = NDArray[np.float64]

_NODES = 129  # samples of the smooth functions
_FIRST_ERROR = 0.1  # of a line that may be a blend [pixel]
_FLOOR = 0.004  # of any line, e.g. by the response of the pixels [pixel]
_ACROSS = 4  # degree over the fibers
_OWN_DEGREE, _OWN_PRIOR = 2, 0.3  # of what single fibers add to the rows, and its size [pixel]
_ROUNDS = 5  # of the refinement at most
_TOLERANCE = 2e-4  # end of the refinement [pixel]
_CLIP = 4.0  # a line that lies further from the smooth rows of its fibers has no known wavelength [sigma]
_FINEST = 0.004  # but not if it lies closer than this [pixel]
_SIDE = 12  # rows on each side of a line that tell what lies under it
_BRIGHTEST = 8  # lonely lines of a lamp that are looked at
_CLEAR = 10.0  # if they should be so bright [sigma]
_ON = 0.02  # a lamp is on if its lines have at least this share of the light that their strengths imply


@dataclass(frozen=True)
class LineRows:
    """Lines that the wavelengths rest on.

    Attributes
    ----------
    wave : (nline,) [Angstrom]; of a blend, its center
    residual : (nspec, nline) measured less fitted row [pixel]; NaN where a line was not measured
    used : (nline,) bool; False: it lies elsewhere in all fibers
    """

    wave: Array
    residual: Array
    used: NDArray[np.bool_]


def first_rows(
    wave: Array, rows: Array, error: Array, bundle_of: NDArray[np.int64], domain: tuple[float, float], degree: int
) -> Array:
    """(nspec, degree + 1) Legendre series of y over `domain` by lines that may be blended.

    Parameters
    ----------
    wave : (nline,) [Angstrom]
    rows, error : (nspec, nline) [pixel], error infinite where a line was not found

    Raises
    ------
    ValueError : y does not increase with wavelength
    """
    baseline = np.polynomial.polynomial.polyfit(wave, np.nanmedian(np.where(np.isfinite(error), rows, np.nan), 0), 1)
    line = baseline[0] + baseline[1] * wave
    u = reduced(wave, *domain)
    error = np.hypot(error, _FIRST_ERROR)
    shift = fit_fiber_field(u, rows - line, error, bundle_of, _ACROSS, min(degree, 3), 1, 1.0)
    nodes = np.linspace(-1.0, 1.0, _NODES)
    at = domain[0] + 0.5 * (nodes + 1.0) * (domain[1] - domain[0])
    return legendre.fit(nodes, legendre.evaluate(shift, nodes) + baseline[0] + baseline[1] * at, degree)


def refine_rows(
    image: Image,
    traces: XYTraceSet,
    table: NDArray[np.void],
    lit: NDArray[np.bool_],
    bundle_of: NDArray[np.int64],
    degree: int,
    most: int,
) -> tuple[XYTraceSet, LineRows]:
    """Move the rows of all fibers until every feature of the arc lies where it is expected.

    Parameters
    ----------
    image : the arc
    traces : with widths; rows right to half a pixel
    table : lines of the lamps that are on
    lit : (nspec,) fibers with light
    degree : of the rows over wavelength
    most : features that are used
    """
    fibers = np.flatnonzero(lit)
    nodes = np.linspace(-1.0, 1.0, _NODES)
    for _ in range(_ROUNDS):
        features = visible_features(table, traces, most)
        points, feature = measure_lines(image, traces, tabulate_windows(traces, image.ny), features, fibers)
        shift = np.zeros((traces.nspec, len(features)))
        error = np.full(shift.shape, np.inf)
        shift[points["fiber"], feature] = points["shift"]
        error[points["fiber"], feature] = np.hypot(points["error"], _FLOOR)
        blur = features.blur * np.median(traces.dy_dwave(features.center), axis=0)
        u = reduced(features.center, traces.wavemin, traces.wavemax)
        used = np.ones(len(features), dtype=np.bool_)
        for _again in range(3):
            weighed = np.where(used, np.hypot(error, blur), np.inf)
            move = fit_fiber_field(u, shift, weighed, bundle_of, _ACROSS, degree, _OWN_DEGREE, _OWN_PRIOR)
            residual = np.where(np.isfinite(error), shift - legendre.evaluate(move, u), np.nan)
            kept = _well_placed(residual, error, blur)
            if (kept == used).all():
                break
            used = kept
        moved = legendre.evaluate(move, nodes)
        ycoef = traces.ycoef + legendre.fit(nodes, moved, traces.ycoef.shape[1] - 1)
        traces = XYTraceSet(
            traces.xcoef, ycoef, traces.wavemin, traces.wavemax, traces.npix_y, traces.xsigcoef, traces.ysigcoef
        )
        if np.abs(moved).max() < _TOLERANCE:
            break
    return traces, LineRows(features.center, residual, used)


def _well_placed(residual: Array, error: Array, blur: Array) -> NDArray[np.bool_]:
    """(nline,) lines whose median over the fibers lies where the others say."""
    seen = np.isfinite(residual)
    offset = np.array([np.median(r[s]) if s.any() else np.inf for r, s in zip(residual.T, seen.T, strict=True)])
    finite = np.isfinite(offset)
    if finite.sum() < 4:
        return finite
    scatter = 1.4826 * float(np.median(np.abs(offset[finite])))
    noise = 1.2533 / np.sqrt(np.maximum((1.0 / error**2).sum(axis=0), 1e-30))
    return finite & (np.abs(offset) < _CLIP * np.sqrt(scatter**2 + blur**2 + noise**2) + _FINEST)


def burning_lamps(
    table: NDArray[np.void], traces: XYTraceSet, flux: Array, ivar: Array, fiber: int
) -> dict[str, float]:
    """How bright each lamp is against the line list, from its lonely lines in one fiber; 0: it is off.

    Lamps whose lines are all too faint, or blend with those of others, are taken to be as bright as the median.

    Parameters
    ----------
    table : all lines
    flux, ivar : (ny,) spectrum of the fiber [electron/row]
    """
    ny = len(flux)
    part = traces.select(np.array([fiber]))
    wave = np.ascontiguousarray(table["wave"], dtype=float)
    inside = (wave > traces.wavemin) & (wave < traces.wavemax)
    table, wave = table[inside], wave[inside]
    y = part.y_vs_wave(wave)[0]
    width = np.hypot(part.ysig_vs_wave(wave)[0], 12**-0.5)
    # a line counts for its lamp if lines of other lamps add less than a tenth
    alone = np.zeros(len(table), dtype=np.bool_)
    for name in np.unique(table["name"]):
        own = table["name"] == name
        others = table[~own]
        for k in np.flatnonzero(own):
            near = np.abs(others["wave"] - wave[k]) < 5.0 * width[k] / part.dy_dwave(wave[k : k + 1])[0, 0]
            alone[k] = others["strength"][near].sum() < 0.1 * table["strength"][k]
    sums: dict[str, list[tuple[float, float, float]]] = {str(name): [] for name in np.unique(table["name"])}
    for name, seen in sums.items():
        mine = np.flatnonzero((table["name"] == name) & alone & (y > _SIDE) & (y < ny - 1 - _SIDE))
        for k in mine[np.argsort(-table["strength"][mine])][:_BRIGHTEST]:
            rows = np.arange(round(y[k]) - 2, round(y[k]) + 3)
            if (ivar[rows] > 0).all():
                beside = float(np.median(flux[max(rows[0] - _SIDE, 0) : rows[-1] + _SIDE + 1]))
                strength = float(table["strength"][mine][np.abs(y[mine] - y[k]) < 2.0].sum())
                error = float(np.sqrt((1.0 / ivar[rows]).sum()))
                seen.append((float(flux[rows].sum()) - len(rows) * beside, strength, error))
    bright = [light / strength for seen in sums.values() for light, strength, error in seen if light > _CLEAR * error]
    typical = float(np.median(bright)) if bright else 1.0
    lamps = {}
    for name, seen in sums.items():
        ratios = [light / strength / typical for light, strength, error in seen if strength * typical > _CLEAR * error]
        ratio = float(np.median(ratios)) if ratios else 1.0
        lamps[name] = ratio if ratio > _ON else 0.0
    return lamps


def scaled_by_lamps(table: NDArray[np.void], lamps: dict[str, float]) -> NDArray[np.void]:
    """The lines of the lamps that are on, their strengths as these lamps shine."""
    factor = np.array([lamps.get(str(name), 1.0) for name in table["name"]])
    out = table[factor > 0].copy()
    out["strength"] *= factor[factor > 0]
    return out


def line_widths(
    flux: Array,
    ivar: Array,
    traces: XYTraceSet,
    table: NDArray[np.void],
    sigma: float,
    bundle_of: NDArray[np.int64],
    degree: int,
) -> tuple[Array, Array, Array]:
    """Widths along the dispersion by the lines that stand alone.

    Parameters
    ----------
    flux, ivar : (nspec, ny) spectra of the arc [electron/row]
    sigma : width to start from [pixel]

    Returns
    -------
    coef : (nspec, degree + 1) Legendre series over the domain of the traces [pixel]
    wave : (nline,) lines that were measured [Angstrom]
    measured : (nspec, nline) [pixel]; NaN where a line was not
    """
    nspec, ny = flux.shape
    half = 5
    lines = lonely_lines(table, traces, sigma, half, 0.03, 40)
    qframe = QFrame(
        wave=traces.wave_vs_y(np.arange(float(ny))),
        flux=flux.astype(np.float32),
        ivar=ivar.astype(np.float32),
        mask=np.zeros(flux.shape, np.uint32),
        fibers=np.arange(nspec, dtype=np.int32),
    )
    out = np.zeros((nspec, degree + 1))
    out[:, 0] = sigma
    if not len(lines.table):
        return out, lines.wave, np.zeros((nspec, 0))
    expected = np.full((nspec, len(lines.table)), sigma)
    measured = measure_widths(qframe, traces, lines, expected, None, half, 20.0)
    seen = np.isfinite(measured.sigma)
    if seen.any():
        error = np.where(seen, np.hypot(measured.error, 0.01), np.inf)
        value = np.where(seen, measured.sigma, sigma)
        u = reduced(lines.wave, traces.wavemin, traces.wavemax)
        smooth = fit_fiber_field(u, value, error, bundle_of, 3, min(degree, 2), 0, 0.03)
        nodes = np.linspace(-1.0, 1.0, _NODES)
        inside = np.clip(nodes, u[seen.any(axis=0)].min(), u[seen.any(axis=0)].max())
        out = legendre.fit(nodes, legendre.evaluate(smooth, inside), degree)
    return out, lines.wave, measured.sigma
