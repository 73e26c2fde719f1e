"""Small files for the viewers: the CCD image and the spectra of a camera, binned so that a page can load them at once.

Files lie in REDUX/qlstream/previews/NIGHT/EXPID/ and have rows in the table `products`. Both are uncompressed npz
without pickles; `read_preview` gives the arrays by name.

Kind "preview", preview-CAMERA-vVERSION-aATTEMPT.npz: the preprocessed image, at most 1024 pixels on a side.

===========  ===================  =======================================================================
image        (h, w) float32       mean of the unmasked CCD pixels of each bin, or of all if none is [electron]
mask         (h, w) uint8         1 where any CCD pixel of the bin is masked
binning      () int32             CCD pixels per side of a bin; bin i covers pixels i*binning to (i+1)*binning - 1
shape        (2,) int32           ny, nx of the CCD; the last row and column of bins may be partly covered
amp_names    (namp,) str          A, B, C, D
amp_boxes    (namp, 4) int32      x0, x1, y0, y1 of each amplifier in CCD pixels, ends excluded
traces       (nspec, 3) float32   column of each fiber at the first, middle and last row [CCD pixel]; empty if unknown
===========  ===================  =======================================================================

Kind "spectra", spectra-CAMERA-vVERSION-aATTEMPT.npz: the last spectra that the plan gave.

===========  ===================  =======================================================================
wave         (nspec, n) float32   mean wavelength of each bin [Angstrom]
flux         (nspec, n) float32   inverse-variance weighted mean [`bunit`]; NaN without information
ivar         (nspec, n) float32   of that mean; 0 without information
sky          (nspec, n) float32   sky that was subtracted, in the same bins; (0, 0) if none was
fiber        (nspec,) int32       FIBER numbers
bunit        () str               unit of flux and sky
binning      () int32             CCD rows per bin; 1 where nothing was binned
===========  ===================  =======================================================================
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from sqlalchemy import select

from qlstream.datamodel.image import Image
from qlstream.datamodel.qframe import QFrame
from qlstream.io.atomic import atomic_path
from qlstream.store.database import Store
from qlstream.store.jobs import Job
from qlstream.store.schema import products

IMAGE_SIDE = 1024  # pixels; what a page shows at once
SAMPLES = 1000  # of a spectrum; about two per screen pixel of its plot

_FOLDER = Path("qlstream", "previews")


def show(outputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Kind -> arrays, of what can be shown of the outputs of a camera's stages: the last image, the last spectra."""
    image, qframe = _last(outputs, Image), _last(outputs, QFrame)
    shown = {} if image is None else {"preview": bin_image(image)}
    return shown if qframe is None else shown | {"spectra": bin_spectra(qframe)}


def write_previews(redux: Path, job: Job, outputs: Mapping[str, Any]) -> dict[str, Path]:
    """Write what can be shown; returns kind -> file.

    Version and attempt stand in the names, so that no attempt writes over what another one's row points to.
    """
    folder = redux / _FOLDER / str(job.night) / f"{job.expid:08d}"
    files = {}
    for kind, arrays in show(outputs).items():
        path = folder / f"{kind}-{job.camera}-v{job.version}-a{job.attempt}.npz"
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
        files[kind] = path
    return files


