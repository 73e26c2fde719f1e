"""Headers of simulated exposures: the cards that real ones carry (spec raw-and-calib §1)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from math import acos
from typing import Any

from qlstream import __version__
from qlstream.instrument import Instrument
from qlstream.io.camword import create_camword
from qlstream.simulate.detector import Detector, raw_shape
from qlstream.simulate.schedule import Exposure
from qlstream.simulate.seeds import generator

Cards = dict[str, Any]

# Hardware spectrograph (SM) of each logical one (SP), spec raw-and-calib §4
SM_OF_SP = {0: 4, 1: 10, 2: 5, 3: 6, 4: 1, 5: 9, 6: 7, 7: 8, 8: 2, 9: 3}
CCD_CONFIG, CCD_TIMING = "default_sim_20260101.cfg", "default_sim_timing.txt"
WARM_BY = 20.0  # of the fault warm-ccd [K]
DIGITIZE = 56.45  # [second]
_LONGITUDE = -111.59989  # degree, east
_PROGRAM = {
    "zero": "CALIB ZEROs for nightly bias",
    "dark": "CALIB DARK 300s",
    "arc": "CALIB DESI-CALIB-00 arc lamps",
    "flat": "CALIB DESI-CALIB-00 LEDs only",
    "science-dark": "DARK",
    "science-gray": "GRAY",
    "science-bright": "BRIGHT",
}


def detector_name(camera: str, spectrograph: int) -> str:
    """Serial of a CCD, e.g. QL-R-04; no name with SIM in it, for which the calibration tree has other rules."""
    return f"QL-{camera[0].upper()}-{SM_OF_SP[spectrograph]:02d}"


def exposure_header(exposure: Exposure, instrument: Instrument, cameras: Sequence[str]) -> Cards:
    """Cards of the SPEC HDU.

    Parameters
    ----------
    cameras : that the exposure promises to have
    """
    spectrographs = sorted({int(camera[1:]) for camera in cameras})
    cards: Cards = {
        "EXPID": exposure.expid,
        "NIGHT": exposure.night,
        "FLAVOR": "science",  # as in real exposures, whatever OBSTYPE is
        "OBSTYPE": exposure.flavor.upper(),
        "PROGRAM": _PROGRAM[exposure.kind],
        "EXPTIME": exposure.exptime,
        "REQTIME": round(exposure.exptime if exposure.reqtime is None else exposure.reqtime),
        "MJD-OBS": exposure.mjd,
        "ST": _sidereal_time(exposure.mjd),
        "TIMESYS": "UTC",
        "DATE-OBS": _iso(exposure, 0.0),
        "TIME-OBS": _iso(exposure, 0.0),
        "OPENSHUT": _iso(exposure, 0.4),
        "SEQUENCE": "_Split" if exposure.flavor == "science" else "Spectrographs",
        "SEQNUM": exposure.sequence[0],
        "SEQTOT": exposure.sequence[1],
        "SEQID": f"{exposure.expid - exposure.sequence[0] + 1} requests",
        "VISITIDS": str(exposure.expid - exposure.sequence[0] + 1),
        "PURPOSE": "Main Survey" if exposure.flavor == "science" else "Calibration",
        "OBJECT": "",
        "OBSERVER": "simulation",
        "LEAD": "simulation",
        "PROPID": "2026A-0000",
        "TELESCOP": "KPNO 4.0-m telescope",
        "INSTRUME": instrument.name.upper(),
        "OBSERVAT": "KPNO",
        "OBS-LAT": "31.96403",
        "OBS-LONG": str(_LONGITUDE),
        "OBS-ELEV": 2097.0,
        "SPCGRPHS": ", ".join(f"SP{number}" for number in spectrographs),
        "CAMERAS": create_camword(cameras),
        "CAMSHUT": "open",
        "DOMSHUTU": "open" if exposure.flavor == "science" else "closed",
        "PMCOVER": "open",
        "DOSVER": "trunk",
        "OCSVER": 1.2,
        "CONSTVER": "DESI:CURRENT",
        "INIFILE": f"qlstream simulate {__version__}",
    }
    if exposure.flavor == "science":
        cards |= _pointing(exposure)
    return cards


def camera_header(
    exposure: Exposure, camera: str, instrument: Instrument, detector: Detector, seed: int, warm: bool = False
) -> Cards:
    """Cards of a camera's HDU, its amplifier sections included."""
    rng = generator(seed, exposure.night, exposure.expid, camera, "header")
    arm, spectrograph = camera[0], instrument.spectrograph(camera)
    sm = SM_OF_SP[spectrograph]
    temperature = 850.0 if arm == "b" else round(rng.normal(-137.5, 0.3) + (WARM_BY if warm else 0.0), 4)
    rows, columns = raw_shape(detector.arm)
    cards: Cards = {
        "CAMERA": camera,
        "SPECGRPH": spectrograph,
        "SPECID": sm,
        "DETECTOR": detector_name(camera, spectrograph),
        "CCDNAME": f"CCDSM{sm}{arm.upper()}",
        "CCDCFG": CCD_CONFIG,
        "CCDTMING": CCD_TIMING,
        "SETTINGS": "detectors_sim_20260101.json",
        "CDSPARMS": "400, 400, 8, 2000",
        "DELAYS": "20, 20, 25, 40, 7, 3000, 7, 7, 400, 7",
        "PGAGAIN": 3,
        "FEEVER": "v20160312",
        "FEEBOX": f"lbnl{80 + sm:03d}",
        "VESSEL": 10 + sm,
        "DOSVER": "trunk",
        "CCDSIZE": f"{rows},{columns}",
        "CCDPREP": "purge,clear",
        "CCDTEMP": temperature,
        "VCCD": "ON",
        "VCCDON": f"{exposure.night // 10000}-01-01T18:00:00.000000",
        "VCCDSEC": round(310000.0 + 86400.0 * (exposure.mjd % 1.0), 1),
        "CRYOTEMP": round(139.96 + rng.normal(0.0, 0.05), 3),
        "CRYOPRES": f"{rng.uniform(5e-8, 1e-7):.3e}",
        "DIGITIME": DIGITIZE,
        "BLDTIME": 0.35,
        "EXPTIME": round(exposure.exptime + (0.034 if exposure.exptime else 0.0), 4),
        "OBSID": f"kp4m{exposure.date_obs:%Y%m%dt%H%M%S}",
        "PROCTYPE": "RAW",
        "PRODTYPE": "image",
        "NIGHT": exposure.night,
        "EXPID": exposure.expid,
        "DATE-OBS": _iso(exposure, 0.0),
        "MJD-OBS": exposure.mjd,
        "FLAVOR": "science",
        "PROGRAM": _PROGRAM[exposure.kind],
    }
    if exposure.flavor == "science":
        cards["TILEID"] = exposure.tileid
    return {**cards, **detector.sections}


