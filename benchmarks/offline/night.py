"""A small simulated night, reduced by `qlstream reduce`, with its products and its truth at hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from qlstream.calibration.finder import find_calibration
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import Instrument
from qlstream.io.paths import findfile
from qlstream.simulate.night import simulate_night
from qlstream.simulate.schedule import Exposure, plan_night
from qlstream.simulate.targets import Targets, assign_targets

Array = NDArray[np.float64]

NIGHT = 20260115
KINDS = ("arc", "flat", "science-dark", "science-dark")


@dataclass(frozen=True)
class Night:
    """Where everything about a reduced night is.

    Attributes
    ----------
    folder : raw/, calib/, truth/ and redux/
    cameras : of one spectrograph
    kinds : its exposures, numbered from 1
    """

    folder: Path
    instrument: Instrument
    cameras: tuple[str, ...]
    seed: int = 1
    kinds: tuple[str, ...] = KINDS

    @cached_property
    def exposures(self) -> tuple[Exposure, ...]:
        return plan_night(NIGHT, self.seed, self.kinds)

    def of_flavor(self, flavor: str) -> tuple[Exposure, ...]:
        """The exposures of a flavor, in order."""
        return tuple(e for e in self.exposures if e.flavor == flavor)

    def targets(self, exposure: Exposure) -> Targets:
        """What the fibers look at."""
        return assign_targets(self.instrument, exposure, self.seed)

    def product(self, kind: str, exposure: Exposure | None = None, camera: str | None = None, **where: Any) -> Path:
        """The file of a product, as `findfile` names it."""
        expid = None if exposure is None else exposure.expid
        path = findfile(kind, NIGHT, expid, camera=camera, specprod_dir=self.folder / "redux", **where)
        return Path(path)

    def of_petal(self, kind: str) -> Path:
        """The file of a product of the tile that was observed, e.g. coadd_tile."""
        tile = self.of_flavor("science")[0].tileid
        return self.product(kind, tile=tile, spectrograph=int(self.cameras[0][1:]))

    def truth(self, exposure: Exposure, camera: str) -> TruthFile:
        """The truth about one camera of one exposure."""
        expid = f"{exposure.expid:08d}"
        return TruthFile(self.folder / "truth" / str(NIGHT) / expid / f"truth-{camera}-{expid}.fits")

    def calibration_psf(self, camera: str) -> GaussHermitePSF:
        """The PSF of the calibration tree."""
        header = fitsio.read_header(str(self.raw(self.exposures[0])), ext=camera.upper())
        cards = {**dict(header), "CAMERA": camera}
        return find_calibration(cards, self.folder / "calib", None, tonight=False, flavor="arc").psf

    def raw(self, exposure: Exposure) -> Path:
        """The raw exposure."""
        return Path(findfile("raw", NIGHT, exposure.expid, rawdata_dir=self.folder / "raw"))

    def make(self, workers: int = 1, options: Sequence[str] = ()) -> None:
        """Simulate what is not there yet, and reduce it; what is whole is left alone.

        Raises
        ------
        subprocess.CalledProcessError : a task failed; its reason has been printed
        """
        if not all(self.raw(exposure).exists() for exposure in self.exposures):
            simulate_night(
                self.instrument, NIGHT, self.folder, self.cameras, self.seed, kinds=self.kinds, with_noiseless=True,
                report=lambda what: print(f"simulating {what}", flush=True),
            )  # fmt: skip
        command = [sys.executable, "-c", "from qlstream.cli.main import main; main()", "reduce", str(NIGHT)]
        for name in ("raw", "calib", "redux"):
            command += [f"--{name}", str(self.folder / name)]
        subprocess.run([*command, "--workers", str(workers), *options], check=True)


@dataclass(frozen=True)
class TruthFile:
    """A truth file of the simulation; see `qlstream.simulate.truth.write_truth`."""

    path: Path

    def read(self, name: str) -> NDArray[Any]:
        """One of its HDUs."""
        return np.asarray(fitsio.read(str(self.path), ext=name))

    @cached_property
    def wave(self) -> Array:
        return self.read("WAVELENGTH")

    @cached_property
    def targets(self) -> NDArray[Any]:
        return self.read("TARGETS")

    @property
    def traces(self) -> XYTraceSet:
        header = fitsio.read_header(str(self.path), ext="XTRACE")
        x, y, xsig, ysig = (self.read(name).astype(float) for name in ("XTRACE", "YTRACE", "XSIG", "YSIG"))
        return XYTraceSet(x, y, header["WAVEMIN"], header["WAVEMAX"], header["NPIX_Y"], xsig, ysig)

    def at(self, name: str, wave: Array) -> Array:
        """(nspec, n) one of its arrays per row, at the wavelengths `wave`."""
        return np.stack([np.interp(wave, w, values) for w, values in zip(self.wave, self.read(name), strict=True)])
