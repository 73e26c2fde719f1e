"""Are coadds, resolutions, resampling and linear algebra what users of desispec expect? As a black box.

    python -m benchmarks.peers.spectra_with_desispec --python PYTHON --spectra FILE

Coadds FILE (spectra of a tile or pixel, e.g. of `qlstream group-spectra`) here and in the interpreter --python, and
prints per band how the two differ, and which columns one of them lacks. Then calls the functions that both have by the
same names with the same random numbers. Ends with status 1 if these differ by more than rounding errors.
"""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from algorithms.coadd.exposures import coadd
from algorithms.scores import coadd_scores
from qlstream.datamodel.resolution import Resolution
from qlstream.io.spectra import read_spectra
from qlstream.numeric.linalg import cholesky_invert, cholesky_solve, cholesky_solve_and_invert, spline_fit
from qlstream.numeric.resample import resample_flux

_ROUNDING = 1e-9

CHILD = """
import pickle, warnings
warnings.simplefilter("ignore")
import numpy as np
import desispec, desispec.io
from desispec.coaddition import coadd
from desispec.interpolation import resample_flux
from desispec.linalg import cholesky_invert, cholesky_solve, cholesky_solve_and_invert, spline_fit
from desispec.resolution import Resolution

given = pickle.load(open("given.pickle", "rb"))
calls = {name: np.asarray(eval(call, globals(), given["numbers"])) for name, call in given["calls"].items()}
spectra = desispec.io.read_spectra(given["spectra"])
coadd(spectra, cosmics_nsig=given["nsig"])
scores = spectra.scores.keys() if isinstance(spectra.scores, dict) else spectra.scores.dtype.names
pickle.dump({
    "version": desispec.__version__, "calls": calls, "targetid": np.asarray(spectra.fibermap["TARGETID"]),
    "bands": {b: (spectra.flux[b], spectra.ivar[b], spectra.resolution_data[b]) for b in spectra.bands},
    "columns": {"FIBERMAP": list(spectra.fibermap.dtype.names), "EXP_FIBERMAP": list(spectra.exp_fibermap.dtype.names),
                "SCORES": list(scores)},
    "fibermap": {c: np.asarray(spectra.fibermap[c]) for c in spectra.fibermap.dtype.names},
}, open("found.pickle", "wb"))
"""

# the same expressions are evaluated on both sides
CALLS = {
    "Resolution of widths": "Resolution(widths).todense()",
    "Resolution of bands": "Resolution(bands).todense()",
    "Resolution of a matrix": "Resolution(square).to_fits_array()",
    "Resolution with offsets": "Resolution(few, offsets).todense()",
    "Resolution.offsets": "Resolution(widths).offsets",
    "Resolution.dot": "Resolution(widths).dot(model)",
    "resample_flux": "resample_flux(xout, x, flux)",
    "resample_flux with ivar": "np.array(resample_flux(xout, x, flux, ivar))",
    "resample_flux beyond its ends": "resample_flux(wide, x, flux)",
    "resample_flux, extrapolated": "resample_flux(wide, x, flux, extrapolate=True)",
    "cholesky_solve": "cholesky_solve(a, b)",
    "cholesky_invert": "cholesky_invert(a)",
    "cholesky_solve_and_invert": "cholesky_solve_and_invert(a, b)[1]",
    "spline_fit": "spline_fit(xout, x, flux, 5.0)",
    # of samples with different ivar, desispec weights residuals by ivar instead of its root: not the same fit
    "spline_fit with a mask": "spline_fit(xout, x, flux, 7.0, (ivar > 0).astype(float))",
}


class _Dense(Resolution):
    """With the one method that is called otherwise here."""

    def todense(self) -> Any:
        return self.dense()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="an interpreter that has desispec")
    parser.add_argument("--spectra", required=True, type=Path, help="file of spectra, before coaddition")
    parser.add_argument("--nsig", type=float, default=0.0, help="mask cosmic rays beyond this; 0 for none")
    given = parser.parse_args()
    found = _other(given.python, given.spectra, given.nsig)
    print(f"desispec {found['version']}")
    _compare_coadds(given.spectra, given.nsig, found)
    return int(not _compare_calls(found["calls"]))