def _pointing(exposure: Exposure) -> Cards:
    ra, dec = exposure.tilera, exposure.tiledec
    cards: Cards = {
        "TILEID": exposure.tileid,
        "FIBASSGN": f"/data/tiles/{exposure.tileid // 1000:03d}/fiberassign-{exposure.tileid:06d}.fits.gz",
    }
    for prefix in ("TARGT", "REQ", "SKY", "TILE"):
        cards |= {prefix + "RA": ra, prefix + "DEC": dec}
    zenith = 57.29578 * _arc_secant(exposure.airmass)
    cards |= {
        "AIRMASS": exposure.airmass,
        "MOUNTAZ": 170.0,
        "MOUNTEL": round(90.0 - zenith, 4),
        "MOUNTHA": -2.0,
        "MOUNTDEC": dec,
        "PARALLAC": 10.0,
        "ZD": round(zenith, 4),
        "SEEING": exposure.seeing,
        "ETCSEENG": exposure.seeing,
        "PMSEEING": round(exposure.seeing * 1.03, 4),
        "TRANSPAR": exposure.transparency,
        "ETCTRANS": exposure.transparency,
        "SKYLEVEL": round(1.0 + exposure.moonlight, 3),
        "MOONSEP": exposure.moonsep,
        "MOONRA": round((ra + exposure.moonsep) % 360.0, 3),
        "MOONDEC": round(dec, 3),
        "SUNRA": 297.0,
        "SUNDEC": -21.0,
        "NTSSURVY": "main",
        "NTSPROG": _PROGRAM[exposure.kind],
    }
    return cards


def _arc_secant(airmass: float) -> float:
    return acos(min(1.0, 1.0 / airmass))


def _iso(exposure: Exposure, delay: float) -> str:
    return (exposure.date_obs + timedelta(seconds=delay)).strftime("%Y-%m-%dT%H:%M:%S.%f")


def _sidereal_time(mjd: float) -> str:
    """Local mean sidereal time, to a second (Meeus, Astronomical Algorithms, eq. 12.4)."""
    degrees = (280.46061837 + 360.98564736629 * (mjd - 51544.5) + _LONGITUDE) % 360.0
    seconds = degrees * 240.0
    return f"{int(seconds // 3600):02d}:{int(seconds // 60) % 60:02d}:{seconds % 60:06.3f}"
