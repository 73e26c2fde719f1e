"""One CCD and its amplifiers: what it adds to the light, and how it turns electrons into ADU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

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
_SATURLEV = (65535.0, 65535.0, 65535.0, 62000.0)  # [ADU]
_CROSSTALK = {("A", "B"): 3e-5, ("C", "D"): 2e-5, ("D", "A"): 1e-5}
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
    trail : amplifier -> (amplitude, width [pixel]) of the dark trail that charge leaves behind; most leave none
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
    trail: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def region(self, amp: Amp) -> tuple[slice, slice]:
        """The part of the raw image that an amplifier reads, prescan and overscan included."""
        halves = []
        for first, last, size, raw in zip(
            (amp.ccdsec.y0, amp.ccdsec.x0), (amp.ccdsec.y1, amp.ccdsec.x1), self.arm.shape, self.bias.shape, strict=True
        ):
            halves.append(slice(raw // 2 if first > 0 else 0, raw if last == size else raw // 2))
        return halves[0], halves[1]


def build_detector(instrument: Instrument, camera: str, seed: int, names: str = "ABCD") -> Detector:
    """The CCD of a camera, the same in every exposure.

    Parameters
    ----------
    names : amplifiers that read it, as `layout` wants them
    """
    arm = instrument.arm(camera)
    rng = generator(seed, camera, "detector")
    sections = layout(arm, names)
    pixflat, dark, mask, response = _pixels(arm, rng)
    gain = [round(arm.gain * rng.normal(1.0, 0.04), 3) for _ in AMP_NAMES]
    readnoise = [round(arm.readnoise * rng.normal(1.0, 0.03), 3) for _ in AMP_NAMES]
    level = [round(rng.normal(_LEVEL, 20.0), 1) for _ in AMP_NAMES]
    at = {name: AMP_NAMES.index(_corner(name)) for name in names}
    leaks = [(a, b, _CROSSTALK.get((_corner(a), _corner(b)))) for a in names for b in names]
    return Detector(
        arm=arm,
        sections=sections,
        amps=amplifiers(sections),
        gain={name: gain[k] for name, k in at.items()},
        readnoise={name: readnoise[k] for name, k in at.items()},
        level={name: level[k] for name, k in at.items()},
        saturlev={name: _SATURLEV[k] for name, k in at.items()},
        crosstalk={(a, b): fraction for a, b, fraction in leaks if fraction},
        bias=_bias_structure(arm, rng),
        dark=dark,
        pixflat=pixflat,
        response=response,
        mask=mask,
    )


def layout(arm: Arm, names: str = "ABCD") -> dict[str, str]:
    """Section cards of an arm, each amplifier with its prescan outside and its overscan inside.

    With the numbers of the desi arms this gives the sections of the real files (spec raw-and-calib §2.1).

    Parameters
    ----------
    names : all four amplifiers, or two: AB or CD read the columns left and right, AC, BD, AD or BC the rows below and
        above, each to the corner where it sits among four (spec raw-and-calib §2); 1234 are the old names of ABCD

    Raises
    ------
    ValueError : no such readout
    """
    corners = "".join(_corner(name) for name in names)
    if corners not in ("ABCD", "AB", "CD", "AC", "BD", "AD", "BC"):
        raise ValueError(f"no readout by the amplifiers {names!r}; expected ABCD, AB, CD, AC, BD, AD, BC or old names")
    ny_raw, nx_raw = raw_shape(arm)
    nx = arm.nx if corners in ("AC", "BD", "AD", "BC") else arm.nx // 2
    ny = arm.ny if corners in ("AB", "CD") else arm.ny // 2
    cards: dict[str, str] = {}
    for name, corner in zip(names, corners, strict=True):
        is_right, is_upper = corner in "BD", corner in "CD"
        x = nx_raw - arm.prescan - nx if is_right else arm.prescan
        y = ny_raw - arm.prescan_rows - ny if is_upper else arm.prescan_rows
        over = x - arm.overscan if is_right else x + nx
        over_y = y - arm.overscan_rows if is_upper else y + ny
        ccd_x, ccd_y = (arm.nx - nx if is_right else 0), (arm.ny - ny if is_upper else 0)
        cards["DATASEC" + name] = cards["TRIMSEC" + name] = _section(x, nx, y, ny)
        cards["CCDSEC" + name] = cards["DETSEC" + name] = _section(ccd_x, nx, ccd_y, ny)
        cards["BIASSEC" + name] = _section(over, arm.overscan, y, ny)
        if arm.overscan_rows:
            cards["ORSEC" + name] = _section(x, nx, over_y, arm.overscan_rows)
        if arm.prescan:
            cards["PRESEC" + name] = _section(x + nx if is_right else 0, arm.prescan, y, ny)
        if arm.prescan_rows:
            cards["PRRSEC" + name] = _section(x, nx, y + ny if is_upper else 0, arm.prescan_rows)
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
    signal = {amp.name: _trailed(detector, amp, electrons[amp.ccdsec.slices]) for amp in detector.amps}
    signal = _cross_talked(detector, signal)
    raw = rng.standard_normal(detector.bias.shape, dtype=np.float32)
    for amp in detector.amps:
        name = amp.name
        read = raw[detector.region(amp)]
        noise = detector.readnoise[name] / detector.gain[name] * (noise_factor or {}).get(name, 1.0)
        level = detector.level[name] + rng.normal(0.0, 1.0) + rng.normal(0.0, 0.05, (len(read), 1))
        if name in (jump or {}):
            level[len(read) // 2 :] += (jump or {})[name]
        read *= np.float32(noise)
        read += level.astype(np.float32)
        if name not in dead:
            raw[_lit(amp)] += signal[name] / np.float32(detector.gain[name])
    raw += detector.bias
    np.rint(raw, out=raw)
    np.clip(raw, 0, MAX_ADU, out=raw)
    return raw.astype(np.uint16)


def _section(x: int, width: int, y: int, height: int) -> str:
    return f"[{x + 1}:{x + width},{y + 1}:{y + height}]"


def _corner(name: str) -> str:
    """Where an amplifier sits: its new name."""
    return AMP_NAMES["1234".index(name)] if name in "1234" else name


def _lit(amp: Amp) -> tuple[slice, slice]:
    """Data and overscan columns, which are read one after the other."""
    data, over = amp.datasec, amp.biassec
    return slice(data.y0, data.y1), slice(min(data.x0, over.x0), max(data.x1, over.x1))


def _trailed(detector: Detector, amp: Amp, electrons: Float) -> Float:
    """What arrives at an amplifier [electron], overscan included: pixels lack what those read before them trail.

    A pixel lacks a sum over d of a (d/w) exp(-d/w) times the one read d before it (spec preproc §4.4), which is a
    recursive filter with a double pole.
    """
    _, columns = _lit(amp)
    line = np.zeros((len(electrons), columns.stop - columns.start), np.float32)
    in_order = line if amp.reads_left else line[:, ::-1]  # a view in the order of reading
    in_order[:, : electrons.shape[1]] = electrons if amp.reads_left else electrons[:, ::-1]
    if amp.name in detector.trail:
        amplitude, width = detector.trail[amp.name]
        decay = np.exp(-1.0 / width)
        in_order -= lfilter([0.0, amplitude / width * decay], [1.0, -2.0 * decay, decay**2], in_order, axis=1)
    return line


def _cross_talked(detector: Detector, signal: Mapping[str, Float]) -> dict[str, Float]:
    """Each amplifier with the mirrored faint copy of the others, read at the same moment."""
    out = {name: part.copy() for name, part in signal.items()}
    at = {amp.name: (amp.ccdsec.y0, amp.ccdsec.x0) for amp in detector.amps}
    for (source, target), fraction in detector.crosstalk.items():
        copy = signal[source]
        if at[source][0] != at[target][0]:
            copy = copy[::-1]
        if at[source][1] != at[target][1]:
            copy = copy[:, ::-1]
        out[target] += np.float32(fraction) * copy
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
