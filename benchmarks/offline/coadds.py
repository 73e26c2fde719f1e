"""What coaddition costs, and whether its errors are right: CPU seconds, peak memory and pulls, on one core.

    python -m benchmarks.offline.coadds [--targets 500] [--exposures 4]

Spectra of three arms of the grids of DESI, drawn in memory: one truth for each target, seen through a resolution that
differs from exposure to exposure, with unit noise. Kernels are compiled before.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from algorithms.coadd.exposures import coadd
from algorithms.coadd.resample import linear_grid, resample_spectra, spectroperf_coadd, spectroperf_resample
from benchmarks.offline.light import through_resolution
from qlstream.datamodel.resolution import gaussian_bands
from qlstream.datamodel.spectra import Band, Spectra

Array = NDArray[np.float64]

GRIDS = {"b": (3600.0, 2751), "r": (5760.0, 2326), "z": (7520.0, 2881)}  # first bin [Angstrom], number of bins
STEP, NDIAG = 0.8, 11
WIDTHS = (1.05, 0.03)  # sigma of lines in the first exposure, and by how much it grows in each [bin]
COMMON = linear_grid(3600.0, 9824.0, STEP)
_FEW = 10  # targets that are resampled with all their information
REFERENCE = {"coadd without resampling": "90 to 150 s a target", "resampling of the coadd": "90 to 150 s a target"}


@click.command()
@click.option("--targets", default=500, show_default=True, type=click.IntRange(min=1))
@click.option("--exposures", default=4, show_default=True, type=click.IntRange(min=1))
def main(targets: int, exposures: int) -> None:
    """Print costs and pulls."""
    spectra = observed(targets, exposures)
    few = spectra[spectra.fibermap["TARGETID"] < _FEW]
    size = f"{targets} targets x {exposures}"
    one = spectra[spectra.fibermap["TARGETID"] == 0]
    for kernel in (coadd, lambda s: spectroperf_coadd(s, COMMON), lambda s: spectroperf_resample(coadd(s), COMMON)):
        kernel(one)
    table = Table("what", "of", "CPU [s]", "per target [ms]", "memory beside input [MB]", "pulls", "reference")
    rows: list[tuple[str, str, int, Callable[[], Spectra]]] = [
        ("coadd", size, targets, lambda: coadd(spectra)),
        ("quick resampling", f"{_FEW} coadds", _FEW, lambda: resample_spectra(coadd(few), COMMON)),
        ("resampling of the coadd", f"{_FEW} coadds", _FEW, lambda: spectroperf_resample(coadd(few), COMMON)),
        ("coadd without resampling", f"{_FEW} targets x {exposures}", _FEW, lambda: spectroperf_coadd(few, COMMON)),
    ]
    for what, of, number, run in rows:
        found, cpu, memory = _measured(run)
        told = "" if what == "quick resampling" else _pulls(found)
        cost = (f"{cpu:.2f}", f"{1e3 * cpu / number:.1f}", f"{memory:.0f}")
        table.add_row(what, of, *cost, told, REFERENCE.get(what, ""))
    Console(width=170, markup=False).print(table)


def truth(wave: Array) -> Array:
    """Continuum and lines, some as narrow as the resolution."""
    lines = sum(20.0 * np.exp(-0.5 * ((wave - at) / 1.2) ** 2) for at in np.arange(3650.0, 9800.0, 137.3))
    return np.asarray(5.0 + np.sin(wave / 70.0) + lines)


def observed(targets: int, exposures: int) -> Spectra:
    """Rows by exposure and target, unit noise."""
    rng = np.random.default_rng(1)
    rows = np.zeros(targets * exposures, [("TARGETID", "i8"), ("EXPID", "i4"), ("NIGHT", "i4"), ("FIBERSTATUS", "i4")])
    rows["TARGETID"] = np.tile(np.arange(targets), exposures)
    rows["EXPID"] = np.repeat(np.arange(exposures), targets)
    bands = {}
    for name, (first, n) in GRIDS.items():
        wave = linear_grid(first, first + STEP * (n - 1), STEP)
        sigma = np.repeat(WIDTHS[0] + WIDTHS[1] * np.arange(float(exposures))[:, None], n, axis=1)
        resolution = gaussian_bands(sigma, NDIAG)
        seen = through_resolution(resolution, np.repeat(truth(wave)[None], exposures, axis=0))
        flux = seen[rows["EXPID"]] + rng.normal(size=(len(rows), n))
        bands[name] = Band(wave, flux, np.ones_like(flux), np.zeros(flux.shape, np.uint32), resolution[rows["EXPID"]])
    return Spectra(bands, rows)


def _pulls(spectra: Spectra) -> str:
    pulls = []
    for band in spectra.bands.values():
        assert band.resolution is not None
        expected = through_resolution(band.resolution, np.repeat(truth(band.wave)[None], len(spectra), axis=0))
        good = band.ivar > 0
        good[:, :20] = good[:, -20:] = False
        pulls.append(((band.flux - expected) * np.sqrt(band.ivar))[good])
    pull = np.concatenate(pulls)
    return f"mean {pull.mean():+.4f} std {pull.std():.4f} n {pull.size}"


def _measured(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, CPU seconds, and by how much the process grew beyond its largest size so far [MB]."""
    before, start = _peak(), time.process_time()
    found = run()
    return found, time.process_time() - start, _peak() - before


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


if __name__ == "__main__":
    main()