def _numbers() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    part = rng.normal(size=(8, 20))
    ivar = rng.uniform(0.5, 2.0, 80)
    ivar[10:13] = 0
    return {
        "widths": np.linspace(0.8, 1.6, 60), "bands": rng.normal(size=(11, 40)), "square": rng.normal(size=(50, 50)),
        "few": rng.normal(size=(4, 40)), "offsets": np.array([2, 0, -1, 1]), "model": rng.normal(size=60),
        "x": np.sort(rng.uniform(0, 100, 80)), "xout": np.linspace(5, 95, 33), "wide": np.linspace(-20, 120, 50),
        "flux": rng.normal(5, 1, 80), "ivar": ivar, "a": part @ part.T, "b": rng.normal(size=8),
    }  # fmt: skip


def _other(python: str, spectra: Path, nsig: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = {"calls": CALLS, "numbers": _numbers(), "spectra": str(spectra.resolve()), "nsig": nsig}
        (folder / "given.pickle").write_bytes(pickle.dumps(given))
        environment = os.environ | {"DESI_LOGLEVEL": "CRITICAL"}
        environment.pop("PYTHONPATH", None)
        subprocess.run([python, "-c", CHILD], cwd=folder, env=environment, check=True)
        found: dict[str, Any] = pickle.loads((folder / "found.pickle").read_bytes())
    return found


def _compare_coadds(path: Path, nsig: float, found: dict[str, Any]) -> None:
    mine = coadd(read_spectra(path), nsig, normalize=False)
    assert mine.exp_fibermap is not None
    row = {target: n for n, target in enumerate(mine.fibermap["TARGETID"].tolist())}
    index = np.array([row[target] for target in found["targetid"].tolist()])
    for name, (flux, ivar, resolution) in found["bands"].items():
        band = mine.bands[name].take(index)
        assert band.resolution is not None
        both = (ivar > 0) & (band.ivar > 0)
        same = both & (np.abs(band.ivar / np.where(both, ivar, 1.0) - 1.0) < 1e-4)
        off = (np.abs(flux - band.flux) * np.sqrt(ivar))[same].max()
        print(
            f"  {name}: {same.sum() / max(both.sum(), 1):.5f} of the bins have equal ivar, flux there within {off:.1e} "
            f"sigma; information in one only: {((ivar > 0) != (band.ivar > 0)).sum()} bins; "
            f"R within {np.abs(resolution - band.resolution).max():.1e}"
        )
    for table, rows in (
        ("FIBERMAP", mine.fibermap), ("EXP_FIBERMAP", mine.exp_fibermap), ("SCORES", coadd_scores(mine)),
    ):  # fmt: skip
        have, want = set(rows.dtype.names or ()), set(found["columns"][table])
        print(f"  {table}: {len(have & want)} columns of both; not here: {_listed(want - have)}; ", end="")
        print(f"here only: {_listed(have - want)}")
    other = [name for name, values in found["fibermap"].items() if _differs(mine.fibermap[index], name, values)]
    print(f"  columns of the fibermap with other values: {_listed(other)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _differs(rows: Any, name: str, values: Any) -> bool:
    if name not in rows.dtype.names or values.dtype.kind not in "fiu":
        return False
    return not np.allclose(rows[name].astype(float), values.astype(float), rtol=1e-5, atol=1e-7, equal_nan=True)


def _compare_calls(theirs: dict[str, Any]) -> bool:
    names = {"Resolution": _Dense, "resample_flux": resample_flux, "cholesky_solve": cholesky_solve, "np": np,
             "cholesky_invert": cholesky_invert, "cholesky_solve_and_invert": cholesky_solve_and_invert,
             "spline_fit": spline_fit}  # fmt: skip
    good = True
    for name, call in CALLS.items():
        mine = np.asarray(eval(call, names, _numbers()))
        off = float(np.abs(mine - theirs[name]).max()) if mine.shape == theirs[name].shape else np.inf
        good &= off <= _ROUNDING
        print(f"  {name:32s} {'ok' if off <= _ROUNDING else 'DIFFERS'}, within {off:.1e}")
    return good


if __name__ == "__main__":
    sys.exit(main())
