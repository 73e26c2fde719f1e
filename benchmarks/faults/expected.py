"""What each kind of fault must raise, and what may follow from it at the same place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FiberSet:
    """Fibers that a metric must name: those whose value of `key` lies within [low, high]."""

    name: str
    key: str
    low: float
    high: float


@dataclass(frozen=True)
class Trouble:
    """A state that is told in place of results: of the exposure, or of the camera.

    Attributes
    ----------
    of : "exposure" or "camera"
    state : in the store
    reason : regular expression; {camera} stands for the one that the fault names
    """

    of: str
    state: str
    reason: str


@dataclass(frozen=True)
class Expected:
    """What a fault does.

    Attributes
    ----------
    alarms : flavor, or "" for those not named -> alarms that must be there, as METRIC or METRIC:AMPLIFIERS, where
        {part} stands for what the fault names; nothing if the fault cannot be seen in that flavor
    also : metrics that may alarm too, at the same camera and exposure
    fibers : flavor, or "" -> the fibers of the fault, as a metric must find them
    arms : that can see it; all if empty
    once : the first exposure tells; later ones are compared with calibrations made from it
    learned : as `alarms`, what ranges learned from past nights tell beside them
    trouble : what happens instead
    """

    alarms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    fibers: Mapping[str, FiberSet] = field(default_factory=dict)
    arms: str = ""
    once: bool = False
    learned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trouble: Trouble | None = None


# What follows where the light of a camera is spoiled.
_ARC = ("CHECKARC_FRACTION", "NLINES", "LAMP_LEVEL", "YSIGMA_RATIO", "YSIGMA_RATIO_HIGH", "YSIGMA_RATIO_LOW")
_FLAT = (
    "CHECKFLAT", "DEADFIB_FRACTION", "DIMFIB_FRACTION", "FLATRATIO_NMAD", "CHANGEDFIB_FRACTION", "FLATLAMP_RATE",
    "INTEG_FLUX",
)  # fmt: skip
_SKY = ("NSKY_FIB", "SKYCONT_SPREAD", "PEAKCOUNT_SPREAD", "SKYCHI2", "SKYCHI2_LINES", "RESIDNOISE", "NBAD_PCHI")
_SKY_LEVEL = ("SKYCONT_RATE", "PEAKCOUNT", "SKY_MAG_G", "SKYRBAND", "SKY_MAG_Z")
_DEPTH = (
    "FIDSNR_1000S", "FIDSNR_TGT", "SPEED", "EFFTIME_FRACTION", "LOWEFFTIME_FRACTION", "TRANSPARENCY", "DELTAMAG_MEDIAN",
    "DELTAMAG_TGT", "STARRMS", "THRU_MEDIAN",
)  # fmt: skip
_LOST = ("NOFFTARGET", "NLOST", "LOST_FRACTION")
_LIGHT = ("GOODFIB_FRACTION", "FLUXLEVEL", "LITFRAC_AMP", "LITRATIO_AMP")
_SPECTRA = (*_ARC, *_FLAT, *_SKY, *_SKY_LEVEL, *_DEPTH, *_LOST, *_LIGHT)

_NO_LIGHT = ("LITFRAC_AMP:ABCD", "FLUXLEVEL", "GOODFIB_FRACTION")
_DARK_FIBERS = FiberSet("CountSpectralBins", "GOOD_FIBERS", 0.0, 0.0)

EXPECTED: dict[str, Expected] = {
    "noisy-amp": Expected(
        {"": ("NOISE_AMP:{part}",)},
        ("BIAS_STEP_AMP:{part}", "READNOISE_RATIO:{part}", "BIAS_PATNOISE:{part}", "LITFRAC_AMP:{part}"),
    ),
    "dead-amp": Expected(
        {
            "arc": ("LITFRAC_AMP:{part}",),
            "flat": ("LITFRAC_AMP:{part}", "LITRATIO_AMP:{part}"),
            "science": ("LITFRAC_AMP:{part}", "LITRATIO_AMP:{part}"),
        },
        _SPECTRA,
    ),
    "bias-jump": Expected({"": ("BIAS_STEP_AMP:{part}",)}, ("BIAS_DRIFT_AMP:{part}", "BIAS_PATNOISE:{part}")),
    "pickup": Expected(
        {"": ("BIAS_PATNOISE:{part}",)}, ("BIAS_STEP_AMP:{part}", "BIAS_DRIFT_AMP:{part}", "CORR_MAX_AMP:{part}")
    ),
    "swapped-amps": Expected(
        {"flat": ("DEADFIB_FRACTION",)}, (*_SPECTRA, "SPREADDX", "BIAS_AMP"), learned={"": ("BIAS_AMP:{part}",)}
    ),
    "no-readout": Expected(
        {"": ("FLATPIXELS",)}, ("NOISE_AMP", "NOISE_TAILS", "READNOISE_RATIO", "CORR_MAX_AMP", *_SPECTRA)
    ),
    "warm-ccd": Expected({"": ("CCDTEMP",), "dark": ("CCDTEMP", "DARKLEVEL_AMP:ABCD", "LITFRAC_AMP:ABCD")}, _SPECTRA),
    "light-leak": Expected({"dark": ("DARKLEVEL_AMP:ABCD", "LITFRAC_AMP:ABCD")}),
    "cosmic-storm": Expected(
        {"dark": ("COSMICS_RATE",)},
        ("COSMICS_RATE", "MASKFRAC_AMP", "MASKEDROWS", *_SPECTRA),
    ),
    "lamp-off": Expected({"": _NO_LIGHT}, _SPECTRA),
    "dim-lamp": Expected({"flat": ("FLATLAMP_RATE",), "arc": ("LAMP_LEVEL",)}, _SPECTRA),
    "dead-lamp": Expected({"": ("LAMP_{part}",)}, _ARC, arms="rz"),
    "closed-shutter": Expected({"": _NO_LIGHT}, _SPECTRA),
    "out-of-focus": Expected({"": ("XSIGMA_RATIO",)}, ("WSIGMA_RATIO", *_SPECTRA)),
    "shifted-traces": Expected({"": ("XYSHIFTS_X", "XYSHIFTS_Y")}, once=True),
    "mispositioned": Expected(
        {"": ("NOFFTARGET",)},
        (*_LOST, *_DEPTH, "OFFSET_MEDIAN"),
        {"": FiberSet("Fiber_Positions", "OFFSET_FIB", 30.0, 1e9)},
    ),
    "dead-fibers": Expected(
        {"": ("GOODFIB_FRACTION",), "flat": ("DEADFIB_FRACTION",)},
        _SPECTRA,
        {"arc": _DARK_FIBERS, "science": _DARK_FIBERS},
    ),
    "dim-fibers": Expected(
        {"flat": ("DIMFIB_FRACTION",)}, _SPECTRA, {"flat": FiberSet("Check_FiberFlat", "FLATMEAN", 0.01, 0.5)}
    ),
    "clouds": Expected({"": ("TRANSPARENCY", "DELTAMAG_MEDIAN")}, (*_DEPTH, *_LOST)),
    "moonlit": Expected({"": ("SKYCONT_RATE",)}, (*_SKY_LEVEL, *_DEPTH, "LITFRAC_AMP")),
    "short-exposure": Expected({"": ("EXPTIME_FRACTION",)}, _SPECTRA),
    "missing-camera": Expected(trouble=Trouble("exposure", "done", "{camera} missing")),
    "missing-keyword": Expected(trouble=Trouble("camera", "failed", "has no CCDSECA")),
    "missing-fibermap": Expected(trouble=Trouble("exposure", "done", "no fibermap")),
    "truncated": Expected(trouble=Trouble("exposure", "incomplete", "bytes up to the end of HDU (?i:{camera})")),
    "corrupt-hdu": Expected(trouble=Trouble("camera", "failed", "HDU (?i:{camera}): corrupt data")),
}
