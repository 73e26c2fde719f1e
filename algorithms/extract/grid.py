"""The common wavelength grid of frames, and spectra per row resampled to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field

from qlstream.datamodel.frame import PER_ANGSTROM, Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import ELECTRON, QFrame
from qlstream.datamodel.resolution import DEFAULT_NDIAG, gaussian_bands
from qlstream.instrument import Arm
from qlstream.numeric.resample import project_counts
from qlstream.pipeline.algorithm import StageParams

Array = NDArray[np.float64]

FINEST = 0.8  # default step of the grid unless the CCD is coarser [Angstrom]
MAX_BINS = 100_000
# Counts of a row are a line integrated over that row and then spread evenly over it: two boxes of one row each.
ROW_VARIANCE = 2.0 / 12.0


def _numbers(value: Any) -> Any:
    """ "3600,5800,0.8" as it stands in configuration files of the seed."""
    return tuple(value.split(",")) if isinstance(value, str) else value


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(f"{number} is even; a band matrix has as many diagonals above as below its middle one")
    return number


def _sensible(grid: tuple[float, float, float]) -> tuple[float, float, float]:
    start, stop, step = grid
    if not (0 < start < stop and step > 0):
        raise ValueError(f"{start}, {stop}, {step} is no grid; write start, stop and step [Angstrom], increasing")
    if (stop - start) / step > MAX_BINS:
        raise ValueError(f"{start}, {stop}, {step} has more than {MAX_BINS} bins")
    return grid


Grid = Annotated[tuple[float, float, float], BeforeValidator(_numbers), AfterValidator(_sensible)]
Odd = Annotated[int, AfterValidator(_odd)]
Spread = Literal["none", "widths", "bands"]  # how a frame tells the spread of its lines


class GridParams(StageParams):
    """Which common grid a frame gets."""

    wavelength: Grid | dict[str, Grid] | None = Field(
        None, alias="Wavelength",
        description="start, stop, step of the grid [Angstrom], or such a grid for each arm by its letter; default: the "
        "instrument's science range",
    )  # fmt: skip
    delta_wave: float | None = Field(
        None, gt=0, alias="DeltaW",
        description="step of the default grid [Angstrom]; default 0.8, or the coarsest row of the CCD if that is more",
    )  # fmt: skip

    barycentric: bool = Field(
        False, description="put the spectra on the wavelengths of the solar system's barycenter, by HELIOCOR"
    )

    def doppler(self, header: Mapping[str, Any]) -> float:
        """What the wavelengths of the traces are multiplied by.

        Raises
        ------
        ValueError : `barycentric`, and the header does not tell
        """
        if not self.barycentric:
            return 1.0
        if "HELIOCOR" not in header:
            raise ValueError("barycentric: the header of the image has no HELIOCOR; the command `extract` computes it")
        return float(header["HELIOCOR"])

    def grid(self, arm: Arm) -> Array:
        """(nwave,) centers of the bins of this arm [Angstrom]; `stop` is one of them if it lies on the grid."""
        chosen = self.wavelength.get(arm.name) if isinstance(self.wavelength, dict) else self.wavelength
        if chosen is None:
            step = self.delta_wave or max(FINEST, np.ceil(10.0 * max(arm.dispersion)) / 10.0)
            chosen = (*arm.wave_science, float(step))
        start, stop, step = chosen
        return np.asarray(start + step * np.arange(int((stop - start) / step + 1e-6) + 1))


class FrameParams(GridParams):
    """Which frame becomes of spectra per row."""

    quick_resolution: bool = Field(
        True, alias="QuickResolution", description="carry the line widths of the traces along [bin]"
    )
    usesigma: bool = Field(
        False, description="carry whole resolution matrices of these widths instead; 20 times as much memory"
    )
    ndiag: Odd = Field(DEFAULT_NDIAG, ge=3, le=101, description="number of diagonals of the resolution, odd")

    def frame_of(self, qframe: QFrame, arm: Arm) -> Frame:
        """`to_common_grid` by these parameters; raises ValueError if `barycentric` and the header has no HELIOCOR."""
        spread: Spread = "bands" if self.usesigma else "widths" if self.quick_resolution else "none"
        moved = replace(qframe, wave=qframe.wave * self.doppler(qframe.meta))
        return to_common_grid(moved, self.grid(arm), spread, self.ndiag)


def to_common_grid(qframe: QFrame, wave: Array, resolution: Spread = "widths", ndiag: int = DEFAULT_NDIAG) -> Frame:
    """Spectra per row as spectra on the bins `wave`, with their totals of counts and of variance kept.

    The counts of each row are shared among the bins by overlap ("S/N conserving", spec preproc-and-extraction §9.1);
    correlations of neighbours are ignored. A bin that meets a row without information, or leaves the spectrum, has
    ivar 0; one that lies wholly beyond the spectrum is NODATA. Masks of all rows that a bin meets are its own.

    The line widths become widths in bins: the variance of a line grows by that of two rows' boxes, ysigma^2 + 1/6
    [pixel^2], before the bins sample it, and the scale is that of bins, not of CCD rows. (The seed left the widths in
    pixels and called them bins, §10.2: the matrices were wrong by 1.4 on a grid of 0.8 Angstrom.)

    Parameters
    ----------
    qframe : in counts per row
    wave : (nwave,) increasing [Angstrom]
    resolution : widths [bin], whole matrices as bands, or none; none, too, if the spectra come without widths
    ndiag : number of diagonals of the matrices

    Raises
    ------
    ValueError : the spectra are not counts per row
    """
    if qframe.bunit != ELECTRON:
        raise ValueError(f"to_common_grid: spectra in {qframe.bunit!r}; only counts per row ({ELECTRON}) can be shared")
    flux, ivar, mask = project_counts(wave, qframe.wave, qframe.flux, qframe.ivar, qframe.mask)
    half = 0.5 * np.gradient(wave)
    first, last = qframe.wave[:, :1] - 0.5 * qframe.dwave[:, :1], qframe.wave[:, -1:] + 0.5 * qframe.dwave[:, -1:]
    mask |= np.where((wave + half <= first) | (wave - half >= last), np.uint32(SpecMask.NODATA), np.uint32(0))
    ysigma = None if qframe.ysigma is None or resolution == "none" else _widths_in_bins(qframe, qframe.ysigma, wave)
    bands = None if ysigma is None or resolution != "bands" else gaussian_bands(ysigma, ndiag)
    return Frame(
        wave=wave,
        flux=flux,
        ivar=ivar,
        mask=mask,
        fibers=qframe.fibers,
        resolution=bands,
        ysigma=ysigma if bands is None else None,
        ndiag=ndiag,
        fibermap=qframe.fibermap,
        bunit=PER_ANGSTROM,
        meta=qframe.meta
        | {"WAVEMIN": float(wave[0]), "WAVEMAX": float(wave[-1]), "WAVESTEP": float(np.median(np.diff(wave)))}
        | {"NSPEC": qframe.nspec, "BUNIT": PER_ANGSTROM},
    )


def _widths_in_bins(qframe: QFrame, ysigma: NDArray[np.float32], wave: Array) -> Array:
    """(nspec, nwave) Gaussian sigma of the line spread on the grid [bin]."""
    angstrom = np.sqrt(ysigma.astype(np.float64) ** 2 + ROW_VARIANCE) * qframe.dwave
    at_bins = np.stack([np.interp(wave, rows, sigma) for rows, sigma in zip(qframe.wave, angstrom, strict=True)])
    return np.asarray(at_bins / np.gradient(wave))
