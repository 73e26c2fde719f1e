"""What each offline step costs here and in desispec, on the same data: CPU seconds on one core, and peak memory.

    python -m benchmarks.peers.speed_with_desispec --python PYTHON --folder DIR [--camera r0] [--only sky,coadd]

DIR holds raw/, calib/ and redux/ of a night reduced by `qlstream reduce` (as `benchmarks.offline.truth --folder` makes
it), PYTHON an interpreter that has desispec. Each side takes the products of that night into memory and calls the
function that does the step, in a process of its own with one thread; of two calls the quicker one counts, since the
first may compile, or only one if it took longer than a minute. Only the standard stars are timed from files to file,
as desispec has them as a command. The last column is theirs over ours: above 1 we are quicker.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from qlstream.datamodel.stars import StarTemplates
from qlstream.io.stdstars import read_star_templates, write_star_templates

LAMP, SCIENCE = 2, 3  # exposures of the night that serve
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
WIDE = (2900.0, 11100.0)  # Angstrom
ONCE_S = 60.0  # a call that takes longer is not repeated


@dataclass(frozen=True)
class Files:
    """The products that the steps take."""

    folder: Path
    camera: str

    def of(self, kind: str, expid: int = SCIENCE, camera: str = "") -> str:
        """One product of an exposure, a night or a tile."""
        camera = camera or self.camera
        for pattern in (
            f"redux/exposures/*/{expid:08d}/{kind}-{camera}-{expid:08d}.fits*",
            f"redux/exposures/*/{expid:08d}/{kind}-{camera[1:]}-{expid:08d}.fits*",
            f"redux/preproc/*/{expid:08d}/{kind}-{camera}-{expid:08d}.fits*",
            f"redux/calibnight/*/{kind}-{camera}-*.fits*",
            f"redux/tiles/*/*/*/{kind}-{camera[1:]}-*.fits*",
            f"raw/*/{expid:08d}/{kind}-{expid:08d}.fits*",
        ):
            for path in sorted(self.folder.glob(pattern)):
                return str(path.resolve())
        raise FileNotFoundError(f"no {kind} of {camera}, exposure {expid}, in {self.folder}")

    def arms(self) -> list[str]:
        """The cameras of the petal that have a sky model."""
        pattern = f"redux/exposures/*/{SCIENCE:08d}/sky-*{self.camera[1:]}-*.fits*"
        return sorted(path.name.split("-")[1] for path in self.folder.glob(pattern))


def _preproc(files: Files) -> Callable[[], Any]:
    from algorithms.preproc.stage import Preproc
    from algorithms.steps.surroundings import Surroundings, context_of
    from qlstream.io.raw import read_raw

    def call() -> Any:
        raw = read_raw(Path(files.of("desi")), files.camera)
        params = Surroundings.model_validate({"camera": files.camera, "calib": files.folder / "calib"})
        return Preproc().run(raw, context_of(raw.header, params))

    return call


def _fiberflat(files: Files) -> Callable[[], Any]:
    from algorithms.fiberflat.stage import ComputeFiberflat
    from algorithms.steps.surroundings import Surroundings, context_of
    from qlstream.io.frame import read_frame

    frame = read_frame(Path(files.of("frame", LAMP)))
    return lambda: ComputeFiberflat().run(frame, context_of(frame.meta, Surroundings.model_validate({})))


def _flattened(files: Files) -> tuple[Any, Any]:
    from algorithms.fiberflat.stage import ApplyFiberFlat_QL
    from algorithms.steps.surroundings import Surroundings, context_of
    from qlstream.io.fiberflat import read_fiberflat
    from qlstream.io.frame import read_frame

    frame = read_frame(Path(files.of("frame")))
    flat = read_fiberflat(Path(files.of("fiberflatnight")))
    context = context_of(frame.meta, Surroundings.model_validate({}), FIBERFLAT=flat)
    return ApplyFiberFlat_QL().run(frame, context), context


def _sky(files: Files) -> Callable[[], Any]:
    from algorithms.sky.stage import ComputeSky

    frame, context = _flattened(files)
    return lambda: ComputeSky().run(frame, context)


def _fluxcalib(files: Files) -> Callable[[], Any]:
    from algorithms.fluxcal.vector import CalibrationLimits, compute_fluxcalib
    from algorithms.sky.framemodel import subtract_model
    from qlstream.io.sky import read_sky
    from qlstream.io.stdstars import read_stdstars

    frame, context = _flattened(files)
    frame, stars = (
        subtract_model(frame, read_sky(Path(files.of("sky"))), 3.0),
        read_stdstars(Path(files.of("stdstars"))),
    )
    return lambda: compute_fluxcalib(frame, stars, 1.1, context.instrument.fiber_diameter, CalibrationLimits())


def _cframe(files: Files) -> Callable[[], Any]:
    from algorithms.fiberflat.stage import ApplyFiberFlat_QL
    from algorithms.fluxcal.frame import apply_fluxcalib
    from algorithms.sky.framemodel import subtract_model
    from algorithms.steps.surroundings import Surroundings, context_of
    from qlstream.io.fiberflat import read_fiberflat
    from qlstream.io.fluxcalib import read_fluxcalib
    from qlstream.io.frame import read_frame
    from qlstream.io.sky import read_sky

    frame = read_frame(Path(files.of("frame")))
    flat = read_fiberflat(Path(files.of("fiberflatnight")))
    context = context_of(frame.meta, Surroundings.model_validate({}), FIBERFLAT=flat)
    sky, calib = read_sky(Path(files.of("sky"))), read_fluxcalib(Path(files.of("fluxcalib")))
    return lambda: apply_fluxcalib(subtract_model(ApplyFiberFlat_QL().run(frame, context), sky, 3.0), calib)


def _coadd(files: Files) -> Callable[[], Any]:
    from algorithms.coadd.exposures import coadd
    from qlstream.io.spectra import read_spectra

    spectra = read_spectra(Path(files.of("spectra")))
    return lambda: coadd(spectra, 4.0)


def _cameras(files: Files) -> Callable[[], Any]:
    from algorithms.coadd.cameras import coadd_cameras
    from qlstream.io.spectra import read_spectra

    spectra = read_spectra(Path(files.of("coadd")))
    return lambda: coadd_cameras(spectra)


def _resample(files: Files) -> Callable[[], Any]:
    from algorithms.coadd.resample import linear_grid, resample_spectra
    from qlstream.io.spectra import read_spectra

    spectra = read_spectra(Path(files.of("coadd")))
    return lambda: resample_spectra(spectra, linear_grid(3600.0, 9800.0, 1.0))


def _perfect(files: Files) -> Callable[[], Any]:
    from algorithms.coadd.resample import linear_grid, spectroperf_coadd
    from qlstream.io.spectra import read_spectra

    spectra = read_spectra(Path(files.of("coadd")))
    few = spectra.select(targets=spectra.target_ids()[:2])
    return lambda: spectroperf_coadd(few, linear_grid(3600.0, 9800.0, 1.0))


def _stdstars(files: Files) -> Callable[[], Any]:
    from algorithms.steps.stars import StarStep
    from qlstream.pipeline.filestep import StepFiles

    inputs = {
        port: tuple(Path(files.of(kind, camera=camera)) for camera in files.arms())
        for port, kind in (("frames", "frame"), ("fiberflats", "fiberflatnight"), ("skies", "sky"))
    }
    step = StarStep({"templates": files.folder / "calib" / "stars" / "templates.fits"})
    return lambda: step.run(StepFiles(inputs, {"stdstars": Path(tempfile.gettempdir(), "stars.fits")}))


# step -> (here, set-up there, call there)
STEPS: dict[str, tuple[Callable[[Files], Callable[[], Any]], str, str]] = {
    "preproc": (
        _preproc,
        "import desispec.io",
        "desispec.io.read_raw(of('desi'), camera, fibermapfile=of('fibermap'))",
    ),
    "fiberflat": (
        _fiberflat,
        "from desispec.fiberflat import compute_fiberflat; frame = read_frame(of('frame', LAMP))",
        "compute_fiberflat(frame)",
    ),
    "sky, with wavelengths and widths": (
        _sky,
        "from desispec.sky import compute_sky; frame = flattened()",
        "compute_sky(copy.deepcopy(frame), adjust_wavelength=True, adjust_lsf=True)",
    ),
    "standard stars": (
        _stdstars,
        "import desispec.scripts.stdstars as stdstars\n"
        "def all(kind): return [of(kind, camera=c) for c in arms]\n"
        "line = ['--frames', *all('frame'), '--skymodels', *all('sky'), '--fiberflats', *all('fiberflatnight')]\n"
        "line += ['--starmodels', templates, '--ncpu', '1', '-o', tempfile.gettempdir() + '/stars.fits']\n"
        "arguments = stdstars.parse(line)",
        "stdstars.main(arguments)",
    ),
    "flux calibration": (
        _fluxcalib,
        "import desispec.fiberfluxcorr as fibers  # it needs tables of desimodel that are in no package, and no time\n"
        "def ones(fibermap, *args, **kwargs): return np.ones(len(fibermap))\n"
        "fibers.flat_to_psf_flux_correction = fibers.psf_to_fiber_flux_correction = ones\n"
        "from desispec.fluxcalibration import compute_flux_calibration; from desispec.sky import subtract_sky\n"
        "frame = flattened(); subtract_sky(frame, desispec.io.read_sky(of('sky')))\n"
        "flux, wave, fibers, table = desispec.io.read_stdstar_models(of('stdstars'))",
        "compute_flux_calibration(copy.deepcopy(frame), wave, flux, fibers % 500, stdcheck=False)",
    ),
    "cframe": (
        _cframe,
        "from desispec.fiberflat import apply_fiberflat; from desispec.sky import subtract_sky\n"
        "from desispec.fluxcalibration import apply_flux_calibration\n"
        "frame, flat = read_frame(of('frame')), desispec.io.read_fiberflat(of('fiberflatnight'))\n"
        "sky, calib = desispec.io.read_sky(of('sky')), desispec.io.read_flux_calibration(of('fluxcalib'))\n"
        "def cframe(frame):\n"
        "    apply_fiberflat(frame, flat); subtract_sky(frame, sky); apply_flux_calibration(frame, calib)\n",
        "cframe(copy.deepcopy(frame))",
    ),
    "coadd of exposures": (
        _coadd,
        "from desispec.coaddition import coadd; spectra = read_spectra(of('spectra'))",
        "coadd(copy.deepcopy(spectra), cosmics_nsig=4.0)",
    ),
    "coadd of arms": (
        _cameras,
        "from desispec.coaddition import coadd_cameras; spectra = read_spectra(of('coadd'))",
        "coadd_cameras(copy.deepcopy(spectra))",
    ),
    "resampling, bin by bin": (
        _resample,
        "from desispec.coaddition import resample_spectra_lin_or_log as resample; spectra = read_spectra(of('coadd'))",
        "resample(copy.deepcopy(spectra), linear_step=1.0, fast=True, wave_min=3600.0, wave_max=9800.0)",
    ),
    "resampling with resolution, 2 targets": (
        _perfect,
        "from desispec.coaddition import spectroperf_resample_spectra as resample\n"
        "spectra = read_spectra(of('coadd'))[:2]",
        "resample(copy.deepcopy(spectra), np.arange(3600.0, 9800.5, 1.0))",
    ),
}

# deepcopy: their functions change what they are given; its own cost is below 0.1 s
CHILD = """
import copy, json, os, resource, sys, tempfile, time, unittest.mock, warnings
warnings.simplefilter("ignore")
import numpy as np
for name in ("specter", "specter.psf", "specter.psf.gausshermite", "specter.util", "specter.util.traceset",
             "specter.extract", "specter.extract.ex2d"):
    sys.modules[name] = unittest.mock.MagicMock()
