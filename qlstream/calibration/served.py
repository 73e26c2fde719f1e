"""The calibration that serves one camera of one exposure, loaded piece by piece when a stage asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.fluxcalib import FluxCalib
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet


class MissingCalibration(LookupError):
    """No calibration of this kind serves this exposure; the stages that need it are skipped."""


@dataclass(frozen=True)
class CalibrationUse:
    """Which file served, for the record.

    Attributes
    ----------
    kind : BIAS, DARK, PIXFLAT, MASK, PSF, TRACES, FIBERFLAT or FLUXCALIB
    path : the file
    origin : "tonight" (made from an earlier exposure of the night), "night" (calibnight), "tree", "expired",
        "series" (DESI_SPECTRO_DARK), or "chosen" (of the exposure that the user named)
    mjd : of the exposure it was made from, if known
    """

    kind: str
    path: Path
    origin: str = "tree"
    mjd: float | None = None


class Calibration:
    """Bias, dark, pixel flat, mask, PSF, traces, fiber flat and flux calibration of one camera.

    Parameters
    ----------
    camera, night : for messages
    parts : kind -> value, or a function that loads it; a kind that is not there is missing
    cards : entries of the calibration tree's YAML: GAINA, SATURLEVA, CROSSTALKAB ...
    why_missing : kind -> reason, for the message
    bad_amps : letters of the camera's amplifiers that are known to be bad
    """

    def __init__(
        self,
        camera: str,
        night: int,
        parts: Mapping[str, Any | Callable[[], Any]],
        cards: Mapping[str, Any] | None = None,
        uses: Mapping[str, CalibrationUse] | None = None,
        why_missing: Mapping[str, str] | None = None,
        bad_amps: str = "",
    ) -> None:
        self.camera = camera
        self.night = night
        self.bad_amps = bad_amps
        self.cards: dict[str, Any] = dict(cards or {})
        self._parts = dict(parts)
        self._uses = dict(uses or {})
        self._why = dict(why_missing or {})
        self.used: list[CalibrationUse] = []

    def __contains__(self, kind: str) -> bool:
        return kind in self._parts

    def get(self, kind: str) -> Any:
        """The part `kind`; it is loaded once and noted in `used`.

        Raises
        ------
        MissingCalibration : there is none
        """
        if kind not in self._parts:
            why = self._why.get(kind)
            raise MissingCalibration(f"no {kind} for {self.camera} on {self.night}" + (f": {why}" if why else ""))
        part = self._parts[kind]
        if callable(part):
            part = self._parts[kind] = part()
        use = self._uses.pop(kind, None)
        if use is not None:
            self.used.append(use)
        return part

    def file(self, kind: str) -> Path:
        """The file that serves as `kind`, unread.

        Raises
        ------
        MissingCalibration : there is none
        """
        use = self._uses.get(kind)
        if use is None:
            why = self._why.get(kind)
            raise MissingCalibration(f"no {kind} for {self.camera} on {self.night}" + (f": {why}" if why else ""))
        return use.path

    @property
    def bias(self) -> NDArray[np.float32]:
        """(ny_raw, nx_raw) float32 [ADU]."""
        return self.get("BIAS")

    def dark(self, exptime: float) -> NDArray[np.float32]:
        """(ny, nx) float32 [electron] for an exposure of `exptime` [second]."""
        part = self.get("DARK")
        return part * np.float32(exptime) if isinstance(part, np.ndarray) else part.at(exptime)

    @property
    def pixflat(self) -> NDArray[np.float32]:
        """(ny, nx) float32, about 1."""
        return self.get("PIXFLAT")

    @property
    def mask(self) -> NDArray[np.uint16]:
        """(ny, nx) uint16, CCDMask bits of known bad pixels."""
        return self.get("MASK")

    @property
    def psf(self) -> GaussHermitePSF:
        """Spot shapes of the calibration tree."""
        return self.get("PSF")

    @property
    def traces(self) -> XYTraceSet:
        """Traces to start from: those of the latest arc of the night, else those of the PSF."""
        return self.get("TRACES") if "TRACES" in self else self.psf.traces

    @property
    def fiberflat(self) -> FiberFlat:
        """The latest fiber flat before the exposure."""
        return self.get("FIBERFLAT")

    @property
    def fluxcalib(self) -> FluxCalib:
        """Average flux calibration, if the tree has one."""
        return self.get("FLUXCALIB")
