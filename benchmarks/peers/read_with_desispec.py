"""Does desispec read what qlstream writes? Product by product, as black boxes.

    python -m benchmarks.peers.read_with_desispec --python /path/to/python/with/desispec

Writes one file of each kind (realistic size: 500 spectra), lets the other interpreter read it through the public
functions of desispec.io, and compares every array with what was written. Ends with status 1 if one differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.standin import STAND_IN
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.fluxcalib import FluxCalib
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.sky import SkyModel
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import load_instrument
from qlstream.io.fiberflat import write_fiberflat
from qlstream.io.fibermap import write_fibermap
from qlstream.io.fluxcalib import write_average_fluxcalib
from qlstream.io.frame import write_frame
from qlstream.io.image import write_image
from qlstream.io.psf import GaussHermitePSF, write_psf
from qlstream.io.qframe import write_qframe
from qlstream.io.raw import write_raw
from qlstream.io.sky import write_sky
from qlstream.io.xytraceset import write_xytraceset

# product -> (expression that reads it in the other interpreter, attribute there -> array written here)
READERS = {
    "fibermap": ("desispec.io.read_fibermap(f)", {"['FIBER']": "fiber", "['TARGETID']": "targetid"}),
    "preproc": ("desispec.io.read_image(f)", {".pix": "pix", ".ivar": "ivar", ".mask": "mask", ".readnoise": "rn"}),
    "xytraceset": (
        "desispec.io.read_xytraceset(f)",
        {".x_vs_wave_traceset._coeff": "xcoef", ".y_vs_wave_traceset._coeff": "ycoef", ".npix_y": "npix_y"},
    ),
    "psf": (
        "desispec.io.read_xytraceset(f)",
        {".x_vs_wave_traceset._coeff": "xcoef", ".ysig_vs_wave_traceset._coeff": "ysig"},
    ),
    "frame": (
        "desispec.io.read_frame(f)",
        {
            ".flux": "flux", ".ivar": "ivar", ".mask": "mask", ".wave": "wave", ".resolution_data": "resolution",
            ".fibermap['FIBER']": "fiber", ".R[3].todense()": "dense3",
        },
    ),
    "qframe": (
        "desispec.qproc.io.read_qframe(f)",
        {".flux": "flux", ".ivar": "ivar", ".mask": "mask", ".wave": "wave", ".fibermap['FIBER']": "fiber"},
    ),
    "fiberflat": (
        "desispec.io.read_fiberflat(f)",
        {".fiberflat": "flat", ".ivar": "ivar", ".mask": "mask", ".meanspec": "meanspec", ".wave": "wave"},
    ),
    "sky": ("desispec.io.read_sky(f)", {".flux": "flux", ".ivar": "ivar", ".mask": "mask", ".stat_ivar": "stat"}),
    "fluxcalib": (
        "desispec.io.fluxcalibration.read_average_flux_calibration(f)",
        {".wave": "wave", ".average_calib": "value", ".atmospheric_extinction": "aterm", ".pivot_airmass": "airmass"},
    ),
    # preprocessed there without calibration images: (raw - overscan) * gain, to the error of the overscan level
    "raw": (
        "desispec.io.read_raw(f, 'r3', fibermapfile='fibermap.fits', nocosmic=True, **{k: False for k in OFF})",
        {".pix": "pix", ".meta['EXPID']": "expid", ".meta['CAMERA'].strip().lower()": "camera"},
    ),
}  # fmt: skip

CHILD = (
    STAND_IN
    + """
import json
import desispec, desispec.io, desispec.io.fluxcalibration
import desispec.qproc.io
readers = json.load(open("readers.json"))
OFF = ("bias", "dark", "pixflat", "mask")
report = {"version": desispec.__version__}
for kind, (expression, attributes) in readers.items():
    f = ("desi-00000082.fits.fz" if kind == "raw" else kind + ".fits")
    try:
        data = eval(expression)
        want = np.load(kind + ".npz")
        wrong = []
        for attribute, name in attributes.items():
            have = np.asarray(eval("data" + attribute))
            if want[name].dtype.kind in "fiu":
                same = np.allclose(have, want[name], rtol=1e-5, atol=0.1 if kind == "raw" else 1e-4)
            else:
                same = (have == want[name]).all()
            wrong += [] if same else [attribute]
        report[kind] = "differs: " + ", ".join(wrong) if wrong else "ok"
    except (ModuleNotFoundError, FileNotFoundError) as error:  # desispec itself lacks something here
        report[kind] = f"not tried: {error}"
    except Exception as error:
        report[kind] = f"{type(error).__name__}: {error}"
