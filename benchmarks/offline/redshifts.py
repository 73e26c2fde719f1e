"""How many redshifts does redrock find in the coadds of a simulated night? redrock is run as a black box.

    python -m benchmarks.offline.redshifts --rrdesi PROGRAM --redux DIR --truth DIR [--templates DIR] [--targets N]
                                           [--no-galaxies] [--every] [--markdown FILE]

The folder of templates (default RR_TEMPLATE_DIR) may lack galaxies: then one of the simulator's own galaxies is made,
in redrock's format. It spans what was simulated, so the success of galaxies is that of the spectra, not of a template
library; the templates of quasars and stars are of real ones, which the simulated ones resemble roughly.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import fitsio
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from algorithms.steps.redshift import TEMPLATES, RedshiftStep
from qlstream.io.fitsfile import HDU, write_fits
from qlstream.io.redshifts import read_redshifts
from qlstream.io.spectra import read_spectra
from qlstream.pipeline.filestep import StepFiles
from qlstream.simulate import templates as simulated

TOLERANCE = 0.003  # |dz| / (1 + z) of a right redshift
_SPECTYPE = {"ELG": "GALAXY", "LRG": "GALAXY", "BGS": "GALAXY", "QSO": "QSO", "STD": "STAR", "MWS": "STAR"}
_REST = (1300.0, 9950.0)  # [Angstrom]: from the blue end at z = 1.7 to the red end at z = 0
_STEP = 2e-5  # in log10(wave): 14 km/s
_PRESENT = 1e-6  # singular values below this part of the largest are rounding errors
COLUMNS = ("class", "targets", "right", "without warning", "of these right", "of these wrong", "median |dz|/(1+z)")


@click.command()
@click.option("--rrdesi", "program", default="rrdesi", show_default=True, help="redrock's program")
@click.option("--redux", type=click.Path(exists=True, path_type=Path), required=True, help="production folder")
@click.option("--truth", type=click.Path(exists=True, path_type=Path), required=True, help="of the simulated night")
@click.option("--templates", type=click.Path(exists=True, path_type=Path), envvar=TEMPLATES, required=True)
@click.option("--targets", type=click.IntRange(min=1), help="only the first so many of each coadd")
@click.option("--galaxies/--no-galaxies", default=True, show_default=True, help="make those of the simulator")
@click.option("--every", is_flag=True, help="print every target")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="write the table to this file too")
def main(
    program: str,
    redux: Path,
    truth: Path,
    templates: Path,
    targets: int | None,
    galaxies: bool,
    every: bool,
    markdown: Path | None,
) -> None:
    """Print the success of redshifts by class of target."""
    known = simulated_targets(truth)
    rows: list[tuple[Any, ...]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = with_galaxies(templates, Path(scratch)) if galaxies else templates
        for coadd in sorted(redux.glob("**/coadd-*.fits*")):
            out, start, before = Path(scratch) / f"redrock-{coadd.name}", time.monotonic(), os.times()
            step = RedshiftStep({"program": program, "templates": folder, "targets": targets})
            step.run(StepFiles({"coadd": (coadd,)}, {"redrock": out}))
            cpu = os.times().children_user - before.children_user
            found = read_redshifts(out)
            print(f"{coadd.name}: {len(found)} targets, {cpu:.0f} s of CPU time, {time.monotonic() - start:.0f} s")
            fibermap = read_spectra(coadd).fibermap
            fiber_of = dict(zip(fibermap["TARGETID"].tolist(), fibermap["FIBER"].tolist(), strict=True))
            rows += [(row, *known.get(fiber_of[row["TARGETID"]], ("", 0.0))) for row in found]
    if every:
        for row, kind, z in rows:
            print(f"  {kind:4s} z {z:.4f} found {row['Z']:.4f} {_text(row['SPECTYPE'])} zwarn {row['ZWARN']}")
    cells = list(judged(rows))
    table = Table(*COLUMNS, title=f"redshifts within {TOLERANCE} (1 + z)")
    for line in cells:
        table.add_row(*line)
    Console(width=120).print(table)
    if markdown:
        lines = ["| " + " | ".join(line) + " |" for line in (COLUMNS, ("---",) * len(COLUMNS), *cells)]
        markdown.write_text("\n".join(lines) + "\n")


def judged(rows: Iterable[tuple[Any, str, float]]) -> Iterable[tuple[str, ...]]:
    """Cells of the table. Right is a redshift with the type of its class, within the tolerance."""
    classes: dict[str, list[tuple[float, bool, bool]]] = {}
    for row, kind, z in rows:
        if kind in _SPECTYPE:
            off = abs(float(row["Z"]) - z) / (1.0 + z)
            right = off < TOLERANCE and _text(row["SPECTYPE"]) == _SPECTYPE[kind]
            classes.setdefault(kind, []).append((off, right, int(row["ZWARN"]) == 0))
    for kind, found in sorted(classes.items()):
        distance = np.array([one[0] for one in found])
        good, sure = np.array([one[1] for one in found]), np.array([one[2] for one in found])
        typical = float(np.median(distance[good])) if good.any() else np.nan
        counts = (len(found), good.sum(), sure.sum(), (good & sure).sum(), (sure & ~good).sum())
        yield (kind, *(str(n) for n in counts), f"{typical:.1e}")


def simulated_targets(truth: Path) -> dict[int, tuple[str, float]]:
    """FIBER -> class and redshift, from the truth files of science exposures."""
    found = {}
    for path in sorted(truth.glob("*/*/truth-*.fits")):
        for row in fitsio.read(str(path), ext="TARGETS"):
            if _text(row["KIND"]):
                found[int(row["FIBER"])] = (_text(row["KIND"]), float(row["REDSHIFT"]))
    return found


def with_galaxies(templates: Path, scratch: Path) -> Path:
    """A folder with all of `templates`, and galaxies if these have none."""
    folder = scratch / "templates"
    folder.mkdir()
    for path in templates.glob("rrtemplate-*.fits"):
        (folder / path.name).symlink_to(path.resolve())
    if not list(folder.glob("rrtemplate-[Gg][Aa][Ll]*")):
        write_galaxies(folder / "rrtemplate-GALAXY-None-v1.0.fits")
    return folder


def write_galaxies(path: Path) -> None:
    """Principal components of the simulator's galaxies, as a template of redrock."""
    wave = 10.0 ** np.arange(np.log10(_REST[0]), np.log10(_REST[1]), _STEP)
    widths = np.linspace(5.0, 120.0, 12)
    spectra = [simulated.old_galaxy(wave), *(simulated.star_forming_galaxy(wave, width) for width in widths)]
    basis = principal_components(np.array([s / np.median(s[wave > 3600.0]) for s in spectra]))
    cards = {"RRTYPE": "GALAXY", "RRSUBTYP": "", "RRVER": "1.0", "CRVAL1": float(np.log10(wave[0])),
             "CDELT1": _STEP, "LOGLAM": 1, "RRIGM": "None"}  # fmt: skip
    write_fits(path, [HDU("BASIS_VECTORS", basis, cards)])


def principal_components(spectra: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, nwave) orthogonal spectra that span all of (m, nwave), the mean's direction not taken off."""
    _, values, rows = np.linalg.svd(spectra, full_matrices=False)
    return np.asarray(rows[values > _PRESENT * values[0]] * np.sqrt(spectra.shape[1]))


def _text(value: Any) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()


if __name__ == "__main__":
    main()
