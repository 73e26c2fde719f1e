"""One CCD and its four amplifiers: what it adds to the light, and how it turns electrons into ADU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.amplifier import Amp, amplifiers
from qlstream.datamodel.masks import CCDMask
from qlstream.instrument import Arm, Instrument
from qlstream.simulate.seeds import generator

Float = NDArray[np.float32]

AMP_NAMES = ("A", "B", "C", "D")  # lower left, lower right, upper left, upper right
BIAS_FRAMES = 200  # that a master bias is the mean of
DARK_FRAMES, DARK_EXPTIME = 100, 1200.0  # that a master dark is the mean of
MAX_ADU = 65535
_LEVEL = 1970.0  # mean bias level [ADU]
_HOT_FRACTION = 6e-5
_HOT_LIMIT = 0.1  # the mask flags pixels with more dark current than this [electron/second]


@dataclass(frozen=True)
class Detector:
    """The truth about one CCD.

    Attributes
    ----------
    arm : its format
    sections : header cards DATASECA, CCDSECA, BIASSECA, ORSECA, ...
    amps : the same, parsed
    gain, readnoise, level, saturlev : per amplifier [electron/ADU], [electron], [ADU], [ADU]
    crosstalk : (from, to) -> fraction
    bias : (ny_raw, nx_raw) float32, structure on top of `level` [ADU]
    dark : (ny, nx) float32 [electron/second]
    pixflat : (ny, nx) float32, about 1
    response : (ny, nx) float32, of light that arrives; `pixflat`, but for bad columns
    mask : (ny, nx) uint16, CCDMask bits
    """

    arm: Arm
    sections: dict[str, str]
    amps: tuple[Amp, ...]
    gain: dict[str, float]
    readnoise: dict[str, float]
    level: dict[str, float]
    saturlev: dict[str, float]
    crosstalk: dict[tuple[str, str], float]
    bias: Float
    dark: Float
    pixflat: Float
    response: Float
    mask: NDArray[np.uint16]


def build_detector(instrument: Instrument, camera: str, seed: int) -> Detector:
    """The CCD of a camera, the same in every exposure."""
    arm = instrument.arm(camera)
    rng = generator(seed, camera, "detector")
    sections = layout(arm)
    pixflat, dark, mask, response = _pixels(arm, rng)
    return Detector(
        arm=arm,
        sections=sections,
        amps=amplifiers(sections),
        gain={a: round(arm.gain * rng.normal(1.0, 0.04), 3) for a in AMP_NAMES},
        readnoise={a: round(arm.readnoise * rng.normal(1.0, 0.03), 3) for a in AMP_NAMES},
        level={a: round(rng.normal(_LEVEL, 20.0), 1) for a in AMP_NAMES},
        saturlev={"A": 65535.0, "B": 65535.0, "C": 65535.0, "D": 62000.0},
        crosstalk={("A", "B"): 3e-5, ("C", "D"): 2e-5, ("D", "A"): 1e-5},
        bias=_bias_structure(arm, rng),
        dark=dark,
        pixflat=pixflat,
        response=response,
        mask=mask,
    )


def layout(arm: Arm) -> dict[str, str]:
    """Section cards of an arm read by four amplifiers, each with its prescan outside and its overscan inside.

    With the numbers of the desi arms this gives the sections of the real files (spec raw-and-calib §2.1).
    """
    half_x, half_y = arm.nx // 2, arm.ny // 2
    left, right = arm.prescan, arm.prescan + half_x + 2 * arm.overscan
    low, high = arm.prescan_rows, arm.prescan_rows + half_y + 2 * arm.overscan_rows
    cards: dict[str, str] = {}
    for amp in AMP_NAMES:
        is_right, is_upper = amp in "BD", amp in "CD"
        x, y = (right if is_right else left), (high if is_upper else low)
        over = left + half_x + (arm.overscan if is_right else 0)
        over_y = low + half_y + (arm.overscan_rows if is_upper else 0)
        edge = right + half_x if is_right else 0
        edge_y = high + half_y if is_upper else 0
        ccd_x, ccd_y = (half_x if is_right else 0), (half_y if is_upper else 0)
        cards["DATASEC" + amp] = cards["TRIMSEC" + amp] = _section(x, half_x, y, half_y)
        cards["CCDSEC" + amp] = cards["DETSEC" + amp] = _section(ccd_x, half_x, ccd_y, half_y)
        cards["BIASSEC" + amp] = _section(over, arm.overscan, y, half_y)
        if arm.overscan_rows:
            cards["ORSEC" + amp] = _section(x, half_x, over_y, arm.overscan_rows)
        if arm.prescan:
            cards["PRESEC" + amp] = _section(edge, arm.prescan, y, half_y)
        if arm.prescan_rows:
            cards["PRRSEC" + amp] = _section(x, half_x, edge_y, arm.prescan_rows)
    return cards


def raw_shape(arm: Arm) -> tuple[int, int]:
    """(rows, columns) of the raw image."""
    return (
        2 * (arm.ny // 2 + arm.prescan_rows + arm.overscan_rows),
        2 * (arm.nx // 2 + arm.prescan + arm.overscan),
    )


def collect(detector: Detector, light: Float, exptime: float, rng: np.random.Generator, warm: float = 1.0) -> Float:
    """Electrons in the wells: a Poisson draw of the light that arrives and of the dark current.

    Parameters
    ----------
    light : (ny, nx) float32, expected electrons of a perfect CCD
    exptime : [second]
    warm : factor on the dark current of a CCD that is not cold
    """
    expected = light * detector.response + detector.dark * np.float32(exptime * warm)
    return rng.poisson(expected).astype(np.float32)


def read_out(
    detector: Detector,
    electrons: Float,
    rng: np.random.Generator,
    noise_factor: Mapping[str, float] | None = None,
    dead: frozenset[str] = frozenset(),
    jump: Mapping[str, float] | None = None,
) -> NDArray[np.uint16]:
    """The raw image of a CCD.

    Parameters
    ----------
    electrons : (ny, nx) float32 in the wells
    noise_factor : amplifier -> factor on its read noise
    dead : amplifiers that deliver their level and noise, but no signal
    jump : amplifier -> step of its level half-way through the readout [ADU]

    Returns
    -------
    (ny_raw, nx_raw) uint16 [ADU]
    """
    electrons = _cross_talked(detector, electrons)
    raw = rng.standard_normal(detector.bias.shape, dtype=np.float32)
    ny_half, nx_half = raw.shape[0] // 2, raw.shape[1] // 2
    for amp in detector.amps:
        name = amp.name
        rows = slice(ny_half, None) if name in "CD" else slice(None, ny_half)
        columns = slice(nx_half, None) if name in "BD" else slice(None, nx_half)
        quarter = raw[rows, columns]
        noise = detector.readnoise[name] / detector.gain[name] * (noise_factor or {}).get(name, 1.0)
        level = detector.level[name] + rng.normal(0.0, 1.0) + rng.normal(0.0, 0.05, (ny_half, 1))
        if name in (jump or {}):
            level[ny_half // 2 :] += (jump or {})[name]
        quarter *= np.float32(noise)
        quarter += level.astype(np.float32)
        if name not in dead:
            raw[amp.datasec.slices] += electrons[amp.ccdsec.slices] / np.float32(detector.gain[name])
    raw += detector.bias
    np.rint(raw, out=raw)
    np.clip(raw, 0, MAX_ADU, out=raw)
    return raw.astype(np.uint16)


def _section(x: int, width: int, y: int, height: int) -> str:
    return f"[{x + 1}:{x + width},{y + 1}:{y + height}]"


def _cross_talked(detector: Detector, electrons: Float) -> Float:
    """Each amplifier with the mirrored faint copy of the others, read at the same moment."""
    out = electrons.copy()
    section = {amp.name: amp.ccdsec.slices for amp in detector.amps}
    for (source, target), fraction in detector.crosstalk.items():
        copy = electrons[section[source]]
        if (source in "AB") != (target in "AB"):
            copy = copy[::-1]
        if (source in "AC") != (target in "AC"):
            copy = copy[:, ::-1]
        out[section[target]] += np.float32(fraction) * copy
    return out


def _bias_structure(arm: Arm, rng: np.random.Generator) -> Float:
    """A glow towards each amplifier's corner column, a column pattern, and a start-up drift, all within 3 ADU."""
    ny, nx = raw_shape(arm)
    bias = np.zeros((ny, nx), dtype=np.float32)
    for is_upper in (False, True):
        for is_right in (False, True):
            column = np.arange(nx // 2, dtype=np.float32)
            row = np.arange(ny // 2, dtype=np.float32)
            glow = 2.0 * np.exp(-column / (0.02 * nx)) + rng.normal(0.0, 0.15, nx // 2)
            glow[arm.prescan + arm.nx // 2 :] = 0.0  # the overscan sees none of it
            drift = 0.5 * np.exp(-row / (0.03 * ny))
            quarter = (glow[None, :] * (1.0 + 0.1 * np.sin(row / (0.1 * ny)))[:, None] + drift[:, None]).astype("f4")
            quarter = quarter[::-1] if is_upper else quarter
            quarter = quarter[:, ::-1] if is_right else quarter
            rows = slice(ny // 2, None) if is_upper else slice(None, ny // 2)
            bias[rows, slice(nx // 2, None) if is_right else slice(None, nx // 2)] = quarter
    return bias


def _pixels(arm: Arm, rng: np.random.Generator) -> tuple[Float, Float, NDArray[np.uint16], Float]:
    """(pixflat, dark, mask, response)."""
    ny, nx = arm.shape
    pixflat = 1.0 + 0.006 * rng.standard_normal((ny, nx), dtype=np.float32)
    mask = np.zeros((ny, nx), dtype=np.uint16)
    for _ in range(3 + ny * nx // 800_000):  # dust
        _dim(pixflat, rng.uniform(0, ny), rng.uniform(0, nx), rng.uniform(1.5, 6.0), rng.uniform(0.03, 0.2))
    dead = rng.integers(0, ny * nx, 2 + ny * nx // 1_000_000)
    pixflat.flat[dead] = 5e-4
    mask.flat[dead] |= int(CCDMask.DEAD)

    dark = np.full((ny, nx), arm.dark / 3600.0, dtype=np.float32)
    dark *= np.linspace(0.7, 1.3, nx, dtype=np.float32)
    hot = rng.integers(0, ny * nx, max(8, int(_HOT_FRACTION * ny * nx)))
    dark.flat[hot] += rng.exponential(0.5, len(hot)).astype(np.float32)
    response = pixflat.copy()
    for column in rng.integers(8, nx - 8, 1 + nx // 1000):  # a trap: the column beyond it, away from its amplifier
        trap = int(rng.uniform(0.2, 0.8) * ny)
        rows = slice(trap, ny // 2) if trap < ny // 2 else slice(ny // 2, trap)
        response[rows, column] *= 0.2
        dark[rows, column] += 0.03
        mask[rows, column] |= int(CCDMask.BAD)
    mask[dark > _HOT_LIMIT] |= int(CCDMask.HOT)
    return pixflat, dark, mask, response


def _dim(pixflat: Float, y: float, x: float, sigma: float, depth: float) -> None:
    reach = int(4 * sigma) + 1
    rows = slice(max(int(y) - reach, 0), int(y) + reach + 1)
    columns = slice(max(int(x) - reach, 0), int(x) + reach + 1)
    yy, xx = np.mgrid[rows, columns]
    spot = 1.0 - depth * np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / sigma**2)
    part = pixflat[rows, columns]
    part *= spot[: part.shape[0], : part.shape[1]].astype(np.float32)
