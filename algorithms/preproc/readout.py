"""What header, calibration tree and overscan tell of one amplifier, and how its pixels become electrons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from algorithms.preproc.overscan import Overscan, OverscanRules, measure_overscan, pixel_noise
from algorithms.preproc.overscanrows import measure_overscan_rows
from algorithms.preproc.pixels import AmpCalibration, PixelCalibration
from algorithms.preproc.trail import Trail
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.amplifier import Amp, Section
from qlstream.datamodel.image import AmpReadout, RawCamera
from qlstream.datamodel.masks import CCDMask
from qlstream.pipeline.context import Context

ADC_MAX = 65535.0  # of the 16-bit converters: the saturation level where nobody gives one (spec preproc §2)
_DEAD_NOISE = 0.1  # [ADU]; digitisation alone scatters by 0.29, so less means that nothing was read


@dataclass(frozen=True)
class ReadoutRules:
    """How an amplifier is treated.

    Attributes
    ----------
    overscan : how its level is taken
    rows : subtract the overscan rows; `smooth` gives each column its own level; None leaves both to the calibration
    bad_row_step : overscan step that makes it BADREADNOISE [ADU]
    bad_readnoise : read noise that does [electron]
    gain : False lets an unknown gain pass as 1
    crosstalk, trail : take out what the calibration tells of them
    """

    overscan: OverscanRules
    rows: bool | None = None
    smooth: bool | None = None
    bad_row_step: float = 5.0
    bad_readnoise: float = 15.0
    gain: bool = True
    crosstalk: bool = True
    trail: bool = True


@dataclass(frozen=True)
class AmpSetup:
    """One amplifier, measured.

    Attributes
    ----------
    readout : for the metrics
    pixels : for the pixels
    cards : header cards (spec raw-and-calib §5)
    assumed : SATURLEV is not known
    """

    readout: AmpReadout
    pixels: AmpCalibration
    cards: dict[str, Any]
    assumed: bool


def set_up(amp: Amp, raw: RawCamera, calibration: PixelCalibration, rules: ReadoutRules, context: Context) -> AmpSetup:
    """Measure one amplifier and decide what is to be done with its pixels.

    Raises
    ------
    MissingCalibration : its gain is not known
    ValueError : a card of the calibration tree is no number or no section
    """
    name, cards = amp.name, context.calibration.cards
    trail = _trail(amp, context) if rules.trail else None
    good = cards.get("GOODBIASSEC" + name)
    section = Section.parse(str(good), "GOODBIASSEC" + name) if good is not None else None
    overscan = measure_overscan(raw.pix, calibration.bias, amp, rules.overscan, section, trail)
    gain = _card("GAIN" + name, context)
    if gain is None and not rules.gain:
        gain = 1.0
    if gain is None or not 0 < gain < math.inf:
        raise MissingCalibration(
            f"no gain for amplifier {name} of {context.camera}: neither the header nor the calibration of "
            f"{context.night} has a positive GAIN{name} (got {gain}); add it to the calibration tree [electron/ADU]"
        )
    saturlev = _card("SATURLEV" + name, context)
    readout = AmpReadout(
        amp=amp,
        gain=gain,
        overscan=overscan.level,
        readnoise=overscan.noise * gain,
        ostep=overscan.step,
        saturlev=ADC_MAX if saturlev is None else saturlev,
        overscan_rows=overscan.rows,
        overscan_method=overscan.method,
        row_pattern=overscan.row_pattern * gain,
        low_outliers=overscan.low_outliers,
    )
    _compare_readnoise(readout, context)
    variance, flags = _state(readout, overscan, rules, context)
    if variance > 0 and calibration.dark is not None:
        variance += (pixel_noise(calibration.dark, amp.ccdsec) * calibration.exptime) ** 2

    columns, method = None, "NONE"
    if variance > 0 and (_is_set("USE_ORSEC", context) if rules.rows is None else rules.rows):
        smooth = _is_set("SAVGOL", context) if rules.smooth is None else rules.smooth
        columns, error2 = measure_overscan_rows(raw.pix, calibration.bias, amp, overscan, smooth)
        variance += error2 * gain**2
        method = "SAVGOL" if smooth else "AVERAGE"
    crosstalk = {
        other.name: float(cards.get(f"CROSSTALK{other.name}{name}", 0.0) or 0.0)
        for other in raw.amps
        if other.name != name and rules.crosstalk
    }
    level = np.nan_to_num(overscan.subtract)
    pixels = AmpCalibration(amp, gain, readout.saturlev, level, variance, flags, crosstalk, columns, trail)
    return AmpSetup(readout, pixels, {**_cards(readout), "RMETH" + name: method}, saturlev is None)


def _state(readout: AmpReadout, overscan: Overscan, rules: ReadoutRules, context: Context) -> tuple[float, int]:
    """(variance of a pixel without light [electron^2], flags of all its pixels)."""
    name, log = readout.name, context.log
    flags = int(CCDMask.BADAMP) if name in context.calibration.bad_amps else 0
    if not (np.isfinite(readout.readnoise) and overscan.noise >= _DEAD_NOISE and overscan.level < readout.saturlev):
        log.warning(
            "amplifier %s is dead: overscan level %.1f ADU, noise %.3f ADU", name, overscan.level, overscan.noise
        )
        return 0.0, int(CCDMask.BADAMP | CCDMask.BADREADNOISE)
    if readout.readnoise > rules.bad_readnoise or readout.ostep > rules.bad_row_step:
        log.warning("amplifier %s: read noise %.2f e, row step %.2f ADU", name, readout.readnoise, readout.ostep)
        flags |= int(CCDMask.BADREADNOISE)
    return readout.readnoise**2, flags


def _trail(amp: Amp, context: Context) -> Trail | None:
    amplitude, width = (_card(f"DARKTRAIL{part}{amp.name}", context) for part in ("AMP", "WIDTH"))
    if amplitude is None and width is None:
        return None
    if amplitude is None or width is None or not (0 <= amplitude < 1 and width > 0):
        raise ValueError(
            f"DARKTRAILAMP{amp.name} = {amplitude}, DARKTRAILWIDTH{amp.name} = {width}; expected a fraction and a "
            "positive width [pixel], or neither: correct the calibration tree"
        )
    return Trail(amplitude, width) if amplitude > 0 else None


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


def _is_set(key: str, context: Context) -> bool:
    return str(context.calibration.cards.get(key, "")).strip().lower() in ("true", "1", "t", "yes")


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
