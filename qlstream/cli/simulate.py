"""`qlstream simulate`: a night of raw exposures with known truth."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from qlstream.instrument import Instrument, load_instrument
from qlstream.io.camword import decode_camword, parse_cameras
from qlstream.simulate.faults import GRAMMAR, parse_fault
from qlstream.simulate.faults import KINDS as FAULTS
from qlstream.simulate.night import count_steps, simulate_night
from qlstream.simulate.schedule import DEFAULT_NIGHT
from qlstream.simulate.schedule import KINDS as EXPOSURES


@click.command(epilog="Faults: " + "; ".join(f"{name}: {kind.what}" for name, kind in FAULTS.items()) + ".")
@click.option(
    "--instrument", "name", default="mini", show_default=True, help="mini, desi, or an instrument's YAML file"
)
@click.option("--night", type=int, default=20260115, show_default=True, help="YYYYMMDD")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="gets raw/, calib/, truth/"
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="same seed, same pixels")
@click.option("--cameras", help="such as r0,b0 or a0; default: those of the first spectrograph")
@click.option("--fault", "faults", multiple=True, metavar=GRAMMAR, help="break something; repeatable")
@click.option("--exposures", help=f"comma-separated list of {', '.join(EXPOSURES)}; default: 12 exposures of all kinds")
@click.option("--no-fluxcalib", is_flag=True, help="leave the average flux calibration out of the tree")
@click.option("--fiberassign", is_flag=True, help="write fiberassign and coordinates files instead of fibermaps")
@click.option("--noiseless", is_flag=True, help="put noiseless images in the truth files")
def simulate(
    name: str,
    night: int,
    out: Path,
    seed: int,
    cameras: str | None,
    faults: tuple[str, ...],
    exposures: str | None,
    no_fluxcalib: bool,
    fiberassign: bool,
    noiseless: bool,
) -> None:
    """Simulate a night of raw exposures, with its calibration tree and the truth beside it."""
    try:
        instrument = load_instrument(name)
        chosen = _cameras(cameras, instrument)
        kinds = tuple(kind.strip() for kind in exposures.split(",")) if exposures else DEFAULT_NIGHT
        broken = [parse_fault(text, instrument) for text in faults]
        columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        started = time.process_time()
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("", total=count_steps(chosen, kinds))

            def report(what: str) -> None:
                progress.update(task, advance=1, description=what)

            paths = simulate_night(
                instrument, night, out, chosen, seed, broken, kinds, not no_fluxcalib, noiseless, report, fiberassign
            )
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise click.ClickException(str(error.args[0] if error.args else error)) from None
    seconds = time.process_time() - started
    click.echo(
        f"{len(paths)} exposures x {len(chosen)} cameras in {out / 'raw' / str(night)}: {seconds:.1f} s of CPU time"
    )


def _cameras(text: str | None, instrument: Instrument) -> tuple[str, ...]:
    """The cameras asked for, in the instrument's order.

    Raises
    ------
    ValueError : the instrument does not have them
    """
    if text is None:
        return instrument.cameras[: len(instrument.arms)]
    wanted = set(decode_camword(parse_cameras(text)))
    unknown = sorted(wanted - set(instrument.cameras))
    if unknown or not wanted:
        known = f"{instrument.cameras[0]} to {instrument.cameras[-1]}"
        raise ValueError(f"--cameras {text}: {instrument.name} has no {', '.join(unknown) or 'such'}; it has {known}")
    return tuple(camera for camera in instrument.cameras if camera in wanted)
