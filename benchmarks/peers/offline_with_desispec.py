"""Does desispec read the products of a reduced night? As a black box.

    python -m benchmarks.peers.offline_with_desispec --python PYTHON --redux DIR

Reads every product of a production folder (made by `qlstream reduce`) with the public functions of desispec.io in the
interpreter --python, and compares every array with what qlstream reads from the same file. Ends with
status 1 if an array differs or a product cannot be read. Redshifts by redrock: `benchmarks.offline.redshifts`.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.standin import STAND_IN
from qlstream.io.fiberflat import read_fiberflat
from qlstream.io.fluxcalib import read_fluxcalib
from qlstream.io.frame import read_frame
from qlstream.io.image import read_image
from qlstream.io.psf import read_psf
from qlstream.io.sky import read_sky
from qlstream.io.spectra import read_spectra
from qlstream.io.stdstars import read_stdstars

Arrays = Mapping[str, Any]

_PER_KIND = 3  # files of each kind that are compared


def _frame(path: Path) -> Arrays:
    frame = read_frame(path)
    assert frame.fibermap is not None
    return {
        "['flux']": frame.flux, "['ivar']": frame.ivar, "['mask']": frame.mask, "['wave']": frame.wave,
        "['resolution_data']": frame.resolution, "['chi2pix']": frame.chi2pix, "['fibermap']['FIBER']": frame.fibers,
        "['fibermap']['TARGETID']": frame.fibermap.column("TARGETID", 0),
        "['R'][7].todense()": frame.resolution_of(7).dense(),
        "['meta']['CAMERA'].strip().lower()": frame.camera, "['meta']['EXPID']": frame.meta["EXPID"],
    }  # fmt: skip


def _spectra(path: Path) -> Arrays:
    spectra = read_spectra(path)
    out: dict[str, Any] = {
        "['fibermap']['TARGETID']": spectra.fibermap["TARGETID"],
        "['bands']": list(spectra.bands),
    }
    for name, band in spectra.bands.items():
        given = {"wave": band.wave, "flux": band.flux, "ivar": band.ivar, "mask": band.mask}
        given["resolution_data"] = band.resolution
        out |= {f"['{what}']['{name}']": values for what, values in given.items()}
    if spectra.exp_fibermap is not None:
        out["['exp_fibermap']['EXPID']"] = spectra.exp_fibermap["EXPID"]
    if spectra.scores is not None:
        name = spectra.scores.dtype.names[-1]
        out[f"['scores']['{name}']"] = spectra.scores[name]
    return out


def _fiberflat(path: Path) -> Arrays:
    flat = read_fiberflat(path)
    return {"['fiberflat']": flat.fiberflat, "['ivar']": flat.ivar, "['mask']": flat.mask,
            "['meanspec']": flat.meanspec, "['wave']": flat.wave}  # fmt: skip


def _sky(path: Path) -> Arrays:
    sky = read_sky(path)
    return {"['flux']": sky.flux, "['ivar']": sky.ivar, "['mask']": sky.mask, "['wave']": sky.wave,
            "['stat_ivar']": sky.stat_ivar, "['throughput_corrections']": sky.throughput}  # fmt: skip


def _stars(path: Path) -> Arrays:
    stars = read_stdstars(path)
    return {"[0]": stars.flux, "[1]": stars.wave, "[2]": stars.fibers, "[3]['CHI2DOF']": stars.metadata["CHI2DOF"],
            "[3]['MODEL_G-R']": stars.metadata["MODEL_G-R"]}  # fmt: skip


def _fluxcalib(path: Path) -> Arrays:
    calib = read_fluxcalib(path)
    assert calib.fibercorr is not None
    return {"['calib']": calib.value, "['ivar']": calib.ivar, "['mask']": calib.mask, "['wave']": calib.wave,
            "['fibercorr']['FLAT_TO_PSF_FLUX']": calib.fibercorr["FLAT_TO_PSF_FLUX"]}  # fmt: skip


def _psf(path: Path) -> Arrays:
    psf = read_psf(path)
    return {"['x_vs_wave_traceset']._coeff": psf.traces.xcoef, "['y_vs_wave_traceset']._coeff": psf.traces.ycoef,
            "['npix_y']": psf.traces.npix_y, "['ysig_vs_wave_traceset']._coeff": psf.coef["GHSIGY"]}  # fmt: skip


def _image(path: Path) -> Arrays:
    image = read_image(path)
    return {"['pix']": image.pix, "['ivar']": image.ivar, "['mask']": image.mask}


# product -> (its files, expression that reads it in the other interpreter, what qlstream reads from it). Members are
# asked for by ['name'] throughout, which the other side turns into attributes where there is no such key.
PRODUCTS: dict[str, tuple[str, str, Callable[[Path], Arrays]]] = {
    "preproc": ("preproc/*/*/preproc-*.fits*", "desispec.io.read_image(f)", _image),
    "psf": ("calibnight/*/psfnight-*.fits*", "desispec.io.read_xytraceset(f)", _psf),
    "psf of an exposure": ("exposures/*/*/psf-*.fits*", "desispec.io.read_xytraceset(f)", _psf),
    "frame": ("exposures/*/*/frame-*.fits*", "desispec.io.read_frame(f)", _frame),
    "fiberflat": ("calibnight/*/fiberflatnight-*.fits*", "desispec.io.read_fiberflat(f)", _fiberflat),
    "sky": ("exposures/*/*/sky-*.fits*", "desispec.io.read_sky(f)", _sky),
    "stdstars": ("exposures/*/*/stdstars-*.fits*", "desispec.io.read_stdstar_models(f)", _stars),
    "fluxcalib": ("exposures/*/*/fluxcalib-*.fits*", "desispec.io.read_flux_calibration(f)", _fluxcalib),
    "cframe": ("exposures/*/*/cframe-*.fits*", "desispec.io.read_frame(f)", _frame),
    "spectra": ("tiles/**/spectra-*.fits*", "desispec.io.read_spectra(f)", _spectra),
    "coadd": ("tiles/**/coadd-*.fits*", "desispec.io.read_spectra(f)", _spectra),
}

CHILD = (
    STAND_IN
    + """