def read_preview(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file of kind "preview" or "spectra"."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def bin_image(image: Image, side: int = IMAGE_SIDE) -> dict[str, Any]:
    """The arrays of kind "preview", at most `side` bins wide and high."""
    binning = -(-max(image.ny, image.nx) // side)
    pix, mask = _bin_image(image.pix, image.mask, binning)
    boxes = []
    for readout in image.readouts:
        rows, columns = readout.amp.ccdsec.slices
        boxes.append((columns.start, columns.stop, rows.start, rows.stop))
    return {
        "image": pix,
        "mask": mask,
        "binning": np.int32(binning),
        "shape": np.array((image.ny, image.nx), dtype=np.int32),
        "amp_names": np.array([readout.name for readout in image.readouts], dtype=np.str_),
        "amp_boxes": np.array(boxes, dtype=np.int32).reshape(-1, 4),
        "traces": _trace_columns(image),
    }


def bin_spectra(qframe: QFrame, samples: int = SAMPLES) -> dict[str, Any]:
    """The arrays of kind "spectra", at most about `samples` bins per fiber."""
    binning = max(1, round(qframe.flux.shape[1] / samples))
    good = np.where(qframe.mask == 0, qframe.ivar, np.float32(0))
    ivar = _sums(good, binning)
    with np.errstate(invalid="ignore", divide="ignore"):
        flux = _sums(np.where(good > 0, good * qframe.flux, np.float32(0)), binning) / ivar
        sky = np.empty((0, 0)) if qframe.sky is None else _sums(good * qframe.sky, binning) / ivar
    ones = np.ones((1, qframe.flux.shape[1]))
    return {
        "wave": (_sums(qframe.wave, binning) / _sums(ones, binning)).astype(np.float32),
        "flux": flux.astype(np.float32),
        "ivar": ivar.astype(np.float32),
        "sky": sky.astype(np.float32),
        "fiber": qframe.fibers.astype(np.int32),
        "bunit": np.str_(qframe.bunit),
        "binning": np.int32(binning),
    }


def sweep_previews(store: Store, older_than_s: float = 3600.0) -> int:
    """Remove files that no row points to: left by attempts that were killed or replaced; returns how many.

    Younger files are left alone, since their row may be about to come.
    """
    before = time.time() - older_than_s
    found = [p for p in (store.redux / _FOLDER).glob("*/*/*") if p.is_file() and p.stat().st_mtime < before]
    with store.read() as conn:
        wanted = set(conn.execute(select(products.c.path).where(products.c.kind.in_(("preview", "spectra")))).scalars())
    orphans = [path for path in found if str(path.relative_to(store.redux)) not in wanted]
    for path in orphans:
        path.unlink(missing_ok=True)
    return len(orphans)


def _last(outputs: Mapping[str, Any], kind: type) -> Any:
    return next((data for data in reversed(list(outputs.values())) if isinstance(data, kind)), None)


def _trace_columns(image: Image) -> NDArray[np.float32]:
    if image.traces is None:
        return np.empty((0, 3), dtype=np.float32)
    rows = np.array([0.0, (image.ny - 1) / 2, image.ny - 1.0])
    return image.traces.x_vs_y(rows).astype(np.float32)


def _sums(values: NDArray[Any], binning: int) -> NDArray[np.float64]:
    """(nspec, n) float64, sums of `binning` neighbours along each row; the last bin may hold fewer."""
    return np.add.reduceat(values, np.arange(0, values.shape[1], binning), axis=1, dtype=np.float64)


@njit(nogil=True, cache=True)
def _bin_image(
    pix: NDArray[np.float32], mask: NDArray[np.uint16], binning: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    ny, nx = pix.shape
    height, width = (ny + binning - 1) // binning, (nx + binning - 1) // binning
    image = np.empty((height, width), dtype=np.float32)
    masked = np.zeros((height, width), dtype=np.uint8)
    good = np.empty((2, width), dtype=np.float64)  # sum and number of unmasked pixels
    bad = np.empty((2, width), dtype=np.float64)
    for i in range(height):
        good[:] = 0.0
        bad[:] = 0.0
        for y in range(i * binning, min((i + 1) * binning, ny)):
            for j in range(width):
                for x in range(j * binning, min((j + 1) * binning, nx)):
                    if mask[y, x] == 0:
                        good[0, j] += pix[y, x]
                        good[1, j] += 1.0
                    else:
                        bad[0, j] += pix[y, x]
                        bad[1, j] += 1.0
        for j in range(width):
            masked[i, j] = bad[1, j] > 0
            image[i, j] = good[0, j] / good[1, j] if good[1, j] > 0 else bad[0, j] / bad[1, j]
    return image, masked