given = json.load(sys.stdin)
camera, arms, templates, LAMP = (given[key] for key in ("camera", "arms", "templates", "lamp"))
import desispec.io
from desispec.io import read_frame, read_spectra

def of(kind, expid=None, camera=camera):
    return given["files"][f"{kind} {expid or given['science']} {camera}"]

def flattened():
    from desispec.fiberflat import apply_fiberflat
    frame = read_frame(of("frame"))
    apply_fiberflat(frame, desispec.io.read_fiberflat(of("fiberflatnight")))
    return frame

exec(given["setup"])
best = None
while best is None or (best < given["once"] and not again):
    again = best is not None
    before = time.process_time()
    eval(given["call"])
    spent = time.process_time() - before
    best = spent if best is None else min(best, spent)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print("RESULT", json.dumps([best, peak]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="an interpreter that has desispec")
    parser.add_argument("--folder", required=True, type=Path, help="raw/, calib/ and redux/ of a reduced night")
    parser.add_argument("--camera", default="r0")
    parser.add_argument("--only", default="", help="steps whose names begin so, with commas between them")
    parser.add_argument("--ours", help=argparse.SUPPRESS)  # this program as the child that runs one step
    given = parser.parse_args()
    files = Files(given.folder.resolve(), given.camera)
    if given.ours:
        print("RESULT", json.dumps(_timed(STEPS[given.ours][0](files))))
        return
    table = Table("step", "ours [s]", "desispec [s]", "ratio", "ours [MB]", "desispec [MB]")
    wanted = tuple(name.strip() for name in given.only.split(","))
    for name, (_, setup, call) in STEPS.items():
        if not name.startswith(wanted):
            continue
        ours, theirs = here(given, name), there(given.python, files, setup, call)
        if isinstance(ours, str) or isinstance(theirs, str):
            table.add_row(name, *(_cells(ours)[:1] + _cells(theirs)[:1]), "", "", "")
        else:
            ratio = f"{theirs[0] / ours[0]:.1f}"
            table.add_row(name, f"{ours[0]:.2f}", f"{theirs[0]:.2f}", ratio, f"{ours[1]:.0f}", f"{theirs[1]:.0f}")
        print(name, ours, theirs, file=sys.stderr, flush=True)
    Console(width=150, markup=False).print(table)


def _cells(result: Any) -> list[str]:
    return [result] if isinstance(result, str) else [f"{result[0]:.2f}"]


def _timed(call: Callable[[], Any]) -> tuple[float, float]:
    """CPU seconds of the quicker of two calls, and the peak memory of the process [MB]."""
    found: list[float] = []
    while len(found) < 2 and all(spent < ONCE_S for spent in found):
        before = time.process_time()
        call()
        found.append(time.process_time() - before)
    return min(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def here(given: argparse.Namespace, name: str) -> tuple[float, float] | str:
    """CPU seconds and peak memory of a step of ours, or why there are none."""
    command = [sys.executable, "-m", "benchmarks.peers.speed_with_desispec", "--python", given.python]
    command += ["--folder", str(given.folder), "--camera", given.camera, "--ours", name]
    return _result(command, os.environ | ONE_THREAD, None)


def there(python: str, files: Files, setup: str, call: str) -> tuple[float, float] | str:
    """The same of desispec."""
    names: dict[str, str] = {}
    for kind in ("desi", "fibermap", "frame", "fiberflatnight", "sky", "stdstars", "fluxcalib", "spectra", "coadd"):
        for expid in (LAMP, SCIENCE):
            for camera in {files.camera, *files.arms()}:
                try:
                    names[f"{kind} {expid} {camera}"] = files.of(kind, expid, camera)
                except FileNotFoundError:
                    continue  # not every exposure has every product
    calib = files.folder / "calib"
    given: dict[str, Any] = {
        "setup": setup, "call": call, "files": names, "camera": files.camera, "arms": files.arms(), "lamp": LAMP,
        "science": SCIENCE, "once": ONCE_S,
    }  # fmt: skip
    environment = os.environ | ONE_THREAD | {"DESI_LOGLEVEL": "CRITICAL", "DESI_SPECTRO_CALIB": str(calib)}
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as folder:
        given["templates"] = str(Path(folder, "templates.fits"))
        write_star_templates(given["templates"], _wide(read_star_templates(calib / "stars" / "templates.fits")))
        return _result([python, "-c", CHILD], environment, json.dumps(given))


def _wide(templates: StarTemplates) -> StarTemplates:
    """The templates, their ends drawn out over all that desispec's filters let through."""
    wave = np.arange(WIDE[0], WIDE[1], templates.wave[1] - templates.wave[0])
    flux = np.stack([np.interp(wave, templates.wave, row) for row in templates.flux]).astype(np.float32)
    return replace(templates, wave=wave, flux=flux)


def _result(command: list[str], environment: dict[str, str], given: str | None) -> tuple[float, float] | str:
    with tempfile.TemporaryDirectory() as scratch:
        environment = environment | {"TMPDIR": scratch}
        done = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            spent, peak = json.loads(line.removeprefix("RESULT "))
            return spent, peak
    return (done.stderr.strip().splitlines() or ["no message"])[-1]


if __name__ == "__main__":
    main()