import json, pickle
import desispec, desispec.io

class Members:  # data['flux'] whether it is an attribute or a key
    def __init__(self, data):
        self.data = data
    def __getitem__(self, key):
        return getattr(self.data, key) if isinstance(key, str) and hasattr(self.data, key) else self.data[key]

report = {"version": desispec.__version__, "products": []}
for product, f, expression, wanted in pickle.load(open("wanted.pickle", "rb")):
    try:
        data = Members(eval(expression))
        wrong = []
        for member, want in wanted.items():
            have, want = np.asarray(eval("data" + member)), np.asarray(want)
            if want.dtype.kind in "fiu":
                same = have.shape == want.shape and np.allclose(have, want, rtol=1e-6, atol=1e-30, equal_nan=True)
            else:
                same = have.shape == want.shape and (have == want).all()
            wrong += [] if same else [member]
        verdict = f"differs in {', '.join(wrong)}" if wrong else f"ok: {len(wanted)} arrays"
    except Exception as error:
        verdict = f"{type(error).__name__}: {error}"
    report["products"].append((product, f, verdict))
json.dump(report, open("report.json", "w"))
"""
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="an interpreter that has desispec")
    parser.add_argument("--redux", required=True, type=Path, help="production folder of a reduced night")
    given = parser.parse_args()
    return int(not compare(given.python, given.redux))


def compare(python: str, redux: Path) -> bool:
    """Whether desispec reads all that is there as it was written."""
    wanted = []
    for product, (pattern, expression, read) in PRODUCTS.items():
        paths = sorted(redux.glob(pattern))
        if not paths:
            print(f"  {product:20s} not tried: no {pattern}")
        chosen = paths[-_PER_KIND:]  # the last ones are of science exposures
        wanted += [(product, str(path.resolve()), expression, dict(read(path))) for path in chosen]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wanted.pickle").write_bytes(pickle.dumps(wanted))
        environment = os.environ | {"DESI_LOGLEVEL": "CRITICAL"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [python, "-c", CHILD], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return False
        report = json.loads((folder / "report.json").read_text())
    print(f"desispec {report['version']} reads")
    verdicts: dict[str, list[str]] = defaultdict(list)
    for product, path, verdict in report["products"]:
        verdicts[product].append(verdict if verdict.startswith("ok") else f"{Path(path).name}: {verdict}")
    for product, found in verdicts.items():
        print(f"  {product:20s} " + ("; ".join(dict.fromkeys(found))) + f" ({len(found)} files)")
    return all(v.startswith("ok") for found in verdicts.values() for v in found)


if __name__ == "__main__":
    sys.exit(main())
