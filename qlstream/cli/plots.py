"""`qlstream plots`: static plots of stored results, to print or to mail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import orjson

from qlstream.cli.options import Night
from qlstream.engine.plots import plot_maker, write_plots
from qlstream.engine.qafiles import merged_qa_path, qa_path
from qlstream.io.camword import decode_camword, parse_cameras
from qlstream.io.paths import findfile
from qlstream.logging import start_logging
from qlstream.settings import load_settings

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("night", type=Night())
@click.argument("expid", type=click.IntRange(min=0))
@click.argument("cameras", nargs=-1)
@click.option("--redux", "--specprod_dir", type=_FILE, help="production folder")
@click.option("-p", "--pages", "--qlplots", "pages", type=_FILE, help="YAML with the pages; default the shipped ones")
@click.option(
    "--one",
    type=click.Choice(["exposure", "camera", "metric"]),
    default="exposure",
    show_default=True,
    help="one PDF for the exposure or for each camera, or a file for each metric",
)
@click.option("--format", "plot_format", type=click.Choice(["png", "pdf"]), help="of the files of --one metric")
@click.option("--out", type=_FILE, help="folder to write to; default beside the results")
@click.option("--config", type=_FILE, help="the site's settings")
def plots(
    night: int,
    expid: int,
    cameras: tuple[str, ...],
    redux: Path | None,
    pages: Path | None,
    one: str,
    plot_format: str | None,
    out: Path | None,
    config: Path | None,
) -> None:
    """Draw the stored results of exposure EXPID of NIGHT, of all CAMERAS or of some (r3 z0, or a camword)."""
    settings = load_settings(config, {"redux": redux, "plots.config": pages, "plots.format": plot_format})
    settings.require("redux")
    assert settings.redux is not None
    start_logging(settings.logging.level, settings.logging.file)
    maker = plot_maker(settings)
    found = _results(settings.redux, night, expid, cameras)
    written: list[Path] = []
    if one == "exposure":
        written.append(Path(findfile("ql_exposure_plots", night, expid, specprod_dir=settings.redux, outdir=out)))
        maker.draw_book(_read(found.values()), written[0])
    for merged in _read(found.values()) if one != "exposure" else ():
        if one == "camera":
            path = qa_path(settings.redux, "plots", night, expid, merged["CAMERA"], "pdf")
            written.append(path if out is None else out / path.name)
            maker.draw_book([merged], written[-1])
        else:
            written += write_plots(maker, merged, settings.redux, settings.plots.format, out).values()
    for path in written:
        click.echo(f"wrote {path}")


def _results(redux: Path, night: int, expid: int, cameras: tuple[str, ...]) -> dict[str, Path]:
    """The merged QA of each camera, in the order of the cameras' names.

    Raises
    ------
    click.ClickException : there is none of a camera, or of any
    """
    pattern = merged_qa_path(redux, night, expid, "*")
    there = {path.name.split("-")[2]: path for path in sorted(pattern.parent.glob(pattern.name))}
    try:
        wanted = decode_camword(parse_cameras(cameras)) if cameras else list(there)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    missing = [camera for camera in wanted if camera not in there]
    if missing or not there:
        of = f" of {', '.join(missing)}" if missing else ""
        known = ", ".join(there) or "none of this exposure"
        raise click.ClickException(f"no results{of} in {pattern.parent}; there are {known}; check --redux and EXPID")
    return {camera: there[camera] for camera in wanted}


def _read(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        try:
            yield orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise click.ClickException(f"{path} is no merged QA: {error}; reduce the camera again") from error
