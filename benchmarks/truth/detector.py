"""Preprocessing and the metrics of the CCD: bias, noise, lit pixels, dark current, saturation, masks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.special import ndtr
from scipy.stats import poisson

from algorithms.preproc.stage import Preproc
from benchmarks.truth.exposed import Exposed, true_readnoise
from benchmarks.truth.line import Array, Line, compared, pulls, worst
from qlstream.datamodel.masks import EXTRACT_MASK, CCDMask
from qlstream.simulate.detector import BIAS_FRAMES, DARK_EXPTIME, DARK_FRAMES

_CUT = 5.0  # CUTPIX of Count_Pixels
_CORE = 60.0  # expectations below so many electrons are convolved exactly


def lines(exposed: Exposed) -> Iterator[Line]:
    """All that this exposure tells of its CCD."""
    yield from _noise(exposed)
    yield _bias(exposed)
    yield from _lit(exposed)
    yield from _dark_level(exposed)
    yield _dark_pixels(exposed)
    if exposed.kind == "dark":
        yield _dark_current(exposed)
    if exposed.kind == "zero":
        yield from _correlation(exposed)
    if exposed.kind == "arc":
        yield _saturation(exposed)


def _noise(exposed: Exposed) -> Iterator[Line]:
    """NOISE_AMP: of a pixel of the data, so that of the bias image, a mean of many frames, counts."""
    result = exposed.result("Get_RMS")
    assert result is not None
    detector = exposed.detector
    single = {amp.name: true_readnoise(detector, amp.name) for amp in detector.amps}
    of_data = {
        amp: math.hypot(noise, detector.readnoise[amp] / math.sqrt(BIAS_FRAMES)) for amp, noise in single.items()
    }
    # A robust scatter of n Gaussian numbers has a relative error of 1.17 / sqrt(2 n) (clipped quartiles to clipped
    # standard deviation, so an upper limit).
    sigma = {amp.name: single[amp.name] * 1.17 / math.sqrt(2 * _overscan_pixels(amp)) for amp in detector.amps}
    yield worst("Get_RMS", "NOISE_AMP [e]", of_data, result.per_amp["NOISE_AMP"], sigma, relative=0.01)
    alone = result.per_amp.get("NOISE_OVERSCAN_AMP")
    if alone:
        yield worst("Get_RMS", "NOISE_OVERSCAN_AMP [e]", single, alone, sigma, relative=0.02)


def _overscan_pixels(amp) -> int:  # type: ignore[no-untyped-def]
    return (amp.datasec.y1 - amp.datasec.y0) * (amp.biassec.x1 - amp.biassec.x0)


def _bias(exposed: Exposed) -> Line:
    """BIAS_AMP against a second method, the plain mean of the raw overscan; the level itself wanders by 1 ADU."""
    result = exposed.result("Bias_From_Overscan")
    assert result is not None
    truth, sigma = {}, {}
    for amp in exposed.raw.amps:
        block = exposed.raw.pix[amp.datasec.y0 : amp.datasec.y1, amp.biassec.x0 : amp.biassec.x1]
        truth[amp.name] = float(block.mean(dtype=np.float64))
        noise = true_readnoise(exposed.detector, amp.name) / exposed.detector.gain[amp.name]
        # Of a median of row levels (1.25) and of the row-to-row wander, 0.05 ADU, that the simulation gives.
        sigma[amp.name] = 1.25 * math.hypot(noise / math.sqrt(block.size), 0.05 / math.sqrt(len(block)))
    return worst("Bias_From_Overscan", "BIAS_AMP [ADU]", truth, result.per_amp["BIAS_AMP"], sigma, absolute=0.2)


def _lit(exposed: Exposed) -> Iterator[Line]:
    """LITFRAC_AMP: the probability of each usable pixel to exceed the cut, summed; a sum of independent draws."""
    result = exposed.result("Count_Pixels")
    assert result is not None
    truth, sigma = {}, {}
    good = exposed.image.mask & int(EXTRACT_MASK) == 0
    for amp in exposed.detector.amps:
        window = amp.ccdsec.slices
        noise = true_readnoise(exposed.detector, amp.name)
        light = exposed.truth.image[window] * exposed.detector.response[window] + exposed.truth.cosmics[window]
        dark = exposed.detector.dark[window] * exposed.exposure.exptime
        p = _probability(light.ravel().astype(float), dark.ravel().astype(float), noise)[good[window].ravel()]
        truth[amp.name], sigma[amp.name] = float(p.mean()), float(np.sqrt((p * (1 - p)).sum()) / p.size)
        sigma[amp.name] = max(sigma[amp.name], 1.0 / p.size)
    absolute = 0.002 if exposed.context.flavor in ("arc", "flat", "science") else 2e-4
    measured = result.per_amp["LITFRAC_AMP"]
    yield worst("Count_Pixels", "LITFRAC_AMP", truth, measured, sigma, absolute=absolute)


def _probability(light: Array, dark: Array, noise: float) -> Array:
    """P(light + noise > cut) of each pixel: Poisson and Gaussian convolved, on a table; the dark current subtracted."""
    level = np.concatenate([np.linspace(0.0, _CORE, 601), [1e6]])
    mean_dark = float(np.median(dark))
    counts = np.arange(int(_CORE + 12 * math.sqrt(_CORE + 10)) + 1)
    above = ndtr((counts - mean_dark - _CUT * noise) / noise)
    table = (poisson.pmf(counts[None, :], (level[:-1] + mean_dark)[:, None]) * above).sum(axis=1)
    return np.interp(light + dark - mean_dark, level, np.append(table, 1.0))


def _dark_level(exposed: Exposed) -> Iterator[Line]:
    """DARKLEVEL_AMP: what is left of a dark frame once bias and dark current are subtracted: nothing."""
    result = exposed.result("Check_Background")
    if result is None or "DARKLEVEL_AMP" not in result.per_amp:
        return
    measured = result.per_amp["DARKLEVEL_AMP"]
    truth = dict.fromkeys(measured, 0.0)
    sigma = {}
    for amp in exposed.detector.amps:
        noise = true_readnoise(exposed.detector, amp.name)
        dark = float(np.median(exposed.detector.dark[amp.ccdsec.slices])) * exposed.exposure.exptime
        pixels = (amp.ccdsec.y1 - amp.ccdsec.y0) * (amp.ccdsec.x1 - amp.ccdsec.x0) / 8  # the metric looks at every 8th
        of_level = noise / math.sqrt(_overscan_pixels(amp))
        of_median = 1.25 * math.sqrt((noise**2 + dark) / pixels)
        of_digits = exposed.detector.gain[amp.name] / math.sqrt(12.0)  # whole ADU, which the bias image hardly blurs
        sigma[amp.name] = math.hypot(of_median, 1.25 * of_level, of_digits)
    yield worst("Check_Background", "DARKLEVEL_AMP [e]", truth, measured, sigma, absolute=0.3)


def _correlation(exposed: Exposed) -> Iterator[Line]:
    """The largest of 15 correlation coefficients of independent noise: 2.2 standard errors on average."""
    result = exposed.result("Pixel_Correlation")
    if result is None or not result.per_amp.get("CORR_MAX_AMP"):
        return
    measured = result.per_amp["CORR_MAX_AMP"]
    sigma = dict.fromkeys(measured, 1 / math.sqrt(100_000))
    yield worst("Pixel_Correlation", "CORR_MAX_AMP", dict.fromkeys(measured, 0.0), measured, sigma, absolute=0.02)


def _dark_pixels(exposed: Exposed) -> Line:
    """Pixels without light: value and variance of each pixel are right if the pulls are unit normal."""
    image, truth = exposed.image, exposed.truth
    nothing = (truth.image < 0.2) & (image.mask == 0) & (truth.cosmics < 0.05) & (image.ivar > 0)
    pull = (image.pix[nothing] - truth.image[nothing]) * np.sqrt(image.ivar[nothing])
    return pulls("Preproc", f"pulls of {pull.size / 1e6:.1f}e6 dark pixels", pull, 0.01, reference="0.95")


def _saturation(exposed: Exposed) -> Line:
    """On the arc again, with saturation levels so low that its brightest thousandth of pixels reaches them."""
    raw = exposed.raw
    level = float(np.percentile(raw.pix, 99.9))
    header = dict(raw.header) | {f"SATURLEV{amp.name}": level for amp in raw.amps}
    image = Preproc().run(replace(raw, header=header), replace(exposed.context, header=header))
    above = flagged = 0
    for amp in raw.amps:
        hot = raw.pix[amp.datasec.slices] >= level
        above += int(hot.sum())
        flagged += int((image.mask[amp.ccdsec.slices][hot] & int(CCDMask.SATURATED) != 0).sum())
    fraction = flagged / above if above else math.nan
    name = "pixels at or above SATURLEV that are flagged"
    told = f"{100 * fraction:.2f} % of {above}"
    return Line("Preproc", name, "100 %", told, math.nan, "100 %", flagged == above > 0, "24 %")


def _dark_current(exposed: Exposed) -> Line:
    """The dark current that preprocessing subtracts, against the CCD's: median over the pixels."""
    served = exposed.context.calibration.dark(exposed.exposure.exptime)
    truth = float(np.median(exposed.detector.dark)) * exposed.exposure.exptime
    noise = float(np.median(list(exposed.detector.readnoise.values()))) / math.sqrt(DARK_FRAMES) / DARK_EXPTIME
    sigma = 1.25 * noise * exposed.exposure.exptime / math.sqrt(served.size)
    return compared("Preproc", "dark current subtracted [e]", truth, float(np.median(served)), sigma, relative=0.01)
