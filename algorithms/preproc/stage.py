"""From the raw readout to an image in electrons, with its variance and its flags."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from algorithms.preproc.brightness import model_brightness
from algorithms.preproc.cosmics import CosmicLimits, flag_cosmics
from algorithms.preproc.gaps import GapRules, Gaps, find_gaps, measure_gaps, subtract_gap_light
from algorithms.preproc.overscan import OverscanRules
from algorithms.preproc.pixels import PixelCalibration, calibrate_pixels
from algorithms.preproc.readout import ADC_MAX, AmpSetup, ReadoutRules, set_up
from algorithms.preproc.scattered import subtract_scattered_light
from algorithms.preproc.sharpness import SharpnessMap, sharpness_of_arm, sharpness_of_traces
from algorithms.preproc.surface import smooth_surface
from algorithms.preproc.variance import weigh_pixels
from qlstream.calibration.dark import Dark
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.image import Image, RawCamera
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.datamodel.traces import XYTraceSet
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context

Use = Literal["required", "optional", "skip"]
Part = TypeVar("Part")
Float = NDArray[np.float32]

# switches of the seed that say what not to do, and its switches of calibration images
_NEGATED = {"nocosmic": "cosmics", "nogain": "gain", "nocrosstalk": "crosstalk", "nodarktrail": "darktrail"}
_IMAGES = ("bias", "dark", "pixflat", "mask")
_LIT = ("arc", "flat", "science")


class Preproc(PipelineAlg[RawCamera, Image]):
    """Overscan, bias, cross-talk, gain, dark, pixel flat, flags, cosmic rays, variance, stray light.

    Spec preproc §1-§6b. What was done, and what was left out and why, stands in the cards PP... of the Image. Its
    arrays belong to `context.buffers`: the next camera of this worker overwrites them.
    """

    class Params(StageParams):
        bias: Use = Field("optional", description="master bias; an optional one that is missing is left out")
        dark: Use = Field("optional", description="dark current")
        pixflat: Use = Field("optional", description="pixel flat field")
        mask: Use = Field("optional", description="known bad pixels")
        gain: bool = Field(True, description="image in electrons; else, as with the seed's nogain, in ADU")
        crosstalk: bool = Field(True, description="take out cross-talk between amplifiers (seed: nocrosstalk)")
        darktrail: bool = Field(True, description="take out dark trails (seed: nodarktrail)")
        overscan_per_row: bool | None = Field(
            None, description="each row gets its own level; default: if the overscan steps by row_step"
        )
        row_step: float = Field(2.0, gt=0, description="overscan step from which each row gets its own level [ADU]")
        bad_row_step: float = Field(5.0, gt=0, description="overscan step that makes an amplifier BADREADNOISE [ADU]")
        deposit: float = Field(
            25000.0, gt=0, description="excess of a bright pixel beside the overscan that may spoil its row [ADU]"
        )
        overscan_row: bool | None = Field(
            None, alias="use_overscan_row",
            description="subtract the level of the overscan rows; default: as the calibration says (USE_ORSEC)",
        )  # fmt: skip
        savgol: bool | None = Field(
            None, alias="use_savgol",
            description="a smoothed level per column from the overscan rows; default: as the calibration says (SAVGOL)",
        )  # fmt: skip
        bad_readnoise: float = Field(15.0, gt=0, description="read noise that is BADREADNOISE [electron]")
        cosmics: bool = Field(True, description="look for cosmic rays (seed: nocosmic)")
        cosmics_nsig: float = Field(4.5, ge=3, le=20, description="excess of a cosmic ray's core [sigma]")
        cosmics_sharp: float = Field(
            0.88, gt=0, le=1, description="neighbours of a core are fainter than optics allow by this factor"
        )
        cosmics_grow: float = Field(2.5, ge=1, le=20, description="excess of a cosmic ray's fringe [sigma]")
        model_variance: bool = Field(
            False, description="variance from a model of the spectra, fiber by fiber: slower, better beside lines"
        )
        bkgsub_dark: bool = Field(False, description="subtract a smooth background from bias and dark exposures")
        bkg_patch: float = Field(200.0, ge=20, description="side of the patches that tell that background [pixel]")
        remove_scattered_light: bool = Field(False, description="subtract light scattered far from the traces")
        halo_radius: tuple[float, ...] = Field(
            (0, 5, 10, 20, 30, 40, 50, 100, 150, 200, 300), min_length=2,
            description="distances at which the brightness of scattered light is given [pixel]",
        )  # fmt: skip
        halo: tuple[float, ...] = Field(
            (1, 0.98, 0.91, 0.72, 0.54, 0.4, 0.3, 0.11, 0.05, 0.027, 0.0), min_length=2,
            description="brightness of scattered light at these distances, in any unit",
        )  # fmt: skip
        bkgsub_science: bool = Field(False, description="subtract the light between the blocks of fibers")
        measure_background: bool = Field(True, description="measure the light between the blocks of fibers")
        gap_half_width: int = Field(2, ge=1, le=6, description="columns on each side of a gap's middle [pixel]")
        gap_window: int = Field(400, ge=40, description="rows whose median is the light in a gap [pixel]")
        gap_contamination: float = Field(
            0.5, gt=0, description="light from bright fibers from which on a gap does not count [electron]"
        )
        gap_lines: tuple[float, ...] = Field(
            (5578.9,), description="lines bright enough to shine into the gaps; their rows do not count [Angstrom]"
        )

        @model_validator(mode="before")
        @classmethod
        def _translate(cls, given: Any) -> Any:
            """The seed's names: nocosmic: true is cosmics: false, and bias: false is bias: skip."""
            if not isinstance(given, dict):
                return given
            known = dict(given)
            for seed_name, name in _NEGATED.items():
                if seed_name in known:
                    if name in known:
                        raise ValueError(f"{seed_name} and {name} say the same; give one of them")
                    known[name] = not known.pop(seed_name)
            for name in _IMAGES:
                if isinstance(known.get(name), bool):
                    known[name] = "optional" if known[name] else "skip"
            return known

    def run(self, data: RawCamera, context: Context) -> Image:
        """Raises MissingCalibration if no gain is known, or if a required calibration is missing."""
        meta: dict[str, Any] = dict(data.header)
        calibration = self._calibration(data, context, meta)
        rules = self._rules(data, context)
        amps = [set_up(amp, data, calibration, rules, context) for amp in data.amps]
        for amp in amps:
            meta.update(amp.cards)
        self._report(amps, context, meta)

        shape = data.trimmed_shape
        pix = context.buffers.get("preproc.pix", shape, np.float32)
        ivar = context.buffers.get("preproc.ivar", shape, np.float32)  # the level of each pixel's column at first
        mask = context.buffers.get("preproc.mask", shape, np.uint16)
        calibrate_pixels(data.pix, [a.pixels for a in amps], calibration, pix, ivar, mask)
        floors = [(a.pixels.amp.ccdsec, a.pixels.variance) for a in amps]
        if self.params.cosmics:
            p = self.params
            limits = CosmicLimits(seed=p.cosmics_nsig, sharp=p.cosmics_sharp, grow=p.cosmics_grow)
            hits = context.buffers.get("preproc.hits", (pix.size // 8,), np.int32)
            meta["NCOSMIC"] = flag_cosmics(pix, ivar, mask, floors, _sharpness(shape, context), limits, hits)
        weigh_pixels(pix, mask, floors, calibration, ivar, self._brightness(pix, ivar, mask, amps, context, meta))
        self._subtract_stray_light(pix, mask, amps, context, meta)
        if not self.params.gain:
            _to_adu(pix, ivar, amps)
        meta["BUNIT"] = "electron" if self.params.gain else "adu"
        image = Image(pix, ivar, mask, data.camera, tuple(a.readout for a in amps), meta)
        _report_unusable(image, context)
        return image

    def _rules(self, raw: RawCamera, context: Context) -> ReadoutRules:
        p = self.params
        rows = p.overscan_row
        if rows and any(amp.orsec is None for amp in raw.amps):
            context.log.warning("overscan rows are not subtracted: the header has no ORSEC of every amplifier")
            rows = False
        return ReadoutRules(
            overscan=OverscanRules(row_step=p.row_step, per_row=p.overscan_per_row, deposit=p.deposit),
            rows=rows,
            smooth=p.savgol,
            bad_row_step=p.bad_row_step,
            bad_readnoise=p.bad_readnoise,
            gain=p.gain,
            crosstalk=p.crosstalk,
            trail=p.darktrail,
        )

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

        p, exptime = self.params, _dark_time(context)
        dark = get("DARK", p.dark, lambda: _dark(served.get("DARK"), exptime, raw), "PPDARK") if exptime > 0 else None
        bias = get("BIAS", p.bias, lambda: served.bias, "PPBIAS")
        pixflat = get("PIXFLAT", p.pixflat, lambda: served.pixflat, "PPFLAT")
        mask = get("MASK", p.mask, lambda: served.mask, "PPMASK")
        image, factor = dark or (None, 0.0)
        return PixelCalibration(bias, image, factor, pixflat, mask)

    def _report(self, amps: Sequence[AmpSetup], context: Context, meta: dict[str, Any]) -> None:
        """Cards about what the calibration tree may or may not have: cross-talk, trails, saturation levels."""
        for card, wanted, found in (
            ("PPXTALK", self.params.crosstalk, any(any(a.pixels.crosstalk.values()) for a in amps)),
            ("PPTRAIL", self.params.darktrail, any(a.pixels.trail for a in amps)),
        ):
            meta[card] = "done" if found else "left out: none is known" if wanted else "left out: not wanted"
        assumed = [a.readout.name for a in amps if a.assumed]
        meta["PPSATUR"] = f"{ADC_MAX:.0f} ADU assumed for {', '.join(assumed)}" if assumed else "done"
        if assumed:
            context.log.warning(
                "no SATURLEV of amplifier %s in the header nor in the calibration: %.0f ADU is assumed",
                ", ".join(assumed),
                ADC_MAX,
            )

    def _brightness(
        self, pix: Float, level: Float, mask: NDArray[np.uint16], amps: Sequence[AmpSetup], context: Context, meta: Any
    ) -> Float | None:
        if not self.params.model_variance:
            return None
        variance = float(np.median([a.pixels.variance for a in amps]))
        out = context.buffers.get("preproc.brightness", pix.shape, np.float32)
        instrument = context.instrument

        def model() -> None:
            if context.flavor not in _LIT:
                raise MissingCalibration(f"a {context.flavor} exposure has no spectra")
            model_brightness(
                pix, level, mask, _traces(context), instrument.fibers_per_bundle, instrument.extraction_half_width,
                max(variance, 1.0), out,
            )  # fmt: skip

        return out if _attempt(model, "the variance model", "PPMODVAR", context, meta) else None

    def _subtract_stray_light(
        self, pix: Float, mask: NDArray[np.uint16], setups: Sequence[AmpSetup], context: Context, meta: dict[str, Any]
    ) -> None:
        p, amps = self.params, [a.pixels.amp for a in setups]
        rules = GapRules(
            p.gap_half_width, 0.5 * context.instrument.bundle_gap, p.gap_window, p.gap_contamination, p.gap_lines
        )
        is_lit = context.flavor in _LIT

        def gaps() -> Gaps:
            if not is_lit:
                raise MissingCalibration(f"a {context.flavor} exposure has no spectra")
            return find_gaps(_traces(context), context.instrument.fibers_per_bundle, len(pix), rules)

        def surface() -> None:
            if is_lit:
                raise MissingCalibration(f"a smooth background cannot be told from the light of a {context.flavor}")
            np.subtract(pix, smooth_surface(pix, mask, amps, p.bkg_patch), out=pix)

        def scattered() -> None:
            meta["SCATFRAC"] = round(
                subtract_scattered_light(pix, mask, _traces(context), gaps(), p.gap_half_width, p.halo_radius, p.halo),
                6,
            )

        def between() -> None:
            light = measure_gaps(pix, mask, amps, gaps(), rules)
            for part in light:
                low, high = part.extremes
                meta["BBKGMIN" + part.amp.name], meta["BBKGMAX" + part.amp.name] = round(low, 4), round(high, 4)
            if p.bkgsub_science:
                subtract_gap_light(pix, light)

        if p.bkgsub_dark:
            _attempt(surface, "a smooth background", "PPBKGDRK", context, meta)
        if p.remove_scattered_light:
            _attempt(scattered, "scattered light", "PPSCATT", context, meta)
        if p.bkgsub_science:
            _attempt(between, "light between the blocks", "PPBKGSCI", context, meta)
        elif p.measure_background and is_lit:
            _attempt(between, "a look between the blocks", "PPBKGMEA", context, meta, logging.INFO)


def _attempt(
    action: Callable[[], None],
    what: str,
    card: str,
    context: Context,
    meta: dict[str, Any],
    level: int = logging.WARNING,
) -> bool:
    """Do what can be done without; if it cannot, say why in the log and on a card."""
    try:
        action()
    except (MissingCalibration, ValueError) as why:
        context.log.log(level, "preprocessing goes on without %s: %s", what, why)
        meta[card] = f"left out: {why}"
        return False
    meta[card] = "done"
    return True


def _traces(context: Context) -> XYTraceSet:
    traces = context.calibration.traces
    if traces.nspec != context.instrument.nspec:
        raise ValueError(
            f"{traces.nspec} traces for {context.instrument.nspec} fibers of {context.instrument.name}; "
            "give the PSF of this instrument"
        )
    return traces


def _to_adu(pix: Float, ivar: Float, amps: Sequence[AmpSetup]) -> None:
    for amp in amps:
        window = amp.pixels.amp.ccdsec.slices
        pix[window] /= np.float32(amp.pixels.gain)
        ivar[window] *= np.float32(amp.pixels.gain**2)


def _report_unusable(image: Image, context: Context) -> None:
    """A camera without a usable pixel goes on, so that the metrics tell why; but not silently."""
    unusable = np.uint16(int(EXTRACT_MASK))
    if all(((row & unusable) != 0).all() for row in image.mask):
        flags = np.bitwise_or.reduce(image.mask, axis=None)
        image.meta["PPMASKED"] = f"no pixel is usable; flags {int(flags)}"
        context.log.error("%s has no usable pixel: all are flagged, by %d of the CCD mask", image.camera, int(flags))


def _dark_time(context: Context) -> float:
    """Seconds during which dark current gathered: EXPTIME, or what the calibration's EXPTIMEKEY names."""
    key = context.calibration.cards.get("EXPTIMEKEY")
    if key is None:
        return context.exptime
    try:
        return float(context.header[str(key)])
    except (KeyError, TypeError, ValueError):
        context.log.warning(
            "the calibration takes the time of the dark current from %s, which the header has as %r: EXPTIME serves",
            key,
            context.header.get(str(key)),
        )
        return context.exptime


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