json.dump(report, open("report.json", "w"))
"""
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="an interpreter that has desispec")
    python = parser.parse_args().python
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_all(folder)
        (folder / "readers.json").write_text(json.dumps(READERS))
        environment = os.environ | {"DESI_LOGLEVEL": "CRITICAL", "DESI_SPECTRO_CALIB": str(folder)}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [python, "-c", CHILD], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return done.returncode
        report = json.loads((folder / "report.json").read_text())
    print(f"desispec {report.pop('version')} reads")
    for kind, verdict in report.items():
        print(f"  {kind:12s} {verdict}")
    return int(any(v != "ok" and not v.startswith("not tried") for v in report.values()))


def write_all(folder: Path) -> None:
    """One file of every kind, and beside it an npz of the arrays that must come back."""
    rng = np.random.default_rng(1)
    instrument = load_instrument("desi")
    nspec, camera = instrument.nspec, "r3"
    fibers = instrument.fibers(camera)
    nwave = 400
    wave = 5760 + 0.8 * np.arange(nwave)
    flux, ivar = rng.normal(100, 10, (nspec, nwave)), rng.random((nspec, nwave))
    mask = rng.integers(0, 2**13, (nspec, nwave)).astype(np.uint32)
    fibermap = _fibermap(fibers)
    meta: dict[str, Any] = {
        "CAMERA": camera, "SPECGRPH": 3, "NIGHT": 20260115, "EXPID": 82, "EXPTIME": 900.0, "FLAVOR": "science",
        "OBSTYPE": "SCIENCE", "MJD-OBS": 61056.25, "DATE-OBS": "2026-01-16T06:00:00",
    }  # fmt: skip

    def expect(kind: str, **arrays: Any) -> None:
        np.savez(folder / f"{kind}.npz", **arrays)

    write_fibermap(folder / "fibermap.fits", fibermap)
    expect("fibermap", fiber=fibers, targetid=fibermap.column("TARGETID"))

    arm = instrument.arm(camera)
    shape = arm.shape
    pix, variance = rng.normal(0, 3, shape).astype(np.float32), np.full(shape, 9, np.float32)
    bits = rng.integers(0, 512, shape).astype(np.uint16)
    write_image(folder / "preproc.fits", Image(pix, 1 / variance, bits, camera, (), meta, np.sqrt(variance)), fibermap)
    expect("preproc", pix=pix, ivar=1 / variance, mask=bits, rn=np.sqrt(variance))

    xcoef = np.zeros((nspec, 7))
    xcoef[:, 0] = instrument.trace_columns()
    ycoef = np.tile([2000.0, 2000, 10, 1, 0, 0, 0], (nspec, 1))
    width = np.tile([1.05, 0.02], (nspec, 1))
    traces = XYTraceSet(xcoef, ycoef, 5543.0, 7826.0, arm.ny, width, width)
    write_xytraceset(folder / "xytraceset.fits", traces)
    expect("xytraceset", xcoef=xcoef, ycoef=ycoef, npix_y=arm.ny)
    coef = {"GHSIGX": width, "GHSIGY": width, "GH-0-0": np.tile([1.0, 0.0], (nspec, 1))}
    write_psf(folder / "psf.fits", GaussHermitePSF(traces, coef, 5543.0, 7826.0))
    expect("psf", xcoef=xcoef, ysig=width)

    bands = rng.random((nspec, 11, nwave)).astype(np.float32)
    frame = Frame(wave, flux, ivar, mask, fibers, bands.astype(float), fibermap=fibermap, meta=meta)
    write_frame(folder / "frame.fits", frame)
    dense = frame.resolution_of(3).dense()
    expect("frame", flux=flux, ivar=ivar, mask=mask, wave=wave, resolution=bands, fiber=fibers, dense3=dense)

    wave2d = wave + rng.random((nspec, 1))
    f4 = [a.astype(np.float32) for a in (flux, ivar)]
    write_qframe(folder / "qframe.fits", QFrame(wave2d, f4[0], f4[1], mask, fibers, f4[1], fibermap, meta=meta))
    expect("qframe", flux=flux, ivar=ivar, mask=mask, wave=wave2d, fiber=fibers)

    flat = FiberFlat(wave, flux, ivar, mask, flux[0], fibers, 1.1, fibermap, meta)
    write_fiberflat(folder / "fiberflat.fits", flat)
    expect("fiberflat", flat=flux, ivar=ivar, mask=mask, meanspec=flux[0], wave=wave)

    sky = SkyModel(wave, flux, ivar, mask, stat_ivar=ivar, throughput=flux[:, 0], meta=meta)
    write_sky(folder / "sky.fits", sky)
    expect("sky", flux=flux, ivar=ivar, mask=mask, stat=ivar)

    calib = FluxCalib(wave, flux[0], ivar[0], ivar[1], 1.125, 1.0625)
    write_average_fluxcalib(folder / "fluxcalib.fits", replace(calib, meta={}))
    expect("fluxcalib", wave=wave, value=flux[0], aterm=ivar[0], airmass=1.125)

    _write_raw(folder, meta, rng)


def _fibermap(fibers: np.ndarray) -> Fibermap:
    columns = [("TARGETID", "i8"), ("PETAL_LOC", "i2"), ("DEVICE_LOC", "i4"), ("LOCATION", "i8"), ("FIBER", "i4"),
               ("FIBERSTATUS", "i4"), ("TARGET_RA", "f8"), ("TARGET_DEC", "f8"), ("OBJTYPE", "U3"),
               ("DESI_TARGET", "i8"), ("FLUX_R", "f4")]  # fmt: skip
    rows = np.zeros(len(fibers), dtype=columns)
    rows["FIBER"], rows["TARGETID"], rows["OBJTYPE"] = fibers, 39627000000000000 + fibers.astype(np.int64), "TGT"
    rows["PETAL_LOC"], rows["DEVICE_LOC"] = fibers // 500, fibers % 500
    return Fibermap(rows, {"TILEID": 7, "SURVEY": "main"})


def _write_raw(folder: Path, meta: dict[str, Any], rng: np.random.Generator) -> None:
    """A raw exposure of a small CCD with four amplifiers."""
    ny, nx, overscan, gain, level = 200, 100, 32, 1.5, 2000
    pix = rng.poisson(400, (2 * ny, 2 * (nx + overscan)))
    cards: dict[str, Any] = {
        "SPECID": 4, "SPECGRPH": 3, "DETECTOR": "M1-53", "FEEVER": "v1", "DOSVER": "trunk", "CCDCFG": "a.cfg",
        "CCDTMING": "a.txt", "CCDSIZE": f"{2 * ny},{2 * (nx + overscan)}",
    }  # fmt: skip
    for i, amp in enumerate("ABCD"):
        right, top = i % 2, i // 2
        rows = f"{top * ny + 1}:{(top + 1) * ny}"
        data, bias = (nx + 2 * overscan, nx + overscan) if right else (0, nx)
        cards[f"GAIN{amp}"] = gain
        cards[f"DATASEC{amp}"] = f"[{data + 1}:{data + nx}, {rows}]"
        cards[f"BIASSEC{amp}"] = f"[{bias + 1}:{bias + overscan}, {rows}]"
        cards[f"CCDSEC{amp}"] = f"[{right * nx + 1}:{(right + 1) * nx}, {rows}]"
    own = {key: meta[key] for key in ("NIGHT", "EXPID", "EXPTIME", "FLAVOR", "DATE-OBS", "MJD-OBS")}
    pix[:, nx : nx + 2 * overscan] = rng.normal(0, 2, (2 * ny, 2 * overscan)).round()
    adu = (pix + level).astype(np.uint16)
    write_raw(folder / "desi-00000082.fits.fz", {**own, "OBSTYPE": "SCIENCE"}, {"r3": (adu, {**cards, **own})})
    tree = folder / "spec" / "sm4"  # desispec wants an entry even where it is told to use none of its images
    tree.mkdir(parents=True)
    (tree / "sm4-r.yaml").write_text("sm4-r: {v1: {DATE-OBS-BEGIN: 20250101, DETECTOR: M1-53, AMPLIFIERS: ABCD}}")
    trimmed = np.concatenate([pix[:, :nx], pix[:, nx + 2 * overscan :]], axis=1)
    np.savez(folder / "raw.npz", pix=gain * trimmed, expid=82, camera="r3")


if __name__ == "__main__":
    sys.exit(main())
