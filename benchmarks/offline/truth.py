"""Print how far the offline reduction is from the simulated truth: quantity, measured, aim, met.

    python -m benchmarks.offline.truth [--instrument desi] [--cameras b0,r0,z0] [--folder DIR] [--markdown FILE]

Simulates an arc, a flat and two science exposures of one spectrograph, with noiseless images beside them, and reduces
them by `qlstream reduce`. What is in --folder already is not made again, so a second call is quick.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.offline import calibrated, extraction, optics, spectra
from benchmarks.offline.night import Night
from benchmarks.truth.line import Line
from qlstream.instrument import load_instrument
from qlstream.io.camword import decode_camword, parse_cameras

COLUMNS = ("step", "quantity", "camera", "truth", "measured", "aim", "met")
SUBJECTS = (optics.lines, extraction.lines, calibrated.lines, spectra.lines)


@click.command()
@click.option("--instrument", "name", default="desi", show_default=True)
@click.option("--cameras", default="b0,r0,z0", show_default=True, help="of one spectrograph")
@click.option("--seed", default=1, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="keep everything here")
@click.option("--redo", multiple=True, help="do this kind of task again, and what follows from it, e.g. psf")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="write the table to this file too")
def main(
    name: str, cameras: str, seed: int, workers: int, folder: Path | None, redo: tuple[str, ...], markdown: Path | None
) -> None:
    """Compare every product of the offline reduction with the simulated truth."""
    chosen = tuple(decode_camword(parse_cameras(cameras)))
    with tempfile.TemporaryDirectory() as scratch:
        night = Night(folder or Path(scratch), load_instrument(name), chosen, seed)
        night.make(workers, [option for kind in redo for option in ("--redo", kind)])
        rows = list(_rows(night))
    title = f"offline reduction, {name} {cameras}, seed {seed}"
    table = Table(*COLUMNS, title=title)
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=190, markup=False).print(table)
    missed = sum(not line.met for _, line in rows)
    print(f"{len(rows)} comparisons, {missed} aims missed")
    if markdown:
        head = [f"Truth table: {title}. {len(rows)} comparisons, {missed} aims missed.", ""]
        ruler = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        markdown.write_text("\n".join(head + ruler + ["| " + " | ".join(_cells(r)) + " |" for r in rows]) + "\n")


def _rows(night: Night) -> Iterator[tuple[str, Line]]:
    for camera in night.cameras:
        for lines in SUBJECTS:
            yield from ((camera, line) for line in lines(night, camera))
    yield from (("", line) for line in calibrated.star_lines(night))


def _cells(row: tuple[str, Line]) -> tuple[str, ...]:
    camera, line = row
    met = "" if not line.aim else "yes" if line.met else "MISSED"
    return (line.stage, line.quantity, camera, line.truth, line.measured, line.aim, met)


if __name__ == "__main__":
    main()
