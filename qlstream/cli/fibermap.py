"""`qlstream fibermap`: put a fibermap together by hand, and compare tables of assignments."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from qlstream.cli.options import Night
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.masks import FiberMask
from qlstream.io.assemble import assemble_fibermap
from qlstream.io.badamps import validate_badamps
from qlstream.io.fiberassign import FiberAssign, compare_fiberassign, read_fiberassign
from qlstream.io.fibermap import read_fibermap, write_fibermap
from qlstream.io.fitsfile import FitsFile
from qlstream.io.paths import findfile
from qlstream.settings import load_settings

_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def fibermap() -> None:
    """Which target each fiber looks at, and how well it stands on it."""


@fibermap.command()
@click.option("-n", "--night", required=True, type=Night(), help="night, YYYYMMDD")
@click.option("-e", "--expid", required=True, type=click.IntRange(min=0), help="exposure number")
@click.option("--raw", "--rawdata_dir", type=_PATH, help="folder of raw exposures (DESI_SPECTRO_DATA)")
@click.option("--redux", "--specprod_dir", type=_PATH, help="production folder; gets the file")
@click.option("-o", "--outfile", type=_PATH, help="write here instead")
@click.option("--overwrite", is_flag=True, help="replace a file that is there")
@click.option("--badamps", metavar="LIST", help="amplifiers known to be bad, such as b7D,z8A")
@click.option(
    "--badfibers", type=_FILE, help="CSV of FIBER, FIBERSTATUS; default badfibers-NIGHT.csv of the production"
)
@click.option("--tiles", type=_PATH, help="tree of corrected fiberassign files (FIBER_ASSIGN_DIR)")
@click.option("--no-svn-override", is_flag=True, help="leave that tree alone")
@click.option("--instrument", help="name, YAML file, or auto for what the header says")
@click.option("--config", type=_FILE, help="the site's settings")
def assemble(
    night: int,
    expid: int,
    raw: Path | None,
    redux: Path | None,
    outfile: Path | None,
    overwrite: bool,
    badamps: str | None,
    badfibers: Path | None,
    tiles: Path | None,
    no_svn_override: bool,
    instrument: str | None,
    config: Path | None,
) -> None:
    """Put the fibermap of an exposure together from its fiberassign and coordinates files."""
    settings = load_settings(config, {"raw": raw, "redux": redux, "instrument": instrument})
    settings.require("raw", *(() if outfile else ("redux",)))
    target = outfile or Path(findfile("fibermap", night, expid, specprod_dir=settings.redux))
    if target.exists() and not overwrite:
        raise click.ClickException(
            f"{target} is there already; give --overwrite to replace it, or -o for another place"
        )
    try:
        made = assemble_fibermap(
            night,
            expid,
            validate_badamps(badamps or settings.engine.badamps),
            badfibers,
            not no_svn_override,
            rawdata_dir=settings.raw,
            specprod_dir=settings.redux,
            tiles_dir=tiles,
            instrument=settings.instrument,
        )
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    write_fibermap(target, made)
    click.echo(_summary(made))
    click.echo(f"wrote {target}")


@fibermap.command()
@click.argument("first", type=_FILE)
@click.argument("second", type=_FILE)
@click.option("--all", "compare_all", is_flag=True, help="compare every column, not only what observing depends on")
def compare(first: Path, second: Path, compare_all: bool) -> None:
    """Name the columns in which two fiberassign files (or fibermaps) differ; status 1 if they do.

    Rows are compared by LOCATION, so their order is of no account.
    """
    try:
        columns = compare_fiberassign(_read(first), _read(second), compare_all)
    except (OSError, ValueError, KeyError) as error:
        raise click.ClickException(str(error.args[0] if isinstance(error, KeyError) else error)) from error
    if columns:
        click.echo(f"{len(columns)} column{'s differ' if len(columns) > 1 else ' differs'}: {', '.join(columns)}")
        raise SystemExit(1)
    click.echo("no differences" if compare_all else "no differences in what observing depends on")


def _read(path: Path) -> FiberAssign | Fibermap:
    with FitsFile(path) as fits:
        is_fibermap = "FIBERMAP" in fits
    return read_fibermap(path) if is_fibermap else read_fiberassign(path)


def _summary(made: Fibermap) -> str:
    """How many fibers look at what, and which bits are set how often."""
    status = made.column("FIBERSTATUS").astype(np.int64)
    counts = {bit.name: int(((status & int(bit)) != 0).sum()) for bit in FiberMask}
    bits = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    kinds = ", ".join(f"{(made.objtype == kind).sum()} {kind}" for kind in ("TGT", "SKY", "BAD"))
    where = made.meta["COORDFIL"]
    if where == "MISSING":
        where = f"unknown ({made.meta['COORDWHY']})"
    return f"{len(made)} fibers: {kinds}\nFIBERSTATUS: {bits or 'no bit is set'}\npositions: {where}"
