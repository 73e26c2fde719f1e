"""CCD images: one raw readout, and its preprocessed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.amplifier import Amp, trimmed_shape
from qlstream.datamodel.traces import XYTraceSet


@dataclass(frozen=True)
class RawCamera:
    """One camera HDU of a raw exposure, untouched.

    Attributes
    ----------
    pix : (ny_raw, nx_raw) uint16, int16 or int32 [ADU]
    camera : arm letter + spectrograph, e.g. "r3"
    header : camera header, with the cards of the exposure header that it lacks
    primary : exposure header (the HDU that has EXPTIME)
    amps : amplifiers in the order A, B, C, D
    hdus : names of all HDUs of the file, in order
    path : the file
    """

    pix: NDArray[Any]
    camera: str
    header: dict[str, Any]
    primary: dict[str, Any]
    amps: tuple[Amp, ...]
    hdus: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def trimmed_shape(self) -> tuple[int, int]:
        return trimmed_shape(self.amps)


@dataclass(frozen=True)
class AmpReadout:
    """What preprocessing measured on one amplifier.

    Attributes
    ----------
    amp : the amplifier and its sections
    gain : [electron/ADU]
    overscan : level of the overscan [ADU]
    readnoise : robust scatter of the overscan [electron]
    ostep : largest minus smallest step between successive overscan rows [ADU]
    saturlev : saturation level, bias included [ADU]
    overscan_rows : (nrow,) float32, level of each overscan row less `overscan` [ADU]
    overscan_method : "AVERAGE" or "PER_ROW"
    row_pattern : scatter of the row levels beyond what `readnoise` implies [electron]
    low_outliers : overscan pixels more than 5 sigma below the level, per million
    """

    amp: Amp
    gain: float
    overscan: float
    readnoise: float
    ostep: float
    saturlev: float
    overscan_rows: NDArray[np.float32]
    overscan_method: str = "AVERAGE"
    row_pattern: float = 0.0
    low_outliers: float = 0.0

    @property
    def name(self) -> str:
        return self.amp.name


@dataclass(frozen=True)
class TraceShifts:
    """Displacement of the spectra on the CCD against the calibration traces, sampled per fiber and wavelength.

    Attributes
    ----------
    wave : (n,) [Angstrom]
    dx, dy : (nspec, n) float64 [pixel], the fitted smooth field
    npoints_x, npoints_y : measurements that survived the clipping
    rms_x, rms_y : robust scatter of the measurements about the field [pixel]
    method_x, method_y : how it was measured, e.g. "profile", "arc lines", "sky lines", "carried over"
    warnings : what could not be measured and why, in plain words
    points_x, points_y : the measurements: fiber (index), wave [Angstrom], shift, error [pixel], used; or None
    """

    wave: NDArray[np.float64]
    dx: NDArray[np.float64]
    dy: NDArray[np.float64]
    npoints_x: int
    npoints_y: int
    rms_x: float
    rms_y: float
    method_x: str
    method_y: str
    warnings: tuple[str, ...] = ()
    points_x: NDArray[np.void] | None = None
    points_y: NDArray[np.void] | None = None


@dataclass(frozen=True)
class Image:
    """A preprocessed CCD image.

    Attributes
    ----------
    pix : (ny, nx) float32 [electron]
    ivar : (ny, nx) float32 [electron^-2]; 0 means no information; not zeroed by the mask
    mask : (ny, nx) uint16, CCDMask bits
    camera : e.g. "r3"
    readouts : per amplifier, in the order A, B, C, D; read noise and gain live here
    meta : header cards
    readnoise_image : (ny, nx) float32 [electron] if a file brought one; else `readnoise` expands the readouts
    traces : traces of this very exposure, set by Flexure
    shifts : how they differ from the calibration traces, set by Flexure
    """

    pix: NDArray[np.float32]
    ivar: NDArray[np.float32]
    mask: NDArray[np.uint16]
    camera: str
    readouts: tuple[AmpReadout, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    readnoise_image: NDArray[np.float32] | None = None
    traces: XYTraceSet | None = None
    shifts: TraceShifts | None = None

    def __post_init__(self) -> None:
        if not (self.pix.shape == self.ivar.shape == self.mask.shape) or self.pix.ndim != 2:
            raise ValueError(
                f"Image {self.camera}: pix {self.pix.shape}, ivar {self.ivar.shape}, mask {self.mask.shape} "
                "must be of one shape (ny, nx)"
            )

    @property
    def ny(self) -> int:
        return int(self.pix.shape[0])

    @property
    def nx(self) -> int:
        return int(self.pix.shape[1])

    @property
    def readnoise(self) -> NDArray[np.float32]:
        """(ny, nx) float32 [electron], expanded from the amplifiers (one value each) unless a file brought it."""
        if self.readnoise_image is not None:
            return self.readnoise_image
        full = np.zeros(self.pix.shape, dtype=np.float32)
        for readout in self.readouts:
            full[readout.amp.ccdsec.slices] = readout.readnoise
        return full
