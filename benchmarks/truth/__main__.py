"""Print the truth table: quantity, truth, measured, difference in sigma, aim, and whether it is met.

    python -m benchmarks.truth [--instrument desi] [--cameras b0,r0,z0] [--flavors zero,arc,...] [--seed 1]
                               [--markdown FILE] [--all]

Simulates the exposures of each camera one after another and runs them through the shipped plans, so that the flat gets
its wavelengths from the arc and the science exposures their fiber flat from the flat. One row per stage, quantity and
flavor: that of the camera which comes out worst, or of every camera with --all. Nothing is wrong with these exposures,
so below the table stands what the shipped ranges call an ALARM or a WARNING all the same.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.truth import cosmics, detector, extraction, flat, frames, optics, sky, targets
from benchmarks.truth.exposed import KINDS, Exposed, reduced_night
from benchmarks.truth.line import Line
from qlstream.instrument import load_instrument
from qlstream.io.camword import decode_camword, parse_cameras
from qlstream.pipeline.result import QASeverity

Row = tuple[str, str, Line]  # kind of exposure, camera
SUBJECTS: tuple[Callable[[Exposed], Iterator[Line]], ...] = (
    detector.lines, cosmics.lines, optics.lines, extraction.lines, flat.lines, sky.lines, targets.lines,
    frames.lines,
)  # fmt: skip
COLUMNS = ("exposure", "stage", "quantity", "camera", "truth", "measured", "diff [σ]", "aim", "met", "reference")


@click.command()
@click.option("--instrument", "name", default="desi", show_default=True)
@click.option("--cameras", default="b0,r0,z0", show_default=True)
@click.option("--flavors", default=",".join(KINDS), show_default=True, help="kinds of exposures to simulate")
@click.option("--seed", default=1, show_default=True)
@click.option("--all", "every", is_flag=True, help="a row for every camera, not only for the worst")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="write the table to this file too")
def main(name: str, cameras: str, flavors: str, seed: int, every: bool, markdown: Path | None) -> None:
    """Compare every stage and metric with the simulated truth."""
    instrument = load_instrument(name)
    kinds = tuple(kind.strip() for kind in flavors.split(","))
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise click.BadParameter(
            f"no {', '.join(sorted(unknown))}; known are {', '.join(KINDS)}", param_hint="--flavors"
        )
    rows: list[Row] = []
    told: list[str] = []
    for camera in decode_camword(parse_cameras(cameras)):
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            for exposed in reduced_night(instrument, camera, kinds, seed, Path(folder)):
                print(f"{camera} {exposed.kind}: reduced after {time.monotonic() - start:.0f} s", flush=True)
                for stage, why in exposed.reduced.outcome.skipped.items():
                    print(f"  {stage} skipped: {why}")
                told += [f"{camera} {exposed.kind}: {text}" for text in verdicts(exposed)]
                rows += [(exposed.kind, camera, line) for subject in SUBJECTS for line in subject(exposed)]
    shown = rows if every else worst_cameras(rows)
    title = f"{name} {cameras}, seed {seed}"
    table = Table(*COLUMNS, title=title)
    for row in shown:
        table.add_row(*cells(row))
    Console(width=190, markup=False).print(table)
    missed = [row for row in rows if not row[2].met]
    told.insert(0, f"{len(rows)} comparisons, {len(missed)} aims missed; {len(told)} verdicts of ALARM or WARNING")
    print("\n".join(told))
    if markdown:
        ruler = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        body = ["| " + " | ".join(cells(row)) + " |" for row in shown]
        markdown.write_text(
            "\n".join([f"Truth table: {title}", "", *ruler, *body, "", *(f"- {t}" for t in told)]) + "\n"
        )


def verdicts(exposed: Exposed) -> list[str]:
    """What the ranges call an ALARM or a WARNING."""
    checks = [check for _, result in exposed.reduced.outcome.judged for check in result.checks]
    return [f"{check.severity.name} {check.why}" for check in checks if check.severity >= QASeverity.WARNING]


def cells(row: Row) -> tuple[str, ...]:
    """A row as text."""
    kind, camera, line = row
    sigmas = "" if math.isnan(line.sigmas) else f"{line.sigmas:+.1f}"
    met = "yes" if line.met else "MISSED"
    return (kind, line.stage, line.quantity, camera, line.truth, line.measured, sigmas, line.aim, met, line.reference)


def worst_cameras(rows: list[Row]) -> list[Row]:
    """Of each quantity the camera that misses its aim, else the one farthest from its truth in sigma."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        kind, _, line = row
        groups.setdefault((kind, line.stage, line.quantity.partition(", worst:")[0]), []).append(row)

    def badness(row: Row) -> tuple[bool, float]:
        return not row[2].met, abs(row[2].sigmas) if math.isfinite(row[2].sigmas) else 0.0

    return [max(group, key=badness) for group in groups.values()]


if __name__ == "__main__":
    main()
