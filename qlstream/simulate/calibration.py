"""The calibration tree of a simulated instrument, in the layout of DESI's (spec raw-and-calib §7)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.masks import SpecMask
from qlstream.io.fiberflat import write_fiberflat
from qlstream.io.fitsfile import HDU, write_fits
from qlstream.io.fluxcalib import write_average_fluxcalib
from qlstream.io.psf import write_psf
from qlstream.simulate.detector import BIAS_FRAMES, DARK_EXPTIME, DARK_FRAMES, Detector
from qlstream.simulate.exposure import CameraModel
from qlstream.simulate.headers import CCD_CONFIG, CCD_TIMING, SM_OF_SP, detector_name
from qlstream.simulate.lamps import FLAT_EXPTIME, flat_light
from qlstream.simulate.seeds import generator

FIRST_NIGHT = 20200101
FLAT_ERROR = 0.002  # of the fiber flat, relative
FLUX_UNIT = {"BUNIT": "10**+17 cm2 electron / erg"}  # per second of exposure


def write_spectrograph_map(calib: Path) -> None:
    """spec/smsp.txt: which hardware spectrograph (SM) stands for which logical one (SP)."""
    path = calib / "spec" / "smsp.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"sp{sp} sm{sm}\n" for sp, sm in sorted(SM_OF_SP.items())))


def write_calibration(calib: Path, model: CameraModel, with_fluxcalib: bool = True) -> None:
    """Bias, dark, pixel flat, mask, PSF, fiber flat, flux calibration and the YAML that names them, of one camera.

    PSF, fiber flat, pixel flat, mask and flux calibration are the truth; bias and dark carry the noise of the many
    frames they are the mean of. Exposures differ from the PSF by their flexure.
    """
    camera, spectrograph = model.camera, model.instrument.spectrograph(model.camera)
    sm, arm = f"sm{SM_OF_SP[spectrograph]}", camera[0]
    files = {
        "BIAS": f"ccd/bias-{sm}-{camera}-{FIRST_NIGHT}.fits.gz",
        "DARK": f"ccd/dark-{sm}-{camera}-{FIRST_NIGHT}.fits.gz",
        "PIXFLAT": f"ccd/pixflat-{sm}-{camera}-{FIRST_NIGHT}.fits.gz",
        "MASK": f"ccd/pixmask-{sm}-{camera}-{FIRST_NIGHT}.fits.gz",
        "PSF": f"spec/{sm}/psf-{sm}-{camera}-{FIRST_NIGHT}.fits",
        "FIBERFLAT": f"spec/{sm}/fiberflat-{sm}-{camera}-{FIRST_NIGHT}.fits",
    }
    if with_fluxcalib:
        files["FLUXCALIB"] = f"spec/fluxcalib/fluxcalib-{sm}-{camera}-{FIRST_NIGHT}.fits"
    for path in files.values():
        (calib / path).parent.mkdir(parents=True, exist_ok=True)
    detector, cards = model.detector, {"CAMERA": camera, "DETECTOR": detector_name(camera, spectrograph)}
    bias, dark = _master_frames(model)
    write_fits(calib / files["BIAS"], [HDU("BIAS", _rounded(bias, 2.0**-7), {**cards, "BUNIT": "adu"})])
    write_fits(calib / files["DARK"], [HDU("DARK", _rounded(dark, 2.0**-20), {**cards, "BUNIT": "electron/s"})])
    write_fits(calib / files["PIXFLAT"], [HDU("PIXFLAT", _rounded(detector.pixflat, 2.0**-13), cards)])
    write_fits(calib / files["MASK"], [HDU("MASK", detector.mask.astype(np.int32), cards)])
    write_psf(calib / files["PSF"], model.optics.psf)
    write_fiberflat(calib / files["FIBERFLAT"], _fiberflat(model))
    if with_fluxcalib:
        average = replace(model.throughput.fluxcalib(model.instrument), meta={"CAMERA": camera, **FLUX_UNIT})
        write_average_fluxcalib(calib / files["FLUXCALIB"], average)
    entry = {**_yaml_entry(model, camera, spectrograph), **files}
    configuration = {f"{sm}-{arm}": {f"v{FIRST_NIGHT}": entry}}
    text = yaml.safe_dump(configuration, sort_keys=False, default_flow_style=False)
    (calib / "spec" / sm / f"{sm}-{arm}.yaml").write_text(text)


def _yaml_entry(model: CameraModel, camera: str, spectrograph: int) -> dict[str, Any]:
    detector, fibers = model.detector, model.throughput.fibers
    entry: dict[str, Any] = {
        "DATE-OBS-BEGIN": str(FIRST_NIGHT),
        "DETECTOR": detector_name(camera, spectrograph),
        "CCDCFG": CCD_CONFIG,
        "CCDTMING": CCD_TIMING,
        "DOSVER": "trunk",
        "FEEVER": "v20160312",
        "AMPLIFIERS": "".join(amp.name for amp in detector.amps),
    }
    entry |= {f"GAIN{amp}": gain for amp, gain in detector.gain.items()}
    entry |= {f"SATURLEV{amp}": level for amp, level in detector.saturlev.items()}
    entry |= {f"CROSSTALK{a}{b}": fraction for (a, b), fraction in detector.crosstalk.items()}
    for amp, (amplitude, width) in detector.trail.items():
        entry |= {f"DARKTRAILAMP{amp}": amplitude, f"DARKTRAILWIDTH{amp}": width}
    entry["BROKENFIBERS"] = _listed(fibers.is_broken)
    entry["LOWTRANSMISSIONFIBERS"] = _listed(fibers.is_low)
    return entry


def _listed(flags: NDArray[np.bool_]) -> str:
    return ",".join(str(i) for i in np.flatnonzero(flags))


def _master_frames(model: CameraModel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bias and dark as means of many frames: the truth and the noise that is left."""
    detector: Detector = model.detector
    rng = generator(model.seed, model.camera, "master frames")
    bias = rng.standard_normal(detector.bias.shape, dtype=np.float32)
    dark = rng.standard_normal(detector.dark.shape, dtype=np.float32)
    for amp in detector.amps:
        noise = detector.readnoise[amp.name]
        bias[detector.region(amp)] *= np.float32(noise / detector.gain[amp.name] / np.sqrt(BIAS_FRAMES))
        dark[amp.ccdsec.slices] *= np.float32(noise / DARK_EXPTIME / np.sqrt(DARK_FRAMES))
    return bias + detector.bias, dark + detector.dark


def _rounded(image: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """Steps far below the noise, which make the file much smaller and quicker to write."""
    return np.rint(image / np.float32(step)) * np.float32(step)


def _fiberflat(model: CameraModel) -> FiberFlat:
    traces, arm = model.optics.traces, model.detector.arm
    step = max(0.8, 0.5 * min(arm.dispersion))
    wave = np.arange(traces.wavemin, traces.wavemax + step, step)
    flat = model.throughput.relative(wave)
    is_dead = flat <= 0
    lamp = flat_light(arm, wave, FLAT_EXPTIME) * model.throughput.of_arm(wave) / arm.throughput
    return FiberFlat(
        wave=wave,
        fiberflat=flat,
        ivar=np.where(is_dead, 0.0, FLAT_ERROR**-2),
        mask=np.where(is_dead, int(SpecMask.BADFIBERFLAT), 0).astype(np.uint32),
        meanspec=lamp * np.median(model.throughput.of_fibers(wave), axis=0),
        fibers=model.instrument.fibers(model.camera),
        chi2pdf=1.0,
        meta={"CAMERA": model.camera},
    )
