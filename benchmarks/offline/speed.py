"""What the offline steps cost: CPU seconds and peak memory, on one core with one BLAS thread.

    python -m benchmarks.offline.speed [--instrument desi] [--cameras r0] [--folder DIR] [--markdown FILE]

Reduces the same night as `benchmarks.offline.truth` (in --folder, if it is there) and prints what the store knows of
each kind of task: files read and written, compression included. Then times the two-dimensional extraction alone, in a
process of its own: one bundle and the whole frame, on an image in memory.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from algorithms.extract.spectroperfect.extraction import extract_spectra
from benchmarks.offline.night import NIGHT, Night
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.instrument import load_instrument
from qlstream.io.camword import decode_camword, parse_cameras
from qlstream.io.frame import read_frame
from qlstream.io.image import read_image
from qlstream.io.psf import read_psf
from qlstream.production.kinds import KINDS
from qlstream.store import tasks as ledger
from qlstream.store.database import Store

# of the references, on other machines, same work (spec performance-anchors): CPU seconds
REFERENCE = {
    "one bundle": "gpu_specter 23.3 s, specter 40 s (on CPU)",
    "sky": "desispec 13.2 s (with wavelength and width adjustment)",
    "starfit": "desispec some 35 min a petal, serial",
}
COLUMNS = ("what", "of", "CPU [s]", "peak [MB]", "reference")
Row = tuple[str, str, str, str, str]


@click.command()
@click.option("--instrument", "name", default="desi", show_default=True)
@click.option("--cameras", default="b0,r0,z0", show_default=True, help="of one spectrograph")
@click.option("--extract", "camera", default="r0", show_default=True, help="camera whose extraction is timed alone")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="keep everything here")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="write the table to this file too")
def main(name: str, cameras: str, camera: str, folder: Path | None, markdown: Path | None) -> None:
    """Print the cost of every offline step."""
    for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # all work is done by children
        os.environ[threads] = "1"
    chosen = tuple(decode_camword(parse_cameras(cameras)))
    with tempfile.TemporaryDirectory() as scratch:
        night = Night(folder or Path(scratch), load_instrument(name), chosen)
        night.make()
        rows = of_tasks(night) + of_extraction(night, camera)
    table = Table(*COLUMNS, title=f"{name}: offline steps, one core")
    for row in rows:
        table.add_row(*row)
    Console(width=150, markup=False).print(table)
    if markdown:
        lines = ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ("---",) * len(COLUMNS), *rows)]
        markdown.write_text("\n".join(lines) + "\n")


def of_tasks(night: Night) -> list[Row]:
    """Per kind the median and largest CPU time of its tasks."""
    with Store.open(None, night.folder / "redux") as store:
        done = ledger.of_state(store, ledger.DONE, NIGHT)
    costs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for task in done:
        if task["cpu_s"] is not None:
            costs[task["kind"]].append((task["cpu_s"], task["peak_mb"] or 0.0))
    rows = []
    for kind in KINDS:
        if kind.name in costs:
            cpu, memory = np.array(costs[kind.name]).T
            told = f"{np.median(cpu):.1f} (most {cpu.max():.1f})"
            rows.append((kind.name, f"{len(cpu)} tasks", told, f"{memory.max():.0f}", REFERENCE.get(kind.name, "")))
    return rows


def of_extraction(night: Night, camera: str) -> list[Row]:
    """One bundle and the whole frame, each in a fresh process, kernels compiled before."""
    exposure = night.of_flavor("science")[0]
    files = [night.product(kind, exposure, camera) for kind in ("preproc", "psf", "frame")]
    number = night.instrument.nspec // night.instrument.fibers_per_bundle
    rows = []
    for what, bundles in (("one bundle", 1), ("whole frame", number)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            cpu, memory, size = pool.apply(_extract, (files, night.instrument.fibers_per_bundle, bundles))
        told = f"extract {camera}, {what}: {size}"
        rows.append((told, "kernel alone", f"{cpu:.2f}", f"{memory:.0f}", REFERENCE.get(what, "")))
    return rows


def _extract(files: list[Path], fibers_per_bundle: int, bundles: int) -> tuple[float, float, str]:
    """CPU seconds and peak memory [MB] of the second call; the first compiles, or loads what was compiled."""
    image, psf, wave = read_image(files[0]), read_psf(files[1]), read_frame(files[2]).wave
    ivar = np.where(image.mask & np.uint16(EXTRACT_MASK) == 0, image.ivar, np.float32(0.0))
    starts = np.arange(0, fibers_per_bundle * bundles + 1, fibers_per_bundle)
    part = psf.select(slice(0, int(starts[-1])))
    extract_spectra(image.pix, ivar, part, wave, starts[:2])
    start = time.process_time()
    extract_spectra(image.pix, ivar, part, wave, starts)
    spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return spent, peak, f"{starts[-1]} fibers x {wave.size} bins"


if __name__ == "__main__":
    main()
