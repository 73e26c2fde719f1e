"""`qlstream demo`: a simulated night, streamed through the real pipeline into the live dashboard."""

from __future__ import annotations

import math
import os
import shutil
import socket
import sys
import threading
import time
import webbrowser
from contextlib import suppress
from pathlib import Path

import click

from qlstream.cli.options import Speed
from qlstream.engine.dashboard_process import settle_port, url_of
from qlstream.engine.hub import run_service
from qlstream.ingest.replay import Replay
from qlstream.instrument import load_instrument
from qlstream.io.camword import decode_camword, parse_cameras
from qlstream.logging import start_logging
from qlstream.settings import Settings, load_settings
from qlstream.simulate.faults import parse_fault
from qlstream.simulate.night import simulate_night
from qlstream.store.database import Store

NIGHT = 20260115
FAULTS = ("noisy-amp:r0:C@9", "lamp-off@8")


@click.command(epilog=f"The night has two faults in it: {' and '.join(FAULTS)}. Find them on the page.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="emptied first"
)
@click.option("--cameras", default="a01", show_default=True, help="cameras of the mini instrument, as a camword")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="another seed, another night")
@click.option("--speed", type=Speed(), help="times the real cadence, or max  [default: 600; with --once max]")
@click.option("--once", is_flag=True, help="end when the night is done; status 0 if nothing failed")
@click.option("--port", type=int, metavar="N", help="port of the dashboard; 0 takes a free one")
@click.option("--no-browser", is_flag=True, help="only print the address")
@click.option("--no-dashboard", is_flag=True, help="no pages at all")
def demo(
    folder: Path,
    cameras: str,
    seed: int,
    speed: float | None,
    once: bool,
    port: int | None,
    no_browser: bool,
    no_dashboard: bool,
) -> None:
    """Simulate a small night and stream it through the pipeline into the live dashboard."""
    _empty(folder)
    night = folder / "night"
    click.echo(f"simulating {NIGHT} of the mini instrument in {night} ...")
    instrument = load_instrument("mini")
    chosen = decode_camword(parse_cameras(cameras))
    simulate_night(instrument, NIGHT, night, chosen, seed, [parse_fault(text, instrument) for text in FAULTS])
    flags = {
        "raw": night / "raw",
        "calib": night / "calib",
        "redux": folder / "redux",
        "dashboard.port": port,
        "dashboard.enabled": not no_dashboard,
    }
    settings = load_settings(None, flags)
    start_logging(settings.logging.level, settings.logging.file)
    if settings.dashboard.enabled:
        settings = settle_port(settings)
        click.echo(f"dashboard: {url_of(settings)}" + ("" if once else " (Ctrl-C ends the demo)"))
        if not no_browser and not once and _has_screen():
            threading.Thread(target=_open_when_up, args=(settings,), daemon=True).start()
    speed = speed or (math.inf if once else 600.0)

    def intake(settings: Settings, store: Store) -> Replay:
        return Replay(settings, store, NIGHT, speed)

    tally = run_service(settings, intake, once)
    click.echo(f"qlstream: {tally}")
    if once and not tally.is_good:
        raise SystemExit(1)


def _has_screen() -> bool:
    """Whether a window can open; a browser for the terminal would take the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))


def _open_when_up(settings: Settings) -> None:
    """Show the pages once the server answers; it starts with the service."""
    for _ in range(600):
        with suppress(OSError), socket.create_connection((settings.dashboard.host, settings.dashboard.port), 1.0):
            webbrowser.open(url_of(settings))
            return
        time.sleep(0.1)


def _empty(folder: Path) -> None:
    """Take away the last demo; anything else stays.

    Raises
    ------
    click.ClickException : the folder holds what no demo made
    """
    if not folder.exists():
        return
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in ("night", "redux"))
    if foreign:
        raise click.ClickException(f"{folder} holds {', '.join(foreign[:5])}; give an empty or new --folder")
    for name in ("night", "redux"):
        shutil.rmtree(folder / name, ignore_errors=True)
