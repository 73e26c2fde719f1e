"""Print the fault table: which alarm each simulated fault raises, over whole nights of 30 cameras.

    python -m benchmarks.faults [--instrument mini] [--cameras a0123456789] [--seed 1] [--only NAME] [--learned]
                                [--markdown FILE]

Simulates a night without faults and three nights that share all faults among them (see `nights`), and lets
`qlstream run --once` process each. The first shows how many alarms a healthy night raises: none. For each fault the
table tells what must be found, at how many places (cameras times exposures), what was not, and what was found there
that it does not explain. Alarms at places without a fault are listed below. With --learned, three healthy nights come
first and the ranges that `qlstream ranges learn` makes of them judge.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.faults.judge import Verdict, judged
from benchmarks.faults.night import Night, counted, learned_ranges, process_night
from benchmarks.faults.nights import NIGHTS
from qlstream.instrument import Instrument, load_instrument
from qlstream.io.camword import decode_camword, parse_cameras
from qlstream.simulate.faults import parse_fault

COLUMNS = ("fault", "must be found", "at places", "missed", "unexplained there", "right")
BEFORE = (20260112, 20260113, 20260114)  # nights that ranges are learned from
_SHOWN = 4  # of a list in one cell


@click.command()
@click.option("--instrument", "name", default="mini", show_default=True)
@click.option("--cameras", default="a0123456789", show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(NIGHTS)), help="these nights; repeatable")
@click.option("--learned", is_flag=True, help="judge by ranges learned from three healthy nights before")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="write the tables to this file too")
def main(name: str, cameras: str, seed: int, only: tuple[str, ...], learned: bool, markdown: Path | None) -> None:
    """Compare the alarms of simulated nights with the faults that were put into them."""
    instrument = load_instrument(name)
    chosen = decode_camword(parse_cameras(cameras))
    table = Table(*COLUMNS, title=f"{name}, {len(chosen)} cameras, seed {seed}")
    text = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as past:
        known = learned_ranges(instrument, Path(past), BEFORE, chosen, seed) if learned else None
        for title in only or NIGHTS:
            rows, told = _one_night(title, instrument, chosen, seed, known)
            text += ["| " + " | ".join(row) + " |" for row in rows]
            for row in rows:
                table.add_row(*row)
            notes += told
            print(told[0], flush=True)
    Console(width=200, markup=False).print(table)
    print("\n".join(notes))
    if markdown:
        markdown.write_text("\n".join([*text, "", *(f"- {note}" for note in notes)]) + "\n")


def _one_night(
    title: str, instrument: Instrument, cameras: list[str], seed: int, learned: Path | None
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of the table, and what else is to be told."""
    faults = [parse_fault(fault, instrument) for fault in NIGHTS[title]]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        night = process_night(instrument, Path(folder), faults, cameras, seed=seed, learned=learned)
        verdicts, spurious = judged(night, faults, learned is not None)
    summed = f"{title} ({time.monotonic() - started:.0f} s): {summary(night, spurious)}"
    return [cells(verdict) for verdict in verdicts], [summed, *spurious]


def summary(night: Night, spurious: list[str]) -> str:
    """What the night showed in all, in one sentence."""
    places = len(night.jobs)
    alarms, warnings, unknowns = (counted(f.values()) for f in (night.alarms, night.warnings, night.unknowns))
    return (
        f"{places} cameras reduced; alarms where there is no fault: {len(spurious)}; "
        f"ALARM {_counts(alarms)}; WARNING {_counts(warnings)}; UNKNOWN {_counts(unknowns)}"
    )


def cells(verdict: Verdict) -> tuple[str, ...]:
    """A verdict as text."""
    return (
        verdict.fault,
        verdict.expected,
        str(verdict.places),
        _some(verdict.missed),
        _some(verdict.stray),
        "yes" if verdict.is_right else "NO",
    )


def _counts(counts: dict[str, int]) -> str:
    return f"{sum(counts.values())}" + (f" ({', '.join(f'{k} {n}' for k, n in counts.items())})" if counts else "")


def _some(texts: tuple[str, ...]) -> str:
    more = f" … {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more


if __name__ == "__main__":
    main()
