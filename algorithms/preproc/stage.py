"""From the raw readout to an image in electrons, with its variance and its flags."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.preproc.cosmics import CosmicLimits, flag_cosmics
from algorithms.preproc.overscan import Overscan, measure_overscan, pixel_noise
from algorithms.preproc.pixels import AmpCalibration, PixelCalibration, calibrate_pixels
from algorithms.preproc.sharpness import SharpnessMap, sharpness_of_arm, sharpness_of_traces
from qlstream.calibration.dark import Dark
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.amplifier import Amp
from qlstream.datamodel.image import AmpReadout, Image, RawCamera
from qlstream.datamodel.masks import CCDMask
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context

Use = Literal["required", "optional", "skip"]
Part = TypeVar("Part")

_ADC_MAX = 65535.0  # of the 16-bit converters: the saturation level where nobody gives one (spec preproc §2)
_DEAD_NOISE = 0.1  # [ADU]; digitisation alone scatters by 0.29, so less means that nothing was read


class Preproc(PipelineAlg[RawCamera, Image]):
    """Overscan, bias, cross-talk, gain, dark, pixel flat, flags, variance and cosmic rays (spec preproc §1-§6).

    The arrays of the Image belong to `context.buffers`: the next camera of this worker overwrites them.
    """

    class Params(StageParams):
        bias: Use = Field("optional", description="master bias; an optional one that is missing is left out")
        dark: Use = Field("optional", description="dark current")
        pixflat: Use = Field("optional", description="pixel flat field")
        mask: Use = Field("optional", description="known bad pixels")
        row_step: float = Field(2.0, gt=0, description="overscan step from which each row gets its own level [ADU]")
        bad_row_step: float = Field(5.0, gt=0, description="overscan step that makes an amplifier BADREADNOISE [ADU]")
        bad_readnoise: float = Field(15.0, gt=0, description="read noise that is BADREADNOISE [electron]")
        cosmics: bool = Field(True, description="look for cosmic rays")
        cosmics_nsig: float = Field(4.5, ge=3, le=20, description="excess of a cosmic ray's core [sigma]")
        cosmics_sharp: float = Field(
            0.88, gt=0, le=1, description="neighbours of a core are fainter than optics allow by this factor"
        )
        cosmics_grow: float = Field(2.5, ge=1, le=20, description="excess of a cosmic ray's fringe [sigma]")

    def run(self, data: RawCamera, context: Context) -> Image:
        """Raises MissingCalibration if no gain is known, or if a required calibration is missing."""
        meta: dict[str, Any] = dict(data.header)
        calibration = self._calibration(data, context, meta)
        readouts, amps = [], []
        for amp in data.amps:
            overscan = measure_overscan(data.pix, calibration.bias, amp, self.params.row_step)
            readout = _readout(amp, overscan, context)
            readouts.append(readout)
            amps.append(self._amp_calibration(readout, overscan, calibration, data.amps, context))
            meta.update(_cards(readout))

        shape = data.trimmed_shape
        pix = context.buffers.get("preproc.pix", shape, np.float32)
        ivar = context.buffers.get("preproc.ivar", shape, np.float32)
        mask = context.buffers.get("preproc.mask", shape, np.uint16)
        calibrate_pixels(data.pix, amps, calibration, pix, ivar, mask)
        if self.params.cosmics:
            p = self.params
            limits = CosmicLimits(seed=p.cosmics_nsig, sharp=p.cosmics_sharp, grow=p.cosmics_grow)
            floors = [(a.amp.ccdsec, a.variance) for a in amps]
            hits = context.buffers.get("preproc.hits", (pix.size // 8,), np.int32)
            meta["NCOSMIC"] = flag_cosmics(pix, mask, floors, _sharpness(shape, context), limits, hits)
        return Image(pix, ivar, mask, data.camera, tuple(readouts), meta)

    def _calibration(self, raw: RawCamera, context: Context, meta: dict[str, Any]) -> PixelCalibration:
        """The images that serve; what is left out, and why, goes to `meta` (PPBIAS ...)."""
        served = context.calibration

        def get(kind: str, use: Use, load: Callable[[], Part], card: str) -> Part | None:
            if use == "skip":
                meta[card] = "left out: not wanted"
                return None
            try:
                part = load()
            except MissingCalibration as missing:
                if use == "required":
                    raise
                context.log.warning("preprocessing goes on without %s: %s", kind, missing)
                meta[card] = f"left out: {missing}"
                return None
            meta[card] = "done"
            return part

        p, exptime = self.params, context.exptime
        dark = get("DARK", p.dark, lambda: _dark(served.get("DARK"), exptime, raw), "PPDARK") if exptime > 0 else None
        bias = get("BIAS", p.bias, lambda: served.bias, "PPBIAS")
        pixflat = get("PIXFLAT", p.pixflat, lambda: served.pixflat, "PPFLAT")
        mask = get("MASK", p.mask, lambda: served.mask, "PPMASK")
        image, factor = dark or (None, 0.0)
        return PixelCalibration(bias, image, factor, pixflat, mask)

    def _amp_calibration(
        self,
        readout: AmpReadout,
        overscan: Overscan,
        calibration: PixelCalibration,
        others: tuple[Amp, ...],
        context: Context,
    ) -> AmpCalibration:
        name, log = readout.name, context.log
        variance = readout.readnoise**2
        flags = int(CCDMask.BADAMP) if name in context.calibration.bad_amps else 0
        if not (np.isfinite(readout.readnoise) and overscan.noise >= _DEAD_NOISE and overscan.level < readout.saturlev):
            log.warning(
                "amplifier %s is dead: overscan level %.1f ADU, noise %.3f ADU", name, overscan.level, overscan.noise
            )
            flags |= CCDMask.BADAMP | CCDMask.BADREADNOISE
            variance = 0.0
        elif readout.readnoise > self.params.bad_readnoise or readout.ostep > self.params.bad_row_step:
            log.warning("amplifier %s: read noise %.2f e, row step %.2f ADU", name, readout.readnoise, readout.ostep)
            flags |= CCDMask.BADREADNOISE
        _compare_readnoise(readout, context)
        if variance > 0 and calibration.dark is not None:
            variance += (pixel_noise(calibration.dark, readout.amp.ccdsec) * calibration.exptime) ** 2
        return AmpCalibration(
            amp=readout.amp,
            gain=readout.gain,
            saturlev=readout.saturlev,
            level=np.nan_to_num(overscan.subtract),
            variance=variance,
            flags=int(flags),
            crosstalk={
                other.name: float(context.calibration.cards.get(f"CROSSTALK{other.name}{name}", 0.0) or 0.0)
                for other in others
                if other.name != name
            },
        )


def _readout(amp: Amp, overscan: Overscan, context: Context) -> AmpReadout:
    gain = _card("GAIN" + amp.name, context)
    if gain is None or not 0 < gain < math.inf:
        raise MissingCalibration(
            f"no gain for amplifier {amp.name} of {context.camera}: neither the header nor the calibration of "
            f"{context.night} has a positive GAIN{amp.name} (got {gain}); add it to the calibration tree [electron/ADU]"
        )
    saturlev = _card("SATURLEV" + amp.name, context)
    return AmpReadout(
        amp=amp,
        gain=gain,
        overscan=overscan.level,
        readnoise=overscan.noise * gain,
        ostep=overscan.step,
        saturlev=_ADC_MAX if saturlev is None else saturlev,
        overscan_rows=overscan.rows,
        overscan_method=overscan.method,
        row_pattern=overscan.row_pattern * gain,
        low_outliers=overscan.low_outliers,
    )


def _card(key: str, context: Context) -> float | None:
    """A number from the header, else from the calibration tree; None if neither has one."""
    for cards in (context.header, context.calibration.cards):
        value = cards.get(key)
        if value is not None:
            try:
                return float(value)
            except (TypeError, ValueError):
                context.log.warning("%s = %r is no number and is passed over", key, value)
    return None


def _cards(readout: AmpReadout) -> Mapping[str, Any]:
    """Header cards of one amplifier (spec raw-and-calib §5); a value that is not finite has no card."""
    values = {
        "GAIN": readout.gain,
        "SATULEV": readout.saturlev,
        "SATUELE": readout.gain * (readout.saturlev - readout.overscan),
        "OSTEP": readout.ostep,
        "OVERSCN": readout.overscan,
        "OBSRDN": readout.readnoise,
    }
    cards: dict[str, Any] = {k + readout.name: round(float(v), 6) for k, v in values.items() if np.isfinite(v)}
    return cards | {"OMETH" + readout.name: readout.overscan_method}


def _compare_readnoise(readout: AmpReadout, context: Context) -> None:
    expected = _card("RDNOISE" + readout.name, context)
    if expected is not None and expected > 0:
        ratio = readout.readnoise / expected
        if not 0.9 <= ratio <= 1.2:
            level = "error" if not 0.5 <= ratio <= 2.0 else "warning"
            getattr(context.log, level)(
                "amplifier %s: read noise %.2f e, header says %.2f e", readout.name, readout.readnoise, expected
            )


def _dark(part: Any, exptime: float, raw: RawCamera) -> tuple[NDArray[np.float32], float]:
    """(image, factor): the multiplication by the exposure time is left to the pass over the pixels where possible."""
    if isinstance(part, Dark):
        image, factor = (part.at(exptime), 1.0) if len(part.exptimes) else (part.rate, exptime)
    else:
        image, factor = part, exptime
    if image.shape == raw.pix.shape != raw.trimmed_shape:  # stored untrimmed (spec raw-and-calib §8)
        trimmed = np.zeros(raw.trimmed_shape, np.float32)
        for amp in raw.amps:
            trimmed[amp.ccdsec.slices] = image[amp.datasec.slices]
        image = trimmed
    return image, factor


def _sharpness(shape: tuple[int, int], context: Context) -> SharpnessMap:
    """From the PSF of the calibration; from the nominal spot of the arm if there is none, or none with widths."""
    try:
        return sharpness_of_traces(shape, context.calibration.psf.traces)
    except (MissingCalibration, ValueError):
        return sharpness_of_arm(shape, context.arm.xsigma, context.arm.ysigma)
